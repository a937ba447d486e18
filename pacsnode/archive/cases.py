"""Cases in `node.db`: what was decided, what waits to be whole, what runs, what came out. One connection, one lock.

Each change and its audit row are one transaction.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pacsnode import audit
from pacsnode.archive import notes
from pacsnode.archive.case_rows import (
    Arrived,
    CaseRecord,
    Pending,
    ResultRecord,
    enter_results,
    joined,
    pending_of,
    places,
    record_of,
    to_json,
    verdict_of,
)
from pacsnode.database import connect, transaction, utc_us
from pacsnode.handover import Candidate, Case, Decision, RuleVerdict


class Cases:
    """Reads and writes the case tables; may be used by several threads."""

    def __init__(self, node_db: Path) -> None:
        self._connection = connect(node_db, "FULL")
        self._lock = threading.RLock()

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that others (the outbox) may join; calls of this object inside it belong to it."""
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
            else:
                with transaction(self._connection):
                    yield self._connection

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """What a query finds. It takes no write lock, as a transaction does; inside of one it belongs to it."""
        with self._lock:
            return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for queries alone, with no write lock."""
        with self._lock:
            yield self._connection

    # --- decisions and candidates

    def watermark(self) -> int:
        """Up to which revision of the index studies were decided."""
        return int(self.rows("SELECT revision FROM watermark")[0][0])

    def record_decision(self, decision: Decision, pending: Sequence[tuple[Candidate, Arrived]]) -> None:
        """Replace what was decided for the study; `pending`: the candidates that wait now."""
        uid = decision.study_instance_uid
        with self.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO decisions VALUES (?, ?, ?, ?, ?, ?)",
                (
                    uid,
                    decision.revision,
                    decision.rules_hash,
                    utc_us(),
                    to_json([asdict(v) for v in decision.verdicts]),
                    decision.is_matched,
                ),
            )
            connection.execute("DELETE FROM candidates WHERE study_instance_uid = ?", (uid,))
            connection.executemany(
                "INSERT INTO candidates (study_instance_uid, candidate, rules_hash, last_received_boot_us, boot_id, "
                "last_received_utc_us, peers) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        uid,
                        to_json(asdict(candidate)),
                        decision.rules_hash,
                        came.last_boot_us,
                        came.boot_id,
                        came.last_utc_us,
                        to_json(came.peers),
                    )
                    for candidate, came in pending
                ],
            )
            connection.execute("UPDATE watermark SET revision = max(revision, ?)", (decision.revision,))
            audit.record(
                connection,
                "decided",
                study=uid,
                rules_hash=decision.rules_hash,
                services=[c.service for c in decision.candidates],
            )

    def verdicts(self, study_instance_uid: str) -> tuple[str, tuple[RuleVerdict, ...]] | None:
        """The rules' hash and what each rule said to the study last; None before the first decision."""
        rows = self.rows("SELECT * FROM decisions WHERE study_instance_uid = ?", (study_instance_uid,))
        if not rows:
            return None
        return rows[0]["rules_hash"], tuple(verdict_of(v) for v in json.loads(rows[0]["verdicts"]))

    def pending(self, study_instance_uid: str = "") -> list[Pending]:
        """Candidates that wait to be whole, of one study or of all."""
        return [
            pending_of(r)
            for r in self.rows(
                "SELECT * FROM candidates WHERE ? IN ('', study_instance_uid) ORDER BY id", (study_instance_uid,)
            )
        ]

    def mark_overdue(self, pending: Pending, reason: str) -> None:
        """Enter that a candidate stays incomplete and waits for a person."""
        with self.transaction() as connection:
            connection.execute("UPDATE candidates SET overdue = 1 WHERE id = ?", (pending.id,))
            study, service = pending.candidate.study_instance_uid, pending.candidate.service
            audit.record(connection, "case stays incomplete", study=study, service=service, reason=reason)

    def unmatched_count(self) -> int:
        """How many studies no rule takes."""
        return int(self.rows("SELECT count(*) FROM decisions WHERE NOT matched")[0][0])

    # --- cases

    def open(self, pending: Pending, case: Case, because: str) -> None:
        """A candidate has become whole: a case now, waiting for its turn; one that exists gets its destinations."""
        candidate = pending.candidate
        with self.transaction() as connection:
            connection.execute("DELETE FROM candidates WHERE id = ?", (pending.id,))
            if self.get(case.key) is not None:
                self.unite(case.key, candidate)
                return
            if notes.some_rejected(connection, case.instances):  # since it was decided: it is decided again
                return
            connection.execute(
                "INSERT INTO cases (key, study_instance_uid, service, rules, rules_hash, instances, results, "
                "send_to, priority, state, whole_because, supersedes, started_utc_us, shadow, on_failure) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?, ?, ?, ?, ?)",
                (
                    case.key,
                    case.study_instance_uid,
                    case.service,
                    to_json(case.rules),
                    case.rules_hash,
                    to_json(case.instances),
                    to_json(case.results),
                    to_json(candidate.send_to),
                    candidate.priority,
                    because,
                    case.supersedes,
                    case.started_utc_us,
                    candidate.shadow,
                    candidate.on_failure,
                ),
            )
            audit.record(connection, "case opened", study=case.study_instance_uid, case=case.key, service=case.service)

    def unite(self, key: str, candidate: Candidate) -> bool:
        """Another decision led to a case that exists: destinations, results and rules are united. Whether it grew.

        What a live rule asks for is live from then on, for its destinations alone; one in shadow adds nothing to it.
        """
        with self.transaction() as connection:
            held = self.get(key)
            assert held is not None
            if candidate.shadow and not held.shadow:
                return False
            if held.shadow and not candidate.shadow:
                _go_live(connection, key, candidate)
                return True
            if candidate.on_failure == "tell":
                connection.execute("UPDATE cases SET on_failure = 'tell' WHERE key = ?", (key,))
            grown = {
                "send_to": joined(held.send_to, candidate.send_to),
                "results": joined(held.case.results, candidate.results),
                "rules": joined(held.case.rules, candidate.rules),
            }
            if tuple(grown.values()) == (held.send_to, held.case.results, held.case.rules):
                return False
            connection.execute(
                "UPDATE cases SET send_to = ?, results = ?, rules = ? WHERE key = ?",
                (*map(to_json, grown.values()), key),
            )
            return True

    def take(
        self,
        running_limit: int,
        vendors: Collection[str] = (),
        served: Collection[str] = (),
        *,
        is_served: bool = False,
    ) -> list[CaseRecord]:
        """Mark the most urgent waiting cases as running, up to `running_limit` in all, and return them.

        Stat has an eighth of places more, off-peak a quarter less: what is urgent finds one at once. Of the services
        `vendors`, whose work others do, only cases whose answer is here. One in shadow runs alone, and starts only when
        no live one waits or runs: it must delay nobody. All this among the services `served` alone, or all others.
        """
        ready = (
            "SELECT * FROM cases c WHERE state = 'waiting' AND shadow = ? "
            "AND (service IN (SELECT value FROM json_each(?))) = ? "
            "AND (service NOT IN (SELECT value FROM json_each(?)) "
            "OR EXISTS (SELECT 1 FROM asked a WHERE a.case_key = c.key AND a.answered_attempt = c.attempt)) "
            "ORDER BY priority, started_utc_us LIMIT ?"
        )
        running = (
            "SELECT count(*) FILTER (WHERE NOT shadow), count(*) FILTER (WHERE shadow) FROM cases "
            "WHERE state = 'running' AND (service IN (SELECT value FROM json_each(?))) = ?"
        )
        others, most, lane = (
            to_json(tuple(vendors)),
            running_limit + running_limit // 8,
            (to_json([*served]), is_served),
        )
        with self.transaction() as connection:
            live, shadows = connection.execute(running, lane).fetchone()
            waiting = connection.execute(ready, (0, *lane, others, max(0, most - live))).fetchall()
            rows = [r for n, r in enumerate(waiting, live) if n < places(r["priority"], running_limit)]
            if not live and not waiting and not shadows:
                rows = connection.execute(ready, (1, *lane, others, min(1, running_limit))).fetchall()
            connection.executemany("UPDATE cases SET state = 'running' WHERE key = ?", [(r["key"],) for r in rows])
        return [record_of(r) for r in rows]

    def running(self) -> list[CaseRecord]:
        """Cases that some process took and did not end."""
        return [record_of(r) for r in self.rows("SELECT * FROM cases WHERE state = 'running'")]

    def waiting_count(self) -> int:
        """How many cases wait for their turn."""
        return int(self.rows("SELECT count(*) FROM cases WHERE state = 'waiting'")[0][0])

    def get(self, key: str) -> CaseRecord | None:
        """One case."""
        rows = self.rows("SELECT * FROM cases WHERE key = ?", (key,))
        return record_of(rows[0]) if rows else None

    def of_study(self, study_instance_uid: str) -> list[CaseRecord]:
        """All cases of a study, oldest first."""
        rows = self.rows(
            "SELECT * FROM cases WHERE study_instance_uid = ? ORDER BY started_utc_us", (study_instance_uid,)
        )
        return [record_of(r) for r in rows]

    def listing(self, state: str, limit: int) -> list[CaseRecord]:
        """The newest cases, of one state or of all ("")."""
        rows = self.rows(
            "SELECT * FROM cases WHERE ? IN ('', state) ORDER BY started_utc_us DESC LIMIT ?", (state, limit)
        )
        return [record_of(r) for r in rows]

    def parked_because(self, beginning: str) -> list[CaseRecord]:
        """Parked cases whose reason begins so, the oldest first."""
        rows = self.rows(
            "SELECT * FROM cases WHERE state = 'parked' AND substr(reason, 1, ?) = ? ORDER BY started_utc_us",
            (len(beginning), beginning),
        )
        return [record_of(r) for r in rows]

    def note_timing(self, key: str, timings: dict[str, float]) -> None:
        """Add seconds by step to a case."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE cases SET timings = json_patch(timings, ?) WHERE key = ?", (json.dumps(timings), key)
            )

    def park(self, key: str, attempt: int, reason: str) -> None:
        """This attempt cannot go on; an operator reads the reason. A later attempt is left alone."""
        with self.transaction() as connection:
            changed = connection.execute(
                "UPDATE cases SET state = 'parked', reason = ?, finished_utc_us = ? "
                "WHERE key = ? AND attempt = ? AND state NOT IN ('done', 'withdrawn')",
                (reason, utc_us(), key, attempt),
            ).rowcount
            if changed:
                audit.record(connection, "case parked", case=key, reason=reason)
                notes.add_failure(connection, key, attempt, reason)

    def retry(self, key: str) -> bool:
        """Put a parked case back in the line; False when it is not parked."""
        with self.transaction() as connection:
            changed = connection.execute(
                "UPDATE cases SET state = 'waiting', reason = '', attempt = attempt + 1, finished_utc_us = NULL "
                "WHERE key = ? AND state = 'parked'",
                (key,),
            ).rowcount
            if changed:
                audit.record(connection, "case retried", case=key)
        return bool(changed)

    def run_again(self, key: str) -> int:
        """A new attempt for a running case that the engine has lost; returns its number."""
        with self.transaction() as connection:
            row = connection.execute(
                "UPDATE cases SET attempt = attempt + 1 WHERE key = ? RETURNING attempt", (key,)
            ).fetchone()
        return int(row[0])

    def add_results(
        self, key: str, results: Sequence[ResultRecord], owe: Callable[[sqlite3.Connection], None], *, is_last: bool
    ) -> None:
        """Results recorded and deliveries owed, and with the last of them the case done: one transaction."""
        with self.transaction() as connection:
            enter_results(connection, results)
            owe(connection)
            if is_last:
                connection.execute(
                    "UPDATE cases SET state = 'done', reason = '', finished_utc_us = ? WHERE key = ?", (utc_us(), key)
                )
                audit.record(connection, "case done", case=key)

    def results(self, key: str) -> list[ResultRecord]:
        """Archived results of a case."""
        with self.reading() as connection:
            return notes.objects(connection, key)


def _go_live(connection: sqlite3.Connection, key: str, candidate: Candidate) -> None:
    """A case in shadow that a live rule asks for."""
    connection.execute(
        "UPDATE cases SET shadow = 0, send_to = ?, results = ?, rules = ?, priority = ?, on_failure = ? WHERE key = ?",
        (
            *map(to_json, (candidate.send_to, candidate.results, candidate.rules)),
            candidate.priority,
            candidate.on_failure,
            key,
        ),
    )
    audit.record(connection, "case in shadow goes live", case=key)
