"""Again and later: what is sent twice, comes late, is rejected or cannot be analysed, with a real Orthanc as the PACS.

What is counted is what Orthanc and the sender hold before and after.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from harness import Node, Pacs, electrocardiogram, free_port, radiograph, wait_until
from orthanc import ORTHANC, Orthanc
from sending import variant

from pacsnode.life import study_life
from pacsnode.settings import load
from tests.encode.cases import errors_of_dciodvfy
from tests.infer import bundles
from tests.rejection_notes import KOS, named_by, note, title_of

pytestmark = pytest.mark.skipif(not Path(ORTHANC).exists(), reason="needs Debian's orthanc")

RULES = """\
version: 1
unmatched: keep
peers:
  xray-1: {{ae_title: XR1, host: 127.0.0.1, port: {sender}, may: [store], issuer: CLINIC, investigational: true}}
  main-pacs: {{ae_title: PACS, host: 127.0.0.1, port: {pacs}, may: [store], issuer: CLINIC, investigational: true}}
  ward: {{ae_title: WARD, host: 127.0.0.1, port: {down}, issuer: CLINIC, investigational: true}}
defaults: {{results: [sr, seg, sc], send_to: [sender, main-pacs], complete: {{quiet: 1s}}}}
rules:
  - {{name: film, when: {{Modality: CR}}, run: threshold, on_failure: tell}}
  - {{name: ward film, when: {{Modality: CR, StudyID: ward}}, run: threshold, send_to: ward}}
  - {{name: ecg, when: {{Modality: ECG}}, run: says, results: [sr, sc], on_failure: tell}}
"""


@dataclass
class World:
    """A node, a PACS that may reject, a sender that takes results."""

    node: Node
    pacs: Orthanc
    sender: Pacs
    folder: Path
    refusing: Path

    def film(self, name: str, **changes: Any) -> pydicom.Dataset:
        """A radiograph, sent; in a study of its own unless told otherwise."""
        sent = variant(radiograph(), self.folder / f"{name}.dcm", f"withdrawal {name}", **changes)
        self.node.send([self.folder / f"{name}.dcm"])
        return sent

    def reject(self, *about: pydicom.Dataset, code: str = "113001", **changes: Any) -> pydicom.Dataset:
        """A rejection note, sent by the PACS."""
        path = self.folder / "note.dcm"
        made = note(path, about, code, **changes)
        self.node.send([path], calling="PACS")
        return made

    def life(self, study: str) -> dict[str, Any]:
        """What `studies show --json` says, without a process for each look."""
        return study_life(load(home=self.node.home), study) or {"cases": []}

    def ended(self, study: str, *states: str) -> list[dict[str, Any]]:
        """The cases of a study, once they are in these states and nothing is owed or to be told."""

        def there() -> bool:
            cases = self.life(study)["cases"]
            waits = [d for case in cases for d in case["deliveries"] if d["state"] == "owed"]
            due = [n for case in cases for n in case["notes"] if n["state"] == "due"]
            return [case["state"] for case in cases] == list(states) and not waits and not due

        try:
            wait_until(there, 90, 0.1)
        except TimeoutError:
            pytest.fail(f"{json.dumps(self.life(study), indent=1)}\n{self.node.log()[-4000:]}")
        cases: list[dict[str, Any]] = self.life(study)["cases"]
        return cases

    def held(self, study: str, count: int) -> list[pydicom.Dataset]:
        """What the PACS holds, once it is so much; the sender holds the same."""
        wait_until(lambda: self.pacs.count(study) >= count, 30, 0.1)
        at_pacs = self.pacs.objects(study)
        at_sender = [str(o.SOPInstanceUID) for o in self.sender.objects() if o.StudyInstanceUID == study]
        assert sorted(str(o.SOPInstanceUID) for o in at_pacs) == sorted(at_sender)
        assert len(at_pacs) == count
        return at_pacs

    def delivered(self, study: str) -> None:
        """Wait until every delivery of it has its outcome: what was taken is entered for several together."""

        def are_all() -> bool:
            told = json.dumps(self.life(study), default=str)
            return not any(f'"state": "{state}"' in told for state in ("owed", "sending"))

        wait_until(are_all, 60, 0.3)

    def settled(self, study: str) -> None:
        """Whatever came of the study last was decided: so is an image that came after it."""
        before = self.life(study)["received"]
        other = str(self.film(f"other {os.urandom(4).hex()}").StudyInstanceUID)
        wait_until(lambda: bool(self.life(other).get("rules")), 30, 0.1)
        assert self.life(study)["received"] == before


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("withdrawal")
    models, refusing = folder / "models", folder / "refusing"
    said = repr({"values": {"heart_rate": 61.0}, "findings": {}})
    refuse = f"if __import__('os').path.exists({str(refusing)!r}): raise ValueError('lead V2 is off')"
    bundles.with_card(bundles.network_bundle(models))
    bundles.with_card(bundles.workflow_bundle(models, said, refuse, accepts={"Modality": "ECG"}))
    port = free_port()
    with (
        Orthanc(folder / "orthanc", port) as pacs,
        Pacs(folder / "sender", ae_title="XR1") as sender,
    ):
        rules = folder / "rules.yaml"
        rules.write_text(RULES.format(sender=sender.port, pacs=pacs.port, down=free_port()))
        with Node(folder / "home", rules, models, port=port) as node:
            wait_until(lambda: '"working"' in node.log())
            yield World(node, pacs, sender, folder, refusing)


def of_kind(objects: list[pydicom.Dataset], modality: str) -> list[pydicom.Dataset]:
    return [o for o in objects if o.get("Modality") == modality]


def clean(world: World, *objects: pydicom.Dataset) -> bool:
    """Whether the IOD validator finds no error in any."""
    for one in objects:
        path = world.folder / "checked.dcm"
        one.save_as(path)
        assert errors_of_dciodvfy(path) == []
    return True


def uids(objects: list[pydicom.Dataset]) -> list[str]:
    return sorted(str(o.SOPInstanceUID) for o in objects)


def test_a_study_that_is_sent_again_changes_nothing_at_the_pacs(world: World) -> None:
    study = str(world.film("again").StudyInstanceUID)
    before, in_all = world.held(study, 3), world.pacs.count()
    world.delivered(study)
    (case,) = world.ended(study, "done")
    sender_before = len(world.sender.objects())
    world.film("again")
    (after,) = world.ended(study, "done")
    assert after == case
    assert (world.pacs.count(), len(world.sender.objects())) == (in_all, sender_before)
    assert uids(world.held(study, 3)) == uids(before)


def test_one_more_image_gives_a_report_that_names_its_predecessor_and_show_says_which_counts(world: World) -> None:
    first = world.film("more 1")
    study = str(first.StudyInstanceUID)
    world.ended(study, "done")
    (old,) = of_kind(world.held(study, 3), "SR")
    world.film("more 2", StudyInstanceUID=study)
    one, two = world.ended(study, "done", "done")
    held = world.held(study, 3 + 5)
    (new,) = [o for o in of_kind(held, "SR") if o.SOPInstanceUID != old.SOPInstanceUID]
    named = new.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert (one["standing"], one["superseded_by"], two["standing"]) == ("superseded", two["key"], "current")
    assert {r["standing"]["is"] for r in one["results"]} == {"superseded"}
    assert {r["standing"]["is"] for r in two["results"]} == {"current"}
    told = world.node.run("studies", "show", study).stdout
    assert f"SR  {old.SOPInstanceUID}  superseded " in told
    assert f"by case {two['key'][:12]}" in told
    assert f"SR  {new.SOPInstanceUID}  current since " in told


@pytest.mark.parametrize("code", ["113001", "113037", "113038", "113039"])
def test_a_rejection_note_of_the_pacs_withdraws_our_results_by_a_note_of_the_same_title(
    world: World, code: str
) -> None:
    sent = world.film(f"reject {code}")
    study = str(sent.StudyInstanceUID)
    world.ended(study, "done")
    results = world.held(study, 3)
    theirs = world.reject(sent, code=code)
    (case,) = world.ended(study, "withdrawn")
    held = world.held(study, 4)
    (ours,) = [o for o in held if o.SOPClassUID == KOS]
    assert title_of(ours) == code
    assert named_by(ours) == uids(results)
    assert ours.SeriesInstanceUID not in {o.SeriesInstanceUID for o in results}
    assert (ours.PatientID, ours.PatientName, ours.SpecificCharacterSet) == (
        sent.PatientID,
        sent.PatientName,
        "ISO_IR 192",
    )
    assert clean(world, ours)
    assert case["standing"] == "withdrawn"
    assert {r["standing"]["is"] for r in case["results"]} == {"withdrawn"}
    (rejected,) = world.life(study)["rejected"]
    assert (rejected["code"], rejected["author"], rejected["instances"]) == (code, "main-pacs", 1)
    assert rejected["note"] == theirs.SOPInstanceUID
    told = world.node.run("studies", "show", study).stdout
    assert f"({code}), by main-pacs" in told
    assert "REJECTED " in told
    assert "WITHDRAWN " in told


def test_our_own_objects_and_notes_that_come_back_make_no_work(world: World) -> None:
    sent = world.film("loop")
    study = str(sent.StudyInstanceUID)
    world.ended(study, "done")
    world.reject(sent)
    world.ended(study, "withdrawn")
    world.held(study, 4)
    world.delivered(study)
    before = world.life(study)
    world.pacs.send_to_node(study)
    world.settled(study)
    assert world.life(study) == before
    world.held(study, 4)


def test_what_is_left_of_a_study_is_read_again_without_the_rejected_image(world: World) -> None:
    one = world.film("left 1")
    study = str(one.StudyInstanceUID)
    other = world.film("left 2", StudyInstanceUID=study)
    world.ended(study, "done")
    world.held(study, 5)
    world.reject(one, code="113037")
    cases = world.ended(study, "withdrawn", "done")
    assert list(cases[1]["instances"]) == [other.SOPInstanceUID]
    assert (cases[1]["supersedes"], cases[1]["standing"]) == ("", "current")
    held = world.held(study, 5 + 1 + 3)
    assert len([o for o in held if o.SOPClassUID == KOS]) == 1


def test_an_image_that_is_rejected_before_its_case_starts_starts_none(world: World) -> None:
    sent = variant(radiograph(), world.folder / "early.dcm", "withdrawal early")
    study = str(sent.StudyInstanceUID)
    note(world.folder / "early note.dcm", [sent])
    world.node.send([world.folder / "early.dcm"])
    world.node.send([world.folder / "early note.dcm"], calling="PACS")
    wait_until(lambda: bool(world.life(study).get("rejected")), 30, 0.05)
    world.settled(study)
    assert (world.life(study)["cases"], world.life(study)["waiting"]) == ([], [])
    assert world.pacs.count(study) == 0


def test_results_that_are_owed_and_not_sent_are_cancelled(world: World) -> None:
    sent = world.film("ward", StudyID="ward")
    study = str(sent.StudyInstanceUID)
    wait_until(lambda: [c["state"] for c in world.life(study)["cases"]] == ["done"], 60, 0.1)
    world.reject(sent)
    wait_until(lambda: [c["state"] for c in world.life(study)["cases"]] == ["withdrawn"], 60, 0.1)
    world.held(study, 4)
    (case,) = world.life(study)["cases"]
    results = {r["sop_instance_uid"] for r in case["results"]}
    to_ward = [d for d in case["deliveries"] if d["destination"] == "ward"]
    assert {d["state"] for d in to_ward if d["sop_instance_uid"] in results} == {"cancelled"}
    assert all("withdrawn: " in d["reason"] for d in to_ward if d["state"] == "cancelled")
    assert [d["state"] for d in to_ward if d["sop_instance_uid"] not in results] == ["owed"]  # the note follows
    world.node.run("deliveries", "retry", "all")
    again = [d for d in world.life(study)["cases"][0]["deliveries"] if d["destination"] == "ward"]
    assert {d["state"] for d in again if d["sop_instance_uid"] in results} == {"cancelled"}


def test_a_note_about_what_is_not_here_or_of_another_study_is_kept_and_does_nothing(world: World) -> None:
    sent = world.film("foreign")
    study = str(sent.StudyInstanceUID)
    world.ended(study, "done")
    other = variant(radiograph(), world.folder / "unknown.dcm", "withdrawal unknown")
    world.reject(variant(radiograph(), world.folder / "unknown.dcm", "withdrawal unknown", StudyInstanceUID=study))
    evidence = note(world.folder / "x.dcm", [other]).CurrentRequestedProcedureEvidenceSequence
    world.reject(sent, CurrentRequestedProcedureEvidenceSequence=evidence)
    world.reject(sent, code="113000")  # of interest
    wait_until(lambda: len(world.life(study)["notes_ignored"]) == 2, 30, 0.1)
    world.settled(study)
    life = world.life(study)
    assert sorted(n["reason"] for n in life["notes_ignored"]) == [
        "it names instances of another study",
        "none of the 1 instances that it names is an image here",
    ]
    assert (life["rejected"], [c["state"] for c in life["cases"]]) == ([], ["done"])
    assert life["received"]["instances"] == 4
    assert "of main-pacs does nothing" in world.node.run("studies", "show", study).stdout
    world.held(study, 3)


def test_an_operator_rejects_a_study_while_nothing_runs_and_the_note_follows_at_the_next_start(world: World) -> None:
    sent = world.film("by hand")
    study = str(sent.StudyInstanceUID)
    world.ended(study, "done")
    world.held(study, 3)
    world.node.stop()
    refused = world.node.run("studies", "reject", study, "--reason", "whim", check=False)
    assert (refused.returncode, "quality, safety, worklist, retention" in refused.stderr) == (2, True)
    told = world.node.run("studies", "reject", study, "--reason", "worklist").stdout
    assert told.strip() == "1 images count no more, 1 cases are withdrawn"
    assert world.node.run("studies", "reject", study, "--reason", "worklist").stdout.endswith("0 cases are withdrawn\n")
    world.node.start()
    world.ended(study, "withdrawn")
    (ours,) = [o for o in world.held(study, 4) if o.SOPClassUID == KOS]
    assert title_of(ours) == "113038"


def test_a_note_survives_a_kill_between_the_rejection_and_its_sending(world: World) -> None:
    sent = world.film("killed")
    study = str(sent.StudyInstanceUID)
    world.ended(study, "done")
    world.held(study, 3)
    world.reject(sent)
    wait_until(lambda: bool(world.life(study)["rejected"]), 30, 0.01)
    world.node.kill()
    world.node.start()
    world.ended(study, "withdrawn")
    assert len([o for o in world.held(study, 4) if o.SOPClassUID == KOS]) == 1


def test_a_failure_is_told_once_and_superseded_and_withdrawn_once_there_is_a_result(world: World) -> None:
    world.refusing.touch()
    sent = variant(electrocardiogram(), world.folder / "ecg.dcm", "withdrawal ecg")
    study = str(sent.StudyInstanceUID)
    world.node.send([world.folder / "ecg.dcm"])
    (case,) = world.ended(study, "parked")
    told = world.held(study, 2)
    (report,) = of_kind(told, "SR")
    assert "Not analysed: " in str(report)
    assert "lead V2 is off" in str(report)
    assert report.SeriesDescription == "AI says - NOT ANALYSED"
    assert (report.PatientID, report.VerificationFlag) == (sent.PatientID, "UNVERIFIED")
    assert clean(world, *told)
    world.node.run("jobs", "retry", case["key"])
    wait_until(lambda: world.life(study)["cases"][0]["attempt"] == 2, 20, 0.1)
    world.ended(study, "parked")
    world.held(study, 2)  # the same reason is not told twice
    world.refusing.unlink()
    world.node.run("jobs", "retry", case["key"])
    (done,) = world.ended(study, "done")
    held = world.held(study, 2 + 2 + 1)
    (real,) = [o for o in of_kind(held, "SR") if o.SOPInstanceUID != report.SOPInstanceUID]
    named = real.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == report.SOPInstanceUID
    (ours,) = [o for o in held if o.SOPClassUID == KOS]
    assert (title_of(ours), named_by(ours)) == ("113001", uids(told))
    assert clean(world, ours, real)
    assert {r["standing"]["is"] for r in done["results"]} == {"current"}
    failures = [o for n in done["notes"] if n["kind"] == "failure" for o in n["objects"]]
    assert {o["standing"]["is"] for o in failures} == {"withdrawn"}


def test_unsuitable_images_are_told_and_the_note_withdraws_that_too_when_they_are_rejected(world: World) -> None:
    sent = world.film("no pixels", PixelData=None)
    study = str(sent.StudyInstanceUID)
    world.ended(study, "parked")
    told = world.held(study, 2)
    assert "Not analysed: the object holds no pixel data" in str(of_kind(told, "SR")[0])
    shown = world.node.run("studies", "show", study).stdout
    assert "not analysed " in shown
    world.reject(sent)
    world.ended(study, "withdrawn")
    (ours,) = [o for o in world.held(study, 3) if o.SOPClassUID == KOS]
    assert named_by(ours) == uids(told)
