"""What the node itself says of a case, on real sources: its rejection note and `not analysed`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pacsnode.dicom.rejection import BY_CODE
from pacsnode.encode.build import encode
from pacsnode.encode.failure import LONGEST_REASON, failure, plain
from pacsnode.encode.rejection import node_algorithm, rejection
from pacsnode.errors import Permanent
from pacsnode.handover import EncodeRequest, ResultKind
from tests.encode.cases import CHEST, CR, ECG, chest_findings, ecg_findings, errors_of_dciodvfy, request

SOURCES = {"cr": (CR, chest_findings), "ecg": (ECG, ecg_findings)}
REASON = "the object holds no pixel data"


def made(folder: Path, which: str) -> EncodeRequest:
    """What asks for a note about the results of a case."""
    source, found = SOURCES[which]
    asked = request(folder / "case", source)
    results = encode(found(), asked)
    return asked_of(asked, folder / "note", "case-1:rejection", ("ko",), tuple(r.path for r in results))


def asked_of(
    asked: EncodeRequest, folder: Path, key: str, kinds: tuple[ResultKind, ...], sources: tuple[Path, ...]
) -> EncodeRequest:
    folder.mkdir(exist_ok=True)
    return replace(asked, case=replace(asked.case, key=key, results=kinds), folder=folder, sources=sources)


@pytest.mark.parametrize("which", SOURCES)
@pytest.mark.parametrize("code", BY_CODE)
def test_a_note_lists_every_result_in_a_series_of_its_own_and_the_validator_finds_no_error(
    which: str, code: str, tmp_path: Path
) -> None:
    asked = made(tmp_path, which)
    note = rejection(code, "by main-pacs", asked)
    kos = pydicom.dcmread(note.path)
    results = [pydicom.dcmread(path, stop_before_pixels=True) for path in asked.sources]
    listed = {
        str(one.ReferencedSOPInstanceUID): str(series.SeriesInstanceUID)
        for series in kos.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    assert listed == {str(one.SOPInstanceUID): str(one.SeriesInstanceUID) for one in results}
    assert kos.SeriesInstanceUID not in listed.values()
    assert str(kos.ConceptNameCodeSequence[0].CodeValue) == code
    assert (kos.PatientID, kos.StudyInstanceUID, kos.Modality) == (
        results[0].PatientID,
        results[0].StudyInstanceUID,
        "KO",
    )
    assert errors_of_dciodvfy(note.path) == []


def test_a_note_that_is_made_again_has_the_same_uids_and_bytes(tmp_path: Path) -> None:
    asked = made(tmp_path, "cr")
    first = rejection("113001", "by main-pacs", asked).path.read_bytes()
    assert rejection("113001", "by main-pacs", asked).path.read_bytes() == first


def test_a_note_never_lists_results_of_two_patients(tmp_path: Path) -> None:
    asked = made(tmp_path, "cr")
    other = pydicom.dcmread(asked.sources[0])
    other.PatientID = "somebody else"
    other.save_as(tmp_path / "other.dcm")
    with pytest.raises(Permanent, match="disagree in PatientID"):
        rejection("113001", "", replace(asked, sources=(*asked.sources[1:], tmp_path / "other.dcm")))


@pytest.mark.parametrize("which", SOURCES)
def test_a_failure_is_a_report_and_a_page_that_say_why_and_state_no_finding(which: str, tmp_path: Path) -> None:
    source, _ = SOURCES[which]
    asked = asked_of(request(tmp_path / "case", source), tmp_path / "n", "case-1:failure:1", ("sr", "sc"), (source,))
    report, page = failure(REASON, CHEST, asked)
    assert errors_of_dciodvfy(report.path) == errors_of_dciodvfy(page.path) == []
    dataset = pydicom.dcmread(report.path)
    text = str(dataset)
    assert f"Not analysed: {REASON}" in text
    assert "Summary of Analyses" in text
    assert "52101004" not in text  # present
    assert "272519000" not in text  # absent
    assert (dataset.VerificationFlag, dataset.SeriesDescription) == ("UNVERIFIED", "AI chest-xray - NOT ANALYSED")
    drawn = pydicom.dcmread(page.path).pixel_array
    assert drawn.shape == (600, 800, 3)
    assert np.unique(drawn).size > 3


def test_a_failure_can_be_told_though_its_service_is_gone(tmp_path: Path) -> None:
    asked = asked_of(request(tmp_path / "case", CR), tmp_path / "n", "case-1:failure:1", ("sr",), (CR,))
    (report,) = failure("service chest-xray is not installed any more", node_algorithm(asked), asked)
    assert errors_of_dciodvfy(report.path) == []


def test_a_second_failure_names_the_first_as_its_predecessor(tmp_path: Path) -> None:
    asked = asked_of(request(tmp_path / "case", CR), tmp_path / "1", "case-1:failure:1", ("sr",), (CR,))
    (first,) = failure(REASON, CHEST, asked)
    again = asked_of(asked, tmp_path / "2", "case-1:failure:2", ("sr",), (CR,))
    (second,) = failure("another reason", CHEST, replace(again, predecessors=(first.path,)))
    dataset = pydicom.dcmread(second.path)
    named = dataset.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == first.sop_instance_uid


def test_only_what_the_rules_want_is_made(tmp_path: Path) -> None:
    asked = asked_of(request(tmp_path / "case", CR), tmp_path / "n", "case-1:failure:1", ("sc",), (CR,))
    assert [one.kind for one in failure(REASON, CHEST, asked)] == ["sc"]


def test_a_reason_is_one_line_of_bounded_length() -> None:
    assert plain("one\r\n\x1b[31mtwo") == "one [31mtwo"
    assert len(plain("x" * 10_000)) == LONGEST_REASON
