"""A-ASSOCIATE-RQ, -AC and -RJ: encoded by pynetdicom's classes, decoded by a bounded walk (PS3.8 9.3.2, 9.3.3). No I/O.

The walk is our own since these bytes come from anyone: pynetdicom's decoders answer malformed items with assertions,
take any number of contexts, and need 10 ms for 120 of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context

from pacsnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, is_safe
from pacsnode.dimse.pdus import ANNOUNCED_PDU_BYTES, ProtocolViolation

APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
MOST_CONTEXTS: Final = 128
"""Presentation context ids are the odd numbers from 1 to 255 (PS3.8 9.3.2.2)."""

ACCEPTANCE: Final = 0
ABSTRACT_SYNTAX_NOT_SUPPORTED: Final = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED: Final = 4
"""Results of a presentation context (PS3.8 9.3.3.2)."""

ITEMS_OFFSET: Final = 74
"""Where the variable items of an A-ASSOCIATE-RQ or -AC start: behind version, AE titles and reserved bytes."""

_APPLICATION_CONTEXT_ITEM: Final = 0x10
_CONTEXT_RQ_ITEM: Final = 0x20
_CONTEXT_AC_ITEM: Final = 0x21
_ABSTRACT_SYNTAX_ITEM: Final = 0x30
_TRANSFER_SYNTAX_ITEM: Final = 0x40
_USER_INFORMATION_ITEM: Final = 0x50
_MAXIMUM_LENGTH_ITEM: Final = 0x51
_ROLE_SELECTION_ITEM: Final = 0x54
_MOST_TRANSFER_SYNTAXES: Final = 128


@dataclass(frozen=True)
class ProposedContext:
    """One presentation context of a request; a UID that is no UID is an empty text."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


class Role(NamedTuple):
    """What the requestor is for a SOP class (PS3.7 D.3.3.4); where nothing is said it is the SCU alone."""

    scu: bool
    scp: bool


@dataclass(frozen=True)
class Items:
    """The variable items of an A-ASSOCIATE-RQ (`proposed`) or -AC (`accepted`, `refused`).

    `accepted`: context id to transfer syntax. `refused`: context id to result.

    `roles`: by SOP class, where any was said.
    """

    application_context: str
    proposed: tuple[ProposedContext, ...]
    accepted: Mapping[int, str]
    refused: Mapping[int, int]
    maximum_length: int
    roles: Mapping[str, Role]


@dataclass(frozen=True)
class ContextResult:
    """The answer to one proposed context."""

    context_id: int
    result: int
    transfer_syntax: str


def titles(pdu: bytes) -> tuple[int, str, str]:
    """Protocol version, called and calling AE title of an A-ASSOCIATE-RQ; a title with odd characters is "".

    Raises ProtocolViolation for a PDU that is too short.
    """
    if len(pdu) < ITEMS_OFFSET:
        raise ProtocolViolation("an A-ASSOCIATE PDU that is cut off")
    return int.from_bytes(pdu[6:8], "big"), _ae_title(pdu[10:26]), _ae_title(pdu[26:42])


def _ae_title(field: bytes) -> str:
    text = field.decode("ascii", errors="replace").strip(" \0")
    return text if all(" " <= c <= "~" and c != "\\" for c in text) else ""


def decode_items(data: bytes) -> Items:
    """Read the variable items that follow `ITEMS_OFFSET`. Raises ProtocolViolation where a length is wrong."""
    application_context, maximum_length = "", 0
    proposed: list[ProposedContext] = []
    accepted: dict[int, str] = {}
    refused: dict[int, int] = {}
    roles: dict[str, Role] = {}
    seen: set[int] = set()
    for kind, body in _items(data):
        if kind == _APPLICATION_CONTEXT_ITEM:
            application_context = _uid(body)
        elif kind in (_CONTEXT_RQ_ITEM, _CONTEXT_AC_ITEM):
            context = _context(body)
            if context.context_id in seen:
                raise ProtocolViolation("a presentation context id that is used twice")
            seen.add(context.context_id)
            if kind == _CONTEXT_RQ_ITEM:
                proposed.append(context)
            elif body[2] == ACCEPTANCE and len(context.transfer_syntaxes) == 1:
                accepted[context.context_id] = context.transfer_syntaxes[0]
            else:
                refused[context.context_id] = body[2]
        elif kind == _USER_INFORMATION_ITEM:
            for sub_kind, value in _items(body):
                if sub_kind == _MAXIMUM_LENGTH_ITEM and len(value) == 4:
                    maximum_length = int.from_bytes(value, "big")
                elif sub_kind == _ROLE_SELECTION_ITEM and len(value) > 4:
                    roles[_uid(value[2:-2])] = Role(value[-2] == 1, value[-1] == 1)
    return Items(application_context, tuple(proposed), accepted, refused, maximum_length, roles)


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of the items of PS3.8 9.3.1. Items are never nested deeper than two."""
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            raise ProtocolViolation("an item header that is cut off")
        kind, length = struct.unpack_from(">BxH", data, at)
        if at + 4 + length > len(data):
            raise ProtocolViolation("an item that is longer than its PDU")
        yield kind, data[at + 4 : at + 4 + length]
        at += 4 + length


def _context(body: bytes) -> ProposedContext:
    if len(body) < 4 or not body[0] & 1:
        raise ProtocolViolation("a presentation context without a valid id")
    abstract_syntax = ""
    transfer_syntaxes: list[str] = []
    for kind, value in _items(body[4:]):
        if kind == _ABSTRACT_SYNTAX_ITEM:
            abstract_syntax = _uid(value)
        elif kind == _TRANSFER_SYNTAX_ITEM:
            if len(transfer_syntaxes) == _MOST_TRANSFER_SYNTAXES:
                raise ProtocolViolation("a presentation context with too many transfer syntaxes")
            transfer_syntaxes.append(_uid(value))
    return ProposedContext(body[0], abstract_syntax, tuple(transfer_syntaxes))


def _uid(value: bytes) -> str:
    text = value[:66].decode("ascii", errors="replace").rstrip("\0 ")  # padded by some, against PS3.8 Annex F
    return text if is_safe(text) else ""


def encode_request(
    calling_ae_title: str,
    called_ae_title: str,
    contexts: Sequence[tuple[str, Sequence[str]]],
    scp_of: Sequence[str] = (),
) -> bytes:
    """An A-ASSOCIATE-RQ that proposes `contexts` (abstract syntax, transfer syntaxes) as ids 1, 3, 5 and on.

    For the SOP classes in `scp_of` it proposes that we are the SCP and not the SCU (PS3.7 D.3.3.4).
    """
    primitive = _primitive(calling_ae_title, called_ae_title)
    primitive.user_information += [_role(sop_class_uid, Role(False, True)) for sop_class_uid in scp_of]
    proposed = []
    for index, (abstract_syntax, transfer_syntaxes) in enumerate(contexts):
        context = build_context(abstract_syntax, list(transfer_syntaxes))
        context.context_id = 2 * index + 1
        proposed.append(context)
    primitive.presentation_context_definition_list = proposed
    return bytes(A_ASSOCIATE_RQ(primitive).encode())


def encode_accept(results: Sequence[ContextResult], roles: Mapping[str, Role] = MappingProxyType({})) -> bytes:
    """An A-ASSOCIATE-AC; its bytes 10 to 74 are to be replaced by those of the request (PS3.8 table 9-17).

    `roles`: those that the requestor proposed and gets, by SOP class.
    """
    primitive = _primitive("REQUESTOR", "ACCEPTOR")
    primitive.user_information += [_role(sop_class_uid, role) for sop_class_uid, role in roles.items()]
    answered = []
    for result in results:
        context = PresentationContext()
        context.context_id = result.context_id
        context.result = result.result
        context.add_transfer_syntax(result.transfer_syntax)
        answered.append(context)
    primitive.presentation_context_definition_results_list = answered
    primitive.result = 0
    return bytes(A_ASSOCIATE_AC(primitive).encode())


def _role(sop_class_uid: str, role: Role) -> SCP_SCU_RoleSelectionNegotiation:
    item = SCP_SCU_RoleSelectionNegotiation()
    item.sop_class_uid, item.scu_role, item.scp_role = sop_class_uid, *role
    return item


def _primitive(calling_ae_title: str, called_ae_title: str) -> A_ASSOCIATE:
    maximum_length = MaximumLengthNotification()
    maximum_length.maximum_length_received = ANNOUNCED_PDU_BYTES
    class_uid = ImplementationClassUIDNotification()
    class_uid.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version_name = ImplementationVersionNameNotification()
    version_name.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title = calling_ae_title
    primitive.called_ae_title = called_ae_title
    primitive.user_information = [maximum_length, class_uid, version_name]
    return primitive
