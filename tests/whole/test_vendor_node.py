"""A vendor's AI node beside a whole node, over real sockets: right, late, wrong, foreign, broken answers, and none.

What is looked at is how each case ends, what the PACS got, and that nothing that the vendor sent became an image.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
import vendor as played
from harness import Node, Pacs, electrocardiogram, free_port, listens, wait_until
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from vendor import Answering, Vendor

from pacsnode.dimse.part10 import read_meta
from pacsnode.life import study_life
from pacsnode.settings import load
from tests.infer import bundles

WITHIN_S = 6
RULES = """\
version: 1
unmatched: keep
peers:
  xray-1: {{ae_title: XR1, host: 127.0.0.1, may: [store], issuer: CLINIC}}
  main-pacs: {{ae_title: PACS, host: 127.0.0.1, port: {pacs}}}
  screen: {{ae_title: SCREEN, host: 127.0.0.1, port: {pacs}, investigational: true}}
  vendor-ai: {{ae_title: VENDOR, host: 127.0.0.1, port: {vendor}, may: [answer]}}
  vendor-patient: {{ae_title: PATIENT, host: 127.0.0.1, port: {vendor}, may: [answer]}}
  vendor-down: {{ae_title: DOWN, host: 127.0.0.1, port: {down}, may: [answer]}}
defaults: {{results: [sr, seg], send_to: [main-pacs], complete: {{quiet: 1s}}}}
rules:
  - name: film
    when: {{Modality: CR, StudyID: hurry}}
    run: vendor-chest
  - {{name: patient film, when: {{Modality: CR, StudyID: patient}}, run: patient-chest}}
  - {{name: down, when: {{Modality: CR, StudyID: down}}, run: down-chest}}
  - {{name: everything else of a vendor, when: {{Modality: {{in: [SR, SEG, DOC]}}}}, forward: main-pacs}}
  - {{name: ecg, when: {{Modality: ECG}}, run: says, results: [sr], send_to: [screen]}}
"""


def remote_bundle(models: Path, name: str, **remote: Any) -> Path:
    """The folder of a service that a vendor's node does: a pipeline.yaml, its version, its card."""
    folder = models / name
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text('{"version": "3.2"}')
    plain = {"results": ["sr", "seg"], "quiet": "1.5s"} | remote
    left_out = dict.fromkeys(("network", "limits", "segments", "measurements"))
    bundles.write_pipeline(
        folder, bundles.pipeline(name=name, status="certified", machine_learning=True, remote=plain, **left_out)
    )
    return bundles.with_card(folder)


@dataclass
class World:
    """A node, its PACS, its vendor."""

    node: Node
    pacs: Pacs
    vendor: Vendor
    folder: Path
    models: Path
    sources: dict[str, Path] = field(default_factory=dict)

    def film(self, answering: Answering, which: str = "hurry", study: str = "") -> str:
        """A radiograph of a Korean, of a new study or one more, which the vendor answers so; the study's UID."""
        study, word = study or str(generate_uid()), f"study {len(self.sources)}"
        self.vendor.answers[word] = answering
        dataset = bundles.image(
            bundles.gradient(),
            SpecificCharacterSet=["", "ISO 2022 IR 149"],
            PatientName="Hong^Gildong=洪^吉洞=홍^길동",
            PatientID="4711",
            PatientBirthDate="19700101",
            StudyInstanceUID=study,
            SeriesInstanceUID=generate_uid(),
            SOPInstanceUID=generate_uid(),
            StudyDate="20260301",
            StudyTime="101500.000",
            StudyID=which,
            AccessionNumber="A-1",
            StudyDescription=word,
        )
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        self.sources[study] = bundles.saved(dataset, self.folder / f"{len(self.sources)}.dcm")
        self.node.send([self.sources[study]])
        return study

    def life(self, study: str) -> dict[str, Any]:
        """What `studies show --json` says, without a process for each look."""
        life = study_life(load(home=self.node.home), study)
        return life or {"cases": []}

    def case(self, study: str, state: str, timeout_s: float = 40.0) -> dict[str, Any]:
        """The one case of a study, once it is in this state."""
        try:
            wait_until(lambda: [c["state"] for c in self.life(study)["cases"]] == [state], timeout_s, 0.1)
        except TimeoutError:
            pytest.fail(f"not {state}: {self.life(study)}\n{self.vendor.faults}\n{self.node.log()[-3000:]}")
        case: dict[str, Any] = self.life(study)["cases"][0]
        return case

    def is_sent(self, study: str) -> bool:
        """Whether the node knows that the vendor took the images: one that it does not know of goes out again."""
        (case,) = self.life(study)["cases"]
        return [delivery["state"] for delivery in case["deliveries"]] == ["sent"]

    def delivered(self, study: str, count: int) -> list[Dataset]:
        """What the PACS holds of a study, once it is so much."""

        def held() -> list[Dataset]:
            return [one for one in self.pacs.objects() if str(one.StudyInstanceUID) == study]

        wait_until(lambda: len(held()) >= count, every_s=0.1)
        return held()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("vendor")
    models = folder / "models"
    remote_bundle(models, "vendor-chest", peer="vendor-ai", within=f"{WITHIN_S}s")
    remote_bundle(models, "patient-chest", peer="vendor-patient", within="5m")
    remote_bundle(models, "down-chest", peer="vendor-down", within="3s")
    said = repr({"values": {"heart_rate": 61.0}, "findings": {}})
    bundles.with_card(bundles.workflow_bundle(models, said, accepts={"Modality": "ECG"}))
    node_port = free_port()
    with Pacs(folder / "pacs") as pacs, Vendor(node_port) as vendor:
        rules = folder / "rules.yaml"
        rules.write_text(RULES.format(pacs=pacs.port, vendor=vendor.port, down=free_port()))
        with Node(folder / "home", rules, models, port=node_port) as node:
            wait_until(lambda: '"working"' in node.log())
            yield World(node, pacs, vendor, folder, models)


def archived_bytes(world: World, path: str) -> bytes:
    """The data set of an archived file, as it lies there."""
    with (world.node.home / "files" / path).open("rb") as file:
        read_meta(file)
        return file.read()


def test_a_right_answer_is_delivered_as_it_came_and_the_case_is_done(world: World) -> None:
    study = world.film(played.right)
    case = world.case(study, "done")
    assert sorted(result["kind"] for result in case["results"]) == ["seg", "sr"]
    held = {one.SOPInstanceUID: one for one in world.delivered(study, 2)}
    sent = [one for one in world.vendor.sent if str(one.StudyInstanceUID) == study]
    assert {one.SOPInstanceUID for one in sent} == held.keys()
    for one in sent:
        assert held[one.SOPInstanceUID] == one
    received = {path: (world.pacs.folder / path).read_bytes() for path in map(str, world.pacs.folder.iterdir())}
    for result in case["results"]:
        content = archived_bytes(world, result["path"])
        assert any(whole.endswith(content) for whole in received.values()), "other bytes than those received"
    (image,) = world.vendor.images_of(study)
    assert image == pydicom.dcmread(world.sources[study])
    assert "waits" not in str(case["reason"])


def test_what_a_vendor_sends_is_no_image_of_the_study_and_makes_no_work(world: World) -> None:
    study = world.film(played.right)
    world.case(study, "done")
    time.sleep(2)
    life = world.life(study)
    assert life["received"]["instances"] == 1
    assert len(life["cases"]) == 1
    forwarding = next(rule for rule in life["rules"] if rule["rule"] == "everything else of a vendor")
    assert not forwarding["matched"]
    assert sorted(one["modality"] for one in life["answers"]) == ["SEG", "SR"]
    lonely = bundles.image(bundles.gradient(), StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid())
    world.vendor.send([lonely])
    assert world.vendor.statuses[-1] == 0
    time.sleep(2)
    assert world.life(str(lonely.StudyInstanceUID))["cases"] == []


def test_several_objects_are_one_answer_once_nothing_more_comes(world: World) -> None:
    study = world.film(played.in_pieces)
    case = world.case(study, "done")
    assert sorted(result["kind"] for result in case["results"]) == ["seg", "seg", "sr"]
    assert len(world.delivered(study, 3)) == 3


def test_a_late_answer_finds_its_case_parked_and_lets_it_go_on_by_itself(world: World) -> None:
    study = world.film(played.later(WITHIN_S + 4))
    reason = world.case(study, "parked")["reason"]
    assert reason == f"no answer from vendor-ai within {WITHIN_S} s"
    case = world.case(study, "done")
    assert case["attempt"] == 2
    assert len(world.delivered(study, 2)) == 2


def test_an_answer_for_another_patient_is_never_delivered_and_a_corrected_one_is(world: World) -> None:
    study = world.film(played.wrong_patient)
    case = world.case(study, "parked")
    assert case["reason"] == (
        "the answer of vendor-ai is not delivered: SR: it is not of the same examination: PatientID differs"
    )
    assert case["results"] == []
    life = world.life(study)
    assert life["conflict"] == "", "a vendor's mistake must not stop the study"
    assert [one["refused"] != "" for one in life["answers"] if one["modality"] == "SR"] == [True]
    word = str(pydicom.dcmread(world.sources[study]).StudyDescription)
    world.vendor.answers[word] = lambda vendor, source: vendor.send([played.report(source)])
    world.node.run("jobs", "retry", case["key"])
    world.case(study, "done")
    assert len(world.vendor.images_of(study)) == 2, "it was not asked again"
    assert [str(one.PatientID) for one in world.delivered(study, 2)] == ["4711", "4711"]
    assert "9999" not in world.node.log()


@pytest.mark.parametrize(
    ("answering", "said"),
    [
        (played.wrong_number, "SR: it is not of the same examination: AccessionNumber differs"),
        (played.foreign, "which is no image of the study"),
        (played.unannounced, f"it holds an object (DOC, {played.PDF}) that vendor-chest does not announce"),
    ],
)
def test_an_answer_that_is_none_is_parked_with_its_reason(world: World, answering: Answering, said: str) -> None:
    study = world.film(answering)
    case = world.case(study, "parked")
    assert said in case["reason"]
    assert not [one for one in world.pacs.objects() if str(one.StudyInstanceUID) == study]


def test_rubbish_is_kept_aside_and_the_case_says_so(world: World) -> None:
    study = world.film(played.rubbish)
    reason = world.case(study, "parked")["reason"]
    assert reason.startswith(f"no answer from vendor-ai within {WITHIN_S} s; of what it sent since then, 1 are kept")
    assert "C000" in reason
    assert world.vendor.statuses[-1] == 0xC000


def test_no_answer_parks_the_case_in_time_and_a_retry_asks_again(world: World) -> None:
    begun = time.monotonic()
    study = world.film(played.silent)
    waiting = world.case(study, "asked")
    assert waiting["answer_until"]
    assert "waits for the answer of a vendor's node until" in world.node.run("studies", "show", study).stdout
    case = world.case(study, "parked")
    assert time.monotonic() - begun < WITHIN_S + 15
    world.node.run("jobs", "retry", case["key"])
    world.case(study, "asked")
    wait_until(lambda: len(world.vendor.images_of(study)) == 2)
    world.case(study, "parked")


def test_a_node_that_refuses_the_images_is_named_with_its_answer(world: World) -> None:
    world.vendor.refuses.add(f"study {len(world.sources)}")
    study = world.film(played.silent)
    reason = world.case(study, "parked")["reason"]
    assert reason.startswith("the images cannot be sent to vendor-ai: the peer refused it: 0xC123")


def test_what_comes_after_the_case_is_done_is_kept_and_not_delivered(world: World) -> None:
    study = world.film(played.right)
    world.case(study, "done")
    world.delivered(study, 2)
    (source,) = world.vendor.images_of(study)
    world.vendor.send([played.report(source)])
    time.sleep(2)
    shown = world.node.run("studies", "show", study).stdout
    assert "SR of vendor-ai: kept" in shown
    assert len(world.delivered(study, 2)) == 2


def test_a_second_image_asks_again_for_the_whole_and_each_case_gets_its_own_answer(world: World) -> None:
    study = world.film(played.right)
    first = world.case(study, "done")
    world.film(played.right, study=study)
    wait_until(lambda: [case["state"] for case in world.life(study)["cases"]] == ["done", "done"], every_s=0.1)
    second = world.life(study)["cases"][1]
    assert len(world.vendor.images_of(study)) == 3, "one, then both"
    assert second["supersedes"] == first["key"]
    given = [{result["sop_instance_uid"] for result in case["results"]} for case in (first, second)]
    assert len(given[0]) == 2 and len(given[1]) >= 2 and not given[0] & given[1]


def test_a_node_that_cannot_be_reached_is_named_as_the_reason(world: World) -> None:
    study = world.film(played.silent, "down")
    reason = world.case(study, "parked")["reason"]
    assert reason.startswith("no answer from vendor-down within 3 s; 1 images could not be sent to it: ")


def test_cases_that_wait_for_a_vendor_take_no_place_from_others(world: World) -> None:
    waiting = [world.film(played.silent, "patient") for _ in range(6)]
    for study in waiting:
        world.case(study, "asked")
    dataset = pydicom.dcmread(electrocardiogram())
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(dataset, keyword, generate_uid())
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = world.folder / "ecg.dcm"
    dataset.save_as(path)
    world.node.send([path])
    world.case(str(dataset.StudyInstanceUID), "done", 60)
    assert {world.life(study)["cases"][0]["state"] for study in waiting} == {"asked"}


def killed_and_started(node: Node) -> None:
    """SIGKILL to all of it at once, and a new start."""
    node.kill()
    wait_until(lambda: not listens(node.port) and not node.pids())
    node.start()


def test_a_kill_while_the_vendor_works_loses_nothing(world: World) -> None:
    studies = [world.film(played.silent, "patient") for _ in range(2)]
    for study in studies:
        world.case(study, "asked")
        wait_until(lambda study=study: world.is_sent(study), every_s=0.1)  # type: ignore[misc]
    killed_and_started(world.node)
    for study in studies:
        (source,) = world.vendor.images_of(study)
        outline = played.segmentation(source)
        world.vendor.send([outline, played.report(source, segmentation=str(outline.SOPInstanceUID))], "PATIENT")
    time.sleep(1)
    killed_and_started(world.node)  # the answer is here, and not looked at yet
    for study in studies:
        case = world.case(study, "done", 60)
        assert case["whole_because"]
        assert len(world.delivered(study, 2)) == 2
        assert len(world.vendor.images_of(study)) == 1, "it was asked twice"


def test_files_of_the_service_that_changed_hold_its_cases_before_anything_is_sent(world: World) -> None:
    card = world.models / "vendor-chest" / "docs" / "README.md"
    card.write_text(card.read_text() + "\nChanged.\n")
    study = world.film(played.right)
    case = world.case(study, "parked")
    assert case["reason"].startswith("not allowed to run: the files of vendor-chest were changed")
    assert world.vendor.images_of(study) == []
    world.node.run("models", "allow", "vendor-chest")
    world.case(study, "done")
    assert world.vendor.faults == []
