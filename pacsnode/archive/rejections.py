"""What was rejected, in `node.db`: by which note or person, and what follows for the cases of the study.

One transaction holds the rejection, its cases, what is owed no more, and the notes that withdraw what was sent; so a
kill at any moment leaves all of it or nothing. Never reads a file, never makes an object.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pacsnode import audit
from pacsnode.archive import notes
from pacsnode.archive.case_rows import CaseRecord, record_of, to_json
from pacsnode.archive.cases import Cases
from pacsnode.database import utc_us
from pacsnode.dicom.rejection import in_words

Withdraw = Callable[[sqlite3.Connection, str, Collection[str], str], tuple[tuple[str, ...], tuple[str, ...]]]
"""`deliver.debts.withdraw`."""


@dataclass(frozen=True)
class ReceivedNote:
    """A Key Object Selection that came in, once looked at. `code` is "" where its title rejects nothing.

    `instances`: those of the study that it rejects; `objection`: why it rejects nothing though its title would.
    """

    sop_instance_uid: str
    study_instance_uid: str
    peer: str
    code: str
    instances: tuple[str, ...] = ()
    objection: str = ""


@dataclass(frozen=True)
class Rejection:
    """Instances of a study that count no more. `note`: the UID of the note that says so, "" for a person."""

    study_instance_uid: str
    instances: tuple[str, ...]
    code: str
    author: str
    note: str = ""

    @property
    def in_words(self) -> str:
        """For people and for the outbox."""
        return f"{in_words(self.code)}, by {self.author}"


@dataclass(frozen=True)
class RejectedInstance:
    """One instance that counts no more."""

    sop_instance_uid: str
    code: str
    author: str
    note: str
    rejected_utc_us: int


class Rejections:
    """Reads and writes rejections; uses the connection of `Cases`, so it may be used by several threads."""

    def __init__(self, cases: Cases, withdraw: Withdraw) -> None:
        self._cases = cases
        self._withdraw = withdraw

    def unread(self, sop_instance_uids: Collection[str]) -> set[str]:
        """Those that nobody has looked at as notes."""
        sql = "SELECT value FROM json_each(?) WHERE value NOT IN (SELECT sop_instance_uid FROM rejection_notes)"
        return {str(uid) for (uid,) in self._cases.rows(sql, (to_json(list(sop_instance_uids)),))}

    def enter(self, note: ReceivedNote) -> list[CaseRecord]:
        """A note was looked at: what it rejects counts no more from now on. Gives the cases that this withdrew."""
        study = note.study_instance_uid
        with self._cases.transaction() as connection:
            entered = connection.execute(
                "INSERT OR IGNORE INTO rejection_notes VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    note.sop_instance_uid,
                    study,
                    note.peer,
                    note.code,
                    note.objection,
                    len(note.instances),
                    utc_us(),
                ),
            ).rowcount
            if not entered or not note.code:
                return []
            if note.objection:
                audit.record(
                    connection,
                    "rejection note ignored",
                    study=study,
                    peer=note.peer,
                    note=note.sop_instance_uid,
                    reason=note.objection,
                )
                return []
            return self.reject(Rejection(study, note.instances, note.code, note.peer, note.sop_instance_uid))

    def reject(self, rejection: Rejection) -> list[CaseRecord]:
        """These instances count no more: their cases are withdrawn, and the study is decided again without them."""
        study, reason = rejection.study_instance_uid, rejection.in_words
        with self._cases.transaction() as connection:
            new = connection.executemany(
                "INSERT OR IGNORE INTO rejected VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (uid, study, rejection.code, rejection.author, rejection.note, utc_us())
                    for uid in rejection.instances
                ],
            ).rowcount
            if not new:
                return []
            audit.record(
                connection,
                "instances rejected",
                study=study,
                instances=new,
                code=rejection.code,
                author=rejection.author,
                note=rejection.note,
            )
            self._withdraw(connection, "", rejection.instances, reason)  # what is forwarded as it came
            connection.execute("DELETE FROM candidates WHERE study_instance_uid = ?", (study,))
            connection.execute("INSERT OR REPLACE INTO reconsider VALUES (?, ?)", (study, utc_us()))
            affected = self._affected(connection, rejection)
            for record in affected:
                self._withdraw_case(connection, record, rejection)
        return affected

    def _affected(self, connection: sqlite3.Connection, rejection: Rejection) -> list[CaseRecord]:
        rows = connection.execute(
            "SELECT * FROM cases c WHERE study_instance_uid = ? AND state != 'withdrawn' AND EXISTS ("
            "SELECT 1 FROM json_each(c.instances) WHERE value IN (SELECT value FROM json_each(?)))",
            (rejection.study_instance_uid, to_json(rejection.instances)),
        )
        return [record_of(row) for row in rows.fetchall()]

    def _withdraw_case(self, connection: sqlite3.Connection, record: CaseRecord, rejection: Rejection) -> None:
        key, reason = record.case.key, rejection.in_words
        connection.execute(
            "UPDATE cases SET state = 'withdrawn', reason = ?, finished_utc_us = ? WHERE key = ?",
            (reason, utc_us(), key),
        )
        results = [*notes.objects(connection, key), *notes.standing_failures(connection, key)]
        made = [one.sop_instance_uid for one in results]
        self._withdraw(connection, key, record.case.instances, reason)  # images for a vendor's node
        had, destinations = self._withdraw(connection, key, made, reason)
        audit.record(
            connection,
            "case withdrawn",
            study=record.case.study_instance_uid,
            case=key,
            results=made,
            destinations=destinations,
            code=rejection.code,
        )
        notes.add_rejection(connection, key, (rejection.code, reason), had, destinations)

    def of_study(self, study_instance_uid: str) -> list[RejectedInstance]:
        """What counts no more of a study."""
        rows = self._cases.rows(
            "SELECT sop_instance_uid, code, author, note, rejected_utc_us FROM rejected WHERE study_instance_uid = ? "
            "ORDER BY rejected_utc_us, sop_instance_uid",
            (study_instance_uid,),
        )
        return [RejectedInstance(*row) for row in rows]

    def ignored(self, study_instance_uid: str) -> list[ReceivedNote]:
        """Notes of a study that would reject and do nothing, with the reason."""
        rows = self._cases.rows(
            "SELECT sop_instance_uid, peer, code, objection FROM rejection_notes "
            "WHERE study_instance_uid = ? AND objection != '' ORDER BY looked_utc_us",
            (study_instance_uid,),
        )
        return [
            ReceivedNote(r["sop_instance_uid"], study_instance_uid, r["peer"], r["code"], objection=r["objection"])
            for r in rows
        ]

    def to_reconsider(self) -> list[tuple[str, int]]:
        """Studies that are to be decided again though nothing new came, and when that was asked for."""
        return [(str(uid), int(asked)) for uid, asked in self._cases.rows("SELECT * FROM reconsider")]

    def reconsidered(self, study_instance_uid: str, asked_utc_us: int) -> None:
        """The study was decided; what was asked for meanwhile stays."""
        with self._cases.transaction() as connection:
            connection.execute(
                "DELETE FROM reconsider WHERE study_instance_uid = ? AND asked_utc_us = ?",
                (study_instance_uid, asked_utc_us),
            )
