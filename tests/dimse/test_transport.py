"""PDUs off a real socket, whole, hostile and slow."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacsnode.dimse import pdus
from pacsnode.dimse.pdus import (
    Aborted,
    AssociationLost,
    ConnectionLost,
    ProtocolViolation,
    ReleaseRequested,
    TimedOut,
)
from pacsnode.dimse.transport import Transport


class Line:
    """A TCP connection in this machine: `peer` is the far end."""

    def __init__(self, pdu_timeout_s: float = 20.0) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = socket.create_connection(listener.getsockname(), timeout=20)
            connection, _ = listener.accept()
        self.transport = Transport(connection, pdu_timeout_s=pdu_timeout_s)

    def close(self) -> None:
        self.peer.close()
        self.transport.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def pdv(context_id: int, control: int, data: bytes) -> bytes:
    return (len(data) + 2).to_bytes(4, "big") + bytes([context_id, control]) + data


def p_data(*values: bytes) -> bytes:
    body = b"".join(values)
    return bytes([pdus.P_DATA_TF, 0]) + len(body).to_bytes(4, "big") + body


def read_all(transport: Transport) -> list[tuple[int, bool, bytes]]:
    """Every command and data set until the association ends, with its context id."""
    messages: list[tuple[int, bool, bytes]] = []
    data = b""
    try:
        while True:
            fragments = transport.read_fragments(wait_s=20)
            data += b"".join(fragments.pieces)
            if fragments.is_last:
                messages.append((fragments.context_id, fragments.is_command, data))
                data = b""
    except AssociationLost:
        return messages


def test_commands_and_data_sets_are_told_apart_and_never_run_together(line: Line) -> None:
    line.peer.sendall(
        p_data(pdv(1, 3, b"one"), pdv(1, 0, b"da"), pdv(1, 2, b"ta"), pdv(3, 1, b"tw")) + p_data(pdv(3, 3, b"o"))
    )
    line.peer.close()
    assert read_all(line.transport) == [(1, True, b"one"), (1, False, b"data"), (3, True, b"two")]


def test_release_abort_and_close_are_told_apart(line: Line) -> None:
    line.peer.sendall(pdus.RELEASE_RQ_PDU + pdus.abort_pdu(2, 6))
    with pytest.raises(ReleaseRequested):
        line.transport.read_fragments(wait_s=20)
    with pytest.raises(Aborted) as aborted:
        line.transport.read_fragments(wait_s=20)
    assert (aborted.value.source, aborted.value.reason) == (2, 6)
    line.peer.close()
    with pytest.raises(ConnectionLost):
        line.transport.read_fragments(wait_s=20)


def test_a_pdu_of_many_tiny_values_comes_in_batches_that_one_writev_takes(line: Line) -> None:
    line.peer.sendall(p_data(*(pdv(1, 0, b"%d" % (n % 10)) for n in range(3000)), pdv(1, 2, b"end")))
    data = b""
    while True:
        fragments = line.transport.read_fragments(wait_s=20)
        assert len(fragments.pieces) <= 512
        data += b"".join(fragments.pieces)
        if fragments.is_last:
            break
    assert data == b"".join(b"%d" % (n % 10) for n in range(3000)) + b"end"


def test_silence_and_half_a_pdu_time_out() -> None:
    line = Line(pdu_timeout_s=0.1)
    with pytest.raises(TimedOut, match="silent"):
        line.transport.read_fragments(wait_s=0.1)
    line.peer.sendall(p_data(pdv(1, 2, b"data"))[:-1])
    with pytest.raises(TimedOut):
        line.transport.read_fragments(wait_s=20)
    with pytest.raises(TimedOut):
        line.transport.read_pdu(limit=100, wait_s=0.1)
    line.close()


def test_a_peer_that_does_not_read_times_out() -> None:
    line = Line(pdu_timeout_s=0.1)
    with pytest.raises(TimedOut, match="does not take"):
        line.transport.send(bytes(50_000_000))
    line.close()


def test_a_whole_pdu_may_not_be_longer_than_allowed(line: Line) -> None:
    line.peer.sendall(b"\x01\x00\x00\x00\x01\x01" + bytes(257))
    with pytest.raises(ProtocolViolation):
        line.transport.read_pdu(limit=256, wait_s=20)


def test_a_maximum_length_that_leaves_no_room_is_a_violation() -> None:
    assert pdus.payload_bytes(0) == pdus.ANNOUNCED_PDU_BYTES - 6
    assert pdus.payload_bytes(4294967295) == pdus.ANNOUNCED_PDU_BYTES - 6
    assert pdus.payload_bytes(16383) == 16376
    for nothing in (1, 7):
        with pytest.raises(ProtocolViolation):
            pdus.payload_bytes(nothing)


def test_a_command_is_cut_for_a_peer_with_small_pdus(line: Line) -> None:
    line.peer.sendall(pdus.command_pdus(5, b"a long command set", 12))
    line.peer.close()
    assert read_all(line.transport) == [(5, True, b"a long command set")]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.builds(
                lambda *values: p_data(*values),
                st.builds(pdv, st.integers(0, 3), st.integers(0, 255), st.binary(max_size=20)),
                st.builds(pdv, st.just(1), st.integers(0, 3), st.binary(max_size=20)),
            ),
        ),
        max_size=6,
    )
)
def test_any_bytes_end_in_a_defined_error(chunks: list[bytes]) -> None:
    line = Line()
    line.peer.sendall(b"".join(chunks))
    line.peer.close()
    messages = read_all(line.transport)
    assert sum(len(data) for _, _, data in messages) <= sum(map(len, chunks))
    line.close()
