"""Fuzz the node's parsers for minutes: damage to the corpus, guided by which lines of `pacsnode` an input reaches.

In: the corpus of `tests/fuzz`, a target, a seed. Out: a line a minute, one file for each new failure in the corpus,
exit code 1 where there is one. An input that needs more than its time or memory is a failure too. The same seed tries
the same inputs while the code is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.mutations import mutate
from tests.fuzz.targets import TARGETS, Target

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
WATCHED = str(ROOT / "pacsnode")
MOST_SECONDS = 10
"""Of CPU for one input; the dearest seed, 150,000 values in a stream of 1 MB, needs half a second."""
LONGEST_WAIT_S = 300
"""For one input, however busy the machine is: only what hangs needs it."""
MOST_MEMORY_BYTES = 1 << 30
"""Beyond what the program has when it starts."""
MOST_STEPS = 50_000
"""Lines of one input that are watched."""
NEWCOMERS = 0.5
"""How often an input that reached new lines is damaged on, rather than any one of the corpus."""

Line = tuple[str, int]


class TooSlow(BaseException):
    """Raised by the alarm inside whatever is running: no parser may catch it as one of its own errors."""


def main() -> None:
    """Fuzz one target, or all of them one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="a folder with a folder for each target")
    given = parser.parse_args()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY_BYTES, resource.RLIM_INFINITY))
    signal.signal(signal.SIGPROF, _too_slow)
    signal.signal(signal.SIGALRM, _too_slow)
    names = list(TARGETS) if given.target == "all" else [given.target]
    runs = [Run(name, TARGETS[name], given.corpus / name, random.Random(f"{given.seed} {name}")) for name in names]
    for run in runs:
        run.go(60 * given.minutes)
    failures = sum(len(run.failures) for run in runs)
    print(f"{sum(run.tried for run in runs)} inputs, {failures} failures")
    sys.exit(1 if failures else 0)


def _too_slow(_: int, __: FrameType | None) -> None:
    raise TooSlow(f"more than {MOST_SECONDS} s of CPU, or than {LONGEST_WAIT_S} s")


def _limit(seconds: int) -> None:
    """Raise TooSlow after so many seconds of CPU; 0 takes it back."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(LONGEST_WAIT_S if seconds else 0)


@dataclass
class Run:
    """One target for some minutes."""

    name: str
    target: Target
    folder: Path
    dice: random.Random
    tried: int = 0
    failures: set[str] = field(default_factory=set)
    reached: set[Line] = field(default_factory=set)

    def go(self, seconds: float) -> None:
        """First the corpus as it is, then damage."""
        self.folder.mkdir(parents=True, exist_ok=True)
        seeds = [path.read_bytes() for path in sorted(self.folder.iterdir())]
        newcomers: list[bytes] = []
        for seed in seeds:
            self._try(seed)
        begun = told = time.monotonic()
        while (now := time.monotonic()) - begun < seconds:
            if now - told > 60:
                told = now
                self._tell(len(newcomers))
            pool = newcomers if newcomers and self.dice.random() < NEWCOMERS else seeds or [b""]
            made = mutate(self.dice.choice(pool), self.dice, seeds)
            if self._try(made):
                newcomers.append(made)
        self._tell(len(newcomers))

    def _tell(self, newcomers: int) -> None:
        print(
            f"{self.name}: {self.tried} inputs, {len(self.reached)} lines reached, {newcomers} inputs that reached "
            f"new ones, {len(self.failures)} failures",
            flush=True,
        )

    def _try(self, data: bytes) -> bool:
        """Whether `data` reached lines that none before it has."""
        self.tried += 1
        watch = Watch()
        _limit(MOST_SECONDS)
        try:
            sys.settrace(watch.enter)
            self.target(data)
        except (Exception, TooSlow) as error:  # noqa: BLE001  # whatever it is, it is what is looked for
            sys.settrace(None)
            _limit(0)
            self._save(data, error)
        finally:
            sys.settrace(None)
            _limit(0)
        new = watch.lines - self.reached
        self.reached |= new
        return bool(new)

    def _save(self, data: bytes, error: BaseException) -> None:
        """Keep the input, once for each place at which it goes wrong."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if f.filename.startswith(str(ROOT))]
        place = f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else str(error)
        if place in self.failures:
            return
        self.failures.add(place)
        path = self.folder / f"found-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        print(f"{self.name}: {place}: {error}; input kept as {path}", flush=True)


class Watch:
    """Which lines of `pacsnode` run first, by Python's own trace: it makes them many times slower, so it ends early."""

    def __init__(self) -> None:
        self.lines: set[Line] = set()
        self._left = MOST_STEPS

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        """The trace function of a new frame: none for what is not ours, which then runs at full speed."""
        return self.step if frame.f_code.co_filename.startswith(WATCHED) else None

    def step(self, frame: FrameType, event: str, argument: Any) -> Any:
        """One line."""
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        self._left -= 1
        if self._left == 0:
            sys.settrace(None)
        return self.step


if __name__ == "__main__":
    main()
