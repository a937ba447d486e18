"""What an operator orders: hold, release, retry, cancel, expedite, prove; by number, study, destination, case or rule.

Each is an UPDATE in pieces of 500 rows, with its audit row, and is seen by a running node at its next look. What is
`sending` just now is on the line: no order reaches it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pacsnode import audit
from pacsnode.archive.case_rows import STAT
from pacsnode.deliver.holding import HELD, HoldKind
from pacsnode.deliver.outbox import MOST_IN_ONE_TRANSACTION, Outbox

UNFINISHED: Final = ("owed", "parked", "refused")
"""What `retry` and `cancel` concern; a number also brings back what was cancelled."""


@dataclass(frozen=True)
class Selection:
    """Which rows: those that satisfy every part that is given."""

    ids: tuple[int, ...] = ()
    study: str = ""
    destination: str = ""
    case: str = ""
    rule: str = ""

    def where(self) -> tuple[str, list[Any]]:
        """As a condition of SQL with its values."""
        parts: dict[str, Any] = {
            "id IN (SELECT value FROM json_each(?))": json.dumps(self.ids) if self.ids else "",
            "study_instance_uid = ?": self.study,
            "destination = ?": self.destination,
            "case_key = ?": self.case,
            "? IN (SELECT value FROM json_each(rules))": self.rule,
        }
        given = {clause: value for clause, value in parts.items() if value}
        return " AND ".join(given) or "TRUE", list(given.values())


@dataclass(frozen=True)
class Hold:
    """One hold: it keeps what it concerns, also what is owed later, until it is released."""

    kind: HoldKind
    subject: str
    held_utc_us: int
    author: str
    reason: str


class Orders:
    """Changes deliveries for a person, on the outbox's connection; `author` is who ordered it."""

    def __init__(self, outbox: Outbox, author: str) -> None:
        self._outbox = outbox
        self._author = author

    def retry(self, which: Selection) -> int:
        """Owe parked and refused rows again and try owed ones now, their destinations too. How many rows."""
        states = (*UNFINISHED, "cancelled") if which.ids else UNFINISHED
        ids = self._ids(which, states)
        done = sum(self._outbox.retry(piece) for piece in _pieces(ids))
        self._try_destinations_now(ids)
        return done

    def cancel(self, which: Selection, reason: str) -> int:
        """Nobody wants them any more. How many rows."""
        told = f"cancelled by {self._author}" + (f": {reason}" if reason else "")

        def change(connection: sqlite3.Connection, ids: str) -> int:
            return connection.execute(
                "UPDATE outbox SET state = 'cancelled', reason = ?, ended_utc_us = ?, held = 0 "
                "WHERE state IN ('owed', 'parked', 'refused') AND id IN (SELECT value FROM json_each(?))",
                (told, self._outbox.now_us(), ids),
            ).rowcount

        return self._change(self._ids(which, UNFINISHED), "cancelled", reason, change)

    def expedite(self, which: Selection) -> int:
        """Send owed rows first and now, outside of their destination's hours too: as stat. How many rows."""

        def change(connection: sqlite3.Connection, ids: str) -> int:
            return connection.execute(
                "UPDATE outbox SET priority = min(priority, ?), next_attempt_utc_us = ? "
                "WHERE state = 'owed' AND id IN (SELECT value FROM json_each(?))",
                (STAT, self._outbox.now_us(), ids),
            ).rowcount

        ids = self._ids(which, ("owed",))
        done = self._change(ids, "expedited", "", change)
        self._try_destinations_now(ids)
        return done

    def prove(self, which: Selection) -> int:
        """Ask now, and anew, whether the destinations have what they took and is not proven. How many rows."""

        def change(connection: sqlite3.Connection, ids: str) -> int:
            return connection.execute(
                "UPDATE outbox SET prove_utc_us = ?, asked = 0, question = '', proof = '' "
                "WHERE state = 'sent' AND id IN (SELECT value FROM json_each(?))",
                (self._outbox.now_us(), ids),
            ).rowcount

        ids = self._ids(which, ("sent",))
        with self._outbox.transaction() as connection:  # it may have learned better
            connection.execute(
                "UPDATE destinations SET proof = '' WHERE name IN (SELECT destination FROM outbox WHERE id IN "
                "(SELECT value FROM json_each(?)))",
                (json.dumps(ids),),
            )
        return self._change(ids, None, "", change)

    def hold(self, kind: HoldKind, subject: str, reason: str) -> int:
        """Keep here what is owed, and what will be. How many rows are owed of it now."""
        with self._outbox.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO holds VALUES (?, ?, ?, ?, ?)",
                (kind, subject, self._outbox.now_us(), self._author, reason),
            )
            audit.record(connection, "held", kind=kind, subject=subject, author=self._author, reason=reason)
        return self._look_at_holds(_held_by(kind, subject))

    def release(self, kind: HoldKind, subject: str) -> bool:
        """End a hold; what it kept is due now, unless another hold keeps it. False where there is no such hold."""
        with self._outbox.transaction() as connection:
            found = connection.execute("DELETE FROM holds WHERE kind = ? AND subject = ?", (kind, subject)).rowcount
            if found:
                audit.record(connection, "released", kind=kind, subject=subject, author=self._author)
        self._look_at_holds(_held_by(kind, subject))
        return bool(found)

    def holds(self) -> list[Hold]:
        """Every hold, oldest first."""
        sql = "SELECT kind, subject, held_utc_us, author, reason FROM holds ORDER BY held_utc_us"
        return [Hold(*row) for row in self._outbox.rows(sql)]

    def _look_at_holds(self, which: Selection) -> int:
        """Enter in each row whether it is held; days until it is given up count from its release."""

        def change(connection: sqlite3.Connection, ids: str) -> int:
            now = self._outbox.now_us()
            connection.execute(
                f"UPDATE outbox SET since_utc_us = ?, next_attempt_utc_us = min(next_attempt_utc_us, ?) "  # noqa: S608
                f"WHERE id IN (SELECT value FROM json_each(?)) AND held AND NOT {HELD}",
                (now, now, ids),
            )
            return connection.execute(
                f"UPDATE outbox SET held = {HELD} WHERE id IN (SELECT value FROM json_each(?))",  # noqa: S608
                (ids,),
            ).rowcount

        return self._change(self._ids(which, ("owed", "sending")), None, "", change)

    def _ids(self, which: Selection, states: Sequence[str]) -> list[int]:
        clause, values = which.where()
        rows = [
            row
            for state in states
            for row in self._outbox.rows(
                f"SELECT id FROM outbox WHERE state = '{state}' AND {clause}",  # noqa: S608  # our words
                values,
            )
        ]
        return sorted(int(row[0]) for row in rows)

    def _change(
        self,
        ids: Sequence[int],
        event: audit.Event | None,
        reason: str,
        change: Callable[[sqlite3.Connection, str], int],
    ) -> int:
        done = 0
        for piece in _pieces(ids):
            with self._outbox.transaction() as connection:
                done += change(connection, json.dumps(piece))
                if event:
                    audit.record(connection, event, deliveries=piece, author=self._author, reason=reason)
        return done

    def _try_destinations_now(self, ids: Sequence[int]) -> None:
        """A person who says `now` does not wait for the next look at a destination that did not answer."""
        with self._outbox.transaction() as connection:
            connection.execute(
                "UPDATE destinations SET retry_utc_us = 0 WHERE name IN (SELECT destination FROM outbox WHERE id IN "
                "(SELECT value FROM json_each(?)))",
                (json.dumps(list(ids)),),
            )


def _pieces(ids: Sequence[int]) -> list[list[int]]:
    return [list(ids[at : at + MOST_IN_ONE_TRANSACTION]) for at in range(0, len(ids), MOST_IN_ONE_TRANSACTION)]


def _held_by(kind: HoldKind, subject: str) -> Selection:
    match kind:
        case "destination":
            return Selection(destination=subject)
        case "study":
            return Selection(study=subject)
        case "case":
            return Selection(case=subject)
        case "rule":
            return Selection(rule=subject)
