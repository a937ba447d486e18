"""Delivery into a real Orthanc: by its REST interface and by STOW-RS, the same bytes, proven by Orthanc itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deliver.owing import image, site
from tests.deliver.servers import Answer, Orthanc, Scripted, orthanc


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> object:
    with orthanc(tmp_path_factory.mktemp("orthanc") / "storage") as made:
        yield made


def secret(folder: Path, text: str = "secret\n") -> str:
    path = folder / "password"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(("kind", "root", "first"), [("orthanc", "", 0), ("dicomweb", "/dicom-web", 100)])
def test_every_byte_arrives_and_the_proof_is_orthancs_own(
    server: Orthanc, tmp_path: Path, kind: str, root: str, first: int
) -> None:
    with site(tmp_path, type=kind, url=server.url + root, user="node", secret_file=secret(tmp_path)) as owing:
        uids = owing.owe(*[image(tmp_path / f"{n}.dcm", first + n) for n in range(5)])
        assert owing.proof() == dict.fromkeys(uids, owing.proof()[uids[0]])
        assert owing.proof()[uids[0]] != ""
        rows = owing.deliver()
        assert [(row.state, row.reason) for row in rows] == [("sent", "")] * 5
        held = server.files()
        assert [held[uid] == owing.files[uid].read_bytes() for uid in uids] == [True] * 5
        assert owing.proof() == dict.fromkeys(uids, "")


def test_other_bytes_under_the_same_uid_are_no_proof(server: Orthanc, tmp_path: Path) -> None:
    with site(tmp_path, type="orthanc", url=server.url, user="node", secret_file=secret(tmp_path)) as owing:
        (uid,) = owing.owe(image(tmp_path / "1.dcm", 50))
        assert owing.deliver()[0].state == "sent"
        image(tmp_path / "1.dcm", 50, PatientID="another")
        assert owing.proof() == {uid: "Orthanc holds other bytes under this UID"}


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("orthanc", "wrong", "does not let us in (HTTP 401"),
        ("dicomweb", "wrong", "does not let us in (HTTP 401"),
        ("orthanc", "", "is empty"),
    ],
)
def test_a_wrong_or_empty_secret_leaves_it_owed_with_its_reason(
    server: Orthanc, tmp_path: Path, kind: str, text: str, told: str
) -> None:
    with site(tmp_path, type=kind, url=server.url, user="node", secret_file=secret(tmp_path, text)) as owing:
        owing.owe(image(tmp_path / "1.dcm"))
        (row,) = owing.deliver()
        assert (row.state, row.attempts) == ("owed", 0)
        assert told in row.reason
        assert text not in row.reason or not text


def test_what_is_no_dicom_is_parked_with_orthancs_answer(server: Orthanc, tmp_path: Path) -> None:
    with site(tmp_path, type="orthanc", url=server.url, user="node", secret_file=secret(tmp_path)) as owing:
        good, bad = owing.owe(image(tmp_path / "1.dcm", 60), image(tmp_path / "2.dcm", 61))
        path = owing.files[bad]
        path.write_bytes(path.read_bytes()[:400])
        states = {row.sop_instance_uid: row.state for row in owing.deliver()}
        assert states == {good: "sent", bad: "parked"}


def test_a_server_that_is_down_postpones_what_is_left(tmp_path: Path) -> None:
    count = 0

    def say(_: object) -> Answer:
        nonlocal count
        count += 1
        return Answer(200, {"Status": "Success"}) if count == 1 else Answer(503)

    with (
        Scripted(say).running() as server,
        site(tmp_path, type="orthanc", url=server.url, user="node", secret_file=secret(tmp_path)) as owing,
    ):
        owing.owe(*[image(tmp_path / f"{n}.dcm", n) for n in range(3)])
        assert [row.state for row in owing.deliver()] == ["sent", "owed", "owed"]
        assert "HTTP 503" in owing.rows()[-1].reason
        assert len(server.got) == 2
