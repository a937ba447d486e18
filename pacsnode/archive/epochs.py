"""Epochs: which folder of `files/` is written now, and which ones recovery must still read."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from pacsnode.archive.files import sync_folder
from pacsnode.database import transaction, utc_us

HOUR_US = 3_600_000_000


class Epochs:
    """The epochs of one process (`owner`: scp or work). Thread-safe; the connection is its own."""

    def __init__(self, connection: sqlite3.Connection, files: Path, owner: str) -> None:
        self._connection = connection
        self._files = files
        self._owner = owner
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}
        self._current = 0
        self._opened_us = 0

    def enter(self) -> tuple[int, Path]:
        """The epoch to write into and its folder; call `leave` once the file's row is committed or it was dropped."""
        with self._lock:
            if not self._current or utc_us() - self._opened_us > HOUR_US:
                self._turn()
            self._open[self._current] = self._open.get(self._current, 0) + 1
            return self._current, self._files / f"{self._current:08d}"

    def leave(self, epoch: int) -> None:
        """One file of `epoch` is settled."""
        with self._lock:
            self._open[epoch] -= 1

    def seal(self) -> None:
        """Seal what this process has closed and settled; call only right after a checkpoint that moved everything."""
        with self._lock:
            idle = [e for e, writers in self._open.items() if writers == 0 and e != self._current]
            for epoch in idle:
                self._connection.execute("UPDATE epochs SET sealed = 1 WHERE epoch = ?", (epoch,))
                del self._open[epoch]

    def close(self) -> None:
        """No more files: the current epoch becomes sealable."""
        with self._lock:
            if self._current:
                self._connection.execute(
                    "UPDATE epochs SET closed_utc_us = ? WHERE epoch = ?", (utc_us(), self._current)
                )
            self._current = 0

    def unsealed(self) -> list[tuple[int, Path]]:
        """Epochs of this owner that a process left without sealing, oldest first; none of the present process."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT epoch FROM epochs WHERE owner = ? AND sealed = 0 ORDER BY epoch", (self._owner,)
            ).fetchall()
            return [(e, self._files / f"{e:08d}") for (e,) in rows if e != self._current and e not in self._open]

    def mark_sealed(self, epoch: int) -> None:
        """Recovery has read `epoch` and its rows are on disk."""
        self._connection.execute("UPDATE epochs SET sealed = 1 WHERE epoch = ?", (epoch,))

    def disconnect(self) -> None:
        """Give the connection back; the object is of no use afterwards."""
        self._connection.close()

    def _turn(self) -> None:
        now = utc_us()
        with transaction(self._connection):
            if self._current:
                self._connection.execute("UPDATE epochs SET closed_utc_us = ? WHERE epoch = ?", (now, self._current))
            epoch = self._connection.execute(
                "INSERT INTO epochs (owner, opened_utc_us) VALUES (?, ?)", (self._owner, now)
            ).lastrowid
        assert epoch is not None
        # The record must be on disk before the first file: recovery would not look otherwise.
        self._connection.execute("PRAGMA wal_checkpoint(FULL)")
        (self._files / f"{epoch:08d}").mkdir(exist_ok=True, mode=0o700)
        sync_folder(self._files)
        self._current, self._opened_us = epoch, now
        self._open.setdefault(epoch, 0)
