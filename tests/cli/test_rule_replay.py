"""`pacsnode rules replay` and `rules test` on studies that a real archive holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from pacsnode.cli.replaying import compare, count, newest
from pacsnode.live import load_site
from pacsnode.settings import Settings
from tests.archive import homes
from tests.infer import bundles

OURS = """\
version: 1
unmatched: keep
peers:
  ct-1: {ae_title: CT1, host: 192.0.2.7, may: [store], issuer: CLINIC}
  main-pacs: {ae_title: PACS, host: 192.0.2.5, port: 104, investigational: true}
  other-pacs: {ae_title: OTHER, host: 192.0.2.6, port: 104, investigational: true}
defaults: {complete: {quiet: 20s}, results: [sr], send_to: [main-pacs]}
rules:
  - {name: chest, when: {Modality: CT, StudyDescription: {contains: chest}}, run: reader}
  - {name: head, when: {Modality: CT, StudyDescription: {contains: head}}, run: reader}
  - {name: to pacs, when: {Modality: CT, StudyDescription: {contains: abdomen}}, forward: main-pacs}
examples:
  - {study: {Modality: CT, StudyDescription: CHEST}, expect: [chest]}
"""
OTHER = (
    OURS.replace("{contains: chest}", "{contains: thorax}")
    .replace("contains: head}}, run: reader}", "contains: head}}, run: reader, send_to: other-pacs, priority: stat}")
    .replace("forward: main-pacs", "forward: [main-pacs, other-pacs]")
    .replace("expect: [chest]", "expect: []")
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("replay")
    bundles.network_bundle(folder / "models", name="reader", accepts={"Modality": "CT"})
    made = homes.home(folder)
    archive = homes.archive(made)
    for number, description in enumerate(["CHEST", "CHEST", "HEAD", "THORAX", "ABDOMEN", "KNEE"]):
        uid = f"1.9.{number}"
        data = homes.data_set(uid, study=f"1.2.{number}", StudyDescription=description)
        homes.store(archive, data, homes.request(uid))
    archive.close()
    for name, text in (("ours.yaml", OURS), ("other.yaml", OTHER)):
        (folder / name).write_text(text)
    return made


def command(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder = settings.home.parent
    environment = os.environ | {
        "PACSNODE_HOME": str(settings.home),
        "PACSNODE_RULES": str(folder / "ours.yaml"),
        "PACSNODE_MODELS": str(folder / "models"),
    }
    return subprocess.run(
        [sys.executable, "-m", "pacsnode", "rules", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def answered(settings: Settings, *arguments: str) -> dict[str, Any]:
    answer = command(settings, *arguments, "--json")
    assert answer.returncode == 0, answer.stderr
    plain: dict[str, Any] = json.loads(answer.stdout)
    return plain


def test_replay_counts_what_the_rules_make_of_received_studies(settings: Settings) -> None:
    counted = answered(settings, "replay")
    assert counted == {
        "studies": 6,
        "taken_by_no_rule": 2,
        "rules": {"chest": 2, "head": 1, "to pacs": 1},
        "cases": {"reader": 3},
    }
    assert answered(settings, "replay", "--last", "1")["studies"] == 1
    assert answered(settings, "replay", "--since", "1h")["studies"] == 6
    assert "6 studies, 2 of them taken by no rule" in command(settings, "replay").stdout


def test_replay_of_another_file_tells_what_is_gained_lost_and_moved_and_by_which_clause(settings: Settings) -> None:
    other = str(settings.home.parent / "other.yaml")
    compared = answered(settings, "replay", "--rules", other)
    assert (compared["studies"], compared["changed"]) == (6, 5)
    assert compared["by_service"] == {
        "forward to other-pacs": {"gained": 1},
        "reader": {"gained": 1, "lost": 2, "moved": 1},
    }
    assert (compared["taken_by_no_rule_any_more"], compared["taken_by_a_rule_now"]) == (2, 1)
    by_study = {study["StudyDescription"]: study["differences"] for study in compared["changed_studies"]}
    assert by_study["CHEST"] == [
        {
            "kind": "lost",
            "what": "reader",
            "rule": "chest",
            "detail": "StudyDescription is CHEST, expected text with thorax",
        }
    ]
    (gained,) = by_study["THORAX"]
    assert (gained["kind"], gained["detail"]) == ("gained", "StudyDescription is THORAX, expected text with chest")
    (moved,) = by_study["HEAD"]
    assert (moved["kind"], moved["detail"]) == (
        "moved",
        "send_to other-pacs instead of main-pacs; priority stat instead of routine",
    )
    text = command(settings, "replay", "--rules", other, "--diff", "--limit", "2").stdout
    assert "6 studies, 5 would change under" in text
    assert "and 3 studies more" in text
    assert "Hong" not in text


def test_a_file_that_is_the_same_changes_nothing(settings: Settings) -> None:
    compared = answered(settings, "replay", "--rules", str(settings.home.parent / "ours.yaml"))
    assert (compared["changed"], compared["changed_studies"]) == (0, [])


@pytest.mark.parametrize("arguments", [("replay", "--diff"), ("replay", "--since", "tomorrow")])
def test_what_cannot_be_is_told(settings: Settings, arguments: tuple[str, ...]) -> None:
    answer = command(settings, *arguments)
    assert answer.returncode == 2
    assert "--" in answer.stderr


def test_rules_test_finds_a_study_that_was_read_and_would_not_be(settings: Settings) -> None:
    from pacsnode.archive.case_rows import Arrived, Pending
    from pacsnode.archive.cases import Cases
    from pacsnode.handover import Candidate, Case, Completion

    assert command(settings, "test").returncode == 0
    cases = Cases(settings.node_db)
    candidate = Candidate("1.2.0", "reader", ("chest",), ("1.9.0",), ("sr",), ("main-pacs",), 10, Completion(20.0))
    case = Case("k1", "1.2.0", "reader", ("chest",), "hash", ("1.9.0",), ("sr",), 1)
    cases.open(Pending(0, candidate, "hash", Arrived(1, "boot", 1, ("ct-1",)), False), case, "quiet")
    cases.close()
    assert "1 examples and 1 studies that were read: 0 differ" in command(settings, "test").stdout
    answer = command(settings, "test", "--rules", str(settings.home.parent / "other.yaml"))
    assert answer.returncode == 1
    told = "study 1.2.0 was read by reader, and would not be; rule chest: StudyDescription is CHEST, expected text with"
    assert told in answer.stdout


def test_studies_decided_by_several_processes_are_told_as_by_one(settings: Settings) -> None:
    folder = settings.home.parent
    site = settings.model_copy(update={"rules": folder / "ours.yaml", "models": folder / "models"})
    ours = load_site(site).rules
    other = load_site(site.model_copy(update={"rules": folder / "other.yaml"})).rules
    uids = newest(site, 10, 0)
    assert len(uids) == 6
    assert count(site, ours, uids, shares=3) == count(site, ours, uids, shares=1)
    compared = compare(site, ours, other, uids, shares=4)
    assert compared == compare(site, ours, other, uids, shares=1)
    assert len(compared.changed) == 5
