"""Our SCU against DCMTK's storescp, and against peers that refuse, leave or lie."""

from __future__ import annotations

import io
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

from pacsnode.dimse import associate, commands, pdus
from pacsnode.dimse.associate import ContextResult
from pacsnode.dimse.association import ECHO_CONTEXT, Association, Timeouts, contexts_for
from pacsnode.dimse.commands import Status
from pacsnode.dimse.part10 import FileMeta, read_meta
from pacsnode.dimse.pdus import AssociationLost
from pacsnode.errors import Permanent, Transient
from tests.receive.doubles import CT, EXPLICIT, free_port, sample, storescp

SAMPLES = (
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "ExplVR_BigEnd.dcm",
    "JPEG-LL.dcm",
    "JPEG2000.dcm",
    "image_dfl.dcm",
)
CONTEXTS = contexts_for([(CT, EXPLICIT)])


def read(path: Path) -> tuple[FileMeta, bytes]:
    with path.open("rb") as file:
        return read_meta(file), file.read()


@pytest.mark.parametrize("pdu", ["4096", "16384", "131072"])
def test_storescp_keeps_the_bytes_that_we_send(tmp_path: Path, pdu: str) -> None:
    expected: dict[FileMeta, bytes] = {}
    for name in SAMPLES:
        meta, data = read(sample(name))
        expected[meta] = data + b"\0" * (len(data) & 1)  # image_dfl.dcm lacks the padding of PS3.5 A.5
    pairs = contexts_for((meta.sop_class_uid, meta.transfer_syntax_uid) for meta in expected)
    with (
        storescp(tmp_path, "-pdu", pdu) as port,
        Association.request("127.0.0.1", port, "PACSNODE", "STORESCP", (ECHO_CONTEXT, *pairs)) as association,
    ):
        assert association.accepted == {(pair[0], pair[1][0]) for pair in (ECHO_CONTEXT, *pairs)}
        assert association.echo() == Status(0)
        for name in SAMPLES:
            assert association.store_file(sample(name)).is_success
    assert dict(read(path) for path in tmp_path.iterdir()) == expected


def test_storescp_keeps_a_large_data_set(tmp_path: Path) -> None:
    original = pydicom.dcmread(sample("CT_small.dcm"))
    original.Rows, original.Columns = 1600, 2000
    original.PixelData = random.Random(1).randbytes(1600 * 2000 * 2)
    file = io.BytesIO()
    original.save_as(file)
    meta = read_meta(file)
    with (
        storescp(tmp_path) as port,
        Association.request("127.0.0.1", port, "PACSNODE", "STORESCP", CONTEXTS) as association,
    ):
        assert association.store(meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, file).is_success
    [path] = tmp_path.iterdir()
    assert pydicom.dcmread(path).PixelData == original.PixelData


def test_a_syntax_that_the_peer_does_not_take_is_permanent(tmp_path: Path) -> None:
    with (
        storescp(tmp_path, "+xi") as port,
        Association.request("127.0.0.1", port, "PACSNODE", "STORESCP", CONTEXTS) as association,
    ):
        assert association.accepted == frozenset()
        with pytest.raises(Permanent, match="does not accept SOP class"):
            association.store_file(sample("CT_small.dcm"))
        with pytest.raises(Permanent):
            association.echo()


def test_a_peer_that_aborts_after_the_object_is_transient(tmp_path: Path) -> None:
    with (
        storescp(tmp_path, "--abort-after") as port,
        pytest.raises(AssociationLost),
        Association.request("127.0.0.1", port, "PACSNODE", "STORESCP", CONTEXTS) as association,
    ):
        association.store_file(sample("CT_small.dcm"))


def test_nobody_there_is_transient() -> None:
    with pytest.raises(Transient, match="does a DICOM service run there"):
        Association.request("127.0.0.1", free_port(), "PACSNODE", "PACS", CONTEXTS)
    with pytest.raises(Transient, match="cannot be resolved"):
        Association.request("no-such-host.invalid", 104, "PACSNODE", "PACS", CONTEXTS)


class ScriptedPeer:
    """A listener that reads the request, sends what it is told, and remembers what came after."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.heard = b""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(20)
            for answer in self._answers:
                connection.recv(1 << 20)
                connection.sendall(answer)
            try:
                while more := connection.recv(1 << 20):
                    self.heard += more
            except ConnectionResetError:
                return

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


@pytest.fixture
def script() -> Iterator[Callable[..., ScriptedPeer]]:
    peers: list[ScriptedPeer] = []

    def start(*answers: bytes) -> ScriptedPeer:
        peers.append(ScriptedPeer(*answers))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


ACCEPT = associate.encode_accept([ContextResult(1, 0, EXPLICIT)])


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (pdus.reject_pdu(1, 1, 3), Permanent, "does not know our AE title PACSNODE: register it"),
        (pdus.reject_pdu(1, 1, 7), Permanent, "it is not called PACS"),
        (pdus.reject_pdu(2, 3, 1), Transient, "congested"),
        (pdus.reject_pdu(2, 3, 2), Transient, "as many associations as it allows"),
        (pdus.reject_pdu(1, 9, 9), Permanent, r"source 9, reason 9"),
        (pdus.abort_pdu(0, 0), Transient, "aborted"),
        (pdus.RELEASE_RP_PDU, Transient, "another PDU"),
        (b"HTTP/1.1 400 Bad Request\r\n", Transient, "unknown PDU type"),
        (b"\x02\x00\xff\xff\xff\xff", Transient, "are allowed"),
        (b"\x02\x00\x00\x00\x00\x02ab", Transient, "another PDU"),
        (ACCEPT[:-30] + b"\xff" * 30, Transient, "longer than its PDU"),
    ],
)
def test_every_answer_to_a_request_is_a_sentence(
    script: Callable[..., ScriptedPeer], answer: bytes, error: type[Exception], text: str
) -> None:
    peer = script(answer)
    with pytest.raises(error, match=text):
        Association.request("127.0.0.1", peer.port, "PACSNODE", "PACS", CONTEXTS)


def test_a_peer_that_never_answers_is_transient(script: Callable[..., ScriptedPeer]) -> None:
    for peer, timeouts in ((script(b""), Timeouts(acse_s=0.1)), (script(ACCEPT), Timeouts(dimse_s=0.1))):
        with (
            pytest.raises(Transient),
            Association.request("127.0.0.1", peer.port, "PACSNODE", "PACS", CONTEXTS, timeouts) as association,
        ):
            association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"data"))


@pytest.mark.parametrize(
    "answer",
    [
        pdus.command_pdus(1, commands.response(commands.parse(commands.echo_request(1, CT)), Status(0)), 0),
        pdus.command_pdus(1, commands.response(commands.parse(commands.store_request(9, CT, "1.2.3")), Status(0)), 0),
        pdus.command_pdus(1, commands.store_request(1, CT, "1.2.3"), 0),
        pdus.command_pdus(1, b"rubbish", 0),
        pdus.command_pdus(1, bytes(70_000), 0),
        b"\x04\x00\x00\x00\x00\x07\x00\x00\x00\x03\x01\x02a",
        b"\x04\x00\xff\xff\xff\xff",
    ],
)
def test_an_answer_to_something_else_is_aborted(script: Callable[..., ScriptedPeer], answer: bytes) -> None:
    peer = script(ACCEPT, answer)
    with (
        pytest.raises(Transient),
        Association.request("127.0.0.1", peer.port, "PACSNODE", "PACS", CONTEXTS) as association,
    ):
        association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"data"))
    peer.close()
    assert peer.heard[-10:-2] == pdus.abort_pdu(pdus.BY_PROVIDER, 0)[:8]


def test_status_and_comment_of_the_peer_are_handed_on(script: Callable[..., ScriptedPeer]) -> None:
    request = commands.parse(commands.store_request(1, CT, "1.2.3"))
    answer = commands.response(request, Status(0xA900, "differs"))
    peer = script(ACCEPT, pdus.command_pdus(1, answer, 0), pdus.RELEASE_RP_PDU)
    with Association.request("127.0.0.1", peer.port, "PACSNODE", "PACS", CONTEXTS) as association:
        assert association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"data")) == Status(0xA900, "differs")


def test_an_exception_inside_aborts_and_a_closed_association_says_so(script: Callable[..., ScriptedPeer]) -> None:
    peer = script(ACCEPT)
    with (
        pytest.raises(KeyError),
        Association.request("127.0.0.1", peer.port, "PACSNODE", "PACS", CONTEXTS) as association,
    ):
        raise KeyError
    with pytest.raises(Transient, match="ended"):
        association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"data"))
    association.release()
    peer.close()
    assert peer.heard == pdus.abort_pdu(pdus.BY_USER, 0)


def test_one_context_for_each_pair_and_no_more_than_an_association_has() -> None:
    assert contexts_for([("1.2", "1.3"), ("1.2", "1.4"), ("1.2", "1.3")]) == (("1.2", ("1.3",)), ("1.2", ("1.4",)))
    with pytest.raises(Permanent, match="send in several"):
        contexts_for((f"1.2.{n}", EXPLICIT) for n in range(129))


@pytest.mark.parametrize("name", ["no_meta.dcm", "meta_missing_tsyntax.dcm", "README.txt"])
def test_a_file_without_meta_information_is_permanent(name: str) -> None:
    with sample(name).open("rb") as file, pytest.raises(Permanent):
        read_meta(file)


def test_a_file_without_a_group_length_is_read() -> None:
    meta, data = read(sample("no_meta_group_length.dcm"))
    assert meta.transfer_syntax_uid == "1.2.840.10008.1.2"
    assert data.startswith(b"\x08\x00\x08\x00")
