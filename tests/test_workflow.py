"""The last steps of a case on objects that were really encoded: kept once, owed as the case is at that moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pacsnode import findings_files, schema
from pacsnode.allowing import Allowing
from pacsnode.archive import notes
from pacsnode.archive.case_rows import Arrived, Pending
from pacsnode.archive.cases import Cases
from pacsnode.archive.rejections import Rejection, Rejections
from pacsnode.archive.store import Archive
from pacsnode.deliver.debts import withdraw
from pacsnode.deliver.outbox import Outbox
from pacsnode.encode.build import encode
from pacsnode.encode.results import write_objects
from pacsnode.errors import Permanent
from pacsnode.handover import Candidate, Completion
from pacsnode.infer.compute import ComputeKeeper
from pacsnode.infer.waiting import ComputeQueue, Lines
from pacsnode.live import load_site
from pacsnode.readings import from_text
from pacsnode.settings import Settings, load
from pacsnode.workflow import PICTURES, REPORTS, Stores, Workflow
from tests.encode.cases import CR, NODE, chest_findings, request

ROOT = Path(__file__).resolve().parents[1]
KEY = "case-1"
RULES = """\
version: 1
unmatched: keep
peers:
  pacs: {ae_title: PACS, host: 192.0.2.5, port: 104, investigational: true}
  ward: {ae_title: WARD, host: 192.0.2.6, port: 104, investigational: true}
rules:
  - {name: stop, when: {Modality: XX}, stop: true}
"""


@dataclass
class World:
    """A case whose objects lie encoded in `runs/`, and the workflow that keeps them."""

    settings: Settings
    cases: Cases
    outbox: Outbox
    workflow: Workflow
    live: Candidate

    def open(self, candidate: Candidate) -> None:
        made = request(self.settings.runs / KEY, CR).case
        self.cases.open(Pending(0, candidate, "rules", Arrived(1, "boot", 1, ()), False), made, "quiet")

    def owed(self) -> dict[str, list[str]]:
        """Kinds by destination."""
        kinds = {one.sop_instance_uid: one.kind for one in self.cases.results(KEY)}
        found: dict[str, list[str]] = {}
        for one in self.outbox.listing():
            found.setdefault(one.destination, []).append(kinds[one.sop_instance_uid])
        return {destination: sorted(of) for destination, of in found.items()}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    settings = load(home=tmp_path / "home", rules=rules, models=ROOT / "models")
    schema.migrate(settings)
    asked = request(settings.runs / KEY, CR)
    found = chest_findings()
    findings_files.save(found, asked.folder)
    objects = encode(found, asked)
    for kinds in (REPORTS, PICTURES):
        write_objects(asked.folder, kinds, [one for one in objects if one.kind in kinds])
    site, cases, allowing = load_site(settings), Cases(settings.node_db), Allowing(settings.node_db)
    archive = Archive(settings.files, settings.index_db, "work", minimum_free_mb=0, on_rows=lambda: None)
    queue, outbox = (
        ComputeQueue(ComputeKeeper([], {})),
        Outbox(settings.node_db, 86400),
    )  # no step here computes anything
    stores = Stores(archive, settings.index_db, cases, allowing)
    workflow = Workflow(settings, NODE, stores, Lines(queue, queue), lambda: site)
    case = asked.case
    live = Candidate(
        case.study_instance_uid, case.service, ("live",), case.instances, case.results, ("pacs",), 10, Completion(1.0)
    )
    yield World(settings, cases, outbox, workflow, live)
    for one in (archive, cases, allowing, outbox):
        one.close()


def test_a_destination_that_comes_between_report_and_picture_gets_both(world: World) -> None:
    world.open(world.live)
    world.workflow.keep_reports(KEY)
    assert world.owed() == {"pacs": ["seg", "sr"]}
    world.cases.unite(KEY, replace(world.live, send_to=("ward",)))
    world.workflow.keep_pictures(KEY)
    assert world.owed() == {"pacs": ["sc", "seg", "sr"], "ward": ["sc", "seg", "sr"]}


def test_of_a_case_in_shadow_everything_is_kept_and_nothing_owed(world: World) -> None:
    world.open(replace(world.live, shadow=True))
    for _ in range(2):  # a step may be repeated
        world.workflow.keep_reports(KEY)
        world.workflow.keep_pictures(KEY)
    assert sorted(one.kind for one in world.cases.results(KEY)) == ["sc", "seg", "sr"]
    assert world.owed() == {}


def test_a_case_that_goes_live_while_it_runs_in_shadow_is_owed_as_a_whole(world: World) -> None:
    world.open(replace(world.live, shadow=True))
    world.workflow.keep_reports(KEY)
    world.cases.unite(KEY, world.live)
    world.workflow.keep_pictures(KEY)
    assert world.owed() == {"pacs": ["sc", "seg", "sr"]}


def test_the_numbers_of_a_case_that_is_done_are_kept_without_its_sentences(world: World) -> None:
    world.open(world.live)
    world.workflow.keep_reports(KEY)
    world.workflow.keep_pictures(KEY)
    with closing(sqlite3.connect(world.settings.node_db)) as connection:
        ((key, text),) = connection.execute("SELECT case_key, numbers FROM numbers").fetchall()
    read = from_text(text)
    assert (key, read.version, read.outlined) == (KEY, "0.1.0", True)
    assert sorted(subject.words for subject in read.inputs[0].numbers) == [
        "Area (heart) [mm2]",
        "Area (right lung)",
        "Cardiothoracic ratio",
    ]
    assert list(read.inputs[0].presences.values()) == ["undetermined"]
    assert "Sensitivity" not in text


def test_a_case_that_is_withdrawn_while_it_runs_sends_nothing_more_and_is_not_parked(world: World) -> None:
    world.open(world.live)
    world.workflow.keep_reports(KEY)
    owed = {o.sop_instance_uid for o in world.outbox.listing()}
    rejection = Rejection(world.live.study_instance_uid, world.live.instances, "113001", "pacs")
    assert [r.case.key for r in Rejections(world.cases, withdraw).reject(rejection)] == [KEY]
    with pytest.raises(Permanent, match="withdrawn: Rejected for Quality Reasons"):
        world.workflow.keep_pictures(KEY)
    world.workflow.park(KEY, 1, "withdrawn")
    record = world.cases.get(KEY)
    assert record is not None
    assert (record.state, world.cases.retry(KEY)) == ("withdrawn", False)
    assert {o.sop_instance_uid: o.state for o in world.outbox.listing()} == dict.fromkeys(owed, "cancelled")
    with world.cases.reading() as connection:
        (note,) = notes.due(connection)
    assert set(note.instances) == owed


def test_a_failure_is_told_by_rule_alone_once_for_a_reason_and_never_from_the_shadow(world: World) -> None:
    def told() -> list[str]:
        with world.cases.reading() as connection:
            return [note.reason for note in notes.of_case(connection, KEY)]

    world.open(replace(world.live, shadow=True, on_failure="tell"))
    world.workflow.park(KEY, 1, "no pixels")
    assert told() == []
    world.cases.unite(KEY, world.live)
    world.cases.retry(KEY)
    world.workflow.park(KEY, 2, "no pixels")
    assert told() == []
    world.cases.unite(KEY, replace(world.live, on_failure="tell"))
    for attempt, reason in ((3, "no pixels"), (4, "no pixels"), (5, "other")):
        world.cases.retry(KEY)
        world.workflow.park(KEY, attempt, reason)
    assert told() == ["no pixels", "other"]
