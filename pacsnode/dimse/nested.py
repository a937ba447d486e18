"""Small data sets with nested sequences, as N-ACTION, N-CREATE and N-SET bring them: read by a bounded walk. No I/O.

In: bytes from the wire, Implicit or Explicit VR Little Endian. Out: items with their values as bytes. No recursion,
so that no depth of nesting does harm; never decodes a text but UIDs and codes. Raises ValueError for what is malformed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MOST_ELEMENTS: Final = 200_000
"""A commitment request of 4 MB has about 100,000 elements and items."""
MOST_NESTED: Final = 16
"""A procedure step nests four deep."""

_UNDEFINED: Final = 0xFFFF_FFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
_LONG_LENGTH_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_IMPLICIT_VR: Final = "1.2.840.10008.1.2"


@dataclass(slots=True)
class Item:
    """A data set, or one item of a sequence in it."""

    values: dict[int, bytes] = field(default_factory=dict)
    sequences: dict[int, list[Item]] = field(default_factory=dict)

    def text(self, tag: int) -> str:
        """The value of a UID or code without its padding, "" where there is none."""
        return self.values.get(tag, b"").decode("ascii", errors="replace").strip("\0 ")

    def items(self, *tags: int) -> Iterator[Item]:
        """The items of the sequence `tags[-1]` in each item of the sequence before it, and so on."""
        for item in self.sequences.get(tags[0], ()):
            if len(tags) == 1:
                yield item
            else:
                yield from item.items(*tags[1:])


class _Open(NamedTuple):
    """A data set (`item`) or sequence (`of`) that the walk is inside of."""

    end: int
    undefined: bool
    explicit: bool
    item: Item | None
    of: list[Item]


def read(data: bytes, transfer_syntax_uid: str, sequences: frozenset[int]) -> Item:
    """The whole data set; `sequences` are the tags of those in it that matter (Implicit VR does not tell them)."""
    whole = Item()
    inside = [_Open(len(data), False, transfer_syntax_uid != _IMPLICIT_VR, whole, [])]
    at = 0
    for _ in range(MOST_ELEMENTS):
        top = inside[-1]
        if at == top.end and not (top.undefined and at == len(data)):
            if len(inside) == 1:
                return whole
            inside.pop()
        elif top.item is None:
            at = _step_item(data, at, inside, top)
        else:
            at = _step_element(data, at, inside, top, sequences)
    raise ValueError("a data set with too many elements")


def _step_item(data: bytes, at: int, inside: list[_Open], top: _Open) -> int:
    tag, length = _tag_and_length(data, at, top.end)
    if tag == _SEQUENCE_END and top.undefined:
        inside.pop()
    elif tag == _ITEM:
        item = Item()
        top.of.append(item)
        _enter(inside, _Open(_end(at + 8, length, top.end), length == _UNDEFINED, top.explicit, item, []))
    else:
        raise ValueError("a sequence that holds something else than items")
    return at + 8


def _step_element(data: bytes, at: int, inside: list[_Open], top: _Open, sequences: frozenset[int]) -> int:
    assert top.item is not None
    tag, length = _tag_and_length(data, at, top.end)
    if tag == _ITEM_END and top.undefined:
        inside.pop()
        return at + 8
    if tag >> 16 == 0xFFFE:
        raise ValueError("a delimiter where an element should be")
    start, vr = at + 8, b""
    if top.explicit:
        vr, length = data[at + 4 : at + 6], length >> 16
        if vr in _LONG_LENGTH_VRS:
            if start + 4 > top.end:
                raise ValueError("a data set that is cut off")
            (length,) = struct.unpack_from("<I", data, start)
            start += 4
        elif not vr.isalpha() or not vr.isupper():
            raise ValueError("an element without a VR")
    end = _end(start, length, top.end)
    if vr == b"SQ" or length == _UNDEFINED or (tag in sequences and vr in (b"", b"UN")):
        # PS3.5 6.2.2 note 4: what was written as UN is Implicit VR Little Endian inside.
        items = top.item.sequences.setdefault(tag, [])
        _enter(inside, _Open(end, length == _UNDEFINED, top.explicit and vr != b"UN", None, items))
        return start
    top.item.values[tag] = data[start:end]
    return end


def _tag_and_length(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at + 8 > end:
        raise ValueError("a data set that is cut off")
    group, element, length = struct.unpack_from("<HHI", data, at)
    return group << 16 | element, length


def _end(start: int, length: int, limit: int) -> int:
    if length == _UNDEFINED:
        return limit
    if start + length > limit:
        raise ValueError("an element that is longer than what it is in")
    return start + length


def _enter(inside: list[_Open], opened: _Open) -> None:
    if len(inside) > 2 * MOST_NESTED:
        raise ValueError("a data set with too many nested sequences")
    inside.append(opened)
