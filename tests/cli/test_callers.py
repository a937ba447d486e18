"""`pacsnode peers refused` and `pacsnode peers allow`: the whole way from a refused caller to its images in a study."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pacsnode import peers
from pacsnode.archive import quarantine
from tests.archive import homes
from tests.receive.real import Site
from tests.receive.test_site import store

FILE = """\
# who may call
version: 1
peers:
  modality: {ae_title: MODALITY, host: 127.0.0.1, may: [store]}   # the CT
  pacs:
    ae_title: "PACS"
    host: 192.0.2.5   # machine room
    may:
      - query   # and nothing else

# rules of the department
rules: []
unmatched: keep
"""
NEW = ["--ae-title", "UNKNOWN", "--host", "127.0.0.1", "--issuer", "CLINIC"]


def command(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PACSNODE_HOME": str(site.settings.home), "PACSNODE_RULES": str(site.settings.rules)}
    return subprocess.run(
        [sys.executable, "-m", "pacsnode", "peers", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_from_a_refused_caller_to_its_images_in_a_study(tmp_path: Path) -> None:
    with Site(tmp_path, FILE, unknown_callers="quarantine") as site:
        assert store(site, "1.2.1", homes.data_set("1.2.1")) == 0
        site.refused()
        told = command(site, "refused").stdout
        assert "1x  quarantined  UNKNOWN at 127.0.0.1 calling PACSNODE: no peer has AE title" in told
        assert "1 objects are in quarantine" in told
        (row,) = json.loads(command(site, "refused", "--json").stdout)
        assert (row["calling_ae_title"], row["address"], row["count"]) == ("UNKNOWN", "127.0.0.1", 1)

        shown = command(site, "allow", "new-ct", *NEW)
        assert shown.returncode == 0, shown.stderr
        lines = "  new-ct:\n    ae_title: UNKNOWN\n    host: 127.0.0.1\n    may: [store]\n    issuer: CLINIC\n"
        assert lines in shown.stdout
        assert site.settings.rules.read_text() == FILE
        assert quarantine.count(site.settings.index_db) == 1

        done = command(site, "allow", "new-ct", *NEW, "--write")
        assert done.returncode == 0, done.stderr
        assert "takes it over by itself" in done.stdout
        assert "1 of its objects taken out of quarantine" in done.stdout
        before, after = FILE.split("\n# rules")
        assert site.settings.rules.read_text() == f"{before}\n{lines}\n# rules{after}"
        assert quarantine.count(site.settings.index_db) == 0
        assert "nobody was refused" in command(site, "refused").stdout

        site.live.reload()
        assert store(site, "1.2.2", homes.data_set("1.2.2")) == 0
    found = homes.rows(site.settings, "SELECT sop_instance_uid, peer FROM instances ORDER BY 1")
    assert found == [("1.2.1", "new-ct"), ("1.2.2", "new-ct")]


def test_lines_added_by_hand_need_the_name_alone(tmp_path: Path) -> None:
    with Site(tmp_path, FILE, unknown_callers="quarantine") as site:
        assert store(site, "1.2.1", homes.data_set("1.2.1")) == 0
        rules = site.settings.rules
        rules.write_text(
            FILE.replace("peers:\n", "peers:\n  mine: {ae_title: UNKNOWN, host: 127.0.0.1, may: [store]}\n")
        )
        assert "1 of its objects" in command(site, "allow", "mine").stdout
        again = command(site, "allow", "mine", "--ae-title", "X")
        assert again.returncode == 2
        assert "correct it there" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["new"], "say --ae-title and --host"),
        (["new", "--ae-title", "TOO_LONG_AE_TITLE_", "--host", "192.0.2.1"], "is no AE title"),
        (["new", "--ae-title", "A", "--host", "192.0.2.1/24"], "did you mean 192.0.2.0/24"),
        (["new", "--ae-title", "A", "--host", "192.0.2.1", "--may", "everything"], "may"),
        (["quarantine", "--ae-title", "A", "--host", "192.0.2.1"], "cannot be called"),
        (["twin", "--ae-title", "PACS", "--host", "192.0.2.5"], "nobody could tell them apart"),
    ],
)
def test_a_peer_that_would_be_a_mistake_is_not_written(tmp_path: Path, arguments: list[str], told: str) -> None:
    site = Site(tmp_path, FILE)
    answer = command(site, "allow", *arguments, "--write")
    assert answer.returncode == 2
    assert told in answer.stderr
    assert "Traceback" not in answer.stderr
    assert site.settings.rules.read_text() == FILE
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".peers")] == []


@pytest.mark.parametrize(
    "file",
    [
        FILE,
        FILE.replace("  ", "      "),
        "version: 1\npeers:\n  a: {ae_title: A, host: 192.0.2.1}",
        "peers:\n a:\n  ae_title: A\n  host: 192.0.2.1\n\n\n# end\nversion: 1\n",
        "version: 1\npeers:\n  a:\n    ae_title: A\n    host: 192.0.2.1\n    issuer: ''\n",
        "version: 1\npeers:\n  a: {\n    ae_title: A,\n    host: 192.0.2.1\n  }  # so\n  # last word\n",
        "version: 1\npeers:\n  a:\n    ae_title: A\n    host: 192.0.2.1\n    may: [\n      store,\n    ]\nrules: []\n",
        "version: 1\r\npeers:\r\n  a:\r\n    ae_title: A\r\n    host: 192.0.2.1\r\nrules: []\r\n",
    ],
    ids=["usual", "wide", "no newline", "order", "empty", "flow", "flow list", "windows"],
)
def test_a_peer_is_put_in_and_nothing_else_changes(tmp_path: Path, file: str) -> None:
    site = Site(tmp_path, FILE)
    site.settings.rules.write_bytes(file.encode())
    before = peers.load(site.settings.rules).peers
    answer = command(
        site,
        "allow",
        "room 9: CT",
        "--ae-title",
        "0800",
        "--host",
        "198.51.100.0/24",
        "--write",
        "--may",
        "store, commit",
        "--certificate",
        "CT: 9 흉부",
        "--port",
        "104",
    )
    assert answer.returncode == 0, answer.stderr
    after = peers.load(site.settings.rules).peers
    added = after["room 9: CT"]
    assert dict(after) == {**before, added.name: added}
    assert (added.ae_title, added.may, added.tls, added.certificate) == (
        "0800",
        ("store", "commit"),
        True,
        "CT: 9 흉부",
    )
    written = site.settings.rules.read_bytes().decode().splitlines()
    kept = iter(written)
    assert all(line in kept for line in file.splitlines())  # every line as it was, in its order
    assert len(written) - len(file.splitlines()) in (7, 8)


def test_peers_in_one_line_are_left_to_the_person(tmp_path: Path) -> None:
    flow = "version: 1\npeers: {a: {ae_title: A, host: 192.0.2.1}}\n"
    site = Site(tmp_path, FILE)
    site.settings.rules.write_text(flow)
    answer = command(site, "allow", "new", *NEW, "--write")
    assert answer.returncode == 2
    assert "add the lines by hand" in answer.stderr
    assert site.settings.rules.read_text() == flow
