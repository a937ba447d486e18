"""The header of a data set from its first bytes, while the rest is on its way to the disk.

In: the beginning of a data set. Out: its header, the same that a scan gives, by way of a beginning before it that has
the same layout where there is one. Never raises; never reads a pixel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pacsnode.dicom.attributes import BY_PLACE, PIXEL_DATA, SPECIFIC_CHARACTER_SET
from pacsnode.dicom.elements import Element, ends_with_delimiter, scan
from pacsnode.dicom.forms import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, UNDEFINED, Syntax
from pacsnode.dicom.header import (
    DEFLATED,
    WANTED,
    Header,
    decode_value,
    header_of_scan,
    header_of_values,
    json_member,
    syntax_of,
    vr_of,
)
from pacsnode.dicom.template import Found, Layout, Template
from pacsnode.errors import Rejected

ENDING_BYTES = 8
"""A sequence delimiter, which ends encapsulated pixel data."""

MOST_MODELS = 8
"""Beginnings that are remembered for each encoding: of as many devices that send at the same time."""
_MANY_CHANGES = 12
"""Another study: its next image will have more in common with this one."""


@dataclass(frozen=True)
class Beginning:
    """A header that was read from the first bytes of a data set; it counts if the pixel data are the last element."""

    header: Header
    pixels_start: int
    pixels_length: int
    syntax: Syntax

    def is_all(self, dataset_bytes: int, ending: Callable[[], bytes]) -> bool:
        """Whether nothing stands behind the pixel data; `ending` reads the last `ENDING_BYTES` of the data set."""
        if self.pixels_length == UNDEFINED:
            return ends_with_delimiter(ending(), self.syntax)
        return self.pixels_start + self.pixels_length == dataset_bytes


def read_beginning(head: bytes | bytearray, transfer_syntax_uid: str) -> Beginning | None:
    """The header of a data set that begins with `head`; None where more of it must be read."""
    if transfer_syntax_uid == DEFLATED:
        return None
    try:
        return _MODELS[syntax_of(transfer_syntax_uid)].read(head)
    except Rejected:  # cut off, or wrong: the whole data set tells which
        return None


@dataclass(frozen=True, slots=True)
class _Model:
    """A beginning that was read, to read others after it; it gets a template with the first one of the same layout.

    `keywords`: of each element, "" where its value changes more than its own attribute.
    """

    layout: Layout
    template: Template | None
    elements: Sequence[Element]
    keywords: Sequence[str]
    values: tuple[bytes, ...]
    beginning: Beginning

    def header(self, values: tuple[bytes, ...], changes: Sequence[int]) -> Header:
        """The header of other values, with those decoded that have changed. Raises `Rejected`."""
        known, syntax = self.beginning.header, self.beginning.syntax
        raw, attributes, members = dict(known.raw), dict(known.attributes), dict(known.members)
        for number in changes:
            keyword, value = self.keywords[number], values[number]
            texts, hurt = _NOTHING
            if keyword in attributes:
                vr = vr_of(self.elements[number])
                texts, hurt = decode_value(value, vr, known.charset, big_endian=syntax.big_endian)
            if not any(texts) or hurt != (keyword in known.damaged):
                found = zip(values, self.elements, strict=True)
                return header_of_values(found, syntax, has_pixel_data=True, ended_at_border=False)
            raw[keyword], attributes[keyword], members[keyword] = value, texts, json_member(keyword, texts)
        return Header(known.charset, raw, attributes, members, known.damaged, known.ended_at_border)


class Models:
    """What beginnings of one encoding looked like lately. For any number of threads: what is kept is never changed."""

    def __init__(self, syntax: Syntax) -> None:
        self._syntax = syntax
        self._models: tuple[_Model, ...] = ()

    def __len__(self) -> int:
        return len(self._models)

    def read(self, head: bytes | bytearray) -> Beginning:
        """The header of a data set that begins with `head`. Raises `Rejected`, also where `head` is too short."""
        for model in self._models:
            if model.template is not None and (found := model.template.find(head)) is not None:
                return self._after(model, found)
        for model in self._models:
            varying = model.layout.varying(head)
            if varying is not None:
                known = frozenset() if model.template is None else model.template.varying
                template = Template(model.layout, known | varying)
                learned = replace(model, template=template)
                self._put(learned)
                if (found := template.find(head)) is not None:
                    return self._after(learned, found)
        return self._anew(bytes(head))

    def _after(self, model: _Model, found: Found) -> Beginning:
        changes = [number for number, value in enumerate(found.values) if value != model.values[number]]
        header = model.header(found.values, changes)
        beginning = Beginning(header, found.pixels_start, model.beginning.pixels_length, self._syntax)
        if len(changes) >= _MANY_CHANGES:
            self._put(replace(model, values=found.values, beginning=beginning))
        return beginning

    def _anew(self, head: bytes) -> Beginning:
        with memoryview(head) as octets:
            found = scan(octets, self._syntax, WANTED, prefix=True)
            pixels = next(e for e in found.elements if e.tag in PIXEL_DATA and not e.sequence)
            header = header_of_scan(octets, found, self._syntax)
        beginning = Beginning(header, pixels.start, pixels.length, self._syntax)
        layout = Layout.of(head, found, self._syntax)
        if layout is not None:
            elements = found.elements[:-1]
            values = tuple(head[element.start : element.start + element.length] for element in elements)
            self._put(_Model(layout, None, elements, _keywords(elements), values, beginning))
        return beginning

    def _put(self, model: _Model) -> None:
        others = [other for other in self._models if other.layout is not model.layout]
        self._models = (model, *others[: MOST_MODELS - 1])


_MODELS = {syntax: Models(syntax) for syntax in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG)}
_NOTHING: tuple[tuple[str, ...], bool] = ((), False)


def _keywords(elements: Sequence[Element]) -> list[str]:
    names = [
        "" if element.tag == SPECIFIC_CHARACTER_SET else BY_PLACE[element.sequence, element.tag].keyword
        for element in elements
    ]
    count = Counter(names)
    return [name if count[name] == 1 else "" for name in names]
