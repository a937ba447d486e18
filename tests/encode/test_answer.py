"""What a vendor's object is held against before it may leave: patient, study, references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from pacsnode.encode.answer import Asked, kind_of, objection
from pacsnode.handover import Attributes, Instance

SR, SEG, SC = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.7"
PDF, KO, PR = "1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.88.59", "1.2.840.10008.5.1.4.1.1.11.1"
IMAGE, PRIOR, STRANGER = (f"1.2.3.{number}" for number in (1, 2, 3))
PATIENT: Attributes = {
    "PatientID": ("4711",),
    "PatientName": ("Hong^Gildong=洪^吉洞=홍^길동",),
    "PatientBirthDate": ("19700101",),
    "PatientSex": ("M",),
    "StudyDate": ("20260301",),
    "StudyTime": ("101500.000",),
    "StudyID": ("7",),
    "AccessionNumber": ("A-1",),
}


def refers(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = SC, uid
    return item


def content(*uids: str) -> list[Dataset]:
    """Items of a content tree that name instances, one inside the other."""
    item = Dataset()
    item.ReferencedSOPSequence = [refers(uid) for uid in uids]
    outer = Dataset()
    outer.ContentSequence = [item]
    return [outer]


def said(folder: Path, sop_class: str = SR, attributes: Attributes = PATIENT, **elements: Any) -> str:
    """What is said against an object of this kind with these attributes and elements."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.4"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / "answer.dcm"
    dataset.save_as(path, enforce_file_format=True)
    asked = Asked(PATIENT, "CLINIC", {IMAGE}, {IMAGE, str(dataset.SOPInstanceUID)})
    one = Instance(str(dataset.SOPInstanceUID), sop_class, "1.2.4", "1.2.3", "", "", "", "v", 0, 0, "", attributes)
    return objection(one, path, asked)


@pytest.mark.parametrize("sop_class", [SR, SEG])
def test_an_object_of_the_same_examination_on_its_image_may_leave(tmp_path: Path, sop_class: str) -> None:
    assert said(tmp_path, sop_class, ContentSequence=content(IMAGE)) == ""


def test_what_an_answer_leaves_empty_or_writes_in_another_way_agrees(tmp_path: Path) -> None:
    written: Attributes = {
        "PatientID": ("4711",),
        "PatientName": ("HONG^GILDONG",),
        "StudyDate": ("2026.03.01",),
        "StudyTime": ("1015",),
    }
    assert said(tmp_path, attributes=written, ContentSequence=content(IMAGE)) == ""


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "4712"),
        ("PatientID", ""),
        ("PatientName", "Kim^Gildong"),
        ("PatientName", "Hong^Gildong=洪^吉洞=홍^길순"),
        ("PatientBirthDate", "19700102"),
        ("PatientSex", "F"),
        ("IssuerOfPatientID", "OTHER"),
        ("StudyDate", "20260302"),
        ("StudyTime", "101501"),
        ("StudyID", "8"),
        ("AccessionNumber", "A-2"),
    ],
)
def test_another_patient_or_examination_is_told_by_attribute_and_never_by_value(
    tmp_path: Path, keyword: str, value: str
) -> None:
    attributes = {**PATIENT, keyword: (value,)}
    told = said(tmp_path, attributes=attributes, ContentSequence=content(IMAGE))
    assert told == f"it is not of the same examination: {keyword} differs"


def test_a_reference_to_a_foreign_image_is_refused_however_deep_it_lies(tmp_path: Path) -> None:
    told = said(tmp_path, ContentSequence=content(IMAGE, STRANGER))
    assert told == f"it refers to {STRANGER}, which is no image of the study"


def test_an_image_of_another_study_may_be_named_where_the_object_lists_it_as_evidence(tmp_path: Path) -> None:
    other = content(PRIOR)
    assert said(tmp_path, ContentSequence=content(IMAGE, PRIOR), PertinentOtherEvidenceSequence=other) == ""
    told = said(tmp_path, ContentSequence=content(PRIOR), PertinentOtherEvidenceSequence=other)
    assert told == "it refers to none of the images that were sent"


def test_a_report_on_no_image_may_not_leave_and_a_picture_or_a_document_may(tmp_path: Path) -> None:
    assert said(tmp_path) == "it refers to none of the images that were sent"
    assert said(tmp_path, SC) == said(tmp_path, PDF) == ""
    assert said(tmp_path, KO) == said(tmp_path, PR) == "it refers to none of the images that were sent"


def test_orders_and_procedure_steps_are_no_images(tmp_path: Path) -> None:
    assert (
        said(
            tmp_path,
            ContentSequence=content(IMAGE),
            ReferencedPerformedProcedureStepSequence=[refers(STRANGER)],
            ReferencedStudySequence=[refers("1.2.3")],
        )
        == ""
    )


def test_a_file_that_cannot_be_read_is_no_answer(tmp_path: Path) -> None:
    deep = Dataset()
    deepest = deep
    for _ in range(30):
        inner = Dataset()
        deepest.ContentSequence = [inner]
        deepest = inner
    told = said(tmp_path, ContentSequence=[deep])
    assert told == "it cannot be read: sequences nested deeper than 16"


def test_a_kind_is_told_by_the_sop_class_alone() -> None:
    assert [kind_of(uid) for uid in (SR, SEG, SC, "1.2.840.10008.5.1.4.1.1.2", "")] == ["sr", "seg", "sc", None, None]
    assert [kind_of(uid) for uid in (PDF, KO, PR)] == ["pdf", "ko", "pr"]
