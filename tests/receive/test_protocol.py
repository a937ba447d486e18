"""What a peer is answered, message by message."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from pacsnode.dimse import associate, commands, pdus
from pacsnode.dimse.association import Association, contexts_for
from pacsnode.errors import Permanent, Rejected
from pacsnode.handover import Stored
from tests.receive.doubles import CT, EXPLICIT, VERIFICATION, Node, RawClient, dcmtk, p_data, pdv, run_tool, sample
from tests.receive.doubles import store_command as store_rq

PRIVATE = "1.3.6.1.4.1.99999.7.1"
FUTURE_STORAGE = "1.2.840.10008.5.1.4.1.1.999.9"
MR = "1.2.840.10008.5.1.4.1.1.4"
DATA = p_data(pdv(1, pdus.LAST, b"data set"))


@pytest.mark.parametrize("sop_class", [PRIVATE, FUTURE_STORAGE, "1.2.840.10008.5.1.4.1.1.66.7"])
def test_private_and_unknown_sop_classes_are_stored(node: Node, sop_class: str) -> None:
    with node.client(((sop_class, (EXPLICIT,)),)) as client:
        client.send(store_rq(sop_class=sop_class) + DATA)
        assert client.read_status().status.is_success
        client.release()
    assert [(request.sop_class_uid, data) for request, data in node.store.objects] == [(sop_class, b"data set")]


@pytest.mark.parametrize("verdict", ["stored", "duplicate", "aside"])
def test_each_verdict_of_the_archive_is_success_and_rings(node: Node, verdict: str) -> None:
    node.store.verdict = Stored(verdict)  # type: ignore[arg-type]  # the table's values are its literals
    with node.client() as client:
        client.send(store_rq(uid="1.2.3.4", message_id=513) + DATA)
        answer = client.read_status()
        client.release()
    assert answer.status.code == 0
    assert (answer.command_field, answer.message_id) == (commands.C_STORE_RSP, 513)
    assert (answer.affected_sop_class_uid, answer.affected_sop_instance_uid) == (CT, "1.2.3.4")
    assert node.rung == [(node.store.objects[0][0], node.store.verdict)]


@pytest.mark.parametrize("where", ["begin", "write", "commit"])
@pytest.mark.parametrize(
    ("error", "code", "comment"),
    [
        (Rejected(Rejected.OUT_OF_RESOURCES, "the disk is full"), 0xA700, "the disk is full"),
        (Rejected(Rejected.CANNOT_UNDERSTAND, "no data set"), 0xC000, "no data set"),
        (OSError(5, "Input/output error"), 0xA700, "the archive cannot write now"),
        (ValueError("Kim^Chulsoo"), 0x0110, "internal error, see the log of the node"),
    ],
)
def test_what_the_archive_raises_is_the_status_and_the_association_goes_on(
    node: Node, caplog: pytest.LogCaptureFixture, where: str, error: Exception, code: int, comment: str
) -> None:
    node.store.failing = {where: error}
    caplog.set_level(logging.DEBUG)
    with node.client() as client:
        client.send(store_rq() + p_data(pdv(1, 0, bytes(100_000))) + p_data(pdv(1, 0, bytes(100_000))) + DATA)
        answer = client.read_status()
        assert (answer.status.code, answer.status.comment) == (code, comment)
        node.store.failing = {}
        client.send(store_rq(message_id=8) + DATA)
        assert client.read_status().status.is_success
        client.release()
    assert [data for _, data in node.store.objects] == [b"data set"]
    assert len(node.store.aborted) == (1 if where == "write" else 0)
    assert node.server.counts().refused == 1
    assert "Chulsoo" not in caplog.text


def test_storescu_sees_the_status_of_the_archive(node: Node) -> None:
    node.store.failing = {"commit": Rejected(Rejected.OUT_OF_RESOURCES, "the disk is full")}
    path = str(sample("CT_small.dcm"))
    result = run_tool(dcmtk("storescu"), "-v", "-R", "-aec", "PACSNODE", "127.0.0.1", str(node.port), path)
    assert "Received Store Response (Refused: OutOfResources)" in result.stdout + result.stderr
    with Association.request("127.0.0.1", node.port, "SENDER", "PACSNODE", contexts_for([(CT, EXPLICIT)])) as sender:
        status = sender.store_file(sample("CT_small.dcm"))
    assert (status.code, status.comment) == (0xA700, "the disk is full")


@pytest.mark.parametrize(
    ("uid", "sop_class", "code"),
    [
        ("../../../../etc/passwd", CT, 0x0117),
        ("1.2.3\n4", CT, 0x0117),
        ("1" * 65, CT, 0x0117),
        ("", CT, 0x0117),
        ("1.2.3", "not-a-uid", 0x0122),
        ("1.2.3", VERIFICATION, 0x0122),
        ("1.2.3", "1.2.840.10008.5.1.4.1.2.2.1", 0x0122),
    ],
)
def test_uids_that_are_none_never_reach_the_archive(node: Node, uid: str, sop_class: str, code: int) -> None:
    with node.client() as client:
        client.send(store_rq(uid=uid, sop_class=sop_class) + DATA)
        answer = client.read_status()
        assert answer.status.code == code
        assert answer.status.comment
        assert answer.affected_sop_instance_uid == (uid if uid == "1.2.3" else "")
        client.send(store_rq() + DATA)
        assert client.read_status().status.is_success
        client.release()
    assert node.store.opened == 1


def test_a_peer_that_may_not_store_is_told_so_but_may_echo(start_node: Callable[..., Node]) -> None:
    node = start_node(may=frozenset({"query"}))
    with node.client(((CT, (EXPLICIT,)), (VERIFICATION, (EXPLICIT,)))) as client:
        client.send(store_rq() + DATA)
        assert client.read_status().status.code == 0x0124
        client.send(p_data(pdv(3, 3, commands.echo_request(9, VERIFICATION))))
        answer = client.read_status()
        assert (answer.command_field, answer.message_id, answer.status.code) == (commands.C_ECHO_RSP, 9, 0)
        client.release()
    assert node.store.opened == 0


def test_a_store_without_a_data_set_is_not_understood(node: Node) -> None:
    command = commands.store_request(7, CT, "1.2.3").replace(
        b"\x00\x08\x02\x00\x00\x00\x01\x00", b"\x00\x08\x02\x00\x00\x00\x01\x01"
    )
    with node.client() as client:
        client.send(p_data(pdv(1, 3, command)))
        assert client.read_status().status.code == 0xC000
        client.release()


def test_an_unknown_operation_is_refused_after_its_data_set(node: Node) -> None:
    c_find = commands.store_request(7, CT, "1.2.3").replace(
        b"\x00\x01\x02\x00\x00\x00\x01\x00", b"\x00\x01\x02\x00\x00\x00\x20\x00"
    )
    with node.client() as client:
        client.send(p_data(pdv(1, 3, c_find)) + DATA)
        answer = client.read_status()
        assert (answer.command_field, answer.status.code) == (0x8020, 0x0211)
        client.send(store_rq() + DATA)
        assert client.read_status().status.is_success
        client.release()


def test_a_cancel_is_not_answered(node: Node) -> None:
    cancel = bytes.fromhex("0000000004000000 1e000000 0000000102000000ff0f 00002001020000000700 0000000802000000 0101")
    with node.client() as client:
        client.send(p_data(pdv(1, 3, cancel)) + store_rq() + DATA)
        assert client.read_status().command_field == commands.C_STORE_RSP
        client.release()


@pytest.mark.parametrize(
    "message",
    [
        p_data(pdv(5, 3, commands.store_request(7, CT, "1.2.3"))),
        store_rq() + p_data(pdv(5, 2, b"data")),
        store_rq() + p_data(pdv(1, 3, b"")),
        store_rq() + store_rq(),
        p_data(pdv(1, 2, b"a data set first")),
        p_data(pdv(1, 3, b"\x00\x00\x00\x01\xff\xff\xff\xff")),
        p_data(pdv(1, 3, b"\x08\x00\x05\x00\x02\x00\x00\x00ab")),
        p_data(pdv(1, 3, b"")),
        p_data(pdv(1, 3, commands.response(commands.parse(commands.echo_request(1, CT)), commands.Status(0)))),
        b"".join(p_data(pdv(1, 1, bytes(60_000))) for _ in range(2)),
        p_data(pdv(1, 1, b"half a command"), pdv(1, 2, b"then data")),
        b"\x04\x00\x00\x00\x00\x0a\x00\x00\x00\x20\x01\x03abcd",
        b"\x04\x00\x00\x00\x00\x0a\x00\x00\x00\x01\x01\x03abcd",
        b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x02\x01\x00ab",
        b"\x04\x00\x00\x00\x00\x00",
        b"\x04\x00\xff\xff\xff\xf0",
        b"\x04\x00\x00\x04\x00\x01",
        b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        b"\x01\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        b"\x09\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_the_standard_forbids_is_aborted(node: Node, message: bytes) -> None:
    with node.client() as client, node.client() as bystander:
        client.send(message)
        kind, pdu = client.read_end()
        assert (kind, pdu[8]) == (pdus.ABORT, pdus.BY_PROVIDER)
        bystander.send(store_rq() + DATA)
        assert bystander.read_status().status.is_success
        bystander.release()
    assert [data for _, data in node.store.objects] == [b"data set"]
    assert len(node.store.aborted) == node.store.opened - 1


@pytest.mark.parametrize(
    "first", [DATA, pdus.RELEASE_RP_PDU, b"\x08" + bytes(9), b"\x01\x00\x7f\xff\xff\xff", b"\x01\x00\x00\x00\x00\x02ab"]
)
def test_what_is_no_association_request_is_aborted(node: Node, first: bytes) -> None:
    with RawClient(node.port) as client:
        client.send(first)
        assert client.read_end()[0] == pdus.ABORT


@pytest.mark.parametrize(
    ("calling", "called", "answer"),
    [("MODALITY", "OTHER", (1, 1, 7)), ("STRANGER", "PACSNODE", (1, 1, 3)), ("BACK\\SLASH", "PACSNODE", (1, 1, 3))],
)
def test_ae_titles_that_are_not_admitted_are_rejected(
    node: Node, calling: str, called: str, answer: tuple[int, int, int]
) -> None:
    request = associate.encode_request("X" * 16, called, ((CT, (EXPLICIT,)),)).replace(
        b"X" * 16, calling.ljust(16).encode()
    )
    with RawClient(node.port) as client:
        client.send(request)
        kind, pdu = client.read_end()
    assert (kind, tuple(pdu[7:10])) == (pdus.ASSOCIATE_RJ, answer)
    assert node.server.counts().rejected == 1


def test_echoscu_and_our_scu_understand_the_rejection(node: Node) -> None:
    result = run_tool(dcmtk("echoscu"), "-aec", "WRONG", "127.0.0.1", str(node.port))
    assert result.returncode != 0
    assert "Called AE Title Not Recognized" in result.stderr
    with pytest.raises(Permanent, match="it is not called WRONG"):
        Association.request("127.0.0.1", node.port, "SENDER", "WRONG", contexts_for([(CT, EXPLICIT)]))
    with pytest.raises(Permanent, match="does not know our AE title STRANGER"):
        Association.request("127.0.0.1", node.port, "STRANGER", "PACSNODE", contexts_for([(CT, EXPLICIT)]))


def test_another_protocol_version_or_application_context_is_rejected(node: Node) -> None:
    request = associate.encode_request("MODALITY", "PACSNODE", ((CT, (EXPLICIT,)),))
    for changed, answer in (
        (request[:6] + b"\0\2" + request[8:], (1, 2, 2)),
        (request.replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2"), (1, 1, 2)),
    ):
        with RawClient(node.port) as client:
            client.send(changed)
            assert tuple(client.read_end()[1][7:10]) == answer


def test_titles_and_reserved_bytes_of_the_request_come_back_in_the_answer(node: Node) -> None:
    request = bytearray(associate.encode_request("MODALITY", "PACSNODE", ((CT, (EXPLICIT,)),)))
    request[42:74] = bytes(range(1, 33))
    with RawClient(node.port) as client:
        client.send(bytes(request))
        kind, pdu = client.read_pdu()
    assert kind == pdus.ASSOCIATE_AC
    assert pdu[10:74] == request[10:74]
    assert int.from_bytes(pdu[2:6], "big") == len(pdu) - 6
