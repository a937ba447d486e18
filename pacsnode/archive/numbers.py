"""The numbers of cases that are done, in `node.db`: kept for months, when findings and outlines are long freed.

In: readings of a case. Out: the studies that two services read, with the readings of both. Never a name or a pixel.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from pacsnode.archive.case_rows import CaseRecord, record_of
from pacsnode.database import connect, utc_us
from pacsnode.readings import Readings, from_text, to_text


@dataclass(frozen=True)
class Ended:
    """A case that is done or parked. `readings`: None where it has none, or none any more."""

    record: CaseRecord
    readings: Readings | None


def enter(connection: sqlite3.Connection, case_key: str, readings: Readings) -> None:
    """Keep the numbers of a case. The caller holds the transaction; entered twice is entered once."""
    connection.execute("INSERT OR REPLACE INTO numbers VALUES (?, ?, ?)", (case_key, utc_us(), to_text(readings)))


def forget(connection: sqlite3.Connection, before_utc_us: int) -> int:
    """Delete what was entered earlier; returns how many. The caller holds the transaction."""
    return connection.execute("DELETE FROM numbers WHERE read_utc_us < ?", (before_utc_us,)).rowcount


class Numbers:
    """Reads what two services said; its own connection, for one thread."""

    def __init__(self, node_db: Path) -> None:
        self._connection = connect(node_db, "FULL")

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def of_both(
        self, services: tuple[str, str], since_utc_us: int, limit: int
    ) -> list[tuple[list[Ended], list[Ended]]]:
        """The newest studies that both have ended a case of: the cases of each, the newest first."""
        studies = self._connection.execute(
            "SELECT study_instance_uid FROM cases WHERE service IN (?, ?) AND state IN ('done', 'parked') "
            "GROUP BY study_instance_uid HAVING count(DISTINCT service) = 2 AND max(started_utc_us) >= ? "
            "ORDER BY max(started_utc_us) DESC LIMIT ?",
            (*services, since_utc_us, limit),
        ).fetchall()
        return [self._ended(study, services) for (study,) in studies]

    def of_one(self, services: tuple[str, str], since_utc_us: int) -> tuple[int, int]:
        """How many studies each has ended a case of and the other has not; its case may still wait."""
        rows = self._connection.execute(
            "SELECT service, count(*) FROM (SELECT min(service) AS service FROM cases "
            "WHERE service IN (?, ?) AND state IN ('done', 'parked') GROUP BY study_instance_uid "
            "HAVING count(DISTINCT service) = 1 AND max(started_utc_us) >= ?) GROUP BY service",
            (*services, since_utc_us),
        ).fetchall()
        counts = dict(map(tuple, rows))
        return counts.get(services[0], 0), counts.get(services[1], 0)

    def _ended(self, study_instance_uid: str, services: tuple[str, str]) -> tuple[list[Ended], list[Ended]]:
        rows = self._connection.execute(
            "SELECT cases.*, numbers.numbers FROM cases LEFT JOIN numbers ON case_key = key "
            "WHERE study_instance_uid = ? AND service IN (?, ?) AND state IN ('done', 'parked') "
            "ORDER BY started_utc_us DESC",
            (study_instance_uid, *services),
        ).fetchall()
        ended = [Ended(record_of(row), from_text(row["numbers"]) if row["numbers"] else None) for row in rows]
        first, second = ([one for one in ended if one.record.case.service == name] for name in services)
        return first, second
