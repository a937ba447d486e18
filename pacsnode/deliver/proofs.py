"""Rows of the outbox that were taken and are not proven: what to ask about, and what came of asking.

In: answers. Out: rows that are `confirmed`, owed again with the reason, or `sent` for good, with why they are not
proven. Never talks to a peer.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from pacsnode import audit
from pacsnode.deliver.backoff import delay_us
from pacsnode.deliver.holding import HELD
from pacsnode.deliver.outbox import COLUMNS, Outbox, Owed, owed_of

MOST_LOST: Final = 3
"""A peer that takes an instance so many times, and then does not have it, is for a person to look at."""


class Proofs:
    """Reads and changes such rows, on the outbox's connection."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def due(self, destination: str, at_most: int) -> list[Owed]:
        """What to ask for now, what waited longest first."""
        rows = self._outbox.rows(
            f"SELECT {COLUMNS} FROM outbox WHERE destination = ? AND state = 'sent' AND prove_utc_us IS NOT NULL "  # noqa: S608
            "AND prove_utc_us <= ? ORDER BY prove_utc_us LIMIT ?",
            (destination, self._outbox.now_us(), at_most),
        )
        return [owed_of(row) for row in rows]

    def next_due_utc_us(self, destination: str) -> int | None:
        """When to ask next; None when nothing is unproven."""
        due = self._outbox.rows(
            "SELECT min(prove_utc_us) FROM outbox WHERE destination = ? AND state = 'sent' "
            "AND prove_utc_us IS NOT NULL",
            (destination,),
        )[0][0]
        return None if due is None else int(due)

    def open_questions(self, destination: str) -> list[str]:
        """Transaction UIDs whose answers are still to come."""
        rows = self._outbox.rows(
            "SELECT DISTINCT question FROM outbox INDEXED BY outbox_question WHERE question != '' AND destination = ?",
            (destination,),
        )
        return [str(row[0]) for row in rows]

    def of_question(self, question: str) -> list[Owed]:
        """The rows that were asked about under that Transaction UID."""
        rows = self._outbox.rows(
            f"SELECT {COLUMNS} FROM outbox INDEXED BY outbox_question WHERE question != '' "  # noqa: S608
            "AND question = ? AND state = 'sent'",
            (question,),
        )
        return [owed_of(row) for row in rows]

    def asked(self, rows: Sequence[Owed], question: str, again_utc_us: int) -> None:
        """They were asked about; without an answer they are asked about again then."""
        self._update(rows, "question = ?, asked = asked + 1, prove_utc_us = ?", question, again_utc_us)

    def put_off(self, rows: Sequence[Owed], again_utc_us: int) -> None:
        """The peer could not be asked now."""
        self._update(rows, "question = '', prove_utc_us = ?", again_utc_us)

    def ask_anew(self, rows: Sequence[Owed]) -> None:
        """In another way, now."""
        self._update(rows, "question = '', asked = 0, prove_utc_us = ?", self._outbox.now_us())

    def closed(self, rows: Sequence[Owed]) -> None:
        """The answer says nothing of these: they are asked about again when it is time."""
        self._update(rows, "question = ''")

    def unprovable(self, rows: Sequence[Owed], why: str) -> None:
        """They stay `sent`: nobody can say whether the peer keeps them."""
        self._update(rows, "question = '', prove_utc_us = NULL, proof = ?", why)

    def confirm(self, rows: Sequence[Owed], by: str) -> None:
        """The peer says that it has them."""
        self._update(
            rows,
            "state = 'confirmed', proof = ?, question = '', prove_utc_us = NULL, proven_utc_us = ?",
            by,
            self._outbox.now_us(),
            event="confirmed",
        )

    def lost(self, rows: Sequence[Owed], reason: str) -> None:
        """The peer took them and has them not: owed again, under the same UIDs; parked when that happens too often."""
        now = self._outbox.now_us()
        again = [one for one in rows if one.lost + 1 < MOST_LOST]
        often = [one for one in rows if one.lost + 1 >= MOST_LOST]
        for one in again:
            self._update(
                [one],
                "state = 'owed', lost = lost + 1, reason = ?, question = '', asked = 0, prove_utc_us = NULL, "
                f"ended_utc_us = NULL, status = NULL, next_attempt_utc_us = ?, held = {HELD}",
                reason,
                now + delay_us(one.attempts),
            )
        told = f"{reason}; it took it {MOST_LOST} times"
        self._update(often, "state = 'parked', lost = lost + 1, reason = ?, question = '', prove_utc_us = NULL", told)
        with self._outbox.transaction() as connection:
            _record(connection, rows, "lost at destination", reason)

    def _update(self, rows: Sequence[Owed], change: str, *values: object, event: audit.Event | None = None) -> None:
        with self._outbox.transaction() as connection:
            connection.execute(
                f"UPDATE outbox SET {change} WHERE state = 'sent' AND id IN (SELECT value FROM json_each(?))",  # noqa: S608
                (*values, json.dumps([one.id for one in rows])),
            )
            if event:
                _record(connection, rows, event, "")


def _record(connection: sqlite3.Connection, rows: Sequence[Owed], event: audit.Event, reason: str) -> None:
    """One row for each case of a study, with its instances."""
    together: dict[tuple[str, str, str], list[str]] = {}
    for one in rows:
        key = one.study_instance_uid, one.case_key, one.destination
        together.setdefault(key, []).append(one.sop_instance_uid)
    for (study, case, destination), instances in together.items():
        audit.record(
            connection, event, study=study, case=case, destination=destination, instances=instances, reason=reason
        )
