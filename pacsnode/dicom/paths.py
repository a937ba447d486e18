"""The values that names of rules stand for, read from a data set: any attribute, in sequences and private blocks too.

In: the bytes of a data set, no Part 10 header, and `Name`s. Out: values as text, decoded as `header` decodes them.
Raises `Rejected` for what cannot be parsed and nothing else. Looks at nothing behind the pixel data, and at no pixel.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import merge
from operator import attrgetter

from pacsnode.dicom.attributes import HAS_PIXEL_DATA, PIXEL_DATA, SPECIFIC_CHARACTER_SET
from pacsnode.dicom.elements import NOTHING, Element, Item, Scan, Wanted, scan_to_pixels
from pacsnode.dicom.header import DEFLATED, MAX_VALUE_BYTES, NUMBERS, TEXT, decode_value, inflate, syntax_of
from pacsnode.dicom.names import Name, Step, creator_key

_BLOCKS = range(0x10, 0x100)
"""Private blocks of a group; the element with the number of a block names its creator (PS3.5 7.8.1)."""
_OWN_VR = frozenset({*NUMBERS, *TEXT, "AT"})
_NO_TEXT = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ"})

Bytes = bytes | memoryview | mmap.mmap


def read_names(
    data: Bytes, transfer_syntax_uid: str, names: Collection[Name], charset: str = ""
) -> dict[str, tuple[str, ...]]:
    """All values by `base` of the names; what is absent, empty or longer than 16 KB is left out. Raises `Rejected`.

    `charset`: what is taken for the Specific Character Set of a data set that declares none.

    The values of all items of a sequence are joined in their order. Of an element that is there twice the last counts.
    """
    syntax = syntax_of(transfer_syntax_uid)
    wanted = _wanted(frozenset(name.steps for name in names))
    with memoryview(data) as view, view.cast("B") as octets:
        if transfer_syntax_uid != DEFLATED:
            return _read(
                octets, scan_to_pixels(octets, syntax, wanted), names, _DataSet(None, syntax.big_endian, charset)
            )
        inflated, whole = inflate(octets)
    with memoryview(inflated) as octets:
        found = scan_to_pixels(octets, syntax, wanted, prefix=not whole)
        return _read(octets, found, names, _DataSet(None, syntax.big_endian, charset))


@lru_cache(maxsize=64)
def _wanted(paths: frozenset[tuple[Step, ...]]) -> Wanted:
    """What any of the paths may lead to, level by level: more than they name, for creators are not known before."""
    levels = max(map(len, paths), default=0)
    tags: list[set[int]] = [{SPECIFIC_CHARACTER_SET} for _ in range(levels)]
    sequences: list[set[int]] = [set() for _ in range(levels)]
    for steps in paths:
        for level, step in enumerate(steps):
            into = sequences if level < len(steps) - 1 else tags
            if step.creator:
                tags[level] |= {step.tag & 0xFFFF_0000 | block for block in _BLOCKS}
                into[level] |= {step.tag | block << 8 for block in _BLOCKS}
            else:
                into[level].add(step.tag)
    wanted = NOTHING
    for level in reversed(range(levels)):
        wanted = Wanted(frozenset(tags[level]), dict.fromkeys(sequences[level], wanted), level)
    return wanted


@dataclass(slots=True)
class _DataSet:
    """The data set, or an item in it: what is wanted in it, by tag. `charset`: of a data set that declares none."""

    around: _DataSet | None
    big_endian: bool
    charset: str = ""
    elements: dict[int, Element] = field(default_factory=dict)
    items: dict[int, list[_DataSet]] = field(default_factory=dict)
    creators: dict[int, str] | None = None


def _read(data: memoryview, found: Scan, names: Collection[Name], whole: _DataSet) -> dict[str, tuple[str, ...]]:
    _nest(found, whole)
    values: dict[str, tuple[str, ...]] = {}
    for name in {name.base: name for name in names}.values():
        if name.base == HAS_PIXEL_DATA.keyword:
            texts: tuple[str, ...] = ("NO" if PIXEL_DATA.isdisjoint(whole.elements) else "YES",)
        else:
            texts = tuple(_texts(data, whole, name)) if name.steps else ()
        if any(texts):
            values[name.base] = texts
    return values


def _nest(found: Scan, whole: _DataSet) -> None:
    """Put what a scan has found into its items; `sequence` of the finds is the level that they lie on."""
    inside = [whole]
    finds: Iterator[Element | Item] = merge(found.elements, found.items, key=attrgetter("start"))
    for find in finds:
        if isinstance(find, Element):
            inside[find.sequence].elements[find.tag] = find
        else:
            around = inside[find.sequence - 1]
            item = _DataSet(around, find.big_endian)
            around.items.setdefault(find.tag, []).append(item)
            inside[find.sequence :] = [item]


def _texts(data: memoryview, whole: _DataSet, name: Name) -> Iterator[str]:
    """The values that a name stands for, item by item."""
    holders = [whole]
    for step in name.steps[:-1]:
        holders = [
            item for around in holders for tag in _tags(data, around, step) for item in around.items.get(tag, ())
        ]
    for holder in holders:
        for tag in _tags(data, holder, name.steps[-1]):
            element = holder.elements.get(tag)
            if element is not None:
                yield from _decoded(data, holder, element, name.vr)


def _tags(data: memoryview, holder: _DataSet, step: Step) -> Iterator[int]:
    """Where a step leads in one data set or item: a creator may have any block, or several."""
    if not step.creator:
        yield step.tag
        return
    group, key = step.tag >> 16, creator_key(step.creator)
    for tag, creator in _creators(data, holder).items():
        if tag >> 16 == group and creator == key:
            yield step.tag | (tag & 0xFF) << 8


def _creators(data: memoryview, holder: _DataSet) -> dict[int, str]:
    """The private creators of one data set or item, as they are compared, by the tags that name them."""
    if holder.creators is None:
        holder.creators = {
            tag: creator_key("\\".join(_decoded(data, holder, holder.elements[tag], "LO")))
            for tag in sorted(holder.elements)
            if tag >> 16 & 1 and tag & 0xFFFF in _BLOCKS
        }
    return holder.creators


def _decoded(data: memoryview, holder: _DataSet, element: Element, vr: str) -> tuple[str, ...]:
    """The values of an element as text; `vr` counts where its own cannot be read as text, or is not given."""
    value = _value(data, element)
    if value is None or (element.vr in _NO_TEXT and (element.vr == "SQ" or element.tag >> 16 & 1)):
        return ()
    vr = element.vr if element.vr in _OWN_VR else vr
    if vr == "AT":
        order = ">" if holder.big_endian else "<"
        whole = value[: len(value) - len(value) % 4]
        return tuple(f"{group:04X},{number:04X}" for group, number in struct.iter_unpack(order + "HH", whole))
    return decode_value(value, vr, _charset(data, holder), big_endian=holder.big_endian)[0]


def _charset(data: memoryview, holder: _DataSet) -> tuple[str, ...]:
    """Specific Character Set of an item, or of what it lies in (PS3.5 7.5.3)."""
    at = holder
    while True:
        element = at.elements.get(SPECIFIC_CHARACTER_SET)
        if element is not None and (value := _value(data, element)) is not None:
            parts = tuple(part.strip(" \0") for part in value.decode("latin_1").split("\\"))
            if any(parts) or at.around is not None:
                return parts
        if at.around is None:
            return (at.charset,) if at.charset else ()
        at = at.around


def _value(data: memoryview, element: Element) -> bytes | None:
    if element.length > MAX_VALUE_BYTES:
        return None
    return bytes(data[element.start : element.start + element.length])
