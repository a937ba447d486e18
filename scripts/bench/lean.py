"""A C-STORE sender that costs as little as Python allows, so that the receiver's own limit shows.

Files are read before the start, each object leaves in one gathered write on a TCP_NODELAY socket, and nothing is
logged. DCMTK's senders hold the last segment of each object back until it is acknowledged (Nagle), which hides the
receiver. As a process: one line of JSON on stdin says what to send, `ready` goes out, a line comes in, results go out.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from pacsnode.dimse import associate, commands, pdus
from pacsnode.dimse.part10 import FileMeta, read_meta

LOOPBACK: Final = "127.0.0.1"
CALLING_AE_TITLE: Final = "BENCH"
VERIFICATION: Final = "1.2.840.10008.1.1"
IMPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
BUFFERS_IN_ONE_WRITE: Final = 1000
"""Below IOV_MAX, which is 1024 on Linux."""
TIME_LIMIT_S: Final = 120

Context = tuple[str, str]
"""Abstract syntax and the one transfer syntax that is proposed for it."""


@dataclass(frozen=True)
class Order:
    """What one process sends to whom."""

    port: int
    called_ae_title: str
    files: list[str]
    one_per_association: bool


@dataclass(frozen=True)
class Result:
    """Times of CLOCK_MONOTONIC, which all processes share; a latency is that of one object, or one association."""

    started_s: float
    ended_s: float
    latencies_s: list[float]


@dataclass(frozen=True)
class Loaded:
    """An object in memory."""

    meta: FileMeta
    dataset: memoryview

    @property
    def context(self) -> Context:
        """The presentation context that it needs."""
        return self.meta.sop_class_uid, self.meta.transfer_syntax_uid


def load(path: Path) -> Loaded:
    """Read one Part 10 file."""
    with path.open("rb") as file:
        meta = read_meta(file)
        return Loaded(meta, memoryview(file.read()))


def request_pdu(called_ae_title: str, contexts: Sequence[Context]) -> bytes:
    """The A-ASSOCIATE-RQ that proposes `contexts`."""
    return associate.encode_request(CALLING_AE_TITLE, called_ae_title, [(a, (t,)) for a, t in contexts])


class Link:
    """One association. Raises ConnectionError for any answer but the wished one."""

    def __init__(self, port: int, request: bytes, contexts: Sequence[Context]) -> None:
        self._socket = socket.create_connection((LOOPBACK, port))
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The kernel's time limits: with Python's each call would be two, and a large write would return early.
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self._socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", TIME_LIMIT_S, 0))
            self._socket.sendall(request)
            items = associate.decode_items(self._pdu(pdus.ASSOCIATE_AC)[associate.ITEMS_OFFSET :])
        except BaseException:
            self._socket.close()
            raise
        self._maximum_length = items.maximum_length
        self._ids = {context: 2 * index + 1 for index, context in enumerate(contexts)}
        self._message_id = 0
        refused = [context for context, number in self._ids.items() if number not in items.accepted]
        if refused:
            self._socket.close()
            raise ConnectionError(f"refused: {refused}")

    @classmethod
    def open(cls, port: int, called_ae_title: str, contexts: Sequence[Context]) -> Self:
        """Ask for an association."""
        return cls(port, request_pdu(called_ae_title, contexts), contexts)

    def echo(self) -> None:
        """One C-ECHO."""
        self._message_id += 1
        context_id = self._ids[VERIFICATION, IMPLICIT_LITTLE_ENDIAN]
        command = commands.echo_request(self._message_id, VERIFICATION)
        self._socket.sendall(pdus.command_pdus(context_id, command, self._maximum_length))
        self._expect_success()

    def store(self, loaded: Loaded) -> None:
        """One C-STORE, up to its answer 0x0000."""
        self._message_id = self._message_id % 65535 + 1
        meta, context_id = loaded.meta, self._ids[loaded.context]
        command = commands.store_request(self._message_id, meta.sop_class_uid, meta.sop_instance_uid)
        buffers: list[bytes | memoryview] = [pdus.command_pdus(context_id, command, self._maximum_length)]
        step = pdus.payload_bytes(self._maximum_length)
        dataset = loaded.dataset
        for start in range(0, len(dataset), step):
            part = dataset[start : start + step]
            control = pdus.LAST if start + step >= len(dataset) else 0
            buffers += (
                pdus.P_DATA_HEADER.pack(pdus.P_DATA_TF, len(part) + 6, len(part) + 2, context_id, control),
                part,
            )
        for first in range(0, len(buffers), BUFFERS_IN_ONE_WRITE):
            self._send(buffers[first : first + BUFFERS_IN_ONE_WRITE])
        self._expect_success()

    def release(self) -> None:
        """A-RELEASE and the end of the connection."""
        self._socket.sendall(pdus.RELEASE_RQ_PDU)
        self._pdu(pdus.RELEASE_RP)
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _send(self, buffers: list[bytes | memoryview]) -> None:
        if self._socket.sendmsg(buffers) < sum(map(len, buffers)):  # blocking: short only at the time limit
            raise ConnectionError(f"the receiver took nothing for {TIME_LIMIT_S} s")

    def _expect_success(self) -> None:
        status = commands.parse(self._pdu(pdus.P_DATA_TF)[12:]).status
        if not status.is_success:
            raise ConnectionError(f"answered {status}")

    def _pdu(self, expected: int) -> bytes:
        """The next PDU, whole, with its header."""
        data = b""
        wanted = 6
        while len(data) < wanted:
            part = self._socket.recv(65536)
            if not part:
                raise ConnectionError("the receiver hung up")
            data += part
            if len(data) >= 6:
                wanted = 6 + int.from_bytes(data[2:6], "big")
        if data[0] != expected or len(data) > wanted:
            raise ConnectionError(f"PDU type {data[0]} instead of {expected}")
        return data


def echo(port: int, called_ae_title: str, times: int = 1) -> list[float]:
    """Seconds that each of some C-ECHOs in one association took."""
    link = Link.open(port, called_ae_title, [(VERIFICATION, IMPLICIT_LITTLE_ENDIAN)])
    latencies_s = []
    with closing(link):
        for _ in range(times):
            started_s = time.monotonic()
            link.echo()
            latencies_s.append(time.monotonic() - started_s)
        link.release()
    return latencies_s


def send(order: Order, groups: Sequence[Sequence[Loaded]]) -> Result:
    """Send each group in an association of its own, one after the other."""
    prepared = []
    for group in groups:
        contexts = list(dict.fromkeys(loaded.context for loaded in group))
        prepared.append((request_pdu(order.called_ae_title, contexts), contexts, group))
    latencies_s: list[float] = []
    started_s = time.monotonic()
    for request, contexts, group in prepared:
        opened_s = time.monotonic()
        with closing(Link(order.port, request, contexts)) as link:
            for loaded in group:
                sent_s = opened_s if order.one_per_association else time.monotonic()
                link.store(loaded)
                latencies_s.append(time.monotonic() - sent_s)
            ended_s = time.monotonic()
            link.release()
    return Result(started_s, ended_s, latencies_s)


def main() -> None:
    """One sending process."""
    order = Order(**json.loads(sys.stdin.readline()))
    objects = [load(Path(path)) for path in order.files]
    groups = [[loaded] for loaded in objects] if order.one_per_association else [objects]
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asdict(send(order, groups))), flush=True)


if __name__ == "__main__":
    main()
