"""The main job on real input: DCMTK sends, rules decide, models run, a sender and a PACS hold the results."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from harness import Node, Pacs, electrocardiogram, radiograph, wait_until, write_rules
from sending import KOREAN, NAME, data_set_bytes, variant, with_raw_name


@dataclass
class World:
    """A running node with a sender and a PACS that both take results."""

    node: Node
    pacs: Pacs
    sender: Pacs
    folder: Path

    def results(self, study: str, count: int, timeout_s: float = 90) -> list[pydicom.Dataset]:
        """The results of a study at the PACS, once there are `count`."""

        def held(of: Pacs) -> list[pydicom.Dataset]:
            return [o for o in of.objects() if study == o.StudyInstanceUID]

        wait_until(lambda: len(held(self.pacs)) >= count and len(held(self.sender)) >= count, timeout_s, 0.2)
        at_pacs, at_sender = held(self.pacs), held(self.sender)
        assert sorted(o.SOPInstanceUID for o in at_pacs) == sorted(o.SOPInstanceUID for o in at_sender)
        assert len(at_pacs) == count
        return at_pacs

    def ended(self, study: str, state: str) -> dict[str, Any]:
        """The life of a study whose one case has ended so."""
        wait_until(lambda: any(c["state"] == state for c in self.node.life(study)["cases"]), 90, 0.3)
        return self.node.life(study)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with Pacs(folder / "pacs") as pacs, Pacs(folder / "sender", ae_title="XR1") as sender:
        rules = write_rules(folder / "rules.yaml", sender_port=sender.port, pacs_port=pacs.port)
        with Node(folder / "home", rules) as node:
            yield World(node, pacs, sender, folder)


def errors_of_dciodvfy(dataset: pydicom.Dataset, folder: Path) -> list[str]:
    """What the IOD validator calls an error; its exit code tells nothing."""
    path = folder / "checked.dcm"
    dataset.save_as(path)
    checked = subprocess.run(["/usr/bin/dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    return [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("Error")]


def kinds(results: list[pydicom.Dataset]) -> list[str]:
    return sorted({"OT": "SC"}.get(o.Modality, o.Modality) if "Modality" in o else "SC" for o in results)


def test_a_chest_radiograph_sent_by_dcmtk_comes_back_as_sr_seg_and_picture(world: World) -> None:
    sent = variant(radiograph(), world.folder / "in" / "cr.dcm", "cr")
    world.node.send([world.folder / "in" / "cr.dcm"])
    results = world.results(sent.StudyInstanceUID, 3)
    assert {str(o.SOPClassUID.name) for o in results} == {
        "Comprehensive 3D SR Storage",
        "Segmentation Storage",
        "Secondary Capture Image Storage",
    }
    for result in results:
        assert errors_of_dciodvfy(result, world.folder) == []
        assert result.PatientID == sent.PatientID
        assert result.PatientName == sent.PatientName
    life = world.node.life(sent.StudyInstanceUID)
    assert [c["state"] for c in life["cases"]] == ["done"]
    assert {d["state"] for d in life["cases"][0]["deliveries"]} == {"sent"}


def test_the_results_of_a_study_can_be_looked_at(world: World) -> None:
    study = variant(radiograph(), world.folder / "in" / "cr.dcm", "cr").StudyInstanceUID
    world.node.send([world.folder / "in" / "cr.dcm"])
    results = {str(o.Modality) if "Modality" in o else "SC": o for o in world.results(study, 3)}
    rows = json.loads(world.node.run("results", "list", "--study", study, "--json").stdout)
    made = {row["sop_instance_uid"] for row in rows}
    assert made > {o.SOPInstanceUID for o in results.values()}  # what no rule asks for is made too
    listed = world.node.run("results", "show", rows[0]["case"]).stdout.splitlines()
    assert listed == world.node.run("results", "show", study).stdout.splitlines() and len(listed) == len(rows)
    shown = world.node.run("results", "show", results["SR"].SOPInstanceUID).stdout
    assert "Cardiothoracic ratio: " in shown and "  Right lung\n" in shown
    picture = world.folder / "outlines.png"
    shown = world.node.run("results", "show", results["SEG"].SOPInstanceUID, "--png", str(picture)).stdout
    assert "Drawn: 1 image" in shown and picture.read_bytes().startswith(b"\x89PNG")


def test_the_right_lung_is_marked_on_the_left_of_the_picture_and_no_area_is_in_millimetres(world: World) -> None:
    study = variant(radiograph(), world.folder / "in" / "cr.dcm", "cr").StudyInstanceUID
    world.node.send([world.folder / "in" / "cr.dcm"])
    results = world.results(study, 3)
    segmentation = next(o for o in results if o.Modality == "SEG")
    report = next(o for o in results if o.Modality == "SR")
    masks = {
        str(segment.SegmentLabel): segmentation.pixel_array[n].nonzero()[1].mean()
        for n, segment in enumerate(segmentation.SegmentSequence)
    }
    assert masks["Right lung"] < masks["Heart"] < masks["Left lung"]
    assert "mm2" not in str(report)
    assert "PixelMeasuresSequence" not in str(segmentation)


def test_a_twelve_lead_ecg_comes_back_as_sr_and_picture(world: World) -> None:
    sent = variant(electrocardiogram(), world.folder / "in" / "ecg.dcm", "ecg")
    world.node.send([world.folder / "in" / "ecg.dcm"])
    results = world.results(sent.StudyInstanceUID, 2)
    for result in results:
        assert errors_of_dciodvfy(result, world.folder) == []
    report = next(o for o in results if o.Modality == "SR")
    assert "Heart rate" in str(report)
    assert str(sent.SOPInstanceUID) in str(report)


@pytest.mark.parametrize("kind", sorted(KOREAN))
def test_a_korean_name_arrives_right_however_it_was_sent(world: World, kind: str) -> None:
    charset, raw = KOREAN[kind]
    path = world.folder / "in" / f"{kind}.dcm"
    sent = with_raw_name(radiograph(), path, kind, charset, raw)
    world.node.send([path])
    for result in world.results(sent.StudyInstanceUID, 3):
        assert result.SpecificCharacterSet == "ISO_IR 192"
        assert str(result.PatientName) == NAME
        dumped = subprocess.run(
            ["/usr/bin/dcmdump", "+U8", "+P", "PatientName", str(_saved(result, world.folder))],
            capture_output=True,
            check=True,
        )
        assert NAME in dumped.stdout.decode()


def _saved(dataset: pydicom.Dataset, folder: Path) -> Path:
    path = folder / "dumped.dcm"
    dataset.save_as(path)
    return path


def test_the_same_study_sent_again_makes_no_new_result(world: World) -> None:
    path = world.folder / "in" / "again.dcm"
    study = variant(radiograph(), path, "again").StudyInstanceUID
    world.node.send([path])
    before = world.results(study, 3)
    world.node.send([path])
    life = world.node.life(study)
    assert life["received"]["instances"] == 1
    assert len(life["cases"]) == 1
    assert len(world.results(study, 3)) == len(before)


def test_a_late_image_makes_a_case_that_supersedes_the_first(world: World) -> None:
    first, second = world.folder / "in" / "late1.dcm", world.folder / "in" / "late2.dcm"
    study = variant(radiograph(), first, "late").StudyInstanceUID
    world.node.send([first])
    old = next(o for o in world.results(study, 3) if o.Modality == "SR")
    variant(radiograph(), second, "late 2", StudyInstanceUID=study)
    world.node.send([second])
    results = world.results(study, 3 + 5)
    new = next(o for o in results if o.Modality == "SR" and o.SOPInstanceUID != old.SOPInstanceUID)
    referred = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert referred.ReferencedSOPInstanceUID == old.SOPInstanceUID
    cases = world.node.life(study)["cases"]
    assert cases[1]["supersedes"] == cases[0]["key"]


def test_a_study_with_two_names_is_stored_not_routed_and_doctor_says_so(world: World) -> None:
    one, other = world.folder / "in" / "name1.dcm", world.folder / "in" / "name2.dcm"
    study = variant(radiograph(), one, "names", PatientName="Kim^Minsu").StudyInstanceUID
    variant(radiograph(), other, "names 2", PatientName="Lee^Jiwoo", StudyInstanceUID=study)
    world.node.send([one, other])
    wait_until(lambda: world.node.life(study)["conflict"] != "", 20, 0.2)
    wait_until(lambda: world.node.life(study)["rules"] != [], 20, 0.2)
    life = world.node.life(study)
    assert life["received"]["instances"] == 2
    assert life["cases"] == []
    assert life["waiting"] == []
    doctor = world.node.run("doctor", check=False).stdout
    assert study in doctor
    assert "PatientName differs" in doctor
    assert "Kim" not in doctor + world.node.log()


def test_a_study_that_no_rule_wants_is_kept_and_says_why(world: World) -> None:
    path = world.folder / "in" / "lateral.dcm"
    study = variant(radiograph(), path, "lateral", ViewPosition="LL").StudyInstanceUID
    world.node.send([path])
    wait_until(lambda: world.node.life(study)["rules"] != [], 20, 0.2)
    told = world.node.run("studies", "show", study).stdout
    assert "chest-xray accepts none" in told
    assert "ViewPosition is LL" in told


def test_an_image_without_pixels_is_parked_with_its_reason(world: World) -> None:
    path = world.folder / "in" / "nopixels.dcm"
    study = variant(radiograph(), path, "no pixels", PixelData=None).StudyInstanceUID
    world.node.send([path])
    life = world.ended(study, "parked")
    assert life["cases"][0]["reason"] == "the object holds no pixel data"
    assert "no pixel data" in world.node.run("jobs", "list", "--state", "parked").stdout
    world.node.run("jobs", "retry", life["cases"][0]["key"])
    wait_until(lambda: world.node.life(study)["cases"][0]["attempt"] == 2, 20, 0.2)
    world.ended(study, "parked")


def test_objects_of_many_classes_and_syntaxes_are_stored_bit_for_bit(world: World) -> None:
    names = ("CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "JPEG-lossy.dcm", "JPEG-LL.dcm", "waveform_ecg.dcm")
    for name in names:
        path = Path(str(pydicom.data.get_testdata_file(name, download=False)))
        world.node.run("send", str(path), "--to", f"127.0.0.1:{world.node.port}:PACSNODE", "--from", "XR1")
        archived = [data_set_bytes(p) for p in (world.node.home / "files").glob("*/*/*.dcm")]
        assert data_set_bytes(path) in archived
