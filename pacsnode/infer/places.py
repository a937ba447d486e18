"""Places that a model found, to regions of the findings by the outputs of pipeline.yaml. Pure.

In: boxes on the grid of the source, or what a workflow told. Out: regions, the most probable first, and for each kind
whether there is any. What reaches over the border of the image is cut there; says `absent` as `groups` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pacsnode.errors import Permanent
from pacsnode.findings import Evaluation, Point, Presence, Region, Shape
from pacsnode.infer.answers import PROBABILITY_DIGITS
from pacsnode.infer.detection import Boxes
from pacsnode.infer.groups import careful
from pacsnode.infer.pipeline import LATERALITY, PipelineFile, RegionSpec

COORDINATE_DIGITS = 3
MOST_TOLD = 10_000
Place = tuple[str, int | None]
"""An image and its frame, None where it has only one."""


@dataclass(frozen=True)
class Planes:
    """Where a place may lie: image and frame of each plane of the input, in their order, and their size in pixels."""

    places: tuple[Place, ...]
    rows: int
    columns: int


@dataclass(frozen=True)
class _Found:
    """One place, on the planes from `first` to before `end`, drawn on the middle one."""

    points: tuple[Point, ...]
    first: int
    end: int
    score: float | None
    comment: str = ""

    @property
    def order(self) -> tuple[float, int, tuple[Point, ...]]:
        """The most probable first; so that a batch says the same as a single run, then by place."""
        return -(1.0 if self.score is None else self.score), self.first, self.points


Located = tuple[tuple[Region, ...], tuple[Evaluation, ...]]


def planes_of(source: Sequence[str], shape: tuple[int, ...], frames: Sequence[int] = ()) -> Planes:
    """Of a volume, clip or image: `source` and `frames` as in Group, `shape` (planes, rows, columns)."""
    if len(source) == 1 and (frames or shape[0] > 1):
        return Planes(tuple((source[0], frame) for frame in frames or range(1, shape[0] + 1)), shape[1], shape[2])
    return Planes(tuple((one, None) for one in source), shape[1], shape[2])


def located(pipeline: PipelineFile, boxes: Sequence[Boxes], planes: Planes) -> Located:
    """Of a detecting network: Boxes of each plane, or one for the volume of all planes."""
    found: dict[str, list[_Found]] = {spec.key: [] for spec in pipeline.regions}
    by_label = {spec.index: spec for spec in pipeline.regions}
    for number, one in enumerate(boxes):
        for corners, score, label in zip(one.corners, one.scores, one.labels, strict=True):
            spec = by_label.get(int(label))
            place = _cut(corners, number, planes) if spec is not None else None
            if spec is not None and place is not None:
                points, first, end = place
                found[spec.key].append(_Found(points, first, end, round(float(score), PROBABILITY_DIGITS)))
    return _reported(pipeline, found, planes)


def _cut(corners: Any, number: int, planes: Planes) -> tuple[tuple[Point, ...], int, int] | None:
    """Two corners of a box within its image and the planes that it lies on; None where there is nothing left of it."""
    size = len(corners) // 2
    low, high = np.array(corners[:size]), np.array(corners[size:])
    limits = (planes.columns, planes.rows, len(planes.places))[:size]
    low, high = np.clip(low, 0, limits).round(COORDINATE_DIGITS), np.clip(high, 0, limits).round(COORDINATE_DIGITS)
    if (low >= high).any():
        return None
    points = ((float(low[0]), float(low[1])), (float(high[0]), float(high[1])))
    if size == 2:
        return points, number, number + 1
    # The planes whose middle lies in the box; of one that is thinner than a slice, the slice that it lies in.
    first, end = math.ceil(low[2] - 0.5), math.ceil(high[2] - 0.5)
    if first >= end:
        first = min(int((low[2] + high[2]) / 2), len(planes.places) - 1)
        end = first + 1
    return points, first, end


def told(pipeline: PipelineFile, given: Any, planes: Planes | None) -> Located:
    """Of a workflow: a list of maps with `key`, `points`, and as it has them `plane`, `score` and `comment`."""
    if not pipeline.regions:
        return (), ()
    if planes is None or not isinstance(given, list | tuple) or len(given) > MOST_TOLD:
        raise Permanent("the method gave no list of regions, but pipeline.yaml has `regions`")
    specs = {spec.key: spec for spec in pipeline.regions}
    found: dict[str, list[_Found]] = {key: [] for key in specs}
    for one in given:
        if not isinstance(one, Mapping) or one.get("key") not in specs:
            raise Permanent("the method gave a region whose key pipeline.yaml does not know")
        found[one["key"]].append(_told(one, planes))
    return _reported(pipeline, found, planes)


def _told(given: Mapping[str, Any], planes: Planes) -> _Found:
    try:
        points = np.asarray(given.get("points"), dtype=np.float64).reshape(-1, 2)
        plane = int(given.get("plane", 0))
        score = None if given.get("score") is None else float(given["score"])
    except (TypeError, ValueError) as error:
        raise Permanent(f"the method gave a region that is none: {error}") from error
    inside = np.isfinite(points).all() and (points >= 0).all() and (points <= (planes.columns, planes.rows)).all()
    if not len(points) or not inside or not 0 <= plane < len(planes.places):
        raise Permanent(f"the method gave a region outside of its image of {planes.columns} x {planes.rows} pixels")
    if score is not None and not 0 <= score <= 1:
        raise Permanent(f"the method's score of a region is {score}, not between 0 and 1")
    rounded = tuple((float(x), float(y)) for x, y in points.round(COORDINATE_DIGITS))
    return _Found(rounded, plane, plane + 1, score, str(given.get("comment", "")))


def _reported(pipeline: PipelineFile, found: Mapping[str, Sequence[_Found]], planes: Planes) -> Located:
    regions: list[Region] = []
    evaluations = []
    for spec in pipeline.regions:
        ordered = sorted(found[spec.key], key=lambda one: one.order)
        enough = [one for one in ordered if one.score is None or one.score >= (spec.threshold or 0.0)]
        regions += _regions(spec, enough[: spec.most], planes)
        evaluations.append(_evaluation(pipeline, spec, ordered, len(enough)))
    return tuple(regions), tuple(evaluations)


def _regions(spec: RegionSpec, found: Sequence[_Found], planes: Planes) -> Iterator[Region]:
    for number, one in enumerate(found, start=1):
        middle = (one.first + one.end - 1) // 2
        image, frame = planes.places[middle]
        others = tuple(planes.places[n] for n in range(one.first, one.end) if n != middle)
        yield Region(
            key=f"{spec.key}-{number}",
            label=f"{spec.label} {number}",
            category=spec.category.concept,
            type=spec.name.concept,
            image=image,
            shape=Shape(spec.shape),
            points=one.points,
            frame=frame,
            also=others,
            site=spec.site.concept if spec.site else None,
            laterality=LATERALITY[spec.laterality],
            presence=Presence.PRESENT,
            probability=one.score,
            comment=one.comment,
        )


def _evaluation(pipeline: PipelineFile, spec: RegionSpec, ordered: Sequence[_Found], count: int) -> Evaluation:
    """Whether there is any, with the score of the best one, also where that was not enough."""
    comment = f"{count} found." if count <= spec.most else f"{count} found; the {spec.most} most probable are reported."
    presence, comment = careful(
        pipeline, spec.key, Presence.PRESENT if count else Presence.ABSENT, comment if count else ""
    )
    score = ordered[0].score if ordered else None
    site = spec.site.concept if spec.site else None
    return Evaluation(spec.name.concept, presence, score, comment, site, LATERALITY[spec.laterality])
