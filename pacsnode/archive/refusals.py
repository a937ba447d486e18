"""Callers who got no association, or one into quarantine alone: durable, bounded, for an operator to look at.

In: what a caller said and why it was turned away. Out: one row for each caller and reason, with count, first and last
time. A flood of callers costs one transaction a second, and cannot push another address out of the list.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from pacsnode.database import connect, transaction, utc_us
from pacsnode.telemetry import Log

log = Log(__name__)

MOST_ROWS = 500
WRITE_EVERY_S = 1.0


@dataclass(frozen=True)
class Refusal:
    """One caller and why. `certificate`: what it proved by, "" for nothing."""

    calling_ae_title: str
    called_ae_title: str
    address: str
    certificate: str
    outcome: Literal["rejected", "quarantined"]
    reason: str


@dataclass(frozen=True)
class RefusalLine:
    """A refusal with how often and when it happened."""

    refusal: Refusal
    count: int
    first_utc_us: int
    last_utc_us: int


class Refusals:
    """Counts refusals and writes them behind the associations' backs. `close` writes what is left."""

    def __init__(self, index_db: Path) -> None:
        self._connection = connect(index_db, "NORMAL")
        self._lock = threading.Lock()
        self._counted: dict[Refusal, tuple[int, int, int]] = {}
        self._there_are_some = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="refusals")
        self._thread.start()

    def note(self, refusal: Refusal) -> None:
        """Count one refusal; never raises, never waits for the disk."""
        now = utc_us()
        with self._lock:
            count, first, _ = self._counted.get(refusal, (0, now, now))
            if count or len(self._counted) < MOST_ROWS:
                self._counted[refusal] = count + 1, first, now
        self._there_are_some.set()

    def close(self) -> None:
        """Write what is left."""
        self._closing.set()
        self._there_are_some.set()
        self._thread.join()
        self._connection.close()

    def _write_on(self) -> None:
        while not self._closing.is_set():
            self._there_are_some.wait()
            self._there_are_some.clear()
            self._write()
            self._closing.wait(WRITE_EVERY_S)
        self._write()

    def _write(self) -> None:
        with self._lock:
            counted, self._counted = self._counted, {}
        if not counted:
            return
        try:
            with transaction(self._connection):
                _add(self._connection, counted)
        except sqlite3.OperationalError as error:  # no room or busy: the log has each of them all the same
            log.error("refused callers not listed", reason=error)


def _add(connection: sqlite3.Connection, counted: Mapping[Refusal, tuple[int, int, int]]) -> None:
    connection.executemany(
        "INSERT INTO refused VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET count = count + excluded.count, last_utc_us = excluded.last_utc_us",
        [(*astuple(refusal), *numbers) for refusal, numbers in counted.items()],
    )
    # The address with the most rows gives way first: one that tries every AE title pushes out its own rows.
    connection.execute(
        """DELETE FROM refused WHERE rowid IN (
               SELECT rowid FROM (
                   SELECT rowid, last_utc_us,
                          row_number() OVER (PARTITION BY address ORDER BY last_utc_us DESC) AS rank FROM refused
               ) ORDER BY rank, last_utc_us DESC LIMIT -1 OFFSET ?)""",
        (MOST_ROWS,),
    )


def listing(index_db: Path) -> list[RefusalLine]:
    """All that is listed, the newest first."""
    connection = connect(index_db, "NORMAL", automatic_checkpoint=False)
    try:
        found = connection.execute("SELECT * FROM refused ORDER BY last_utc_us DESC").fetchall()
    finally:
        connection.close()
    return [
        RefusalLine(Refusal(*tuple(row)[:6]), row["count"], row["first_utc_us"], row["last_utc_us"]) for row in found
    ]


def forget(index_db: Path, settled: Callable[[Refusal], bool]) -> int:
    """Take the rows off the list that are settled; how many."""
    done = 0
    connection = connect(index_db, "NORMAL")
    try:
        with transaction(connection):
            for row in connection.execute("SELECT rowid, * FROM refused").fetchall():
                if settled(Refusal(*tuple(row)[1:7])):
                    connection.execute("DELETE FROM refused WHERE rowid = ?", (row["rowid"],))
                    done += 1
    finally:
        connection.close()
    return done
