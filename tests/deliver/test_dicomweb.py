"""STOW-RS to a server whose answers are scripted: what each status means for each instance, and who is let near."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest

from pacsnode.dimse.tls import Credentials
from pacsnode.errors import Permanent, Transient
from tests.deliver.owing import Site, image, site
from tests.deliver.servers import Answer, Request, Scripted
from tests.receive.certificates import Authority


def uids_of(request: Request) -> list[str]:
    return [str(pydicom.dcmread(pydicom.filebase.DicomBytesIO(part)).SOPInstanceUID) for part in request.parts]


def response(taken: Sequence[str] = (), failed: Sequence[tuple[str, int]] = ()) -> dict[str, Any]:
    """The Store Instances Response Module as JSON."""

    def item(uid: str, **more: int) -> dict[str, Any]:
        return {
            "00081150": {"vr": "UI", "Value": [pydicom.uid.CTImageStorage]},
            "00081155": {"vr": "UI", "Value": [uid]},
            **{tag.removeprefix("t"): {"vr": "US", "Value": [value]} for tag, value in more.items()},
        }

    made: dict[str, Any] = {}
    if taken:
        made["00081199"] = {"vr": "SQ", "Value": [item(uid) for uid in taken]}
    if failed:
        made["00081198"] = {"vr": "SQ", "Value": [item(uid, t00081197=reason) for uid, reason in failed]}
    return made


def take_all(request: Request) -> Answer:
    return Answer(200, response(uids_of(request)))


def files(folder: Path, count: int, **values: object) -> list[Path]:
    return [image(folder / f"{n}.dcm", n, **values) for n in range(count)]  # type: ignore[arg-type]


def states(owing: Site) -> list[tuple[str, int | None]]:
    return [(row.state, row.status) for row in owing.rows()]


def test_the_parts_are_the_files_bit_for_bit_in_one_request(tmp_path: Path) -> None:
    with Scripted(take_all).running() as server, site(tmp_path, type="dicomweb", url=server.url + "/") as owing:
        owing.owe(*files(tmp_path, 7))
        owing.deliver()
        assert states(owing) == [("sent", 0)] * 7
        (request,) = server.got
        assert (request.method, request.path) == ("POST", "/studies")
        assert request.parts == [path.read_bytes() for path in owing.files.values()]
        assert "transfer-encoding" not in request.headers
        assert request.headers["accept"] == "application/dicom+json"


def test_202_ends_each_instance_by_what_is_said_of_it(tmp_path: Path) -> None:
    def say(request: Request) -> Answer:
        one, two, three, _ = uids_of(request)
        return Answer(202, response([one], [(two, 0x0110), (three, 0xA700)]))

    with Scripted(say).running() as server, site(tmp_path, type="dicomweb", url=server.url) as owing:
        owing.owe(*files(tmp_path, 4))
        owing.deliver()
        assert states(owing) == [("sent", 0), ("refused", 0x0110), ("owed", None), ("owed", None)]
        reasons = [row.reason for row in owing.rows()]
        assert "0x0110" in reasons[1]
        assert "out of resources" in reasons[2]
        assert "does not say" in reasons[3]


def test_409_refuses_each_with_its_reason(tmp_path: Path) -> None:
    def say(request: Request) -> Answer:
        return Answer(409, response(failed=[(uid, 0x0122) for uid in uids_of(request)]))

    with Scripted(say).running() as server, site(tmp_path, type="dicomweb", url=server.url) as owing:
        owing.owe(*files(tmp_path, 2))
        owing.deliver()
        assert states(owing) == [("refused", 0x0122)] * 2
        assert len(server.got) == 1


@pytest.mark.parametrize("body", [None, b"<html>", {}, [], {"00081198": 7}, {"00081198": {"Value": ["x", None]}}])
def test_409_with_an_answer_that_nobody_can_read_parks_all(tmp_path: Path, body: Any) -> None:
    server = Scripted(lambda request: Answer(409, body))
    with server.running(), site(tmp_path, type="dicomweb", url=server.url) as owing:
        owing.owe(*files(tmp_path, 2))
        owing.deliver()
        assert states(owing) == [("parked", None)] * 2


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(401), "does not let us in"),
        (Answer(403), "does not let us in"),
        (Answer(404), "look at `url:`"),
        (Answer(301, headers={"Location": "http://127.0.0.1:1/"}), "the peer redirects"),
        (Answer(429), "cannot take it now"),
        (Answer(500), "cannot take it now (HTTP 500"),
        (Answer(503), "cannot take it now (HTTP 503"),
        (Answer(200, b"x" * (9 << 20)), "longer than 8 MB"),
        (Answer(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}), "compressed"),
    ],
)
def test_what_concerns_the_whole_destination_is_no_attempt_of_an_instance(
    tmp_path: Path, answer: Answer, told: str
) -> None:
    server = Scripted(lambda request: answer)
    with server.running(), site(tmp_path, type="dicomweb", url=server.url) as owing:
        owing.owe(*files(tmp_path, 2))
        owing.deliver()
        assert [(row.state, row.attempts) for row in owing.rows()] == [("owed", 0)] * 2
        assert told in owing.rows()[0].reason
        assert len(server.got) == 1


def test_a_request_that_is_too_large_is_sent_one_by_one_and_the_too_large_object_parked(tmp_path: Path) -> None:
    def say(request: Request) -> Answer:
        return Answer(413) if len(request.body) > 10_000 else take_all(request)

    with Scripted(say).running() as server, site(tmp_path, type="dicomweb", url=server.url) as owing:
        owing.owe(*files(tmp_path, 5), image(tmp_path / "large.dcm", 9, rows=400))
        owing.deliver()
        assert states(owing) == [("sent", 0)] * 5 + [("parked", None)]
        assert "larger than the peer takes" in owing.rows()[-1].reason


def test_a_transfer_syntax_that_the_peer_does_not_take_is_decompressed_for_it(tmp_path: Path) -> None:
    def say(request: Request) -> Answer:
        given = [pydicom.dcmread(pydicom.filebase.DicomBytesIO(part)) for part in request.parts]
        bad = [str(d.SOPInstanceUID) for d in given if d.file_meta.TransferSyntaxUID.is_compressed]
        good = [str(d.SOPInstanceUID) for d in given if not d.file_meta.TransferSyntaxUID.is_compressed]
        return Answer(202 if good else 409, response(good, [(uid, 0xC122) for uid in bad]))

    plain = image(tmp_path / "plain.dcm", 1)
    packed = pydicom.dcmread(image(tmp_path / "packed.dcm", 2))
    packed.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    packed.save_as(tmp_path / "packed.dcm")
    with Scripted(say).running() as server, site(tmp_path, type="dicomweb", url=server.url) as owing:
        uids = owing.owe(plain, tmp_path / "packed.dcm")
        owing.deliver()
        assert states(owing) == [("sent", 0)] * 2
        again = pydicom.dcmread(pydicom.filebase.DicomBytesIO(server.got[-1].parts[0]))
        assert str(again.SOPInstanceUID) == uids[1]
        assert (again.pixel_array == packed.pixel_array).all()


def test_a_query_is_the_proof_also_where_lists_of_uids_are_not_known(tmp_path: Path) -> None:
    def say(request: Request) -> Answer:
        asked = request.path.partition("SOPInstanceUID=")[2].split("&")[0].split("%2C")
        if len(asked) > 1 or asked[0].endswith(".2"):
            return Answer(204)
        return Answer(200, [{"00080018": {"vr": "UI", "Value": asked}}])

    with Scripted(say).running() as server, site(tmp_path, type="dicomweb", url=server.url) as owing:
        uids = owing.owe(*files(tmp_path, 4))
        assert owing.proof() == {uid: "the peer does not list it" if n == 2 else "" for n, uid in enumerate(uids)}


def test_a_server_that_is_not_there_postpones_and_proves_nothing(tmp_path: Path) -> None:
    with site(tmp_path, type="dicomweb", url="http://127.0.0.1:9") as owing:
        owing.owe(*files(tmp_path, 1))
        owing.deliver()
        assert owing.rows()[0].state == "owed"
        with pytest.raises(Transient, match="no exchange with"):
            owing.proof()


def test_a_client_gets_a_token_with_its_secret_and_shows_it(tmp_path: Path) -> None:
    def say(request: Request) -> Answer:
        if request.path == "/token":
            return Answer(200, {"access_token": "abc123", "token_type": "Bearer", "expires_in": 60})
        return take_all(request) if request.headers.get("authorization") == "Bearer abc123" else Answer(401)

    (tmp_path / "secret").write_text("p:ss\n")
    server = Scripted(say)
    with server.running():
        values = {"client_id": "node", "secret_file": str(tmp_path / "secret"), "token_url": server.url + "/token"}
        with site(tmp_path, type="dicomweb", url=server.url + "/web", scope="dicom.write", **values) as owing:
            owing.owe(*files(tmp_path, 2))
            owing.deliver()
            assert states(owing) == [("sent", 0)] * 2
    token, stow = server.got
    assert token.headers["authorization"] == "Basic " + base64.b64encode(b"node:p:ss").decode()
    assert token.body == b"grant_type=client_credentials&scope=dicom.write"
    assert (stow.path, stow.headers["authorization"]) == ("/web/studies", "Bearer abc123")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(401, {"error": "invalid_client"}), "gives no token"),
        (Answer(200, {"access_token": 7}), "gives no token"),
        (Answer(200, b"hello"), "gives no token"),
        (Answer(503), "cannot answer now"),
        (Answer(302, headers={"Location": "/other"}), "gives no token"),
    ],
)
def test_a_token_server_that_gives_none_postpones(tmp_path: Path, answer: Answer, told: str) -> None:
    (tmp_path / "secret").write_text("s3cr3t")
    server = Scripted(lambda request: answer)
    with server.running():
        values = {"client_id": "node", "secret_file": str(tmp_path / "secret"), "token_url": server.url}
        with site(tmp_path, type="dicomweb", url=server.url, **values) as owing:
            owing.owe(*files(tmp_path, 1))
            owing.deliver()
            assert told in owing.rows()[0].reason
            assert "s3cr3t" not in owing.rows()[0].reason
    assert len(server.got) == 1


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"), "clinic")


def secured(authority: Authority, host: str = "IP:127.0.0.1", name: str = "server") -> ssl.SSLContext:
    pair = authority.issue(name, host=host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(authority.own.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_tls_is_mutual_with_the_nodes_own_certificate(tmp_path: Path, authority: Authority) -> None:
    pair = authority.issue("node")
    with (
        Scripted(take_all).running(secured(authority)) as server,
        site(tmp_path, type="dicomweb", url=server.url) as it,
    ):
        it.credentials = Credentials(pair.certificate, pair.key, authority.own.certificate)
        it.owe(*files(tmp_path, 1))
        it.deliver()
        assert states(it) == [("sent", 0)]


@pytest.mark.parametrize(("host", "own"), [("DNS:elsewhere.example", True), ("IP:127.0.0.1", False)])
def test_a_server_that_is_another_or_of_an_unknown_authority_gets_nothing(
    tmp_path: Path, authority: Authority, host: str, own: bool
) -> None:
    pair = authority.issue("node")
    context = secured(authority, host, f"server{own}")
    with Scripted(take_all).running(context) as server, site(tmp_path, type="dicomweb", url=server.url) as it:
        it.credentials = Credentials(pair.certificate, pair.key, authority.own.certificate if own else None)
        it.owe(*files(tmp_path, 1))
        it.deliver()
        assert "is not believed" in it.rows()[0].reason
        with pytest.raises(Permanent, match="is not believed"):
            it.proof()
        assert server.got == []
