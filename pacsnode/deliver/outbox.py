"""The outbox in `node.db`: one row for one instance and destination, owed until the destination took it.

Holding, retrying and giving up are UPDATEs. Never talks to a peer.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pacsnode import audit
from pacsnode.database import connect, transaction, utc_us

FIRST_DELAY_S = 5.0
LONGEST_DELAY_S = 3600.0
LARGEST_BATCH = 50


@dataclass(frozen=True)
class Owed:
    """One row of the outbox."""

    id: int
    sop_instance_uid: str
    destination: str
    case_key: str
    study_instance_uid: str
    state: str
    attempts: int
    next_attempt_utc_us: int
    created_utc_us: int
    ended_utc_us: int | None
    status: int | None
    reason: str


@dataclass(frozen=True)
class Taken:
    """One row whose instance the peer took. `note`: what was sent instead of what is stored."""

    owed: Owed
    status: int
    note: str = ""


@dataclass(frozen=True)
class Debt:
    """What a case owes: these instances to this destination; `refusal` parks the rows at once, with that reason."""

    destination: str
    instances: tuple[str, ...]
    refusal: str = ""


def owe(
    connection: sqlite3.Connection,
    case_key: str,
    study: str,
    priority: int,
    debts: Sequence[Debt],
) -> None:
    """Enter what is owed; what is entered already stays as it is. The caller holds the transaction.

    `case_key` is "" for images that are forwarded as they came.
    """
    now = utc_us()
    for debt in debts:
        entered = connection.executemany(
            "INSERT OR IGNORE INTO outbox (sop_instance_uid, destination, case_key, study_instance_uid, state, "
            "priority, next_attempt_utc_us, created_utc_us, ended_utc_us, reason) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    uid,
                    debt.destination,
                    case_key,
                    study,
                    "parked" if debt.refusal else "owed",
                    priority,
                    now,
                    now,
                    now if debt.refusal else None,
                    debt.refusal,
                )
                for uid in debt.instances
            ],
        ).rowcount
        if entered:
            audit.record(
                connection,
                "owed",
                study=study,
                case=case_key,
                destination=debt.destination,
                instances=entered,
                refusal=debt.refusal,
            )


def ask(connection: sqlite3.Connection, case_key: str, study: str, priority: int, debt: Debt) -> None:
    """Owe images of a case to the node that does its work, also those that went there before: it is asked anew.

    The caller holds the transaction.
    """
    owe(connection, case_key, study, priority, [debt])
    now = utc_us()
    connection.executemany(
        "UPDATE outbox SET state = 'owed', case_key = ?, attempts = 0, reason = '', ended_utc_us = NULL, "
        "status = NULL, created_utc_us = ?, next_attempt_utc_us = ? WHERE sop_instance_uid = ? AND destination = ? "
        "AND (state != 'owed' OR case_key != ?)",
        [(case_key, now, now, uid, debt.destination, case_key) for uid in debt.instances],
    )


class Outbox:
    """Reads and changes the outbox; one object for one thread group, with its own connection and lock."""

    def __init__(self, node_db: Path, give_up_s: float) -> None:
        self._connection = connect(node_db, "FULL")
        self._lock = threading.Lock()
        self._give_up_us = int(give_up_s * 1_000_000)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def destinations(self) -> list[str]:
        """Destinations to which something is owed."""
        return [name for (name,) in self._rows("SELECT DISTINCT destination FROM outbox WHERE state = 'owed'")]

    def due(self, destination: str) -> list[Owed]:
        """What is due now, most urgent first; an association's worth."""
        rows = self._rows(
            "SELECT * FROM outbox WHERE destination = ? AND state = 'owed' AND next_attempt_utc_us <= ? "
            "ORDER BY priority, id LIMIT ?",
            (destination, utc_us(), LARGEST_BATCH),
        )
        return [_owed(r) for r in rows]

    def next_due_utc_us(self, destination: str) -> int | None:
        """When the next attempt is due; None when nothing is owed."""
        due = self._rows(
            "SELECT min(next_attempt_utc_us) FROM outbox WHERE destination = ? AND state = 'owed'", (destination,)
        )[0][0]
        return None if due is None else int(due)

    def sent(self, owed: Owed, status: int, note: str = "") -> None:
        """The peer took the instance (success or warning status). `note`: what was sent instead of what is stored."""
        self.sent_together([Taken(owed, status, note)])

    def sent_together(self, taken: Sequence[Taken]) -> None:
        """As `sent`, for several in one transaction: the disk is waited for once."""
        with self._lock, transaction(self._connection):
            for one in taken:
                told = [one.note, f"taken with warning 0x{one.status:04X}" if one.status else ""]
                self._end(one.owed, "sent", one.status, "; ".join(filter(None, told)))

    def park(self, owed: Owed, reason: str, status: int | None = None) -> None:
        """The peer will not take it until a person changes something."""
        with self._lock, transaction(self._connection):
            self._end(owed, "parked", status, reason)

    def postpone(self, owed: Sequence[Owed], reason: str) -> None:
        """Not now: back-off with jitter, from seconds to an hour, for days; then parked."""
        now = utc_us()
        for one in owed:
            if now - one.created_utc_us > self._give_up_us:
                self.park(one, f"given up after {one.attempts + 1} attempts: {reason}")
        with self._lock, transaction(self._connection):
            self._connection.executemany(
                "UPDATE outbox SET attempts = attempts + 1, next_attempt_utc_us = ?, reason = ? "
                "WHERE id = ? AND state = 'owed'",
                [(now + _delay_us(one.attempts), reason, one.id) for one in owed],
            )

    def retry(self, ids: Sequence[int]) -> int:
        """Owe parked rows again, and try owed ones now; returns how many."""
        now = utc_us()
        with self._lock, transaction(self._connection):
            audit.record(self._connection, "retried", deliveries=list(ids))
            return self._connection.executemany(
                "UPDATE outbox SET state = 'owed', attempts = 0, reason = '', ended_utc_us = NULL, created_utc_us = ?, "
                "next_attempt_utc_us = ? WHERE state IN ('parked', 'owed') AND id = ?",
                [(now, now, one) for one in ids],
            ).rowcount

    def listing(self, *, state: str = "", study: str = "", limit: int = 200) -> list[Owed]:
        """Rows of one state and study, or of all (""), newest first."""
        rows = self._rows(
            "SELECT * FROM outbox WHERE ? IN ('', state) AND ? IN ('', study_instance_uid) ORDER BY id DESC LIMIT ?",
            (state, study, limit),
        )
        return [_owed(r) for r in rows]

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    def _end(self, owed: Owed, state: str, status: int | None, reason: str) -> None:
        """The caller holds the transaction."""
        self._connection.execute(
            "UPDATE outbox SET state = ?, status = ?, reason = ?, attempts = attempts + 1, ended_utc_us = ? "
            "WHERE id = ?",
            (state, status, reason, utc_us(), owed.id),
        )
        audit.record(
            self._connection,
            "delivered" if state == "sent" else "parked",
            study=owed.study_instance_uid,
            case=owed.case_key,
            destination=owed.destination,
            instance=owed.sop_instance_uid,
            status=status,
            reason=reason,
        )


def _delay_us(attempts: int) -> int:
    """Doubling from 5 s to an hour, each within half of it to itself, so that many do not come at once."""
    longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempts, 20))
    return int(longest * random.uniform(0.5, 1.0) * 1_000_000)  # noqa: S311  # jitter, no secret


def _owed(row: sqlite3.Row) -> Owed:
    return Owed(
        row["id"],
        row["sop_instance_uid"],
        row["destination"],
        row["case_key"],
        row["study_instance_uid"],
        row["state"],
        row["attempts"],
        row["next_attempt_utc_us"],
        row["created_utc_us"],
        row["ended_utc_us"],
        row["status"],
        row["reason"],
    )
