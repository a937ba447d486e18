"""What is in the objects, and what is refused."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

import pacsnode
from pacsnode import findings_files as stored
from pacsnode.dicom import uids
from pacsnode.dicom.codes import PRIVATE_SCHEME, Concept
from pacsnode.encode import conformance
from pacsnode.encode.build import encode
from pacsnode.encode.drawing import evaluation_text
from pacsnode.encode.header import part_10
from pacsnode.encode.normalise import read_header
from pacsnode.encode.provenance import DerivedUIDs, Origin, device_uid, series_description, uid_values
from pacsnode.encode.sr_groups import _evaluation
from pacsnode.errors import Permanent
from pacsnode.findings import Evaluation, Findings, Presence
from pacsnode.handover import RESULT_KINDS, ResultKind
from tests.encode.cases import (
    CHEST,
    CR,
    ECG,
    NODE,
    chest_findings,
    chest_group,
    ecg_findings,
    errors_of_dciodvfy,
    read,
    request,
)
from tests.encode.marked import marked_film

KINDS: tuple[ResultKind, ...] = ("sr", "seg", "sc")

IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from pacsnode import findings_files
from pacsnode.encode.build import encode
from pacsnode.handover import RESULT_KINDS
from tests.encode.cases import request
encode(findings_files.load(Path(sys.argv[1])), request(Path(sys.argv[2]), Path(sys.argv[3]), results=RESULT_KINDS))
"""


def second_image(folder: Path) -> Path:
    """Another image of the same study."""
    dataset = pydicom.dcmread(CR)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    dataset.InstanceNumber = 2
    dataset.save_as(folder / "second.dcm")
    return folder / "second.dcm"


def items(dataset: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """All content items of a report."""
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from items(item)


@pytest.mark.parametrize("source", [CR, ECG])
def test_two_processes_write_the_same_bytes(source: Path, tmp_path: Path) -> None:
    findings = chest_findings() if source == CR else ecg_findings()
    stored.save(findings, tmp_path / "findings")
    results = encode(findings, request(tmp_path / "here", source, results=RESULT_KINDS))
    root = str(Path(pacsnode.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": root, "PYTHONHASHSEED": "4711"}
    arguments = [str(tmp_path / "findings"), str(tmp_path / "there"), str(source)]
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, *arguments], check=True, env=environment, cwd=root)
    for result in results:
        assert (tmp_path / "there" / result.path.name).read_bytes() == result.path.read_bytes()


def test_uids_derive_from_the_case_and_none_is_random(tmp_path: Path) -> None:
    results = encode(chest_findings(), request(tmp_path, CR))
    source = {str(e.value) for e in pydicom.dcmread(CR, stop_before_pixels=True).iterall() if e.VR == "UI"}
    for result in results:
        assert result.sop_instance_uid == uids.derive("case-1", result.kind, "1")
        assert result.series_instance_uid == uids.derive("case-1", result.kind, "series")
        values = {str(e.value) for e in pydicom.dcmread(result.path).iterall() if e.VR == "UI"} - source
        assert all(v.startswith(("2.25.", "1.2.840.10008.")) and uids.is_valid(v) for v in values)


def test_the_same_lesion_keeps_its_tracking_uid_in_another_run(tmp_path: Path) -> None:
    runs = [encode(chest_findings(), request(tmp_path / key, CR, key=key)) for key in ("case-1", "case-2")]
    tracked = [[s.TrackingUID for s in read(run, "seg").SegmentSequence] for run in runs]
    assert tracked[0] == tracked[1]
    assert runs[0][0].sop_instance_uid != runs[1][0].sop_instance_uid


def test_every_object_says_who_made_it_and_that_nobody_verified_it(tmp_path: Path) -> None:
    results = encode(chest_findings(), request(tmp_path, CR))
    for kind in KINDS:
        dataset = read(results, kind)
        assert dataset.SeriesDescription == "AI chest-xray 0.1.0 - UNVERIFIED"
        assert dataset.DeviceUID == NODE.device_uid
        assert dataset.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == PRIVATE_SCHEME
        (equipment,) = [
            i
            for i in dataset.ContributingEquipmentSequence
            if i.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        ]
        assert (equipment.ManufacturerModelName, equipment.SoftwareVersions) == ("chest-xray", "0.1.0")
        assert equipment.DeviceUID == device_uid(CHEST) != device_uid(replace(CHEST, bundle_hash="ef" * 32))
        assert dataset.ContentDate == dataset.InstanceCreationDate == "20261122"
    report = read(results, "sr")
    assert (report.VerificationFlag, report.CompletionFlag, report.PreliminaryFlag) == (
        "UNVERIFIED",
        "COMPLETE",
        "PRELIMINARY",
    )
    text = "\n".join(str(i.TextValue) for i in items(report) if i.ValueType == "TEXT")
    for said in ("Not for diagnosis", "Status: trained", "Training data:", "Quality:", CHEST.bundle_hash, "cpu"):
        assert said in text


@pytest.mark.parametrize(
    ("findings", "source", "kinds", "weights"),
    [(chest_findings(), CR, KINDS, "cd" * 32), (ecg_findings(), ECG, ("sr", "sc"), "none")],
    ids=["network", "nothing learnt"],
)
def test_every_kind_names_service_version_bundle_weights_and_device(
    findings: Findings, source: Path, kinds: tuple[ResultKind, ...], weights: str, tmp_path: Path
) -> None:
    made_by = findings.algorithm
    results = encode(findings, request(tmp_path, source, results=kinds))
    for kind in kinds:
        *_, equipment = read(results, kind).ContributingEquipmentSequence
        assert (equipment.ManufacturerModelName, equipment.SoftwareVersions) == (made_by.service, made_by.version)
        assert equipment.ContributionDescription == (
            f"Analysis, unverified. Bundle SHA-256 {made_by.bundle_hash}. Weights SHA-256 {weights}. Computed on cpu"
        )
    told = [str(item.TextValue) for item in items(read(results, "sr")) if item.ValueType == "TEXT"]
    parameters = {f"bundle={made_by.bundle_hash}", f"weights={weights}", "device=cpu"}
    assert parameters <= set(told)
    assert {f"Weights SHA-256: {weights}", f"Bundle SHA-256: {made_by.bundle_hash}", "Computed on: cpu"} <= set(told)
    if "seg" in kinds:
        for segment in read(results, "seg").SegmentSequence:
            (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
            assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (made_by.service, made_by.version)
            assert parameters <= set(algorithm.AlgorithmParameters.split(","))


def test_the_series_description_is_short_and_plain_for_any_service() -> None:
    text = series_description(replace(CHEST, service="흉부\\" + "x" * 80))
    assert text.isascii() and len(text) <= 64 and "\\" not in text and text.endswith(" - UNVERIFIED")


def test_two_images_of_a_case_give_one_report_and_a_seg_and_a_picture_each(tmp_path: Path) -> None:
    second = second_image(tmp_path)
    findings = Findings(CHEST, (chest_group(), chest_group(second)))
    results = encode(findings, request(tmp_path / "out", CR, second))
    assert [r.path.name for r in results] == ["seg-1.dcm", "seg-2.dcm", "sr-1.dcm", "sc-1.dcm", "sc-2.dcm"]
    assert len({r.sop_instance_uid for r in results}) == 5
    assert len({r.series_instance_uid for r in results}) == 3
    report = read(results, "sr")
    templates = [
        i.ContentTemplateSequence[0].TemplateIdentifier for i in items(report) if "ContentTemplateSequence" in i
    ]
    assert templates == ["1501", "1411", "1411", "1411", "1501", "1411", "1411", "1411"]
    assert all(errors_of_dciodvfy(r.path) == [] for r in results)


def test_a_grown_study_gives_a_report_that_names_its_predecessor(tmp_path: Path) -> None:
    (first,) = encode(chest_findings(), request(tmp_path / "1", CR, results=("sr",)))
    again = request(tmp_path / "2", CR, results=("sr",), key="case-2", predecessors=(first.path,))
    results = encode(chest_findings(), again)
    (study,) = read(results, "sr").PredecessorDocumentsSequence
    reference = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert reference.ReferencedSOPInstanceUID == first.sop_instance_uid
    assert errors_of_dciodvfy(results[0].path) == []


def test_the_report_refers_to_the_request_of_the_source(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(CR)
    attributes = pydicom.Dataset()
    attributes.RequestedProcedureID = "RP-7"
    attributes.ScheduledProcedureStepID = "SPS-7"
    dataset.RequestAttributesSequence = [attributes]
    dataset.save_as(tmp_path / "source.dcm")
    results = encode(chest_findings(), request(tmp_path / "out", tmp_path / "source.dcm"))
    assert read(results, "sr").ReferencedRequestSequence[0].RequestedProcedureID == "RP-7"
    assert read(results, "seg").RequestAttributesSequence[0].RequestedProcedureID == "RP-7"
    assert all(errors_of_dciodvfy(r.path) == [] for r in results)


def test_a_segment_without_pixels_is_left_out_of_the_seg_and_named_in_the_report(tmp_path: Path) -> None:
    group = chest_group()
    assert group.label_map is not None
    label_map = np.where(group.label_map == 2, 0, group.label_map).astype(np.uint8)
    findings = Findings(CHEST, (replace(group, label_map=label_map),))
    results = encode(findings, request(tmp_path, CR))
    assert [(s.SegmentNumber, s.SegmentLabel) for s in read(results, "seg").SegmentSequence] == [
        (1, "Right lung"),
        (2, "Heart"),
    ]
    texts = [i.TextValue for i in items(read(results, "sr")) if i.ValueType == "TEXT"]
    assert "Nothing found of: Left lung" in texts


def test_without_a_seg_the_report_keeps_all_measurements(tmp_path: Path) -> None:
    results = encode(chest_findings(), request(tmp_path, CR, results=("sr",)))
    names = [i.ConceptNameCodeSequence[0].CodeMeaning for i in items(read(results, "sr")) if i.ValueType == "NUM"]
    assert [n for n in names if "Pixel" not in n] == ["Cardiothoracic ratio", "Area", "Area", "Probability"]


def refused(findings: Findings, folder: Path, source: Path = CR) -> str:
    with pytest.raises(Permanent) as caught:
        encode(findings, request(folder, source))
    assert not list(folder.glob("*.dcm"))
    return str(caught.value)


def test_an_empty_mask_is_refused(tmp_path: Path) -> None:
    empty = replace(chest_group(), label_map=np.zeros_like(chest_group().label_map))
    assert "empty" in refused(Findings(CHEST, (empty,)), tmp_path)


def test_a_mask_of_no_numbers_is_refused(tmp_path: Path) -> None:
    broken = replace(chest_group(), label_map=np.full_like(chest_group().label_map, np.nan, dtype=np.float32))
    assert "no numbers" in refused(Findings(CHEST, (broken,)), tmp_path)


def test_a_mask_that_does_not_fit_its_source_is_refused(tmp_path: Path) -> None:
    small = replace(chest_group(), label_map=np.ones((1, 10, 10), dtype=np.uint8))
    assert "shape" in refused(Findings(CHEST, (small,)), tmp_path)
    unknown = replace(chest_group(), segments=chest_group().segments[:2])
    assert "without a segment: [3]" in refused(Findings(CHEST, (unknown,)), tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_refused(value: float, tmp_path: Path) -> None:
    findings = ecg_findings()
    broken = replace(findings.groups[0].measurements[0], value=value)
    group = replace(findings.groups[0], measurements=(broken,))
    assert "finite" in refused(replace(findings, groups=(group,)), tmp_path, ECG)


def test_findings_on_an_input_that_is_not_of_the_case_are_refused(tmp_path: Path) -> None:
    group = replace(chest_group(), source=("1.2.3",))
    assert "not among the sources" in refused(Findings(CHEST, (group,)), tmp_path)
    assert "no findings" in refused(Findings(CHEST, ()), tmp_path)


def test_a_source_that_is_no_dicom_is_refused(tmp_path: Path) -> None:
    asked = request(tmp_path / "out", CR)
    (tmp_path / "junk.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 100)
    with pytest.raises(Permanent, match=r"junk\.dcm"):
        encode(chest_findings(), replace(asked, sources=(tmp_path / "junk.dcm",)))


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("PatientID", "SOMEONE", "PatientID of the result"),
        ("PatientName", "Doe^Jane", "PatientName of the result"),
        ("StudyInstanceUID", "1.2.3", "StudyInstanceUID of the result"),
        ("AccessionNumber", "", "AccessionNumber of the result"),
        ("SOPInstanceUID", "2.25.1", "SOPInstanceUID of the result"),
        ("VerificationFlag", "VERIFIED", "verified"),
        ("SpecificCharacterSet", "ISO_IR 100", "character set"),
    ],
)
def test_the_gate_refuses_a_changed_report(keyword: str, value: str, reason: str, tmp_path: Path) -> None:
    report, origin = made_report(tmp_path)
    setattr(report, keyword, value)
    with pytest.raises(Permanent, match=reason):
        conformance.check(part_10(report), origin, "sr", 1)


def test_the_gate_refuses_references_and_numbers_from_nowhere(tmp_path: Path) -> None:
    report, origin = made_report(tmp_path)
    conformance.check(part_10(report), origin, "sr", 1)
    (image,) = [i for i in items(report) if i.ValueType == "WAVEFORM"]
    image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = str(report.StudyInstanceUID)
    with pytest.raises(Permanent, match="not of this case"):
        conformance.check(part_10(report), origin, "sr", 1)
    image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3.4"
    with pytest.raises(Permanent, match="neither derived nor the source's"):
        conformance.check(part_10(report), origin, "sr", 1)
    report, origin = made_report(tmp_path)
    number = next(i for i in items(report) if i.ValueType == "NUM")
    number.MeasuredValueSequence[0].FloatingPointValue = math.nan
    with pytest.raises(Permanent, match="not finite"):
        conformance.check(part_10(report), origin, "sr", 1)
    report, origin = made_report(tmp_path)
    del report.CompletionFlag
    with pytest.raises(Permanent, match="CompletionFlag"):
        conformance.check(part_10(report), origin, "sr", 1)


def made_report(folder: Path) -> tuple[pydicom.Dataset, Origin]:
    """A report of ours, and what the gate knows of its case."""
    asked = request(folder, ECG, results=("sr",))
    (result,) = encode(ecg_findings(), asked)
    header = read_header(ECG)
    origin = Origin(ecg_findings(), asked, {str(header.SOPInstanceUID): header}, (), DerivedUIDs(asked.case.key))
    report = pydicom.dcmread(result.path)
    origin.uids.known |= {uid for uid in uid_values(report) if uid.startswith("2.25.")}
    return report, origin


def test_the_place_of_a_finding_stands_with_it() -> None:
    lung, left = Concept("39607008", "SCT", "Lung"), Concept("7771000", "SCT", "Left")
    pneumonia = Concept("233604007", "SCT", "Pneumonia")
    placed = Evaluation(pneumonia, Presence.PRESENT, 0.9, "", lung, left)
    site, probability = _evaluation(placed).ContentSequence
    assert site.ConceptNameCodeSequence[0].CodeMeaning == "Finding Site"
    assert site.ConceptCodeSequence[0].CodeValue == "39607008"
    assert site.ContentSequence[0].ConceptCodeSequence[0].CodeValue == "7771000"
    assert float(probability.MeasuredValueSequence[0].NumericValue) == 90
    assert evaluation_text(placed) == "Pneumonia, left lung: present (90 %)"


def test_a_kind_that_cannot_be_made_stops_the_case_only_where_a_rule_asks_for_it(tmp_path: Path) -> None:
    (group,) = marked_film().groups
    nowhere = replace(group.regions[0], points=((math.nan, 1.0), (2.0, 2.0)))
    findings = Findings(CHEST, (replace(group, regions=(nowhere,)),))
    asked = request(tmp_path, CR, results=("ko", "pr"))
    with pytest.raises(Permanent, match="a point that is no number"):
        encode(findings, asked)
    assert [result.kind for result in encode(findings, replace(asked, unasked=("pr",)))] == ["ko"]
