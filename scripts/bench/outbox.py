"""The outbox at scale: 20 destinations of which 5 are dead, 10,000 owed instances, 100,000 finished rows.

`scripts/bench/run outbox [--rounds 3]`. Prints how fast healthy destinations get theirs alone and beside dead ones,
what the queue takes of memory and of the processor, also when it has nothing to do, and how long a start takes. Objects
are small and the sinks lean, so that the queue's own limit shows; sinks are a process of their own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import usage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pacsnode import schema
from pacsnode.archive.confirmations import Asked, Confirmations
from pacsnode.database import connect, transaction, utc_us
from pacsnode.deliver import overview
from pacsnode.deliver.debts import Debt, owe
from pacsnode.deliver.destinations import Destinations
from pacsnode.deliver.orders import Selection
from pacsnode.deliver.outbox import Outbox
from pacsnode.deliver.proving import Proving, Subject
from pacsnode.deliver.ready import Route
from pacsnode.deliver.senders import Senders
from pacsnode.dimse import associate, commands, pdus
from pacsnode.dimse.transport import Transport
from pacsnode.peers import Peer
from pacsnode.settings import Settings, load

HEALTHY: Final = 15
DEAD: Final = 5
EACH: Final = 500
FINISHED: Final = 100_000
IDLE_S: Final = 20.0
SWEEP_S: Final = 5.0
"""As often `work` wakes the senders."""
SC: Final = "1.2.840.10008.5.1.4.1.1.7"
KNOWN: Final = (SC, "1.2.840.10008.1.1")
LOOPBACK: Final = "127.0.0.1"


# --- sinks, in a process of their own


def sink(count: int) -> None:
    """Listen on `count` ports, take everything at once; the ports go to stdout."""
    listeners = [socket.create_server((LOOPBACK, 0), backlog=64) for _ in range(count)]
    print(*(listener.getsockname()[1] for listener in listeners), flush=True)
    for listener in listeners:
        threading.Thread(target=_listen, args=(listener,), daemon=True).start()
    sys.stdin.read()


def _listen(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_talk, args=(connection,), daemon=True).start()


def _talk(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = Transport(connection, pdu_timeout_s=60)
    _, request = transport.read_pdu(limit=1 << 20, wait_s=60)
    answers = [
        associate.ContextResult(
            one.context_id,
            associate.ACCEPTANCE if one.abstract_syntax in KNOWN else associate.ABSTRACT_SYNTAX_NOT_SUPPORTED,
            one.transfer_syntaxes[0],
        )
        for one in associate.decode_items(request[associate.ITEMS_OFFSET :]).proposed
    ]
    transport.send(associate.encode_accept(answers))
    with suppress(pdus.ReleaseRequested, pdus.AssociationLost):
        while True:
            fragments = transport.read_fragments(wait_s=60)
            command = commands.parse(b"".join(fragments.pieces))
            while command.has_data_set and not transport.read_fragments(wait_s=60).is_last:
                pass
            response = commands.response(command, commands.Status(commands.SUCCESS))
            transport.send(pdus.command_pdus(fragments.context_id, response, 16_384))
    with suppress(pdus.AssociationLost):
        transport.send(pdus.RELEASE_RP_PDU)
    transport.close()


@contextmanager
def sinks() -> Iterator[list[int]]:
    """Ports of the healthy destinations."""
    words = [sys.executable, __file__, "--sink", str(HEALTHY)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield [int(port) for port in process.stdout.readline().split()]
        finally:
            process.kill()


@contextmanager
def dead_ports() -> Iterator[list[int]]:
    """Two where nobody listens, and three that take the connection and never say a word."""
    with ExitStack() as stack:
        closed = []
        for _ in range(2):
            with socket.create_server((LOOPBACK, 0)) as gone:
                closed.append(gone.getsockname()[1])
        deaf = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(DEAD - len(closed))]
        yield closed + [one.getsockname()[1] for one in deaf]


# --- the node


@dataclass(frozen=True)
class World:
    """A home with finished rows, and the objects that are sent."""

    settings: Settings
    objects: dict[str, Path]

    def describe(self, uids: Sequence[str]) -> dict[str, Subject]:
        return {uid: Subject(Asked(SC, uid, ""), "1.2.3", "1.2.3.1") for uid in uids}

    def owe(self, destinations: Sequence[str]) -> None:
        with closing(connect(self.settings.node_db, "FULL")) as connection:
            connection.execute("DELETE FROM outbox WHERE created_utc_us > 0")
            connection.execute("DELETE FROM destinations")
            uids = list(self.objects)
            for start in range(0, EACH, 50):  # results come study by study, each for all destinations
                with transaction(connection):
                    debts = [Debt(name, tuple(uids[start : start + 50])) for name in destinations]
                    owe(connection, "", f"1.2.{start}", 10, debts)


def build(folder: Path) -> World:
    """Objects, and a node.db in which 100,000 deliveries are finished."""
    settings = load(home=folder / "home")
    schema.migrate(settings)
    objects = {}
    for number in range(EACH):
        uid, path = f"1.2.3.4.{number}", folder / f"{number}.dcm"
        made = Dataset()
        made.SOPClassUID, made.SOPInstanceUID, made.StudyInstanceUID = SC, uid, "1.2.3"
        made.add_new("PixelData", "OW", bytes(4096))
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = SC, uid
        made.save_as(path, enforce_file_format=True)
        objects[uid] = path
    with closing(connect(settings.node_db, "FULL")) as connection:
        for start in range(0, FINISHED, 500):
            with transaction(connection):
                connection.executemany(
                    "INSERT INTO outbox (sop_instance_uid, destination, case_key, study_instance_uid, state, priority, "
                    "attempts, next_attempt_utc_us, created_utc_us, ended_utc_us, status, proof) "
                    "VALUES (?, ?, ?, ?, 'confirmed', 10, 1, 0, 0, ?, 0, 'commitment')",
                    [
                        (f"9.{n}", f"peer-{n % 20}", f"case {n // 3}", f"8.{n // 6}", n)
                        for n in range(start, start + 500)
                    ],
                )
    return World(settings, objects)


@dataclass(frozen=True)
class Run:
    """One round: seconds until each delivery to a healthy destination had ended, and what it took."""

    took_s: list[float]
    cpu_s: float
    rss_mb: float
    idle_cpu: float
    dead_failures: int
    dead_attempts: int

    @property
    def p95_s(self) -> float:
        return statistics.quantiles(self.took_s, n=20)[-1]

    @property
    def rate(self) -> float:
        return len(self.took_s) / max(self.took_s)


def run(world: World, healthy: Sequence[int], dead: Sequence[int], idle_s: float) -> Run:
    """Send everything that healthy destinations are owed; with `idle_s`, go on waiting for that long."""
    ports = {f"peer-{number}": port for number, port in enumerate([*healthy, *dead])}
    peers = {
        name: Peer.model_validate({"name": name, "ae_title": "SINK", "host": LOOPBACK, "port": port})
        for name, port in ports.items()
    }
    world.owe(list(peers))
    names, lost = list(peers)[: len(healthy)], list(peers)[len(healthy) :]
    with (
        closing(Outbox(world.settings.node_db, 14 * 86_400)) as outbox,
        closing(Confirmations(world.settings.index_db)) as confirmations,
    ):
        route = Route("PACSNODE", world.objects.__getitem__, lambda owed, peer: "", lambda: False)
        began_us, began_cpu_s = utc_us(), time.process_time()
        senders = Senders(outbox, route, peers.get, Proving(route, confirmations, world.describe))
        senders.wake()
        while _left(outbox, names):
            time.sleep(0.05)
        cpu_s, rss_mb = time.process_time() - began_cpu_s, usage.own_rss_mb(os.getpid())
        idle_cpu = _idle(senders, idle_s) if idle_s else 0.0
        took_s = [
            (row[0] - began_us) / 1e6
            for row in outbox.rows(
                "SELECT ended_utc_us, destination FROM outbox WHERE created_utc_us > 0 AND state != 'owed' "
                "AND ended_utc_us IS NOT NULL"
            )
        ]
        standing = [trouble for name in lost if (trouble := Destinations(outbox).trouble(name))]
        attempts = sum(
            one.attempts for name in lost for one in overview.select(outbox, Selection(destination=name), "owed", EACH)
        )
        senders.stop(1)
        return Run(took_s, cpu_s, rss_mb, idle_cpu, sum(one.failures for one in standing), attempts)


def _left(outbox: Outbox, names: Sequence[str]) -> bool:
    owed = set(outbox.destinations()) & set(names)
    sending = {row[0] for row in outbox.rows("SELECT DISTINCT destination FROM outbox WHERE state = 'sending'")}
    return bool(owed or sending & set(names))


def _idle(senders: Senders, idle_s: float) -> float:
    """Share of one processor while nothing can be sent, woken as `work` does."""
    time.sleep(3)  # proof of the last ones is asked for
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    while time.monotonic() - began_s < idle_s:
        senders.wake()
        time.sleep(SWEEP_S)
    return (time.process_time() - began_cpu_s) / (time.monotonic() - began_s)


def start_s(world: World) -> tuple[float, float]:
    """Seconds to a running queue with everything finished, and to the numbers of each destination."""
    began_s = time.monotonic()
    with closing(Outbox(world.settings.node_db, 86_400)) as outbox:
        route = Route("PACSNODE", world.objects.__getitem__, lambda owed, peer: "", lambda: False)
        senders = Senders(outbox, route, lambda name: None)
        senders.wake()
        started_s = time.monotonic() - began_s
        assert sum(sum(line.states.values()) for line in overview.summary(outbox)) >= FINISHED
        senders.stop(5)
        return started_s, time.monotonic() - began_s


def main() -> None:
    """Build, run in turn alone and beside dead ones, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sink", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.sink:
        sink(given.sink)
        return
    folder = Path(tempfile.mkdtemp(prefix="outbox-"))
    try:
        world = build(folder)
        starts = [start_s(world) for _ in range(given.rounds)]
        alone, beside = [], []
        with sinks() as healthy, dead_ports() as dead:
            for number in range(given.rounds):
                alone.append(run(world, healthy, [], 0))
                beside.append(run(world, healthy, dead, IDLE_S if number == given.rounds - 1 else 0))
        tell(alone, beside, starts)
    finally:
        shutil.rmtree(folder)


def tell(alone: Sequence[Run], beside: Sequence[Run], starts: Sequence[tuple[float, float]]) -> None:
    """Medians of the rounds."""
    print(f"{HEALTHY} healthy destinations, {EACH} instances of 4 KB each; medians of {len(alone)} rounds\n")
    print("| | instances/s | p50 | p95 | CPU per 1,000 | memory |\n|---|---|---|---|---|---|")
    for name, runs in (("alone", alone), (f"beside {DEAD} dead, 10,000 owed", beside)):
        middle = statistics.median
        print(
            f"| {name} | {middle(r.rate for r in runs):.0f} | {middle(middle(r.took_s) for r in runs):.2f} s | "
            f"{middle(r.p95_s for r in runs):.2f} s | {middle(1000 * r.cpu_s / len(r.took_s) for r in runs):.2f} s | "
            f"{max(r.rss_mb for r in runs):.0f} MB |"
        )
    last = beside[-1]
    print(
        f"\nidle with {DEAD * EACH} owed to {DEAD} dead ones: {100 * last.idle_cpu:.2f} % of a core; "
        f"they cost {last.dead_failures} tries in all, and {last.dead_attempts} attempts of rows\n"
        f"start with {FINISHED:,} finished rows: {statistics.median(s for s, _ in starts):.3f} s, with the numbers of "
        f"each destination {statistics.median(s for _, s in starts):.3f} s"
    )


if __name__ == "__main__":
    main()
