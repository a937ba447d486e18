"""How long from the last C-STORE answer to the SR at the PACS, and what the idle node costs, in one configuration.

Prints a Markdown table. Each radiograph is sent when the one before has come back. Quiet time and the network's own
forward pass are taken off, as they are the site's and the model's choice. Run: scripts/bench/run main_job
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from harness import LOOPBACK, Node, free_port, radiograph, wait_until, write_rules
from sending import variant

from pacsnode.dimse.association import Association, contexts_for
from pacsnode.dimse.part10 import read_meta
from pacsnode.handover import Stored, StoreRequest
from pacsnode.receive.admission import Admitted, Caller
from pacsnode.receive.server import ListenOptions, Server

SR = "1.2.840.10008.5.1.4.1.1.88.34"
QUIET_S = 1.0


class Forgetful:
    """A peer that takes everything and keeps nothing."""

    def admit(self, caller: Caller) -> Admitted:
        """Anybody."""
        return Admitted("anybody", "", frozenset({"store"}))

    def refused(self, caller: Caller, reason: str) -> None:
        """Nobody is."""

    def begin(self, request: StoreRequest) -> Forgetful:
        """Take one object."""
        return self

    def write(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Forget it."""

    def commit(self) -> Stored:
        """Say that it is stored."""
        return Stored("stored")

    def abort(self) -> None:
        """Forget that too."""


class Arrivals:
    """When SRs arrived."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._arrived = threading.Condition()

    def note(self, request: StoreRequest, _: Stored) -> None:
        """One object was stored."""
        if request.sop_class_uid == SR:
            with self._arrived:
                self.times.append(time.monotonic())
                self._arrived.notify_all()

    def wait(self, count: int) -> float:
        """The time of arrival number `count`."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.times) >= count, 120):
                raise TimeoutError("no SR in 120 s")
            return self.times[count - 1]


def cpu_s(pids: Sequence[int]) -> float:
    """CPU seconds that processes have used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--idle-s", type=float, default=60)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench"))
    arrivals, peer = Arrivals(), Forgetful()
    with Server(ListenOptions(LOOPBACK, 0), peer, peer, arrivals.note) as pacs:
        rules = write_rules(folder / "rules.yaml", sender_port=free_port(), pacs_port=pacs.port, quiet=QUIET_S)
        rules.write_text(rules.read_text().replace("[sender, main-pacs]", "[main-pacs]"))
        with Node(folder / "home", rules) as node:
            wait_until(lambda: "models loaded" in node.log(), 120)
            rounds = [_round(node, folder, arrivals, n) for n in range(given.rounds + 1)][1:]  # the first one warms
            pids = [*node.pids().values(), node.processes[0].pid]
            before = cpu_s(pids)
            time.sleep(given.idle_s)
            idle_percent = 100 * (cpu_s(pids) - before) / given.idle_s
    median, worst = statistics.median(rounds), max(rounds)
    print("| measure | value |\n|---|---|")
    print(
        f"| last C-STORE answer to SR at the PACS, less quiet time and forward pass: median of {given.rounds} "
        f"| {median * 1000:.0f} ms |"
    )
    print(f"| the same, worst | {worst * 1000:.0f} ms |")
    print(f"| idle node, all processes, over {given.idle_s:.0f} s | {idle_percent:.1f} % of one core |")


def _round(node: Node, folder: Path, arrivals: Arrivals, number: int) -> float:
    path = folder / f"{number}.dcm"
    dataset = variant(radiograph(), path, f"bench {folder} {number}")
    with path.open("rb") as file:
        meta = read_meta(file)
    contexts = contexts_for([(meta.sop_class_uid, meta.transfer_syntax_uid)])
    with Association.request(LOOPBACK, node.port, "XR1", "PACSNODE", contexts) as association:
        assert association.store_file(path).is_success
        answered = time.monotonic()
    arrived = arrivals.wait(number + 1)
    case = node.life(str(dataset.StudyInstanceUID))["cases"][0]
    spent: float = arrived - answered - QUIET_S - case["timings_s"]["network_s"]
    print(f"round {number}: {spent * 1000:.0f} ms {json.dumps(case['timings_s'])}", flush=True)
    return spent


if __name__ == "__main__":
    main()
