"""What a storage commitment request asks, and its result, as data sets (PS3.4 J.3.2, J.3.3). No I/O.

In: the command and data set of an N-ACTION. Out: transaction and instances; later the data set of the N-EVENT-REPORT.
Raises Rejected with the status of the answer for a request that is not well formed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from pacsnode.dicom.uids import is_safe
from pacsnode.dimse import commands
from pacsnode.dimse.commands import CommandSet
from pacsnode.errors import Rejected
from pacsnode.receive import nested
from pacsnode.receive.negotiation import COMMITMENT

COMMITMENT_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
"""The one SOP Instance of the service (PS3.4 J.3.5)."""
LONGEST_REQUEST_BYTES: Final = 1 << 22
"""About 30,000 instances."""
EXPLICIT_VR: Final = "1.2.840.10008.1.2.1"

_REQUEST_COMMITMENT: Final = 1
_ALL_SAFE: Final = 1
_FAILURES_EXIST: Final = 2
"""Action type of PS3.4 J.3.2.1.1 and event types of J.3.3.1.1."""

_REFERENCED_SOP_CLASS_UID: Final = 0x0008_1150
_REFERENCED_SOP_INSTANCE_UID: Final = 0x0008_1155
_TRANSACTION_UID: Final = 0x0008_1195
_FAILURE_REASON: Final = 0x0008_1197
_FAILED_SOP_SEQUENCE: Final = 0x0008_1198
_REFERENCED_SOP_SEQUENCE: Final = 0x0008_1199


class Reference(NamedTuple):
    """One instance that the peer asks about, as it names it."""

    sop_class_uid: str
    sop_instance_uid: str


class Result(NamedTuple):
    """One instance and its FailureReason (PS3.3 C.14), 0 where it is safe."""

    reference: Reference
    failure: int


def parse(command: CommandSet, data_set: bytes, transfer_syntax_uid: str) -> tuple[str, tuple[Reference, ...]]:
    """Transaction UID and the instances that an N-ACTION asks about, each once. Raises Rejected."""
    if command.affected_sop_class_uid != COMMITMENT:
        raise Rejected(commands.NO_SUCH_SOP_CLASS, "not the storage commitment SOP class")
    if command.affected_sop_instance_uid != COMMITMENT_INSTANCE:
        raise Rejected(commands.NO_SUCH_OBJECT_INSTANCE, "not the well-known storage commitment instance")
    if command.type_id != _REQUEST_COMMITMENT:
        raise Rejected(commands.NO_SUCH_ACTION, "only action 1, request storage commitment")
    try:
        asked = nested.read(data_set, transfer_syntax_uid, frozenset((_REFERENCED_SOP_SEQUENCE,)))
    except ValueError as error:
        raise Rejected(commands.PROCESSING_FAILURE, str(error)) from None
    transaction_uid = asked.text(_TRANSACTION_UID)
    if not is_safe(transaction_uid):
        raise Rejected(commands.INVALID_ARGUMENT_VALUE, "no Transaction UID")
    references = dict.fromkeys(
        Reference(item.text(_REFERENCED_SOP_CLASS_UID), item.text(_REFERENCED_SOP_INSTANCE_UID))
        for item in asked.items(_REFERENCED_SOP_SEQUENCE)
    )
    if not references:
        raise Rejected(commands.INVALID_ARGUMENT_VALUE, "the Referenced SOP Sequence is empty")
    if not all(is_safe(uid) for reference in references for uid in reference):
        raise Rejected(commands.INVALID_ARGUMENT_VALUE, "a Referenced SOP Class or Instance UID is no UID")
    return transaction_uid, tuple(references)


def encode(transaction_uid: str, results: Sequence[Result], transfer_syntax_uid: str) -> tuple[int, bytes]:
    """Event type and data set of the N-EVENT-REPORT that tells `results`."""
    put = _Encoder(explicit=transfer_syntax_uid == EXPLICIT_VR)
    failed = [
        put.reference(result.reference, put.element(_FAILURE_REASON, b"US", struct.pack("<H", result.failure)))
        for result in results
        if result.failure
    ]
    safe = [put.reference(result.reference) for result in results if not result.failure]
    data = put.uid(_TRANSACTION_UID, transaction_uid)
    if failed:
        data += put.sequence(_FAILED_SOP_SEQUENCE, failed)
    if safe:
        data += put.sequence(_REFERENCED_SOP_SEQUENCE, safe)
    return _FAILURES_EXIST if failed else _ALL_SAFE, data


class _Encoder:
    """Elements in Explicit or Implicit VR Little Endian."""

    def __init__(self, *, explicit: bool) -> None:
        self._explicit = explicit

    def element(self, tag: int, vr: bytes, value: bytes) -> bytes:
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if not self._explicit:
            return head + struct.pack("<I", len(value)) + value
        if vr == b"SQ":
            return head + struct.pack("<2sHI", vr, 0, len(value)) + value
        return head + struct.pack("<2sH", vr, len(value)) + value

    def uid(self, tag: int, uid: str) -> bytes:
        return self.element(tag, b"UI", uid.encode("ascii") + b"\0" * (len(uid) & 1))

    def reference(self, reference: Reference, rest: bytes = b"") -> bytes:
        return (
            self.uid(_REFERENCED_SOP_CLASS_UID, reference.sop_class_uid)
            + self.uid(_REFERENCED_SOP_INSTANCE_UID, reference.sop_instance_uid)
            + rest
        )

    def sequence(self, tag: int, items: Iterable[bytes]) -> bytes:
        body = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
        return self.element(tag, b"SQ", body)
