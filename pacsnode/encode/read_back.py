"""Bytes of a result back to what stands in them, without a type for every value: what the gate looks at.

In: a Part 10 file of ours (Explicit VR Little Endian). Out: items, nested as the sequences are. Never reads pixels, and
reads nothing but what `part_10` has just written: pydicom, which reads anything, takes a third of a second for a CT.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from pacsnode.errors import Permanent

_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_META_LENGTH_AT, _META_AT = 140, 144
"""Preamble, DICM, then (0002,0000) UL, whose value says where the data set begins (PS3.10 7.1)."""
_UNDEFINED = 0xFFFFFFFF
_END_OF_ITEM, _END_OF_SEQUENCE = 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = 0x7FE00000


@dataclass(frozen=True)
class Item:
    """One data set: `values` and `sequences` by tag, `vrs` of the values."""

    values: dict[int, bytes] = field(default_factory=dict)
    vrs: dict[int, bytes] = field(default_factory=dict)
    sequences: dict[int, list[Item]] = field(default_factory=dict)

    def text(self, tag: int) -> str:
        """A value that is text, without its padding; "" where there is none."""
        return self.values.get(tag, b"").rstrip(b" \0").decode("ascii", "replace")

    def walk(self, without: Collection[int]) -> Iterator[Item]:
        """This item and all below it but for sequences of these tags."""
        yield self
        for tag, members in self.sequences.items():
            if tag not in without:
                for member in members:
                    yield from member.walk(without)


def read_back(content: bytes) -> Item:
    """The data set of a Part 10 file, up to its pixels. Raises Permanent where it is torn."""
    try:
        start = _META_AT + int(struct.unpack_from("<I", content, _META_LENGTH_AT)[0])
        return _item(content, start, len(content))[0]
    except struct.error as error:
        raise Permanent("the result is torn") from error


def _item(content: bytes, at: int, end: int) -> tuple[Item, int]:
    """The item whose first element stands at `at`, and where it ends."""
    found = Item()
    while at < end:
        group, number, vr, length = struct.unpack_from("<HH2sH", content, at)
        tag = group << 16 | number
        if tag == _END_OF_ITEM:
            return found, at + 8
        if tag >= _PIXELS:
            break
        at += 8
        if vr in _LONG:
            (length,) = struct.unpack_from("<I", content, at)
            at += 4
        if vr == b"SQ":
            found.sequences[tag], at = _sequence(content, at, at + length if length != _UNDEFINED else end)
        else:
            if at + length > min(end, len(content)):
                raise Permanent("the result is torn")
            found.values[tag] = content[at : at + length]
            found.vrs[tag] = vr
            at += length
    return found, at


def _sequence(content: bytes, at: int, end: int) -> tuple[list[Item], int]:
    members = []
    while at < end:
        group, number, length = struct.unpack_from("<HHI", content, at)
        at += 8
        if group << 16 | number == _END_OF_SEQUENCE:
            break
        member, at = _item(content, at, at + length if length != _UNDEFINED else end)
        members.append(member)
    return members, at
