"""CPU time and memory of a process and all that it started, from /proc. Reads only."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

TICKS_IN_SECOND: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
SAMPLE_EVERY_S: Final = 0.05


def tree(root: int) -> list[int]:
    """A process and its descendants, zombies too."""
    children: dict[int, list[int]] = {}
    for name in (folder.name for folder in Path("/proc").iterdir()):
        if name.isdecimal():
            with suppress(OSError):  # it has ended
                children.setdefault(int(_stat(int(name))[1]), []).append(int(name))
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left += children.get(pid, [])
    return found


def cpu_s(root: int) -> float:
    """CPU seconds of a tree so far, with those of children that have ended."""
    ticks = 0
    for pid in tree(root):
        with suppress(OSError):
            ticks += sum(map(int, _stat(pid)[11:15]))  # utime, stime, cutime, cstime
    return ticks / TICKS_IN_SECOND


def own_cpu_s(pid: int) -> float:
    """CPU seconds of one process alone."""
    return sum(map(int, _stat(pid)[11:13])) / TICKS_IN_SECOND


def rss_mb(root: int) -> float:
    """Resident memory of a tree; pages that several processes share count in each."""
    pages = 0
    for pid in tree(root):
        with suppress(OSError):
            pages += int(_stat(pid)[21])
    return pages * PAGE_BYTES / 1e6


def own_rss_mb(pid: int) -> float:
    """Resident memory of one process alone."""
    return int(_stat(pid)[21]) * PAGE_BYTES / 1e6


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; the name before them may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


class Watch:
    """What a tree used between entering and leaving: CPU seconds, and the highest sum of resident memory seen."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="watch", daemon=True)
        self._peak_rss_mb = 0.0
        self._cpu_before_s = 0.0

    def __enter__(self) -> Self:
        self._cpu_before_s = cpu_s(self._root)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def cpu_s(self) -> float:
        """CPU seconds since entering."""
        return cpu_s(self._root) - self._cpu_before_s

    def peak_rss_mb(self) -> float:
        """The highest sum so far."""
        return max(self._peak_rss_mb, rss_mb(self._root))

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_EVERY_S):
            self._peak_rss_mb = max(self._peak_rss_mb, rss_mb(self._root))
