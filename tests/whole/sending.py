"""Variants of real objects, made byte by byte where pydicom would correct them, and a sender with its own address."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE

from pacsnode.dicom.uids import derive

NAME = "Hong^Gildong=洪^吉洞=홍^길동"
ESC_KOREAN = b"\x1b$)C"


def iso_2022_name() -> bytes:
    """The name in ISO 2022 IR 149: every component that holds G1 begins with its escape (PS3.5 H.3)."""

    def component(text: str) -> bytes:
        return (b"" if text.isascii() else ESC_KOREAN) + text.encode("euc_kr")

    return b"=".join(b"^".join(component(c) for c in group.split("^")) for group in NAME.split("="))


KOREAN = {
    "ir149": ("\\ISO 2022 IR 149", iso_2022_name()),
    "utf8": ("ISO_IR 192", NAME.encode()),
    "undeclared": ("", NAME.encode("euc_kr")),
}


def variant(source: Path, target: Path, seed: str, **attributes: Any) -> pydicom.Dataset:
    """A copy with UIDs of its own (derived from `seed`) and other attributes; None deletes one."""
    dataset = pydicom.dcmread(source)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(dataset, keyword, derive(seed, keyword))
    for keyword, value in attributes.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    target.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(target)
    return dataset


def with_raw_name(source: Path, target: Path, seed: str, charset: str, name: bytes) -> pydicom.Dataset:
    """A copy whose PatientName has exactly these bytes, declared as `charset` ("" declares nothing)."""
    marker = "N" * (len(name) + len(name) % 2)
    dataset = variant(source, target, seed, SpecificCharacterSet=charset or None, PatientName=marker)
    content = target.read_bytes()
    assert content.count(marker.encode()) == 1
    target.write_bytes(content.replace(marker.encode(), name.ljust(len(marker))))
    return dataset


def send_from(address: str, port: int, calling: str, paths: Sequence[Path]) -> list[int]:
    """C-STORE by pynetdicom from a given source address; the statuses."""
    entity = AE(ae_title=calling)
    datasets = [pydicom.dcmread(path) for path in paths]
    for dataset in datasets:
        entity.add_requested_context(dataset.SOPClassUID, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="PACSNODE", bind_address=(address, 0))
    assert association.is_established
    try:
        return [association.send_c_store(dataset).Status for dataset in datasets]
    finally:
        association.release()


def data_set_bytes(path: Path) -> bytes:
    """The data set of a Part 10 file as it lies there."""
    with path.open("rb") as file:
        file.seek(132)
        head = file.read(12)
        file.seek(144 + int.from_bytes(head[8:12], "little"))
        return file.read()


def fresh_uid() -> str:
    """A UID that no other test has."""
    return str(generate_uid())


def encoded(dataset: pydicom.Dataset) -> bytes:
    """A data set as it is saved."""
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()
