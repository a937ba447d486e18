"""Cases whose work a vendor's node does, in `node.db`: asked, answered, and which answers were refused.

A case goes waiting → asked → waiting, its answer being here → running → done or parked. Each change and its audit row
are one transaction, which the outbox joins; so a kill at any moment leaves a case that goes on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from pacsnode import audit
from pacsnode.archive.case_rows import CaseRecord, record_of, to_json
from pacsnode.archive.cases import Cases
from pacsnode.database import utc_us

STILL_OWED: Final = ("owed", "sending")
ENDED_UNSENT: Final = ("parked", "refused", "cancelled")
"""States of an image in the outbox that its vendor's node has not, and of one that it will not get by itself."""


@dataclass(frozen=True)
class AskedCase:
    """A case and when its vendor's node was asked, on the wall's clock."""

    record: CaseRecord
    peer: str
    asked_utc_us: int
    until_utc_us: int


class AskedCases:
    """Reads and writes what is asked; as `Cases`, whose connection it uses, for several threads."""

    def __init__(self, cases: Cases) -> None:
        self._cases = cases

    def to_ask(self, services: Collection[str]) -> list[CaseRecord]:
        """Waiting cases of these services whose answer is not here, the most urgent first."""
        rows = self._cases.rows(
            "SELECT * FROM cases c WHERE state = 'waiting' AND service IN (SELECT value FROM json_each(?)) "
            "AND NOT EXISTS (SELECT 1 FROM asked a WHERE a.case_key = c.key AND a.answered_attempt = c.attempt) "
            "ORDER BY priority, started_utc_us",
            (to_json(tuple(services)),),
        )
        return [record_of(row) for row in rows]

    def ask(
        self, record: CaseRecord, peer: str, within_s: float, owe: Callable[[sqlite3.Connection], None]
    ) -> AskedCase:
        """The case waits for an answer from now on; `owe` enters what is sent for it."""
        now, case = utc_us(), record.case
        asked = AskedCase(record, peer, now, now + int(within_s * 1_000_000))
        with self._cases.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?, ?, 0)",
                (case.key, case.study_instance_uid, peer, now, asked.until_utc_us),
            )
            connection.execute(
                "UPDATE cases SET state = 'asked', reason = '' WHERE key = ? AND state = 'waiting'", (case.key,)
            )
            owe(connection)
            audit.record(
                connection,
                "vendor asked",
                study=case.study_instance_uid,
                case=case.key,
                service=case.service,
                peer=peer,
            )
        return asked

    def open(self, late_since_utc_us: int, beginning: str) -> list[AskedCase]:
        """Cases that an answer may be for: those that wait for one, the oldest first; then those that were asked since
        then, and parked with a reason that begins so."""
        rows = self._cases.rows(
            "SELECT c.*, a.peer, a.asked_utc_us, a.until_utc_us FROM cases c JOIN asked a ON a.case_key = c.key "
            "WHERE c.state = 'asked' UNION ALL "
            "SELECT c.*, a.peer, a.asked_utc_us, a.until_utc_us FROM asked a JOIN cases c ON c.key = a.case_key "
            "WHERE a.asked_utc_us >= ? AND c.state = 'parked' AND substr(c.reason, 1, ?) = ? "
            "ORDER BY state, asked_utc_us",
            (late_since_utc_us, len(beginning), beginning),
        )
        return [AskedCase(record_of(r), r["peer"], r["asked_utc_us"], r["until_utc_us"]) for r in rows]

    def is_busy(self, study_instance_uid: str, peer: str) -> bool:
        """Whether an answer of this peer for this study is being taken up, so that nobody knows yet what is left."""
        rows = self._cases.rows(
            "SELECT 1 FROM asked a JOIN cases c ON c.key = a.case_key "
            "WHERE a.study_instance_uid = ? AND a.peer = ? "
            "AND (c.state = 'running' OR (c.state = 'waiting' AND a.answered_attempt = c.attempt))",
            (study_instance_uid, peer),
        )
        return bool(rows)

    def answered(self, key: str) -> None:
        """The answer is here: the case gets in line again, to have it looked at."""
        with self._cases.transaction() as connection:
            self._cases.retry(key)
            connection.execute("UPDATE cases SET state = 'waiting' WHERE key = ? AND state = 'asked'", (key,))
            connection.execute(
                "UPDATE asked SET answered_attempt = (SELECT attempt FROM cases WHERE key = case_key) "
                "WHERE case_key = ?",
                (key,),
            )

    def is_asked(self, key: str) -> bool:
        """Whether a vendor's node does the work of this case."""
        return bool(self._cases.rows("SELECT 1 FROM asked WHERE case_key = ?", (key,)))

    def free(self, sop_instance_uids: Sequence[str]) -> set[str]:
        """Those that are no result of a case and were not refused."""
        rows = self._cases.rows(
            "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT sop_instance_uid FROM results) "
            "AND value NOT IN (SELECT sop_instance_uid FROM refused_answers)",
            (to_json(list(sop_instance_uids)),),
        )
        return {str(uid) for (uid,) in rows}

    def refuse(self, record: CaseRecord, reasons: dict[str, str]) -> None:
        """These objects (reason by UID) are no answer: never looked at again, never delivered."""
        case = record.case
        with self._cases.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO refused_answers VALUES (?, ?, ?, ?)",
                [(uid, case.key, reason, utc_us()) for uid, reason in reasons.items()],
            )
            for uid, reason in reasons.items():
                audit.record(
                    connection,
                    "answer refused",
                    study=case.study_instance_uid,
                    case=case.key,
                    instance=uid,
                    reason=reason,
                )

    def refusals(self, sop_instance_uids: Sequence[str]) -> dict[str, str]:
        """Why objects were refused, of those that were."""
        rows = self._cases.rows(
            "SELECT sop_instance_uid, reason FROM refused_answers "
            "WHERE sop_instance_uid IN (SELECT value FROM json_each(?))",
            (to_json(list(sop_instance_uids)),),
        )
        return {str(uid): str(reason) for uid, reason in rows}

    def rejected(self, study_instance_uid: str) -> set[str]:
        """Images of a study that count no more: an answer may not refer to them."""
        sql = "SELECT sop_instance_uid FROM rejected WHERE study_instance_uid = ?"
        return {str(uid) for (uid,) in self._cases.rows(sql, (study_instance_uid,))}

    def until_utc_us(self, key: str) -> int | None:
        """Until when a case waits for its answer; None where it does not."""
        rows = self._cases.rows(
            "SELECT a.until_utc_us FROM asked a JOIN cases c ON c.key = a.case_key "
            "WHERE a.case_key = ? AND c.state = 'asked'",
            (key,),
        )
        return int(rows[0][0]) if rows else None

    def unsent(self, key: str, *states: str) -> tuple[int, str]:
        """How many images of a case stand in such a state toward its vendor's node, and what was said of one."""
        rows = self._cases.rows(
            "SELECT o.reason FROM asked a JOIN outbox o ON o.case_key = a.case_key AND o.destination = a.peer "
            "WHERE a.case_key = ? AND o.state IN (SELECT value FROM json_each(?)) ORDER BY o.reason DESC",
            (key, to_json(states)),
        )
        return len(rows), str(rows[0]["reason"]) if rows else ""
