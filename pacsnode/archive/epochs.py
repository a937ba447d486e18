"""Epochs: which folder of `files/` is written now, and which ones recovery must still read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from pacsnode.archive.files import FOLDERS, sync_folder
from pacsnode.database import boot_us, transaction, utc_us
from pacsnode.errors import Rejected

HOUR_US = 3_600_000_000


class Epochs:
    """The epochs of one process (`owner`: scp or work). Thread-safe; the connection is its own.

    A folder that `epochs` does not know is what a lost or restored index left: it is taken over as unsealed.
    """

    def __init__(self, connection: sqlite3.Connection, files: Path, owner: str) -> None:
        self._connection = connection
        self._files = files
        self._owner = owner
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}
        self._current = 0
        self._opened_us = 0
        self._closed = False
        self._adopt()

    def enter(self) -> tuple[int, Path]:
        """The epoch to write into and its folder; call `leave` once the file's row is committed or it was dropped.

        Raises Rejected (A700) when no epoch can be opened: no room, or the process is stopping.
        """
        with self._lock:
            if self._closed:
                raise Rejected(Rejected.OUT_OF_RESOURCES, "the node is stopping, send again later")
            if not self._current or boot_us() - self._opened_us > HOUR_US:
                try:
                    self._turn()
                except (OSError, sqlite3.OperationalError) as error:
                    raise Rejected(Rejected.OUT_OF_RESOURCES, "archive not writable, send again later") from error
            self._open[self._current] = self._open.get(self._current, 0) + 1
            return self._current, self._files / f"{self._current:08d}"

    def leave(self, epoch: int) -> None:
        """One file of `epoch` is settled."""
        with self._lock:
            self._open[epoch] -= 1

    def settled(self) -> list[int]:
        """Epochs that this process has closed and whose files all have their row or are gone."""
        with self._lock:
            return [e for e, writers in self._open.items() if writers == 0 and e != self._current]

    def seal(self, epochs: Sequence[int]) -> None:
        """Recovery need not look at these: they were settled before a checkpoint that moved everything."""
        with self._lock:
            for epoch in epochs:
                self._connection.execute("UPDATE epochs SET sealed = 1 WHERE epoch = ?", (epoch,))
                self._open.pop(epoch, None)

    def close(self) -> None:
        """No more files: the current epoch becomes sealable."""
        with self._lock:
            if self._current:
                self._connection.execute(
                    "UPDATE epochs SET closed_utc_us = ? WHERE epoch = ?", (utc_us(), self._current)
                )
            self._current = 0
            self._closed = True

    def unsealed(self) -> list[tuple[int, Path]]:
        """Epochs of this owner that a process left without sealing, oldest first; none of the present process."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT epoch FROM epochs WHERE owner = ? AND sealed = 0 ORDER BY epoch", (self._owner,)
            ).fetchall()
            return [(e, self._files / f"{e:08d}") for (e,) in rows if e != self._current and e not in self._open]

    def disconnect(self) -> None:
        """Give the connection back; the object is of no use afterwards."""
        self._connection.close()

    def _adopt(self) -> None:
        # A folder is made after its record is committed, so one without a record belongs to no running process.
        found = sorted(int(f.name) for f in self._files.iterdir() if f.is_dir() and f.name.isdecimal())
        with transaction(self._connection):
            self._connection.executemany(
                "INSERT OR IGNORE INTO epochs (epoch, owner, opened_utc_us) VALUES (?, ?, ?)",
                [(epoch, self._owner, utc_us()) for epoch in found],
            )

    def _turn(self) -> None:
        now = utc_us()
        with transaction(self._connection):
            if self._current:
                self._connection.execute("UPDATE epochs SET closed_utc_us = ? WHERE epoch = ?", (now, self._current))
            epoch = self._connection.execute(
                "INSERT INTO epochs (owner, opened_utc_us) VALUES (?, ?)", (self._owner, now)
            ).lastrowid
        assert epoch is not None
        # Not durable yet, which is no harm: recovery takes over a folder whose record a power cut took.
        folder = self._files / f"{epoch:08d}"
        folder.mkdir(mode=0o700)
        for name in FOLDERS:
            (folder / name).mkdir(mode=0o700)
        sync_folder(folder)
        sync_folder(self._files)
        self._current, self._opened_us = epoch, boot_us()
        self._open[epoch] = 0
