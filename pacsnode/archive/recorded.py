"""What was received, read for many studies at once: to ask what other rules would make of it.

In: `index.db` as it is now. Out: studies as `Index.study` gives them, one after the other; SHA-256, transfer syntax and
boot clock are left out. Never holds more than one study, never keeps a transaction open between two, never writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pacsnode.archive.described import Reading
from pacsnode.database import connect
from pacsnode.handover import Instance, Study


class Recorded:
    """Reads `index.db`; one object for one thread."""

    def __init__(self, index_db: Path) -> None:
        self._connection = connect(index_db, "NORMAL", automatic_checkpoint=False)
        self._connection.row_factory = None  # plain rows: a third of the time
        self._connection.execute("PRAGMA query_only=1")

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def newest(self, most: int, since_utc_us: int = 0) -> list[str]:
        """The UIDs of the studies of which something came last, the newest first."""
        return [
            uid
            for (uid,) in self._connection.execute(
                "SELECT study_instance_uid FROM studies WHERE last_received_utc_us >= ? "
                "ORDER BY last_received_utc_us DESC, study_instance_uid LIMIT ?",
                (since_utc_us, most),
            )
        ]

    def studies(self, uids: Iterable[str]) -> Iterator[Study]:
        """These studies, in the order of their UIDs; without those that are gone meanwhile."""
        for uid in sorted(uids):  # neighbours in the index are neighbours on the disk
            study = self._study(uid)
            if study is not None:
                yield study

    def _study(self, uid: str) -> Study | None:
        self._connection.execute("BEGIN")  # one snapshot: revision and instances belong together
        try:
            head = self._connection.execute(
                "SELECT issuer, patient_id, conflict, revision FROM studies WHERE study_instance_uid = ?", (uid,)
            ).fetchone()
            rows = self._connection.execute(
                "SELECT sop_instance_uid, sop_class_uid, series_instance_uid, path, peer, received_utc_us, common, own "
                "FROM instances WHERE study_instance_uid = ? AND origin = 'received' ORDER BY sop_instance_uid",
                (uid,),
            ).fetchall()
            reading = Reading(self._connection)
            reading.begin(uid)
        finally:
            self._connection.execute("COMMIT")
        if head is None:
            return None
        read = reading.attributes
        instances = [
            Instance(sop, sop_class, series, uid, "", path, "", peer, came_us, 0, "", read(common, own))
            for sop, sop_class, series, path, peer, came_us, common, own in rows
        ]
        issuer, patient_id, conflict, revision = head
        return Study(uid, issuer, patient_id, conflict, revision, tuple(instances))
