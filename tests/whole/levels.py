"""What a process holds, as the kernel tells it in /proc, and whether it grew.

In: the id of a process. Out: memory, threads and open files at one moment; over many, what is left or grows.
"""

from __future__ import annotations

import contextlib
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

GROWTH_KB = 10_240
GROWTH = 0.1
ENGINE_FILES = "jobs.db"
"""Memory counts as flat where it grew by less than a tenth, or by less than 10 MB."""


@dataclass(frozen=True)
class Level:
    """What a process holds."""

    resident_kb: int
    threads: int
    open_files: tuple[str, ...]
    """Paths, and "socket" and the like without their number."""

    @classmethod
    def of(cls, pid: int) -> Level:
        """As the kernel tells it now."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        open_files = []
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                open_files.append(str(descriptor.readlink()).partition(":[")[0])
        return cls(int(status["VmRSS"].split()[0]), int(status["Threads"]), tuple(sorted(open_files)))

    @property
    def descriptors(self) -> int:
        """How many there are open, but those of the engine: its pool opens connections when several are needed at once
        for the first time, and keeps them.
        """
        return len([name for name in self.open_files if not Path(name).name.startswith(ENGINE_FILES)])

    def __str__(self) -> str:
        return f"{self.resident_kb / 1024:.1f} MB, {self.threads} threads, {self.descriptors} descriptors"


@dataclass
class Role:
    """One process of the node from start to end."""

    pid: int
    before: Level
    samples: list[Level] = field(default_factory=list)
    after: Level = Level(0, 0, ())

    def resident_kb(self, quarter: int) -> float:
        """The median in one quarter of the time, 1 to 4."""
        length = len(self.samples)
        return statistics.median(
            s.resident_kb for s in self.samples[length * (quarter - 1) // 4 : length * quarter // 4]
        )

    def __str__(self) -> str:
        most = max(s.threads for s in self.samples), max(s.descriptors for s in self.samples)
        return (
            f"{self.resident_kb(2) / 1024:.1f} MB in the second quarter, {self.resident_kb(4) / 1024:.1f} in the last, "
            f"threads {self.before.threads}, at most {most[0]}, {self.after.threads} at the end, "
            f"descriptors {self.before.descriptors}, {most[1]}, {self.after.descriptors}"
        )

    def faults(self) -> list[str]:
        """What grew."""
        grown_kb = self.resident_kb(4) - self.resident_kb(2)
        found = []
        if grown_kb > max(GROWTH_KB, GROWTH * self.resident_kb(2)):
            found.append(f"memory grew by {grown_kb:.0f} KB")
        if self.after.threads > self.before.threads:
            found.append(f"{self.after.threads - self.before.threads} threads are left")
        if self.after.descriptors > self.before.descriptors:
            left = Counter(self.after.open_files) - Counter(self.before.open_files)
            found.append(f"{self.after.descriptors - self.before.descriptors} descriptors are left, new: {dict(left)}")
        return found
