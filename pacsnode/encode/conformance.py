"""The gate: what a result must be before it leaves.

In: the Part 10 bytes as they would be sent. Out: nothing, or Permanent with the reason. It reads the bytes back, since
what counts is what a PACS will read, and it never repairs.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from typing import Any

import pydicom
import pydicom.config
from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from pacsnode.dicom import uids
from pacsnode.encode import charset, sr_rules
from pacsnode.encode.header import STANDARD_ROOT, identity_keywords, is_left_out
from pacsnode.encode.normalise import UTF_8, normalised
from pacsnode.encode.provenance import DerivedUIDs, Origin
from pacsnode.encode.read_back import Item, read_back
from pacsnode.errors import Permanent
from pacsnode.handover import SHIPPED, ResultKind

_COPIED = {"RequestAttributesSequence", "ReferencedRequestSequence"}
_REFERENCED_INSTANCE, _NUMERIC_VALUE, _FLOATING_POINT = 0x00081155, 0x0040A30A, 0x0040A161
_POINTS = (0x00700014, 0x00700022)
"""Anchor Point and Graphic Data of a presentation state, FL."""
_MATCHED = ("PatientID", "PatientName", "IssuerOfPatientID", "StudyInstanceUID")
_MAX_DS_CHARACTERS = 16
_STREAM = re.compile(rb"\bstream\r?\n.*?\bendstream\b", re.DOTALL)
_ACTIVE = re.compile(rb"/(JavaScript|JS|OpenAction|AA|Launch|URI|GoToR|SubmitForm|EmbeddedFile|RichMedia|XFA)\b")
"""What a PDF can do when it is opened (ISO 32000-1, 12.6 and 7.11.4)."""
_NOT_TABULATED = {"sr-document-content"}  # its table mixes the attributes of all value types of content items


def load_tables() -> None:
    """Read the tables that `check` and highdicom's constructors look into (22 MB of JSON, kept in memory)."""
    identity_keywords()
    get_iod_module_map()
    get_sop_class_iod_map()


def check_sources(sources: Mapping[str, Dataset], study_instance_uid: str) -> None:
    """Raise Permanent unless all sources are of one patient and of the case's study."""
    if not sources:
        raise Permanent("the case has no sources")
    first = next(iter(sources.values()))
    if first.StudyInstanceUID != study_instance_uid:
        raise Permanent("the sources belong to another study than the case")
    for header in sources.values():
        for keyword in _MATCHED:
            if str(header.get(keyword, "")) != str(first.get(keyword, "")):
                raise Permanent(f"the sources of the case disagree in {keyword}")


def check(content: bytes, origin: Origin, kind: ResultKind, index: int) -> None:
    """Raise Permanent unless `content`, the object number `index` of its kind, may leave."""
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")  # of what the source had already, and of its character set
        dataset = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
        is_plain = origin.request.form.charset == SHIPPED.charset
        _check_identity(dataset if is_plain else normalised(BytesIO(content)), origin.first)
        _check_own_uids(dataset, origin, kind, index)
        check_modules(dataset)
    if dataset.get("SpecificCharacterSet") != UTF_8:
        charset.check(content, origin)
    root = read_back(content)
    ours = list(root.walk(_not_ours()))
    _check_references(ours, origin)
    _check_numbers(ours)
    if kind in ("sr", "pdf") and dataset.get("VerificationFlag") != "UNVERIFIED":
        raise Permanent("the report claims to be verified")
    if kind == "sr":
        sr_rules.check(root)
    if kind == "pdf":
        _check_document(dataset)
    if kind == "pr":
        _check_graphics(ours)


def _check_identity(dataset: Dataset, header: Dataset) -> None:
    for keyword in sorted(identity_keywords()):
        ours, theirs = _plain(dataset.get(keyword)), _plain(header.get(keyword))
        if ours != theirs and not (keyword not in dataset and is_left_out(header[keyword])):
            raise Permanent(f"{keyword} of the result is not that of its source")


def _plain(value: Any) -> Any:
    """`value` for comparison: text, tuples of text, nested; what is absent equals what is empty."""
    if isinstance(value, Dataset):
        return {str(element.tag): _plain(element.value) for element in value}
    if isinstance(value, (pydicom.Sequence, MultiValue, list)):
        return tuple(_plain(v) for v in value)
    return "" if value is None else str(value)


def _check_own_uids(dataset: Dataset, origin: Origin, kind: ResultKind, index: int) -> None:
    derived = DerivedUIDs(origin.request.case.key, origin.request.form)
    expected = {
        "SOPInstanceUID": derived.instance(kind, index),
        "SeriesInstanceUID": derived.series(kind),
        "StudyInstanceUID": origin.request.case.study_instance_uid,
    }
    for keyword, uid in expected.items():
        if dataset.get(keyword) != uid:
            raise Permanent(f"{keyword} of the result is not the derived one")


@cache
def _not_ours() -> frozenset[int]:
    """Tags of what is copied from the source, whose references are the hospital's own."""
    return frozenset(int(Tag(keyword)) for keyword in identity_keywords() | _COPIED)


def _check_references(items: Sequence[Item], origin: Origin) -> None:
    allowed = origin.source_uids | origin.own_uids
    instances = {*origin.sources, *origin.uids.instances, *(p.SOPInstanceUID for p in origin.predecessors)}
    valid: set[str] = set()
    for item in items:
        for tag, vr in item.vrs.items():
            if vr != b"UI" or tag in _not_ours():
                continue
            for uid in filter(None, item.text(tag).split("\\")):
                if uid.startswith(STANDARD_ROOT):
                    continue
                if uid not in allowed:
                    raise Permanent(f"the UID {uid[:64]} is neither derived nor the source's")
                if uid not in valid and uid not in origin.source_uids and not uids.is_valid(uid):
                    raise Permanent(f"{uid[:64]} is no UID")
                valid.add(uid)
                if tag == _REFERENCED_INSTANCE and uid not in instances:
                    raise Permanent(f"the result refers to {uid[:64]}, which is not of this case")


def _check_numbers(items: Sequence[Item]) -> None:
    for item in items:
        number = item.values.get(_NUMERIC_VALUE)
        if number is not None and len(item.text(_NUMERIC_VALUE)) > _MAX_DS_CHARACTERS:
            raise Permanent("a number of the report is longer than its VR allows")
        if number is not None and not _is_finite(item.text(_NUMERIC_VALUE)):
            raise Permanent("a number of the report is not finite")
        if _FLOATING_POINT in item.values and not math.isfinite(*struct.unpack("<d", item.values[_FLOATING_POINT])):
            raise Permanent("a number of the report is not finite")


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_document(dataset: Dataset) -> None:
    """The PDF is whole and does nothing: names of actions are looked for outside of its (compressed) streams."""
    content = bytes(dataset.get("EncapsulatedDocument") or b"").rstrip(b"\0\r\n ")
    if dataset.get("MIMETypeOfEncapsulatedDocument") != "application/pdf":
        raise Permanent("the document says that it is no PDF")
    if not content.startswith(b"%PDF-1.") or not content.endswith(b"%%EOF"):
        raise Permanent("the document is no whole PDF")
    if found := _ACTIVE.search(_STREAM.sub(b"", content)):
        raise Permanent(f"the document is not passive: it has {found[1].decode()}")


def _check_graphics(items: Sequence[Item]) -> None:
    for item in items:
        points = b"".join(item.values.get(tag, b"") for tag in _POINTS)
        if not all(math.isfinite(value) for (value,) in struct.iter_unpack("<f", points)):
            raise Permanent("a point of the presentation state is no number")


def check_modules(dataset: Dataset) -> None:
    """The mandatory modules' type 1 and 2 attributes are there (highdicom's tables of PS3.3)."""
    iod = get_sop_class_iod_map()[dataset.SOPClassUID]
    for module in get_iod_module_map()[iod]:
        if module["usage"] != "M" or module["key"] in _NOT_TABULATED:
            continue
        for keyword, kind in _required(module["key"]):
            if keyword not in dataset or (kind == "1" and dataset[keyword].is_empty):
                raise Permanent(f"{module['key']}: {keyword} (type {kind}) is missing")


@cache
def _required(module: str) -> tuple[tuple[str, str], ...]:
    """(keyword, type) of the type 1 and 2 attributes of a module, those inside sequences left out."""
    return tuple(
        (attribute["keyword"], attribute["type"])
        for attribute in get_module_attribute_map()[module]
        if not attribute["path"] and attribute["type"] in ("1", "2")
    )
