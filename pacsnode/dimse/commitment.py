"""Storage commitment seen from the side that asks: its request, and the result that comes back (PS3.4 J.3.2, J.3.3).

In: which instances; later an N-EVENT-REPORT. Out: data sets as bytes, results as UIDs. No I/O; decodes nothing but UIDs
and reasons. The encoder is the other side's too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pacsnode.dicom.uids import is_safe
from pacsnode.dimse import commands, nested
from pacsnode.dimse.commands import CommandSet
from pacsnode.errors import Rejected

COMMITMENT: Final = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model."""
COMMITMENT_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
"""The one SOP Instance of the service (PS3.4 J.3.5)."""
EXPLICIT_VR: Final = "1.2.840.10008.1.2.1"
LONGEST_DATA_SET_BYTES: Final = 1 << 22
"""About 30,000 instances."""

REQUEST_COMMITMENT: Final = 1
ALL_SAFE: Final = 1
FAILURES_EXIST: Final = 2
"""Action type of PS3.4 J.3.2.1.1 and event types of J.3.3.1.1."""

REFERENCED_SOP_CLASS_UID: Final = 0x0008_1150
REFERENCED_SOP_INSTANCE_UID: Final = 0x0008_1155
TRANSACTION_UID: Final = 0x0008_1195
FAILURE_REASON: Final = 0x0008_1197
FAILED_SOP_SEQUENCE: Final = 0x0008_1198
REFERENCED_SOP_SEQUENCE: Final = 0x0008_1199


class Reference(NamedTuple):
    """One instance that is asked about, as the asking side names it."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Report:
    """What one N-EVENT-REPORT tells: instances that are safe, and those that are not with their FailureReason."""

    transaction_uid: str
    safe: frozenset[Reference]
    failed: dict[Reference, int]


def encode_request(transaction_uid: str, references: Sequence[Reference], transfer_syntax_uid: str) -> bytes:
    """The data set of an N-ACTION that asks about `references`."""
    put = Encoder(explicit=transfer_syntax_uid == EXPLICIT_VR)
    asked = put.sequence(REFERENCED_SOP_SEQUENCE, [put.reference(reference) for reference in references])
    return put.uid(TRANSACTION_UID, transaction_uid) + asked


def parse_report(command: CommandSet, data_set: bytes, transfer_syntax_uid: str) -> Report:
    """What an N-EVENT-REPORT says. Raises Rejected with the status of the answer where it is not well formed.

    An instance that is told as safe and as failed has failed.
    """
    if command.affected_sop_class_uid != COMMITMENT:
        raise Rejected(commands.NO_SUCH_SOP_CLASS, "not the storage commitment SOP class")
    if command.affected_sop_instance_uid != COMMITMENT_INSTANCE:
        raise Rejected(commands.NO_SUCH_OBJECT_INSTANCE, "not the well-known storage commitment instance")
    if command.type_id not in (ALL_SAFE, FAILURES_EXIST):
        raise Rejected(commands.NO_SUCH_EVENT_TYPE, "only events 1 and 2 of storage commitment")
    try:
        told = nested.read(data_set, transfer_syntax_uid, frozenset((FAILED_SOP_SEQUENCE, REFERENCED_SOP_SEQUENCE)))
    except ValueError as error:
        raise Rejected(commands.PROCESSING_FAILURE, str(error)) from None
    transaction_uid = told.text(TRANSACTION_UID)
    if not is_safe(transaction_uid):
        raise Rejected(commands.INVALID_ARGUMENT_VALUE, "no Transaction UID")
    failed = {_reference(item): _reason(item) for item in told.items(FAILED_SOP_SEQUENCE)}
    safe = frozenset(_reference(item) for item in told.items(REFERENCED_SOP_SEQUENCE))
    return Report(transaction_uid, safe - failed.keys(), failed)


def _reference(item: nested.Item) -> Reference:
    return Reference(item.text(REFERENCED_SOP_CLASS_UID), item.text(REFERENCED_SOP_INSTANCE_UID))


def _reason(item: nested.Item) -> int:
    """The FailureReason; a processing failure where there is none, or 0: what is listed as failed is not safe."""
    value = item.values.get(FAILURE_REASON, b"")
    return int.from_bytes(value[:2], "little") or commands.PROCESSING_FAILURE


class Encoder:
    """Elements in Explicit or Implicit VR Little Endian."""

    def __init__(self, *, explicit: bool) -> None:
        self._explicit = explicit

    def element(self, tag: int, vr: bytes, value: bytes) -> bytes:
        """One element; `value` has even length."""
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if not self._explicit:
            return head + struct.pack("<I", len(value)) + value
        if vr == b"SQ":
            return head + struct.pack("<2sHI", vr, 0, len(value)) + value
        return head + struct.pack("<2sH", vr, len(value)) + value

    def uid(self, tag: int, uid: str) -> bytes:
        """An element of VR UI."""
        return self.element(tag, b"UI", uid.encode("ascii") + b"\0" * (len(uid) & 1))

    def reference(self, reference: Reference, rest: bytes = b"") -> bytes:
        """The content of one item of a SOP Sequence."""
        return (
            self.uid(REFERENCED_SOP_CLASS_UID, reference.sop_class_uid)
            + self.uid(REFERENCED_SOP_INSTANCE_UID, reference.sop_instance_uid)
            + rest
        )

    def sequence(self, tag: int, items: Iterable[bytes]) -> bytes:
        """A sequence of `items`."""
        body = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
        return self.element(tag, b"SQ", body)
