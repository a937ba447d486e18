"""Structured reports made for tests, also such as nobody should send."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pydicom.config
from pydicom.dataset import Dataset

from tests.infer.bundles import image, saved

COMPREHENSIVE = "1.2.840.10008.5.1.4.1.1.88.33"
SCRIPT = '<script>alert("x")</script><img src=x onerror=alert(1)>'
ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m"
TURNED = "\u202egnp.exe\u2066"


def code(meaning: str, value: str = "1", scheme: str = "99TEST") -> Dataset:
    """A code sequence's item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def content(kind: str, name: str, *children: Dataset, **values: object) -> Dataset:
    """A content item."""
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", kind
    item.ConceptNameCodeSequence = [code(name)]
    for keyword, value in values.items():
        setattr(item, keyword, value)
    if children:
        item.ContentSequence = list(children)
    return item


def document(path: Path, *children: Dataset, title: str = "Report", sop_class_uid: str = COMPREHENSIVE) -> Path:
    """A report of some vendor."""
    with pydicom.config.disable_value_validation():
        dataset = image(np.zeros((2, 2), np.uint8), sop_class_uid=sop_class_uid, Modality="SR", Manufacturer="Vendor")
        for keyword in ("Rows", "Columns", "PixelData", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored"):
            delattr(dataset, keyword)
        dataset.ValueType, dataset.ConceptNameCodeSequence = "CONTAINER", [code(title)]
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.PatientName, dataset.PatientID = "Hong^Gildong=洪^吉洞=홍^길동", "SECRET-ID-7"
        dataset.ContentSequence = list(children)
        dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
        return saved(dataset, path)


def hostile(path: Path) -> Path:
    """Markup, terminal controls, and marks that turn the direction of writing, wherever text may stand."""
    with pydicom.config.disable_value_validation():
        return _hostile(path)


def _hostile(path: Path) -> Path:
    number = Dataset()
    number.NumericValue, number.MeasurementUnitsCodeSequence = "1", [code(SCRIPT)]
    return document(
        path,
        content("TEXT", SCRIPT, TextValue=f"first{ESCAPE}\r\nsecond {SCRIPT}\nthird"),
        content("TEXT", "turned", TextValue=TURNED),
        content("CODE", f"name {ESCAPE}", ConceptCodeSequence=[code(f"'\"><svg onload=alert(1)>{ESCAPE}")]),
        content("NUM", "number", MeasuredValueSequence=[number]),
        content("UIDREF", "uid", UID=SCRIPT[:60]),
        content("PNAME", "person", PersonName=f'"><img onerror>{ESCAPE}'),
        content("CONTAINER", SCRIPT, content("TEXT", "deep", TextValue=ESCAPE)),
        title=f"{SCRIPT}{ESCAPE}",
    )


def nested(path: Path, depth: int) -> Path:
    """A container in a container in a container …"""
    inner = content("TEXT", "innermost", TextValue="bottom")
    for level in range(depth):
        inner = content("CONTAINER", f"level {depth - level}", inner)
    return document(path, inner)


def header_of(path: Path) -> pydicom.Dataset:
    """As the command reads it."""
    from pacsnode.encode.normalise import read_header

    return read_header(path)
