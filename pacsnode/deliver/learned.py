"""What destinations take, in `node.db`: by SOP class and transfer syntax, learned from negotiation and refusals.

In: a peer and its answers. Out: what is known of it. A peer that has moved (another host, AE title or URL) is a new
one, of which nothing is known. Never talks to a peer.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from pacsnode.database import connect, transaction, utc_us
from pacsnode.deliver.ladder import Fact
from pacsnode.deliver.ready import Answers
from pacsnode.peers import Peer

MOST_OF_ONE_PEER = 2000
"""A peer that answers at random fills no disk: what is older goes."""


class Learned:
    """Reads and writes it; thread-safe, with its own connection and lock. What is known already costs no write."""

    def __init__(self, node_db: Path) -> None:
        self._connection = connect(node_db, "NORMAL")
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str, str, str], str] = {}

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._connection.close()

    def learn(self, peer: Peer, answers: Answers) -> None:
        """Remember what a peer said; the newest answer holds."""
        place = _place(peer)
        with self._lock:
            news = [
                (peer.name, place, sop_class, syntax, reason)
                for (sop_class, syntax), reason in answers.items()
                if self._known.get((peer.name, place, sop_class, syntax)) != reason
            ]
            if not news:
                return
            now = utc_us()
            with transaction(self._connection):
                self._connection.execute("DELETE FROM learned WHERE peer = ? AND place != ?", (peer.name, place))
                self._connection.executemany(
                    "INSERT INTO learned (peer, place, sop_class_uid, transfer_syntax_uid, reason, learned_utc_us) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET place = excluded.place, "
                    "reason = excluded.reason, learned_utc_us = excluded.learned_utc_us",
                    [(*row, now) for row in news],
                )
                self._connection.execute(
                    "DELETE FROM learned WHERE peer = ? AND (sop_class_uid, transfer_syntax_uid) NOT IN (SELECT "
                    "sop_class_uid, transfer_syntax_uid FROM learned WHERE peer = ? "
                    "ORDER BY learned_utc_us DESC LIMIT ?)",
                    (peer.name, peer.name, MOST_OF_ONE_PEER),
                )
            self._known |= {row[:4]: row[4] for row in news}

    def of(self, peer: Peer) -> list[Fact]:
        """What is known of a peer as it stands in the rules file now, by SOP class and transfer syntax."""
        with self._lock:
            rows: list[sqlite3.Row] = self._connection.execute(
                "SELECT sop_class_uid, transfer_syntax_uid, reason, learned_utc_us FROM learned "
                "WHERE peer = ? AND place = ? ORDER BY sop_class_uid, transfer_syntax_uid",
                (peer.name, _place(peer)),
            ).fetchall()
        return [Fact(*row) for row in rows]


def _place(peer: Peer) -> str:
    """What makes it another peer, though it has the same name in the rules file."""
    where = f"{peer.ae_title}@{peer.host}:{peer.port}" if peer.type == "dimse" else peer.url or peer.folder
    return f"{peer.type} {where}"
