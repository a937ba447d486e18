"""Commitment requests on disk: when a result is told again, when it is given up, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacsnode.database import connect, utc_us
from pacsnode.dimse.tls import Credentials
from pacsnode.errors import Permanent, Rejected
from pacsnode.peers import Directory, Peer
from pacsnode.receive import ledger as ledgers
from pacsnode.receive.admission import Caller
from pacsnode.receive.commitment import Reference
from pacsnode.receive.committing import destination
from pacsnode.receive.ledger import Ledger
from tests.archive import homes

MINUTE_US = 60_000_000
CALLER = Caller("MODALITY", "PACSNODE", "192.0.2.7")
REFERENCES = (Reference("1.2.840.10008.5.1.4.1.1.2", "1.9.1"),)


@pytest.fixture
def index_db(tmp_path: Path) -> Path:
    return homes.home(tmp_path).index_db


@pytest.fixture
def ledger(index_db: Path) -> Iterator[Ledger]:
    made = Ledger(index_db)
    yield made
    made.close()


def enter(ledger: Ledger, transaction_uid: str = "1.2.3", uid: str = "1.9.1") -> int:
    return ledger.enter("ct-1", CALLER, transaction_uid, (Reference("1.2.840.10008.5.1.4.1.1.2", uid),))


def shift(index_db: Path, hours: float) -> None:
    """Let that much time have gone by."""
    connection = connect(index_db, "NORMAL")
    connection.execute("UPDATE commitments SET received_utc_us = received_utc_us - ?", (int(hours * 60 * MINUTE_US),))
    connection.close()


def test_a_result_is_told_again_after_1_5_and_30_minutes_then_hourly_for_a_day(ledger: Ledger, index_db: Path) -> None:
    id = enter(ledger)
    ledger.checked(id, [0])
    delays: list[int] = []
    given_up: list[int] = []
    for _ in range(40):
        if ledger.next_due_utc_us("ct-1") is None:
            break
        given_up = ledger.postpone([id], "nobody there")
        after = ledger.next_due_utc_us("ct-1")
        if after is not None:
            delays.append(round((after - utc_us()) / MINUTE_US))
            shift(index_db, delays[-1] / 60)
    assert delays == [1, 5, 30] + [60] * 23
    assert given_up == [id]
    assert ledger.due("ct-1") == []


def test_what_is_entered_is_there_after_a_reopening(index_db: Path) -> None:
    first = Ledger(index_db)
    id = enter(first)
    second = Ledger(index_db)  # as after a kill: the first was never closed
    asked = second.unchecked()
    assert asked is not None
    assert (asked.id, asked.transaction_uid, asked.references) == (id, "1.2.3", REFERENCES)
    second.close()
    first.close()


def test_a_repeated_request_is_one_request(ledger: Ledger) -> None:
    assert enter(ledger) == enter(ledger)


def test_a_transaction_uid_may_be_used_again_once_it_has_ended(ledger: Ledger) -> None:
    first = enter(ledger)
    ledger.checked(first, [0])
    ledger.reported(first)
    second = enter(ledger, uid="1.9.2")
    asked = ledger.unchecked()
    assert asked is not None
    assert (asked.id, second != first) == (second, True)


def test_two_peers_may_have_the_same_transaction_uid(ledger: Ledger) -> None:
    enter(ledger)
    other = ledger.enter("mr-1", Caller("MR1", "PACSNODE", "192.0.2.8"), "1.2.3", [Reference("1.2", "1.9.7")])
    assert ledger.get(other) is None, "it waits to be checked, and has not failed"


def test_a_flood_of_requests_is_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MOST_OPEN", 3)
    for number in range(3):
        enter(ledger, f"1.2.{number}")
    with pytest.raises(Rejected, match="too many"):
        enter(ledger, "1.2.9")


def test_a_peer_without_a_port_says_what_to_do(ledger: Ledger) -> None:
    id = enter(ledger)
    ledger.checked(id, [0])
    owed = ledger.get(id)
    assert owed is not None
    peer = Peer(name="ct-1", ae_title="MODALITY", host="192.0.2.7")
    with pytest.raises(Permanent, match="has no port: enter it, or a reply_to"):
        destination(owed, Directory({"ct-1": peer}), Credentials())
    with pytest.raises(Permanent, match="has no peer ct-1"):
        destination(owed, Directory({}), Credentials())
