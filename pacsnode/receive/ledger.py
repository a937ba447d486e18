"""The commitment requests in `index.db`: asked, checked, reported. What is entered survives a crash and a power cut.

Holding, retrying and giving up are UPDATEs. Never looks at a file, never talks to a peer.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pacsnode.database import connect, transaction, utc_us
from pacsnode.dimse.commands import DUPLICATE_TRANSACTION_UID, RESOURCE_LIMITATION
from pacsnode.errors import Rejected
from pacsnode.receive.admission import Caller
from pacsnode.receive.commitment import Reference, Result

MOST_OPEN: Final = 10_000
SAME_ASSOCIATION_S: Final = 60
"""A peer that has not taken a result by then, on the association of its request, gets it on one of ours."""
_SECOND_US: Final = 1_000_000
_MINUTE_US: Final = 60 * _SECOND_US
_HOUR_US: Final = 60 * _MINUTE_US
_DELAYS_US: Final = (_MINUTE_US, 5 * _MINUTE_US, 30 * _MINUTE_US)
"""After the first, second and third attempt to report; then hourly."""
_GIVE_UP_US: Final = 24 * _HOUR_US
_KEPT_US: Final = 30 * 24 * _HOUR_US
"""What has ended stays so long for a person who asks what became of it."""

_OPEN: Final = "state IN ('asked', 'checked')"
_OF: Final = "peer = ? AND calling_ae_title = ? AND transaction_uid = ?"


@dataclass(frozen=True)
class Commitment:
    """One request, and what was found where its state is past `asked`."""

    id: int
    transaction_uid: str
    peer: str
    calling_ae_title: str
    called_ae_title: str
    address: str
    references: tuple[Reference, ...]
    failures: tuple[int, ...]
    attempts: int

    @property
    def results(self) -> list[Result]:
        """Each instance with what was found."""
        return [Result(*pair) for pair in zip(self.references, self.failures, strict=True)]


class Ledger:
    """Reads and changes the requests; for many threads, one connection and one lock."""

    def __init__(self, index_db: Path) -> None:
        # FULL, unlike the rows of files: nothing else on disk tells what a peer asked.
        self._connection = connect(index_db, "FULL")
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._connection.close()

    def resume(self) -> None:
        """After a start no association is left on which something may still be told, so tell all of it now."""
        self._change("next_attempt_utc_us = ? WHERE state = 'checked'", (utc_us(),))

    def enter(self, peer: str, caller: Caller, transaction_uid: str, references: Sequence[Reference]) -> int:
        """Enter a request durably; its id. Raises Rejected where there are too many.

        A repeated request is answered again. Another one under a Transaction UID that is still in use fails as a
        whole (0131, PS3.4 table J.3-4), and the first one stays.
        """
        now, instances = utc_us(), json.dumps(references)
        who = peer, caller.calling_ae_title, transaction_uid
        with self._lock, transaction(self._connection):
            self._connection.execute("DELETE FROM commitments WHERE ended_utc_us < ?", (now - _KEPT_US,))
            in_use = self._one(
                f"{_OPEN} AND {_OF} AND instances != ? AND json_extract(failures, '$[0]') IS NOT ?",
                (*who, instances, DUPLICATE_TRANSACTION_UID),
            )
            failures = json.dumps([DUPLICATE_TRANSACTION_UID] * len(references) if in_use else [])
            state = "checked" if in_use else "asked"
            told_from = now + SAME_ASSOCIATION_S * _SECOND_US
            same = self._one(f"{_OF} AND instances = ? ORDER BY id DESC", (*who, instances))
            if same is not None:
                self._connection.execute(
                    "UPDATE commitments SET state = ?, failures = ?, attempts = 0, reason = '', ended_utc_us = NULL, "
                    "received_utc_us = ?, next_attempt_utc_us = ? WHERE id = ?",
                    (state, failures, now, told_from, same),
                )
                return same
            (count,) = self._connection.execute(f"SELECT count(*) FROM commitments WHERE {_OPEN}").fetchone()  # noqa: S608
            if count >= MOST_OPEN:
                raise Rejected(RESOURCE_LIMITATION, "too many commitment requests are open, ask again later")
            entered = self._connection.execute(
                "INSERT INTO commitments (peer, calling_ae_title, transaction_uid, called_ae_title, address, "
                "received_utc_us, instances, failures, next_attempt_utc_us, state) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*who, caller.called_ae_title, caller.address, now, instances, failures, told_from, state),
            ).lastrowid
        assert entered is not None
        return entered

    def _one(self, where: str, parameters: tuple[object, ...]) -> int | None:
        row = self._connection.execute(f"SELECT id FROM commitments WHERE {where}", parameters).fetchone()  # noqa: S608
        return None if row is None else int(row["id"])

    def unchecked(self) -> Commitment | None:
        """The oldest request that was not looked at."""
        return next(iter(self._select("state = 'asked' ORDER BY id LIMIT 1")), None)

    def checked(self, id: int, failures: Sequence[int]) -> None:
        """Note what was found; it is due to be told on an association of ours `SAME_ASSOCIATION_S` from now."""
        self._change(
            "state = 'checked', failures = ?, next_attempt_utc_us = ? WHERE id = ? AND state = 'asked'",
            (json.dumps(failures), utc_us() + SAME_ASSOCIATION_S * _SECOND_US, id),
        )

    def get(self, id: int) -> Commitment | None:
        """One request whose result is still owed."""
        return next(iter(self._select("id = ? AND state = 'checked'", id)), None)

    def owed_to(self) -> list[str]:
        """The peers to which a result is owed."""
        with self._lock:
            rows = self._connection.execute("SELECT DISTINCT peer FROM commitments WHERE state = 'checked'").fetchall()
        return [str(peer) for (peer,) in rows]

    def due(self, peer: str, most: int = 50) -> list[Commitment]:
        """Results to be told to `peer` now, in the order of the requests."""
        return self._select(
            "peer = ? AND state = 'checked' AND next_attempt_utc_us <= ? ORDER BY id LIMIT ?", peer, utc_us(), most
        )

    def next_due_utc_us(self, peer: str) -> int | None:
        """When the next result is due to be told to `peer`; None when nothing is owed."""
        with self._lock:
            (due,) = self._connection.execute(
                "SELECT min(next_attempt_utc_us) FROM commitments WHERE peer = ? AND state = 'checked'", (peer,)
            ).fetchone()
        return None if due is None else int(due)

    def due_now(self, id: int) -> None:
        """The association on which it was to be told has ended."""
        self._change("next_attempt_utc_us = ? WHERE id = ? AND state = 'checked' AND attempts = 0", (utc_us(), id))

    def reported(self, id: int) -> None:
        """The peer took the result."""
        self._change("state = 'reported', reason = '', ended_utc_us = ? WHERE id = ?", (utc_us(), id))

    def postpone(self, ids: Sequence[int], reason: str) -> list[int]:
        """Not now: after 1, 5 and 30 minutes, then hourly for a day; the ids that are given up."""
        now, given_up = utc_us(), []
        with self._lock, transaction(self._connection):
            for id in ids:
                row = self._connection.execute(
                    "SELECT attempts, received_utc_us FROM commitments WHERE id = ? AND state = 'checked'", (id,)
                ).fetchone()
                if row is None:
                    continue
                attempts = int(row["attempts"])
                delay_us = _DELAYS_US[attempts] if attempts < len(_DELAYS_US) else _HOUR_US
                over = now + delay_us > row["received_utc_us"] + _GIVE_UP_US
                if over:
                    given_up.append(id)
                self._connection.execute(
                    "UPDATE commitments SET attempts = attempts + 1, next_attempt_utc_us = ?, reason = ?, "
                    "state = ?, ended_utc_us = ? WHERE id = ?",
                    (now + delay_us, reason, "parked" if over else "checked", now if over else None, id),
                )
        return given_up

    def _change(self, sql: str, parameters: tuple[object, ...]) -> None:
        with self._lock:
            self._connection.execute(f"UPDATE commitments SET {sql}", parameters)  # noqa: S608  # our own words

    def _select(self, where: str, *parameters: object) -> list[Commitment]:
        with self._lock:
            rows = self._connection.execute(
                f"SELECT * FROM commitments WHERE {where}",  # noqa: S608  # our own words
                parameters,
            ).fetchall()
        return [_commitment(row) for row in rows]


def _commitment(row: sqlite3.Row) -> Commitment:
    return Commitment(
        row["id"],
        row["transaction_uid"],
        row["peer"],
        row["calling_ae_title"],
        row["called_ae_title"],
        row["address"],
        tuple(Reference(*pair) for pair in json.loads(row["instances"])),
        tuple(json.loads(row["failures"])),
        row["attempts"],
    )
