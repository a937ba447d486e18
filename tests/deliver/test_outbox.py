"""What is owed to whom: entered once, tried again later, given up after days, retried by a person."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacsnode import schema
from pacsnode.database import connect, transaction, utc_us
from pacsnode.deliver.backoff import FIRST_DELAY_S, LONGEST_DELAY_S, delay_us
from pacsnode.deliver.debts import Debt, owe, withdraw
from pacsnode.deliver.outbox import LARGEST_BATCH, Outbox
from pacsnode.settings import Settings, load

DAY_S = 86_400


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load(home=tmp_path / "home")
    schema.migrate(made)
    return made


@pytest.fixture
def node_db(settings: Settings) -> Iterator[sqlite3.Connection]:
    connection = connect(settings.node_db, "FULL")
    yield connection
    connection.close()


@pytest.fixture
def outbox(settings: Settings) -> Iterator[Outbox]:
    made = Outbox(settings.node_db, 14 * DAY_S)
    yield made
    made.close()


def enter(node_db: sqlite3.Connection, *debts: Debt, case: str = "case", priority: int = 10) -> None:
    with transaction(node_db):
        owe(node_db, case, "1.2.3", priority, debts)


def states(outbox: Outbox) -> dict[tuple[str, str], str]:
    return {(o.destination, o.sop_instance_uid): o.state for o in outbox.listing()}


def test_what_is_owed_is_entered_once(node_db: sqlite3.Connection, outbox: Outbox) -> None:
    for _ in range(2):
        enter(node_db, Debt("pacs", ("1.1", "1.2")), Debt("ward", ("1.1",)))
    assert len(outbox.listing()) == 3
    assert sorted(outbox.destinations()) == ["pacs", "ward"]


def test_a_debt_that_is_paid_stays_paid_when_its_case_runs_again(node_db: sqlite3.Connection, outbox: Outbox) -> None:
    enter(node_db, Debt("pacs", ("1.1",)))
    outbox.sent(outbox.claim("pacs")[0], 0)
    enter(node_db, Debt("pacs", ("1.1",)))
    assert states(outbox) == {("pacs", "1.1"): "sent"}
    assert outbox.next_due_utc_us("pacs") is None


def test_a_refused_debt_is_parked_with_its_sentence_at_once(node_db: sqlite3.Connection, outbox: Outbox) -> None:
    enter(node_db, Debt("pacs", ("1.1",), "not certified"))
    (row,) = outbox.listing(state="parked")
    assert (row.reason, row.attempts) == ("not certified", 0)
    assert outbox.claim("pacs") == []


def test_the_most_urgent_goes_first_and_a_batch_is_bounded(node_db: sqlite3.Connection, outbox: Outbox) -> None:
    enter(node_db, Debt("pacs", tuple(f"1.{n}" for n in range(2 * LARGEST_BATCH))), priority=10)
    enter(node_db, Debt("pacs", ("2.1",)), case="stat", priority=1)
    due = outbox.claim("pacs")
    assert len(due) == LARGEST_BATCH
    assert due[0].sop_instance_uid == "2.1"


def test_a_postponed_row_is_due_later_and_says_why(node_db: sqlite3.Connection, outbox: Outbox) -> None:
    enter(node_db, Debt("pacs", ("1.1",)))
    outbox.postpone(outbox.claim("pacs"), "the peer is down")
    assert outbox.claim("pacs") == []
    (row,) = outbox.listing(state="owed")
    assert (row.attempts, row.reason) == (1, "the peer is down")
    assert row.next_attempt_utc_us > utc_us()
    assert outbox.next_due_utc_us("pacs") == row.next_attempt_utc_us


@pytest.mark.parametrize("attempts", [0, 1, 5, 10, 20, 2000])
def test_the_back_off_doubles_up_to_a_day_with_jitter(attempts: int) -> None:
    longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(attempts, 30))
    for _ in range(50):
        assert longest / 2 <= delay_us(attempts) / 1e6 <= longest


def test_after_the_longest_wait_a_row_is_parked_and_a_person_can_start_it_anew(
    settings: Settings, node_db: sqlite3.Connection, outbox: Outbox
) -> None:
    enter(node_db, Debt("pacs", ("1.1", "1.2")))
    long_ago = utc_us() - 15 * DAY_S * 1_000_000
    node_db.execute("UPDATE outbox SET since_utc_us = ? WHERE sop_instance_uid = '1.1'", (long_ago,))
    outbox.postpone(outbox.claim("pacs"), "the peer is down")
    assert states(outbox) == {("pacs", "1.1"): "parked", ("pacs", "1.2"): "owed"}
    (parked,) = outbox.listing(state="parked")
    assert parked.reason == "given up after 1 attempts: the peer is down"
    assert outbox.retry([parked.id]) == 1
    again = outbox.claim("pacs")
    assert [o.sop_instance_uid for o in again] == ["1.1"]
    outbox.postpone(again, "the peer is down")
    assert states(outbox) == {("pacs", "1.1"): "owed", ("pacs", "1.2"): "owed"}


def test_what_was_sent_is_not_owed_again_by_a_retry(node_db: sqlite3.Connection, outbox: Outbox) -> None:
    enter(node_db, Debt("pacs", ("1.1", "1.2")))
    first, second = outbox.claim("pacs")
    outbox.sent(first, 0)
    outbox.park(second, "refused", 0xA900)
    assert states(outbox) == {("pacs", "1.1"): "sent", ("pacs", "1.2"): "refused"}
    assert outbox.retry([first.id, second.id]) == 1
    assert states(outbox) == {("pacs", "1.1"): "sent", ("pacs", "1.2"): "owed"}


def test_a_warning_status_is_told_with_the_delivery(node_db: sqlite3.Connection, outbox: Outbox) -> None:
    enter(node_db, Debt("pacs", ("1.1",)))
    outbox.sent(outbox.claim("pacs")[0], 0xB000)
    (row,) = outbox.listing(state="sent")
    assert (row.status, row.reason) == (0xB000, "taken with warning 0xB000")


def test_every_end_has_its_audit_row(node_db: sqlite3.Connection, outbox: Outbox) -> None:
    enter(node_db, Debt("pacs", ("1.1", "1.2")))
    first, second = outbox.claim("pacs")
    outbox.sent(first, 0)
    outbox.park(second, "refused", 0xA900)
    events = [event for (event,) in node_db.execute("SELECT event FROM audit ORDER BY id")]
    assert events == ["owed", "delivered", "refused"]


def test_many_threads_and_a_second_process_worth_of_outbox_lose_nothing(
    settings: Settings, node_db: sqlite3.Connection, outbox: Outbox
) -> None:
    enter(node_db, *[Debt(f"peer-{n}", tuple(f"1.{i}" for i in range(40))) for n in range(4)])
    other = Outbox(settings.node_db, 0)

    def drain(number: int) -> None:
        while outbox.next_due_utc_us(f"peer-{number}") is not None:
            for one in outbox.claim(f"peer-{number}"):
                outbox.sent(one, 0)

    def retry(_: int) -> None:
        for one in itertools.islice(other.listing(), 40):
            other.retry([one.id])

    with ThreadPoolExecutor(8) as pool:
        retries = pool.map(retry, range(2))
        list(pool.map(drain, range(4)))
        list(retries)
    other.close()
    assert set(states(outbox).values()) == {"sent"}


def test_what_is_withdrawn_is_not_sent_any_more_and_who_has_it_is_told(
    node_db: sqlite3.Connection, outbox: Outbox
) -> None:
    enter(node_db, Debt("pacs", ("1.1", "1.2")), Debt("ward", ("1.1",)), Debt("old", ("1.1",), "no port"))
    enter(node_db, Debt("pacs", ("1.3",)), case="other")
    outbox.sent(outbox.claim("pacs", 1)[0], 0)
    with transaction(node_db):
        assert withdraw(node_db, "case", ["1.1", "1.2"], "rejected") == (("1.1", "1.2"), ("pacs", "ward"))
        assert withdraw(node_db, "case", ["1.1", "1.2"], "again") == (("1.1",), ("pacs",))
    assert states(outbox) == {
        ("pacs", "1.1"): "sent",
        ("pacs", "1.2"): "cancelled",
        ("ward", "1.1"): "cancelled",
        ("old", "1.1"): "cancelled",
        ("pacs", "1.3"): "owed",
    }
    assert {o.reason for o in outbox.listing(state="cancelled")} == {"withdrawn: rejected"}
    assert outbox.retry([o.id for o in outbox.listing(state="cancelled")]) == 0
    enter(node_db, Debt("pacs", ("1.2",)))
    assert states(outbox)["pacs", "1.2"] == "cancelled"
