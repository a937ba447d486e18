"""The allow list in `node.db`: which bundle, by the hash of all its files, who let it run, when. Never forgets a row.

In: names and hashes. Out: the row of a hash, and whether rows were added. Judges nothing itself.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pacsnode import audit
from pacsnode.database import connect, transaction, utc_us

Source = Literal["first start", "allow", "install"]
BEGUN = ""
"""The `service` of the row that says that the list was begun."""


@dataclass(frozen=True)
class Bundle:
    """What is allowed: one state of the files of one service."""

    service: str
    bundle_hash: str
    version: str


@dataclass(frozen=True)
class Allowed:
    """One row: `author` is the user who ran the command."""

    bundle: Bundle
    allowed_utc_us: int
    author: str
    source: str


class AllowList:
    """Reads and adds; may be used by several threads."""

    def __init__(self, node_db: Path) -> None:
        self._connection = connect(node_db, "FULL")
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def find(self, service: str, bundle_hash: str) -> Allowed | None:
        """The newest row of a bundle; None where nobody allowed it."""
        with self._lock:
            row = self._connection.execute(
                "SELECT * FROM allowed WHERE service = ? AND bundle_hash = ? ORDER BY id DESC LIMIT 1",
                (service, bundle_hash),
            ).fetchone()
        return None if row is None else _allowed(row)

    def newest(self) -> int:
        """The number of the newest row: quick enough to be asked every second."""
        with self._lock:
            return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM allowed").fetchone()[0])

    def allow(self, bundle: Bundle, author: str, source: Source) -> None:
        """Let one bundle run."""
        with self._lock, transaction(self._connection) as connection:
            _add(connection, bundle, author, source)

    def begin(self, bundles: Iterable[Bundle], author: str) -> bool:
        """Once in the life of a node: these are allowed. False where the list was begun before."""
        with self._lock, transaction(self._connection) as connection:
            if connection.execute("SELECT 1 FROM allowed WHERE service = ?", (BEGUN,)).fetchone():
                return False
            for bundle in (Bundle(BEGUN, "", ""), *bundles):
                _add(connection, bundle, author, "first start")
        return True


def _add(connection: sqlite3.Connection, bundle: Bundle, author: str, source: Source) -> None:
    connection.execute(
        "INSERT INTO allowed (service, bundle_hash, version, allowed_utc_us, author, source) VALUES (?, ?, ?, ?, ?, ?)",
        (bundle.service, bundle.bundle_hash, bundle.version, utc_us(), author, source),
    )
    if bundle.service != BEGUN:
        told = {"service": bundle.service, "bundle_hash": bundle.bundle_hash, "version": bundle.version}
        audit.record(connection, "bundle allowed", **told, author=author, source=source)


def _allowed(row: sqlite3.Row) -> Allowed:
    bundle = Bundle(row["service"], row["bundle_hash"], row["version"])
    return Allowed(bundle, row["allowed_utc_us"], row["author"], row["source"])
