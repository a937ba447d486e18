"""For tests of the SCP: a remembering archive, a door, a raw DICOM client, DCMTK's commands, sample files."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
from pydicom.data import get_testdata_file

from pacsnode.dimse import associate, commands, pdus
from pacsnode.handover import InstanceWriter, Stored, StoreRequest
from pacsnode.receive.admission import Admitted, Caller, Refused
from pacsnode.receive.server import ListenOptions, Server

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


@dataclass
class RememberingStore:
    """An archive in memory. `failing` says what `begin`, `write` or `commit` raise; `held` keeps commits waiting."""

    objects: list[tuple[StoreRequest, bytes]] = field(default_factory=list)
    aborted: list[StoreRequest] = field(default_factory=list)
    opened: int = 0
    failing: dict[str, Exception] = field(default_factory=dict)
    held: threading.Event | None = None
    committing: threading.Event = field(default_factory=threading.Event)
    verdict: Stored = field(default_factory=lambda: Stored("stored"))

    def begin(self, request: StoreRequest) -> InstanceWriter:
        self.opened += 1
        self.fail("begin")
        return RememberingWriter(self, request)

    def fail(self, where: str) -> None:
        if where in self.failing:
            raise self.failing[where]


@dataclass
class RememberingWriter:
    store: RememberingStore
    request: StoreRequest
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False

    def write(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        assert not self.ended
        assert len(pieces) <= 1024
        for piece in pieces:
            self.data += piece
        self.store.fail("write")

    def commit(self) -> Stored:
        assert not self.ended
        self.ended = True
        self.store.committing.set()
        if self.store.held is not None:
            self.store.held.wait(30)
        self.store.fail("commit")
        self.store.objects.append((self.request, bytes(self.data)))
        return self.store.verdict

    def abort(self) -> None:
        assert not self.ended
        self.ended = True
        self.store.aborted.append(self.request)


@dataclass
class Door:
    """Admits every calling AE title but STRANGER, to PACSNODE alone."""

    may: frozenset[str] = frozenset({"store"})
    associations: int = 0
    turned_away: list[tuple[Caller, str]] = field(default_factory=list)

    def admit(self, caller: Caller) -> Admitted:
        if caller.called_ae_title != "PACSNODE":
            raise Refused.called_ae_title("no such AE title here")
        if caller.calling_ae_title in ("STRANGER", ""):
            raise Refused.calling_ae_title("not a peer")
        return Admitted(caller.calling_ae_title.lower(), "HOSPITAL", self.may, self.associations)

    def refused(self, caller: Caller, reason: str) -> None:
        self.turned_away.append((caller, reason))


class Node:
    """A running server with its archive, and what its doorbell rang for."""

    def __init__(self, listen: ListenOptions, door: Door, store: RememberingStore) -> None:
        self.store = store
        self.rung: list[tuple[StoreRequest, Stored]] = []
        self.server = Server(listen, door, store, lambda request, stored: self.rung.append((request, stored))).start()

    @property
    def port(self) -> int:
        return self.server.port

    def client(self, contexts: Sequence[tuple[str, Sequence[str]]] = ((CT, (EXPLICIT,)),), **titles: str) -> RawClient:
        return RawClient(self.port).associate(contexts, **titles)


class RawClient:
    """Bytes to a server and back: for what no proper client sends."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def associate(
        self, contexts: Sequence[tuple[str, Sequence[str]]], calling: str = "MODALITY", called: str = "PACSNODE"
    ) -> Self:
        self.send(associate.encode_request(calling, called, contexts))
        kind, pdu = self.read_pdu()
        assert kind == pdus.ASSOCIATE_AC, pdu
        self.accepted = associate.decode_items(pdu[associate.ITEMS_OFFSET :]).accepted
        return self

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError(f"closed after {data!r}")
            data += more
        return data

    def read_pdu(self) -> tuple[int, bytes]:
        header = self.read_exactly(6)
        return header[0], header + self.read_exactly(int.from_bytes(header[2:], "big"))

    def read_status(self) -> commands.CommandSet:
        kind, pdu = self.read_pdu()
        assert kind == pdus.P_DATA_TF, pdu
        assert pdu[11] == pdus.COMMAND | pdus.LAST
        return commands.parse(pdu[12:])

    def read_end(self) -> tuple[int, bytes]:
        """The last PDU, after which the server closes."""
        kind, pdu = self.read_pdu()
        assert self.socket.recv(1) == b""
        return kind, pdu

    def release(self) -> None:
        self.send(pdus.RELEASE_RQ_PDU)
        assert self.read_end()[0] == pdus.RELEASE_RP


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    return struct.pack(">IBB", len(data) + 2, context_id, control) + data


def p_data(*values: bytes) -> bytes:
    body = b"".join(values)
    return struct.pack(">BxI", pdus.P_DATA_TF, len(body)) + body


def store_command(uid: str = "1.2.3.4", sop_class: str = CT, message_id: int = 7, context_id: int = 1) -> bytes:
    return p_data(pdv(context_id, 3, commands.store_request(message_id, sop_class, uid)))


def dcmtk(program: str) -> str:
    path = f"/usr/bin/{program}"
    if shutil.which(path) is None:
        pytest.skip(f"DCMTK's {program} is not installed")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_listener(port: int, patience_s: float = 20.0) -> None:
    """Return once something listens on `port`."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


@contextlib.contextmanager
def storescp(folder: Path, *options: str) -> Iterator[int]:
    """DCMTK's storescp, bit preserving, with its files in `folder`; its port."""
    port = free_port()
    command = (dcmtk("storescp"), "+B", "+xa", "-pm", *options, "-od", str(folder), str(port))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            await_listener(port)
            yield port
        finally:
            process.kill()


def run_tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, errors="replace", timeout=60, check=False)


def sample(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} of pydicom-data is not installed")
    return Path(path)
