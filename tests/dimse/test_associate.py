"""A-ASSOCIATE: our reading agrees with pynetdicom's, and bears what its does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ

from pacsnode.dicom.uids import IMPLEMENTATION_CLASS_UID
from pacsnode.dimse import associate, pdus
from pacsnode.dimse.associate import ContextResult, ProposedContext
from pacsnode.dimse.pdus import ProtocolViolation

CT, IMPLICIT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


def test_our_request_is_read_alike_by_us_and_by_pynetdicom() -> None:
    pdu = associate.encode_request("CALLING", "CALLED", ((CT, (IMPLICIT, EXPLICIT)), ("1.2.3", (IMPLICIT,))))
    assert associate.titles(pdu) == (1, "CALLED", "CALLING")
    items = associate.decode_items(pdu[associate.ITEMS_OFFSET :])
    assert items.proposed == (
        ProposedContext(1, CT, (IMPLICIT, EXPLICIT)),
        ProposedContext(3, "1.2.3", (IMPLICIT,)),
    )
    assert items.application_context == associate.APPLICATION_CONTEXT
    assert items.maximum_length == pdus.ANNOUNCED_PDU_BYTES
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(pdu)
    primitive = theirs.to_primitive()
    assert primitive.implementation_class_uid == IMPLEMENTATION_CLASS_UID
    assert [
        ProposedContext(context.context_id, context.abstract_syntax, tuple(context.transfer_syntax))
        for context in primitive.presentation_context_definition_list
    ] == list(items.proposed)


def test_our_answer_is_read_alike_by_us_and_by_pynetdicom() -> None:
    pdu = associate.encode_accept(
        [ContextResult(1, 0, EXPLICIT), ContextResult(3, 4, IMPLICIT), ContextResult(5, 3, IMPLICIT)]
    )
    assert associate.decode_items(pdu[associate.ITEMS_OFFSET :]).accepted == {1: EXPLICIT}
    theirs = A_ASSOCIATE_AC()
    theirs.decode(pdu)
    results = theirs.to_primitive().presentation_context_definition_results_list
    assert [(context.context_id, context.result) for context in results] == [(1, 0), (3, 4), (5, 3)]


def test_our_rejection_is_read_by_pynetdicom() -> None:
    theirs = A_ASSOCIATE_RJ()
    theirs.decode(pdus.reject_pdu(1, 1, 7))
    assert (theirs.result, theirs.source, theirs.reason_diagnostic) == (1, 1, 7)


@pytest.mark.parametrize("title", [b"\xc7\xd1\xb1\xdb", b"A\nB", b"A\\B", b" " * 16, bytes(16)])
def test_ae_titles_with_odd_characters_are_nobody(title: bytes) -> None:
    pdu = associate.encode_request("X" * 16, "CALLED", ((CT, (IMPLICIT,)),)).replace(b"X" * 16, title.ljust(16))
    assert associate.titles(pdu) == (1, "CALLED", "")


def test_uids_that_are_padded_or_none_do_not_stop_the_others() -> None:
    def item(kind: int, body: bytes) -> bytes:
        return bytes([kind, 0]) + len(body).to_bytes(2, "big") + body

    contexts = item(0x20, b"\1\0\0\0" + item(0x30, CT.encode() + b"\0") + item(0x40, IMPLICIT.encode() + b" "))
    contexts += item(0x20, b"\3\0\0\0" + item(0x30, b"../../x") + item(0x40, b"\xff" * 300))
    assert associate.decode_items(contexts).proposed == (
        ProposedContext(1, CT, (IMPLICIT,)),
        ProposedContext(3, "", ("",)),
    )
    with pytest.raises(ProtocolViolation):
        associate.decode_items(contexts + contexts)
    with pytest.raises(ProtocolViolation):
        associate.decode_items(item(0x20, b"\2\0\0\0"))
    with pytest.raises(ProtocolViolation):
        associate.decode_items(item(0x20, b"\1\0\0\0" + item(0x40, b"1.2") * 129))


@given(st.binary(max_size=200))
def test_rubbish_is_read_or_is_a_protocol_violation(data: bytes) -> None:
    for parse in (associate.titles, associate.decode_items):
        try:
            parse(data)
        except ProtocolViolation:
            continue
