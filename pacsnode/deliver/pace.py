"""When and how fast a destination may be sent to: its hours, its share of the line, its associations at once.

In: the `sends:` of a peer. Out: waits. Never talks to a peer.
"""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from typing import Final

from pacsnode.archive.case_rows import STAT
from pacsnode.deliver.outbox import ANY_PRIORITY

SHORTEST_WAIT_S: Final = 0.005
"""Less is owed to the line: sleeping is not more exact."""
DAY_S: Final = 86_400.0


def priority_now(between: Sequence[str] | None, now_utc_us: int, zone: tzinfo) -> int:
    """How urgent a delivery has to be to go now: outside of its hours a destination gets what is stat, and no more."""
    return ANY_PRIORITY if opens_in_s(between, now_utc_us, zone) == 0 else STAT


def opens_in_s(between: Sequence[str] | None, now_utc_us: int, zone: tzinfo) -> float:
    """Seconds until the hours of a destination begin, 0 while they last; hours may go over midnight."""
    if between is None:
        return 0.0
    local = datetime.fromtimestamp(now_utc_us / 1e6, UTC).astimezone(zone)
    now_s = local.hour * 3600 + local.minute * 60 + local.second
    begins_s, ends_s = (int(clock[:2]) * 3600 + int(clock[3:]) * 60 for clock in between)
    inside = begins_s <= now_s < ends_s if begins_s < ends_s else not ends_s <= now_s < begins_s
    return 0.0 if inside else (begins_s - now_s) % DAY_S


class Pace:
    """A cap on bytes a second, for all threads of a destination together. No cap where `kilobytes_per_s` is None."""

    def __init__(self, stopping: threading.Event) -> None:
        self.kilobytes_per_s: int | None = None
        self._stopping = stopping
        self._lock = threading.Lock()
        self._free_s = 0.0

    def wait(self, size: int) -> None:
        """Before `size` bytes go: until the line has room for them, or the node stops."""
        if self.kilobytes_per_s is None:
            return
        with self._lock:
            now_s = time.monotonic()
            begins_s = max(now_s, self._free_s)
            self._free_s = begins_s + size / (self.kilobytes_per_s * 1000)
        if begins_s - now_s > SHORTEST_WAIT_S:
            self._stopping.wait(begins_s - now_s)


class Paced(io.BufferedIOBase):
    """A file that is read no faster than its destination may be sent to."""

    def __init__(self, file: io.BufferedIOBase, wait: Callable[[int], None]) -> None:
        self._file = file
        self._wait = wait

    def readinto(self, target: bytearray | memoryview) -> int:  # type: ignore[override]  # any buffer
        """As the file's."""
        self._wait(len(target))
        return self._file.readinto(target)

    def read(self, size: int | None = -1, /) -> bytes:
        """As the file's."""
        data = self._file.read(size)
        self._wait(len(data))
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """As the file's."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As the file's."""
        return self._file.tell()


class Slots:
    """Associations with a destination at once, handed out in the order in which they were asked for."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._used = 0
        self._queue: deque[object] = deque()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for one: who only waits for an answer gives way."""
        return bool(self._queue)

    @contextmanager
    def take(self, at_once: int, stopping: threading.Event) -> Iterator[None]:
        """One of `at_once`. Once `stopping` is set nobody waits: whoever has one looks at it himself."""
        ticket = object()
        with self._condition:
            self._queue.append(ticket)
            while not stopping.is_set() and (self._queue[0] is not ticket or self._used >= at_once):
                self._condition.wait(1.0)
            self._queue.remove(ticket)
            self._used += 1
            self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._used -= 1
                self._condition.notify_all()
