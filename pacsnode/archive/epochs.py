"""Epochs: which folder of `files/` is written now, and which ones recovery must still read."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pacsnode.archive.files import FOLDERS, Disk
from pacsnode.database import boot_us, transaction, utc_us
from pacsnode.errors import Rejected

HOUR_US = 3_600_000_000
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Place(NamedTuple):
    """A folder to write one file into, its descriptor, and its path below `files/`."""

    epoch: int
    slot: int
    descriptor: int
    folder: str


@dataclass(frozen=True)
class Unsealed:
    """An epoch that recovery must read. `adopted`: the index had no record of it, it may be of any age."""

    epoch: int
    folder: Path
    adopted: bool


class _Open:
    """An epoch of this process: its folders, and how many files are on their way into each."""

    def __init__(self, number: int, descriptors: list[int]) -> None:
        self.folders = [f"{number:08d}/{name}" for name in FOLDERS]
        self.descriptors = descriptors
        self.writers = [0] * len(FOLDERS)

    def close(self) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())


class Epochs:
    """The epochs of one process (`owner`: scp or work). Thread-safe; the connection is its own, with synchronous FULL:
    an epoch whose record a power cut took would be taken for one of a lost index.

    A folder that `epochs` does not know is what a lost or restored index left: it is taken over as unsealed.
    """

    def __init__(self, connection: sqlite3.Connection, files: Path, owner: str, disk: Disk) -> None:
        self._connection = connection
        self._files = files
        self._owner = owner
        self._disk = disk
        self._lock = threading.Lock()
        self._open: dict[int, _Open] = {}
        self._current = 0
        self._opened_us = 0
        self._closed = False
        self._adopt()

    def enter(self) -> Place:
        """Where to write; call `leave` once the file's row is committed or it was dropped.

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
            current = self._open[self._current]
            slot = current.writers.index(min(current.writers))
            current.writers[slot] += 1
            return Place(self._current, slot, current.descriptors[slot], current.folders[slot])

    def leave(self, place: Place) -> None:
        """The file is settled."""
        with self._lock:
            self._open[place.epoch].writers[place.slot] -= 1

    def settled(self) -> list[int]:
        """Epochs that this process has closed and whose files all have their row or are gone."""
        with self._lock:
            return [e for e, epoch in self._open.items() if e != self._current and not any(epoch.writers)]

    def seal(self, epochs: Sequence[int]) -> None:
        """Recovery need not look at these: they were settled before a checkpoint that moved everything."""
        with self._lock:
            for epoch in epochs:
                self._connection.execute("UPDATE epochs SET sealed = 1 WHERE epoch = ?", (epoch,))
                settled = self._open.pop(epoch, None)
                if settled is not None:
                    settled.close()

    def close(self) -> None:
        """No more files: the current epoch becomes sealable."""
        with self._lock:
            if self._current:
                self._connection.execute(
                    "UPDATE epochs SET closed_utc_us = ? WHERE epoch = ?", (utc_us(), self._current)
                )
            self._current = 0
            self._closed = True

    def unsealed(self) -> list[Unsealed]:
        """Epochs of this owner that a process left without sealing, oldest first; none of the present process."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT epoch, closed_utc_us FROM epochs WHERE owner = ? AND sealed = 0 ORDER BY epoch", (self._owner,)
            ).fetchall()
            return [
                Unsealed(epoch, self._files / f"{epoch:08d}", closed == 0)
                for epoch, closed in rows
                if epoch != self._current and epoch not in self._open
            ]

    def disconnect(self) -> None:
        """Give connection and descriptors back; the object is of no use afterwards."""
        for epoch in self._open.values():
            epoch.close()
        self._connection.close()

    def _adopt(self) -> None:
        # A folder is made after its record is committed, so one without a record belongs to no running process.
        found = sorted(int(f.name) for f in self._files.iterdir() if f.is_dir() and f.name.isdecimal())
        with transaction(self._connection):
            self._connection.executemany(
                # Closed at 0: how `unsealed` tells an adopted one, at the next start too.
                "INSERT OR IGNORE INTO epochs (epoch, owner, opened_utc_us, closed_utc_us) VALUES (?, ?, ?, 0)",
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
        folder = self._files / f"{epoch:08d}"
        folder.mkdir(mode=0o700)
        for name in FOLDERS:
            (folder / name).mkdir(mode=0o700)
        self._flush(folder)
        self._flush(self._files)
        self._open[epoch] = _Open(epoch, [os.open(folder / name, _FOLDER_FLAGS) for name in FOLDERS])
        self._current, self._opened_us = epoch, boot_us()

    def _flush(self, folder: Path) -> None:
        descriptor = os.open(folder, _FOLDER_FLAGS)
        try:
            self._disk.flush_folder(descriptor)
        finally:
            os.close(descriptor)
