"""Kill -9 of `pacsnode scp` alone while four senders send at once: what was answered 0x0000 must be there, bit for bit.

In: a folder, how many rounds, a seed. Out: what was lost, torn, changed or left over. Used by the tests (a few rounds)
and by `scripts/soak receive-kills` (200). The senders also serve mixed_peers.py. Never looks into the node but by its
files and its index.
"""

from __future__ import annotations

import io
import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from acknowledged import CONTEXTS, CR, CT, EXPLICIT, KINDS, Found, Kind, Ledger, Made, compare, without_row
from harness import LOOPBACK, STORESCU, Node, wait_until

from pacsnode.dicom.uids import derive
from pacsnode.dimse import pdus
from pacsnode.dimse.association import Association, Timeouts
from pacsnode.errors import Transient
from tests.receive.doubles import RawClient, p_data, pdv, store_command

LARGE_BYTES = 13_000_000
"""A radiograph of 2,500 x 2,600 pixels."""
COMPARE_EVERY = 20
RULES = """
version: 1
peers:
  modality: {ae_title: XR1, host: 127.0.0.1, may: [store], issuer: CLINIC}
rules: []
unmatched: keep
"""


def send_by_dcmtk(port: int, files: dict[Path, Made], ledger: Ledger, calling: str, *options: str) -> None:
    """storescu, one association; what it tells of each answer goes into the ledger."""
    for made in files.values():
        ledger.sending(made)
    command = [STORESCU, "-v", "-R", "-aet", calling, "-aec", "PACSNODE", *options, LOOPBACK, str(port)]
    told = subprocess.run(
        [*command, *map(str, files)], capture_output=True, text=True, errors="replace", timeout=120, check=False
    ).stderr
    current = None
    for line in told.splitlines():
        if line.startswith("I: Sending file: "):
            current = Path(line.partition(": Sending file: ")[2])
        elif line.startswith("I: Received Store Response (") and current is not None:
            status = line.partition("(")[2].rstrip(")")
            ledger.answered(files[current], "" if status == "Success" else status)


@dataclass
class Sender:
    """One device: takes up in each round what was not answered in the one before."""

    name: str
    node: Node
    ledger: Ledger
    chance: random.Random
    folder: Path
    owed: list[Made] = field(default_factory=list)
    count: int = 0

    def new(self, kinds: Sequence[Kind], least_bytes: int, most_bytes: int) -> Made:
        """An object that nobody has sent yet, most of them small."""
        self.count += 1
        size = int(least_bytes * (most_bytes / least_bytes) ** self.chance.random() ** 2)
        study = derive(self.name, "study", str(self.count // 50))
        return Made(self.chance.choice(kinds), derive(self.name, str(self.count)), study, size)

    def next(self) -> Made:
        """What was not answered, else now and then an object that somebody has sent, else a new one."""
        if self.owed:
            return self.owed[0]
        if self.ledger.answers and self.chance.random() < 0.1:
            return self.chance.choice(self.ledger.answers)
        if self.chance.random() < 0.005:
            return self.new((CR,), LARGE_BYTES, LARGE_BYTES)
        return self.new(KINDS, 1_000, 3_000_000)

    def by_association(self, over: threading.Event) -> None:
        """Our own SCU, and now and then an object that is cut in the middle, until `over`."""
        while not over.is_set():
            try:
                with RawClient(self.node.port) as client:
                    self.cut(client)
                with Association.request(
                    LOOPBACK, self.node.port, "XR1", "PACSNODE", CONTEXTS, Timeouts(5, 10, 10, 30)
                ) as association:
                    for _ in range(self.chance.randrange(1, 40)):
                        if over.is_set():
                            break
                        self._store(association)
            except (Transient, OSError, EOFError):  # killed: the object stays owed
                over.wait(0.01)

    def _store(self, association: Association) -> None:
        made = self.next()
        self.owed = [made]
        self.ledger.sending(made)
        names = made.kind.sop_class_uid, made.sop_instance_uid, made.kind.transfer_syntax_uid
        status = association.store(*names, io.BytesIO(made.data_set()))
        self.ledger.answered(made, "" if status.is_success else str(status))
        self.owed.clear()

    def cut(self, client: RawClient) -> None:
        """An association that ends inside an object: aborted, closed, reset, or silent inside a PDU before that."""
        made = self.new((CT,), 1_000, 2_000_000)
        data = made.data_set()
        self.ledger.cut.add(made.sop_instance_uid)
        client.associate([(CT.sop_class_uid, (EXPLICIT,))], calling="XR1")
        client.send(store_command(made.sop_instance_uid, CT.sop_class_uid))
        sent = self.chance.randrange(len(data))
        for start in range(0, sent, 100_000):
            client.send(p_data(pdv(1, 0, data[start : min(sent, start + 100_000)])))
        ending = self.chance.choice(("close", "abort", "reset", "half a PDU"))
        if ending == "abort":
            client.send(pdus.abort_pdu(pdus.BY_USER, pdus.NOT_SPECIFIED))
        elif ending == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif ending == "half a PDU":
            client.send(p_data(pdv(1, 2, data[sent : sent + 50_000]))[:-1])

    def by_dcmtk(self, over: threading.Event) -> None:
        """storescu with forty small files an association, until `over`; then the same ones until they are answered."""
        while not over.is_set():
            if not self.owed:
                self.owed = [self.new((CT, CR), 1_000, 20_000) for _ in range(40)]
            send_by_dcmtk(self.node.port, {made.write(self.folder): made for made in self.owed}, self.ledger, "XR1")
            for made in self.owed:
                (self.folder / f"{made.sop_instance_uid}.dcm").unlink()
            self.owed = [made for made in self.owed if made.sop_instance_uid not in self.ledger.acknowledged]


@dataclass
class Outcome:
    """What a run of kills did and found."""

    kills: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    found: Found = field(default_factory=Found)
    seconds: float = 0.0

    def __str__(self) -> str:
        megabytes = sum(made.pixel_bytes for made in self.ledger.acknowledged.values()) / 1e6
        return (
            f"{self.kills} kills, {len(self.ledger.acknowledged)} objects acknowledged in {self.seconds:.0f} s; "
            f"{self.found}, refused {len(self.ledger.refused)} "
            f"({megabytes:.0f} MB; {len(self.ledger.again)} sent again, {len(self.ledger.cut)} cut short)"
        )

    def faults(self) -> list[str]:
        """Each fault as a line."""
        return self.found.faults() + [f"refused: {what}" for what in self.ledger.refused]


def run_receive_kills(folder: Path, rounds: int, seed: int, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Kill `rounds` times; compare after every twentieth kill, and everything once more at the end."""
    outcome, chance, begun = Outcome(), random.Random(seed), time.monotonic()
    rules = folder / "rules.yaml"
    rules.write_text(RULES)
    node = Node(folder / "home", rules, extra={"PACSNODE_LOG_LEVEL": "warning"})
    node.run("migrate")
    names = [f"receive-kills {seed} {number}" for number in range(4)]
    senders = [Sender(n, node, outcome.ledger, random.Random(n), folder / f"sender{i}") for i, n in enumerate(names)]
    for sender in senders:
        sender.folder.mkdir()
    compared: set[str] = set()
    try:
        for number in range(1, rounds + 1):
            node.start("scp")
            if number % COMPARE_EVERY == 1 and number > 1:
                _settle(node, outcome.found)
            alive_s = chance.uniform(0.05, 1.5)
            _kill_amid(node, senders, alive_s)
            outcome.kills += 1
            tell(
                f"round {number}: killed after {alive_s:.2f} s; {len(outcome.ledger.acknowledged)} acknowledged so far"
            )
            if number % COMPARE_EVERY == 0:
                _add(outcome.found, compare(node.home, outcome.ledger, compared))
                tell(f"round {number}: {outcome.found}")
        _add(outcome.found, compare(node.home, outcome.ledger, compared))  # as the last kill left it
        node.start("scp")
        _settle(node, outcome.found)
        _add(outcome.found, compare(node.home, outcome.ledger))
    finally:
        node.kill()
    outcome.seconds = time.monotonic() - begun
    return outcome


def _kill_amid(node: Node, senders: Sequence[Sender], alive_s: float) -> None:
    """Let two devices of each kind send for a while, then SIGKILL."""
    over = threading.Event()
    with ThreadPoolExecutor(len(senders)) as pool:
        work = [pool.submit(s.by_dcmtk if i % 2 else s.by_association, over) for i, s in enumerate(senders)]
        try:
            time.sleep(alive_s)
            node.kill()
        finally:
            over.set()
        for one in work:
            one.result()


def _settle(node: Node, found: Found) -> None:
    """Just started, nobody sends: recovery has given each file its row, or removed it."""
    try:
        wait_until(lambda: not without_row(node.home), 30, 0.2)
    except TimeoutError:
        _add(found, Found(left_over=without_row(node.home)))


def _add(total: Found, more: Found) -> None:
    """The same fault may be seen again at a later look."""
    for kind, items in vars(more).items():
        known: list[str] = vars(total)[kind]
        known += [item for item in items if item not in known]
