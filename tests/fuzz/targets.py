"""What is fuzzed: one function a parser, bytes in; it returns for whatever may come off a wire, or the parser is wrong.

Each lets through only the exceptions that its parser is allowed to end with, and then holds what was read against a
second reader: `reference`, pydicom, pynetdicom, or the bytes that our own encoder makes of it. Input formats: `pdu` has
three bytes before the peer's stream (`stream.pdu`), `header` and `nested` one that chooses the encoding; the others are
bare. Never writes a file, never needs a network but the loopback.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator, read_dataset, read_partial
from pynetdicom.pdu import A_ASSOCIATE_RQ

from pacsnode.dicom.attributes import ATTRIBUTES, BY_PLACE
from pacsnode.dicom.header import DEFLATED, MAX_VALUE_BYTES, Header, read_header
from pacsnode.dicom.uids import is_safe
from pacsnode.dimse import associate, commands, pdus
from pacsnode.dimse import nested as nested_reader
from pacsnode.dimse.commands import CommandSet, Status
from pacsnode.dimse.part10 import read_meta
from pacsnode.dimse.pdus import ProtocolViolation
from pacsnode.errors import Permanent, Rejected
from pacsnode.receive.negotiation import negotiate
from tests.fuzz.reference import Elements, Encoding, well_formed
from tests.fuzz.stream import pdu

Target = Callable[[bytes], None]

# ----------------------------------------------------------------------------------------------------- command set


def command(data: bytes) -> None:
    """A command set: read as pydicom reads it; what our encoders make of it reads the same; it can be answered."""
    try:
        read = commands.parse(data)
    except ProtocolViolation:
        return
    elements = list(data_element_generator(io.BytesIO(data), True, True))
    values = {element.tag: element.value or b"" for element in elements}
    assert len(values) == len(elements), "one of two was chosen"
    assert read.command_field == int.from_bytes(values[0x0000_0100], "little")
    assert read.has_data_set == (values[0x0000_0800] != b"\x01\x01")
    uids = {values.get(tag, b"").rstrip(b"\0 ") for tag in (0x0000_0002, 0x0000_0003, 0x0000_1000, 0x0000_1001)}
    for uid in (read.affected_sop_class_uid, read.affected_sop_instance_uid):
        assert not is_safe(uid) or uid.encode() in uids
    if read.command_field & commands.RESPONSE:
        return
    _encodes_to_itself(read)
    answer = commands.parse(commands.response(read, Status(0xA700, "full"), 0x0000_1000))
    assert answer.message_id == read.message_id
    assert answer.status == Status(0xA700, "full")
    for said, back in (
        (read.affected_sop_class_uid, answer.affected_sop_class_uid),
        (read.affected_sop_instance_uid, answer.affected_sop_instance_uid),
    ):
        assert back == (said if is_safe(said) else "")


def _encodes_to_itself(read: CommandSet) -> None:
    ids = read.message_id, read.affected_sop_class_uid
    if not is_safe(read.affected_sop_class_uid) or not is_safe(read.affected_sop_instance_uid):
        return
    if read.command_field == commands.C_STORE_RQ:
        made = commands.store_request(*ids, read.affected_sop_instance_uid)
    elif read.command_field == commands.N_ACTION_RQ:
        made = commands.action_request(*ids, read.affected_sop_instance_uid, read.type_id)
    elif read.command_field == commands.N_EVENT_REPORT_RQ:
        made = commands.event_report_request(*ids, read.affected_sop_instance_uid, read.type_id)
    else:
        return
    type_id = 0 if read.command_field == commands.C_STORE_RQ else read.type_id
    assert commands.parse(made) == replace(read, has_data_set=True, type_id=type_id)


# ------------------------------------------------------------------------------------------------- association

_ITEMS: Final = associate.ITEMS_OFFSET


def associate_request(data: bytes) -> None:
    """An A-ASSOCIATE-RQ: the contexts that pynetdicom reads, and an answer to each that can be read."""
    if len(data) > pdus.LONGEST_ASSOCIATE_BYTES:
        return  # the transport lets none of these through
    try:
        _, called, calling = associate.titles(data)
        items = associate.decode_items(data[_ITEMS:])
        answer = negotiate(data[_ITEMS:])
    except ProtocolViolation:
        return
    for title in (called, calling):
        assert title.isascii() and title.isprintable() and len(title) <= 16
    ids = [context.context_id for context in items.proposed]
    assert len(set(ids)) == len(ids) <= associate.MOST_CONTEXTS
    kind, length = struct.unpack(">BxI", answer.accept_pdu[:6])
    assert (kind, length) == (pdus.ASSOCIATE_AC, len(answer.accept_pdu) - 6)
    accepted = associate.decode_items(answer.accept_pdu[_ITEMS:]).accepted
    assert accepted == {context_id: syntax for context_id, (_, syntax) in answer.contexts.items()}
    for context in items.proposed:
        if context.context_id in accepted:
            assert accepted[context.context_id] in context.transfer_syntaxes
    theirs = _contexts_of_pynetdicom(data)
    if theirs is not None:
        assert [(c.context_id, c.abstract_syntax, c.transfer_syntaxes) for c in items.proposed] == theirs


def _contexts_of_pynetdicom(data: bytes) -> list[tuple[int, str, tuple[str, ...]]] | None:
    """What pynetdicom proposes to have read; None where it cannot, or where a UID is none."""
    request = A_ASSOCIATE_RQ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            request.decode(struct.pack(">BxI", pdus.ASSOCIATE_RQ, len(data) - 6) + data[6:])
            if any(
                len(item.abstract_transfer_syntax_sub_items) != 1 + len(item.transfer_syntax)
                for item in request.presentation_context
            ):
                return None  # it takes the first of two abstract syntaxes, we the last, PS3.8 9.3.2.2 knows one
            found = [
                (int(item.presentation_context_id), str(item.abstract_syntax), tuple(map(str, item.transfer_syntax)))
                for item in request.presentation_context
            ]
    except Exception:  # noqa: BLE001  # it is not what is tested
        return None
    uids = {uid for _, abstract, syntaxes in found for uid in (abstract, *syntaxes)}
    bare = {uid for uid in uids if struct.pack(">H", len(uid)) + uid.encode("ascii", "replace") in data}
    return found if all(map(is_safe, uids)) and bare == uids else None  # it strips what is no padding


# ---------------------------------------------------------------------------------------------------- data sets

SYNTAXES: Final = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    DEFLATED,
    "1.2.840.10008.1.2.4.70",
    "1.2.840.113619.5.2",
)
"""By byte 0 of an input of `header`."""
_IMPLICIT: Final = (SYNTAXES[1], SYNTAXES[5])
_SEQUENCES: Final = frozenset(attribute.sequence for attribute in ATTRIBUTES if attribute.sequence)


def header(data: bytes) -> None:
    """A data set: read, or refused as C000; one in perfect order is read, byte for byte as pydicom reads it."""
    syntax, dataset = SYNTAXES[data[0] % len(SYNTAXES) if data else 0], data[1:]
    encoding = Encoding(syntax not in _IMPLICIT, syntax == SYNTAXES[2], _SEQUENCES)
    elements = None if syntax == DEFLATED else well_formed(dataset, encoding)
    try:
        read = read_header(dataset, syntax)
    except Rejected as rejected:
        assert rejected.status == Rejected.CANNOT_UNDERSTAND
        assert elements is None or _too_long(elements), f"in perfect order, but refused: {rejected}"
        return
    for keyword, values in read.attributes.items():
        assert all(isinstance(value, str) for value in values), keyword
    if elements is None:
        return
    assert dict(read.raw) == _wanted(elements)
    _read_as_pydicom_reads(dataset, encoding, read)


def _wanted(elements: Elements) -> dict[str, bytes]:
    """Keyword to bytes of what the attribute table names; the values of several items are joined."""
    found: dict[str, list[bytes]] = {}
    for tag, _, value in elements:
        if isinstance(value, bytes) and (0, tag) in BY_PLACE:
            found.setdefault(BY_PLACE[0, tag].keyword, []).append(value)
        elif isinstance(value, list) and tag in _SEQUENCES:
            for item in value:
                for inner, _, part in item:
                    if isinstance(part, bytes) and (tag, inner) in BY_PLACE:
                        found.setdefault(BY_PLACE[tag, inner].keyword, []).append(part)
    return {keyword: b"\\".join(parts) for keyword, parts in found.items()}


def _too_long(elements: Elements) -> bool:
    """Whether a value of the table, or the character set, is longer than is read."""
    charset = [value for tag, _, value in elements if tag == 0x0008_0005 and isinstance(value, bytes)]
    parts = [value for _, _, value in elements if isinstance(value, bytes)]
    inner = [v for _, _, items in elements if isinstance(items, list) for i in items for _, _, v in i]
    values = [*charset, *parts, *(value for value in inner if isinstance(value, bytes))]
    return any(len(value) > MAX_VALUE_BYTES for value in values)


def _read_as_pydicom_reads(dataset: bytes, encoding: Encoding, read: Header) -> None:
    """The raw bytes of the top level in pydicom; what pydicom has looked into itself, or cannot read, is left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = read_dataset(io.BytesIO(dataset), not encoding.explicit, not encoding.big_endian)
            raw = {a.keyword: theirs.get_item(a.tag) for a in ATTRIBUTES if a.tag and not a.sequence}
    except Exception:  # noqa: BLE001  # it is not what is tested
        return
    for keyword, element in raw.items():
        if isinstance(element, RawDataElement):
            assert read.raw.get(keyword, b"") == (element.value or b""), keyword


def nested(data: bytes) -> None:
    """The data set of an N-operation: read, or a ValueError; one in perfect order has every value of its top level."""
    explicit, dataset = bool(data[:1] > b"\x7f"), data[1:]
    syntax = SYNTAXES[0] if explicit else SYNTAXES[1]
    sequences = frozenset((0x0008_1198, 0x0008_1199, 0x0040_0340, 0x0008_1140))
    elements = well_formed(dataset, Encoding(explicit, sequences=sequences))
    try:
        read = nested_reader.read(dataset, syntax, sequences)
    except ValueError:
        assert elements is None, "in perfect order, but malformed"
        return
    if elements is None or any(value is None for _, _, value in elements):
        return
    values = {tag: value for tag, _, value in elements if isinstance(value, bytes)}
    assert read.values == values
    counts = {tag: len(value) for tag, _, value in elements if isinstance(value, list)}
    assert {tag: len(items) for tag, items in read.sequences.items()} == counts


# ------------------------------------------------------------------------------------------------------ Part 10


def meta(data: bytes) -> None:
    """The beginning of a Part 10 file: where its data set begins and what it is, as pydicom reads it."""
    file = io.BytesIO(data)
    try:
        read = read_meta(file)
    except Permanent:
        return
    assert 132 <= read.dataset_offset == file.tell() <= len(data)
    for uid in (read.sop_class_uid, read.sop_instance_uid, read.transfer_syntax_uid):
        assert is_safe(uid)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pydicom warns where the group length is wrong, and then goes on elsewhere
            theirs = read_partial(io.BytesIO(data), stop_when=lambda *_: True).file_meta
            uids = theirs.MediaStorageSOPClassUID, theirs.MediaStorageSOPInstanceUID, theirs.TransferSyntaxUID
    except Exception:  # noqa: BLE001  # it is not what is tested
        return
    if all(isinstance(uid, str) for uid in uids):  # numbers, where another VR is given
        assert (read.sop_class_uid, read.sop_instance_uid, read.transfer_syntax_uid) == uids


TARGETS: Final[dict[str, Target]] = {
    "pdu": pdu,
    "command": command,
    "header": header,
    "associate": associate_request,
    "meta": meta,
    "nested": nested,
}
