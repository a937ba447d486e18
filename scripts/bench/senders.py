"""What sends: DCMTK's storescu and dcmsend, as users have them, our lean replay sender, and the bare disk.

In: files and a receiver's port. Out: how long all of it took and, where the sender can tell, each object's own time.
A sender that fails ends the round: what did not arrive is no measurement.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from bench import lean
from bench.corpus import Sample

Sender = Literal["storescu", "dcmsend", "lean"]

# By absolute path: a virtual environment with pynetdicom has a storescu of its own.
COMMANDS: Final = {
    "storescu": ["/usr/bin/storescu", "-R", "-aet", lean.CALLING_AE_TITLE],
    "dcmsend": ["/usr/bin/dcmsend", "-aet", lean.CALLING_AE_TITLE],
}
TIME_LIMIT_S: Final = 600.0


class SendFailed(Exception):
    """A sender ended badly: the receiver refused, hung up or was too slow."""


@dataclass(frozen=True)
class Job:
    """What is to be sent, in how many associations at a time, and to whom."""

    samples: Sequence[Sample]
    associations: int
    one_per_association: bool
    port: int
    called_ae_title: str

    @property
    def shares(self) -> list[list[str]]:
        """The files of each association (or, with one object an association, of each worker)."""
        paths = [str(sample.path) for sample in self.samples]
        return [paths[first :: self.associations] for first in range(min(self.associations, len(paths)))]


@dataclass(frozen=True)
class Sent:
    """How it went. No latencies where the sender does not tell them."""

    seconds: float
    latencies_s: list[float]


def send(sender: Sender, job: Job) -> Sent:
    """Send all of it. Raises SendFailed."""
    return _lean(job) if sender == "lean" else _dcmtk(COMMANDS[sender], job)


def _dcmtk(command: list[str], job: Job) -> Sent:
    """From the first process's start to the last one's exit."""
    full = [*command, "-aec", job.called_ae_title, lean.LOOPBACK, str(job.port)]
    runs = [[[path] for path in share] if job.one_per_association else [share] for share in job.shares]
    started_s = time.monotonic()
    with ThreadPoolExecutor(len(runs)) as workers:
        for done in [workers.submit(_run_all, full, run) for run in runs]:
            done.result()
    return Sent(time.monotonic() - started_s, [])


def _run_all(command: list[str], shares: list[list[str]]) -> None:
    for share in shares:
        try:
            ended = subprocess.run([*command, *share], capture_output=True, text=True, timeout=TIME_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise SendFailed(f"{command[0]} was not done in {TIME_LIMIT_S:.0f} s") from error
        # storescu ends with 0 also where a C-STORE was answered with a failure, but says so.
        if ended.returncode or "Store Failed" in ended.stderr:
            raise SendFailed(f"{command[0]} ended with {ended.returncode}: {ended.stderr[-500:]}")


def _lean(job: Job) -> Sent:
    """From the start signal to the last answer; files are in memory by then."""
    with ExitStack() as stack:
        processes = []
        for share in job.shares:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.lean"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.callback(_end, process)
            order = lean.Order(job.port, job.called_ae_title, share, job.one_per_association)
            _tell(process, json.dumps(asdict(order)))
            processes.append(process)
        for process in processes:
            if _answer(process) != "ready\n":
                raise SendFailed("a lean sender did not get ready")
        for process in processes:
            _tell(process, "go")
        answers = [_answer(process) for process in processes]
    if not all(answers):
        raise SendFailed("a lean sender ended early, see its message above")
    results = [lean.Result(**json.loads(answer)) for answer in answers]
    seconds = max(r.ended_s for r in results) - min(r.started_s for r in results)
    return Sent(seconds, [latency for result in results for latency in result.latencies_s])


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.communicate()


def write_to_disk(samples: Sequence[Sample], threads: int, folder: Path) -> Sent:
    """The disk itself: create, write and fsync the same bytes, one file an object, by some threads."""
    shares = [[sample.path.read_bytes() for sample in samples[first::threads]] for first in range(threads)]
    barrier = threading.Barrier(threads + 1)

    def work(number: int) -> list[float]:
        barrier.wait()
        return [_timed(_write, folder / f"{number}-{index}", data) for index, data in enumerate(shares[number])]

    with ThreadPoolExecutor(threads) as workers:
        done = [workers.submit(work, number) for number in range(threads)]
        barrier.wait()
        started_s = time.monotonic()
        latencies_s = [latency for future in done for latency in future.result()]
        return Sent(time.monotonic() - started_s, latencies_s)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        written = os.write(descriptor, data)
        assert written == len(data), "the disk is full"
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _timed(what: Callable[[Path, bytes], None], path: Path, data: bytes) -> float:
    started_s = time.monotonic()
    what(path, data)
    return time.monotonic() - started_s
