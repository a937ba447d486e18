"""What a case owes: by its rules when it is live, nothing at all in shadow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pacsnode import schema
from pacsnode.archive.case_rows import Arrived, CaseRecord, Pending, ResultRecord
from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.deliver.debts import Debt, owe
from pacsnode.deliver.outbox import Outbox
from pacsnode.handover import Candidate, Case, Completion
from pacsnode.live import load_site
from pacsnode.owing import Owing
from pacsnode.peers import Peer
from pacsnode.settings import load

ROOT = Path(__file__).resolve().parents[1]
RULES = """\
version: 1
unmatched: keep
peers:
  pacs: {ae_title: PACS, host: 192.0.2.5, port: 104, investigational: true}
rules:
  - {name: next, when: {Modality: DX}, run: chest-xray, shadow: true, complete: {quiet: 1s}}
"""
KEY = "k1"
LIVE = Candidate("1.2.3", "chest-xray", ("live",), ("1.2.3.1",), ("sr",), ("pacs",), 10, Completion(1.0))
SHADOW = replace(LIVE, rules=("next",), results=("sr",), send_to=("pacs",), priority=110, shadow=True)
RESULT = ResultRecord("2.25.1", KEY, "sr", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.2", "1/aa/x.dcm")


@dataclass
class World:
    """Cases, outbox, and who decides what is owed."""

    cases: Cases
    outbox: Outbox
    owing: Owing
    pacs: Peer

    def open(self, candidate: Candidate) -> None:
        case = Case(KEY, "1.2.3", "chest-xray", candidate.rules, "rules", ("1.2.3.1",), candidate.results, 1)
        self.cases.open(Pending(0, candidate, "rules", Arrived(1, "boot", 1, ()), False), case, "quiet")

    def record(self) -> CaseRecord:
        record = self.cases.get(KEY)
        assert record is not None
        return record

    def owed(self) -> list[str]:
        return [f"{one.sop_instance_uid} to {one.destination}: {one.state}" for one in self.outbox.listing()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    settings = load(home=tmp_path / "home", rules=rules, models=ROOT / "models")
    schema.migrate(settings)
    site, cases, index = load_site(settings), Cases(settings.node_db), Index(settings.index_db)
    outbox = Outbox(settings.node_db, 86400)
    pacs = site.rules.peers.by_name("pacs")
    assert pacs is not None
    yield World(cases, outbox, Owing(cases, lambda: index, lambda: site), pacs)
    for one in (cases, index, outbox):
        one.close()


def test_nothing_of_a_case_in_shadow_is_ever_owed_though_it_names_destinations(world: World) -> None:
    world.open(SHADOW)
    world.cases.add_results(KEY, [RESULT], lambda connection: None, is_last=True)
    assert world.record().send_to == ("pacs",)
    assert world.owing.debts(world.record(), [RESULT]) == []
    world.owing.owe_again(KEY)
    assert world.owed() == []


def test_a_live_rule_that_asks_for_the_same_later_gets_what_is_there(world: World) -> None:
    world.open(SHADOW)
    world.cases.add_results(KEY, [RESULT], lambda connection: None, is_last=True)
    assert world.cases.unite(KEY, LIVE)
    world.owing.owe_again(KEY)
    assert world.owed() == ["2.25.1 to pacs: owed"]


def test_a_delivery_of_a_case_in_shadow_is_refused_at_every_attempt(world: World) -> None:
    world.open(SHADOW)
    with world.cases.transaction() as connection:
        owe(connection, KEY, "1.2.3", 10, [Debt("pacs", ("2.25.1",))])  # whoever entered it
    (owed,) = world.outbox.listing()
    world.outbox.retry([owed.id])
    assert world.owing.forbidden(owed, world.pacs) == "its case runs in shadow"
    world.cases.unite(KEY, LIVE)
    assert world.owing.forbidden(owed, world.pacs) == ""
