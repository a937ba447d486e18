"""Against a PACS that misbehaves: every instance ends confirmed, or parked or refused with the true reason."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacsnode.deliver.proving import COMMITMENT_AGAIN_S
from tests.deliver.nodes import Node, made_node, wait_until
from tests.deliver.scripted import ScriptedPacs
from tests.receive.commitments import Site

UIDS = tuple(f"1.2.3.{number}" for number in range(1, 6))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with made_node(tmp_path) as made:
        yield made


def test_a_peer_that_refuses_the_association_gets_it_when_it_knows_us(node: Node) -> None:
    pacs = ScriptedPacs(ae_title="OTHER")
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", *UIDS)
        node.start()
        assert "it is not called ARCHIVE" in node.fails("pacs")
        assert {(one.state, one.attempts) for one in node.rows("pacs")} == {("owed", 0)}
    pacs.ae_title = "ARCHIVE"
    with pacs.running():
        node.skips_to_next_try("pacs")
        node.all_are("pacs", "sent")
    assert pacs.taken == list(UIDS)
    assert pacs.echoes == 1
    assert node.destinations.trouble("pacs") is None


def test_an_abort_midway_costs_the_one_on_the_line_an_attempt_and_no_other(node: Node) -> None:
    pacs = ScriptedPacs(aborts_at={3})
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", *UIDS)
        node.start()
        wait_until(lambda: len(pacs.taken) == 4)
        node.pass_time(10)
        rows = node.all_are("pacs", "sent")
    assert [one.attempts for one in rows] == [1, 1, 2, 1, 1]
    assert Counter(pacs.taken) == Counter(UIDS)
    assert pacs.taken[-1] == UIDS[2], "what the peer did not take let the others pass"


def test_an_object_at_which_a_peer_aborts_keeps_no_other_back(node: Node) -> None:
    """The first of the queue, too: after each failure the circuit lets one other through."""
    pacs = ScriptedPacs(aborts_at={1, 6, 7, 8})
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", *UIDS)
        node.start()
        assert node.fails("pacs")
        node.skips_to_next_try("pacs")
        wait_until(lambda: len(pacs.taken) == 4)

        def is_over() -> bool:
            node.pass_time(60)
            return set(node.states("pacs")) == {"sent"}

        wait_until(is_over)
    assert Counter(pacs.taken) == Counter(UIDS)


def test_a_peer_without_room_gets_it_when_it_has_some(node: Node) -> None:
    pacs = ScriptedPacs(statuses=[0xA700] * 5)
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", *UIDS)
        node.start()
        assert "out of resources" in node.fails("pacs")
        assert [one.attempts for one in node.rows("pacs")] == [1] * 5
        node.pass_time(60)
        node.all_are("pacs", "sent")
    assert sorted(pacs.taken) == sorted(UIDS)


def test_a_warning_is_taken_and_told(node: Node) -> None:
    pacs = ScriptedPacs(statuses=[0xB000], finds=True)
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", UIDS[0])
        node.start()
        node.all_are("pacs", "sent", "confirmed")
        node.pass_time(5)
        (row,) = node.all_are("pacs", "confirmed")
    assert (row.status, row.reason, row.proof) == (0xB000, "taken with warning 0xB000", "query")


def test_a_refusal_says_its_status_and_is_final_until_somebody_retries(node: Node) -> None:
    pacs = ScriptedPacs(statuses=[0xC123, 0x0000])
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", *UIDS[:2])
        node.start()
        first, second = node.all_are("pacs", "refused", "sent")
        assert (first.state, first.status, second.state) == ("refused", 0xC123, "sent")
        assert "0xC123" in first.reason
        node.outbox.retry([first.id])
        node.wake()
        node.all_are("pacs", "sent")
    assert pacs.taken == [UIDS[1], UIDS[0]]


@pytest.mark.parametrize("wanted", [1, 3])
def test_a_peer_of_one_association_is_never_asked_for_two_or_gets_all_the_same(node: Node, wanted: int) -> None:
    pacs = ScriptedPacs(at_once=1, commits=True, finds=True)
    with pacs.running():
        node.peer("pacs", pacs.port, sends={"at_once": wanted})
        for number in range(8):
            node.owe("pacs", *(f"1.2.{number}.{n}" for n in range(10)), study=f"1.2.{number}")
        node.start()

        def is_over() -> bool:
            node.pass_time(3)
            return set(node.states("pacs")) == {"confirmed"}

        wait_until(is_over)
    assert len(pacs.taken) == len(set(pacs.taken)) == 80
    assert pacs.most_open == 1 or wanted > 1


def test_one_that_hangs_keeps_only_its_own(node: Node) -> None:
    pacs = ScriptedPacs()
    with socket.create_server(("127.0.0.1", 0)) as deaf, pacs.running():
        node.peer("deaf", deaf.getsockname()[1])
        node.peer("pacs", pacs.port)
        node.owe("deaf", *UIDS)
        node.start()
        connection, _ = deaf.accept()
        wait_until(lambda: node.states("deaf") == ["sending"] * 5)
        node.owe("pacs", *UIDS)
        node.all_are("pacs", "sent")
        assert node.states("deaf") == ["sending"] * 5
        connection.close()
        node.fails("deaf")
        assert {(one.state, one.attempts) for one in node.rows("deaf")} == {("owed", 0)}


def test_a_peer_that_is_down_for_an_hour_costs_few_tries_and_gets_everything(node: Node) -> None:
    pacs = ScriptedPacs()
    with pacs.running():
        node.peer("pacs", pacs.port)
    node.owe("pacs", *(f"1.2.3.{number}" for number in range(200)))
    node.start()
    began = node.clock()
    while node.clock() - began < 3600e6:
        node.fails("pacs")
        node.skips_to_next_try("pacs")
    node.fails("pacs")
    trouble = node.destinations.trouble("pacs")
    assert trouble is not None
    assert trouble.failures < 25
    assert trouble.retry_utc_us - node.clock() <= 600e6
    assert {(one.state, one.attempts) for one in node.rows("pacs")} == {("owed", 0)}
    with pacs.running():
        node.skips_to_next_try("pacs")
        node.all_are("pacs", "sent")
    assert pacs.taken == [f"1.2.3.{number}" for number in range(200)], "in their order, each once"
    assert pacs.echoes == 1


def test_a_circuit_that_is_open_is_so_after_a_restart(node: Node) -> None:
    pacs = ScriptedPacs()
    with pacs.running():
        node.peer("pacs", pacs.port)
    node.owe("pacs", *UIDS)
    node.start()
    node.fails("pacs")
    node.stop()
    with pacs.running():
        node.start()
        node.wake()
        assert node.destinations.trouble("pacs") is not None
        assert pacs.associations == 0
        node.skips_to_next_try("pacs")
        node.all_are("pacs", "sent")


def test_what_was_not_taken_for_two_weeks_is_parked_with_the_reason(node: Node) -> None:
    pacs = ScriptedPacs()
    with pacs.running():
        node.peer("pacs", pacs.port)
    node.owe("pacs", *UIDS)
    node.start()
    node.fails("pacs")
    node.clock.advance(15 * 86_400)
    node.skips_to_next_try("pacs")
    for one in node.all_are("pacs", "parked"):
        assert one.reason.startswith("given up, not taken within 14 days: no connection to 127.0.0.1")
        assert one.attempts == 0


# --- proof


@pytest.mark.parametrize("how", ["same", "early"])
def test_commitment_confirms_what_a_peer_took(node: Node, how: str) -> None:
    pacs = ScriptedPacs(commits=True, how=how)  # type: ignore[arg-type]
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", *UIDS)
        node.start()
        node.all_are("pacs", "sent", "confirmed")
        node.pass_time(3)
        rows = node.all_are("pacs", "confirmed")
    assert {one.proof for one in rows} == {"commitment"}
    assert all(one.proven_utc_us for one in rows)
    learned = node.destinations.learned("pacs")
    assert learned is not None
    assert learned.by == "commitment"


def test_an_answer_that_comes_on_the_peers_own_association_confirms_too(node: Node) -> None:
    pacs = ScriptedPacs(commits=True, how="later")
    site = Site(node.settings)
    with site.running(may=frozenset()), pacs.running():
        pacs.calls = "127.0.0.1", site.port, "PACSNODE"
        node.peer("archive", pacs.port)  # as that site calls an AE ARCHIVE
        node.owe("archive", *UIDS)
        node.start()
        node.all_are("archive", "sent")
        node.pass_time(3)
        wait_until(lambda: pacs.told)
        node.wake()
        node.all_are("archive", "confirmed")


def test_what_a_peer_took_and_lost_is_sent_again_under_the_same_uid(node: Node) -> None:
    pacs = ScriptedPacs(commits=True, loses=Counter({UIDS[1]: 1}))
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", *UIDS)
        node.start()
        wait_until(lambda: node.states("pacs").count("sent") + node.states("pacs").count("confirmed") == 5)
        node.pass_time(3)
        wait_until(lambda: node.states("pacs").count("confirmed") == 4)
        wait_until(lambda: node.rows("pacs")[1].lost == 1)
        assert "says that it does not have it (0x0112)" in node.rows("pacs")[1].reason
        node.pass_time(20)
        wait_until(lambda: "owed" not in node.states("pacs"))
        node.pass_time(3)
        node.all_are("pacs", "confirmed")
    assert Counter(pacs.taken) == Counter([*UIDS, UIDS[1]])
    assert pacs.has == set(UIDS)


def test_a_peer_that_loses_it_every_time_is_for_a_person(node: Node) -> None:
    pacs = ScriptedPacs(commits=True, loses=Counter({UIDS[0]: 99}))
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", UIDS[0])
        node.start()

        def is_parked() -> bool:
            node.pass_time(30)
            return node.states("pacs") == ["parked"]

        wait_until(is_parked)
    assert node.row("pacs").reason == "pacs says that it does not have it (0x0112); it took it 3 times"
    assert pacs.taken == [UIDS[0]] * 3


def test_a_peer_without_commitment_is_asked_by_query(node: Node) -> None:
    pacs = ScriptedPacs(finds=True)
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", *UIDS)
        node.start()
        node.all_are("pacs", "sent", "confirmed")
        node.pass_time(3)
        assert {one.proof for one in node.all_are("pacs", "confirmed")} == {"query"}
    learned = node.destinations.learned("pacs")
    assert learned is not None
    assert learned.by == "query"
    assert "does not accept Storage Commitment" in learned.reason


def test_what_a_query_does_not_find_for_long_is_sent_again(node: Node) -> None:
    pacs = ScriptedPacs(finds=True, loses=Counter({UIDS[0]: 1}))
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", UIDS[0])
        node.start()
        node.all_are("pacs", "sent")

        def is_confirmed() -> bool:
            node.pass_time(300)
            return node.states("pacs") == ["confirmed"]

        wait_until(is_confirmed)
    assert pacs.taken == [UIDS[0]] * 2


def test_of_a_peer_that_proves_nothing_it_stays_sent_and_says_so(node: Node) -> None:
    pacs = ScriptedPacs()
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.peer("other", pacs.port, proof="none")
        node.owe("pacs", UIDS[0])
        node.owe("other", UIDS[0])
        node.start()
        node.all_are("pacs", "sent")
        node.all_are("other", "sent")
        node.pass_time(3)
        wait_until(lambda: node.row("pacs").proof and node.row("other").proof)
    assert "does not accept Storage Commitment" in node.row("pacs").proof
    assert "answers no queries" in node.row("pacs").proof
    assert node.row("other").proof == "its entry says proof: none"
    assert node.outbox.unproven_destinations() == []


@pytest.mark.parametrize("finds", [True, False])
def test_a_peer_that_drops_the_commitment_is_asked_in_another_way(node: Node, finds: bool) -> None:
    pacs = ScriptedPacs(commits=True, finds=finds, how="silent")
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", UIDS[0])
        node.start()
        node.all_are("pacs", "sent")

        def is_over() -> bool:
            node.pass_time(3600)
            return node.outbox.unproven_destinations() == []

        wait_until(is_over)
    (row,) = node.rows("pacs")
    assert row.state == ("confirmed" if finds else "sent")
    assert row.proof == "query" if finds else "pacs does not answer storage commitment" in row.proof
    assert len(pacs.asked) == len(COMMITMENT_AGAIN_S)
    assert pacs.taken == [UIDS[0]]
