"""PDU types and the short PDUs of PS3.8 9.3, and how an association ends before its time. No I/O.

In: numbers of the standard. Out: encoded A-RELEASE, A-ABORT, A-ASSOCIATE-RJ and P-DATA-TF bytes, and the exceptions
that say how a peer or a line left. Never decodes a data set.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from pacsnode.errors import Transient

ASSOCIATE_RQ: Final = 0x01
ASSOCIATE_AC: Final = 0x02
ASSOCIATE_RJ: Final = 0x03
P_DATA_TF: Final = 0x04
RELEASE_RQ: Final = 0x05
RELEASE_RP: Final = 0x06
ABORT: Final = 0x07

ANNOUNCED_PDU_BYTES: Final = 131072
"""What we announce as maximum length: DCMTK sends no more, and 16 KB costs eight times the work for each byte."""

LONGEST_PDU_BYTES: Final = 2 * ANNOUNCED_PDU_BYTES
"""What we bear: some senders count the headers otherwise than PS3.8 D.1.1, and streamed P-DATA costs no memory."""

LONGEST_ASSOCIATE_BYTES: Final = 262144
"""128 contexts with every transfer syntax of the standard take about 180 KB."""

RELEASE_RQ_PDU: Final = struct.pack(">BxI4x", RELEASE_RQ, 4)
RELEASE_RP_PDU: Final = struct.pack(">BxI4x", RELEASE_RP, 4)

BY_USER: Final = 0
BY_PROVIDER: Final = 2
"""A-ABORT sources (PS3.8 9.3.8)."""

NOT_SPECIFIED: Final = 0
UNRECOGNISED_PDU: Final = 1
UNEXPECTED_PDU: Final = 2
INVALID_PARAMETER: Final = 6
"""A-ABORT reasons of the provider (PS3.8 9.3.8)."""

COMMAND: Final = 0x01
LAST: Final = 0x02
"""Bits of the message control header (PS3.8 E.2)."""

P_DATA_HEADER: Final = struct.Struct(">BxIIBB")
"""P-DATA-TF header and the header of its one presentation data value: type, length, PDV length, context id, control."""


@dataclass(frozen=True)
class LeastRate:
    """How slow a peer may be inside a message: `bytes_per_s` over each `window_s` for which we waited for it.

    A PDU's time limit does not hold against a message of ten thousand PDUs of one byte.
    """

    bytes_per_s: int = 1024
    window_s: float = 60.0


LEAST_RATE: Final = LeastRate()


class AssociationLost(Transient):
    """The association ended before the work on it was done."""


class ReleaseRequested(AssociationLost):
    """The peer asks to release (A-RELEASE-RQ)."""


class Aborted(AssociationLost):
    """The peer sent A-ABORT."""

    def __init__(self, source: int, reason: int) -> None:
        super().__init__(f"the peer aborted the association (source {source}, reason {reason})")
        self.source = source
        self.reason = reason


class ConnectionLost(AssociationLost):
    """The TCP connection ended without A-RELEASE or A-ABORT."""


class TimedOut(AssociationLost):
    """The peer was silent, or slower than a PDU's time limit."""


class ProtocolViolation(AssociationLost):
    """The peer sent what PS3.8 or PS3.7 forbid; `reason` is what our A-ABORT says."""

    def __init__(self, text: str, reason: int = INVALID_PARAMETER) -> None:
        super().__init__(text)
        self.reason = reason


def abort_pdu(source: int, reason: int) -> bytes:
    """An A-ABORT PDU."""
    return struct.pack(">BxI2xBB", ABORT, 4, source, reason)


def reject_pdu(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ PDU (PS3.8 9.3.4)."""
    return struct.pack(">BxIxBBB", ASSOCIATE_RJ, 4, result, source, reason)


def payload_bytes(maximum_length: int) -> int:
    """The most data that one PDV may have for a peer that announced `maximum_length` (0: no limit); an even number.

    Raises ProtocolViolation where no data would fit.
    """
    limit = min(maximum_length or ANNOUNCED_PDU_BYTES, ANNOUNCED_PDU_BYTES)
    if limit < 8:
        raise ProtocolViolation(f"the peer announced a maximum PDU length of {maximum_length} bytes")
    return (limit - 6) & ~1  # only the last fragment of a message may be odd (PS3.8 E.1)


def command_pdus(context_id: int, command_set: bytes, maximum_length: int) -> bytes:
    """The P-DATA-TF PDUs of one command set, for one send: two sends meet Nagle and a delayed ACK (40 ms)."""
    size = payload_bytes(maximum_length)
    out = bytearray()
    for offset in range(0, len(command_set), size):
        part = command_set[offset : offset + size]
        control = COMMAND | (LAST if offset + size >= len(command_set) else 0)
        out += P_DATA_HEADER.pack(P_DATA_TF, len(part) + 6, len(part) + 2, context_id, control)
        out += part
    return bytes(out)
