"""Rejection notes as a PACS makes them (IHE RAD-66), built by hand: right ones, and those that are not right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

KOS = "1.2.840.10008.5.1.4.1.1.88.59"
MEANINGS = {
    "113000": "Of Interest",
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}


def note(path: Path, about: Sequence[Dataset], code: str = "113001", **changes: Any) -> Dataset:
    """A note in the study of the first of these objects that names them all; `changes` by keyword."""
    first = about[0]
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = KOS, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = first.StudyInstanceUID, generate_uid()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        setattr(made, keyword, first.get(keyword, ""))
    made.Modality, made.SeriesNumber, made.InstanceNumber = "KO", 700, 1
    made.AccessionNumber = first.get("AccessionNumber", "")
    made.ReferringPhysicianName = made.Manufacturer = ""
    made.ContentDate, made.ContentTime = "20260301", "120000"
    made.ValueType, made.ContinuityOfContent = "CONTAINER", "SEPARATE"
    made.ConceptNameCodeSequence = [_code(code, MEANINGS[code])]
    made.CurrentRequestedProcedureEvidenceSequence = [_study(first.StudyInstanceUID, about)]
    made.ContentSequence = [_named(one) for one in about]
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.save_as(path, enforce_file_format=True)
    return made


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _study(uid: str, about: Sequence[Dataset]) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID = uid
    study.ReferencedSeriesSequence = []
    for one in about:
        series, reference = Dataset(), Dataset()
        series.SeriesInstanceUID = one.SeriesInstanceUID
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
        series.ReferencedSOPSequence = [reference]
        study.ReferencedSeriesSequence.append(series)
    return study


def _named(one: Dataset) -> Dataset:
    item, reference = Dataset(), Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "IMAGE"
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    item.ReferencedSOPSequence = [reference]
    return item


def named_by(kos: pydicom.Dataset) -> list[str]:
    """SOP Instance UIDs that a note lists as evidence, sorted."""
    return sorted(
        str(reference.ReferencedSOPInstanceUID)
        for study in kos.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    )


def title_of(kos: pydicom.Dataset) -> str:
    """The code of its document title."""
    return str(kos.ConceptNameCodeSequence[0].CodeValue)
