"""A header-only copy of a source: what our results take over from it, in Unicode.

In: a Part 10 file as a modality sent it. Out: a pydicom data set without pixels, waveforms and private elements, each
text of it decoded from its raw bytes (whatever Specific Character Set says) and declared as ISO_IR 192.
Never writes to the file, and never trusts it: unreadable values of other kinds are left out, nesting is bounded.
"""

from __future__ import annotations

import json
import math
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import pydicom.config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag

from pacsnode.dicom import uids
from pacsnode.dicom.charsets import decode_text
from pacsnode.errors import Permanent

UTF_8 = "ISO_IR 192"
"""Specific Character Set of every header and result here; highdicom refuses the Korean one (`ISO 2022 IR 149`)."""

_FIRST_BULK_TAG = 0x54000000  # waveforms, overlays, pixels; 5200,xxxx before them holds the geometry of the frames
_LEFT_OUT = {0x00080005, 0x0040B020, 0x00880200}  # character set (set anew), waveform annotations, icon image
TEXT_VRS = {"LO", "LT", "PN", "SH", "ST", "UC", "UT"}
_ONE_VALUE_VRS = {"LT", "ST", "UT"}
_BULK_VRS = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_MAX_DEPTH = 16
_UNREADABLE = (  # what pydicom raises for damaged data (fuzzed); EOFError and OSError without an errno for cut files
    InvalidDicomError,
    AttributeError,
    BytesLengthException,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


def read_header(path: Path) -> Dataset:
    """The normalised header of the Part 10 file at `path`. Raises Permanent where it cannot be read."""
    try:
        with path.open("rb") as file:
            header = normalised(file)
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the data
        raise Permanent(f"source {path.name} cannot be read: {error}") from error
    for keyword in _REQUIRED:
        if not uids.is_safe(str(header.get(keyword, ""))):
            raise Permanent(f"source {path.name} has no usable {keyword}")
    return header


def normalised(file: BinaryIO) -> Dataset:
    """The header of a Part 10 file in UTF-8. Raises whatever pydicom raises for a damaged one."""
    # What is wrong with the file is found here or by the gate; pydicom's warnings of it would only fill the log.
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        source = read_partial(file, stop_when=lambda tag, _vr, _length: tag >= _FIRST_BULK_TAG)
        header = _copied(source, _charsets(source, _taken_for(source)), 0)
    header.SpecificCharacterSet = UTF_8
    return header


def _copied(source: Dataset, charsets: tuple[str, ...], depth: int) -> Dataset:
    if depth > _MAX_DEPTH:
        raise ValueError(f"sequences nested deeper than {_MAX_DEPTH}")
    copy = Dataset()
    for tag in source.keys():  # noqa: SIM118  # iterating the data set itself would convert every element
        if not tag.is_private and tag not in _LEFT_OUT:
            element = _element(source, tag, charsets, depth)
            if element is not None:
                copy.add(element)
    for keyword in _SPACINGS:
        if keyword in copy and not _is_spacing(copy[keyword].value):
            del copy[keyword]  # real CR say 0.000 where they do not know; highdicom would copy it (PS3.3 10.7: > 0)
    return copy


def _element(source: Dataset, tag: BaseTag, charsets: tuple[str, ...], depth: int) -> DataElement | None:
    raw = source.get_item(tag)
    vr = _vr(tag, raw.VR)
    if vr in _BULK_VRS:
        return None
    if vr == "SQ":
        items = source[tag].value or []
        copies = [_copied(item, _charsets(item, charsets), depth + 1) for item in items]
        return DataElement(tag, "SQ", DicomSequence(copies))
    if vr in TEXT_VRS:
        return DataElement(tag, vr, _text(raw.value, vr, charsets))
    try:
        return source[tag]
    except (ValueError, TypeError, OverflowError, ArithmeticError, NotImplementedError):
        return None  # a number or a date that is none: nothing of it could be taken over


def _vr(tag: BaseTag, declared: str | None) -> str:
    if declared and declared != "UN":
        return declared
    try:
        vr = str(dictionary_VR(tag))
    except KeyError:
        return "UN"
    return "UN" if " or " in vr or (declared == "UN" and vr == "SQ") else vr


def _text(raw: Any, vr: str, charsets: tuple[str, ...]) -> str | list[str]:
    if not isinstance(raw, bytes):
        return "" if raw is None else str(raw)
    text = decode_text(raw, charsets).text
    if vr in _ONE_VALUE_VRS:
        return text.rstrip(" \0")
    values = [value.strip(" \0") for value in text.split("\\")]
    return values[0] if len(values) == 1 else values


def _charsets(source: Dataset, inherited: tuple[str, ...]) -> tuple[str, ...]:
    """Specific Character Set of `source` as it stands there; an item without one has that of its data set."""
    raw = source.get_item(0x00080005) if 0x00080005 in source else None
    if raw is None or not raw.value:
        return inherited
    if isinstance(raw.value, bytes):
        declared = tuple(v.strip() for v in raw.value.decode("latin-1").rstrip(" \0").split("\\"))
    else:
        declared = (raw.value,) if isinstance(raw.value, str) else tuple(str(v) for v in raw.value)
    return declared if any(declared) else inherited


def _taken_for(source: Dataset) -> tuple[str, ...]:
    """What the archive noted of the sender's character set, for a data set that declares none (0002,0102)."""
    note = source.file_meta.get("PrivateInformation", b"") if hasattr(source, "file_meta") else b""
    try:
        charset = json.loads(bytes(note).rstrip(b"\0")).get("charset", "")
    except (ValueError, AttributeError, TypeError):
        return ()
    return (str(charset),) if charset else ()


def _is_spacing(value: Any) -> bool:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return False
    numbers = [float(v) for v in value]
    return len(numbers) == 2 and all(math.isfinite(n) and n > 0 for n in numbers)
