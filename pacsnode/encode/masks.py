"""The pixels of a segmentation: on which planes each segment is, and the bytes of its frames. Pure.

In: a group's label maps or probabilities, and which frames are wanted. Out: native pixel data as BINARY, FRACTIONAL and
LABELMAP have it (PS3.3 A.51, A.101, C.8.20.2). Never holds more than eight planes beside the label maps and the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pacsnode.errors import Permanent
from pacsnode.findings import Group, Segment

FULL = 255
"""Maximum Fractional Value."""
MOST_BYTES = 2**32 - 2
"""Of a value with an explicit length (PS3.5 7.1.1)."""


class Frame(NamedTuple):
    """One frame. `number`: of its segment in the SEG, from 1; 0 where it holds all of them. `plane`: from 0."""

    number: int
    plane: int


def presence(group: Group, segments: Sequence[Segment], *, as_probabilities: bool = False) -> NDArray[np.bool_]:
    """(segments, planes): which segment is on which plane."""
    if as_probabilities and group.probabilities is not None:
        return np.array([[plane.any() for plane in _probabilities(group, one)] for one in segments])
    return np.stack([group.occupied[:, one.value] for one in segments])


def overlap(group: Group) -> bool:
    """Whether any pixel belongs to several segments."""
    if not group.overlaid:
        return False
    return any(
        sum(plane.astype(bool).view(np.uint8) for plane in planes).max() > 1 for planes in zip(*group.maps, strict=True)
    )


def binary(group: Group, segments: Sequence[Segment], frames: Sequence[Frame]) -> bytes:
    """One bit a pixel, the first one lowest; frames follow each other without a gap (PS3.5 8.1.1)."""
    _refuse_too_large(group, len(frames), bits=1)
    planes, buffer = _masks(group, segments, frames), BytesIO()
    while eight := list(islice(planes, 8)):  # so that whole bytes come out whatever a plane has
        buffer.write(np.packbits(np.stack(eight), bitorder="little").data)
    return _even(buffer)


def fractional(group: Group, segments: Sequence[Segment], frames: Sequence[Frame]) -> bytes:
    """One byte a pixel: the probability where the group has them, else all or nothing."""
    if group.probabilities is None:
        shown: Iterable[NDArray[np.uint8]] = (
            mask.view(np.uint8) * np.uint8(FULL) for mask in _masks(group, segments, frames)
        )
    else:
        shown = (_probabilities(group, segments[number - 1])[plane] for number, plane in frames)
    return _bytes(group, shown, len(frames))


def label_map(group: Group, segments: Sequence[Segment], planes: Sequence[int]) -> bytes:
    """One byte a pixel: the number of its segment in the SEG, from 1; 0 is background."""
    numbers = np.zeros(256, dtype=np.uint8)
    for number, segment in enumerate(segments, start=1):
        numbers[segment.value] = number
    shown = (np.maximum.reduce([numbers[one[plane]] for one in group.maps]) for plane in planes)
    return _bytes(group, shown, len(planes))


def _masks(group: Group, segments: Sequence[Segment], frames: Sequence[Frame]) -> Iterator[NDArray[np.bool_]]:
    for number, plane in frames:
        value = segments[number - 1].value
        first, *others = group.maps
        mask = first[plane] == value
        for other in others:
            mask |= other[plane] == value
        yield mask


def _probabilities(group: Group, segment: Segment) -> NDArray[np.uint8]:
    """(planes, rows, columns) of one segment."""
    assert group.probabilities is not None
    return np.asarray(group.probabilities[group.segments.index(segment)])


def _bytes(group: Group, planes: Iterable[NDArray[np.uint8]], count: int) -> bytes:
    _refuse_too_large(group, count, bits=8)
    buffer = BytesIO()
    for plane in planes:
        buffer.write(np.ascontiguousarray(plane).data)
    return _even(buffer)


def _refuse_too_large(group: Group, count: int, *, bits: int) -> None:
    assert group.label_map is not None
    size = count * group.label_map[0].size * bits // 8
    if size > MOST_BYTES:
        raise Permanent(f"the segmentation would have {size / 1e9:.1f} GB, more than a DICOM object can hold")


def _even(buffer: BytesIO) -> bytes:
    if buffer.tell() % 2:
        buffer.write(b"\0")
    return buffer.getvalue()
