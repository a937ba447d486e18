"""`pacsnode peers test` and `peers show` against real peers: what they say, what is remembered, what fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from pacsnode import schema
from pacsnode.settings import load
from tests.deliver.servers import orthanc
from tests.deliver.test_senders import free_port, received, storescp


class Home:
    """A node's home with a rules file of some peers."""

    def __init__(self, folder: Path, **peers: str) -> None:
        self.settings = load(home=folder / "home", rules=folder / "rules.yaml")
        schema.migrate(self.settings)
        lines = "".join(f"  {name.replace('_', '-')}: {{{values}}}\n" for name, values in peers.items())
        self.settings.rules.write_text(f"version: 1\npeers:\n{lines}rules: []\nunmatched: keep\n")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PACSNODE_HOME": str(self.settings.home),
            "PACSNODE_RULES": str(self.settings.rules),
        }
        return subprocess.run(
            [sys.executable, "-m", "pacsnode", "peers", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


def test_a_dicom_peer_is_asked_what_it_takes_and_the_answer_is_shown_later(tmp_path: Path) -> None:
    port = free_port()
    home = Home(tmp_path, pacs=f"ae_title: PACS, host: 127.0.0.1, port: {port}")
    before = home.run("show", "pacs")
    assert "nothing is known yet" in before.stdout, before.stderr
    with storescp(tmp_path / "pacs", port, "+xi") as folder:
        tested = home.run("test", "pacs", "--send")
        assert tested.returncode == 0, tested.stderr
        (held,) = received(folder)
    assert "pacs answers C-ECHO with 0x0000" in tested.stdout
    assert "takes    Comprehensive 3D SR Storage: Implicit VR Little Endian" in tested.stdout
    assert f"test object {held.SOPInstanceUID}: taken" in tested.stdout
    assert "cannot be asked by C-FIND" in tested.stdout  # storescp keeps no index
    assert (held.PatientName, held.PatientID) == ("TEST^PACSNODE", "PACSNODE-TEST")
    shown = home.run("show", "pacs")
    assert "ae_title: PACS" in shown.stdout
    assert "takes    CT Image Storage: Implicit VR Little Endian" in shown.stdout
    facts = json.loads(home.run("show", "pacs", "--json").stdout)
    reasons = {fact["reason"] for fact in facts}
    assert reasons == {"", "the transfer syntax is not supported", "the SOP class is not supported"}


def test_without_send_nothing_is_sent(tmp_path: Path) -> None:
    port = free_port()
    home = Home(tmp_path, pacs=f"ae_title: PACS, host: 127.0.0.1, port: {port}")
    with storescp(tmp_path / "pacs", port) as folder:
        assert home.run("test", "pacs").returncode == 0
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ("ae_title: PACS, host: 127.0.0.1, port: 9", "no connection to 127.0.0.1:9"),
        ("ae_title: PACS, host: 127.0.0.1", "it has no port"),
        ("type: folder, folder: /absent/share", "is the share mounted?"),
        ('type: dicomweb, url: "http://127.0.0.1:9/web"', "no exchange with 127.0.0.1"),
        ('type: orthanc, url: "http://127.0.0.1:9"', "no exchange with 127.0.0.1"),
    ],
)
def test_a_destination_that_is_not_there_says_why_and_exits_with_1(tmp_path: Path, values: str, told: str) -> None:
    ended = Home(tmp_path, there=values).run("test", "there")
    assert ended.returncode == 1
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_peer_that_is_not_in_the_file_is_a_mistake(tmp_path: Path) -> None:
    ended = Home(tmp_path, pacs="ae_title: PACS, host: 127.0.0.1").run("test", "pcas")
    assert ended.returncode == 2
    assert "there are pacs" in ended.stderr


def test_folder_orthanc_and_dicomweb_take_and_prove_the_test_object(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "password").write_text("secret")
    with orthanc(tmp_path / "orthanc") as server:
        secret = f"user: node, secret_file: {tmp_path / 'password'}"
        home = Home(
            tmp_path,
            share=f"type: folder, folder: {tmp_path / 'share'}",
            rest=f'type: orthanc, url: "{server.url}", {secret}',
            web=f'type: dicomweb, url: "{server.url}/dicom-web", {secret}',
        )
        for name, told in (("share", "may be written"), ("rest", "is Orthanc 1."), ("web", "answers QIDO-RS")):
            ended = home.run("test", name, "--send")
            assert ended.returncode == 0, ended.stderr
            assert told in ended.stdout
            assert "held by the destination" in ended.stdout
        assert len(server.files()) == 2
    (path,) = (tmp_path / "share").rglob("*.dcm")
    assert pydicom.dcmread(path).PatientID == "PACSNODE-TEST"
