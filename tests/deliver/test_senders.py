"""Senders against DCMTK's storescp: taken, down, dead, refusing, full, implicit only, unknown."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from pacsnode import schema
from pacsnode.database import connect, transaction
from pacsnode.deliver.debts import Debt, owe
from pacsnode.deliver.learned import Learned
from pacsnode.deliver.orders import Orders, Selection
from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.ready import Route
from pacsnode.deliver.senders import Senders
from pacsnode.dimse import associate, commands, pdus
from pacsnode.dimse.part10 import read_meta
from pacsnode.dimse.transport import Transport
from pacsnode.errors import Permanent
from pacsnode.infer.converting import convert
from pacsnode.peers import Peer
from pacsnode.settings import Settings, load

STORESCP = Path("/usr/bin/storescp")
PATIENCE_S = 30.0


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def storescp(folder: Path, port: int, *options: str) -> Iterator[Path]:
    if not STORESCP.exists():
        pytest.skip("DCMTK's storescp is not installed")
    folder.mkdir(exist_ok=True)
    command = [str(STORESCP), "+B", *options, "-od", str(folder), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            wait_until(listens)
            yield folder
        finally:
            process.kill()


@dataclass
class Node:
    """An outbox with senders, and the files that it sends."""

    settings: Settings
    outbox: Outbox
    peers: dict[str, Peer] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    learned: Learned = field(init=False)
    forbidden: Callable[[Owed, Peer], str] = lambda owed, peer: ""
    senders: Senders = field(init=False)

    def __post_init__(self) -> None:
        self.learned = Learned(self.settings.node_db)
        route = Route(
            "PACSNODE",
            self.locate,
            lambda owed, peer: self.forbidden(owed, peer),
            lambda: False,
            convert=convert,
            learn=self.learned.learn,
        )
        self.senders = Senders(self.outbox, route, self.peers.get)

    def locate(self, uid: str) -> Path:
        if uid not in self.files:
            raise Permanent(f"instance {uid} is not in the archive")
        return self.files[uid]

    def peer(self, name: str, port: int | None, **values: object) -> None:
        self.peers[name] = Peer.model_validate(
            {"name": name, "ae_title": name.upper(), "host": "127.0.0.1", "port": port, **values}
        )

    def keep(self, path: Path) -> str:
        with path.open("rb") as file:
            uid = read_meta(file).sop_instance_uid
        self.files[uid] = path
        return uid

    def owe(self, destination: str, *uids: str) -> None:
        connection = connect(self.settings.node_db, "FULL")
        with transaction(connection):
            owe(connection, "case", "1.2.3", 10, [Debt(destination, uids)])
        connection.close()
        self.senders.wake()

    def row(self, destination: str) -> Owed:
        (row,) = [o for o in self.outbox.listing() if o.destination == destination]
        return row

    def ends(self, destination: str, state: str) -> Owed:
        wait_until(lambda: self.row(destination).state == state)
        return self.row(destination)

    def is_postponed(self, destination: str) -> Owed:
        wait_until(lambda: self.row(destination).state == "owed" and self.row(destination).reason != "")
        assert self.row(destination).state == "owed"
        return self.row(destination)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    settings = load(home=tmp_path / "home")
    schema.migrate(settings)
    made = Node(settings, Outbox(settings.node_db, 86_400))
    yield made
    made.senders.stop(20)
    made.outbox.close()
    made.learned.close()


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A real SR in Explicit VR Little Endian, as our own results are."""
    given = get_testdata_file("reportsi.dcm", download=False) or get_testdata_file("test-SR.dcm", download=False)
    data = pydicom.dcmread(str(given))
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    path = tmp_path / "report.dcm"
    data.save_as(path, implicit_vr=False, little_endian=True)
    return path


def received(folder: Path) -> list[pydicom.FileDataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def test_a_peer_that_takes_it_has_the_same_bytes(node: Node, report: Path, tmp_path: Path) -> None:
    uid, port = node.keep(report), free_port()
    node.peer("pacs", port)
    with storescp(tmp_path / "pacs", port, "+xa") as folder:
        node.owe("pacs", uid)
        assert node.ends("pacs", "sent").status == 0
        (path,) = folder.iterdir()
        with path.open("rb") as theirs, report.open("rb") as ours:
            read_meta(theirs), read_meta(ours)
            assert theirs.read() == ours.read()


def test_a_peer_that_is_down_gets_it_when_it_comes_up(node: Node, report: Path, tmp_path: Path) -> None:
    uid, port = node.keep(report), free_port()
    node.peer("pacs", port)
    node.owe("pacs", uid)
    postponed = node.is_postponed("pacs")
    assert f"127.0.0.1:{port}" in postponed.reason
    assert postponed.attempts == 0
    with storescp(tmp_path / "pacs", port, "+xa") as folder:
        assert Orders(node.outbox, "me").retry(Selection(ids=(postponed.id,))) == 1
        node.senders.wake()
        node.ends("pacs", "sent")
        assert len(received(folder)) == 1


def test_a_destination_that_never_answers_delays_no_other(node: Node, report: Path, tmp_path: Path) -> None:
    uid, port = node.keep(report), free_port()
    with socket.create_server(("127.0.0.1", 0)) as dead:
        node.peer("dead", dead.getsockname()[1])
        node.peer("pacs", port)
        with storescp(tmp_path / "pacs", port, "+xa"):
            node.owe("dead", uid)
            connection, _ = dead.accept()  # it hangs now
            node.owe("pacs", uid)
            node.ends("pacs", "sent")
            assert node.row("dead").attempts == 0
            connection.close()
        assert node.is_postponed("dead").reason


@pytest.mark.timeout(20)
def test_a_stop_waits_once_for_all_destinations_that_hang(node: Node, report: Path) -> None:
    """Each alone may take the whole grace; together they must not take it many times over."""
    uid = node.keep(report)
    with contextlib.ExitStack() as stack:
        connections = []
        for number in range(12):
            dead = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            node.peer(f"dead-{number}", dead.getsockname()[1])
            node.owe(f"dead-{number}", uid)
            connections.append(stack.enter_context(dead.accept()[0]))
        node.senders.stop(2.0)
    wait_until(lambda: all(o.reason and o.state == "owed" for o in node.outbox.listing()))
    assert {o.attempts for o in node.outbox.listing()} == {0}
    assert {o.state for o in node.outbox.listing()} == {"owed"}


def test_a_stop_ends_idle_senders_at_once(node: Node) -> None:
    for _ in range(30):
        route = Route("PACSNODE", node.locate, lambda owed, peer: "", lambda: False)
        senders = Senders(node.outbox, route, node.peers.get)
        lanes = [senders._lane(f"peer-{n}") for n in range(4)]
        for lane in lanes:
            lane.wake()
        senders.stop(20)
        assert not any(thread.is_alive() for lane in lanes for thread in lane.threads)


@contextlib.contextmanager
def answering(status: int, *, contexts: bool = True) -> Iterator[int]:
    """A peer that takes every association, and answers each C-STORE with `status` (or accepts no context)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError, pdus.AssociationLost, pdus.ReleaseRequested):
                while True:
                    talk(listener.accept()[0])

        def talk(connection: socket.socket) -> None:
            transport = Transport(connection, pdu_timeout_s=PATIENCE_S)
            _, request = transport.read_pdu(limit=1 << 20, wait_s=PATIENCE_S)
            proposed = associate.decode_items(request[associate.ITEMS_OFFSET :]).proposed
            result = associate.ACCEPTANCE if contexts else associate.ABSTRACT_SYNTAX_NOT_SUPPORTED
            answers = [associate.ContextResult(p.context_id, result, p.transfer_syntaxes[0]) for p in proposed]
            transport.send(associate.encode_accept(answers))
            with contextlib.suppress(pdus.ReleaseRequested):
                while True:
                    fragments = transport.read_fragments(wait_s=PATIENCE_S)
                    command = commands.parse(b"".join(fragments.pieces))
                    while not transport.read_fragments(wait_s=PATIENCE_S).is_last:
                        pass
                    response = commands.response(command, commands.Status(status, "so it is"))
                    transport.send(pdus.command_pdus(fragments.context_id, response, 16_384))
            transport.send(pdus.RELEASE_RP_PDU)
            transport.close()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def test_a_peer_that_refuses_the_sop_class_parks_it_with_a_sentence(node: Node, report: Path) -> None:
    uid = node.keep(report)
    with answering(0, contexts=False) as port:
        node.peer("pacs", port)
        node.owe("pacs", uid)
        parked = node.ends("pacs", "parked")
    assert "does not accept" in parked.reason
    assert "SR" in parked.reason


def test_a_peer_without_room_gets_it_later(node: Node, report: Path) -> None:
    uid = node.keep(report)
    with answering(0xA700) as port:
        node.peer("pacs", port)
        node.owe("pacs", uid)
        assert "out of resources" in node.is_postponed("pacs").reason


def test_what_a_peer_cannot_understand_is_refused_with_its_status(node: Node, report: Path) -> None:
    uid = node.keep(report)
    with answering(0xC123) as port:
        node.peer("pacs", port)
        node.owe("pacs", uid)
        refused = node.ends("pacs", "refused")
    assert refused.status == 0xC123
    assert "so it is" in refused.reason
    assert "C123" in refused.reason


def test_a_warning_counts_as_taken(node: Node, report: Path) -> None:
    uid = node.keep(report)
    with answering(0xB007) as port:
        node.peer("pacs", port)
        node.owe("pacs", uid)
        assert node.ends("pacs", "sent").status == 0xB007


def test_a_peer_of_implicit_vr_only_gets_equal_values(node: Node, report: Path, tmp_path: Path) -> None:
    uid, port = node.keep(report), free_port()
    node.peer("pacs", port)
    with storescp(tmp_path / "pacs", port, "+xi") as folder:
        node.owe("pacs", uid)
        node.ends("pacs", "sent")
        (theirs,) = received(folder)
    assert theirs.file_meta.TransferSyntaxUID == pydicom.uid.ImplicitVRLittleEndian
    assert theirs == pydicom.dcmread(report)


def test_a_destination_that_the_rules_do_not_know_is_parked(node: Node, report: Path) -> None:
    node.owe("nobody", node.keep(report))
    assert "no peer nobody" in node.ends("nobody", "parked").reason


@pytest.mark.parametrize(
    ("values", "why"), [({"port": None}, "no port"), ({"host": "10.0.2.0/24"}, "network"), ({"ae_title": "*"}, '"*"')]
)
def test_a_peer_to_whom_nothing_can_be_sent_parks_it(
    node: Node, report: Path, values: dict[str, object], why: str
) -> None:
    node.peer("ward", 104)
    node.peers["ward"] = Peer.model_validate(node.peers["ward"].model_dump() | values)
    node.owe("ward", node.keep(report))
    assert why in node.ends("ward", "parked").reason


def test_a_file_that_is_gone_parks_its_row_and_no_other(node: Node, report: Path, tmp_path: Path) -> None:
    uid, port = node.keep(report), free_port()
    node.files["1.2.3.99"] = tmp_path / "gone.dcm"
    node.peer("pacs", port)
    with storescp(tmp_path / "pacs", port, "+xa"):
        node.owe("pacs", "1.2.3.98", "1.2.3.99", uid)
        wait_until(lambda: all(o.state in ("sent", "parked") for o in node.outbox.listing()))
    states = {o.sop_instance_uid: o.state for o in node.outbox.listing()}
    assert states == {"1.2.3.98": "parked", "1.2.3.99": "parked", uid: "sent"}


def test_a_retry_is_no_way_round_what_forbids_a_delivery(node: Node, report: Path) -> None:
    node.forbidden = lambda owed, peer: f"{peer.name} is not investigational"
    uid = node.keep(report)
    with answering(0) as port:
        node.peer("pacs", port)
        node.owe("pacs", uid)
        parked = node.ends("pacs", "parked")
        assert parked.reason == "pacs is not investigational"
        node.outbox.retry([parked.id])
        node.senders.wake()
        assert node.ends("pacs", "parked").attempts == 1
        node.forbidden = lambda owed, peer: ""
        node.outbox.retry([parked.id])
        node.senders.wake()
        node.ends("pacs", "sent")
