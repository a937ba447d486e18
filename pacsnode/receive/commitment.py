"""What a storage commitment request asks, and its result, as data sets (PS3.4 J.3.2, J.3.3). No I/O.

In: the command and data set of an N-ACTION. Out: transaction and instances; later the data set of the N-EVENT-REPORT.
Raises Rejected with the status of the answer for a request that is not well formed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from pacsnode.dicom.uids import is_safe
from pacsnode.dimse import commands, nested
from pacsnode.dimse.commands import CommandSet
from pacsnode.dimse.commitment import (
    ALL_SAFE,
    COMMITMENT,
    FAILED_SOP_SEQUENCE,
    FAILURE_REASON,
    FAILURES_EXIST,
    REFERENCED_SOP_CLASS_UID,
    REFERENCED_SOP_INSTANCE_UID,
    REFERENCED_SOP_SEQUENCE,
    REQUEST_COMMITMENT,
    TRANSACTION_UID,
    Encoder,
)
from pacsnode.dimse.commitment import COMMITMENT_INSTANCE as COMMITMENT_INSTANCE
from pacsnode.dimse.commitment import EXPLICIT_VR as EXPLICIT_VR
from pacsnode.dimse.commitment import Reference as Reference
from pacsnode.errors import Rejected

LONGEST_REQUEST_BYTES: Final = 1 << 22
"""About 30,000 instances."""


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
    if command.type_id != REQUEST_COMMITMENT:
        raise Rejected(commands.NO_SUCH_ACTION, "only action 1, request storage commitment")
    try:
        asked = nested.read(data_set, transfer_syntax_uid, frozenset((REFERENCED_SOP_SEQUENCE,)))
    except ValueError as error:
        raise Rejected(commands.PROCESSING_FAILURE, str(error)) from None
    transaction_uid = asked.text(TRANSACTION_UID)
    if not is_safe(transaction_uid):
        raise Rejected(commands.INVALID_ARGUMENT_VALUE, "no Transaction UID")
    references = dict.fromkeys(
        Reference(item.text(REFERENCED_SOP_CLASS_UID), item.text(REFERENCED_SOP_INSTANCE_UID))
        for item in asked.items(REFERENCED_SOP_SEQUENCE)
    )
    if not references:
        raise Rejected(commands.INVALID_ARGUMENT_VALUE, "the Referenced SOP Sequence is empty")
    if not all(is_safe(uid) for reference in references for uid in reference):
        raise Rejected(commands.INVALID_ARGUMENT_VALUE, "a Referenced SOP Class or Instance UID is no UID")
    return transaction_uid, tuple(references)


def encode(transaction_uid: str, results: Sequence[Result], transfer_syntax_uid: str) -> tuple[int, bytes]:
    """Event type and data set of the N-EVENT-REPORT that tells `results`."""
    put = Encoder(explicit=transfer_syntax_uid == EXPLICIT_VR)
    failed = [
        put.reference(result.reference, put.element(FAILURE_REASON, b"US", struct.pack("<H", result.failure)))
        for result in results
        if result.failure
    ]
    safe = [put.reference(result.reference) for result in results if not result.failure]
    data = put.uid(TRANSACTION_UID, transaction_uid)
    if failed:
        data += put.sequence(FAILED_SOP_SEQUENCE, failed)
    if safe:
        data += put.sequence(REFERENCED_SOP_SEQUENCE, safe)
    return FAILURES_EXIST if failed else ALL_SAFE, data
