"""The fuzz target of the transport: a peer's PDUs through a real TCP connection, held against the plain reader.

In: bytes, of which three choose how they are sent. Out: nothing, or the failure of an assertion.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any, Final

from pacsnode.dimse import pdus
from pacsnode.dimse.pdus import Aborted, ConnectionLost, ProtocolViolation, ReleaseRequested
from pacsnode.dimse.transport import Transport
from tests.fuzz.reference import End, Heard, PeerStream

PATIENCE_S: Final = 20.0
"""For a read of bytes that lie in the socket already, or an end that has come: only a reader that hangs needs it."""
MOST_STREAM_BYTES: Final = 3_000_000
"""Three receive buffers."""
MOST_SEGMENTS: Final = 2_000
MOST_PIECES: Final = 1024
"""IOV_MAX: the archive hands them to one writev."""


class Chopped(socket.socket):
    """A TCP socket whose reads end where the random source says: segments that come one by one."""

    def chop(self, dice: random.Random, least: int) -> Chopped:
        self._dice: random.Random | None = dice
        self._least = least
        return self

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        room = nbytes or memoryview(buffer).nbytes
        if self._dice is not None:
            room = min(room, self._least + self._dice.choice((0, 1, 5, 6, 7, 11, 12, 1000, 65_536)))
        return super().recv_into(buffer, room, flags)


@contextlib.contextmanager
def line(dice: random.Random, least: int) -> Iterator[tuple[socket.socket, Transport]]:
    """The peer's end of a TCP connection, and the transport at ours."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname(), timeout=PATIENCE_S)
        connection, _ = listener.accept()
    ours = Chopped(fileno=connection.detach()).chop(dice, least)
    for end in (peer, ours):  # closed by a reset: thousands in TIME_WAIT would use up the ports
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport = Transport(ours, pdu_timeout_s=PATIENCE_S)
    try:
        yield peer, transport
    finally:
        transport.close()
        peer.close()


def pdu(data: bytes) -> None:
    """A peer's stream of PDUs: every message comes out whole and unchanged, or the end is the one of PS3.8.

    Byte 0, bit 0: the first PDU is an association request; byte 1: how the stream is cut into segments; byte 2: how
    often it is repeated, so that small inputs reach around the receive buffer.
    """
    if len(data) < 3:
        return
    stream = data[3:]
    stream *= max(1, min(data[2], MOST_STREAM_BYTES // max(1, len(stream))))
    least = 1 + len(stream) // MOST_SEGMENTS if data[1] else 1 << 30
    with line(random.Random(data[1]), least) as (peer, transport):
        sender = threading.Thread(target=_send_and_end, args=(peer, stream))
        sender.start()
        try:
            rest = _requested(transport, stream) if data[0] & 1 else stream
            if rest is not None:
                _compare_streams(transport, PeerStream(rest).read())
        finally:
            transport.cancel()
            with contextlib.suppress(OSError):  # already ended
                peer.shutdown(socket.SHUT_RDWR)
            sender.join()


def _send_and_end(peer: socket.socket, stream: bytes) -> None:
    with contextlib.suppress(OSError):  # the reader gave up before the end, as it may
        peer.sendall(stream)
        peer.shutdown(socket.SHUT_WR)


def _requested(transport: Transport, stream: bytes) -> bytes | None:
    """Read the association request; what follows it, None where it was none: the association then ends."""
    kind, length = struct.unpack(">BxI", stream[:6]) if len(stream) >= 6 else (0, 0)
    fits = pdus.ASSOCIATE_RQ <= kind <= pdus.ABORT and length <= pdus.LONGEST_ASSOCIATE_BYTES
    try:
        read = transport.read_pdu(limit=pdus.LONGEST_ASSOCIATE_BYTES, wait_s=PATIENCE_S)
    except ProtocolViolation:
        assert len(stream) >= 6 and not fits
        return None
    except ConnectionLost:
        assert len(stream) < 6 + (length if fits else 0)
        return None
    assert fits
    assert read == (kind, stream[: 6 + length])
    return stream[6 + length :]


def _compare_streams(transport: Transport, expected: Heard) -> None:
    heard = Heard()
    before = (-1, False)
    try:
        while True:
            fragments = transport.read_fragments(wait_s=PATIENCE_S)
            assert 0 <= len(fragments.pieces) <= MOST_PIECES
            now = fragments.context_id, fragments.is_command
            assert not heard.rest or now == before, "two messages run together"
            before = now
            for piece in fragments.pieces:
                heard.rest += piece
            if fragments.is_last:
                heard.messages.append((*now, bytes(heard.rest)))
                heard.rest.clear()
    except (ProtocolViolation, ReleaseRequested, Aborted, ConnectionLost) as error:
        heard.end = _end(error)
    assert heard.messages == expected.messages
    assert heard.end == expected.end
    assert expected.rest.startswith(heard.rest)


def _end(error: Exception) -> End:
    if isinstance(error, ProtocolViolation):
        return "violation"
    if isinstance(error, ReleaseRequested):
        return "release"
    return "abort" if isinstance(error, Aborted) else "closed"
