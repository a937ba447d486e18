"""Rounds of one series: every receiver fresh in an empty folder, in turn A B C, C B A, then the objects, then a look.

In: what is sent to whom. Out: one record a receiver and round. A receiver that fails is left out from then on, and its
reason is told; the others go on.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import checks, senders
from bench.corpus import Kind, Sample, make
from bench.receivers import DISK, Running, StartFailed, is_node, node_home
from bench.senders import Job, Sender, SendFailed, Sent
from bench.usage import Watch


@dataclass(frozen=True)
class Series:
    """What is measured together, interleaved."""

    receivers: tuple[str, ...]
    sender: Sender
    corpus: Kind
    associations: int
    objects: int
    rounds: int
    one_per_association: bool = False


@dataclass(frozen=True)
class Round:
    """One receiver in one round. CPU and memory are those of its whole process tree; None is not measured.

    `hashed_after_s`: how long after the last answer a node had hashed everything; its CPU time is part of `cpu_s`.
    `unhashed`: how many objects it had not hashed by the time limit.
    """

    receiver: str
    round: int
    seconds: float
    p50_ms: float | None
    p99_ms: float | None
    cpu_s: float | None
    peak_rss_mb: float | None
    hashed_after_s: float | None
    unhashed: int
    missing: int
    altered: int | None


@dataclass
class Outcome:
    """What a series gave. `failed`: receivers that failed, and why."""

    series: Series
    megabytes: float
    rounds: list[Round] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def of(self, receiver: str) -> list[Round]:
        """Rounds of one receiver, in order; none where it failed in any of them."""
        return [] if receiver in self.failed else [r for r in self.rounds if r.receiver == receiver]

    def objects_per_s(self, receiver: str) -> float:
        """The median."""
        return self.series.objects / statistics.median(r.seconds for r in self.of(receiver))

    def ratio(self, receiver: str, baseline: str) -> float | None:
        """How many times as fast as the baseline: median of the rounds' own ratios. None where one of them failed."""
        pairs = zip(self.of(receiver), self.of(baseline), strict=False)
        return statistics.median([base.seconds / own.seconds for own, base in pairs] or [0]) or None

    @property
    def is_good(self) -> bool:
        """Whether every receiver ran and every object was there as sent."""
        return not self.failed and not any(r.missing or r.altered or r.unhashed for r in self.rounds)


def percentile_ms(latencies_s: Sequence[float], percent: int) -> float | None:
    """The nearest-rank percentile, in milliseconds; None of nothing."""
    if not latencies_s:
        return None
    rank = -(-len(latencies_s) * percent // 100)
    return sorted(latencies_s)[max(0, rank - 1)] * 1000


def run(series: Series, folder: Path) -> Outcome:
    """Measure one series below `folder`, which is left as it was."""
    work = folder / "series"
    samples = make(series.corpus, series.objects, work / "corpus")
    outcome = Outcome(series, sum(sample.file_bytes for sample in samples) / 1e6)
    try:
        for number in range(series.rounds):
            for name in series.receivers if number % 2 == 0 else series.receivers[::-1]:
                if name not in outcome.failed:
                    _round(outcome, name, number, samples, work)
    finally:
        shutil.rmtree(work)
    return outcome


def _round(outcome: Outcome, name: str, number: int, samples: Sequence[Sample], work: Path) -> None:
    folder = work / f"{number}-{name}"
    try:
        measure = _write if name == DISK else _receive
        measured = measure(outcome.series, name, number, samples, folder)
    except (StartFailed, SendFailed) as error:
        outcome.failed[name] = str(error)
        print(f"round {number} {name}: FAILED: {error}", file=sys.stderr, flush=True)
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    outcome.rounds.append(measured)
    speed = len(samples) / measured.seconds
    print(f"round {number} {name}: {speed:.0f} objects/s", file=sys.stderr, flush=True)


def _receive(series: Series, name: str, number: int, samples: Sequence[Sample], folder: Path) -> Round:
    with Running(name, folder) as receiver:
        os.sync()
        job = Job(samples, series.associations, series.one_per_association, receiver.port, receiver.ae_title)
        hashing: tuple[float | None, int] = (None, 0)
        with Watch(receiver.process.pid) as watch:
            sent = senders.send(series.sender, job)
            if is_node(name):
                home = node_home(folder)
                indexed = checks.indexed(home)
                hashing = checks.wait_until_hashed(home)
            cpu_s, peak_rss_mb = watch.cpu_s(), watch.peak_rss_mb()
        check = checks.check_node(home, samples, indexed) if is_node(name) else checks.check_peer(folder, samples)
    return _record(name, number, sent, check, (cpu_s, peak_rss_mb, *hashing))


def _write(series: Series, name: str, number: int, samples: Sequence[Sample], folder: Path) -> Round:
    folder.mkdir(parents=True)
    os.sync()
    sent = senders.write_to_disk(samples, series.associations, folder)
    missing = len(samples) - len(list(folder.iterdir()))
    return _record(name, number, sent, checks.Check(missing, None), (None, None, None, 0))


def _record(
    name: str,
    number: int,
    sent: Sent,
    check: checks.Check,
    used: tuple[float | None, float | None, float | None, int],
) -> Round:
    p50_ms, p99_ms = percentile_ms(sent.latencies_s, 50), percentile_ms(sent.latencies_s, 99)
    return Round(name, number, sent.seconds, p50_ms, p99_ms, *used, check.missing, check.altered)
