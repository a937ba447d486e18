"""N-ACTION and N-EVENT-REPORT on the line, against pynetdicom's reading of them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pynetdicom import AE, evt
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_items import SCP_SCU_RoleSelectionSubItem
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from pacsnode.dimse import associate, commands
from pacsnode.dimse.association import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, Association
from pacsnode.dimse.commands import Status
from pacsnode.errors import Permanent

COMMITMENT = str(StorageCommitmentPushModel)
INSTANCE = str(StorageCommitmentPushModelInstance)
CONTEXTS = ((COMMITMENT, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)),)


def read(command: bytes) -> Dataset:
    return read_dataset(io.BytesIO(command), is_implicit_VR=True, is_little_endian=True)


def test_pydicom_reads_our_requests() -> None:
    event = read(commands.event_report_request(7, COMMITMENT, INSTANCE, 2))
    assert (event.CommandField, event.MessageID, event.EventTypeID, event.CommandDataSetType) == (0x0100, 7, 2, 1)
    assert (event.AffectedSOPClassUID, event.AffectedSOPInstanceUID) == (COMMITMENT, INSTANCE)
    action = read(commands.action_request(8, COMMITMENT, INSTANCE, 1))
    assert (action.CommandField, action.MessageID, action.ActionTypeID) == (0x0130, 8, 1)
    assert (action.RequestedSOPClassUID, action.RequestedSOPInstanceUID) == (COMMITMENT, INSTANCE)
    for command in (event, action):
        assert [e.tag for e in command] == sorted(e.tag for e in command)


def test_a_response_calls_the_requested_instance_affected() -> None:
    request = commands.parse(commands.action_request(8, COMMITMENT, INSTANCE, 1))
    assert (request.affected_sop_class_uid, request.affected_sop_instance_uid, request.type_id) == (
        COMMITMENT,
        INSTANCE,
        1,
    )
    answer = read(commands.response(request, Status(0)))
    assert (answer.CommandField, answer.MessageIDBeingRespondedTo) == (0x8130, 8)
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == (COMMITMENT, INSTANCE)


def test_role_selection_says_scp_and_not_scu() -> None:
    request = A_ASSOCIATE_RQ()
    request.decode(associate.encode_request("A", "B", CONTEXTS, (COMMITMENT,)))
    (role,) = [item for item in request.user_information.user_data if isinstance(item, SCP_SCU_RoleSelectionSubItem)]
    assert (str(role.uid), role.scu_role, role.scp_role) == (COMMITMENT, 0, 1)


@pytest.mark.parametrize("reply", [None, Dataset()])
def test_pynetdicom_takes_what_we_ask_and_tell(reply: Dataset | None) -> None:
    heard: list[tuple[str, Any]] = []
    if reply is not None:
        reply.TransactionUID = "1.2.3"

    def acted(event: Any) -> tuple[int, Dataset | None]:
        heard.append(("action", event.action_information.TransactionUID))
        return 0x0000, reply

    def told(event: Any) -> tuple[int, Dataset | None]:
        heard.append(("event", event.event_information.TransactionUID))
        return 0x0110, reply

    ae = AE("PEER")
    ae.add_supported_context(COMMITMENT, IMPLICIT_VR_LITTLE_ENDIAN, scu_role=True, scp_role=True)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_ACTION, acted), (evt.EVT_N_EVENT_REPORT, told)]
    )
    assert server is not None
    port = int(server.socket.getsockname()[1])
    data_set = b"\x08\0\x95\x11\x06\0\0\x001.2.3\0"
    assert dcmread(io.BytesIO(data_set), force=True).TransactionUID == "1.2.3"
    try:
        with Association.request("127.0.0.1", port, "PACSNODE", "PEER", CONTEXTS) as association:
            assert association.accepted == {(COMMITMENT, IMPLICIT_VR_LITTLE_ENDIAN)}
            assert association.action(COMMITMENT, INSTANCE, 1, data_set).is_success
            with pytest.raises(Permanent):
                association.event_report("1.2.3", INSTANCE, 1, data_set)
        with Association.request("127.0.0.1", port, "PACSNODE", "PEER", CONTEXTS, scp_of=(COMMITMENT,)) as association:
            assert association.event_report(COMMITMENT, INSTANCE, 1, data_set).code == 0x0110
    finally:
        server.shutdown()
        server.server_close()
    assert heard == [("action", "1.2.3"), ("event", "1.2.3")]
