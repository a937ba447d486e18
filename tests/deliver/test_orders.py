"""What an operator orders, and what a destination's entry says of hours, associations and bytes a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pacsnode.deliver import overview
from pacsnode.deliver.orders import Selection
from pacsnode.deliver.outbox import ANY_PRIORITY
from pacsnode.deliver.pace import opens_in_s, priority_now
from tests.deliver.nodes import Node, made_node, wait_until, write_object
from tests.deliver.scripted import ScriptedPacs

SEOUL = ZoneInfo("Asia/Seoul")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with made_node(tmp_path) as made:
        yield made


def held(node: Node) -> dict[str, bool]:
    return {one.sop_instance_uid: one.held for one in node.outbox.listing()}


@pytest.mark.parametrize(
    ("kind", "subject", "concerned"),
    [
        ("destination", "pacs", {"1.1", "1.2", "1.9"}),
        ("study", "1.2.3", {"1.1", "1.2", "1.9"}),
        ("case", "case-a", {"1.1", "1.9"}),
        ("rule", "chest", {"1.1", "1.9"}),
    ],
)
def test_a_hold_keeps_what_is_owed_and_what_is_owed_later(
    node: Node, kind: str, subject: str, concerned: set[str]
) -> None:
    node.owe("pacs", "1.1", case="case-a", rule="chest")
    node.owe("pacs", "1.2", case="case-b", rule="ecg")
    node.owe("ward", "1.3", study="1.2.4", case="case-c", rule="ecg")
    assert node.orders.hold(kind, subject, "the PACS is moved") == len(concerned) - 1  # type: ignore[arg-type]
    node.owe("pacs", "1.9", case="case-a", rule="chest")
    assert {uid for uid, is_held in held(node).items() if is_held} == concerned
    assert {one.sop_instance_uid for one in node.outbox.claim("pacs")} == {"1.1", "1.2", "1.9"} - concerned
    assert [(hold.kind, hold.subject, hold.author) for hold in node.orders.holds()] == [(kind, subject, "operator")]
    assert node.orders.release(kind, subject)  # type: ignore[arg-type]
    assert not any(held(node).values())
    assert not node.orders.release(kind, subject)  # type: ignore[arg-type]


def test_two_holds_on_one_row_are_released_one_by_one(node: Node) -> None:
    node.owe("pacs", "1.1")
    node.orders.hold("destination", "pacs", "")
    node.orders.hold("study", "1.2.3", "")
    node.orders.release("destination", "pacs")
    assert held(node) == {"1.1": True}
    node.orders.release("study", "1.2.3")
    assert held(node) == {"1.1": False}


def test_a_held_destination_gets_nothing_until_it_is_released(node: Node) -> None:
    pacs = ScriptedPacs()
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.orders.hold("destination", "pacs", "")
        node.owe("pacs", "1.1", "1.2")
        node.start()
        node.pass_time(86_400)
        assert node.outbox.destinations() == []
        assert pacs.associations == 0
        node.orders.release("destination", "pacs")
        node.wake()
        node.all_are("pacs", "sent")


def test_a_hold_ends_a_batch_that_is_under_way(node: Node) -> None:
    pacs = ScriptedPacs()
    pacs.gate.clear()
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", *(f"1.{number}" for number in range(40)))
        node.start()
        wait_until(lambda: "sending" in node.states("pacs"))
        node.orders.hold("destination", "pacs", "")
        time.sleep(1.1)  # a batch looks once a second
        pacs.gate.set()
        rows = node.all_are("pacs", "sent", "owed")
        assert 1 <= len(pacs.taken) < 40
        assert {(one.held, one.attempts) for one in rows if one.state == "owed"} == {(True, 0)}


def test_days_until_it_is_given_up_do_not_count_while_it_is_held(node: Node) -> None:
    node.owe("pacs", "1.1")
    node.orders.hold("destination", "pacs", "")
    node.clock.advance(20 * 86_400)
    assert node.outbox.give_up("pacs", "it is down") == 0
    node.orders.release("destination", "pacs")
    assert node.outbox.give_up("pacs", "it is down") == 0
    assert node.states("pacs") == ["owed"]


def test_retry_concerns_what_ended_badly_and_a_number_brings_back_what_was_cancelled(node: Node) -> None:
    node.owe("pacs", *(f"1.{number}" for number in range(5)))
    sent, parked, refused, _, cancelled = node.outbox.claim("pacs")
    node.outbox.sent(sent, 0)
    node.outbox.park(parked, "no file")
    node.outbox.park(refused, "no", 0xA900)
    node.outbox.conclude([cancelled])
    node.orders.cancel(Selection(ids=(cancelled.id,)), "the wrong patient")
    assert node.states("pacs") == ["sent", "parked", "refused", "sending", "cancelled"]
    assert node.rows("pacs")[4].reason == "cancelled by operator: the wrong patient"
    assert node.orders.retry(Selection(destination="pacs")) == 2
    assert node.states("pacs") == ["sent", "owed", "owed", "sending", "cancelled"]
    assert node.orders.retry(Selection(ids=(cancelled.id,))) == 1
    assert node.states("pacs")[4] == "owed"
    events = [one["event"] for one in overview.history(node.outbox, refused)]
    assert events == ["refused"]


def test_what_is_on_the_line_cannot_be_cancelled(node: Node) -> None:
    node.owe("pacs", "1.1")
    node.outbox.claim("pacs")
    assert node.orders.cancel(Selection(destination="pacs"), "") == 0
    assert node.states("pacs") == ["sending"]


def test_expedite_goes_first_also_outside_of_the_hours_of_its_destination(node: Node) -> None:
    closed = hours_that_are_over()
    pacs = ScriptedPacs()
    with pacs.running():
        node.peer("pacs", pacs.port, sends={"between": closed})
        node.owe("pacs", "1.1", "1.2", "1.3")
        node.start()
        node.wake()
        assert node.states("pacs") == ["owed"] * 3
        assert node.orders.expedite(Selection(ids=(node.rows("pacs")[1].id,))) == 1
        node.wake()
        wait_until(lambda: node.states("pacs") == ["owed", "sent", "owed"])
        node.pass_time(18 * 3600)  # its hours have begun
        node.all_are("pacs", "sent")
    assert pacs.taken == ["1.2", "1.1", "1.3"]


def test_stat_goes_first_and_at_any_time(node: Node) -> None:
    pacs = ScriptedPacs()
    with pacs.running():
        node.peer("pacs", pacs.port, sends={"between": hours_that_are_over()})
        node.owe("pacs", "1.1", "1.2")
        node.owe("pacs", "9.1", study="1.2.9", priority=1)
        node.start()
        wait_until(lambda: node.states("pacs") == ["owed", "owed", "sent"])
        node.pass_time(18 * 3600)
        node.all_are("pacs", "sent")
    assert pacs.taken == ["9.1", "1.1", "1.2"]


def hours_that_are_over() -> list[str]:
    now = datetime.now(UTC)
    return [f"{now + timedelta(hours=hours):%H:%M}" for hours in (12, 20)]


@pytest.mark.parametrize(
    ("between", "clock", "opens_in"),
    [
        (None, "12:00", 0),
        (("20:00", "06:00"), "19:59", 60),
        (("20:00", "06:00"), "20:00", 0),
        (("20:00", "06:00"), "03:00", 0),
        (("20:00", "06:00"), "06:00", 14 * 3600),
        (("08:00", "18:00"), "07:00", 3600),
        (("08:00", "18:00"), "18:00", 14 * 3600),
    ],
)
def test_hours_are_those_of_the_site_and_go_over_midnight(
    between: tuple[str, str] | None, clock: str, opens_in: float
) -> None:
    moment = datetime(2026, 11, 25, int(clock[:2]), int(clock[3:]), tzinfo=SEOUL)
    now_us = int(moment.timestamp() * 1e6)
    assert opens_in_s(between, now_us, SEOUL) == opens_in
    assert priority_now(between, now_us, SEOUL) == (1 if opens_in else ANY_PRIORITY)


def test_two_associations_at_once_keep_the_order_of_a_study(node: Node) -> None:
    pacs = ScriptedPacs()
    pacs.gate.clear()
    with pacs.running():
        node.peer("pacs", pacs.port, sends={"at_once": 2})
        for number in range(6):
            node.owe("pacs", *(f"1.{number}.{n}" for n in range(30)), study=f"1.2.{number}")
        node.start()
        wait_until(lambda: pacs.open_now == 2)
        pacs.gate.set()
        node.all_are("pacs", "sent")
    assert pacs.most_open == 2
    assert len(set(pacs.taken)) == len(pacs.taken) == 180
    for number in range(6):
        of_study = [uid for uid in pacs.taken if uid.startswith(f"1.{number}.")]
        assert of_study == [f"1.{number}.{n}" for n in range(30)]


def test_a_cap_on_bytes_a_second_holds_over_all_associations(node: Node) -> None:
    pacs = ScriptedPacs()
    with pacs.running():
        node.peer("pacs", pacs.port, sends={"at_once": 2, "kilobytes_per_s": 200})
        for number in range(4):
            node.studies[f"1.{number}"] = f"1.2.{number}"
            write_object(node.path(f"1.{number}"), f"1.{number}", study=f"1.2.{number}", size=100_000)
            node.owe("pacs", f"1.{number}", study=f"1.2.{number}")
        began_s = time.monotonic()
        node.start()
        node.all_are("pacs", "sent")
        took_s = time.monotonic() - began_s
    assert 1.0 < took_s < 6.0, "400 KB, of which the last object's first PDU need not be waited for"


def test_numbers_of_each_destination_say_what_a_person_needs(node: Node) -> None:
    pacs = ScriptedPacs()
    with pacs.running():
        node.peer("pacs", pacs.port)
        node.owe("pacs", "1.1", "1.2")
        node.start(proves=False)
        node.all_are("pacs", "sent")
    node.owe("pacs", "1.3")
    node.fails("pacs")
    node.clock.advance(600)
    node.orders.hold("destination", "ward", "")
    node.owe("ward", "1.1")
    ours, ward = overview.summary(node.outbox)
    assert ours.states == {"sent": 2, "owed": 1}
    assert (ours.last_hour, ours.failures, ours.unproven) == (2, 0, 2)
    assert ours.oldest_owed_utc_us is not None
    assert 599e6 < node.clock() - ours.oldest_owed_utc_us < 700e6
    assert ours.trouble is not None
    assert (ward.states, ward.held, ward.holds) == ({"owed": 1}, 1, ("ward",))
    told = [problem for problem, _ in overview.problems(node.outbox)]
    assert told[0].startswith("pacs does not answer, 1 are owed to it: no connection to 127.0.0.1")
    assert told[1:] == ["ward is held"]
