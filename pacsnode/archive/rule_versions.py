"""Versions of the rules file in `node.db`: the whole text of each that was ever live, who saved it, from when to when.

In: a file that was judged good. Out: the live version, for every process of the node. Judges nothing itself, and never
removes a version: decisions and results name theirs by hash.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from pacsnode import audit, yamlfile
from pacsnode.database import connect, transaction, utc_us
from pacsnode.yamlfile import Document

SHORT_HASH = 12
_LIVE = "SELECT * FROM rule_versions WHERE retired_utc_us IS NULL"


@dataclass(frozen=True)
class RuleVersion:
    """One version as it is recorded. `author` owned the file `source`, `hash` stands in decisions and results.

    `retired_utc_us`: None while it is live.
    """

    id: int
    hash: str
    text: str
    live_utc_us: int
    author: str
    source: str
    retired_utc_us: int | None = None

    @property
    def short(self) -> str:
        """The hash as people see it."""
        return self.hash[:SHORT_HASH]

    @property
    def name(self) -> str:
        """What its mistakes are placed in: `routing_rules.yaml (version 1a2b3c4d5e6f)`."""
        return f"{Path(self.source).name} (version {self.short})"

    def document(self) -> Document:
        """The text as a parsed file. Raises ConfigError where this program finds mistakes in it."""
        return yamlfile.parse(self.text, self.name)


class RuleVersions:
    """Reads and writes the versions; may be used by several threads."""

    def __init__(self, node_db: Path) -> None:
        self._connection = connect(node_db, "FULL")
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def live(self) -> RuleVersion | None:
        """The live version; None before the first one."""
        with self._lock:
            row = self._connection.execute(_LIVE).fetchone()
        return None if row is None else _version(row)

    def all(self) -> list[RuleVersion]:
        """Every version, the oldest first; content that came back is there again."""
        with self._lock:
            return [_version(row) for row in self._connection.execute("SELECT * FROM rule_versions ORDER BY id")]

    def live_id(self) -> int | None:
        """Which row is live: quick enough to be asked every second."""
        with self._lock:
            row = self._connection.execute("SELECT id FROM rule_versions WHERE retired_utc_us IS NULL").fetchone()
        return None if row is None else int(row["id"])

    def go_live(self, document: Document, text: str, author: str, source: Path) -> RuleVersion:
        """Retire the live version, if another is, and record this one; what is live already stays as it is."""
        with self._lock, transaction(self._connection) as connection:
            row = connection.execute(_LIVE).fetchone()
            if row is None or row["hash"] != document.sha256:
                now = utc_us()
                connection.execute("UPDATE rule_versions SET retired_utc_us = ? WHERE retired_utc_us IS NULL", (now,))
                connection.execute(
                    "INSERT INTO rule_versions (hash, text, live_utc_us, author, source) VALUES (?, ?, ?, ?, ?)",
                    (document.sha256, text, now, author, str(source.absolute())),
                )
                audit.record(connection, "rules live", hash=document.sha256, author=author)
                row = connection.execute(_LIVE).fetchone()
        return _version(row)


def _version(row: sqlite3.Row) -> RuleVersion:
    return RuleVersion(
        row["id"],
        row["hash"],
        row["text"],
        row["live_utc_us"],
        row["author"],
        row["source"],
        row["retired_utc_us"],
    )
