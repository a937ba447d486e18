"""The attributes of an instance that indexing and rules need, read from the bytes as they were received.

In: a data set in any transfer syntax, without Part 10 header. Out: a `Header` with the values of the attribute
table as text. Raises `Rejected` for what cannot be parsed; never raises anything else, never reads a pixel.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pacsnode.dicom.attributes import (
    BY_PLACE,
    HAS_PIXEL_DATA,
    PER_IMAGE,
    PIXEL_DATA,
    SPECIFIC_CHARACTER_SET,
    Attribute,
)
from pacsnode.dicom.charsets import decode_text
from pacsnode.dicom.elements import Element, Scan, scan
from pacsnode.dicom.forms import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Syntax
from pacsnode.errors import Rejected

MAX_VALUE_BYTES = 16_384
"""Longest value of the attribute table that is read; the longest legal one is a tenth of it."""
MAX_INFLATED_BYTES = 4 * 1024 * 1024
"""How much of a deflated data set is inflated: a bomb of 292 KB holds 300 MB."""

_SHORT_VALUE_BYTES = 64
"""Longer values are not remembered: what a peer sends must not fill the memory."""

DEFLATED = "1.2.840.10008.1.2.1.99"
_SYNTAXES = {
    "1.2.840.10008.1.2": IMPLICIT_LITTLE,
    "1.2.840.10008.1.2.2": EXPLICIT_BIG,
    "1.2.840.113619.5.2": IMPLICIT_LITTLE,  # GE: only the pixels are big endian
}  # every other one is explicit VR little endian (PS3.5 A.4)

NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
TEXT = frozenset(["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"])
_ONE_VALUE = frozenset({"LT", "ST", "UT", "UR"})
WANTED = frozenset({*BY_PLACE, (0, SPECIFIC_CHARACTER_SET)})
_TO_JSON = json.JSONEncoder(ensure_ascii=False).encode
_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), " ")


@dataclass(frozen=True)
class Header:
    """What a data set says about itself, by keyword of the attribute table.

    `raw` holds the bytes with their padding, as they were received. `attributes` holds decoded values, stripped;
    an attribute without any value is left out, an empty value between others stays, so that positions count.
    `members` are the same, each as a member of a JSON object: the images of a series have most of them in common.
    `damaged` names attributes whose text was repaired or has lost characters. `ended_at_border` is false if the
    data went on behind the last element, or its end was not looked at; a truncated data set is `Rejected`.
    """

    charset: tuple[str, ...]
    raw: Mapping[str, bytes]
    attributes: dict[str, tuple[str, ...]]
    members: dict[str, str]
    damaged: tuple[str, ...]
    ended_at_border: bool

    def json(self) -> tuple[str, str]:
        """The attributes as two JSON objects: what images of a series have in common, and `PER_IMAGE`."""
        return json_objects(self.members)


def syntax_of(transfer_syntax_uid: str) -> Syntax:
    """How the elements of a transfer syntax are encoded, once they are inflated."""
    return _SYNTAXES.get(transfer_syntax_uid, EXPLICIT_LITTLE)


def read_header(data: bytes | memoryview | mmap.mmap, transfer_syntax_uid: str, charset: str = "") -> Header:
    """Read the attribute table's attributes from a data set; raise `Rejected` (C000) if it cannot be parsed.

    `charset`: what is taken for the Specific Character Set of a data set that declares none.
    """
    syntax = syntax_of(transfer_syntax_uid)
    with memoryview(data) as view, view.cast("B") as octets:
        if transfer_syntax_uid != DEFLATED:
            return header_of_scan(octets, scan(octets, syntax, WANTED), syntax, charset)
        inflated, whole = inflate(octets)
    with memoryview(inflated) as octets:
        return header_of_scan(octets, scan(octets, syntax, WANTED, prefix=not whole), syntax, charset)


def inflate(deflated: memoryview) -> tuple[bytes, bool]:
    """The beginning of a deflated data set (PS3.5 A.5), and whether that is all of it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    parts: list[bytes] = []
    room = MAX_INFLATED_BYTES
    try:
        for at in range(0, len(deflated), 65_536):
            parts.append(inflater.decompress(deflated[at : at + 65_536], room))
            room -= len(parts[-1])
            if inflater.eof or room == 0:
                return b"".join(parts), inflater.eof
    except zlib.error as error:
        raise Rejected(Rejected.CANNOT_UNDERSTAND, "data set cannot be inflated") from error
    raise Rejected(Rejected.CANNOT_UNDERSTAND, "data set is truncated")


def header_of_scan(data: memoryview, found: Scan, syntax: Syntax, charset: str = "") -> Header:
    """The header whose elements lie in `data` as `found`. Raises `Rejected`."""
    wanted = [element for element in found.elements if element.tag not in PIXEL_DATA or element.sequence]
    has_pixel_data = len(wanted) < len(found.elements)
    values = ((_value(data, element), element) for element in wanted)
    return header_of_values(
        values, syntax, charset, has_pixel_data=has_pixel_data, ended_at_border=found.ended_at_border
    )


def header_of_values(
    found: Iterable[tuple[bytes, Element]],
    syntax: Syntax,
    default_charset: str,
    *,
    has_pixel_data: bool,
    ended_at_border: bool,
) -> Header:
    """The header of the wanted elements, in their order. Raises `Rejected`."""
    values: dict[str, list[tuple[bytes, Element]]] = {}
    charset: tuple[str, ...] = ()
    for value, element in found:
        if element.tag == SPECIFIC_CHARACTER_SET:
            charset = tuple(part.strip(" \0") for part in value.decode("latin_1").split("\\"))
            continue
        attribute = BY_PLACE[element.sequence, element.tag]
        values.setdefault(attribute.keyword, []).append((value, element))
        if not attribute.sequence and len(values[attribute.keyword]) > 1:
            _only_the_last(attribute, values[attribute.keyword])
    if default_charset and not any(charset):
        charset = (default_charset,)
    attributes, damaged = _decode(values, charset, syntax)
    attributes[HAS_PIXEL_DATA.keyword] = ("YES" if has_pixel_data else "NO",)
    members = {keyword: json_member(keyword, texts) for keyword, texts in attributes.items()}
    raw = {keyword: b"\\".join(value for value, _ in parts) for keyword, parts in values.items()}
    return Header(charset, raw, attributes, members, damaged, ended_at_border)


def _value(data: memoryview, element: Element) -> bytes:
    if element.length > MAX_VALUE_BYTES:
        raise Rejected(Rejected.CANNOT_UNDERSTAND, f"({_hex(element.tag)}) is too long")
    return bytes(data[element.start : element.start + element.length])


def _only_the_last(attribute: Attribute, parts: list[tuple[bytes, Element]]) -> None:
    """Of an element that is there twice keep the last, as pydicom does; refuse two patients or two UIDs.

    Other readers keep the first, so that the same file would belong to two patients.
    """
    (first, _), (last, _) = parts
    if (attribute.level == "patient" or attribute.vr == "UI") and first.strip(b" \0") != last.strip(b" \0"):
        raise Rejected(Rejected.CANNOT_UNDERSTAND, f"({_hex(attribute.tag)}) is there twice with different values")
    del parts[0]


def _decode(
    values: Mapping[str, list[tuple[bytes, Element]]], charset: tuple[str, ...], syntax: Syntax
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    attributes: dict[str, tuple[str, ...]] = {}
    damaged: list[str] = []
    for keyword, parts in values.items():
        decoded: list[str] = []
        for value, element in parts:
            texts, hurt = decode_value(value, vr_of(element), charset, big_endian=syntax.big_endian)
            decoded.extend(texts)
            if hurt and keyword not in damaged:
                damaged.append(keyword)
        if any(decoded):
            attributes[keyword] = tuple(decoded)
    return attributes, tuple(damaged)


def vr_of(element: Element) -> str:
    """The VR that the element has by itself if it can be read as text, else the one of the table."""
    if element.vr in NUMBERS or element.vr in TEXT:
        return element.vr
    return BY_PLACE[element.sequence, element.tag].vr


def json_objects(members: Mapping[str, str]) -> tuple[str, str]:
    """Members of a JSON object, by keyword, as two of them: without `PER_IMAGE`, and those alone."""
    common = ", ".join([member for keyword, member in members.items() if keyword not in PER_IMAGE])
    own = ", ".join([member for keyword, member in members.items() if keyword in PER_IMAGE])
    return f"{{{common}}}", f"{{{own}}}"


def json_member(keyword: str, values: tuple[str, ...]) -> str:
    """An attribute as a member of a JSON object."""
    if len(values) == 1 and len(values[0]) <= _SHORT_VALUE_BYTES:
        return _short_json_member(keyword, values)
    return f'"{keyword}": {_TO_JSON(values)}'


@lru_cache(maxsize=8192)
def _short_json_member(keyword: str, values: tuple[str, ...]) -> str:
    return f'"{keyword}": {_TO_JSON(values)}'


def decode_value(
    value: bytes, vr: str, charset: tuple[str, ...], *, big_endian: bool = False
) -> tuple[tuple[str, ...], bool]:
    """The values of an element as text, and whether text was repaired or has lost characters.

    Text of every VR is read in the data set's character sets: consoles put Hangul into BodyPartExamined (CS) too.
    """
    if len(value) <= _SHORT_VALUE_BYTES:
        return _decode_short(value, vr, charset, big_endian)
    return _decode_any(value, vr, charset, big_endian)


def _decode_any(value: bytes, vr: str, charset: tuple[str, ...], big_endian: bool) -> tuple[tuple[str, ...], bool]:
    if vr in NUMBERS:
        return _numbers(value, NUMBERS[vr], big_endian), False
    if value.isascii() and (plain := value.decode("ascii").strip(" \0")).isprintable() and "\\" not in plain:
        return (plain,), False  # nearly every value
    text = decode_text(value, charset)
    hurt = text.damaged or text.repaired
    if vr in _ONE_VALUE:
        return (text.text.strip(" \0"),), hurt
    parts = [part.strip(" \0") for part in text.text.split("\\")]
    clean = [part.translate(_CONTROL).strip() for part in parts]  # this text is logged and shown
    return tuple(clean), hurt or clean != parts


_decode_short = lru_cache(maxsize=8192)(_decode_any)
"""The images of a series say the same in nearly all of their elements."""


def _numbers(value: bytes, code: str, big_endian: bool) -> tuple[str, ...]:
    """Binary numbers in decimal; a remainder shorter than a number, and what is not a number, are left out."""
    one = struct.Struct((">" if big_endian else "<") + code)
    whole = value[: len(value) - len(value) % one.size]
    numbers = (number for (number,) in one.iter_unpack(whole))
    return tuple(str(int(n)) if n == int(n) else repr(n) for n in numbers if math.isfinite(n))


def _hex(tag: int) -> str:
    return f"{tag >> 16:04X},{tag & 0xFFFF:04X}"
