"""Which planes of a volume or clip are drawn, and their pixels for drawing. Runs in the compute child only.

In: a group of findings and what it was found in. Out: the group with its pictures. Never draws a mark: encode does.
Memory is bounded by the number of pictures and their largest side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pacsnode.findings import Group
from pacsnode.infer.frames import read_clip, read_frames
from pacsnode.infer.looks import NO_LOOK, drawn
from pacsnode.infer.pixels import between
from pacsnode.infer.volume import Volume
from pacsnode.pictured import Pictures

MOST_PICTURES = 40
"""Of one volume or clip: what a reader scrolls through in half a minute."""
LARGEST_SIDE = 1024
"""Pixels of a picture: more than a page of a capture shows."""
FEW_LABELS = 20
HELD_BYTES = 200_000_000
"""Of the frames of a clip that are decoded at once."""


def of_volume(group: Group, volume: Volume) -> Group:
    """`group` with pictures of the slices that something is marked in, all in the window of the first one."""
    planes = chosen(group, len(volume.intensity))
    first = planes[0]
    low, high = drawn(volume.intensity[first], volume.looks[first] if volume.looks else NO_LOOK)
    pixels = [reduced(_bytes(between(volume.intensity[n].copy(), low, high))) for n in planes]
    rows, columns = volume.intensity.shape[1:]
    return replace(
        group,
        pictures=Pictures(planes, np.stack(pixels), (rows, columns)),
        spacing_mm=(volume.spacing_mm[1], volume.spacing_mm[2]),
    )


def of_clip(group: Group, path: Path, also: Sequence[int] = (), held_bytes: int = HELD_BYTES) -> Group:
    """`group` with pictures of the frames that something is marked in, else of `also`, numbers from 1."""
    clip = read_clip(path)
    planes = chosen(group, clip.frames, [number - 1 for number in also])
    rising = sorted(planes)
    held = max(1, held_bytes // (clip.rows * clip.columns * 4))
    pixels: dict[int, NDArray[np.uint8]] = {}
    for start in range(0, len(rising), held):
        part = rising[start : start + held]
        for plane, frame in zip(part, read_frames(path, [n + 1 for n in part]).pixels, strict=True):
            pixels[plane] = reduced(_bytes(frame))
    stacked = np.stack([pixels[n] for n in planes])
    return replace(group, pictures=Pictures(planes, stacked, (clip.rows, clip.columns)), spacing_mm=clip.spacing_mm)


def chosen(group: Group, count: int, also: Iterable[int] = ()) -> tuple[int, ...]:
    """At most MOST_PICTURES of `count` planes: the one to show first, then the others in their order.

    They lie evenly among those with something marked; where a segment or region shows most is always among them. What
    a reader looks for is small: the first one shows most of the smallest segment, or the most probable region. Where
    nothing is marked they are `also`, or the middle plane alone.
    """
    sizes = _sizes(group, count)
    regions = sorted(group.regions, key=lambda r: -(r.probability or 0.0))
    found = [segment for segment in np.flatnonzero(sizes.sum(axis=0)) if segment]
    found.sort(key=lambda segment: int(sizes[:, segment].sum()))
    largest = [int(sizes[:, segment].argmax()) for segment in found]
    needed = list(dict.fromkeys([*(group.plane_of(region) for region in regions), *largest]))[:MOST_PICTURES]
    if not needed:
        needed = list(dict.fromkeys(also))[:MOST_PICTURES] or [count // 2]
    through = {plane for region in regions for plane in group.planes_of(region)}
    marked = sorted({*np.flatnonzero(sizes[:, 1:].any(axis=1)).tolist(), *through} - set(needed))
    room = MOST_PICTURES - len(needed)
    if len(marked) > room:
        marked = [marked[int(n)] for n in np.unique(np.linspace(0, len(marked) - 1, room).round())] if room else []
    first, *others = needed
    return (first, *sorted([*others, *marked]))


def reduced(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`picture` with at most LARGEST_SIDE pixels a side."""
    rows, columns = picture.shape[:2]
    factor = LARGEST_SIDE / max(rows, columns)
    if factor >= 1:
        return picture
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX), dtype=np.uint8)


def _sizes(group: Group, count: int) -> NDArray[np.int64]:
    """(planes, 256): pixels of each label."""
    sizes = np.zeros((count, 256), dtype=np.int64)
    for label_map in group.maps:
        for plane, labels in enumerate(label_map):
            top = int(labels.max())
            if top <= FEW_LABELS:  # some comparisons are quicker than a count of all values
                for value in range(1, top + 1):
                    sizes[plane, value] += np.count_nonzero(labels == value)
            else:
                sizes[plane] += np.bincount(labels.ravel(), minlength=256)
    return sizes


def _bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """0 to 1 as 0 to 255; RGB of 8 bits as it is."""
    return pixels if pixels.dtype == np.uint8 else np.asarray((pixels * 255 + 0.5).astype(np.uint8))
