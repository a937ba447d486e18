"""Notes in `node.db`: what the node itself has to say of a case beside its results, from when it is due until it is
archived and owed.

A rejection withdraws results that were sent; a failure says that a case could not be analysed. What is made of a note
stands in `results` under the note's key, so that it is ours and no case's result. Never makes an object.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pacsnode import audit
from pacsnode.archive.case_rows import ResultRecord, enter_results, result_of, to_json
from pacsnode.database import utc_us

NoteKind = Literal["rejection", "failure"]
_EVENTS: Final[dict[NoteKind, audit.Event]] = {"rejection": "rejection note made", "failure": "failure told"}


@dataclass(frozen=True)
class Note:
    """One note. `code`, `instances` (objects of ours) and `destinations` are of a rejection."""

    key: str
    kind: NoteKind
    case_key: str
    study_instance_uid: str
    code: str
    reason: str
    instances: tuple[str, ...]
    destinations: tuple[str, ...]
    told_utc_us: int
    state: str
    problem: str


def add_failure(connection: sqlite3.Connection, case_key: str, attempt: int, reason: str) -> None:
    """A case whose rule tells failures was parked: say so, once for each reason. The caller holds the transaction."""
    row = connection.execute(
        "SELECT study_instance_uid FROM cases WHERE key = ? AND on_failure = 'tell' AND NOT shadow", (case_key,)
    ).fetchone()
    told = [note for note in of_case(connection, case_key) if note.kind == "failure"]
    if row is None or (told and told[-1].reason == reason):
        return
    key = f"{case_key}:failure:{attempt}"
    _add(connection, Note(key, "failure", case_key, row[0], "", reason, (), (), _now(), "due", ""))


def add_rejection(
    connection: sqlite3.Connection,
    case_key: str,
    title: tuple[str, str],
    instances: Collection[str],
    destinations: Collection[str],
) -> None:
    """Withdraw these objects of ours from those who have them. `title`: code and reason. In a transaction as above."""
    if not instances or not destinations:
        return
    study = connection.execute("SELECT study_instance_uid FROM cases WHERE key = ?", (case_key,)).fetchone()[0]
    number = sum(note.kind == "rejection" for note in of_case(connection, case_key))
    key = f"{case_key}:rejection{f':{number + 1}' if number else ''}"
    given = tuple(sorted(instances)), tuple(sorted(destinations))
    _add(connection, Note(key, "rejection", case_key, study, *title, *given, _now(), "due", ""))


def of_case(connection: sqlite3.Connection, case_key: str) -> list[Note]:
    """The notes about a case, oldest first."""
    rows = connection.execute("SELECT * FROM notes WHERE case_key = ? ORDER BY told_utc_us, key", (case_key,))
    return [_note(row) for row in rows.fetchall()]


def standing_failures(connection: sqlite3.Connection, case_key: str) -> list[ResultRecord]:
    """Objects that say that the case was not analysed, and that nothing has withdrawn."""
    notes = of_case(connection, case_key)
    gone = {uid for note in notes if note.kind == "rejection" for uid in note.instances}
    made = [one for note in notes if note.kind == "failure" for one in objects(connection, note.key)]
    return [one for one in made if one.sop_instance_uid not in gone]


def objects(connection: sqlite3.Connection, key: str) -> list[ResultRecord]:
    """What is archived of a case or note."""
    rows = connection.execute("SELECT * FROM results WHERE case_key = ? ORDER BY sop_instance_uid", (key,)).fetchall()
    return [result_of(row) for row in rows]


def some_rejected(connection: sqlite3.Connection, instances: Collection[str]) -> bool:
    """Whether one of these instances counts no more."""
    sql = "SELECT 1 FROM rejected WHERE sop_instance_uid IN (SELECT value FROM json_each(?)) LIMIT 1"
    return connection.execute(sql, (to_json(list(instances)),)).fetchone() is not None


def due(connection: sqlite3.Connection, limit: int = 100) -> list[Note]:
    """Notes that are to be made, oldest first."""
    rows = connection.execute("SELECT * FROM notes WHERE state = 'due' ORDER BY told_utc_us, key LIMIT ?", (limit,))
    return [_note(row) for row in rows.fetchall()]


def is_rejection(connection: sqlite3.Connection, sop_instance_uid: str) -> bool:
    """Whether an object is a rejection note of ours."""
    sql = "SELECT 1 FROM results r JOIN notes n ON n.key = r.case_key WHERE r.sop_instance_uid = ? AND n.kind = ?"
    return connection.execute(sql, (sop_instance_uid, "rejection")).fetchone() is not None


def made(connection: sqlite3.Connection, note: Note, results: Sequence[ResultRecord]) -> None:
    """The objects of a note are archived; the caller owes them in the same transaction."""
    enter_results(connection, results)
    connection.execute("UPDATE notes SET state = 'done', problem = '' WHERE key = ?", (note.key,))
    audit.record(
        connection,
        _EVENTS[note.kind],
        study=note.study_instance_uid,
        case=note.case_key,
        instances=[r.sop_instance_uid for r in results],
        reason=note.reason,
    )


def park(connection: sqlite3.Connection, note: Note, problem: str) -> None:
    """A note cannot be made; `jobs retry` of its case tries again."""
    connection.execute("UPDATE notes SET state = 'parked', problem = ? WHERE key = ?", (problem, note.key))


def drop(connection: sqlite3.Connection, note: Note) -> None:
    """What a note says is not true any more, and nobody has heard it."""
    connection.execute("DELETE FROM notes WHERE key = ? AND state != 'done'", (note.key,))


def retry(connection: sqlite3.Connection, case_key: str) -> int:
    """Let parked notes of a case be made again; how many."""
    sql = "UPDATE notes SET state = 'due', problem = '' WHERE case_key = ? AND state = 'parked'"
    return connection.execute(sql, (case_key,)).rowcount


def _now() -> int:
    # In whole milliseconds, as the start of a case: it becomes a part of the object's bytes.
    return utc_us() // 1000 * 1000


def _add(connection: sqlite3.Connection, note: Note) -> None:
    values = vars(note) | {"instances": to_json(note.instances), "destinations": to_json(note.destinations)}
    connection.execute(
        "INSERT OR IGNORE INTO notes VALUES (:key, :kind, :case_key, :study_instance_uid, :code, :reason, :instances, "
        ":destinations, :told_utc_us, :state, :problem)",
        values,
    )


def _note(row: sqlite3.Row) -> Note:
    lists = {name: tuple(json.loads(row[name])) for name in ("instances", "destinations")}
    return Note(**{name: row[name] for name in row.keys()} | lists)  # noqa: SIM118  # a row has no .items()
