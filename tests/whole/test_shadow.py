"""Two versions of one service on real radiographs at a whole node: one live, one in shadow, of which nobody hears."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from harness import Node, Pacs, radiograph, wait_until
from sending import variant

from tests.infer import bundles

LIVE, NEXT = "threshold", "threshold-next"
RULES = """\
version: 1
unmatched: alarm
peers:
  xray-1: {{ae_title: XR1, host: 127.0.0.1, may: [store], issuer: CLINIC}}
  main-pacs: {{ae_title: PACS, host: 127.0.0.1, port: {port}, investigational: true}}
defaults: {{results: [sr, seg, sc], send_to: [main-pacs], complete: {{quiet: 1s}}}}
rules:
  - {{name: next version, when: {{Modality: CR}}, run: threshold-next{next}}}
  - {{name: same one, when: {{Modality: CR}}, run: threshold, shadow: true, complete: {{quiet: {quiet}}}}}
  - {{name: film, when: {{Modality: CR}}, run: threshold{film}}}
"""
IN_SHADOW = ", shadow: true"


@dataclass
class World:
    """A node with both versions, and the PACS that gets results."""

    node: Node
    pacs: Pacs
    folder: Path

    def send(self, name: str, **changes: Any) -> str:
        """A radiograph as a new study; its UID."""
        path = self.folder / f"{name}.dcm"
        study = str(variant(radiograph(), path, f"shadow {name}", **changes).StudyInstanceUID)
        self.node.send([path])
        return study

    def cases(self, study: str, **states: str) -> dict[str, dict[str, Any]]:
        """The cases of a study by their service, once they are in these states."""
        wanted = {service.replace("_", "-"): state for service, state in states.items()}

        def there() -> bool:
            answer = self.node.run("studies", "show", study, "--json", check=False)
            found = json.loads(answer.stdout)["cases"] if answer.returncode == 0 else []
            return {case["service"]: case["state"] for case in found} == wanted

        wait_until(there, 120, 0.3)
        return {case["service"]: case for case in self.node.life(study)["cases"]}

    def held(self, study: str) -> list[pydicom.Dataset]:
        """What the PACS has of a study, once nothing is owed any more."""

        def all_sent() -> bool:
            with closing(sqlite3.connect(self.node.home / "node.db")) as connection:
                sql = "SELECT count(*) FROM outbox WHERE state IN ('owed', 'sending')"
                return bool(connection.execute(sql).fetchone() == (0,))

        wait_until(all_sent, 60, 0.2)
        return [one for one in self.pacs.objects() if study == one.StudyInstanceUID]

    def kept(self, case: dict[str, Any], kind: str) -> pydicom.Dataset:
        """The result of a case in the archive."""
        path = next(result["path"] for result in case["results"] if result["kind"] == kind)
        return pydicom.dcmread(self.node.home / "files" / path)

    def owed(self, service: str) -> int:
        """How many rows the outbox ever had for a service."""
        with closing(sqlite3.connect(self.node.home / "node.db")) as connection:
            sql = "SELECT count(*) FROM outbox JOIN cases ON key = case_key WHERE service = ?"
            return int(connection.execute(sql, (service,)).fetchone()[0])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("shadow")
    bundles.with_card(bundles.network_bundle(folder / "models", name=LIVE, threshold=0.49))
    bundles.with_card(bundles.network_bundle(folder / "models", name=NEXT, threshold=0.6))
    with Pacs(folder / "pacs") as pacs:
        rules = folder / "rules.yaml"
        rules.write_text(RULES.format(port=pacs.port, next=IN_SHADOW, film="", quiet="1h"))
        with Node(folder / "home", rules, folder / "models") as node:
            wait_until(lambda: '"working"' in node.log())
            yield World(node, pacs, folder)


def services_named(objects: list[pydicom.Dataset]) -> set[str]:
    """Which services the objects say they come from."""
    names = {str(item.ManufacturerModelName) for one in objects for item in one.ContributingEquipmentSequence}
    return names & {LIVE, NEXT}  # the cassette of the source is named there too


def test_the_destination_gets_the_live_ones_objects_alone_and_the_shadows_are_kept(world: World) -> None:
    study = world.send("first")
    cases = world.cases(study, threshold="done", threshold_next="done")
    assert (cases[LIVE]["shadow"], cases[NEXT]["shadow"]) == (False, True)
    assert cases[LIVE]["rules"] == ["film"]
    held = world.held(study)
    assert len(held) == 3
    assert services_named(held) == {LIVE}
    assert sorted(result["kind"] for result in cases[NEXT]["results"]) == ["pdf", "pr", "sc", "seg", "sr"]
    assert services_named([world.kept(cases[NEXT], kind) for kind in ("sr", "seg", "sc")]) == {NEXT}
    assert cases[NEXT]["deliveries"] == []


def test_people_see_which_case_runs_in_shadow(world: World) -> None:
    study = world.send("first")
    told = world.node.run("studies", "show", study).stdout
    assert f"{NEXT}  done, in SHADOW: nothing is sent  by next version" in told
    rows = json.loads(world.node.run("jobs", "list", "--json").stdout)
    assert {row["service"]: row["runs"] for row in rows} == {LIVE: "live", NEXT: "shadow"}
    explained = world.node.run("rules", "explain", study).stdout
    assert f"→ {NEXT} reads 1 image; in shadow, nothing is sent  by next version" in explained


def test_compare_says_what_the_masks_of_both_objects_say(world: World) -> None:
    study = world.send("first")
    cases = world.cases(study, threshold="done", threshold_next="done")
    one, other = (world.kept(cases[name], "seg").pixel_array.astype(bool) for name in (LIVE, NEXT))
    told = json.loads(world.node.run("models", "compare", LIVE, NEXT, "--json").stdout)
    assert (told["studies"], told["inputs"], told["left_out"], told["parked"]) == (1, 1, {}, [])
    (label,) = told["outlines"]["labels"]
    assert label["mean"] == pytest.approx(2 * np.sum(one & other) / (np.sum(one) + np.sum(other)))
    assert 0 < label["mean"] < 1
    (area,) = told["numbers"]
    assert area["mean"] == pytest.approx((np.sum(other) - np.sum(one)) / one.size, rel=1e-6)
    assert area["largest_study"] == study
    people = world.node.run("models", "compare", LIVE, NEXT, "--since", "1h").stdout
    assert "compared        1 study, inputs: 1" in people
    assert str(pydicom.dcmread(radiograph()).PatientName) not in people + json.dumps(told)


@pytest.mark.parametrize("role", ["work", "child"])
def test_a_kill_while_the_shadow_runs_loses_nothing_and_sends_nothing_of_it(world: World, role: str) -> None:
    study = world.send(f"killed {role}")

    def shadow_runs() -> bool:
        with closing(sqlite3.connect(world.node.home / "node.db")) as connection:
            sql = "SELECT count(*) FROM cases WHERE study_instance_uid = ? AND shadow AND state != 'waiting'"
            return bool(connection.execute(sql, (study,)).fetchone() == (1,))

    wait_until(shadow_runs, 60, 0.005)
    os.kill(world.node.pids()[role], signal.SIGKILL)
    world.cases(study, threshold="done", threshold_next="done")
    held = world.held(study)
    assert len(held) == 3
    assert services_named(held) == {LIVE}
    assert world.owed(NEXT) == 0


def test_neither_a_retry_of_cases_nor_of_deliveries_sends_anything_of_the_shadow(world: World) -> None:
    study = world.send("no pixels", PixelData=None)  # refused by both
    world.cases(study, threshold="parked", threshold_next="parked")
    world.node.run("jobs", "retry", "all")
    world.node.run("deliveries", "retry", "all")
    wait_until(lambda: {case["attempt"] for case in world.node.life(study)["cases"]} == {2}, 30, 0.3)
    world.cases(study, threshold="parked", threshold_next="parked")
    assert world.owed(NEXT) == 0
    told = world.node.run("models", "compare", LIVE, NEXT).stdout
    assert f"parked          1 of {NEXT}" in told
    assert f"  {study}  {NEXT}: the object holds no pixel data (the other: parked)" in told


def test_after_the_switch_the_next_version_is_live_and_the_old_one_in_shadow(world: World) -> None:
    before = world.owed(LIVE)
    world.node.rules.write_text(RULES.format(port=world.pacs.port, next="", film=IN_SHADOW, quiet="1s"))
    wait_until(lambda: world.node.log().count('"rules live"') >= 2, 30, 0.2)
    study = world.send("switched")
    cases = world.cases(study, threshold_next="done", threshold="done")
    assert (cases[LIVE]["shadow"], cases[NEXT]["shadow"]) == (True, False)
    held = world.held(study)
    assert len(held) == 3
    assert services_named(held) == {NEXT}
    assert (world.owed(LIVE), world.owed(NEXT)) == (before, 3)
