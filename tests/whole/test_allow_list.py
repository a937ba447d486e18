"""Only bundles that somebody allowed run, at a whole node: a changed file holds its cases, then they go on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from harness import Node, Pacs, electrocardiogram, radiograph, wait_until
from pydicom.uid import generate_uid

from pacsnode.infer.catalogue import NOT_ALLOWED, bundle_hash
from tests.infer import bundles

ECG = {"Modality": "ECG"}
RULES = """\
version: 1
unmatched: keep
peers:
  xray-1: {{ae_title: XR1, host: 127.0.0.1, may: [store], issuer: CLINIC}}
  main-pacs: {{ae_title: PACS, host: 127.0.0.1, port: {port}, investigational: true}}
defaults: {{results: [sr], send_to: [main-pacs], complete: {{quiet: 1s}}}}
rules:
  - {{name: ecg, when: {{Modality: ECG}}, run: says}}
  - {{name: film, when: {{Modality: CR}}, run: threshold}}
"""


def said(rate: float) -> str:
    return repr({"values": {"heart_rate": rate}, "findings": {}})


@dataclass
class World:
    """A node with two services, and the PACS that gets their results."""

    node: Node
    pacs: Pacs
    says: Path

    def send(self, original: Path) -> str:
        """As a new study; its UID."""
        dataset = pydicom.dcmread(original)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, generate_uid())
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = self.node.home.parent / f"{dataset.SOPInstanceUID}.dcm"
        dataset.save_as(path)
        self.node.send([path])
        return str(dataset.StudyInstanceUID)

    def case(self, study: str, state: str) -> dict[str, Any]:
        """The one case of a study, once it is in this state."""

        def there() -> bool:
            answer = self.node.run("studies", "show", study, "--json", check=False)
            return answer.returncode == 0 and [c["state"] for c in self.node.life(study)["cases"]] == [state]

        wait_until(there, 60, 0.3)
        case: dict[str, Any] = self.node.life(study)["cases"][0]
        return case

    def report(self, study: str) -> str:
        """The SR at the PACS, as JSON."""

        def held() -> list[pydicom.Dataset]:
            return [o for o in self.pacs.objects() if study == o.StudyInstanceUID]

        wait_until(lambda: bool(held()), 60, 0.2)
        return str(held()[0].to_json())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("allow list")
    says = bundles.with_card(bundles.workflow_bundle(folder / "models", said(61.375), accepts=ECG))
    bundles.with_card(bundles.network_bundle(folder / "models"))
    with Pacs(folder / "pacs") as pacs:
        rules = folder / "rules.yaml"
        rules.write_text(RULES.format(port=pacs.port))
        with Node(folder / "home", rules, folder / "models") as node:
            wait_until(lambda: '"working"' in node.log())
            yield World(node, pacs, says)


def test_what_is_there_at_the_first_start_runs(world: World) -> None:
    assert "first start: the services that are there are allowed" in world.node.log()
    study = world.send(electrocardiogram())
    world.case(study, "done")
    assert bundle_hash(world.says) in world.report(study)


def test_a_changed_file_holds_its_cases_until_it_is_allowed_while_others_go_on(world: World) -> None:
    bundles.write_said(world.says, said(72.375))
    held, other = world.send(electrocardiogram()), world.send(radiograph())
    reason = world.case(held, "parked")["reason"]
    assert reason.startswith(f"{NOT_ALLOWED}: the files of says were changed while the node runs")
    assert "`pacsnode models allow says`" in reason
    world.case(other, "done")
    doctor = world.node.run("doctor", check=False).stdout
    assert "model says: nobody allowed it as its files are: its cases wait" in doctor
    assert "model threshold" not in doctor
    world.node.run("models", "allow", "says")
    world.case(held, "done")
    report = world.report(held)
    assert "72.375" in report
    assert bundle_hash(world.says) in report


def test_a_new_version_is_installed_into_a_running_node_and_the_old_one_comes_back(
    world: World, tmp_path: Path
) -> None:
    before = bundle_hash(world.says)
    new = bundles.with_card(bundles.workflow_bundle(tmp_path, said(83.375), accepts=ECG))
    (new / "configs" / "metadata.json").write_text('{"version": "0.2.0"}')
    answer = world.node.run("models", "install", str(new)).stdout
    assert "says 0.2.0 installed" in answer
    study = world.send(electrocardiogram())
    world.case(study, "done")
    assert "83.375" in world.report(study)
    older = world.says.parent / "_older" / "says-0.1.0"
    assert f"back to it: `pacsnode models install {older}`" in answer
    world.node.run("models", "install", str(older))
    assert bundle_hash(world.says) == before
    study = world.send(electrocardiogram())
    world.case(study, "done")
    assert "72.375" in world.report(study)


def test_who_allowed_what_stands_in_the_audit(world: World) -> None:
    with closing(sqlite3.connect(world.node.home / "node.db")) as connection:
        rows = connection.execute(
            "SELECT json_extract(detail, '$.service'), json_extract(detail, '$.source') FROM audit "
            "WHERE event = 'bundle allowed' ORDER BY id"
        ).fetchall()
    assert sorted(rows[:2]) == [("says", "first start"), ("threshold", "first start")]
    assert rows[2:] == [("says", "allow"), ("says", "install"), ("says", "install")]
