"""The header of a data set from its first bytes, while the rest is on its way to the disk.

In: the beginning of a data set. Out: its header, the same that a scan gives, by way of a beginning before it that has
the same layout where there is one. Bounded in what it remembers; never reads a pixel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from pacsnode.dicom.attributes import BY_PLACE, PIXEL_DATA, SPECIFIC_CHARACTER_SET
from pacsnode.dicom.elements import Element, ends_with_delimiter, scan
from pacsnode.dicom.forms import UNDEFINED, Syntax
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
"""Layouts that are remembered for each encoding."""
_MOST_EXAMPLES = 4
_FEW_CHANGES = 8
"""From one image of a series to the next; with more of them, the next image will have more in common with this one."""


class Beginning(NamedTuple):
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


def read_beginning(head: bytes | bytearray, transfer_syntax_uid: str, charset: str = "") -> Beginning | None:
    """The header of a data set that begins with `head`; None where more of it must be read.

    `charset`: what is taken for the Specific Character Set of a data set that declares none.
    """
    if transfer_syntax_uid == DEFLATED:
        return None
    try:
        return _models(syntax_of(transfer_syntax_uid), charset).read(head)
    except Rejected:  # cut off, or wrong: the whole data set tells which
        return None


class _Example(NamedTuple):
    """The values of a beginning that was read, as bytes and as its header."""

    values: tuple[bytes, ...]
    header: Header


class _Model(NamedTuple):
    """A layout with the beginnings of it that were read lately: several devices or studies send at the same time.

    It gets a template with the second one. `keywords`: of each element, "" where its value changes more than its own
    attribute.
    """

    layout: Layout
    template: Template | None
    elements: Sequence[Element]
    keywords: Sequence[str]
    examples: tuple[_Example, ...]


class Models:
    """What beginnings of one encoding looked like lately. For any number of threads: what is kept is never changed."""

    def __init__(self, syntax: Syntax, charset: str = "") -> None:
        self._syntax = syntax
        self._charset = charset
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
                learned = model._replace(template=template)
                self._put(learned)
                if (found := template.find(head)) is not None:
                    return self._after(learned, found)
        return self._anew(bytes(head))

    def _after(self, model: _Model, found: Found) -> Beginning:
        for example in model.examples:
            changes = [number for number, value in enumerate(found.values) if value != example.values[number]]
            if len(changes) <= _FEW_CHANGES:
                header = self._changed(model, example, found.values, changes)
                break
        else:
            header = self._all_decoded(model, found.values)
            examples = (_Example(found.values, header), *model.examples[: _MOST_EXAMPLES - 1])
            self._put(model._replace(examples=examples))
        return Beginning(header, found.pixels_start, model.layout.pixels_length, self._syntax)

    def _changed(self, model: _Model, example: _Example, values: tuple[bytes, ...], changes: Sequence[int]) -> Header:
        """The header of an example with what has changed, where no other attribute is touched. Raises `Rejected`."""
        known, big_endian = example.header, self._syntax.big_endian
        raw, attributes, members = dict(known.raw), dict(known.attributes), dict(known.members)
        for number in changes:
            keyword, value = model.keywords[number], values[number]
            if keyword not in attributes:
                return self._all_decoded(model, values)
            texts, hurt = decode_value(value, vr_of(model.elements[number]), known.charset, big_endian=big_endian)
            if not any(texts) or hurt != (keyword in known.damaged):
                return self._all_decoded(model, values)
            raw[keyword], attributes[keyword], members[keyword] = value, texts, json_member(keyword, texts)
        return Header(known.charset, raw, attributes, members, known.damaged, ended_at_border=False)

    def _all_decoded(self, model: _Model, values: tuple[bytes, ...]) -> Header:
        found = zip(values, model.elements, strict=True)
        return header_of_values(found, self._syntax, self._charset, has_pixel_data=True, ended_at_border=False)

    def _anew(self, head: bytes) -> Beginning:
        with memoryview(head) as octets:
            found = scan(octets, self._syntax, WANTED, prefix=True)
            pixels = next(e for e in found.elements if e.tag in PIXEL_DATA and not e.sequence)
            header = header_of_scan(octets, found, self._syntax, self._charset)
        layout = Layout.of(head, found, self._syntax)
        if layout is not None:
            elements = found.elements[:-1]
            values = tuple(head[element.start : element.start + element.length] for element in elements)
            self._put(_Model(layout, None, elements, _keywords(elements), (_Example(values, header),)))
        return Beginning(header, pixels.start, pixels.length, self._syntax)

    def _put(self, model: _Model) -> None:
        others = [other for other in self._models if other.layout is not model.layout]
        self._models = (model, *others[: MOST_MODELS - 1])


_models = lru_cache(maxsize=32)(Models)
"""By encoding and by the charset that is taken for one that is not declared: both decide what a header says."""


def _keywords(elements: Sequence[Element]) -> list[str]:
    names = [
        "" if element.tag == SPECIFIC_CHARACTER_SET else BY_PLACE[element.sequence, element.tag].keyword
        for element in elements
    ]
    count = Counter(names)
    return [name if count[name] == 1 else "" for name in names]
