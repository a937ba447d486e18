"""Mixed peers at a whole node for minutes, one of them misbehaving all the time: nothing lost, nothing that grows.

In: a folder, for how long, a seed. Out: what was lost, and memory, threads and descriptors of scp and work at the start
and at the end. Used by the tests (under a minute) and by `scripts/soak mixed` (10 minutes, about 10 GB). The good peers
count every answer that is not 0x0000 as a fault: whatever the bad one does is no reason to turn them away.
"""

from __future__ import annotations

import contextlib
import io
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acknowledged import CONTEXTS, CR, CT, EXPLICIT, KINDS, Found, Ledger, Made, compare, without_row
from harness import LOOPBACK, Node, free_port, wait_until
from levels import Level, Role
from receive_kills import LARGE_BYTES, Sender, send_by_dcmtk

from pacsnode.dimse import associate, pdus
from pacsnode.dimse.association import ECHO_CONTEXT, Association
from pacsnode.errors import PacsnodeError
from pacsnode.settings import load
from tests.receive import commitments
from tests.receive.certificates import Authority
from tests.receive.doubles import RawClient, store_command

RULES = """
version: 1
peers:
  # The misbehaving one calls as the good ones do: its silent associations count against the same limit.
  modality: {ae_title: XR1, host: 127.0.0.1, may: [store], issuer: CLINIC, associations: 90}
  asks-for-commitment: {ae_title: MODALITY, host: 127.0.0.1, may: [store, commit], issuer: CLINIC}
  secure: {ae_title: TLS1, host: 127.0.0.1, may: [store], issuer: CLINIC, tls: true, certificate: "CT 1"}
rules: []
unmatched: keep
"""
ROLES = ("scp", "work")
RELEASE_LIMIT_S = 10.0
SETTLE_S = 90.0
"""A thread that told of a commitment looks once more after a minute, then ends."""


@dataclass
class Outcome:
    """What a soak did and found."""

    seconds: float
    ledger: Ledger = field(default_factory=Ledger)
    done: list[str] = field(default_factory=list)
    roles: dict[str, Role] = field(default_factory=dict)
    found: Found = field(default_factory=Found)
    died: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        megabytes = sum(made.pixel_bytes for made in self.ledger.acknowledged.values()) / 1e6
        done = ", ".join(f"{count} {what}" for what, count in sorted(Counter(self.done).items()))
        return (
            f"{len(self.ledger.acknowledged)} objects ({megabytes:.0f} MB) acknowledged in {self.seconds:.0f} s; "
            f"{self.found}, refused {len(self.ledger.refused)}; "
            + "; ".join(f"{name}: {role}" for name, role in self.roles.items())
            + f" ({done})"
        )

    def faults(self) -> list[str]:
        """Each fault as a line."""
        grown = [f"{name}: {fault}" for name, role in self.roles.items() for fault in role.faults()]
        refused = [f"refused: {what}" for what in self.ledger.refused]
        return self.found.faults() + refused + grown + [f"{name} died and was started again" for name in self.died]


def _is_released(association: Any) -> bool:
    """pynetdicom 3.0.4 may wait for its own reactor for ever (once in some hundred releases): it is left alone then."""
    thread = threading.Thread(target=association.release, name="release", daemon=True)
    thread.start()
    thread.join(RELEASE_LIMIT_S)
    return not thread.is_alive()


class Peers:
    """Good peers and a bad one; each method is one peer, and runs until `stop` is set."""

    def __init__(self, node: Node, outcome: Outcome, folder: Path, secure: tuple[int, tuple[str, ...]]) -> None:
        self._node = node
        self._ledger = outcome.ledger
        self._done = outcome.done
        self._folder = folder
        self._tls_port, self._tls_options = secure
        self.stop = threading.Event()

    def all(self) -> list[Callable[[Sender], None]]:
        """Every peer; the misbehaving one has two hands."""
        return [
            *(self.series, self.single_objects, self.radiographs, self.over_tls, self.commitments, self.pings),
            *(self.misbehaves, self.is_slow_or_silent),
        ]

    def sender(self, name: str) -> Sender:
        """Makes the objects of one peer."""
        folder = self._folder / name
        folder.mkdir()
        return Sender(name, self._node, self._ledger, random.Random(name), folder)

    def warm_up(self, sender: Sender) -> None:
        """One object, twice: SQLite keeps the descriptor of a closed connection for the next one."""
        made = sender.new((CT,), 1_000, 1_000)
        for _ in range(2):
            self._one(made)
        time.sleep(2)

    # good ones

    def series(self, sender: Sender) -> None:
        """A CT: forty slices in one association of DCMTK's."""
        while not self.stop.is_set():
            self._by_dcmtk(sender, [sender.new((CT,), 500_000, 500_000) for _ in range(40)], self._node.port, "XR1")
            self._done.append("series")
            self.stop.wait(sender.chance.uniform(1.5, 3))

    def over_tls(self, sender: Sender) -> None:
        """The same by TLS, with smaller images."""
        while not self.stop.is_set():
            batch = [sender.new((CT, CR), 20_000, 400_000) for _ in range(20)]
            self._by_dcmtk(sender, batch, self._tls_port, "TLS1", *self._tls_options)
            self._done.append("series over TLS")
            self.stop.wait(sender.chance.uniform(1, 2))

    def _by_dcmtk(self, sender: Sender, batch: list[Made], port: int, calling: str, *options: str) -> None:
        files = {made.write(sender.folder): made for made in batch}
        send_by_dcmtk(port, files, self._ledger, calling, *options)
        for path, made in files.items():
            path.unlink()
            if made.sop_instance_uid not in self._ledger.acknowledged:
                self._ledger.refused.append(f"{made.sop_instance_uid}: no 0x0000 for storescu {' '.join(options)}")

    def single_objects(self, sender: Sender) -> None:
        """A device that asks for an association for each object."""
        while not self.stop.is_set():
            self._one(sender.new(KINDS, 1_000, 500_000))
            self.stop.wait(sender.chance.uniform(0.05, 0.3))

    def radiographs(self, sender: Sender) -> None:
        """Large images, one after the other, each once more now and then."""
        while not self.stop.is_set():
            made = sender.new((CR,), LARGE_BYTES, LARGE_BYTES)
            for _ in range(sender.chance.choice((1, 1, 1, 2))):
                self._one(made)
            self.stop.wait(sender.chance.uniform(2, 4))

    def _one(self, made: Made) -> None:
        self._ledger.sending(made)
        names = made.kind.sop_class_uid, made.sop_instance_uid, made.kind.transfer_syntax_uid
        with self._nothing_refused(made.sop_instance_uid):
            with Association.request(LOOPBACK, self._node.port, "XR1", "PACSNODE", CONTEXTS) as association:
                status = association.store(*names, io.BytesIO(made.data_set()))
                self._ledger.answered(made, "" if status.is_success else str(status))
            self._done.append("associations of one object")

    @contextlib.contextmanager
    def _nothing_refused(self, what: str) -> Iterator[None]:
        try:
            yield
        except PacsnodeError as error:
            self._ledger.refused.append(f"{what}: {error}")

    def commitments(self, sender: Sender) -> None:
        """Stores three objects and has the node say that they are safe."""
        site = commitments.Site(load(home=self._node.home), port=self._node.port)
        modality = commitments.Modality(site)
        while not self.stop.is_set():
            batch = [sender.new((CT,), 1_000, 50_000) for _ in range(3)]
            for made in batch:
                self._one(made)
            association = modality.associate()
            modality.ask(association, [made.sop_instance_uid for made in batch])
            try:
                told = modality.result()
                if told.failed or len(told.safe) != len(batch):
                    self._ledger.refused.append(f"not committed: {told}")
            except queue.Empty:
                self._ledger.refused.append("no answer to a commitment request")
            if not _is_released(association):
                self._done.append("releases that pynetdicom did not end")
            site.close()
            site.sockets.clear()
            self._done.append("commitments")
            self.stop.wait(sender.chance.uniform(1, 2))

    def pings(self, sender: Sender) -> None:
        """Five C-ECHO an association."""
        while not self.stop.is_set():
            with (
                self._nothing_refused("C-ECHO"),
                Association.request(LOOPBACK, self._node.port, "XR1", "PACSNODE", (ECHO_CONTEXT,)) as association,
            ):
                for _ in range(5):
                    if not association.echo().is_success:
                        self._ledger.refused.append("C-ECHO")
                    self._done.append("pings")
            self.stop.wait(sender.chance.uniform(0.1, 0.3))

    # the bad one

    def misbehaves(self, sender: Sender) -> None:
        """Garbage, half PDUs, objects that end in the middle, wrong AE titles."""
        deeds = (self._garbage, self._half_a_request, self._half_an_object, self._wrong_title)
        while not self.stop.is_set():
            deed = sender.chance.choice(deeds)
            with RawClient(self._node.port) as client, contextlib.suppress(ConnectionError):
                deed(client, sender)
            self._done.append(f"of {deed.__name__.strip('_').replace('_', ' ')}")
            self.stop.wait(sender.chance.uniform(0, 0.1))

    def _garbage(self, client: RawClient, sender: Sender) -> None:
        client.send(sender.chance.randbytes(sender.chance.randrange(1, 20_000)))
        client.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            client.socket.recv(100)

    def _half_a_request(self, client: RawClient, sender: Sender) -> None:
        request = associate.encode_request("XR1", "PACSNODE", CONTEXTS)
        client.send(request[: sender.chance.randrange(1, len(request))])

    def _half_an_object(self, client: RawClient, sender: Sender) -> None:
        sender.cut(client)

    def _wrong_title(self, client: RawClient, sender: Sender) -> None:
        nobody = f"NOBODY{sender.chance.randrange(1000)}"
        calling, called = sender.chance.choice((("XR1", nobody), (nobody, "PACSNODE"), ("TLS1", "PACSNODE")))
        client.send(associate.encode_request(calling, called, CONTEXTS))
        kind, _ = client.read_pdu()
        if kind != pdus.ASSOCIATE_RJ:
            self._ledger.refused.append(f"{calling} to {called} was not rejected, but answered with PDU {kind}")

    def is_slow_or_silent(self, sender: Sender) -> None:
        """A byte now and then, and connections that say nothing, with a request before that or without one."""
        with contextlib.ExitStack() as held:
            while not self.stop.is_set():
                for silent in (True, False, False):
                    client = held.enter_context(RawClient(self._node.port))
                    if not silent:
                        client.associate([(CT.sop_class_uid, (EXPLICIT,))], calling="XR1")
                    self._done.append("of silence")
                self._byte_by_byte(client, sender)
                if sender.chance.random() < 0.2:
                    held.pop_all().close()

    def _byte_by_byte(self, client: RawClient, sender: Sender) -> None:
        message = store_command(sender.new((CT,), 1, 1).sop_instance_uid, CT.sop_class_uid)
        for byte in message[: sender.chance.randrange(1, 40)]:
            client.send(bytes((byte,)))
            if self.stop.wait(0.1):
                return
        self._done.append("of slow bytes")


def run_mixed(folder: Path, seconds: float, seed: int, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Start a node and its peers, watch it for so long, then compare."""
    outcome = Outcome(seconds)
    authority = Authority.make(folder / "authority", "clinic")
    ours, theirs, trust = authority.issue("pacsnode"), authority.issue("CT 1"), str(authority.own.certificate)
    (folder / "rules.yaml").write_text(RULES)
    tls_port = free_port()
    settings = {"TLS_PORT": str(tls_port), "TLS_CERTIFICATE": str(ours.certificate), "TLS_KEY": str(ours.key)}
    extra = {f"PACSNODE_{name}": value for name, value in (settings | {"TLS_CA": trust}).items()}
    secure = tls_port, ("+tls", str(theirs.key), str(theirs.certificate), "+cf", trust)
    with Node(folder / "home", folder / "rules.yaml", extra=extra) as node:
        peers = Peers(node, outcome, folder, secure)
        wait_until(lambda: "models loaded" in node.log() or "models could not be loaded" in node.log(), 120, 0.2)
        senders = [peers.sender(f"mixed {seed} {number}") for number in range(len(peers.all()))]
        peers.warm_up(senders[0])
        outcome.roles = {name: Role(pid, Level.of(pid)) for name, pid in node.pids().items() if name in ROLES}
        with ThreadPoolExecutor(len(senders)) as pool:
            work = [pool.submit(peer, sender) for peer, sender in zip(peers.all(), senders, strict=True)]
            try:
                _watch(outcome, seconds, lambda: any(one.done() for one in work), tell)
            finally:
                peers.stop.set()
            for one in work:
                one.result()
        _look_after(node, outcome)
    return outcome


def _watch(outcome: Outcome, seconds: float, ended: Callable[[], bool], tell: Callable[[str], None]) -> None:
    """Note what the processes hold, every five seconds (oftener where the time is short)."""
    begun = time.monotonic()
    while (past_s := time.monotonic() - begun) < seconds and not ended():
        for role in outcome.roles.values():
            role.samples.append(Level.of(role.pid))
        held = "; ".join(f"{name}: {role.samples[-1]}" for name, role in outcome.roles.items())
        tell(f"{past_s:4.0f} s: {len(outcome.ledger.acknowledged)} acknowledged; {held}")
        time.sleep(min(5.0, seconds / 24))


def _look_after(node: Node, outcome: Outcome) -> None:
    """All peers have gone: wait until what they cost is given back, then compare."""
    running = node.pids()
    outcome.died = [name for name, role in outcome.roles.items() if running.get(name) != role.pid]
    alive = {name: role for name, role in outcome.roles.items() if name not in outcome.died}

    def given_back() -> bool:
        for role in alive.values():
            role.after = Level.of(role.pid)
        return all(
            role.after.threads <= role.before.threads and role.after.descriptors <= role.before.descriptors
            for role in alive.values()
        )

    with contextlib.suppress(TimeoutError):  # told as a fault of the role
        wait_until(given_back, SETTLE_S, 0.5)
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not without_row(node.home), SETTLE_S, 0.5)
    outcome.found = compare(node.home, outcome.ledger)
    outcome.found.left_over = without_row(node.home)
