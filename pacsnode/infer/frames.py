"""Clips and colour pictures: ultrasound, angiography, endoscopy, fundus, multi-frame secondary captures.

Runs in the compute child only. In: a Part 10 file and, for a long clip, the numbers of the frames that are wanted.
Out: Frames, grey or RGB. Memory is bounded by the frames that are asked for, not by those that the clip has; videos
(MPEG) are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.errors import Permanent
from pacsnode.infer.decoding import Layout, read_layout, stored_frames
from pacsnode.infer.headers import items, positive, read_dataset, value
from pacsnode.infer.pixels import SAMPLE, between, is_falling, limits, through_modality_lut
from pacsnode.infer.spacing import true_spacing_mm

MAXIMUM_BYTES = 1_600_000_000
"""Of the frames that are held at once."""
SAMPLED_FRAMES = 8
"""On which the grey range of a clip is judged."""
LONGEST_CLIP = 200_000
"""Frames: almost two hours at thirty a second."""


@dataclass(frozen=True)
class Clip:
    """What a file holds, from its header. `times_s`: of each frame, from the first one; None where it does not say.

    `spacing_mm`: as in Image.
    """

    sop_instance_uid: str
    frames: int
    rows: int
    columns: int
    is_colour: bool
    times_s: tuple[float, ...] | None
    spacing_mm: tuple[float, float] | None
    spacing_note: str


@dataclass(frozen=True)
class Frames:
    """Frames of one clip. `numbers`: which ones, from 1, rising.

    `pixels`: (frames, rows, columns) float32, 0 to 1, MONOCHROME2 sense, one scale for the whole clip; or RGB: (frames,
    rows, columns, 3) uint8.
    """

    clip: Clip
    numbers: tuple[int, ...]
    pixels: NDArray[np.float32] | NDArray[np.uint8]


def read_clip(path: Path) -> Clip:
    """The header of a clip or single picture. Raises Permanent with a sentence that a radiographer understands."""
    header = read_dataset(path, with_pixels=False)
    return _clip(header, read_layout(header))


def read_frames(path: Path, numbers: Sequence[int] | None = None) -> Frames:
    """The frames of `numbers` (from 1), all where it is None. Raises Permanent, also for too many at once."""
    header = read_dataset(path, with_pixels=False)
    layout = read_layout(header)
    clip = _clip(header, layout)
    wanted = _wanted(numbers, clip)
    held = len(wanted) * clip.rows * clip.columns * (3 if clip.is_colour else 4)
    if held > MAXIMUM_BYTES:
        raise Permanent(
            f"{len(wanted)} frames of {clip.columns} x {clip.rows} pixels are more than the node reads at once"
        )
    if layout.is_colour:
        colours = np.empty((len(wanted), clip.rows, clip.columns, 3), dtype=np.uint8)
        for n, frame in enumerate(stored_frames(path, header, layout, wanted)):
            colours[n] = frame
        return Frames(clip, wanted, colours)
    greys = np.empty((len(wanted), clip.rows, clip.columns), dtype=np.float32)
    for n, frame in enumerate(_grey_frames(path, header, layout, wanted)):
        greys[n] = frame
    low, high = _range(path, header, layout)
    for frame in greys:
        between(frame, low, high)
    return Frames(clip, wanted, greys)


def evenly_spaced(count: int, most: int) -> tuple[int, ...]:
    """At most `most` frame numbers of `count`, from the first to the last one, evenly spaced."""
    if most >= count:
        return tuple(range(1, count + 1))
    return tuple(int(n) for n in np.unique(np.linspace(1, count, most).round()))


def _wanted(numbers: Sequence[int] | None, clip: Clip) -> tuple[int, ...]:
    wanted = tuple(range(1, clip.frames + 1) if numbers is None else sorted(set(numbers)))
    if not wanted or wanted[0] < 1 or wanted[-1] > clip.frames:
        raise ValueError(f"frames {wanted[:1]} to {wanted[-1:]} of a clip of {clip.frames}")
    return wanted


def _clip(header: Dataset, layout: Layout) -> Clip:
    if layout.frames > LONGEST_CLIP:
        raise Permanent(f"a clip of {layout.frames} frames is longer than the node reads")
    spacing, note = true_spacing_mm(header)
    return Clip(
        sop_instance_uid=str(header.SOPInstanceUID),
        frames=layout.frames,
        rows=layout.rows,
        columns=layout.columns,
        is_colour=layout.is_colour,
        times_s=_times_s(header, layout.frames),
        spacing_mm=spacing,
        spacing_note=note,
    )


def _grey_frames(path: Path, header: Dataset, layout: Layout, wanted: Sequence[int]) -> Iterator[NDArray[np.float32]]:
    """In MONOCHROME2 sense: stored values, after the modality's table, negative where dark is dense."""
    is_turned = (layout.photometric == "MONOCHROME1") != is_falling(header)
    for frame in stored_frames(path, header, layout, wanted):
        grey = through_modality_lut(frame, header).astype(np.float32)
        yield -grey if is_turned else grey


def _range(path: Path, header: Dataset, layout: Layout) -> tuple[float, float]:
    """The values that become 0 and 1: of the whole clip, whichever frames are asked for. Raises Permanent."""
    numbers = evenly_spaced(layout.frames, SAMPLED_FRAMES)
    step = max(1, int(np.sqrt(layout.rows * layout.columns * len(numbers) / SAMPLE)))
    sample = np.concatenate([f[::step, ::step] for f in _grey_frames(path, header, layout, numbers)])
    low, high = limits(sample) or (float(sample.min()), float(sample.max()))
    if not high > low:
        raise Permanent("the clip is empty: all pixels have the same value")
    return low, high


def _times_s(header: Dataset, count: int) -> tuple[float, ...] | None:
    """By Frame Time Vector, Frame Time, the frames' own times or the cine rate (PS3.3 C.7.6.5, C.7.6.16.2.2)."""
    vector = value(header, "FrameTimeVector")
    if vector is not None and count > 1:
        steps = _milliseconds(vector, count)
        if steps is not None:
            return tuple(float(t) for t in np.cumsum([0.0, *steps[1:]]) / 1000)
    interval_ms = positive(value(header, "FrameTime"))
    if not interval_ms:
        own = _own_times_s(header, count)
        if own is not None:
            return own
        rate = positive(value(header, "CineRate")) or positive(value(header, "RecommendedDisplayFrameRate"))
        interval_ms = 1000 / rate if rate else None
    return tuple(n * interval_ms / 1000 for n in range(count)) if interval_ms else None


def _milliseconds(vector: Any, count: int) -> NDArray[np.float64] | None:
    """`count` finite intervals, none of them negative, else None."""
    if isinstance(vector, str | bytes | float | int) or len(vector) != count:
        return None
    try:
        steps = np.array([float(v) for v in vector])
    except (TypeError, ValueError):
        return None
    return steps if np.isfinite(steps).all() and (steps >= 0).all() else None


def _own_times_s(header: Dataset, count: int) -> tuple[float, ...] | None:
    """By Frame Acquisition DateTime of an enhanced object's frames."""
    groups = items(header, "PerFrameFunctionalGroupsSequence")
    found = []
    for group in groups:
        content = items(group, "FrameContentSequence")
        given = value(content[0], "FrameAcquisitionDateTime") if content else None
        seconds = _seconds(str(given)) if given else None
        if seconds is None:
            return None
        found.append(seconds)
    since = tuple(t - found[0] for t in found)
    return since if len(found) == count and min(since) >= 0 and np.isfinite(since).all() else None


def _seconds(text: str) -> float | None:
    """Of a DT value, from its midnight on; a clip over midnight is not timed."""
    digits = text.partition("+")[0].partition("-")[0]
    try:
        return int(digits[8:10]) * 3600 + int(digits[10:12]) * 60 + float(digits[12:] or 0)
    except ValueError:
        return None
