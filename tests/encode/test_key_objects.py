"""The key objects: which images are flagged, and that an ordinary study flags none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import pydicom
import pytest

from pacsnode.dicom.codes import LEFT
from pacsnode.encode.build import encode
from pacsnode.encode.key_objects import Place, flagged
from pacsnode.findings import Evaluation, Findings, Group, Presence
from tests.encode.cases import (
    CARDIOMEGALY,
    CR,
    ECG,
    chest_findings,
    chest_group,
    ecg_findings,
    errors_of_dciodvfy,
    read,
    request,
    run_tool,
)
from tests.encode.marked import ORGAN_AND_LESION, ct, korean_film, marked_film, one_object, stack


def references(dataset: pydicom.Dataset) -> list[tuple[str, str, list[int]]]:
    """(value type, instance, frames) of what is selected."""
    found = []
    for item in dataset.ContentSequence:
        for reference in item.get("ReferencedSOPSequence", []):
            frames = reference.get("ReferencedFrameNumber")
            numbers = [] if frames is None else [int(f) for f in (frames if hasattr(frames, "__iter__") else [frames])]
            found.append((item.ValueType, reference.ReferencedSOPInstanceUID, numbers))
    return found


def atrial_fibrillation() -> Findings:
    (group,) = ecg_findings().groups
    (first, *rest) = group.evaluations
    return Findings(
        ecg_findings().algorithm, (replace(group, evaluations=(replace(first, presence=Presence.PRESENT), *rest)),)
    )


@pytest.mark.parametrize(("source", "findings"), [(CR, chest_findings), (ECG, ecg_findings)])
def test_nothing_is_flagged_where_organs_are_outlined_and_nothing_is_present(
    source: Path, findings: Callable[[], Findings], tmp_path: Path
) -> None:
    assert encode(findings(), request(tmp_path, source, results=("ko",))) == ()


@pytest.mark.parametrize(
    ("source", "findings", "value_type"), [(CR, marked_film, "IMAGE"), (ECG, atrial_fibrillation, "WAVEFORM")]
)
def test_a_finding_flags_its_image_with_a_description_of_it(
    source: Path, findings: Callable[[], Findings], value_type: str, tmp_path: Path
) -> None:
    (result,) = encode(findings(), request(tmp_path, source, results=("ko",)))
    assert errors_of_dciodvfy(result.path) == []
    dataset = pydicom.dcmread(result.path)
    uid = pydicom.dcmread(source, stop_before_pixels=True).SOPInstanceUID
    assert references(dataset) == [(value_type, uid, [])]
    assert dataset.ConceptNameCodeSequence[0].CodeValue == "113000"
    assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "2010"
    (evidence,) = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert evidence.ReferencedSOPInstanceUID == uid
    text = "\n".join(str(item.TextValue) for item in dataset.ContentSequence if item.ValueType == "TEXT")
    assert "AI 결과, 미확인" in text and "Not for diagnosis" in text
    said = "폐렴 (Pneumonia), 왼쪽 폐 (left lung): 있음 / present (90 %)" if source == CR else "있음 / present (3 %)"
    assert said in text and "Cardiomegaly" not in text


def test_dsrdump_and_highdicom_read_the_selection(tmp_path: Path) -> None:
    source = korean_film(tmp_path)
    (result,) = encode(marked_film(source), request(tmp_path, source, results=("ko",)))
    text = "\n".join(run_tool("/usr/bin/dsrdump", "+Pl", str(result.path)))
    assert "E: " not in text and "Key Object Selection Document" in text
    selection = hd.ko.KeyObjectSelectionDocument.from_dataset(pydicom.dcmread(result.path))
    assert len(selection.content.get_references()) == 1


def test_of_a_volume_the_slice_is_flagged_where_the_lesion_is_largest(tmp_path: Path) -> None:
    findings, paths = ct(tmp_path)
    results = encode(findings, request(tmp_path / "out", *paths, results=("ko",)))
    assert errors_of_dciodvfy(results[0].path) == []
    assert references(read(results, "ko")) == [("IMAGE", "1.2.3.3", [])]


def test_of_a_multi_frame_object_the_frame_is_flagged(tmp_path: Path) -> None:
    findings, path = one_object("emri_small.dcm")
    results = encode(findings, request(tmp_path, path, results=("ko",)))
    assert errors_of_dciodvfy(results[0].path) == []
    assert references(read(results, "ko")) == [("IMAGE", findings.groups[0].source[0], [4])]


def test_a_present_finding_without_a_place_flags_a_small_input_and_no_volume() -> None:
    present = (Evaluation(CARDIOMEGALY, Presence.PRESENT),)
    assert list(flagged(replace(chest_group(), evaluations=present))) == [Place(chest_group().source[0])]
    slices = tuple(f"1.2.{number}" for number in range(60))
    assert list(flagged(Group(source=slices, evaluations=present))) == []


def test_many_lesions_flag_at_most_thirty_images(tmp_path: Path) -> None:
    findings, paths = ct(tmp_path)
    (group,) = findings.groups
    (region,) = marked_film().groups[0].regions[:1]
    many = tuple(
        replace(region, key=f"n{number}", image=group.source[number % 6], laterality=LEFT) for number in range(500)
    )
    results = encode(
        Findings(findings.algorithm, (replace(group, regions=many),)), request(tmp_path / "o", *paths, results=("ko",))
    )
    dataset = read(results, "ko")
    assert len(references(dataset)) == 6
    assert max(len(str(item.TextValue)) for item in dataset.ContentSequence if item.ValueType == "TEXT") < 10_000


def test_frames_that_were_left_out_keep_their_numbers() -> None:
    label_map = stack(5, 64, 64)
    group = Group(source=("1.2.3",), segments=ORGAN_AND_LESION, label_map=label_map, frames=(2, 4, 6, 8, 10))
    assert list(flagged(group)) == [Place("1.2.3", 8)]
