"""Findings: what one service saw in one case, in the field's terms, with no DICOM object in it.

infer makes them, encode turns them into SR, SEG and pictures; between the two they lie in `runs/<key>/`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pacsnode.dicom.codes import Concept
from pacsnode.pictured import Pictures

_FEW = 20
"""Segments: up to so many, a comparison each is quicker than counting."""
NOT_FOR_DIAGNOSIS = "Not for diagnosis; not evaluated clinically."


class Presence(StrEnum):
    """CID 240. ABSENT only where the model card holds a sensitivity measured on real data."""

    PRESENT = "present"
    ABSENT = "absent"
    UNDETERMINED = "undetermined"


class Shape(StrEnum):
    """How the points of a region are meant; see `Region.points`."""

    POINT = "point"
    POLYLINE = "polyline"
    POLYGON = "polygon"
    CIRCLE = "circle"
    ELLIPSE = "ellipse"
    BOX = "box"


Point = tuple[float, float]
"""(column, row) as SCOORD has it (PS3.3 C.18.6.1.2): 0, 0 is the outer corner of the top left pixel, 0.5, 0.5 its
centre; the right and lower border of the image are at its columns and rows."""


@dataclass(frozen=True)
class Measurement:
    """One number. `derivation` says in words how it was got, where a reader would have to guess.

    `regions`: keys of the regions of the same group from which it was got, such as the line of a length.
    """

    name: Concept
    value: float
    unit: Concept
    site: Concept | None = None
    laterality: Concept | None = None
    derivation: str = ""
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """One qualitative finding; `probability` is 0 to 1, None where the method gives none."""

    name: Concept
    presence: Presence
    probability: float | None = None
    comment: str = ""
    site: Concept | None = None
    laterality: Concept | None = None


@dataclass(frozen=True)
class Region:
    """One place in one image: a finding, or a line or outline that a number was got from.

    `key`: its name among the regions of its group. `image`: SOP Instance UID, one of the group's `source`; `frame`: its
    frame from 1, None in a single-frame image. `presence` and `probability` (0 to 1): None where nothing is said.
    `points` by shape: one of a point; two or more of a polyline; three or more of a polygon, which closes itself; the
    centre and a point of a circle; of an ellipse both ends of the long axis, then both of the short one; two
    opposite corners of a box. `measurements` are about this region alone. `also`: images and frames on which the same
    outline lies beside `image`: the other slices of a box in a volume.
    """

    key: str
    label: str
    category: Concept
    type: Concept
    image: str
    shape: Shape
    points: tuple[Point, ...]
    frame: int | None = None
    site: Concept | None = None
    laterality: Concept | None = None
    presence: Presence | None = None
    probability: float | None = None
    comment: str = ""
    measurements: tuple[Measurement, ...] = ()
    color_rgb: tuple[int, int, int] = (255, 220, 0)
    also: tuple[tuple[str, int | None], ...] = ()


@dataclass(frozen=True)
class Segment:
    """One label of a label map: `value` is its number there (1 to n, without gaps).

    `may_be_absent`: that there is none of it is an answer (a lesion), not a failed analysis.
    """

    value: int
    label: str
    category: Concept
    type: Concept
    laterality: Concept | None = None
    color_rgb: tuple[int, int, int] = (255, 0, 0)
    may_be_absent: bool = False


@dataclass(frozen=True)
class Trace:
    """A waveform as the reader sees it. `millivolts` has shape (leads, samples); `beats` are sample numbers, from 0."""

    leads: tuple[str, ...]
    millivolts: NDArray[np.float32]
    sampling_hz: float
    beats: tuple[int, ...] = ()


@dataclass(frozen=True)
class Group:
    """What was seen in one input.

    `source`: SOP Instance UIDs of the input, in the order of the label map's first axis; one of a multi-frame object.
    `frames`: the number (from 1) of the frame of each plane of the label map, where only some frames of a multi-frame
    object were analysed or in another order; empty where it is all of them as they stand.
    `label_map`: (frames, rows, columns) uint8 on the grid of the source; 0 is background.
    `overlaid`: more label maps of the same shape, where segments overlap: what of a segment has no room in the first.
    `probabilities`: (segments, frames, rows, columns) uint8, 255 is certain, of `segments` in their order; None where
    the service keeps none.
    `picture`: of a single image, (rows, columns) uint8, window applied, bright is dense (MONOCHROME2), or (rows,
    columns, 3) RGB; only for drawing, as `pictures` of a volume or clip. `spacing_mm`: between rows, between columns,
    in the patient; None where none is known to be true.
    `notes`: sentences that a reader must know (limits, missing calibration).
    """

    source: tuple[str, ...]
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    segments: tuple[Segment, ...] = ()
    notes: tuple[str, ...] = ()
    label_map: NDArray[np.uint8] | None = None
    picture: NDArray[np.uint8] | None = None
    trace: Trace | None = None
    frames: tuple[int, ...] = ()
    regions: tuple[Region, ...] = ()
    overlaid: tuple[NDArray[np.uint8], ...] = ()
    probabilities: NDArray[np.uint8] | None = None
    pictures: Pictures | None = None
    spacing_mm: tuple[float, float] | None = None

    @property
    def maps(self) -> tuple[NDArray[np.uint8], ...]:
        """All label maps, none where the service has no segments."""
        return () if self.label_map is None else (self.label_map, *self.overlaid)

    @cached_property
    def occupied(self) -> NDArray[np.bool_]:
        """(frames, 256): which values the planes of the label maps have; of the background it says nothing."""
        found = np.zeros((0 if self.label_map is None else len(self.label_map), 256), dtype=np.bool_)
        for label_map in self.maps:
            for plane, values in zip(label_map, found, strict=True):  # one by one: bincount takes eight bytes a pixel
                top = int(plane.max())
                if top <= _FEW:
                    for value in range(1, top + 1):
                        values[value] |= (plane == value).any()
                else:
                    values |= np.bincount(plane.ravel(), minlength=256) > 0
        return found

    def mask(self, *values: int) -> NDArray[np.bool_]:
        """(frames, rows, columns): where any of the segments with these values is."""
        return united(self.maps, values)

    def on_plane(self, plane: int, *values: int) -> NDArray[np.bool_]:
        """(rows, columns): as `mask`, of one plane."""
        return united([label_map[plane] for label_map in self.maps], values)

    def plane_of(self, region: Region) -> int:
        """The plane, from 0, that a region of this group lies in. Raises ValueError where it lies in none."""
        return self._plane(region.image, region.frame)

    def planes_of(self, region: Region) -> tuple[int, ...]:
        """As `plane_of`, and those that it passes through beside."""
        return tuple(self._plane(image, frame) for image, frame in ((region.image, region.frame), *region.also))

    def _plane(self, image: str, frame: int | None) -> int:
        if len(self.source) > 1:
            return self.source.index(image)
        if frame is None:
            return 0
        return self.frames.index(frame) if self.frames else frame - 1


def united(maps: Sequence[NDArray[np.uint8]], values: Sequence[int]) -> NDArray[np.bool_]:
    """Where any of the label maps, of one shape, has any of the values."""
    found = np.zeros(maps[0].shape, dtype=np.bool_)
    for label_map in maps:
        for value in values:  # a comparison each is three times as quick as np.isin on a film
            found |= label_map == value
    return found


@dataclass(frozen=True)
class Algorithm:
    """Who says so: every result carries this record (TID 4019, Contributing Equipment, comments)."""

    service: str
    title: str
    status: str
    version: str
    bundle_hash: str
    weights_hash: str
    method: str
    training_data: str
    quality: str
    intended_use: str
    licence: str
    device: str
    procedure: Concept
    machine_learning: bool


@dataclass(frozen=True)
class Findings:
    """All groups of one case and the algorithm that made them."""

    algorithm: Algorithm
    groups: tuple[Group, ...] = field(default_factory=tuple)


def outline(region: Region, chords: int = 72) -> tuple[Point, ...]:
    """The points to draw one after the other; the last equals the first where the shape is closed.

    Circle and ellipse become so many chords; a point stays one point.
    """
    points = region.points
    if region.shape == Shape.POLYGON:
        return points if points[0] == points[-1] else (*points, points[0])
    if region.shape == Shape.BOX:
        (left, top), (right, bottom) = points
        return ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
    if region.shape not in (Shape.CIRCLE, Shape.ELLIPSE):
        return points
    (x, y), across, along = _axes(region)
    turns = [2 * math.pi * step / chords for step in range(chords)]
    round_ = [
        (x + math.cos(t) * across[0] + math.sin(t) * along[0], y + math.cos(t) * across[1] + math.sin(t) * along[1])
        for t in turns
    ]
    return (*round_, round_[0])


def _axes(region: Region) -> tuple[Point, Point, Point]:
    """Centre of a circle or ellipse, and its two half axes as vectors."""
    if region.shape == Shape.CIRCLE:
        centre, rim = region.points
        radius = math.dist(centre, rim)
        return centre, (radius, 0.0), (0.0, radius)
    a, b, c, d = region.points
    return _middle(a, b), ((b[0] - a[0]) / 2, (b[1] - a[1]) / 2), ((d[0] - c[0]) / 2, (d[1] - c[1]) / 2)


def _middle(one: Point, other: Point) -> Point:
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2
