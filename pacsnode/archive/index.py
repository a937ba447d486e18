"""What the index knows, read: studies with their instances, changes since a revision, paths. Never writes."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from pacsnode.archive.described import Reading
from pacsnode.database import connect
from pacsnode.handover import Instance, Study


@dataclass(frozen=True)
class Aside:
    """An object that was kept, but apart from its study."""

    path: str
    sop_instance_uid: str
    reason: str
    peer: str
    received_utc_us: int


@dataclass(frozen=True)
class Copy:
    """Bytes that are held under a SOP Instance UID; `sop_class_uid` is "" for those that are kept aside."""

    path: str
    dataset_sha256: str
    sop_class_uid: str


@dataclass(frozen=True)
class StudyLine:
    """One study in a list; no name, no PatientID."""

    study_instance_uid: str
    modalities: tuple[str, ...]
    instances: int
    last_received_utc_us: int
    conflict: str


class Index:
    """Reads `index.db`; one object for one thread."""

    def __init__(self, index_db: Path) -> None:
        self._connection = connect(index_db, "NORMAL", automatic_checkpoint=False)
        self._connection.execute("PRAGMA query_only=1")

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def changed_since(self, revision: int, limit: int = 100) -> list[tuple[str, int]]:
        """(StudyInstanceUID, revision) of studies changed after `revision`, in the order of their last change."""
        return [
            (uid, changed)
            for uid, changed in self._connection.execute(
                "SELECT study_instance_uid, revision FROM studies WHERE revision > ? ORDER BY revision LIMIT ?",
                (revision, limit),
            )
        ]

    def study(self, study_instance_uid: str) -> Study | None:
        """The study with all that was received of it; None when it is not known."""
        self._connection.execute("BEGIN")  # one snapshot: revision and instances belong together
        try:
            head = self._connection.execute(
                "SELECT * FROM studies WHERE study_instance_uid = ?", (study_instance_uid,)
            ).fetchone()
            if head is None:
                return None
            instances = self._connection.execute(
                "SELECT * FROM instances WHERE study_instance_uid = ? AND origin = 'received' "
                "ORDER BY sop_instance_uid",
                (study_instance_uid,),
            ).fetchall()
            reading = Reading(self._connection)
            reading.begin(study_instance_uid)
        finally:
            self._connection.execute("COMMIT")
        return Study(
            study_instance_uid,
            head["issuer"],
            head["patient_id"],
            head["conflict"],
            head["revision"],
            tuple(_instance(row, reading) for row in instances),
        )

    def instance(self, sop_instance_uid: str) -> Instance | None:
        """One instance, received or a result of ours."""
        self._connection.execute("BEGIN")
        try:
            row = self._connection.execute(
                "SELECT * FROM instances WHERE sop_instance_uid = ?", (sop_instance_uid,)
            ).fetchone()
            return None if row is None else _instance(row, Reading(self._connection))
        finally:
            self._connection.execute("COMMIT")

    def path(self, sop_instance_uid: str) -> str | None:
        """Where an instance lies below `files/`, received or a result of ours; None where there is none."""
        row = self._connection.execute(
            "SELECT path FROM instances WHERE sop_instance_uid = ?", (sop_instance_uid,)
        ).fetchone()
        return None if row is None else str(row["path"])

    def answers(self, study_instance_uid: str, peer: str = "") -> list[Instance]:
        """What a vendor's node (or any, "") sent as results of the study, in the order of arrival."""
        self._connection.execute("BEGIN")
        try:
            rows = self._connection.execute(
                "SELECT * FROM instances WHERE study_instance_uid = ? AND origin = 'answer' AND ? IN ('', peer) "
                "ORDER BY received_utc_us, sop_instance_uid",
                (study_instance_uid, peer),
            ).fetchall()
            reading = Reading(self._connection)
            return [_instance(row, reading) for row in rows]
        finally:
            self._connection.execute("COMMIT")

    def asides_of_peer(self, peer: str, since_utc_us: int) -> list[Aside]:
        """What was kept apart of what a peer sent since then, oldest first."""
        return self._asides("WHERE peer = ? AND received_utc_us >= ? ORDER BY received_utc_us", (peer, since_utc_us))

    def copies(self, sop_instance_uid: str, peer: str) -> list[Copy]:
        """The instance, then what else `peer` sent under its UID; none where the instance is not held."""
        held = self._connection.execute(
            "SELECT path, dataset_sha256, sop_class_uid FROM instances WHERE sop_instance_uid = ?", (sop_instance_uid,)
        ).fetchall()
        beside = self._connection.execute(
            "SELECT path, dataset_sha256, '' FROM aside WHERE sop_instance_uid = ? AND peer = ?",
            (sop_instance_uid, peer),
        ).fetchall()
        return [Copy(*row) for row in (*held, *beside)] if held else []

    def conflict(self, study_instance_uid: str) -> str:
        """Why the study's instances cannot be of one patient; "" when they can."""
        row = self._connection.execute(
            "SELECT conflict FROM studies WHERE study_instance_uid = ?", (study_instance_uid,)
        ).fetchone()
        return str(row["conflict"]) if row else ""

    def repaired(self, study_instance_uid: str) -> dict[str, int]:
        """Attributes whose text was read against its declaration, or has lost characters, and in how many instances."""
        found: dict[str, int] = {}
        for keywords, count in self._connection.execute(
            "SELECT damaged, COUNT(*) FROM instances WHERE study_instance_uid = ? AND origin = 'received' "
            "AND damaged != '[]' GROUP BY damaged ORDER BY damaged",
            (study_instance_uid,),
        ):
            for keyword in json.loads(keywords):
                found[keyword] = found.get(keyword, 0) + count
        return found

    def aside(self, study_instance_uid: str) -> list[Aside]:
        """What was kept apart from a study, oldest first."""
        return self._asides("WHERE study_instance_uid = ? ORDER BY received_utc_us", (study_instance_uid,))

    def newest_aside(self, limit: int) -> list[Aside]:
        """The newest objects kept aside, of whatever study, also of none that could be read."""
        return self._asides("ORDER BY received_utc_us DESC LIMIT ?", (limit,))

    def _asides(self, which: str, parameters: tuple[object, ...]) -> list[Aside]:
        return [
            Aside(r["path"], r["sop_instance_uid"], r["reason"], r["peer"], r["received_utc_us"])
            for r in self._connection.execute(f"SELECT * FROM aside {which}", parameters)  # noqa: S608  # our words
        ]

    def aside_count(self) -> int:
        """How many objects are kept aside in all."""
        return int(self._connection.execute("SELECT count(*) FROM aside").fetchone()[0])

    def conflicts(self) -> list[tuple[str, str]]:
        """(StudyInstanceUID, reason) of every study whose instances disagree in identity."""
        return [
            (uid, reason)
            for uid, reason in self._connection.execute(
                "SELECT study_instance_uid, conflict FROM studies WHERE conflict != '' ORDER BY last_received_utc_us"
            )
        ]

    def studies(self, limit: int) -> list[StudyLine]:
        """The newest studies."""
        return [
            StudyLine(
                r["study_instance_uid"],
                tuple(sorted(set((r["modalities"] or "").split(",")) - {""})),
                r["instances"],
                r["last_received_utc_us"],
                r["conflict"],
            )
            for r in self._connection.execute(
                """SELECT s.study_instance_uid, s.last_received_utc_us, s.conflict, count(*) AS instances,
                          group_concat(DISTINCT json_extract(a.attributes, '$.Modality[0]')) AS modalities
                   FROM (SELECT * FROM studies ORDER BY last_received_utc_us DESC LIMIT ?) s
                   JOIN instances i ON i.study_instance_uid = s.study_instance_uid AND i.origin = 'received'
                   JOIN common a ON a.id = i.common
                   GROUP BY s.study_instance_uid ORDER BY s.last_received_utc_us DESC""",
                (limit,),
            )
        ]


def _instance(row: sqlite3.Row, reading: Reading) -> Instance:
    return Instance(
        row["sop_instance_uid"],
        row["sop_class_uid"],
        row["series_instance_uid"],
        row["study_instance_uid"],
        row["transfer_syntax_uid"],
        row["path"],
        row["dataset_sha256"],
        row["peer"],
        row["received_utc_us"],
        row["received_boot_us"],
        row["boot_id"],
        reading.attributes(row["common"], row["own"]),
    )
