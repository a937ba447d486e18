"""Command sets (PS3.7 section 6.3, 9.3, 10.3): group 0000 in Implicit VR Little Endian, read and written by hand.

In: the bytes of a command set, at most 64 KB. Out: the few elements that our services have, or bytes again.
No I/O; never reads a data set. pydicom would need a hundred times as long for eight elements.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from pacsnode.dicom.uids import is_safe
from pacsnode.dimse.pdus import ProtocolViolation

C_STORE_RQ: Final = 0x0001
C_STORE_RSP: Final = 0x8001
C_FIND_RQ: Final = 0x0020
C_FIND_RSP: Final = 0x8020
C_ECHO_RQ: Final = 0x0030
C_ECHO_RSP: Final = 0x8030
C_CANCEL_RQ: Final = 0x0FFF
N_EVENT_REPORT_RQ: Final = 0x0100
N_EVENT_REPORT_RSP: Final = 0x8100
N_GET_RQ: Final = 0x0110
N_SET_RQ: Final = 0x0120
N_ACTION_RQ: Final = 0x0130
N_ACTION_RSP: Final = 0x8130
N_CREATE_RQ: Final = 0x0140
N_DELETE_RQ: Final = 0x0150
RESPONSE: Final = 0x8000
"""The bit that makes a request's command field that of its response."""

SUCCESS: Final = 0x0000
INVALID_ATTRIBUTE_VALUE: Final = 0x0106
PROCESSING_FAILURE: Final = 0x0110
DUPLICATE_SOP_INSTANCE: Final = 0x0111
NO_SUCH_OBJECT_INSTANCE: Final = 0x0112
NO_SUCH_EVENT_TYPE: Final = 0x0113
INVALID_ARGUMENT_VALUE: Final = 0x0115
INVALID_OBJECT_INSTANCE: Final = 0x0117
NO_SUCH_SOP_CLASS: Final = 0x0118
CLASS_INSTANCE_CONFLICT: Final = 0x0119
MISSING_ATTRIBUTE: Final = 0x0120
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
NO_SUCH_ACTION: Final = 0x0123
NOT_AUTHORISED: Final = 0x0124
DUPLICATE_TRANSACTION_UID: Final = 0x0131
UNRECOGNISED_OPERATION: Final = 0x0211
RESOURCE_LIMITATION: Final = 0x0213

LONGEST_COMMAND_BYTES: Final = 65536

_ELEMENT: Final = struct.Struct("<HHI")
_US: Final = struct.Struct("<H")
_GROUP_LENGTH: Final = 0x0000
_AFFECTED_SOP_CLASS_UID: Final = 0x0002
_REQUESTED_SOP_CLASS_UID: Final = 0x0003
_COMMAND_FIELD: Final = 0x0100
_MESSAGE_ID: Final = 0x0110
_MESSAGE_ID_RESPONDED_TO: Final = 0x0120
_PRIORITY: Final = 0x0700
_DATA_SET_TYPE: Final = 0x0800
_STATUS: Final = 0x0900
_OFFENDING_ELEMENT: Final = 0x0901
_ERROR_COMMENT: Final = 0x0902
_AFFECTED_SOP_INSTANCE_UID: Final = 0x1000
_REQUESTED_SOP_INSTANCE_UID: Final = 0x1001
_EVENT_TYPE_ID: Final = 0x1002
_ACTION_TYPE_ID: Final = 0x1008
_NAMES_REQUESTED: Final = frozenset((N_GET_RQ, N_SET_RQ, N_ACTION_RQ, N_DELETE_RQ))
"""Operations whose request names a Requested SOP Instance, and whose response calls it Affected (PS3.7 10.1)."""

_NO_DATA_SET: Final = 0x0101
_DATA_SET: Final = 0x0001
_MEDIUM_PRIORITY: Final = 0


@dataclass(frozen=True)
class Status:
    """How a peer answered a request (PS3.7 Annex C)."""

    code: int
    comment: str = ""

    @property
    def is_success(self) -> bool:
        """Whether it was done as asked."""
        return self.code == SUCCESS

    @property
    def is_warning(self) -> bool:
        """Whether it was done, with something to say (PS3.7 C.3: 0001, 0107, 0116, Bxxx)."""
        return self.code in (0x0001, 0x0107, 0x0116) or self.code >> 12 == 0xB

    @property
    def is_pending(self) -> bool:
        """Whether more answers to the same request follow (PS3.4 C.4.1.1.4)."""
        return self.code in (0xFF00, 0xFF01)

    def __str__(self) -> str:
        return f"0x{self.code:04X} {self.comment}".rstrip()


DONE: Final = Status(SUCCESS)


@dataclass(frozen=True)
class CommandSet:
    """One request or response. Texts are as received but for their padding: check UIDs before use.

    The affected UIDs are the requested ones where the operation has those. `type_id`: of an event or action, else 0.
    """

    command_field: int
    message_id: int
    has_data_set: bool
    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    status: Status
    type_id: int = 0


def parse(data: bytes) -> CommandSet:
    """Read a command set. Raises ProtocolViolation for a length that does not fit and for what is missing."""
    if len(data) > LONGEST_COMMAND_BYTES:
        raise ProtocolViolation("a command set that is too long")
    elements: dict[int, bytes] = {}
    at, end = 0, len(data)
    while at < end:
        if at + 8 > end:
            raise ProtocolViolation("a command element that is cut off")
        group, element, length = _ELEMENT.unpack_from(data, at)
        at += 8
        if group != 0 or length > end - at or element in elements:
            raise ProtocolViolation("a command set that is not one of PS3.7 6.3.1")
        elements[element] = data[at : at + length]
        at += length
    command_field = _number(elements, _COMMAND_FIELD)
    is_response = bool(command_field & RESPONSE)
    message_id = _MESSAGE_ID_RESPONDED_TO if is_response or command_field == C_CANCEL_RQ else _MESSAGE_ID
    requested = command_field in _NAMES_REQUESTED
    type_id = _EVENT_TYPE_ID if command_field == N_EVENT_REPORT_RQ else _ACTION_TYPE_ID
    return CommandSet(
        command_field=command_field,
        message_id=_number(elements, message_id),
        has_data_set=_number(elements, _DATA_SET_TYPE) != _NO_DATA_SET,
        affected_sop_class_uid=_text(elements, _REQUESTED_SOP_CLASS_UID if requested else _AFFECTED_SOP_CLASS_UID),
        affected_sop_instance_uid=_text(
            elements, _REQUESTED_SOP_INSTANCE_UID if requested else _AFFECTED_SOP_INSTANCE_UID
        ),
        status=Status(_number(elements, _STATUS), _comment(elements)) if is_response else DONE,
        type_id=_number(elements, type_id) if type_id in elements else 0,
    )


def _number(elements: dict[int, bytes], element: int) -> int:
    value = elements.get(element, b"")
    if len(value) != 2:
        raise ProtocolViolation(f"a command set without a valid (0000,{element:04X})")
    return int.from_bytes(value, "little")


def _text(elements: dict[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("ascii", errors="replace").rstrip("\0 ")


def _comment(elements: dict[int, bytes]) -> str:
    text = _text(elements, _ERROR_COMMENT)[:64]
    return "".join(c if c.isprintable() else " " for c in text).strip()


def echo_request(message_id: int, sop_class_uid: str) -> bytes:
    """A C-ECHO-RQ."""
    return _encode(
        (_AFFECTED_SOP_CLASS_UID, _padded(sop_class_uid)),
        (_COMMAND_FIELD, _us(C_ECHO_RQ)),
        (_MESSAGE_ID, _us(message_id)),
        (_DATA_SET_TYPE, _us(_NO_DATA_SET)),
    )


def store_request(message_id: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """A C-STORE-RQ of medium priority."""
    return _encode(
        (_AFFECTED_SOP_CLASS_UID, _padded(sop_class_uid)),
        (_COMMAND_FIELD, _us(C_STORE_RQ)),
        (_MESSAGE_ID, _us(message_id)),
        (_PRIORITY, _us(_MEDIUM_PRIORITY)),
        (_DATA_SET_TYPE, _us(_DATA_SET)),
        (_AFFECTED_SOP_INSTANCE_UID, _padded(sop_instance_uid)),
    )


def find_request(message_id: int, sop_class_uid: str) -> bytes:
    """A C-FIND-RQ of medium priority; its data set, the identifier, follows."""
    return _encode(
        (_AFFECTED_SOP_CLASS_UID, _padded(sop_class_uid)),
        (_COMMAND_FIELD, _us(C_FIND_RQ)),
        (_MESSAGE_ID, _us(message_id)),
        (_PRIORITY, _us(_MEDIUM_PRIORITY)),
        (_DATA_SET_TYPE, _us(_DATA_SET)),
    )


def event_report_request(message_id: int, sop_class_uid: str, sop_instance_uid: str, event_type_id: int) -> bytes:
    """An N-EVENT-REPORT-RQ with a data set."""
    return _encode(
        (_AFFECTED_SOP_CLASS_UID, _padded(sop_class_uid)),
        (_COMMAND_FIELD, _us(N_EVENT_REPORT_RQ)),
        (_MESSAGE_ID, _us(message_id)),
        (_DATA_SET_TYPE, _us(_DATA_SET)),
        (_AFFECTED_SOP_INSTANCE_UID, _padded(sop_instance_uid)),
        (_EVENT_TYPE_ID, _us(event_type_id)),
    )


def action_request(message_id: int, sop_class_uid: str, sop_instance_uid: str, action_type_id: int) -> bytes:
    """An N-ACTION-RQ with a data set."""
    return _encode(
        (_REQUESTED_SOP_CLASS_UID, _padded(sop_class_uid)),
        (_COMMAND_FIELD, _us(N_ACTION_RQ)),
        (_MESSAGE_ID, _us(message_id)),
        (_DATA_SET_TYPE, _us(_DATA_SET)),
        (_REQUESTED_SOP_INSTANCE_UID, _padded(sop_instance_uid)),
        (_ACTION_TYPE_ID, _us(action_type_id)),
    )


def response(request: CommandSet, status: Status, offending_element: int = 0) -> bytes:
    """The response to `request`; UIDs that are none are left out. `offending_element` is a tag, 0 for none."""
    elements = [
        (_COMMAND_FIELD, _us(request.command_field | RESPONSE)),
        (_MESSAGE_ID_RESPONDED_TO, _us(request.message_id)),
        (_DATA_SET_TYPE, _us(_NO_DATA_SET)),
        (_STATUS, _us(status.code)),
    ]
    if is_safe(request.affected_sop_class_uid):
        elements.insert(0, (_AFFECTED_SOP_CLASS_UID, _padded(request.affected_sop_class_uid)))
    if offending_element:
        elements.append((_OFFENDING_ELEMENT, struct.pack("<HH", offending_element >> 16, offending_element & 0xFFFF)))
    if status.comment:
        elements.append((_ERROR_COMMENT, _lo(status.comment)))
    if is_safe(request.affected_sop_instance_uid):
        elements.append((_AFFECTED_SOP_INSTANCE_UID, _padded(request.affected_sop_instance_uid)))
    return _encode(*elements)


def _encode(*elements: tuple[int, bytes]) -> bytes:
    body = b"".join([_ELEMENT.pack(0, element, len(value)) + value for element, value in elements])
    return struct.pack("<HHII", 0, _GROUP_LENGTH, 4, len(body)) + body


def _us(value: int) -> bytes:
    return _US.pack(value)


def _padded(uid: str) -> bytes:
    value = uid.encode("ascii")
    return value + b"\0" * (len(value) & 1)


def _lo(text: str) -> bytes:
    kept = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text)[:64]
    return (kept + " " * (len(kept) & 1)).encode("ascii")
