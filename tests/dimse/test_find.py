"""Asking how many images a peer has: C-FIND to pynetdicom, to DCMTK's dcmqrscp, and to peers that lie or loiter."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pynetdicom import AE, evt

from pacsnode.dimse import associate, commands, pdus
from pacsnode.dimse.associate import ContextResult
from pacsnode.dimse.association import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, Timeouts
from pacsnode.dimse.commands import Status
from pacsnode.dimse.find import (
    PATIENT_ID,
    PATIENT_ROOT,
    QUERY_LEVEL,
    STUDY_INSTANCE_UID,
    STUDY_RELATED_INSTANCES,
    STUDY_ROOT,
    Limits,
    Question,
    count_images,
    encode_identifier,
)
from pacsnode.dimse.tls import Credentials
from pacsnode.errors import ConfigError, Permanent, Transient
from pacsnode.peers import Peer
from tests.receive.certificates import Authority
from tests.receive.doubles import await_listener, dcmtk, free_port, run_tool, sample

SYNTAXES = [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]
STUDY = "1.2.826.0.77"
QUESTION = Question(STUDY)
LIMITS = Limits(Timeouts(connect_s=2, acse_s=2, pdu_s=2, dimse_s=2), in_all_s=5, most_answers=100)
QUICK = Limits(Timeouts(connect_s=1, acse_s=0.5, pdu_s=0.5, dimse_s=0.5), in_all_s=1.0)
Answers = Iterator[tuple[int, Dataset | None]]
PENDING = 0xFF00


@dataclass
class Sender:
    """A peer of pynetdicom that answers C-FIND by `answer`, which may be exchanged; `questions`: what it was asked."""

    answer: Callable[[Dataset], Answers]
    roots: Sequence[str] = (STUDY_ROOT, PATIENT_ROOT)
    syntaxes: Sequence[str] = tuple(SYNTAXES)
    tls: ssl.SSLContext | None = None
    port: int = 0
    questions: list[Dataset] = field(default_factory=list)
    sockets: list[Any] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Peer]:
        """Until the end of the block; as the rules file would have it."""
        ae = AE("CT1")
        for root in self.roots:
            ae.add_supported_context(root, list(self.syntaxes))
        handlers = [(evt.EVT_C_FIND, self._found), (evt.EVT_CONN_OPEN, self._note)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers, ssl_context=self.tls)
        assert server is not None
        self.port = int(server.socket.getsockname()[1])
        try:
            yield Peer(name="ct-1", ae_title="CT1", host="127.0.0.1", port=self.port, tls=self.tls is not None)
        finally:
            server.shutdown()
            server.server_close()
            for left in self.sockets:  # pynetdicom leaves those open that are cut off
                left.close()

    def _note(self, event: Any) -> None:
        self.sockets.append(event.assoc.dul.socket.socket)

    def _found(self, event: Any) -> Answers:
        self.questions.append(event.identifier)
        yield from self.answer(event.identifier)

    @property
    def levels(self) -> list[str]:
        """At which it was asked."""
        return [str(asked.QueryRetrieveLevel) for asked in self.questions]


def match(level: str, **values: Any) -> Dataset:
    """One answer, of the study."""
    made = Dataset()
    for keyword, value in {"QueryRetrieveLevel": level, "StudyInstanceUID": STUDY, **values}.items():
        setattr(made, keyword, value)
    return made


def holding(series: Mapping[str, int], *numbers: str) -> Callable[[Dataset], Answers]:
    """Who has so many images in each series of the study, and tells numbers at these levels, there or not at all."""

    def answer(asked: Dataset) -> Answers:
        level = str(asked.QueryRetrieveLevel)
        if asked.StudyInstanceUID != STUDY:
            return
        if level == "STUDY":
            yield PENDING, match(level, NumberOfStudyRelatedInstances=sum(series.values()) if level in numbers else "")
        for uid, count in series.items():
            of_series = {"SeriesInstanceUID": uid}
            if level == "SERIES":
                told = {"NumberOfSeriesRelatedInstances": count} if level in numbers else {}
                yield PENDING, match(level, **of_series, **told)
            if level == "IMAGE" and asked.SeriesInstanceUID == uid:
                for number in range(count):
                    yield PENDING, match(level, **of_series, SOPInstanceUID=f"{uid}.{number}")

    return answer


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_pydicom_reads_our_question(syntax: str) -> None:
    keys = {STUDY_INSTANCE_UID: "1.2.3", QUERY_LEVEL: "STUDY", PATIENT_ID: "4711a", STUDY_RELATED_INSTANCES: ""}
    read = read_dataset(io.BytesIO(encode_identifier(keys, syntax)), syntax == IMPLICIT_VR_LITTLE_ENDIAN, True)
    assert (read.QueryRetrieveLevel, read.StudyInstanceUID, read.PatientID) == ("STUDY", "1.2.3", "4711a")
    assert read.NumberOfStudyRelatedInstances is None
    assert [element.tag for element in read] == sorted(keys)
    request = commands.parse(commands.find_request(7, STUDY_ROOT))
    assert (request.command_field, request.has_data_set) == (commands.C_FIND_RQ, True)
    assert (request.message_id, request.affected_sop_class_uid) == (7, STUDY_ROOT)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_number_of_the_study_is_the_answer(syntax: str) -> None:
    sender = Sender(holding({"1.1": 100, "1.2": 20}, "STUDY"), syntaxes=[syntax])
    with sender.running() as peer:
        assert count_images(QUESTION, peer, "PACSNODE") == 120
    assert sender.levels == ["STUDY"]
    assert "PatientID" not in sender.questions[0]


@pytest.mark.parametrize(("patient_id", "told"), [("4711", "4711"), ("47*", ""), ("홍길동", ""), ("", "")])
def test_a_peer_that_knows_patient_root_alone_is_told_the_patient(patient_id: str, told: str) -> None:
    sender = Sender(holding({"1.1": 2}, "STUDY"), roots=[PATIENT_ROOT])
    with sender.running() as peer:
        assert count_images(Question(STUDY, patient_id), peer, "PACSNODE") == 2
    assert (sender.questions[0].PatientID or "") == told
    assert patient_id not in repr(Question(STUDY, patient_id)) or not patient_id


def test_without_a_number_of_the_study_those_of_its_series_are_added() -> None:
    sender = Sender(holding({"1.1": 100, "1.2": 20}, "SERIES"))
    with sender.running() as peer:
        assert count_images(QUESTION, peer, "PACSNODE") == 120
    assert sender.levels == ["STUDY", "SERIES"]


def test_without_any_number_the_images_of_each_series_are_counted() -> None:
    sender = Sender(holding({"1.1": 30, "1.2": 20}))
    with sender.running() as peer:
        assert count_images(QUESTION, peer, "PACSNODE", limits=LIMITS) == 50
    assert sender.levels == ["STUDY", "SERIES", "IMAGE", "IMAGE"]


def test_series_of_ours_do_not_count() -> None:
    sender = Sender(holding({"1.1": 3, "1.9": 2}, "STUDY", "SERIES"))
    with sender.running() as peer:
        assert count_images(Question(STUDY, without_series=frozenset({"1.9"})), peer, "PACSNODE") == 3
    assert sender.levels == ["SERIES"]


def test_who_knows_no_such_study_or_counts_nothing_gives_no_number() -> None:
    for answer in (holding({}), holding({"1.1": 0}, "STUDY", "SERIES"), lambda _: iter(())):
        with Sender(answer).running() as peer:
            assert count_images(QUESTION, peer, "PACSNODE") is None


@pytest.mark.parametrize("told", ["-3", "2147483647", "0", "+5", "0005"])
def test_a_number_out_of_reason_is_none(told: str) -> None:
    def answer(asked: Dataset) -> Answers:
        if asked.QueryRetrieveLevel == "STUDY":
            yield PENDING, match("STUDY", NumberOfStudyRelatedInstances=told)

    with Sender(answer).running() as peer:
        assert count_images(QUESTION, peer, "PACSNODE") == (5 if told.endswith("5") else None)


def test_an_answer_about_another_study_or_series_is_ignored() -> None:
    def answer(asked: Dataset) -> Answers:
        level = asked.QueryRetrieveLevel
        for study in ("1.2.826.0.78", ""):
            other = {"StudyInstanceUID": study, "SeriesInstanceUID": "1.8", "SOPInstanceUID": "1.8.1"}
            yield PENDING, match(level, **other, NumberOfStudyRelatedInstances=9, NumberOfSeriesRelatedInstances=9)
        if level == "STUDY":
            yield PENDING, match(level)
        else:
            yield PENDING, match(level, SeriesInstanceUID="1.1", SOPInstanceUID="1.1.1")
            yield PENDING, match(level, SeriesInstanceUID="1.1", SOPInstanceUID="1.1.1")
        if level == "IMAGE":
            yield PENDING, match(level, SeriesInstanceUID="1.2", SOPInstanceUID="1.2.1")
            yield PENDING, match(level, SeriesInstanceUID="1.1", SOPInstanceUID="")

    with Sender(answer).running() as peer:
        assert count_images(QUESTION, peer, "PACSNODE") == 1


@pytest.mark.parametrize(
    ("status", "error"), [(0xA700, Transient), (0xA900, Permanent), (0xC001, Permanent), (0x0122, Permanent)]
)
def test_a_refusal_is_a_sentence_with_its_status(status: int, error: type[Exception]) -> None:
    def answer(asked: Dataset) -> Answers:
        yield status, None

    with Sender(answer).running() as peer, pytest.raises(error, match=f"at STUDY level: 0x{status:04X}"):
        count_images(QUESTION, peer, "PACSNODE")


def test_a_peer_without_query_or_port_is_permanent_and_one_that_is_off_transient() -> None:
    with (
        Sender(holding({}), roots=["1.2.840.10008.1.1"]).running() as peer,
        pytest.raises(Permanent, match="answers no queries"),
    ):
        count_images(QUESTION, peer, "PACSNODE")
    with pytest.raises(Permanent, match="it has no port"):
        count_images(QUESTION, Peer(name="ct-1", ae_title="CT1", host="127.0.0.1"), "PACSNODE")
    with pytest.raises(Transient, match="does a DICOM service run there"):
        count_images(QUESTION, Peer(name="ct-1", ae_title="CT1", host="127.0.0.1", port=free_port()), "PACSNODE")
    with pytest.raises(Permanent, match="no UID"):
        count_images(Question("1.2.*"), Peer(name="ct-1", ae_title="CT1", host="127.0.0.1", port=104), "PACSNODE")


@pytest.mark.parametrize(
    ("pause_s", "limits", "told"),
    [(0.0, LIMITS, "more answers than a study has images"), (0.1, QUICK, "did not answer within 1 s")],
)
def test_answers_without_end_are_ended_by_their_number_and_by_the_time_for_all(
    pause_s: float, limits: Limits, told: str
) -> None:
    enough = threading.Event()

    def answer(asked: Dataset) -> Answers:
        while not enough.wait(pause_s):
            yield PENDING, match("STUDY", NumberOfStudyRelatedInstances=3)

    begun_s = time.monotonic()
    with Sender(answer).running() as peer:
        try:
            with pytest.raises(Transient, match=told):
                count_images(QUESTION, peer, "PACSNODE", limits=limits)
            assert time.monotonic() - begun_s < 3
        finally:
            enough.set()


def test_a_peer_with_tls_is_asked_over_tls(tmp_path: Path) -> None:
    authority, other = (Authority.make(tmp_path / name, name) for name in ("clinic", "other"))
    theirs = authority.issue("ct-1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(theirs.certificate, theirs.key)
    with Sender(holding({"1.1": 7}, "STUDY"), tls=context).running() as peer:
        assert count_images(QUESTION, peer, "PACSNODE", Credentials(authorities=authority.own.certificate)) == 7
        with pytest.raises(Permanent, match="is not believed"):
            count_images(QUESTION, peer, "PACSNODE", Credentials(authorities=other.own.certificate))
        with pytest.raises(ConfigError, match="PACSNODE_TLS_CA"):
            count_images(QUESTION, peer, "PACSNODE")


@contextmanager
def liar(*answers: bytes, pause_s: float = 0.0) -> Iterator[Peer]:
    """A listener that accepts the association, then sends these bytes, each after a pause, whatever it is asked."""
    listener = socket.create_server(("127.0.0.1", 0))

    def lie() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            connection.recv(1 << 20)
            accepted = [ContextResult(1, 0, EXPLICIT_VR_LITTLE_ENDIAN), ContextResult(3, 3, IMPLICIT_VR_LITTLE_ENDIAN)]
            connection.sendall(associate.encode_accept(accepted))
            connection.recv(1 << 20)
            for data in answers:
                time.sleep(pause_s)
                connection.sendall(data)
            while connection.recv(1 << 20):
                continue

    thread = threading.Thread(target=lie)
    thread.start()
    try:
        yield Peer(name="ct-1", ae_title="CT1", host="127.0.0.1", port=int(listener.getsockname()[1]))
    finally:
        thread.join()
        listener.close()


def response(status: int = PENDING, message_id: int = 1, *, has_data_set: bool = True) -> bytes:
    """A C-FIND-RSP; its data set is said to follow."""
    request = commands.parse(commands.find_request(message_id, STUDY_ROOT))
    command = commands.response(request, Status(status))
    if has_data_set:
        command = command.replace(b"\0\0\0\x08\x02\0\0\0\x01\x01", b"\0\0\0\x08\x02\0\0\0\x01\0")
    return pdus.command_pdus(1, command, 0)


def data(content: bytes) -> bytes:
    return pdus.P_DATA_HEADER.pack(pdus.P_DATA_TF, len(content) + 6, len(content) + 2, 1, pdus.LAST) + content


NUMBERED = encode_identifier({STUDY_INSTANCE_UID: STUDY, STUDY_RELATED_INSTANCES: "12"}, EXPLICIT_VR_LITTLE_ENDIAN)
END = response(0, has_data_set=False) + pdus.RELEASE_RP_PDU


def test_the_bytes_of_an_answer_are_read_as_pynetdicom_writes_them() -> None:
    with liar(response() + data(NUMBERED) + END) as peer:
        assert count_images(QUESTION, peer, "PACSNODE", limits=LIMITS) == 12
    with liar(response(0xFF01) + data(NUMBERED) + response(0) + data(b"") + pdus.RELEASE_RP_PDU) as peer:
        assert count_images(QUESTION, peer, "PACSNODE", limits=LIMITS) == 12
    with liar(response(has_data_set=False) + END) as peer:
        assert count_images(QUESTION, peer, "PACSNODE", limits=LIMITS) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        pdus.command_pdus(1, b"rubbish!", 0),
        response() + data(b"\x20\0\x0d\0"),
        response() + data(b"rubbish, rubbish, rubbish"),
        response() + data(NUMBERED[:-3]),
        response() + response(),
        response(message_id=2) + data(NUMBERED),
        pdus.command_pdus(1, commands.find_request(1, STUDY_ROOT), 0),
        response() + b"".join(data(bytes(60_000))[:11] + b"\0" + bytes(60_000) for _ in range(3)),
        pdus.abort_pdu(0, 0),
        pdus.RELEASE_RQ_PDU,
        b"",
    ],
)
def test_what_is_no_answer_is_transient(answer: bytes) -> None:
    with liar(answer) as peer, pytest.raises(Transient):
        count_images(QUESTION, peer, "PACSNODE", limits=QUICK)


def test_an_answer_that_drips_is_ended_after_the_time_for_all_of_it() -> None:
    drops = [
        pdus.P_DATA_HEADER.pack(pdus.P_DATA_TF, 7, 3, 1, pdus.COMMAND) + response()[12:][at : at + 1]
        for at in range(40)
    ]
    begun_s = time.monotonic()
    with liar(*drops, pause_s=0.1) as peer:
        with pytest.raises(Transient, match="did not answer within 1 s"):
            count_images(QUESTION, peer, "PACSNODE", limits=QUICK)
        assert time.monotonic() - begun_s < 3


@given(st.binary(max_size=60), st.integers(0, len(NUMBERED)))
def test_a_damaged_answer_is_a_number_within_reason_or_transient(damage: bytes, at: int) -> None:
    answer = NUMBERED[:at] + damage + NUMBERED[at + len(damage) :]
    answer += b"\0" * (len(answer) & 1)
    with liar(response() + data(answer) + END) as peer:
        try:
            told = count_images(QUESTION, peer, "PACSNODE", limits=LIMITS)
        except Transient:
            return
        assert told is None or 0 < told <= 1_000_000


@contextmanager
def dcmqrscp(folder: Path) -> Iterator[Peer]:
    """DCMTK's query and retrieve archive, which tells no numbers."""
    program, port = dcmtk("dcmqrscp"), free_port()
    (folder / "held").mkdir()
    table = "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
    held = f"AETable BEGIN\nCT1 {folder / 'held'} RW (200, 1024mb) ANY\nAETable END\n"
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n{table}{held}")
    command = (program, "-c", str(configuration))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            await_listener(port)
            yield Peer(name="ct-1", ae_title="CT1", host="127.0.0.1", port=port)
        finally:
            process.kill()


def test_dcmqrscp_tells_no_numbers_and_its_images_are_counted(tmp_path: Path) -> None:
    files = [sample("CT_small.dcm"), sample("MR_small.dcm")]
    study = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
    with dcmqrscp(tmp_path) as peer:
        assert count_images(Question(study), peer, "PACSNODE") is None
        sent = run_tool(dcmtk("storescu"), "-R", "-aec", "CT1", "127.0.0.1", str(peer.port), *map(str, files))
        assert sent.returncode == 0, sent.stderr
        assert count_images(Question(study), peer, "PACSNODE") == 1
