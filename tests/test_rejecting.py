"""Rejection notes that came in, judged and entered: real archive, real rules, real files, hostile ones too."""

from __future__ import annotations

import io
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from pacsnode import schema
from pacsnode.archive.asked import AskedCases
from pacsnode.archive.case_rows import CaseRecord, ResultRecord
from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.archive.notes import due
from pacsnode.archive.rejections import Rejection, Rejections
from pacsnode.considering import Considering
from pacsnode.deliver.debts import Debt, owe, withdraw
from pacsnode.deliver.outbox import Outbox
from pacsnode.dicom.rejection import KEY_OBJECT_SELECTION as KOS
from pacsnode.life import study_life
from pacsnode.live import load_site
from pacsnode.owing import Owing
from pacsnode.rejecting import LARGEST_NOTE_BYTES, rejection_by_hand
from pacsnode.settings import Settings, load
from tests.archive import homes
from tests.rejection_notes import note

ROOT = Path(__file__).resolve().parents[1]
STUDY = "1.2.3"
CR_CLASS = "1.2.840.10008.5.1.4.1.1.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
RULES = """\
version: 1
unmatched: keep
peers:
  xray-1: {{ae_title: XR1, host: 192.0.2.7, may: [store], issuer: CLINIC}}
  pacs: {{ae_title: PACS, host: 192.0.2.5, port: 104, may: [{may}], issuer: CLINIC, investigational: true}}
defaults: {{results: [sr], send_to: [pacs], complete: {{quiet: {quiet}}}, late_images: {late}}}
rules:
  - {{name: film, when: {{Modality: CR}}, run: chest-xray}}
  - {{name: archive, when: {{Modality: CR, ViewPosition: LL}}, forward: pacs}}
"""


@dataclass
class World:
    """A home whose studies are considered by hand."""

    settings: Settings
    cases: Cases
    considering: Considering
    outbox: Outbox

    def receive(self, uid: str, view: str = "PA", study: str = STUDY) -> Dataset:
        """Store an image, and do what `work` does then."""
        sent = homes.data_set(uid, study=study, SOPClassUID=CR_CLASS, Modality="CR", ViewPosition=view)
        self.store(sent, uid, CR_CLASS, "xray-1")
        return pydicom.dcmread(io.BytesIO(sent), force=True)

    def note(self, *about: Dataset, code: str = "113001", peer: str = "pacs", **changes: Any) -> str:
        """Store a rejection note, and do what `work` does then; its UID."""
        path = self.settings.home / "note.dcm"
        made = note(path, about, code, **changes)
        self.store(bytes_of(path), str(made.SOPInstanceUID), KOS, peer)
        return str(made.SOPInstanceUID)

    def store(self, data: bytes, uid: str, sop_class: str, peer: str, syntax: str = homes.EXPLICIT) -> None:
        into = homes.archive(self.settings)
        try:
            homes.store(into, data, replace(homes.request(uid, peer=peer, syntax=syntax), sop_class_uid=sop_class))
        finally:
            into.close()
        self.consider()

    def consider(self) -> None:
        while self.considering.consider_changes():
            pass
        self.considering.open_whole_cases()

    def finish(self, record: CaseRecord) -> list[str]:
        """Let a case have a report that the PACS has, and one that it is still owed."""
        key, study = record.case.key, record.case.study_instance_uid
        results = [ResultRecord(f"2.25.{n}{len(key)}", key, "sr", "1.2", "1.3", f"x/{n}") for n in (1, 2)]
        uids = [r.sop_instance_uid for r in results]

        def enter(connection: sqlite3.Connection) -> None:
            owe(connection, key, study, 10, [Debt("pacs", (uids[0],)), Debt("ward", (uids[1],))])

        self.cases.add_results(key, results, enter, is_last=True)
        (sent,) = self.outbox.claim("pacs")
        self.outbox.sent(sent, 0)
        return uids

    def life(self) -> dict[str, Any]:
        life = study_life(self.settings, STUDY)
        assert life is not None
        return life

    def ignored(self) -> list[str]:
        return [n["reason"] for n in self.life()["notes_ignored"]]

    def states(self) -> list[str]:
        return [record.state for record in self.cases.of_study(STUDY)]


def bytes_of(path: Path) -> bytes:
    """The data set of a Part 10 file."""
    content = path.read_bytes()
    return content[144 + int(pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength) :]


def made_world(tmp_path: Path, *, quiet: str = "0s", may: str = "store", late: str = "rerun") -> World:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES.format(quiet=quiet, may=may, late=late))
    settings = load(home=tmp_path / "home", rules=rules, models=ROOT / "models")
    schema.migrate(settings)
    site, cases, index = load_site(settings), Cases(settings.node_db), Index(settings.index_db)
    owing = Owing(cases, lambda: index, lambda: site)
    considering = Considering(settings, cases, owing, lambda: site, lambda peers: None)
    return World(settings, cases, considering, Outbox(settings.node_db, 86400))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = made_world(tmp_path)
    yield made
    close(made)


def close(world: World) -> None:
    for one in (world.considering, world.cases, world.outbox):
        one.close()


def test_a_note_withdraws_the_case_ends_what_is_owed_and_names_who_has_or_may_get_the_results(world: World) -> None:
    image = world.receive("1.9.1")
    (record,) = world.cases.of_study(STUDY)
    uids = world.finish(record)
    theirs = world.note(image, code="113038")
    assert world.states() == ["withdrawn"]
    assert {o.destination: o.state for o in world.outbox.listing()} == {"pacs": "sent", "ward": "cancelled"}
    with world.cases.reading() as connection:
        (to_make,) = due(connection)
    assert (to_make.key, to_make.code) == (f"{record.case.key}:rejection", "113038")
    assert (list(to_make.instances), to_make.destinations) == (sorted(uids), ("pacs", "ward"))
    events = [row[0] for row in world.cases.rows("SELECT event FROM audit ORDER BY id")]
    assert events[-5:].count("case withdrawn") == events.count("instances rejected") == 1
    (said,) = world.life()["rejected"]
    assert (said["note"], said["reason"]) == (theirs, "Incorrect Modality Worklist Entry (113038), by pacs")


def test_the_same_note_again_does_nothing_more(world: World) -> None:
    image = world.receive("1.9.1")
    world.finish(world.cases.of_study(STUDY)[0])
    world.note(image)
    before = world.cases.rows("SELECT count(*) FROM audit WHERE event != 'decided'")[0][0]
    world.note(image)
    world.consider()
    with world.cases.reading() as connection:
        assert len(due(connection)) == 1
    assert world.cases.rows("SELECT count(*) FROM audit WHERE event != 'decided'")[0][0] == before


@pytest.mark.parametrize("late", ["rerun", "amend", "ignore"])
def test_what_is_left_is_read_again_whatever_late_images_says(late: str, tmp_path: Path) -> None:
    world = made_world(tmp_path, quiet="1h", late=late)
    try:
        image, _ = world.receive("1.9.1"), world.receive("1.9.2")
        for pending in world.cases.pending():
            world.considering._open(pending, "both are here")
        world.note(image)
        assert world.states() == ["withdrawn"]
        (pending,) = world.cases.pending(STUDY)
        assert pending.candidate.instances == ("1.9.2",)
        world.considering._open(pending, "quiet")
        opened = world.cases.of_study(STUDY)[-1]
        assert (opened.case.instances, opened.case.supersedes) == (("1.9.2",), "")
    finally:
        close(world)


def test_a_case_that_waits_for_more_images_never_opens_with_a_rejected_one(tmp_path: Path) -> None:
    world = made_world(tmp_path, quiet="1h")
    try:
        image = world.receive("1.9.1")
        (pending,) = world.cases.pending(STUDY)
        world.note(image)
        assert world.cases.pending(STUDY) == []
        world.considering._open(pending, "the watcher read it just before the rejection")
        assert world.states() == []
    finally:
        close(world)


def test_images_that_are_still_to_be_forwarded_are_not(world: World) -> None:
    image = world.receive("1.9.1", view="LL")
    assert [(o.case_key, o.state) for o in world.outbox.listing()] == [("", "owed")]
    world.note(image)
    world.consider()
    assert [(o.case_key, o.state) for o in world.outbox.listing()] == [("", "cancelled")]


def test_a_note_that_names_nothing_here_or_another_study_does_nothing(world: World) -> None:
    image, other = world.receive("1.9.1"), world.receive("1.9.8", study="1.2.4")
    world.note(homes_image("1.9.7"))
    world.note(image, StudyInstanceUID="1.2.4")
    world.note(image, code="113000")
    assert world.ignored() == ["none of the 1 instances that it names is an image here"]
    assert world.life()["rejected"] == []
    other_life = study_life(world.settings, "1.2.4")
    assert other_life is not None
    assert [n["reason"] for n in other_life["notes_ignored"]] == ["it names instances of another study"]
    assert other.StudyInstanceUID == "1.2.4"
    assert "withdrawn" not in world.states()


def test_a_note_of_another_patient_does_nothing(world: World) -> None:
    image = world.receive("1.9.1")
    world.note(image, PatientID="4712")
    assert world.ignored() == ["it is of another patient than the instances that it names"]
    assert "withdrawn" not in world.states()


def test_a_note_of_a_peer_that_may_not_store_any_more_or_is_unknown_does_nothing(tmp_path: Path) -> None:
    world = made_world(tmp_path, may="query")
    try:
        image = world.receive("1.9.1")
        world.note(image)
        world.note(image, peer="gone")
        assert world.ignored() == [
            "peer pacs may not store, so it may not reject",
            "peer gone may not store, so it may not reject",
        ]
        assert "withdrawn" not in world.states()
    finally:
        close(world)


def test_what_a_vendors_node_sends_is_no_note(world: World) -> None:
    image = world.receive("1.9.1")
    path = world.settings.home / "note.dcm"
    made = note(path, [image])
    into = homes.archive(world.settings)
    try:
        asked = replace(homes.request(str(made.SOPInstanceUID), peer="pacs"), sop_class_uid=KOS, is_answer=True)
        homes.store(into, bytes_of(path), asked)
    finally:
        into.close()
    world.consider()
    assert (world.life()["rejected"], world.ignored()) == ([], [])


def homes_image(uid: str) -> Dataset:
    return pydicom.dcmread(io.BytesIO(homes.data_set(uid, study=STUDY)), force=True)


def bombs(data: bytes) -> dict[str, tuple[bytes, str]]:
    """Notes that no PACS would send, by what is wrong: data set and transfer syntax."""
    nested = b"".join(
        struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
        for _ in range(2000)
    )
    packed = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    long = data + struct.pack("<HH2sHI", 0x0040, 0xDB00, b"OB", 0, 0x1000_0000 + 2)
    return {
        "deep": (data + nested, homes.EXPLICIT),
        "deflated": (packed.compress(data + bytes(50_000_000)) + packed.flush(), DEFLATED),
        "longer than it is": (long, homes.EXPLICIT),
        "large": (
            data + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, LARGEST_NOTE_BYTES) + bytes(LARGEST_NOTE_BYTES),
            homes.EXPLICIT,
        ),
    }


@pytest.mark.parametrize("what", ["deep", "deflated", "longer than it is", "large"])
def test_a_hostile_note_does_nothing_and_the_next_study_is_decided(what: str, world: World) -> None:
    image = world.receive("1.9.1")
    path = world.settings.home / "note.dcm"
    made = note(path, [image])
    data, syntax = bombs(bytes_of(path))[what]
    try:
        world.store(data, str(made.SOPInstanceUID), KOS, "pacs", syntax)
    except Exception as error:  # noqa: BLE001  # the archive may refuse it at the door
        assert type(error).__name__ == "Rejected", error
    assert world.life()["rejected"] == []
    world.receive("1.9.8", study="1.2.4")
    assert [r.state for r in world.cases.of_study("1.2.4")] == ["waiting"]


def test_a_note_about_images_that_retention_removed_still_withdraws_what_came_of_them(world: World) -> None:
    image = world.receive("1.9.1")
    (record,) = world.cases.of_study(STUDY)
    into = homes.archive(world.settings)
    try:  # a report of ours in the archive: what tells the patient once the images are gone
        report = homes.data_set("2.25.77", study=STUDY, Modality="SR")
        writer = into.open(homes.request("2.25.77", peer="PACSNODE"), "result")
        writer.write([report])
        writer.commit()
    finally:
        into.close()
    result = ResultRecord("2.25.77", record.case.key, "sr", homes.CT, "1.3", "x")

    def enter(connection: sqlite3.Connection) -> None:
        owe(connection, record.case.key, STUDY, 10, [Debt("pacs", ("2.25.77",))])

    world.cases.add_results(record.case.key, [result], enter, is_last=True)
    homes.rows(world.settings, "DELETE FROM instances WHERE origin = 'received'")
    homes.rows(world.settings, "DELETE FROM studies")
    world.note(image, PatientID="4712", code="113039")
    assert world.states() == ["done"]
    world.note(image, code="113039")
    assert world.states() == ["withdrawn"]
    with world.cases.reading() as connection:
        assert [one.instances for one in due(connection)] == [("2.25.77",)]


def test_an_operator_rejects_what_is_here_and_what_was_analysed(world: World) -> None:
    world.receive("1.9.1")
    with closing(Index(world.settings.index_db)) as index:
        study = index.study(STUDY)
    records: Sequence[CaseRecord] = world.cases.of_study(STUDY)
    wanted = Rejection(STUDY, ("1.9.1",), "113001", "operator kim")
    assert rejection_by_hand(study, records, "113001", "operator kim") == wanted
    assert rejection_by_hand(None, records, "113001", "operator kim") == wanted
    assert rejection_by_hand(None, [], "113001", "operator kim") is None
    assert len(Rejections(world.cases, withdraw).reject(wanted)) == 1
    assert world.cases.pending(STUDY) == []
    world.consider()
    assert world.cases.rows("SELECT count(*) FROM reconsider")[0][0] == 0
    assert "no images yet" in world.life()["rules"][0]["reason"]


def test_images_of_a_case_that_a_vendors_node_was_asked_for_are_not_sent_to_it_any_more(world: World) -> None:
    image = world.receive("1.9.1")
    (record,) = world.cases.of_study(STUDY)
    asked = AskedCases(world.cases)

    def enter(connection: sqlite3.Connection) -> None:
        owe(connection, record.case.key, STUDY, 10, [Debt("vendor-ai", record.case.instances)])

    asked.ask(record, "vendor-ai", 60, enter)
    world.note(image)
    assert world.states() == ["withdrawn"]
    assert [(o.destination, o.state) for o in world.outbox.listing()] == [("vendor-ai", "cancelled")]
    asked.answered(record.case.key)
    assert (world.states(), asked.rejected(STUDY)) == (["withdrawn"], {"1.9.1"})
    with world.cases.reading() as connection:
        assert due(connection) == []
