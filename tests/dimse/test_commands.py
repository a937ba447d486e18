"""Command sets: read as pynetdicom and pydicom read them, and nothing but a protocol violation from rubbish."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode as encode_data_set

from pacsnode.dimse import commands
from pacsnode.dimse.commands import CommandSet, Status
from pacsnode.dimse.pdus import ProtocolViolation

CT = "1.2.840.10008.5.1.4.1.1.2"


def test_a_store_request_of_pynetdicom_is_read() -> None:
    primitive = C_STORE()
    primitive.MessageID = 77
    primitive.AffectedSOPClassUID = CT
    primitive.AffectedSOPInstanceUID = "1.2.345"
    primitive.Priority = 1
    primitive.DataSet = io.BytesIO(b"data")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    data = encode_data_set(message.command_set, True, True)
    assert data is not None
    assert commands.parse(data) == CommandSet(commands.C_STORE_RQ, 77, True, CT, "1.2.345", Status(0))


def test_pydicom_reads_our_request_and_our_response() -> None:
    request = commands.store_request(65535, CT, "1.2.345")
    read = read_dataset(io.BytesIO(request), is_implicit_VR=True, is_little_endian=True)
    assert (read.CommandField, read.MessageID, read.Priority, read.CommandDataSetType) == (1, 65535, 0, 1)
    assert (read.AffectedSOPClassUID, read.AffectedSOPInstanceUID) == (CT, "1.2.345")
    assert read.CommandGroupLength == len(request) - 12

    status = Status(0xA900, "the SOP Class UIDs differ\\between command and data set, which is too long for it")
    answer = commands.response(commands.parse(request), status, 0x0008_0016)
    read = read_dataset(io.BytesIO(answer), is_implicit_VR=True, is_little_endian=True)
    assert (read.CommandField, read.MessageIDBeingRespondedTo, read.Status) == (0x8001, 65535, 0xA900)
    assert read.OffendingElement == 0x00080016
    assert read.ErrorComment == "the SOP Class UIDs differ?between command and data set, which is"
    assert read.CommandDataSetType == 0x0101
    tags = [element.tag for element in read]
    assert tags == sorted(tags)
    assert commands.parse(answer).status == Status(0xA900, read.ErrorComment)


def test_uids_that_are_none_are_left_out_of_the_response() -> None:
    request = commands.parse(commands.store_request(1, "../x", "a" * 70))
    assert (request.affected_sop_class_uid, request.affected_sop_instance_uid) == ("../x", "a" * 70)
    answer = commands.parse(commands.response(request, Status(0x0117)))
    assert (answer.affected_sop_class_uid, answer.affected_sop_instance_uid) == ("", "")


@pytest.mark.parametrize("code", [0x0001, 0xB000, 0xB006, 0xB007, 0x0107])
def test_warnings_are_told_from_failures(code: int) -> None:
    assert Status(code).is_warning
    assert not Status(code).is_success
    assert not Status(0xA700).is_warning
    assert str(Status(0xA700, "full")) == "0xA700 full"


@given(st.binary(max_size=300))
def test_rubbish_is_a_protocol_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        commands.parse(data)


@given(st.data())
def test_a_damaged_command_is_read_or_is_a_protocol_violation(data: st.DataObject) -> None:
    whole = bytearray(commands.store_request(1, CT, "1.2.3"))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        request = commands.parse(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except ProtocolViolation:
        return
    if not request.command_field & commands.RESPONSE:
        assert commands.parse(commands.response(request, Status(0))).message_id == request.message_id


@given(st.text(max_size=200))
def test_every_comment_fits_its_element(comment: str) -> None:
    request = commands.parse(commands.echo_request(1, "1.2"))
    answer = commands.parse(commands.response(request, Status(0xC000, comment)))
    assert len(answer.status.comment) <= 64
    assert answer.status.comment.isascii()
