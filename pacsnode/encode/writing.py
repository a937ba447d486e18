"""Data sets to bytes in Explicit VR Little Endian (PS3.5 7.1): what pydicom writes, several times as fast.

A report of a CT refers to hundreds of images: pydicom's writer goes through every nested item once a level. Elements of
the plain VRs that reports consist of are written here, all others by pydicom; a test holds both against each other.
What stands in several places (codes, the algorithm of each group) is written once and copied. Never changes a data set.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr_element, write_data_element
from pydicom.multival import MultiValue

_PADDING: Mapping[str, bytes] = dict.fromkeys(("CS", "SH", "LO", "ST", "LT", "UT", "DA", "TM", "DT"), b" ") | {
    "UI": b"\0"
}
_NUMBERS: Mapping[str, str] = {"US": "H", "UL": "I", "FL": "f", "FD": "d"}
_NUMBER_STRINGS = frozenset({"DS", "IS"})
_LONG = frozenset({"SQ", "UT"})
"""Of the VRs that are written here, those with a length of four bytes."""
_LAST_COMMAND_GROUP = 6
_ITEM = b"\xfe\xff\x00\xe0"


class Writer:
    """Writes one data set with all that is in it. `charset`: its Specific Character Set."""

    def __init__(self, charset: str | Sequence[str]) -> None:
        self._encodings = convert_encodings(charset if isinstance(charset, str) else list(charset))
        self._written: dict[int, bytes] = {}

    def data_set(self, dataset: Dataset) -> bytes:
        """All elements of `dataset` in the order of their tags, but for retired group lengths (PS3.5 7.2)."""
        tags = sorted(tag for tag in dataset.keys() if tag.element or tag.group <= _LAST_COMMAND_GROUP)  # noqa: SIM118
        return b"".join(self._element(dataset, tag) for tag in tags)

    def _element(self, dataset: Dataset, tag: int) -> bytes:
        element = dataset[tag]
        vr = element.VR
        if vr == "SQ" and not element.is_undefined_length:
            known = self._written.get(id(element))
            if known is None:
                known = _headed(tag, vr, b"".join(map(self._item, element.value or ())))
                self._written[id(element)] = known
            return known
        value = _plain(vr, element.value)
        return self._by_pydicom(dataset, element) if value is None else _headed(tag, vr, value)

    def _item(self, dataset: Dataset) -> bytes:
        known = self._written.get(id(dataset))
        if known is None:
            content = self.data_set(dataset)
            known = self._written[id(dataset)] = _ITEM + struct.pack("<I", len(content)) + content
        return known

    def _by_pydicom(self, dataset: Dataset, element: DataElement) -> bytes:
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_data_element(buffer, correct_ambiguous_vr_element(element, dataset, True), self._encodings)
        written: bytes = buffer.getvalue()
        return written


def _headed(tag: int, vr: str, value: bytes) -> bytes:
    group, number = tag >> 16, tag & 0xFFFF
    if vr in _LONG:
        return struct.pack("<HH2sHI", group, number, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def _plain(vr: str, value: object) -> bytes | None:
    """The bytes of a value, None where pydicom knows better."""
    values = list(value) if isinstance(value, MultiValue | list) else [value]
    if vr in _NUMBERS and values and all(isinstance(one, int | float) for one in values):
        return struct.pack(f"<{len(values)}{_NUMBERS[vr]}", *values)
    if vr in _NUMBER_STRINGS and value is not None and values:
        return _padded((str(getattr(one, "original_string", one)) for one in values), b" ")
    if vr in _PADDING and all(isinstance(one, str) for one in values):
        return _padded((str(one) for one in values), _PADDING[vr])
    return None


def _padded(values: Iterable[str], padding: bytes) -> bytes | None:
    """ASCII, which is the same in every character set; None where it is not, or too long for its length."""
    text = "\\".join(values)
    if not text.isascii() or len(text) > 0xFFFE:
        return None
    written = text.encode()
    return written + padding if len(written) % 2 else written
