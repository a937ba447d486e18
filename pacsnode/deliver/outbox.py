"""The outbox in `node.db`: one row for one instance and destination, owed until the destination took and proved it.

    owed → sending → sent → confirmed        refused: the peer said no, with its status
      ↑________|_______|                     parked: a person has to change something here, or it was given up
                                             cancelled: an operator wants it no more
Whatever a kill leaves `sending` is owed again at the next start: the same UID is sent twice at worst. A row that an
operator holds stays owed, with `held`. Never talks to a peer.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from pacsnode import audit
from pacsnode.database import connect, transaction, utc_us
from pacsnode.deliver.backoff import delay_us
from pacsnode.deliver.holding import OWED_ANEW

LARGEST_BATCH: Final = 50
PROVE_AFTER_US: Final = 2_000_000
"""So long after an instance was taken its proof is asked for: what is sent meanwhile is in the same question."""
MOST_IN_ONE_TRANSACTION: Final = 500
ANY_PRIORITY: Final = 1 << 30


@dataclass(frozen=True)
class Owed:
    """One row of the outbox. `proof`: how it was proven that the peer has it, or why that is not known."""

    id: int
    sop_instance_uid: str
    destination: str
    case_key: str
    study_instance_uid: str
    state: str
    priority: int
    attempts: int
    next_attempt_utc_us: int
    created_utc_us: int
    ended_utc_us: int | None
    status: int | None
    reason: str
    held: bool
    since_utc_us: int
    lost: int
    proof: str
    asked: int
    proven_utc_us: int | None


COLUMNS: Final = ", ".join(field.name for field in fields(Owed))


@dataclass(frozen=True)
class Taken:
    """One row whose instance the peer took. `note`: what was sent instead of what is stored."""

    owed: Owed
    status: int
    note: str = ""


@dataclass(frozen=True)
class _End:
    """How a row ends for now; `tried`: it was offered, or would have been."""

    state: Literal["sent", "refused", "parked"]
    status: int | None
    reason: str
    tried: bool = True


WITHDRAWN: Final = "withdrawn: "
"""So begins the reason of what is not sent because it does not count any more; nobody can retry it."""
END_EVENTS: Final[Mapping[str, audit.Event]] = {"sent": "delivered", "refused": "refused", "parked": "parked"}


@dataclass(frozen=True)
class Outcome:
    """What became of a batch: whether the peer judged any of it, and why it did not take the first that it left."""

    answered: bool
    reason: str


class Outbox:
    """Reads and changes the outbox; one object for one thread group, with its own connection and lock."""

    def __init__(self, node_db: Path, give_up_s: float, clock_us: Callable[[], int] = utc_us) -> None:
        self._connection = connect(node_db, "FULL")
        self._lock = threading.RLock()
        self._give_up_us = int(give_up_s * 1_000_000)
        self.now_us = clock_us

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._connection.close()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """What a query finds; inside of a transaction of this object it belongs to it."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction on this object's connection, for those who keep other parts of a delivery."""
        with self._lock, transaction(self._connection) as connection:
            yield connection

    # --- what is to be sent

    def resume(self) -> int:
        """At start: what an earlier process was sending is owed again. How many rows."""
        with self.transaction() as connection:
            return connection.execute("UPDATE outbox SET state = 'owed' WHERE state = 'sending'").rowcount

    def destinations(self) -> list[str]:
        """Destinations to which something is owed that nobody holds."""
        return self._distinct("state = 'owed' AND held = 0")

    def unproven_destinations(self) -> list[str]:
        """Destinations that took something and have yet to prove it."""
        return self._distinct("state = 'sent' AND prove_utc_us IS NOT NULL")

    def _distinct(self, which: str) -> list[str]:
        """Each destination by one look into an index, however many rows it has."""
        found, after = list[str](), ""
        while True:
            row = self.rows(f"SELECT min(destination) FROM outbox WHERE {which} AND destination > ?", (after,))[0]  # noqa: S608
            if row[0] is None:
                return found
            after = str(row[0])
            found.append(after)

    def claim(self, destination: str, at_most: int = LARGEST_BATCH, priority: int = ANY_PRIORITY) -> list[Owed]:
        """Take what is due now and no less urgent than `priority`, most urgent first: it is `sending` from now on.

        A study of which another thread is sending something waits: its order is kept.
        """
        with self.transaction() as connection:
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM outbox INDEXED BY outbox_queue WHERE destination = ? AND state = 'owed' "  # noqa: S608
                "AND held = 0 AND next_attempt_utc_us <= ? AND priority <= ? AND study_instance_uid NOT IN "
                "(SELECT study_instance_uid FROM outbox WHERE destination = ? AND state = 'sending') "
                "ORDER BY priority, id LIMIT ?",
                (destination, self.now_us(), priority, destination, at_most),
            ).fetchall()
            connection.executemany("UPDATE outbox SET state = 'sending' WHERE id = ?", [(r["id"],) for r in rows])
        return [owed_of(r) for r in rows]

    def next_due_utc_us(self, destination: str, priority: int = ANY_PRIORITY) -> int | None:
        """When the next attempt is due; None when nothing is owed (or all of it held)."""
        due = self.rows(
            "SELECT min(next_attempt_utc_us) FROM outbox WHERE destination = ? AND state = 'owed' AND held = 0 "
            "AND priority <= ?",
            (destination, priority),
        )[0][0]
        return None if due is None else int(due)

    def is_held(self, destination: str) -> bool:
        """Whether an operator holds the whole destination."""
        return bool(self.rows("SELECT 1 FROM holds WHERE kind = 'destination' AND subject = ?", (destination,)))

    # --- what became of a claimed row

    def sent(self, owed: Owed, status: int, note: str = "") -> None:
        """The peer took the instance (success or warning status); whether it keeps it is asked afterwards.

        `note`: what was sent instead of what is stored.
        """
        self.sent_together([Taken(owed, status, note)])

    def sent_together(self, taken: Sequence[Taken]) -> None:
        """As `sent`, for several in one transaction: the disk is waited for once."""
        with self.transaction() as connection:
            for one in taken:
                told = [one.note, f"taken with warning 0x{one.status:04X}" if one.status else ""]
                self._end(connection, one.owed, _End("sent", one.status, "; ".join(filter(None, told))))

    def park(self, owed: Owed, reason: str, status: int | None = None) -> None:
        """It will not go until a person changes something. With the peer's status: the peer refused it."""
        with self.transaction() as connection:
            self._end(connection, owed, _End("parked" if status is None else "refused", status, reason))

    def postpone(self, owed: Sequence[Owed], reason: str) -> None:
        """The peer did not take these now: back-off with jitter for each, up to a day; after days they are parked."""
        now = self.now_us()
        for one in owed:
            if now - one.since_utc_us > self._give_up_us:
                self.park(one, f"given up after {one.attempts + 1} attempts: {reason}")
        with self.transaction() as connection:
            connection.executemany(
                "UPDATE outbox SET state = 'owed', attempts = attempts + 1, next_attempt_utc_us = ?, reason = ? "
                "WHERE id = ? AND state = 'sending'",
                [(now + delay_us(one.attempts), reason, one.id) for one in owed],
            )

    def unsent(self, owed: Sequence[Owed], reason: str) -> None:
        """These were never offered, since the peer gave no association or ended it: no attempt of theirs."""
        with self.transaction() as connection:
            connection.executemany(
                "UPDATE outbox SET state = 'owed', reason = ? WHERE id = ? AND state = 'sending'",
                [(reason, one.id) for one in owed],
            )

    def conclude(self, owed: Sequence[Owed]) -> Outcome:
        """After a batch: what is neither taken nor judged is owed as it was. What became of the whole."""
        ids = json.dumps([one.id for one in owed])
        with self.transaction() as connection:
            connection.execute(
                "UPDATE outbox SET state = 'owed' WHERE id IN (SELECT value FROM json_each(?)) AND state = 'sending'",
                (ids,),
            )
            before = {one.id: (one.attempts, one.reason) for one in owed}
            rows = connection.execute(
                "SELECT id, state, attempts, reason FROM outbox WHERE id IN (SELECT value FROM json_each(?))", (ids,)
            ).fetchall()
        left = [r for r in rows if r["state"] == "owed" and (r["attempts"], r["reason"]) != before[r["id"]]]
        answered = any(r["state"] in ("sent", "refused", "confirmed") for r in rows)
        return Outcome(answered, str(left[0]["reason"]) if left else "")

    def give_up(self, destination: str, reason: str) -> int:
        """The destination does not answer: park what waited too long for it. How many rows."""
        told = f"given up, not taken within {self._give_up_us / 86_400e6:g} days: {reason}"
        old = self.rows(
            f"SELECT {COLUMNS} FROM outbox WHERE destination = ? AND state = 'owed' AND held = 0 AND since_utc_us < ? "  # noqa: S608
            "ORDER BY id LIMIT ?",
            (destination, self.now_us() - self._give_up_us, MOST_IN_ONE_TRANSACTION),
        )
        with self.transaction() as connection:
            for row in old:
                self._end(connection, owed_of(row), _End("parked", None, told, tried=False))
        return len(old)

    def retry(self, ids: Sequence[int]) -> int:
        """Owe parked and refused rows again, and try owed ones now; returns how many. By number, cancelled ones too."""
        now = self.now_us()
        with self.transaction() as connection:
            audit.record(connection, "retried", deliveries=list(ids))
            return connection.executemany(
                f"UPDATE outbox SET {OWED_ANEW}, since_utc_us = ?, next_attempt_utc_us = ? "  # noqa: S608  # our words
                "WHERE state IN ('parked', 'refused', 'cancelled', 'owed') AND substr(reason, 1, ?) != ? AND id = ?",
                [(now, now, len(WITHDRAWN), WITHDRAWN, one) for one in ids],
            ).rowcount

    def listing(self, *, state: str = "", study: str = "", limit: int = 200) -> list[Owed]:
        """Rows of one state and study, or of all (""), newest first."""
        wanted = {"state = ?": state, "study_instance_uid = ?": study}
        which = [clause for clause, value in wanted.items() if value]
        rows = self.rows(
            f"SELECT {COLUMNS} FROM outbox WHERE {' AND '.join(which) or 'TRUE'} ORDER BY id DESC LIMIT ?",  # noqa: S608
            (*filter(None, wanted.values()), limit),
        )
        return [owed_of(r) for r in rows]

    def _end(self, connection: sqlite3.Connection, owed: Owed, end: _End) -> None:
        """A row that was asked for anew meanwhile (`ask`) stays owed."""
        now = self.now_us()
        changed = connection.execute(
            "UPDATE outbox SET state = ?, status = ?, reason = ?, attempts = attempts + ?, ended_utc_us = ?, "
            "proof = '', question = '', asked = 0, prove_utc_us = ? WHERE id = ? AND state IN ('sending', 'owed') "
            "AND case_key = ?",
            (
                end.state,
                end.status,
                end.reason,
                end.tried,
                now,
                now + PROVE_AFTER_US if end.state == "sent" else None,
                owed.id,
                owed.case_key,
            ),
        ).rowcount
        if changed:
            audit.record(
                connection,
                END_EVENTS[end.state],
                study=owed.study_instance_uid,
                case=owed.case_key,
                destination=owed.destination,
                instance=owed.sop_instance_uid,
                status=end.status,
                reason=end.reason,
            )


def owed_of(row: sqlite3.Row) -> Owed:
    """A row with COLUMNS."""
    return Owed(**dict(row) | {"held": bool(row["held"])})
