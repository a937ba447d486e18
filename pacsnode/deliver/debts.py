"""What is owed, entered and withdrawn: rows of the outbox, in the transaction of the fact that they follow from.

In: a connection whose transaction the caller holds, cases and instances. Out: rows. Never talks to a peer.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pacsnode import audit
from pacsnode.database import utc_us
from pacsnode.deliver.holding import HELD, OWED_ANEW
from pacsnode.deliver.outbox import WITHDRAWN


@dataclass(frozen=True)
class Debt:
    """What a case owes: these instances to this destination, by these rules; `refusal` parks the rows at once."""

    destination: str
    instances: tuple[str, ...]
    refusal: str = ""
    rules: tuple[str, ...] = ()


class Had(NamedTuple):
    """What was withdrawn: the objects that somebody has or may get, and those who do."""

    instances: tuple[str, ...]
    destinations: tuple[str, ...]


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
        state, ended = ("parked", now) if debt.refusal else ("owed", None)
        rules = json.dumps(debt.rules, ensure_ascii=False)
        entered = connection.executemany(
            "INSERT OR IGNORE INTO outbox (sop_instance_uid, destination, case_key, study_instance_uid, state, "
            "priority, next_attempt_utc_us, created_utc_us, since_utc_us, ended_utc_us, reason, rules) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (uid, debt.destination, case_key, study, state, priority, now, now, now, ended, debt.refusal, rules)
                for uid in debt.instances
            ],
        ).rowcount
        if entered:
            if connection.execute("SELECT 1 FROM holds").fetchone():
                _hold(connection, debt)
            audit.record(
                connection,
                "owed",
                study=study,
                case=case_key,
                destination=debt.destination,
                instances=entered,
                refusal=debt.refusal,
            )


def _hold(connection: sqlite3.Connection, debt: Debt) -> None:
    """A hold keeps what is owed later too."""
    connection.executemany(
        f"UPDATE outbox SET held = {HELD} WHERE sop_instance_uid = ? AND destination = ? AND state = 'owed'",  # noqa: S608
        [(uid, debt.destination) for uid in debt.instances],
    )


def ask(connection: sqlite3.Connection, case_key: str, study: str, priority: int, debt: Debt) -> None:
    """Owe images of a case to the node that does its work, also those that went there before: it is asked anew.

    The caller holds the transaction.
    """
    owe(connection, case_key, study, priority, [debt])
    now = utc_us()
    connection.executemany(
        f"UPDATE outbox SET {OWED_ANEW}, case_key = ?, created_utc_us = ?, since_utc_us = ?, "  # noqa: S608  # our words
        "next_attempt_utc_us = ? WHERE sop_instance_uid = ? AND destination = ? "
        "AND (state NOT IN ('owed', 'sending') OR case_key != ?)",
        [(case_key, now, now, now, uid, debt.destination, case_key) for uid in debt.instances],
    )


def withdraw(connection: sqlite3.Connection, case_key: str, instances: Collection[str], reason: str) -> Had:
    """End what of these objects is not sent yet, with that reason; gives which of them somebody has or may get now, and
    who: what is on the line ends as it does. `case_key` is "" for images that are forwarded.
    """
    of_these = "case_key = ? AND sop_instance_uid IN (SELECT value FROM json_each(?))"
    given = (case_key, json.dumps(list(instances)))
    rows = connection.execute(
        f"SELECT sop_instance_uid, destination FROM outbox WHERE {of_these} "  # noqa: S608  # our own words
        "AND state IN ('owed', 'sending', 'sent', 'confirmed')",
        given,
    ).fetchall()
    connection.execute(
        "UPDATE outbox SET state = 'cancelled', reason = ?, ended_utc_us = ? "  # noqa: S608  # our own words
        f"WHERE {of_these} AND state IN ('owed', 'parked', 'refused')",  # what is on the line may arrive
        (f"{WITHDRAWN}{reason}", utc_us(), *given),
    )
    return Had(*(tuple(sorted({str(row[n]) for row in rows})) for n in (0, 1)))
