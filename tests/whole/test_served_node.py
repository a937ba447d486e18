"""A whole node whose network is on an inference server, over real sockets: from the film to the SR and SEG in the PACS.

What is looked at is how each case ends, what the PACS got, and that a server which is gone or slow delays nobody else.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from harness import Node, Pacs, electrocardiogram, free_port, wait_until
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from pacsnode.life import study_life
from pacsnode.settings import load
from tests.infer import bundles
from tests.infer import inference_server as played
from tests.infer.inference_server import Answering, Inference, served_bundle

RULES = """\
version: 1
unmatched: keep
peers:
  xray-1: {{ae_title: XR1, host: 127.0.0.1, may: [store], issuer: CLINIC}}
  screen: {{ae_title: SCREEN, host: 127.0.0.1, port: {pacs}, investigational: true}}
defaults: {{results: [sr, seg], send_to: [screen], complete: {{quiet: 1s}}}}
rules:
  - {{name: film, when: {{Modality: CR, StudyID: there}}, run: served-chest}}
  - {{name: gone, when: {{Modality: CR, StudyID: gone}}, run: gone-chest}}
  - {{name: ecg, when: {{Modality: ECG}}, run: says, results: [sr]}}
"""


@dataclass
class World:
    """A node, its PACS, its inference server, and another server that is not there yet."""

    node: Node
    pacs: Pacs
    server: Inference
    gone: Inference
    folder: Path
    sent: list[Path] = field(default_factory=list)

    def film(self, which: str = "there", answering: Answering | None = None) -> str:
        """A radiograph of a new study, for which the server answers so; the study's UID."""
        self.server.answering = answering
        study = str(generate_uid())
        dataset = bundles.image(
            bundles.gradient(),
            SpecificCharacterSet=["", "ISO 2022 IR 149"],
            PatientName="Hong^Gildong=洪^吉洞=홍^길동",
            PatientID="4711",
            PatientBirthDate="19700101",
            PixelSpacing=[0.5, 0.25],
            StudyInstanceUID=study,
            SeriesInstanceUID=generate_uid(),
            SOPInstanceUID=generate_uid(),
            StudyDate="20260301",
            StudyTime="101500.000",
            StudyID=which,
            AccessionNumber="A-1",
        )
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        self.sent.append(bundles.saved(dataset, self.folder / f"{len(self.sent)}.dcm"))
        self.node.send([self.sent[-1]])
        return study

    def ecg(self) -> str:
        """A new ECG, which a service that runs here reads; the study's UID."""
        dataset = pydicom.dcmread(electrocardiogram())
        dataset.StudyInstanceUID, dataset.SOPInstanceUID = generate_uid(), generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        self.sent.append(bundles.saved(dataset, self.folder / f"{len(self.sent)}.dcm"))
        self.node.send([self.sent[-1]])
        return str(dataset.StudyInstanceUID)

    def case(self, study: str, state: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """The one case of a study, once it is in this state."""

        def cases() -> list[dict[str, Any]]:
            life = study_life(load(home=self.node.home), study)
            return life["cases"] if life else []

        try:
            wait_until(lambda: [one["state"] for one in cases()] == [state], timeout_s, 0.1)
        except TimeoutError:
            pytest.fail(f"not {state}: {cases()}\n{self.server.faults}\n{self.node.log()[-3000:]}")
        return cases()[0]

    def delivered(self, study: str, count: int) -> dict[str, Dataset]:
        """What the PACS holds of a study by modality, once it is so much."""

        def held() -> list[Dataset]:
            return [one for one in self.pacs.objects() if str(one.StudyInstanceUID) == study]

        wait_until(lambda: len(held()) >= count, every_s=0.1)
        return {str(one.Modality): one for one in held()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("served")
    models, gone = folder / "models", Inference(port=free_port())
    with Pacs(folder / "pacs") as pacs, Inference() as server:
        bundles.with_card(served_bundle(models, server, name="served-chest", http={"timeout": "50s"}))
        bundles.with_card(served_bundle(models, gone, name="gone-chest"))
        said = repr({"values": {"heart_rate": 61.0}, "findings": {}})
        bundles.with_card(bundles.workflow_bundle(models, said, accepts={"Modality": "ECG"}))
        rules = folder / "rules.yaml"
        rules.write_text(RULES.format(pacs=pacs.port))
        with Node(folder / "home", rules, models) as node:
            wait_until(lambda: '"working"' in node.log())
            yield World(node, pacs, server, gone, folder)


def texts(report: Dataset) -> list[str]:
    """Every text of an SR."""
    return [str(item.TextValue) for item in report.ContentSequence if "TextValue" in item] + [
        text for item in report.ContentSequence if "ContentSequence" in item for text in texts(item)
    ]


def test_a_film_becomes_sr_and_seg_whose_outline_the_server_computed(world: World) -> None:
    study = world.film()
    world.case(study, "done")
    held = world.delivered(study, 2)
    outline, report = held["SEG"], held["SR"]
    assert np.array_equal(outline.pixel_array.reshape(40, 60), np.tile(np.arange(60) >= 30, (40, 1)))
    assert str(outline.PatientName) == str(report.PatientName)
    assert report.PatientID == "4711"
    where = f"inference server 127.0.0.1:{world.server.port}, model chest version 3 (onnxruntime_onnx)"
    assert f"Computed on: {where}" in texts(report)
    assert "Weights SHA-256: not known, they are on the inference server" in texts(report)
    descriptions = [str(one.ContributionDescription) for one in outline.ContributingEquipmentSequence]
    assert any(where in one for one in descriptions)
    numbers = [float(one.value) for one in report.iterall() if one.keyword == "NumericValue"]
    assert 40 * 30 * 0.125 in numbers, "the area in mm2"
    for path in world.pacs.folder.iterdir():
        told = subprocess.run(["/usr/bin/dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
        assert "Error" not in told, told


def test_a_server_that_failed_once_is_asked_again_by_itself(world: World) -> None:
    study = world.film(answering=played.first(played.saying(500), played.cut))
    case = world.case(study, "done")
    assert case["attempt"] == 3
    assert sorted(world.delivered(study, 2)) == ["SEG", "SR"]


def test_an_answer_that_is_none_parks_the_case_and_nothing_is_delivered(world: World) -> None:
    study = world.film(answering=played.told_as(datatype="INT32"))
    reason = world.case(study, "parked")["reason"]
    assert reason == f"the inference server 127.0.0.1:{world.server.port} gives scores as INT32 instead of FP32"
    time.sleep(1)
    assert [one for one in world.pacs.objects() if str(one.StudyInstanceUID) == study] == []
    assert len(world.server.questions) >= 1


def test_a_slow_server_delays_no_model_that_runs_here(world: World) -> None:
    is_done, count = threading.Event(), len(world.server.questions)
    film = world.film(answering=played.once(is_done))
    wait_until(lambda: len(world.server.questions) > count)
    ecg = world.ecg()
    world.case(ecg, "done")
    world.case(film, "running")
    is_done.set()
    world.case(film, "done")


def test_a_server_that_comes_back_gets_all_that_waited(world: World) -> None:
    studies = [world.film("gone") for _ in range(3)]
    for study in studies:
        reason = world.case(study, "parked")["reason"]
        refused = f"no inference server at 127.0.0.1:{world.gone.port}: Connection refused"
        assert reason == f"{refused}; the case goes on by itself once it is there"
    told = world.node.run("doctor", check=False).stdout
    assert f"model gone-chest: no inference server at 127.0.0.1:{world.gone.port}" in told
    assert "model served-chest" not in told
    with world.gone:
        for study in studies:
            world.case(study, "done", timeout_s=150)
            assert sorted(world.delivered(study, 2)) == ["SEG", "SR"]


def test_a_kill_while_the_server_works_loses_nothing(world: World) -> None:
    count = len(world.server.questions)
    study = world.film(answering=played.after(3))
    wait_until(lambda: len(world.server.questions) > count)
    world.node.kill()
    world.server.answering = None
    world.node.start()
    world.case(study, "done")
    assert sorted(world.delivered(study, 2)) == ["SEG", "SR"]
