"""What independent tools say of the objects: dicom3tools, DCMTK, highdicom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from pacsnode.encode.build import encode
from pacsnode.findings import Findings
from pacsnode.handover import RESULT_KINDS
from tests.encode.cases import (
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

SOURCES = pytest.mark.parametrize(("source", "findings"), [(CR, chest_findings), (ECG, ecg_findings)])


@SOURCES
def test_dciodvfy_finds_no_error_in_any_object(source: Path, findings: Callable[[], Findings], tmp_path: Path) -> None:
    results = encode(findings(), request(tmp_path, source, results=RESULT_KINDS))
    kinds = ["seg", "sr", "sc", "pdf", "pr"] if source == CR else ["sr", "sc", "pdf"]
    assert [r.kind for r in results] == kinds
    assert {r.path.name: errors_of_dciodvfy(r.path) for r in results} == {r.path.name: [] for r in results}


@SOURCES
def test_dsrdump_reads_the_report(source: Path, findings: Callable[[], Findings], tmp_path: Path) -> None:
    (result,) = encode(findings(), request(tmp_path, source, results=("sr",)))
    text = "\n".join(run_tool("/usr/bin/dsrdump", "+Pl", str(result.path)))
    assert "E: " not in text
    assert "Verification Flag   : UNVERIFIED" in text
    assert "Preliminary Flag    : PRELIMINARY" in text
    assert "Not for diagnosis; not evaluated clinically." in text
    if source == ECG:
        assert 'WAVEFORM:(,,"Source of Measurement")=(TwelveLeadECGWaveformStorage' in text
        assert 'NUM:(,,"Heart rate")="61.2" (/min,UCUM' in text
        assert 'CODE:(,,"Atrial fibrillation")=(272519000,SCT,"Absent")' in text
    else:
        assert 'NUM:(,,"Cardiothoracic ratio")="0.483712"' in text
        assert 'CODE:(,,"Cardiomegaly")=(373068000,SCT,"Undetermined")' in text


def test_highdicom_reads_the_mask_back_pixel_by_pixel(tmp_path: Path) -> None:
    (result,) = encode(chest_findings(), request(tmp_path, CR, results=("seg",)))
    segmentation = hd.seg.segread(result.path)
    pixels = segmentation.get_pixels_by_source_instance(
        source_sop_instance_uids=[pydicom.dcmread(CR, stop_before_pixels=True).SOPInstanceUID], combine_segments=True
    )
    np.testing.assert_array_equal(pixels, chest_group().label_map)
    assert [s.segment_label for s in map(segmentation.get_segment_description, (1, 2, 3))] == [
        "Right lung",
        "Left lung",
        "Heart",
    ]


def test_highdicom_reads_the_report_and_finds_each_segment_of_the_seg_in_it(tmp_path: Path) -> None:
    results = encode(chest_findings(), request(tmp_path, CR))
    report = hd.sr.srread(results[1].path).content
    segmentation = hd.seg.segread(results[0].path)
    for number in (1, 2, 3):
        description = segmentation.get_segment_description(number)
        (group,) = report.get_volumetric_roi_measurement_groups(tracking_uid=description.tracking_uid)
        assert group.tracking_identifier == description.tracking_id
        reference = group.referenced_segment[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == number
    (whole,) = report.get_image_measurement_groups()
    assert [m.name.meaning for m in whole.get_measurements()] == ["Cardiothoracic ratio"]


def test_the_files_are_named_by_us_and_carry_our_implementation(tmp_path: Path) -> None:
    results = encode(chest_findings(), request(tmp_path, CR))
    assert [r.path.name for r in results] == ["seg-1.dcm", "sr-1.dcm", "sc-1.dcm"]
    for kind in ("seg", "sr", "sc"):
        meta = read(results, kind).file_meta
        assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert meta.ImplementationVersionName == "PACSNODE_0_1"


def test_an_optional_attribute_that_is_no_value_of_its_vr_is_left_out(tmp_path: Path) -> None:
    source = tmp_path / "age.dcm"
    with pydicom.config.disable_value_validation():
        dataset = pydicom.dcmread(CR)
        dataset.PatientAge = "62"  # AS has four characters: 062Y
        dataset.PatientBirthDate = "1940.03.05"  # type 2, identifies the patient: goes out as it came
        dataset.save_as(source)
    results = encode(chest_findings(source), request(tmp_path, source))
    for result in results:
        errors = [line for line in errors_of_dciodvfy(result.path) if "PatientBirthDate" not in line]
        assert errors == []
        made = pydicom.dcmread(result.path, stop_before_pixels=True)
        assert "PatientAge" not in made
        assert made.PatientBirthDate == "1940.03.05"
