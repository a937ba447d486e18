"""What a server did since its start, for metrics: counted by many threads, read as one record."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace


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
        self._counts = Counts()

    def snapshot(self) -> Counts:
        """The totals at one moment."""
        return self._counts

    def accepted(self) -> None:
        """An association was accepted."""
        self._add(accepted=1, active=1)

    def ended(self) -> None:
        """An accepted association is over."""
        self._add(active=-1)

    def rejected(self) -> None:
        """An association request was rejected."""
        self._add(rejected=1)

    def lost(self) -> None:
        """A connection ended otherwise than by release or the peer's abort."""
        self._add(lost=1)

    def echoed(self) -> None:
        """A C-ECHO was answered."""
        self._add(echoed=1)

    def stored(self, byte_count: int) -> None:
        """An object was committed by the archive, as new, duplicate or aside."""
        self._add(stored=1, stored_bytes=byte_count)

    def refused(self) -> None:
        """An object was answered with a failure."""
        self._add(refused=1)

    def _add(self, **amounts: int) -> None:
        with self._lock:
            sums = {name: getattr(self._counts, name) + amount for name, amount in amounts.items()}
            self._counts = replace(self._counts, **sums)
