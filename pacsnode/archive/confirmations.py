"""What the archive was asked and what it said it has: questions and confirmations in `index.db`.

In: instances to ask about; later the archive's N-EVENT-REPORT, on whichever association it came. Out: which of our rows
the archive holds. A confirmation is worth what was asked: peer, SOP class, and the SHA-256 that our row had then.
Never removes an image, never talks to a peer.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pacsnode.database import connect, transaction, utc_us
from pacsnode.dicom.uids import derive
from pacsnode.dimse import commands
from pacsnode.dimse.commands import CommandSet
from pacsnode.dimse.commitment import Reference, parse_report
from pacsnode.errors import Rejected
from pacsnode.telemetry import Log

log = Log(__name__)

DAY_US: Final = 86_400 * 1_000_000
ASK_AGAIN_US: Final = DAY_US
"""A question without an answer, and one that was answered with a failure, is asked again after a day."""
FRESH_US: Final = 7 * DAY_US
"""How long a confirmation counts: an archive has retention of its own."""
_KEPT_US: Final = 7 * DAY_US
MOST_OPEN: Final = 10_000
"""Instances that wait for an answer at once: an archive that never answers is not asked for all that we hold."""


class Asked(NamedTuple):
    """One instance of a question, with the hash of what we hold."""

    sop_class_uid: str
    sop_instance_uid: str
    dataset_sha256: str

    @property
    def reference(self) -> Reference:
        """As the archive reads it."""
        return Reference(self.sop_class_uid, self.sop_instance_uid)


class Confirmations:
    """Writes questions and answers; for many threads, one connection and one lock."""

    def __init__(self, index_db: Path) -> None:
        # FULL: the archive tells a result once, and nothing else on disk has it.
        self._connection = connect(index_db, "FULL")
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._connection.close()

    def ask(self, archive: str, instances: Sequence[Asked]) -> str:
        """Enter a question before it is sent, so that its answer is known however it comes; its Transaction UID.

        The UID is random: who does not know it cannot answer in the archive's name.
        """
        now, transaction_uid = utc_us(), derive("question", secrets.token_hex(16))
        with self._lock, transaction(self._connection):
            self._connection.execute("DELETE FROM questions WHERE asked_utc_us < ?", (now - _KEPT_US,))
            self._connection.execute(
                "INSERT INTO questions VALUES (?, ?, ?, NULL, ?)",
                (transaction_uid, archive, now, json.dumps(instances)),
            )
        return transaction_uid

    def withdraw(self, transaction_uid: str) -> None:
        """The archive did not take the question."""
        with self._lock, transaction(self._connection):
            self._connection.execute("DELETE FROM questions WHERE transaction_uid = ?", (transaction_uid,))

    def is_open(self, transaction_uid: str) -> bool:
        """Whether an answer is still to come."""
        with self._lock:
            row = self._connection.execute(
                "SELECT answered_utc_us FROM questions WHERE transaction_uid = ?", (transaction_uid,)
            ).fetchone()
        return row is not None and row["answered_utc_us"] is None

    def answer(self, transaction_uid: str) -> dict[str, int] | None:
        """What was said to a question, as FailureReason (0: it is safe) by SOP Instance UID; None: nothing yet.

        What the answer leaves out is not in it. A question that is not known any more was answered with nothing.
        """
        with self._lock:
            row = self._connection.execute(
                "SELECT archive, asked_utc_us, answered_utc_us, instances FROM questions WHERE transaction_uid = ?",
                (transaction_uid,),
            ).fetchone()
            if row is None:
                return {}
            if row["answered_utc_us"] is None:
                return None
            said = self._connection.execute(
                "SELECT sop_instance_uid, failure FROM confirmations WHERE archive = ? AND told_utc_us >= ? "
                "AND sop_instance_uid IN (SELECT value FROM json_each(?))",
                (row["archive"], row["asked_utc_us"], json.dumps([one[1] for one in json.loads(row["instances"])])),
            ).fetchall()
        return {str(uid): int(failure) for uid, failure in said}

    def waiting(self, archive: str) -> set[str]:
        """SOP Instance UIDs for which an answer of `archive` is still to come."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT instances FROM questions WHERE archive = ? AND answered_utc_us IS NULL AND asked_utc_us >= ?",
                (archive, utc_us() - ASK_AGAIN_US),
            ).fetchall()
        return {Asked(*one).sop_instance_uid for row in rows for one in json.loads(row["instances"])}

    def take(self, archive: str, command: CommandSet, data_set: bytes, transfer_syntax_uid: str) -> None:
        """Keep what an N-EVENT-REPORT of the peer `archive` says, durably. Raises Rejected with the answer's status.

        What was not asked is left out. A report that comes again is taken again.
        """
        report = parse_report(command, data_set, transfer_syntax_uid)
        now = utc_us()
        with self._lock, transaction(self._connection):
            question = self._connection.execute(
                "SELECT instances FROM questions WHERE transaction_uid = ? AND archive = ?",
                (report.transaction_uid, archive),
            ).fetchone()
            if question is None:
                raise Rejected(commands.INVALID_ARGUMENT_VALUE, "you were not asked this: no such Transaction UID")
            told = []
            for one in (Asked(*each) for each in json.loads(question["instances"])):
                if one.reference in report.safe or one.reference in report.failed:
                    failure = report.failed.get(one.reference, 0)
                    told.append(
                        (one.sop_instance_uid, archive, report.transaction_uid, one.dataset_sha256, failure, now)
                    )
            self._connection.executemany("INSERT OR REPLACE INTO confirmations VALUES (?, ?, ?, ?, ?, ?)", told)
            self._connection.execute(
                "UPDATE questions SET answered_utc_us = ? WHERE transaction_uid = ?", (now, report.transaction_uid)
            )
        failed = sum(row[4] != 0 for row in told)
        log.info("the archive answered", archive=archive, confirmed=len(told) - failed, failed=failed)
