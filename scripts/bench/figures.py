"""Figures of one node beside its speed: C-ECHO, idle and many associations, C-STORE while results are kept.

In: rounds and an empty folder. Out: each figure with what the project promises. Every node is `pacsnode serve` as
shipped, fresh in a folder of its own; only where it is said, a limit is raised.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import lean, senders
from bench.corpus import Sample, make
from bench.receivers import ROOT, Running
from bench.rounds import percentile_ms
from bench.usage import own_cpu_s, own_rss_mb, rss_mb, tree

ECHOES: Final = 300
IDLE_ASSOCIATIONS: Final = 50
MANY_ASSOCIATIONS: Final = 200
NODE: Final = "pacsnode"
WIDE_OPEN: Final = {"PACSNODE_MAXIMUM_ASSOCIATIONS": "250", "PACSNODE_PEER_ASSOCIATIONS": "250"}
STORES: Final = 300


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    measured: str
    must: str


@dataclass(frozen=True)
class Writing:
    """99th percentiles of C-STORE in one round, and how fast results were written meanwhile."""

    alone_p99_ms: float
    beside_p99_ms: float
    results_per_s: float


def measure(rounds: int, idle_s: float, folder: Path) -> tuple[list[Figure], list[Writing]]:
    """All figures; the last one with its raw rounds."""
    figures: list[Figure] = []
    with Running(NODE, folder / "quiet") as node:
        figures += _echoes(node)
        figures += _idle(node, idle_s)
    with Running(NODE, folder / "many", WIDE_OPEN) as node:
        figures += _many(node, make("mixed", MANY_ASSOCIATIONS, folder / "small"))
    samples = make("ct", STORES, folder / "slices")
    writing = [_round(number, samples, folder / f"writing-{number}") for number in range(rounds)]
    return figures + _writing(writing), writing


def table(figures: Sequence[Figure]) -> str:
    """As Markdown."""
    lines = (f"| {figure.what} | {figure.measured} | {figure.must} |" for figure in figures)
    return "\n".join(("| figure | measured | must |", "|---|---|---|", *lines))


def _echoes(node: Running) -> list[Figure]:
    latencies_s = lean.echo(node.port, node.ae_title, ECHOES)
    p50_ms, p99_ms = percentile_ms(latencies_s, 50), percentile_ms(latencies_s, 99)
    return [
        Figure(f"C-ECHO p50 of {ECHOES} in one association", f"{p50_ms:.3f} ms", "under 0.3 ms"),
        Figure("C-ECHO p99", f"{p99_ms:.3f} ms", ""),
    ]


def _idle(node: Running, seconds: float) -> list[Figure]:
    contexts = [(lean.VERIFICATION, lean.IMPLICIT_LITTLE_ENDIAN)]
    with ExitStack() as stack:
        for _ in range(IDLE_ASSOCIATIONS):
            stack.enter_context(closing(lean.Link.open(node.port, node.ae_title, contexts)))
        time.sleep(1)
        pid = _scp(node)
        before_s = own_cpu_s(pid)
        time.sleep(seconds)
        percent = (own_cpu_s(pid) - before_s) / seconds * 100
    what = f"CPU of scp with {IDLE_ASSOCIATIONS} idle associations, over {seconds:.0f} s"
    return [Figure(what, f"{percent:.2f} % of a core", "under 1 %")]


def _many(node: Running, samples: Sequence[Sample]) -> list[Figure]:
    """Every association stays open once it has stored an object, so that each has all its buffers."""
    with ExitStack() as stack:
        links = []
        for sample in samples:
            loaded = lean.load(sample.path)
            link = stack.enter_context(closing(lean.Link.open(node.port, node.ae_title, [loaded.context])))
            links.append((link, loaded))
        for link, loaded in links:
            link.store(loaded)
        scp_mb, all_mb = own_rss_mb(_scp(node)), rss_mb(node.process.pid)
    what = f"{len(samples)} associations open, each has stored {samples[0].file_bytes / 1e6:.2f} MB (limits raised)"
    return [
        Figure(f"RSS of scp, {what}", f"{scp_mb:.0f} MB", "under 600 MB"),
        Figure("the same, all processes of the node", f"{all_mb:.0f} MB", ""),
    ]


def _scp(node: Running) -> int:
    """The process that receives."""
    for pid in tree(node.process.pid):
        if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:4] == [b"-m", b"pacsnode", b"scp"]:
            return pid
    raise LookupError("the node has no scp")


def _round(number: int, samples: Sequence[Sample], folder: Path) -> Writing:
    alone_p99_ms = beside_p99_ms = results_per_s = 0.0
    for beside in (False, True) if number % 2 == 0 else (True, False):
        with Running(NODE, folder / str(beside)) as node:
            if beside:
                beside_p99_ms, results_per_s = _stores_beside(node, samples)
            else:
                alone_p99_ms = _stores(node, samples)
    writing = Writing(alone_p99_ms, beside_p99_ms, results_per_s)
    print(f"round {number}: {writing}", file=sys.stderr, flush=True)
    return writing


def _stores(node: Running, samples: Sequence[Sample]) -> float:
    sent = senders.send("lean", senders.Job(samples, 1, False, node.port, node.ae_title))
    p99_ms = percentile_ms(sent.latencies_s, 99)
    assert p99_ms is not None
    return p99_ms


def _stores_beside(node: Running, samples: Sequence[Sample]) -> tuple[float, float]:
    with _result_writer(node) as writer:
        p99_ms = _stores(node, samples)
        answer, _ = writer.communicate("enough\n")
    results, seconds = answer.split()
    return p99_ms, int(results) / float(seconds)


@contextmanager
def _result_writer(node: Running) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.result_writer"],
        env={**node.environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the writer of results did not get ready, see its message above")
        yield process
    finally:
        process.kill()
        process.wait()


def _writing(rounds: Sequence[Writing]) -> list[Figure]:
    alone_ms = statistics.median(r.alone_p99_ms for r in rounds)
    beside_ms = statistics.median(r.beside_p99_ms for r in rounds)
    ratio = statistics.median(r.beside_p99_ms / r.alone_p99_ms for r in rounds)
    rate = statistics.median(r.results_per_s for r in rounds)
    return [
        Figure(
            f"C-STORE p99, {STORES} CT, 1 association, lean sender, median of {len(rounds)}", f"{alone_ms:.1f} ms", ""
        ),
        Figure(f"the same while results are kept at {rate:.0f}/s", f"{beside_ms:.1f} ms, {ratio:.2f}x", "at most 2x"),
    ]
