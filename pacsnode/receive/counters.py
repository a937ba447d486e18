"""What a server did since its start, for metrics: counted by many threads, read as one record."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """Totals since the start; `active` is how many associations there are now."""

    active: int = 0
    accepted: int = 0
    rejected: int = 0
    lost: int = 0
    echoed: int = 0
    stored: int = 0
    stored_bytes: int = 0
    refused: int = 0


class Counters:
    """The running totals."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active = self._accepted = self._rejected = self._lost = 0
        self._echoed = self._stored = self._stored_bytes = self._refused = 0

    def snapshot(self) -> Counts:
        """The totals at one moment."""
        with self._lock:
            return Counts(
                self._active,
                self._accepted,
                self._rejected,
                self._lost,
                self._echoed,
                self._stored,
                self._stored_bytes,
                self._refused,
            )

    def accepted(self) -> None:
        """An association was accepted."""
        with self._lock:
            self._accepted += 1
            self._active += 1

    def ended(self) -> None:
        """An accepted association is over."""
        with self._lock:
            self._active -= 1

    def rejected(self) -> None:
        """An association request was rejected."""
        with self._lock:
            self._rejected += 1

    def lost(self) -> None:
        """A connection ended otherwise than by release or the peer's abort."""
        with self._lock:
            self._lost += 1

    def echoed(self) -> None:
        """A C-ECHO was answered."""
        with self._lock:
            self._echoed += 1

    def stored(self, byte_count: int) -> None:
        """An object was committed by the archive, as new, duplicate or aside."""
        with self._lock:
            self._stored += 1
            self._stored_bytes += byte_count

    def refused(self) -> None:
        """An object was answered with a failure."""
        with self._lock:
            self._refused += 1
