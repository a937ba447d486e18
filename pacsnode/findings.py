"""Findings: what one service saw in one case, in the field's terms, with no DICOM object in it.

infer makes them, encode turns them into SR, SEG and pictures; between the two they lie in `runs/<key>/`.
"""

from __future__ import annotations

import io
import json
import math
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacsnode.dicom.codes import Concept

RECORD = "findings.json"
"""Written last: its presence means that the record is whole."""

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
    """One label of a label map: `value` is its number there (1 to n, without gaps)."""

    value: int
    label: str
    category: Concept
    type: Concept
    laterality: Concept | None = None
    color_rgb: tuple[int, int, int] = (255, 0, 0)


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
    `picture`: (rows, columns) uint8, window applied, bright is dense (MONOCHROME2); only for drawing.
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


def save(findings: Findings, folder: Path) -> None:
    """Write `findings` into `folder` durably (arrays first, then the JSON that names them), mode 0600."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    arrays: dict[str, NDArray[Any]] = {}
    groups: list[dict[str, Any]] = []
    for number, group in enumerate(findings.groups):
        plain: dict[str, Any] = {
            "source": group.source,
            "measurements": [asdict(m) for m in group.measurements],
            "evaluations": [asdict(e) for e in group.evaluations],
            "segments": [asdict(s) for s in group.segments],
            "notes": group.notes,
            "frames": group.frames,
            "regions": [asdict(r) for r in group.regions],
        }
        if group.label_map is not None:
            arrays[f"{number}.label_map"] = group.label_map
        if group.picture is not None:
            arrays[f"{number}.picture"] = group.picture
        if group.trace is not None:
            arrays[f"{number}.millivolts"] = group.trace.millivolts
            plain["trace"] = {
                "leads": group.trace.leads,
                "sampling_hz": group.trace.sampling_hz,
                "beats": group.trace.beats,
            }
        groups.append(plain)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for a name here
    write_durably(folder / "arrays.npz", buffer.getvalue())
    text = json.dumps({"algorithm": asdict(findings.algorithm), "groups": groups}, ensure_ascii=False)
    write_durably(folder / RECORD, text.encode())


def load(folder: Path, *, with_arrays: bool = True) -> Findings:
    """Read what `save` wrote; without arrays there are no label maps, pictures and traces, and no big file is read.

    Raises FileNotFoundError where there is no whole record.
    """
    plain = json.loads((folder / RECORD).read_text())
    with np.load(folder / "arrays.npz", allow_pickle=False) if with_arrays else nullcontext({}) as arrays:
        groups = tuple(_group(number, g, arrays) for number, g in enumerate(plain["groups"]))
    algorithm = plain["algorithm"] | {"procedure": Concept(**plain["algorithm"]["procedure"])}
    return Findings(Algorithm(**algorithm), groups)


def _group(number: int, plain: dict[str, Any], arrays: Any) -> Group:
    trace = plain.get("trace")
    return Group(
        source=tuple(plain["source"]),
        measurements=tuple(map(_measurement, plain["measurements"])),
        evaluations=tuple(
            Evaluation(**_concepts(e) | {"presence": Presence(e["presence"])}) for e in plain["evaluations"]
        ),
        segments=tuple(Segment(**_concepts(s) | {"color_rgb": tuple(s["color_rgb"])}) for s in plain["segments"]),
        notes=tuple(plain["notes"]),
        label_map=arrays.get(f"{number}.label_map"),
        picture=arrays.get(f"{number}.picture"),
        trace=None
        if trace is None or f"{number}.millivolts" not in arrays
        else Trace(
            tuple(trace["leads"]),
            arrays[f"{number}.millivolts"],
            trace["sampling_hz"],
            tuple(trace["beats"]),
        ),
        frames=tuple(plain.get("frames", ())),
        regions=tuple(map(_region, plain.get("regions", ()))),
    )


def _measurement(plain: dict[str, Any]) -> Measurement:
    return Measurement(**_concepts(plain) | {"regions": tuple(plain.get("regions", ()))})


def _region(plain: dict[str, Any]) -> Region:
    typed: dict[str, Any] = {
        "shape": Shape(plain["shape"]),
        "points": tuple((column, row) for column, row in plain["points"]),
        "presence": None if plain["presence"] is None else Presence(plain["presence"]),
        "measurements": tuple(map(_measurement, plain["measurements"])),
        "color_rgb": tuple(plain["color_rgb"]),
        "also": tuple((image, frame) for image, frame in plain["also"]),
    }
    return Region(**_concepts(plain) | typed)


def _concepts(plain: dict[str, Any]) -> dict[str, Any]:
    return {k: Concept(**v) if isinstance(v, dict) else v for k, v in plain.items()}


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is there whole or not at all; mode 0600."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
