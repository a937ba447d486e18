"""The pixels of a segmentation: on which planes each segment is, and the bytes of its frames. Pure.

In: a group's label maps or probabilities, and which frames are wanted. Out: native pixel data as BINARY, FRACTIONAL and
LABELMAP have it (PS3.3 A.51, A.101, C.8.20.2), made while it is written: a fractional one of ten organs of a CT has 800
MB. Never holds more than eight planes beside the label maps.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
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


class Pixels(io.BufferedIOBase):
    """Pixel data as pydicom reads a file: `chunk` gives the bytes of the chunk of a number (from 0).

    All chunks have as many bytes as a frame has pixels, the last one fewer; a byte 0 makes the whole even (PS3.5 7.1).
    """

    def __init__(self, pixels: int, size: int, chunk: Callable[[int], bytes]) -> None:
        if size > MOST_BYTES:
            raise Permanent(f"the segmentation would have {size / 1e9:.1f} GB, more than a DICOM object can hold")
        self._each, self._size, self._chunk = pixels, size + size % 2, chunk
        self._at = 0
        self._held: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go there, from the start, from here or from the end."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """As many bytes, fewer only at the end."""
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        parts = []
        while self._at < end:
            number, offset = divmod(self._at, self._each)
            if self._held[0] != number:
                self._held = number, self._chunk(number)
            parts.append(self._held[1][offset : offset + end - self._at] or b"\0")
            self._at += len(parts[-1])
        return b"".join(parts)


def binary(group: Group, segments: Sequence[Segment], frames: Sequence[Frame]) -> Pixels:
    """One bit a pixel, the first one lowest; frames follow each other without a gap (PS3.5 8.1.1)."""
    pixels = _pixels(group)

    def eight_frames(number: int) -> bytes:  # so that a chunk ends with a byte, whatever a frame has
        some = [_mask(group, segments, one) for one in frames[8 * number : 8 * number + 8]]
        return np.packbits(np.array(some, dtype=np.bool_), bitorder="little").tobytes()

    return Pixels(pixels, -(-pixels * len(frames) // 8), eight_frames)


def fractional(group: Group, segments: Sequence[Segment], frames: Sequence[Frame]) -> Pixels:
    """One byte a pixel: the probability where the group has them, else all or nothing."""

    def frame(number: int) -> bytes:
        if number >= len(frames):
            return b""
        if group.probabilities is None:
            return (_mask(group, segments, frames[number]).view(np.uint8) * np.uint8(FULL)).tobytes()
        return bytes(_probabilities(group, segments[frames[number].number - 1])[frames[number].plane].tobytes())

    return Pixels(_pixels(group), _pixels(group) * len(frames), frame)


def label_map(group: Group, segments: Sequence[Segment], planes: Sequence[int]) -> Pixels:
    """One byte a pixel: the number of its segment in the SEG, from 1; 0 is background."""
    numbers = np.zeros(256, dtype=np.uint8)
    for number, segment in enumerate(segments, start=1):
        numbers[segment.value] = number

    def frame(number: int) -> bytes:
        if number >= len(planes):
            return b""
        return bytes(np.maximum.reduce([numbers[one[planes[number]]] for one in group.maps]).tobytes())

    return Pixels(_pixels(group), _pixels(group) * len(planes), frame)


def _pixels(group: Group) -> int:
    assert group.label_map is not None
    return int(group.label_map[0].size)


def _mask(group: Group, segments: Sequence[Segment], frame: Frame) -> NDArray[np.bool_]:
    value = segments[frame.number - 1].value
    first, *others = group.maps
    mask: NDArray[np.bool_] = first[frame.plane] == value
    for other in others:
        mask |= other[frame.plane] == value
    return mask


def _probabilities(group: Group, segment: Segment) -> NDArray[np.uint8]:
    """(planes, rows, columns) of one segment."""
    assert group.probabilities is not None
    return np.asarray(group.probabilities[group.segments.index(segment)])
