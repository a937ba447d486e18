"""What is to be drawn on which image: outlines of segments, regions, their labels; the plan of a presentation state.

In: a group of findings. Out: marks by image or frame, bounded in number. Decides nothing about how an image is shown.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pacsnode.encode.drawing import measurement_text
from pacsnode.encode.key_objects import Place, is_finding, place_of
from pacsnode.encode.outlines import Points, borders, outlines
from pacsnode.encode.seg import present_segments
from pacsnode.errors import Permanent
from pacsnode.findings import Group, Region, Segment, Shape

MOST_IMAGES: Final = 128
"""With marks, of one group; those with findings first, then those with the largest marked area."""
MOST_LINES: Final = 40
"""Of one segment in one image; the longest."""
MOST_REGIONS: Final = 1000
MOST_POINTS: Final = 100_000
"""Of one group: under a megabyte."""
MOST_BORDERS: Final = 600_000
"""Of pixels that are traced, of one group: some seconds; a lung on a large film has 10,000."""
_RAGGED: Final = 200_000
"""Borders of one segment in one image: more is noise, and is not traced."""
_ROUND: Final = 64  # points of a circle that reaches beyond the image
_SHAPES: Final = {Shape.POINT: "POINT", Shape.CIRCLE: "CIRCLE", Shape.ELLIPSE: "ELLIPSE"}


@dataclass(frozen=True)
class Layer:
    """What belongs together and can be switched off together: all of one segment, or of one kind of region."""

    label: str
    color_rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Mark:
    """One graphic object (PS3.3 C.10.5): `kind` is its Graphic Type; `text` stands at its highest point."""

    layer: Layer
    kind: str
    points: Points
    text: str = ""
    segment: Segment | None = None


@dataclass(frozen=True)
class Sheet:
    """One image, or frame, with its marks."""

    place: Place
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Plan:
    """All sheets of a group, in the order of its planes. `is_whole`: no mark had to be left out."""

    sheets: tuple[Sheet, ...]
    is_whole: bool


def plan(group: Group, sizes: Mapping[str, tuple[int, int]]) -> Plan:
    """The marks of `group`; `sizes`: columns and rows of each image."""
    found: dict[Place, list[Mark]] = {}
    left, borders_left = MOST_POINTS, MOST_BORDERS
    planes, is_whole = _planes(group)
    for number, segment in itertools.product(planes, present_segments(group)):
        top_left, mask = _cut_out(group.on_plane(number, segment.value))
        to_trace = borders(mask)
        if to_trace > min(_RAGGED, borders_left):
            is_whole = False
            continue
        borders_left -= to_trace
        lines = outlines(mask, MOST_LINES + 1)
        is_whole &= len(lines) <= MOST_LINES
        for mark in _outlined(lines[:MOST_LINES], top_left, segment):
            left -= len(mark.points)
            if left >= 0:
                found.setdefault(place_of(group, number), []).append(mark)
    is_whole &= len(group.regions) <= MOST_REGIONS
    for region in group.regions[:MOST_REGIONS]:
        for image, frame in ((region.image, region.frame), *region.also):
            left -= len(region.points)
            if left >= 0:
                found.setdefault(Place(image, frame), []).append(_marked(region, sizes[image]))
    sheets = tuple(Sheet(place, tuple(marks)) for place, marks in found.items())
    return Plan(sheets[: 2 * MOST_IMAGES], is_whole and left >= 0 and len(sheets) <= 2 * MOST_IMAGES)


def _planes(group: Group) -> tuple[list[int], bool]:
    """The planes (from 0) of the label map whose outlines are drawn, in order, and whether these are all."""
    if group.label_map is None:
        return [], True
    findings = [segment.value for segment in present_segments(group) if is_finding(segment)]
    ranked = []
    for number in range(len(group.label_map)):
        counts = np.zeros(256, dtype=np.int64)
        for label_map in group.maps:
            counts += np.bincount(label_map[number].ravel(), minlength=256)
        if counts[1:].any():
            ranked.append((-int(counts[findings].sum()), -int(counts[1:].sum()), number))
    chosen = sorted(ranked)[:MOST_IMAGES]
    return sorted(number for _, _, number in chosen), len(chosen) == len(ranked)


def _cut_out(mask: NDArray[np.bool_]) -> tuple[Points, NDArray[np.bool_]]:
    """The part of `mask` that is not empty, and its top left corner."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return np.zeros(2), mask[:0, :0]
    part = mask[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    return np.array([columns[0], rows[0]], dtype=np.float64), part


def _outlined(lines: Sequence[Points], top_left: Points, segment: Segment) -> Iterator[Mark]:
    """The outlines of one segment in one plane, the longest with its label."""
    layer = Layer(segment.label, segment.color_rgb)
    for number, line in enumerate(lines):
        text = segment.label[:64] if number == 0 else ""
        yield Mark(layer, "POLYLINE", _closed(line + top_left), text, segment)


def _marked(region: Region, size: tuple[int, int]) -> Mark:
    points = np.array(region.points, dtype=np.float64)
    if not np.isfinite(points).all():
        raise Permanent(f"the region {region.key} has a point that is no number")
    kind = _SHAPES.get(region.shape, "POLYLINE")
    inside = ((points >= 0) & (points <= size)).all()
    if region.shape is Shape.BOX:
        (left, top), (right, bottom) = points
        points = _closed(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]))
    elif region.shape is Shape.POLYGON:
        points = _closed(points)
    elif region.shape in (Shape.CIRCLE, Shape.ELLIPSE) and not inside:
        kind, points = "POLYLINE", _closed(_around(region.shape, points))
    points = points.clip((0, 0), size)
    return Mark(Layer(region.label, region.color_rgb), kind, points, "\r\n".join(_label(region)))


def _around(shape: Shape, points: Points) -> Points:
    """A circle or an ellipse as a polygon, for what reaches beyond the image: the standard wants all points inside."""
    angles = np.linspace(0, 2 * math.pi, _ROUND, endpoint=False)[:, np.newaxis]
    if shape is Shape.CIRCLE:
        center, radius = points[0], float(np.hypot(*(points[1] - points[0])))
        return np.asarray(center + radius * np.concatenate([np.cos(angles), np.sin(angles)], axis=1))
    center = points.mean(axis=0)
    return np.asarray(center + np.cos(angles) * (points[0] - center) + np.sin(angles) * (points[2] - center))


def _label(region: Region) -> Iterator[str]:
    sure = "" if region.probability is None else f" ({region.probability * 100:.0f} %)"
    yield f"{region.label}{sure}"[:64]
    yield from (measurement_text(measurement)[:64] for measurement in region.measurements[:3])


def _closed(line: Points) -> Points:
    return np.concatenate([line, line[:1]])


def layers_of(sheets: Sequence[Sheet]) -> list[Layer]:
    """Each once, in the order of appearance."""
    return list(dict.fromkeys(mark.layer for sheet in sheets for mark in sheet.marks))
