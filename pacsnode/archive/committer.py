"""Rows of objects that arrive at the same time share one transaction; whoever comes first commits for all.

There is no thread of its own: an association that comes alone commits its row itself, without a hand-over.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from pacsnode.archive import rows
from pacsnode.database import Turns
from pacsnode.errors import Rejected
from pacsnode.handover import Stored
from pacsnode.telemetry import Log

log = Log(__name__)

LARGEST_BATCH = 200


class _Entry:
    """One row on its way: `turn` is released when it is settled, or when it is for its thread to commit."""

    __slots__ = ("error", "row", "settled", "turn", "verdict")

    def __init__(self, row: rows.NewRow) -> None:
        self.row = row
        self.turn = threading.Lock()
        self.turn.acquire()
        self.settled = False
        self.verdict: Stored | None = None
        self.error: Rejected | None = None


class Committer:
    """The one writer of rows in this process. `on_rows` is called after a commit that brought something new; it must
    not raise."""

    def __init__(self, connection: sqlite3.Connection, turns: Turns, files: Path, on_rows: Callable[[], None]) -> None:
        self._connection = connection
        self._turns = turns
        self._files = files
        self._common = rows.Common()
        self._on_rows = on_rows
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._queue: list[_Entry] = []
        self._leading = False
        self._closed = False

    def commit(self, row: rows.NewRow) -> Stored | None:
        """Index one durable file; returns after the transaction's commit. Raises Rejected: there is no row then.

        None: there is no row either, `row` must come again with its SHA-256 (`rows.insert`).
        """
        entry = _Entry(row)
        with self._lock:
            if self._closed:
                raise Rejected(Rejected.OUT_OF_RESOURCES, "the node is stopping, send again later")
            self._queue.append(entry)
            leads, self._leading = not self._leading, True
        if not leads:
            entry.turn.acquire()
            leads = not entry.settled
        if leads:
            self._lead(entry)
        if entry.error is not None:
            raise entry.error
        return entry.verdict

    def close(self) -> None:
        """Settle what waits; what comes from now on is refused."""
        with self._lock:
            self._closed = True
            self._idle.wait_for(lambda: not self._leading)

    def _lead(self, own: _Entry) -> None:
        with self._lock:
            batch, self._queue = self._queue[:LARGEST_BATCH], self._queue[LARGEST_BATCH:]
        try:
            self._commit_batch(batch)
        finally:
            for entry in batch:
                if entry is not own:
                    entry.turn.release()
            with self._lock:
                if self._queue:
                    self._queue[0].turn.release()
                else:
                    self._leading = False
                    self._idle.notify_all()

    def _commit_batch(self, batch: list[_Entry]) -> None:
        try:
            with self._turns.transaction(self._connection):
                verdicts = rows.insert(self._connection, [entry.row for entry in batch], self._files, self._common)
        except Exception as error:  # each waiting store must be answered, whatever happened
            no_room = isinstance(error, sqlite3.OperationalError | OSError)
            if not no_room and len(batch) > 1:  # one of them is at fault, the others must not suffer for it
                for entry in batch:
                    self._commit_batch([entry])
                return
            log.exception("index rows not committed", rows=len(batch))
            for entry in batch:
                entry.error = _refusal(error, no_room)
                entry.settled = True
            return
        for entry, verdict in zip(batch, verdicts, strict=True):
            entry.verdict = verdict
            entry.settled = True
        if any(verdict is not None and verdict.verdict == "stored" for verdict in verdicts):
            self._on_rows()


def _refusal(error: Exception, no_room: bool) -> Rejected:
    if no_room:
        refusal = Rejected(Rejected.OUT_OF_RESOURCES, "index not writable, send again later")
    else:
        refusal = Rejected(Rejected.CANNOT_UNDERSTAND, "cannot be indexed, see the log of the node")
    refusal.__cause__ = error
    return refusal
