"""A segmentation of anyone, read back onto the images that it refers to: the planes where most is marked.

Runs in the compute child only. In: the SEG's file and the files of its study by SOP Instance UID. Out: a group with its
label map and pictures. Overlapping segments: the later one is seen. Holds few planes at once, however many there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.dicom.codes import Concept
from pacsnode.encode.marking import View
from pacsnode.errors import Permanent
from pacsnode.findings import Group, Segment
from pacsnode.infer.decoding import Layout, read_layout, stored_frames, syntax_uid
from pacsnode.infer.headers import items, numbers, read_dataset, value, whole
from pacsnode.infer.looks import NO_LOOK, drawn, read_look
from pacsnode.infer.pixels import between, through_modality_lut
from pacsnode.infer.shown import reduced
from pacsnode.infer.spacing import true_spacing_mm
from pacsnode.show.items import text

MOST_PICTURES = 12
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99")
MOST_SEGMENTS = 255
MOST_SOURCES = 5000
COLOURS = ((255, 90, 80), (70, 160, 255), (90, 220, 120), (255, 200, 60), (210, 120, 255), (80, 230, 230))
NOWHERE = Concept("", "", "")
Place = tuple[str, int]
"""SOP Instance UID of an image and its frame, from 1."""


@dataclass(frozen=True)
class Drawn:
    """What is drawn of a segmentation: `left_out` planes were too many, `missing` images are not here."""

    group: Group
    views: tuple[View, ...]
    left_out: int
    missing: int


def read_segmentation(path: Path, sources: Mapping[str, Path]) -> Drawn:
    """The planes of the SEG at `path` with the most pixels. Raises Permanent where none of its images is here."""
    header = read_dataset(path, with_pixels=False)
    layout = read_layout(header)
    frames = _frames(header, sources)
    if not frames:
        raise Permanent("the segmentation does not say which images it lies on, or none of them is here")
    here = {number: frame for number, frame in frames.items() if frame[0][0] in sources}
    if not here:
        raise Permanent("none of the images that the segmentation lies on is here")
    sizes: dict[Place, int] = defaultdict(int)
    for number, labels in _labels(path, header, layout, here):
        sizes[here[number][0]] += int(np.count_nonzero(labels))
    marked = sorted((place for place in sizes if sizes[place]), key=lambda place: -sizes[place])
    chosen = marked[:MOST_PICTURES]
    if not chosen:
        raise Permanent("nothing is marked in the segmentation")
    maps = {place: np.zeros((layout.rows, layout.columns), np.uint8) for place in chosen}
    for number, labels in _labels(path, header, layout, {n: f for n, f in here.items() if f[0] in maps}):
        target = maps[here[number][0]]
        target[labels > 0] = labels[labels > 0]
    views = tuple(_view(sources, place, n, layout) for n, place in enumerate(chosen))
    spacing = true_spacing_mm(read_dataset(sources[chosen[0][0]], with_pixels=False))[0]
    group = Group(
        source=tuple(uid for uid, _ in chosen),
        segments=_segments(header),
        label_map=np.stack([maps[place] for place in chosen]),
        spacing_mm=spacing,
    )
    missing = len({frame[0] for frame in frames.values()} - {frame[0] for frame in here.values()})
    return Drawn(group, tuple(v for v in views if v.size == views[0].size), len(marked) - len(chosen), missing)


def _frames(header: Dataset, sources: Mapping[str, Path]) -> dict[int, tuple[Place, int]]:
    """By the number of each frame (from 1): the image that it lies on and its segment, 0 for a label map."""
    shared = items(header, "SharedFunctionalGroupsSequence")[:1]
    found: dict[int, tuple[Place, int]] = {}
    by_position: dict[tuple[int, ...], str] | None = None
    for number, group in enumerate(items(header, "PerFrameFunctionalGroupsSequence"), start=1):
        holders = [group, *shared]
        segment = next(
            (
                whole(i, "ReferencedSegmentNumber", 0)
                for h in holders
                for i in items(h, "SegmentIdentificationSequence")
            ),
            0,
        )
        place = _derived(holders)
        if place is None:
            by_position = _positions(sources) if by_position is None else by_position
            uid = by_position.get(_position(holders, "PlanePositionSequence"), "")
            place = (uid, 1) if uid else None
        if place is not None and 0 <= segment <= MOST_SEGMENTS:
            found[number] = (place, segment)
    return found


def _derived(holders: Sequence[Dataset]) -> Place | None:
    """The source image that a frame names (PS3.3 C.7.6.16.2.6)."""
    for holder in holders:
        for derivation in items(holder, "DerivationImageSequence"):
            for source in items(derivation, "SourceImageSequence"):
                frame = value(source, "ReferencedFrameNumber")
                first = frame if isinstance(frame, int) else next(iter(frame), 1) if frame else 1
                return text(source, "ReferencedSOPInstanceUID"), int(first)
    return None


def _position(holders: Sequence[Dataset], macro: str) -> tuple[int, ...]:
    """In tenths of a millimetre; () where there is none."""
    for holder in holders:
        for item in items(holder, macro) if macro else [holder]:
            found = numbers(value(item, "ImagePositionPatient"), 3)
            if found is not None:
                return tuple(int(n) for n in np.round(found * 10))
    return ()


def _positions(sources: Mapping[str, Path]) -> dict[tuple[int, ...], str]:
    """For a segmentation that names no image of its frames: those that lie at the same place."""
    found: dict[tuple[int, ...], str] = {}
    for uid, path in list(sources.items())[:MOST_SOURCES]:
        try:
            position = _position([read_dataset(path, with_pixels=False)], "")
        except Permanent:
            continue
        if position:
            found.setdefault(position, uid)
    return found


def _labels(
    path: Path, header: Dataset, layout: Layout, frames: Mapping[int, tuple[Place, int]]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The number and the labels, (rows, columns), of each frame that is wanted."""
    is_fractional = text(header, "SegmentationType") == "FRACTIONAL"
    least = max(1, whole(header, "MaximumFractionalValue", 255) // 2) if is_fractional else 1
    wanted = sorted(frames)
    is_packed = whole(header, "BitsAllocated", 8) == 1 and syntax_uid(header) in PLAIN
    every = _unpacked(path, layout, wanted) if is_packed else stored_frames(path, header, layout, wanted)
    for number, stored in zip(wanted, every, strict=True):
        if stored.ndim != 2:
            raise Permanent("the segmentation is coloured")
        segment = frames[number][1]
        labels = np.minimum(stored, MOST_SEGMENTS).astype(np.uint8)
        yield number, labels if segment == 0 else (labels >= least).astype(np.uint8) * np.uint8(segment)


def _unpacked(path: Path, layout: Layout, wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """Frames of single bits, which need not begin at a byte (PS3.5 8.1.1): pydicom refuses those by their number."""
    data = value(read_dataset(path), "PixelData")
    count = layout.rows * layout.columns
    if not isinstance(data, bytes) or len(data) * 8 < wanted[-1] * count:
        raise Permanent("the file is shorter than the pixels that its header announces")
    for number in wanted:
        start = (number - 1) * count
        part = np.frombuffer(data, np.uint8)[start // 8 : (start + count + 7) // 8]
        yield np.unpackbits(part, bitorder="little")[start % 8 :][:count].reshape(layout.rows, layout.columns)


def _view(sources: Mapping[str, Path], place: Place, plane: int, layout: Layout) -> View:
    uid, frame = place
    path = sources[uid]
    header = read_dataset(path, with_pixels=False)
    number = text(header, "InstanceNumber")[:12]
    many = whole(header, "NumberOfFrames", 1) != 1
    caption = f"Frame {frame}" if many else f"Image {number or plane + 1}"
    size = (whole(header, "Rows", 0), whole(header, "Columns", 0))
    if size != (layout.rows, layout.columns):
        raise Permanent("the segmentation does not have the size of its images")
    return View(reduced(_picture(path, frame, many)), size, plane, caption)


def _picture(path: Path, frame: int, many: bool) -> NDArray[np.uint8]:
    """A frame as its header wants it looked at; bright is dense."""
    header = read_dataset(path, with_pixels=False)
    (stored,) = stored_frames(path, header, read_layout(header), [frame])
    if stored.ndim == 3:
        return np.asarray(stored, dtype=np.uint8)
    values = through_modality_lut(stored, header).astype(np.float32)
    slope, intercept = (value(header, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if isinstance(slope, float | int) and np.isfinite(slope) and not items(header, "ModalityLUTSequence"):
        values = values * np.float32(slope) + np.float32(intercept if isinstance(intercept, float | int) else 0)
    look = NO_LOOK if many else read_look(partial(value, header))  # frames have windows and rescales of their own
    low, high = drawn(values, look)
    picture = (between(values, low, high) * 255 + 0.5).astype(np.uint8)
    return np.asarray(255 - picture if text(header, "PhotometricInterpretation") == "MONOCHROME1" else picture)


def _segments(header: Dataset) -> tuple[Segment, ...]:
    found = []
    for item in items(header, "SegmentSequence")[:MOST_SEGMENTS]:
        number = whole(item, "SegmentNumber", 0)
        if 1 <= number <= MOST_SEGMENTS:
            label = text(item, "SegmentLabel")[:64] or f"Segment {number}"
            colour = _rgb(value(item, "RecommendedDisplayCIELabValue")) or COLOURS[(number - 1) % len(COLOURS)]
            found.append(Segment(number, label, NOWHERE, NOWHERE, None, colour))
    return tuple(found)


def _rgb(lab: Any) -> tuple[int, int, int] | None:
    """Of an encoded CIELab value (PS3.3 C.10.7.1.1), white at D65 as those who write them do."""
    given = numbers(lab, 3)
    if given is None:
        return None
    lightness, a, b = given[0] / 65535 * 100, given[1] / 65535 * 255 - 128, given[2] / 65535 * 255 - 128
    y = (lightness + 16) / 116
    cubes = np.array([y + a / 500, y, y - b / 200])
    xyz = np.where(cubes > 6 / 29, cubes**3, 3 * (6 / 29) ** 2 * (cubes - 4 / 29)) * [0.95047, 1.0, 1.08883]
    linear = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]) @ xyz
    linear = np.clip(linear, 0, 1)
    shown = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    red, green, blue = (int(n) for n in np.round(shown * 255))
    return red, green, blue
