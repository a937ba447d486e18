"""From a study that changed to cases, live and in shadow beside each other: real archive, real rules, no process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pacsnode import schema
from pacsnode.archive.case_rows import CaseRecord
from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.considering import Considering
from pacsnode.life import study_life
from pacsnode.live import load_site
from pacsnode.owing import Owing
from pacsnode.settings import Settings, load
from tests.archive import homes

ROOT = Path(__file__).resolve().parents[1]
STUDY = "1.2.3"
CR_CLASS = "1.2.840.10008.5.1.4.1.1.1"
RULES = """\
version: 1
unmatched: keep
peers:
  pacs: {ae_title: PACS, host: 192.0.2.5, port: 104, investigational: true}
defaults: {results: [sr], send_to: [pacs], complete: {quiet: 0s}, late_images: ignore}
rules:
  - {name: all in shadow, when: {Modality: CR}, run: chest-xray, shadow: true, late_images: rerun}
  - {name: live, when: {Modality: CR, ViewPosition: {in: [AP, LAO]}}, run: chest-xray}
"""


@dataclass
class World:
    """A home whose studies are considered by hand."""

    settings: Settings
    cases: Cases
    considering: Considering

    def receive(self, uid: str, view: str) -> None:
        """Store an image, and do what `work` does then."""
        into = homes.archive(self.settings)
        try:
            sent = homes.data_set(uid, study=STUDY, SOPClassUID=CR_CLASS, Modality="CR", ViewPosition=view)
            homes.store(into, sent, replace(homes.request(uid), sop_class_uid=CR_CLASS))
        finally:
            into.close()
        while self.considering.consider_changes():
            pass
        self.considering.open_whole_cases()

    def opened(self, *, shadow: bool) -> list[CaseRecord]:
        return [record for record in self.cases.of_study(STUDY) if record.shadow == shadow]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    settings = load(home=tmp_path / "home", rules=rules, models=ROOT / "models")
    schema.migrate(settings)
    site, cases, index = load_site(settings), Cases(settings.node_db), Index(settings.index_db)
    owing = Owing(cases, lambda: index, lambda: site)
    considering = Considering(settings, cases, owing, lambda: site, lambda peers: None)
    yield World(settings, cases, considering)
    for one in (considering, cases, index):
        one.close()


def test_an_image_that_the_shadow_has_read_is_not_late_for_a_live_rule(world: World) -> None:
    world.receive("1.9.1", "PA")
    assert [one.case.instances for one in world.opened(shadow=True)] == [("1.9.1",)]
    world.receive("1.9.2", "AP")
    (live,) = world.opened(shadow=False)
    assert live.case.instances == ("1.9.2",)
    assert live.send_to == ("pacs",)


def test_a_live_case_never_follows_one_in_shadow_of_which_nobody_has_the_report(world: World) -> None:
    world.receive("1.9.1", "PA")
    world.receive("1.9.2", "AP")
    first, second = world.opened(shadow=True)
    assert (first.case.supersedes, second.case.supersedes) == ("", first.case.key)
    (live,) = world.opened(shadow=False)
    assert live.case.supersedes == ""


def test_what_both_ask_for_is_one_live_case(world: World) -> None:
    world.receive("1.9.1", "AP")
    (live,) = world.cases.of_study(STUDY)
    assert (live.shadow, live.case.rules, live.send_to) == (False, ("live",), ("pacs",))


def test_text_that_its_device_declares_wrongly_is_an_event_told_once(world: World) -> None:
    name = "홍^길동"
    marker = "N" * len(name.encode("euc_kr"))

    def receive(uid: str) -> None:
        sent = homes.data_set(uid, study=STUDY, SOPClassUID=CR_CLASS, Modality="CR", PatientName=marker)
        into = homes.archive(world.settings)
        try:
            said = replace(homes.request(uid), sop_class_uid=CR_CLASS)  # ISO_IR 192, and the bytes are EUC-KR
            homes.store(into, sent.replace(marker.encode(), name.encode("euc_kr")), said)
        finally:
            into.close()
        while world.considering.consider_changes():
            continue

    for number in (1, 2):
        receive(f"1.9.{number}")
    events = world.cases.rows("SELECT detail FROM audit WHERE event = 'text repaired'")
    assert [json.loads(row["detail"]) for row in events] == [{"attributes": "PatientName"}]
    life = study_life(world.settings, STUDY)
    assert life is not None and life["repaired"] == {"PatientName": 2}
    assert name not in str(events[0]["detail"])
