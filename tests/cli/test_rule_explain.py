"""`pacsnode rules explain`: of a received study, of files, of everything that real sites and vendors wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file

from tests.archive import homes

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data of ../shared, which is not here")


def explain(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """With the shipped rules, all switched on."""
    rules = folder / "rules.yaml"
    rules.write_text((ROOT / "routing_rules.yaml").read_text().replace("enabled: false", "enabled: true"))
    environment = os.environ | {
        "PACSNODE_HOME": str(folder / "home"),
        "PACSNODE_RULES": str(rules),
        "PACSNODE_MODELS": str(ROOT / "models"),
    }
    return subprocess.run(
        [sys.executable, "-m", "pacsnode", "rules", "explain", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def told(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    answer = explain(folder, *arguments, "--json")
    assert answer.returncode == 0, answer.stderr
    studies: list[dict[str, Any]] = json.loads(answer.stdout)
    return studies


def radiograph(path: Path, **attributes: str) -> Path:
    """A real CR chest in other words."""
    dataset = pydicom.dcmread(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    for keyword in ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName", "ViewPosition"):
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.SpecificCharacterSet = "\\ISO 2022 IR 149"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    ("attributes", "matched"),
    [
        ({"StudyDescription": "흉부 정면"}, True),
        ({"StudyDescription": "CHEST PA"}, True),
        ({"StudyDescription": "CHEST LAT", "ViewPosition": "LL"}, False),
        ({"StudyDescription": "흉부 측면"}, False),
    ],
)
def test_korean_and_english_chests_find_their_rule_and_a_lateral_view_does_not(
    tmp_path: Path, attributes: dict[str, str], matched: bool
) -> None:
    (study,) = told(tmp_path, str(radiograph(tmp_path / "image.dcm", **attributes)))
    verdicts = {verdict["rule"]: verdict for verdict in study["rules"]}
    assert verdicts["chest x-ray"]["matched"] is matched
    assert [case["service"] for case in study["cases"]] == (["chest-xray"] if matched else [])
    if not matched:
        assert any(not clause["satisfied"] for clause in verdicts["chest x-ray"]["clauses"])


def test_the_text_names_each_rule_each_clause_and_the_value(tmp_path: Path) -> None:
    path = radiograph(tmp_path / "image.dcm", StudyDescription="흉부 정면")
    lines = explain(tmp_path, str(path)).stdout.splitlines()
    assert lines[0].endswith("1 CR")
    assert any(line.startswith("+ chest x-ray: matched, chest-xray gets 1 of 1 image") for line in lines)
    assert "  yes Modality is CR, expected CR or DX" in lines
    assert any(line.startswith("→ chest-xray reads 1 image; sr, seg, sc to sender, main-pacs") for line in lines)
    assert max(map(len, lines)) <= 121


def test_a_received_study_is_explained_by_its_uid(tmp_path: Path) -> None:
    settings = homes.home(tmp_path)
    archive = homes.archive(settings)
    homes.store(archive, homes.data_set("1.9.1"), homes.request("1.9.1"))
    archive.close()
    (study,) = told(tmp_path, "1.2.3")
    assert (study["images"], study["cases"], study["unmatched"]) == (1, [], "keep")
    for unknown in ("1.2.4", "no-such-file"):
        answer = explain(tmp_path, unknown)
        assert answer.returncode == 2
        assert unknown in answer.stderr


def test_what_is_no_dicom_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "letter.txt").write_text("dear colleague")
    answer = explain(tmp_path, str(tmp_path / "folder"))
    assert answer.returncode == 2
    assert "holds no DICOM object: not a DICOM Part 10 file" in answer.stderr
    radiograph(tmp_path / "folder" / "image.dcm", StudyDescription="CHEST PA")
    answer = explain(tmp_path, str(tmp_path / "folder"))
    assert answer.returncode == 0
    assert "letter.txt is left out" in answer.stderr


def test_a_folder_that_would_be_no_study_of_one_patient_is_told_as_the_node_would_decide_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, patient in (("one", "4711"), ("two", "4712")):
        path = radiograph(tmp_path / "folder" / f"{name}.dcm", StudyDescription="CHEST PA", PatientID=patient)
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.{patient}"
        dataset.save_as(path)
    answer = explain(tmp_path, str(tmp_path / "folder"), "--json")
    (study,) = json.loads(answer.stdout)
    assert study["conflict"] == "PatientID differs"
    assert (study["images"], study["cases"]) == (2, [])


def test_a_data_set_without_meta_information_is_read_and_a_second_copy_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    whole = radiograph(tmp_path / "folder" / "a.dcm", StudyDescription="CHEST PA")
    meta = pydicom.filereader.read_file_meta_info(whole)
    bare = whole.read_bytes()[144 + meta.FileMetaInformationGroupLength :]
    (tmp_path / "folder" / "b.dcm").write_bytes(bare)
    answer = explain(tmp_path, str(tmp_path / "folder"), "--json")
    assert [case["service"] for case in json.loads(answer.stdout)[0]["cases"]] == ["chest-xray"]
    assert "b.dcm is left out" in answer.stderr
    assert "a.dcm has the same SOPInstanceUID" in answer.stderr


@needs_shared
@pytest.mark.parametrize("folder", ["dicom_test", "charsets"])
def test_every_study_of_real_files_is_explained(tmp_path: Path, folder: str) -> None:
    answer = explain(tmp_path, str(SHARED / folder), "--json")
    assert answer.returncode == 0, answer.stderr
    assert "Traceback" not in answer.stderr
    studies = json.loads(answer.stdout)
    assert len(studies) > 10
    for study in studies:
        assert len(study["rules"]) == 13
        for verdict in study["rules"]:
            assert verdict["matched"] or any(not clause["satisfied"] for clause in verdict["clauses"]), verdict
