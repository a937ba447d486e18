"""Which form is tried next, and what is remembered of a destination."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from pacsnode import schema
from pacsnode.deliver import ladder
from pacsnode.deliver.ladder import Fact, Rung, is_refused, next_rung
from pacsnode.deliver.learned import Learned
from pacsnode.handover import RESULT_KINDS, Form, ResultKind
from pacsnode.peers import Peer
from pacsnode.settings import load

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
CT = "1.2.840.10008.5.1.4.1.1.2"


def no(sop_class: str, at: int = 1, syntax: str = EXPLICIT) -> Fact:
    return Fact(sop_class, syntax, "not supported", at)


def yes(sop_class: str, at: int = 1, syntax: str = EXPLICIT) -> Fact:
    return Fact(sop_class, syntax, "", at)


def test_a_report_goes_down_the_ladder_to_the_pdf_and_no_further() -> None:
    facts: list[Fact] = []
    owed = ladder.COMPREHENSIVE_3D_SR
    walked: list[Rung] = []
    while True:
        facts.append(no(owed))
        rung = next_rung(ladder.COMPREHENSIVE_3D_SR, facts, RESULT_KINDS)
        if rung is None:
            break
        walked.append(rung)
        owed = rung.sop_class_uid
    assert [(rung.kind, rung.form.sr) for rung in walked] == [
        ("sr", "comprehensive"),
        ("sr", "enhanced"),
        ("sc", "comprehensive-3d"),
        ("pdf", "comprehensive-3d"),
    ]


@pytest.mark.parametrize(
    ("owed", "facts", "kinds", "expected"),
    [
        (ladder.COMPREHENSIVE_3D_SR, [no(ladder.COMPREHENSIVE_SR)], ("sr",), "enhanced"),
        (ladder.COMPREHENSIVE_SR, [], ("sr",), "enhanced"),
        (ladder.ENHANCED_SR, [], ("sr",), None),
        (ladder.COMPREHENSIVE_3D_SR, [yes(ladder.COMPREHENSIVE_SR)], ("sr",), "comprehensive"),
    ],
)
def test_what_is_known_to_be_refused_and_what_it_may_not_have_is_left_out(
    owed: str, facts: list[Fact], kinds: tuple[ResultKind, ...], expected: str | None
) -> None:
    rung = next_rung(owed, facts, kinds)
    assert (rung.form.sr if rung else None) == expected


def test_a_label_map_becomes_a_plain_segmentation_and_then_a_picture() -> None:
    first = next_rung(ladder.LABEL_MAP_SEGMENTATION, [], RESULT_KINDS)
    assert first == Rung("seg", ladder.SEGMENTATION, Form())
    assert next_rung(ladder.SEGMENTATION, [], RESULT_KINDS) == Rung("sc", ladder.SECONDARY_CAPTURE)
    assert next_rung(ladder.SEGMENTATION, [], ("seg", "sr")) is None


@pytest.mark.parametrize("owed", [CT, ladder.SECONDARY_CAPTURE, ladder.ENCAPSULATED_PDF, "1.2.3", ""])
def test_an_image_a_picture_or_a_pdf_has_no_other_form(owed: str) -> None:
    assert next_rung(owed, [], RESULT_KINDS) is None


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ([], None),
        ([no(CT)], True),
        ([no(CT), yes(CT, syntax=IMPLICIT)], False),
        ([yes(CT, 1), no(CT, 2, "")], True),
        ([yes(CT, 3), no(CT, 2, "")], False),
        ([yes("1.2.3")], None),
    ],
)
def test_a_class_is_refused_when_nothing_of_it_is_taken(facts: list[Fact], expected: bool | None) -> None:
    assert is_refused(CT, facts) is expected


def test_what_is_learned_outlives_the_process_and_the_newest_answer_holds(tmp_path: Path) -> None:
    settings = load(home=tmp_path / "home")
    schema.migrate(settings)
    peer = Peer(name="pacs", ae_title="PACS", host="192.0.2.5", port=104)
    with closing(Learned(settings.node_db)) as learned:
        learned.learn(peer, {(CT, EXPLICIT): "not supported", (CT, IMPLICIT): ""})
        learned.learn(peer, {(CT, EXPLICIT): ""})
    with closing(Learned(settings.node_db)) as learned:
        assert [(f.transfer_syntax_uid, f.reason) for f in learned.of(peer)] == [(IMPLICIT, ""), (EXPLICIT, "")]
        moved = peer.model_copy(update={"host": "192.0.2.6"})
        assert learned.of(moved) == []
        learned.learn(moved, {(CT, EXPLICIT): "no"})
        assert len(learned.of(moved)) == 1
        assert learned.of(peer) == []


def test_a_peer_that_answers_at_random_fills_no_disk(tmp_path: Path) -> None:
    settings = load(home=tmp_path / "home")
    schema.migrate(settings)
    peer = Peer(name="pacs", ae_title="PACS", host="192.0.2.5", port=104)
    with closing(Learned(settings.node_db)) as learned:
        for batch in range(5):
            learned.learn(peer, {(f"1.2.{batch}.{n}", EXPLICIT): "" for n in range(600)})
        assert len(learned.of(peer)) == 2000
