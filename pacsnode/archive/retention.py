"""Retention: which studies may go because the archive has them, and their removal, safe against `kill -9`.

In: the index, the cases and debts of `node.db`, the archive's confirmations. Out: a verdict for each study, or its
removal: rows away and tombstones in, in one transaction; then the files. A study goes as a whole or not at all. Never
decides by how full the disk is, never touches results of ours, never removes what is not confirmed.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pacsnode.archive.confirmations import ASK_AGAIN_US, DAY_US, FRESH_US, Asked
from pacsnode.database import connect, transaction, utc_us
from pacsnode.peers import QUARANTINE
from pacsnode.telemetry import Log

log = Log(__name__)

UNLINKED_AT_ONCE: Final = 500

OBSTACLES: Final = {
    "conflict": "its images disagree on the patient, or one is damaged",
    "aside": "other bytes under one of its UIDs, or a part of it, are kept aside",
    "undecided": "the rules have not been asked about it yet",
    "unfinished": "a case of it is not done (waiting, running, or parked and not in shadow)",
    "owed": "something of it is still owed to a destination, or not proven there yet",
    "unhashed": "not all of its files have their SHA-256 yet",
    "lacking": "the archive says that it does not have all of it",
    "unconfirmed": "the archive has not confirmed all of it yet",
}
"""Why a study stays that is old enough; the first that holds is told."""

_OF_STUDY: Final = "i.study_instance_uid = s.study_instance_uid AND i.origin = 'received'"
_CONFIRMED_BY: Final = (
    "c.sop_instance_uid = i.sop_instance_uid AND c.archive = :archive AND c.dataset_sha256 = i.dataset_sha256"
)
_STANDINGS: Final = f"""
    WITH aside_studies AS MATERIALIZED (
        SELECT study_instance_uid FROM aside WHERE peer != '{QUARANTINE}'
        UNION SELECT i.study_instance_uid FROM aside a JOIN instances i USING (sop_instance_uid)
              WHERE a.peer != '{QUARANTINE}'
    ), owing AS MATERIALIZED (
        SELECT study_instance_uid FROM node.outbox WHERE state = 'owed'
        UNION SELECT study_instance_uid FROM node.outbox WHERE state = 'sending'
        UNION SELECT study_instance_uid FROM node.outbox WHERE state = 'sent' AND prove_utc_us IS NOT NULL
    )
    SELECT s.study_instance_uid, count(*) AS instances, sum(i.dataset_bytes) AS bytes, CASE
        WHEN s.conflict != '' THEN 'conflict'
        WHEN s.study_instance_uid IN aside_studies THEN 'aside'
        WHEN NOT EXISTS (SELECT 1 FROM node.decisions d
                         WHERE d.study_instance_uid = s.study_instance_uid
                           AND d.revision >= s.revision) THEN 'undecided'
        WHEN EXISTS (SELECT 1 FROM node.candidates d WHERE d.study_instance_uid = s.study_instance_uid)
          OR EXISTS (SELECT 1 FROM node.cases d
                     WHERE d.study_instance_uid = s.study_instance_uid AND d.state NOT IN ('done', 'withdrawn')
                       AND NOT (d.shadow AND d.state = 'parked')) THEN 'unfinished'
        WHEN s.study_instance_uid IN owing THEN 'owed'
        WHEN sum(i.dataset_sha256 = '') > 0 THEN 'unhashed'
        WHEN sum(coalesce(c.failure != 0, 0)) > 0 THEN 'lacking'
        WHEN sum(coalesce(c.failure = 0 AND c.told_utc_us >= :fresh, 0)) < count(*) THEN 'unconfirmed'
        ELSE '' END AS obstacle
    FROM studies s JOIN instances i ON {_OF_STUDY} LEFT JOIN confirmations c ON {_CONFIRMED_BY}
    WHERE s.last_received_utc_us < :before AND %s
    GROUP BY s.study_instance_uid
"""  # noqa: S608  # our own words
_UNPROVEN: Final = f"""
    SELECT i.sop_class_uid, i.sop_instance_uid, i.dataset_sha256
    FROM instances i LEFT JOIN confirmations c ON {_CONFIRMED_BY}
    WHERE i.study_instance_uid = :study AND i.origin = 'received' AND (
        c.told_utc_us IS NULL OR c.told_utc_us < CASE WHEN c.failure = 0 THEN :fresh ELSE :again END)
"""  # noqa: S608  # our own words
_BURIAL: Final = (
    """INSERT OR REPLACE INTO tombstones
       SELECT i.sop_instance_uid, i.study_instance_uid, i.dataset_sha256, c.archive, c.transaction_uid, :now
       FROM instances i JOIN confirmations c USING (sop_instance_uid)
       WHERE i.study_instance_uid = :study AND i.origin = 'received' AND c.archive = :archive""",
    """INSERT OR IGNORE INTO unlinking
       SELECT path FROM instances WHERE study_instance_uid = :study AND origin = 'received'""",
    """DELETE FROM confirmations WHERE sop_instance_uid IN
       (SELECT sop_instance_uid FROM instances WHERE study_instance_uid = :study AND origin = 'received')""",
    # What images have in common holds their StudyInstanceUID: no other study has a part in it.
    """DELETE FROM common WHERE id IN
       (SELECT common FROM instances WHERE study_instance_uid = :study AND origin = 'received') AND id NOT IN
       (SELECT common FROM instances WHERE study_instance_uid = :study AND origin != 'received')""",
    "DELETE FROM instances WHERE study_instance_uid = :study AND origin = 'received'",
    "DELETE FROM studies WHERE study_instance_uid = :study",
)


@dataclass(frozen=True)
class Keep:
    """How long images stay at least, and the peer whose word lets them go."""

    days: float
    archive: str


@dataclass(frozen=True)
class Standing:
    """How one study stands that is old enough: a key of OBSTACLES, "" when it may go."""

    study_instance_uid: str
    instances: int
    dataset_bytes: int
    obstacle: str


@dataclass
class Survey:
    """All studies together: what may go, what may not and why, in instances (and studies)."""

    studies: int = 0
    instances: int = 0
    dataset_bytes: int = 0
    younger_studies: int = 0
    unlinking: int = 0
    tombstones: int = 0
    staying_studies: Counter[str] = field(default_factory=Counter)
    staying_instances: Counter[str] = field(default_factory=Counter)


class Retention:
    """Looks at what is old and removes what may go; one object for one thread. With `keep` None nothing may go."""

    def __init__(self, files: Path, index_db: Path, node_db: Path, keep: Keep | None) -> None:
        self._files = files
        self._keep = keep
        # FULL: a file must not be gone from the disk while a power cut may still bring its row back.
        self._connection = connect(index_db, "FULL")
        self._connection.execute("ATTACH ? AS node", (str(node_db),))

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def standings(self) -> list[Standing]:
        """Every study that is old enough; none where retention is off."""
        return self._standings("TRUE")

    def _standings(self, which: str, only: str = "") -> list[Standing]:
        if self._keep is None:
            return []
        now = utc_us()
        given: dict[str, Any] = {
            "archive": self._keep.archive,
            "before": now - int(self._keep.days * DAY_US),
            "fresh": now - FRESH_US,
            "only": only,
        }
        return [Standing(*row) for row in self._connection.execute(_STANDINGS % which, given)]

    def survey(self) -> Survey:
        """Counts for a person."""
        survey = Survey()
        old = self.standings()
        for standing in old:
            if standing.obstacle:
                survey.staying_studies[standing.obstacle] += 1
                survey.staying_instances[standing.obstacle] += standing.instances
            else:
                survey.studies += 1
                survey.instances += standing.instances
                survey.dataset_bytes += standing.dataset_bytes
        survey.younger_studies = self._count("studies") - len(old)
        survey.unlinking, survey.tombstones = self._count("unlinking"), self._count("tombstones")
        return survey

    def _count(self, table: str) -> int:
        return int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608  # our words

    def unproven(self) -> Iterator[Asked]:
        """Instances that only the archive's word keeps here, and about which it has not spoken lately."""
        now = utc_us()
        for standing in self.standings():
            if standing.obstacle not in ("unconfirmed", "lacking"):
                continue
            assert self._keep is not None
            given = {
                "study": standing.study_instance_uid,
                "archive": self._keep.archive,
                "fresh": now - FRESH_US,
                "again": now - ASK_AGAIN_US,
            }
            yield from (Asked(*row) for row in self._connection.execute(_UNPROVEN, given).fetchall())

    def remove(self, study_instance_uid: str) -> int:
        """Remove a study for good if it may still go: rows and tombstones now, files after that. How many instances.

        The transaction holds both databases, so that no image, case or debt comes between the look and the removal.
        """
        with transaction(self._connection):
            standing = next(iter(self._standings("s.study_instance_uid = :only", study_instance_uid)), None)
            if standing is None or standing.obstacle:
                return 0
            assert self._keep is not None
            given = {"study": study_instance_uid, "now": utc_us(), "archive": self._keep.archive}
            for sql in _BURIAL:
                self._connection.execute(sql, given)
        self.finish()
        log.info("study removed", study=study_instance_uid, instances=standing.instances)
        return standing.instances

    def finish(self) -> int:
        """Unlink every file whose row is gone, also what a killed process left; how many.

        A path leaves `unlinking` once the folder without it is on the disk: after a power cut no file comes back that
        nobody knows. A file that cannot be unlinked stays listed; one that a row points to is never touched.
        """
        with transaction(self._connection):
            self._connection.execute(
                "DELETE FROM unlinking WHERE EXISTS (SELECT 1 FROM instances i WHERE i.path = unlinking.path)"
            )
        done, last = 0, ""
        while paths := self._listed_after(last):
            last = paths[-1]
            gone = [path for path in paths if self._unlink(path)]
            for folder in {(self._files / path).parent for path in gone}:
                _flush(folder)
            with transaction(self._connection):
                self._connection.executemany("DELETE FROM unlinking WHERE path = ?", [(path,) for path in gone])
            done += len(gone)
        return done

    def _listed_after(self, last: str) -> list[str]:
        rows = self._connection.execute(
            "SELECT path FROM unlinking WHERE path > ? ORDER BY path LIMIT ?", (last, UNLINKED_AT_ONCE)
        ).fetchall()
        return [str(path) for (path,) in rows]

    def _unlink(self, path: str) -> bool:
        try:
            (self._files / path).unlink(missing_ok=True)
        except OSError as error:
            log.error("a file cannot be removed", path=path, reason=error)
            return False
        return True


def going(connection: sqlite3.Connection, epoch: str) -> set[str]:
    """Paths of files of an epoch folder that are about to be unlinked: recovery must not give them rows again."""
    rows = connection.execute("SELECT path FROM unlinking WHERE path >= ? AND path < ?", (f"{epoch}/", f"{epoch}0"))
    return {str(path) for (path,) in rows}


def _flush(folder: Path) -> None:
    """Make removed names in `folder` durable; nothing is left to do where somebody removed the folder itself."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
