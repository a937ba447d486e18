"""Rows of the case tables of `node.db` as records, and back: lists and maps are JSON there. Reads no database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from pacsnode.database import utc_us
from pacsnode.handover import Candidate, Case, Clause, Completion, Late, ResultKind, ResultObject, RuleVerdict

STAT, OFF_PEAK = 1, 20
"""Of the priorities of cases, as `route` gives them: the lowest goes first."""


@dataclass(frozen=True)
class Arrived:
    """When the newest instance of a candidate came, on the boot clock and on the wall's, and from which peers all."""

    last_boot_us: int
    boot_id: str
    last_utc_us: int
    peers: tuple[str, ...]


@dataclass(frozen=True)
class Pending:
    """A candidate that waits to be whole. `is_overdue`: an alarm was given that it stays incomplete."""

    id: int
    candidate: Candidate
    rules_hash: str
    arrived: Arrived
    is_overdue: bool


@dataclass(frozen=True)
class CaseRecord:
    """A case with its state. `shadow`: nothing of it is ever sent."""

    case: Case
    send_to: tuple[str, ...]
    priority: int
    state: str
    reason: str
    whole_because: str
    attempt: int
    timings: dict[str, float]
    finished_utc_us: int | None
    shadow: bool


@dataclass(frozen=True)
class ResultRecord:
    """One archived result; `path` is below `files/`. `form`: `Form.tag` of its kind, "" as shipped."""

    sop_instance_uid: str
    case_key: str
    kind: ResultKind
    sop_class_uid: str
    series_instance_uid: str
    path: str
    form: str = ""


def result_record(case: Case, made: ResultObject, path: str) -> ResultRecord:
    """The record of an encoded object that lies at `path` below `files/`."""
    named = made.sop_instance_uid, case.key, made.kind, made.sop_class_uid, made.series_instance_uid
    return ResultRecord(*named, path, made.form)


def enter_results(connection: sqlite3.Connection, results: Iterable[ResultRecord]) -> None:
    """Results that are archived; one that stands there already stays. The caller holds the transaction."""
    connection.executemany(
        "INSERT OR IGNORE INTO results (sop_instance_uid, case_key, kind, sop_class_uid, series_instance_uid, path, "
        "form, created_utc_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(*astuple(result), utc_us()) for result in results],
    )


def replaced_by(record: CaseRecord, of_study: Sequence[CaseRecord]) -> list[CaseRecord]:
    """The cases in whose place this one stands, newest first: back to the last that has a report."""
    by_key = {one.case.key: one for one in of_study}
    found: list[CaseRecord] = []
    key = record.case.supersedes
    while key in by_key and len(found) < len(by_key):
        found.append(by_key[key])
        if found[-1].state == "done":
            break
        key = found[-1].case.supersedes
    return found


def is_replaced_by(record: CaseRecord, later: CaseRecord, of_study: Sequence[CaseRecord]) -> bool:
    """Whether a later case has a report in place of this one's."""
    return later.state == "done" and record.case.key in {r.case.key for r in replaced_by(later, of_study)}


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def candidate_of(text: str) -> Candidate:
    plain = json.loads(text)
    lists = {k: tuple(plain[k]) for k in ("rules", "instances", "results", "send_to")}
    completion = plain["completion"] | {"missing": tuple(plain["completion"].get("missing", ()))}
    late = Late(**plain.get("late", {}))
    return Candidate(**(plain | lists | {"completion": Completion(**completion), "late": late}))


def pending_of(row: sqlite3.Row) -> Pending:
    peers = tuple(json.loads(row["peers"]))
    came = Arrived(row["last_received_boot_us"], row["boot_id"], row["last_received_utc_us"], peers)
    return Pending(row["id"], candidate_of(row["candidate"]), row["rules_hash"], came, bool(row["overdue"]))


def verdict_of(plain: dict[str, Any]) -> RuleVerdict:
    return RuleVerdict(**(plain | {"clauses": tuple(Clause(**c) for c in plain["clauses"])}))


def record_of(row: sqlite3.Row) -> CaseRecord:
    case = Case(
        row["key"],
        row["study_instance_uid"],
        row["service"],
        tuple(json.loads(row["rules"])),
        row["rules_hash"],
        tuple(json.loads(row["instances"])),
        tuple(json.loads(row["results"])),
        row["started_utc_us"],
        row["supersedes"],
    )
    return CaseRecord(
        case,
        tuple(json.loads(row["send_to"])),
        row["priority"],
        row["state"],
        row["reason"],
        row["whole_because"],
        row["attempt"],
        json.loads(row["timings"]),
        row["finished_utc_us"],
        bool(row["shadow"]),
    )


def result_of(row: sqlite3.Row) -> ResultRecord:
    columns = ("sop_instance_uid", "case_key", "kind", "sop_class_uid", "series_instance_uid", "path", "form")
    return ResultRecord(*(row[column] for column in columns))


def joined(held: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    """Both, without what is there twice."""
    return held + tuple(one for one in more if one not in held)


def places(priority: int, running_limit: int) -> int:
    """How many cases may run for one of this priority to start: some places are kept for what is urgent."""
    if priority <= STAT:
        return running_limit + running_limit // 8
    return running_limit - running_limit // 4 if priority >= OFF_PEAK else running_limit
