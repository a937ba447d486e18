"""Where the elements of a data set lie, without reading their values.

In: the bytes of a data set, no Part 10 header. Out: tag, VR and extent of the wanted elements. The bytes come from
the wire: nothing is believed that was not checked against the end of the data, depth and number of elements are
bounded, there is no recursion, and nothing but `Rejected` is raised. Never copies or decodes a pixel.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple

from pacsnode.dicom.attributes import PIXEL_DATA
from pacsnode.dicom.forms import (
    ELEMENT,
    IMPLICIT_LITTLE,
    LENGTH,
    LONG,
    SHORT,
    UNDEFINED,
    Syntax,
    odd_element,
    read_element,
    truncated,
)
from pacsnode.errors import Rejected

MAX_DEPTH = 64
"""Sequences within sequences; structured reports of devices stay below 20."""
MAX_ELEMENTS = 1_000_000
"""Elements and items looked at: an enhanced multi-frame image of 10 000 frames has about half a million."""
MAX_PADDING = 65_536
"""Zero bytes behind the last element that are taken as padding."""
MOST_SKIPPED_BYTES = 65_536
"""Of a longer beginning it is not recorded which values were not looked into."""

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
_TAG_AND_LENGTH = (struct.Struct("<HHL"), struct.Struct(">HHL"))
_ITEM_TAG = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")


class Wanted(NamedTuple):
    """What is looked for in a data set or in each item of a sequence; `sequence` is what is said of what is found."""

    tags: Collection[int]
    sequences: Mapping[int, Wanted]
    sequence: int


NOTHING = Wanted((), {}, 0)


class Element(NamedTuple):
    """One element: `vr` is empty where it is not given; `sequence` is that of `Wanted`: the one around it, or 0."""

    tag: int
    vr: str
    start: int
    length: int
    sequence: int


class Item(NamedTuple):
    """An item in which something is looked for: where it starts, the tag of its sequence, how numbers stand in it."""

    start: int
    tag: int
    big_endian: bool
    sequence: int


Skipped = tuple[int, int, int, bool]
"""A value that was not looked into: start of its element, its own start and length, whether it stands at the top.
All that lies between it and the one before was looked at."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The wanted elements, and items, in the order of the data; whether that ended exactly where an element ends.

    `skipped`: of a short beginning all of them, but None where values decided how the scan went on.
    """

    elements: list[Element]
    items: list[Item]
    ended_at_border: bool
    skipped: list[Skipped] | None


class _Kind(Enum):
    DATA_SET = auto()  # of the whole, or of an item
    SEQUENCE = auto()
    FRAGMENTS = auto()  # of encapsulated pixels, as an icon image may have them


class _Open(NamedTuple):
    """A data set or sequence that the scan is inside of; `end` is also the limit for what it holds.

    `wanted` is of the data set, or of the items of the sequence `tag`.
    """

    kind: _Kind
    end: int
    undefined: bool
    syntax: Syntax
    wanted: Wanted
    tag: int = 0


def scan(data: memoryview, syntax: Syntax, wanted: Collection[tuple[int, int]], *, prefix: bool = False) -> Scan:
    """Find the elements whose (sequence, tag) is wanted, and pixel data; raise `Rejected` if that is impossible.

    `prefix` says that `data` is only the beginning: pixel data may then go on beyond it.
    """
    return _Scanner(data, syntax, _by_sequence(frozenset(wanted)), prefix).run()


def scan_to_pixels(data: memoryview, syntax: Syntax, wanted: Wanted, *, prefix: bool = False) -> Scan:
    """Find what is wanted at any depth, before the pixel data; step over what is no sequence where one is wanted."""
    return _Scanner(data, syntax, wanted, prefix, to_pixels=True).run()


def ends_with_delimiter(ending: bytes, syntax: Syntax) -> bool:
    """Whether the last eight bytes of a data set are the end of a sequence or of encapsulated pixel data."""
    return ending == _TAG_AND_LENGTH[syntax.big_endian].pack(0xFFFE, 0xE0DD, 0)


@lru_cache(maxsize=16)
def _by_sequence(wanted: frozenset[tuple[int, int]]) -> Wanted:
    """The wanted tags by the sequence around them."""
    tags: dict[int, set[int]] = {0: set()}
    for sequence, tag in wanted:
        tags.setdefault(sequence, set()).add(tag)
    top = tags.pop(0)
    return Wanted(top, {sequence: Wanted(inner, {}, sequence) for sequence, inner in tags.items()}, 0)


class _Scanner:
    def __init__(self, data: memoryview, syntax: Syntax, wanted: Wanted, prefix: bool, to_pixels: bool = False) -> None:
        self.data, self.size, self.prefix, self.to_pixels = data, len(data), prefix, to_pixels
        self.at = 0
        self.inside = [_Open(_Kind.DATA_SET, self.size, False, syntax, wanted)]
        self.found: list[Element] = []
        self.items: list[Item] = []
        self.skipped: list[Skipped] | None = [] if prefix and self.size <= MOST_SKIPPED_BYTES else None
        self.pixels_seen = False
        self.left = MAX_ELEMENTS

    def run(self) -> Scan:
        try:
            border = self._walk()
        except Rejected:
            if not self.pixels_seen:
                raise
            border = False  # padding and garbage behind the pixels take nothing from the image
        if self.prefix and not any(element.tag in PIXEL_DATA for element in self.found):
            raise Rejected(Rejected.CANNOT_UNDERSTAND, "data set is too large before its pixel data")
        return Scan(self.found, self.items, border and not self.prefix, self.skipped)

    def _walk(self) -> bool:
        while self.left > 0:
            self.left -= 1
            top = self.inside[-1]
            if top.kind is _Kind.DATA_SET:
                self._plain_elements(top)
            if self.at >= top.end:
                if len(self.inside) == 1:
                    return True
                if top.undefined and top.end == self.size:
                    raise truncated()
                self.inside.pop()
            elif top.kind is not _Kind.DATA_SET:
                self._item(top)
            elif len(self.inside) == 1 and self._is_padding():
                return False
            elif self._element(top):
                return ends_with_delimiter(bytes(self.data[-8:]), top.syntax)
        raise Rejected(Rejected.CANNOT_UNDERSTAND, "data set has too many elements")

    def _plain_elements(self, top: _Open) -> None:
        """Step over elements that need no thought, up to one that does: nearly all of the time goes here."""
        data, at, end, left, skipped = self.data, self.at, top.end, self.left, self.skipped
        explicit, unpack = top.syntax.explicit, ELEMENT[top.syntax.big_endian].unpack_from
        unpack_length = LENGTH[top.syntax.big_endian].unpack_from
        tags, sequences, sequence = top.wanted
        at_top = len(self.inside) == 1
        while at + 12 <= end and left > 0:
            group, number, vr, length = unpack(data, at)
            tag, start = group << 16 | number, at + 8
            if explicit and vr in LONG and length == 0:
                length, start = unpack_length(data, start)[0], at + 12
            elif not explicit and vr not in SHORT and vr not in LONG:
                vr, length = b"", unpack_length(data, at + 4)[0]
            elif not explicit or vr not in SHORT:
                break
            if start + length > end or group >= 0x7FE0 or tag == 0 or tag in sequences:
                break
            if tag in tags:
                self.found.append(Element(tag, vr.decode("ascii"), start, length, sequence))
            if skipped is not None:
                skipped.append((at, start, length, at_top))
            at, left = start + length, left - 1
        self.at, self.left = at, left

    def _item(self, top: _Open) -> None:
        """Step over one item or delimiter of a sequence, or into the item."""
        tag, length = self._tag_and_length(top)
        body = self.at + 8
        if tag == _SEQUENCE_END:
            self.at = body if top.undefined else top.end
            self.inside.pop()
        elif tag != _ITEM:
            raise Rejected(Rejected.CANNOT_UNDERSTAND, "a sequence holds something other than items")
        elif length == UNDEFINED and top.kind is _Kind.SEQUENCE:
            self._enter_item(body, top.end, True, top)
        elif body + length > top.end:
            raise truncated()
        elif top.wanted is not NOTHING:
            self._enter_item(body, body + length, False, top)
        else:
            self._skip(body, length)

    def _skip(self, start: int, length: int) -> None:
        if self.skipped is not None:
            self.skipped.append((self.at, start, length, len(self.inside) == 1))
        self.at = start + length

    def _enter_item(self, at: int, end: int, undefined: bool, top: _Open) -> None:
        if top.wanted is not NOTHING:
            self.items.append(Item(at, top.tag, top.syntax.big_endian, top.wanted.sequence))
        self._enter(at, _Open(_Kind.DATA_SET, end, undefined, top.syntax, top.wanted))

    def _element(self, top: _Open) -> bool:
        """Step over one element or into it; true at encapsulated pixel data that need no walk."""
        tag, _ = self._tag_and_length(top)
        if tag >> 16 == 0xFFFE:
            self._delimiter(top, tag)
            return False
        if tag == 0 and self.at:  # zeros: read as elements, 4 KB deflated would hold a core for seconds
            raise Rejected(Rejected.CANNOT_UNDERSTAND, "zeros where an element should be")
        tags, sequences, sequence = top.wanted
        form = read_element(self.data, self.at, top.end, top.syntax)
        if form is None:
            form = odd_element(self.data, self.at, top.end, top.syntax)
            self.skipped = None
        element = Element(*form, sequence)
        if tag in PIXEL_DATA and len(self.inside) == 1:
            return self._pixels(element, top)
        if element.length != UNDEFINED:
            if element.start + element.length > top.end:
                raise truncated()
            if tag in tags:
                self.found.append(element)
        if element.length == UNDEFINED or tag in sequences:
            self._enter_sequence(element, top)
        else:
            self._skip(element.start, element.length)
        return False

    def _enter_sequence(self, element: Element, top: _Open) -> None:
        undefined = element.length == UNDEFINED
        kind = _Kind.FRAGMENTS if element.vr in ("OB", "OW") else _Kind.SEQUENCE
        # PS3.5 6.2.2 note 4: what was written as UN of undefined length is implicit VR little endian inside.
        syntax = IMPLICIT_LITTLE if element.vr == "UN" else top.syntax
        end = top.end if undefined else element.start + element.length
        wanted = top.wanted.sequences.get(element.tag, NOTHING)
        if self.to_pixels and not self._has_items(element, syntax):
            wanted = NOTHING
            if not undefined:
                self._skip(element.start, element.length)
                return
        self._enter(element.start, _Open(kind, end, undefined, syntax, wanted, element.tag))

    def _has_items(self, element: Element, syntax: Syntax) -> bool:
        """Whether an element is a sequence; a private tag may be one with one creator, and a text with another."""
        head = bytes(self.data[element.start : element.start + min(element.length, 4)])
        return element.vr in ("SQ", "UN", "") and head in (b"", _ITEM_TAG[syntax.big_endian])

    def _enter(self, at: int, into: _Open) -> None:
        if len(self.inside) > 2 * MAX_DEPTH:
            raise Rejected(Rejected.CANNOT_UNDERSTAND, "data set has too many nested sequences")
        self.inside.append(into)
        self.at = at

    def _delimiter(self, top: _Open, tag: int) -> None:
        """A delimiter among elements: the end of an item of undefined length, or one that a device got wrong."""
        if len(self.inside) > 1 and top.undefined:
            self.inside.pop()
            if tag == _ITEM_END:
                self.at += 8
        elif tag in (_ITEM_END, _SEQUENCE_END):
            self.at += 8  # the end of something that had a length and needed none
        else:
            raise Rejected(Rejected.CANNOT_UNDERSTAND, "an item stands outside of a sequence")

    def _pixels(self, element: Element, top: _Open) -> bool:
        """Step over pixel data; true where nothing more need or can be looked at."""
        self.found.append(element)
        if self.to_pixels:
            return True
        if element.length == UNDEFINED:
            if self.prefix or ends_with_delimiter(bytes(self.data[-8:]), top.syntax):
                return True
            self._enter(element.start, _Open(_Kind.FRAGMENTS, self.size, True, top.syntax, NOTHING))
            self._walk_fragments()
        elif element.start + element.length <= self.size:
            self.at = element.start + element.length
        elif self.prefix:
            return True
        else:
            raise truncated()
        self.pixels_seen = True
        return False

    def _walk_fragments(self) -> None:
        """Go through the fragments of the pixel data; some archives leave out the delimiter behind the last."""
        depth = len(self.inside)
        while self.left > 0:
            self.left -= 1
            if self.at == self.size:
                return
            self._item(self.inside[-1])
            if len(self.inside) < depth:
                return
        raise Rejected(Rejected.CANNOT_UNDERSTAND, "pixel data has too many fragments")

    def _tag_and_length(self, top: _Open) -> tuple[int, int]:
        if self.at + 8 > top.end:
            raise truncated()
        group, number, length = _TAG_AND_LENGTH[top.syntax.big_endian].unpack_from(self.data, self.at)
        return group << 16 | number, length

    def _is_padding(self) -> bool:
        """Whether nothing but zero bytes follow: some devices fill up a block."""
        if bytes(self.data[self.at : self.at + 4]).strip(b"\0"):
            return False
        self.skipped = None
        rest = bytes(self.data[self.at : self.at + MAX_PADDING + 1])
        # One zero byte can also be half of a group number that was cut off.
        return 2 <= len(rest) <= MAX_PADDING and not rest.strip(b"\0")
