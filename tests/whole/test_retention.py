"""Retention and the reserve on a whole node: a real archive confirms, a real disk runs full, a removal is killed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from harness import LOOPBACK, ROOT, STORESCU, Node, Pacs, electrocardiogram, free_port, wait_until
from sending import variant

from tests.deliver.archives import ArchivePeer

RULES = """
version: 1
peers:
  xray-1: {{ae_title: XR1, host: 127.0.0.1, port: {pacs}, may: [store], issuer: CLINIC, investigational: true}}
  main-pacs: {{ae_title: ARCHIVE, host: 127.0.0.1, port: {archive}}}
rules: {rules}
unmatched: keep
"""
ECG_RULE = """
  - name: ecg
    when: {Modality: ECG}
    complete: {quiet: 2s}
    run: ecg-arrhythmia
    results: [sr, sc]
    send_to: [sender]
"""
AT_ONCE = {"PACSNODE_RETENTION_KEEP_DAYS": "0.000000001", "PACSNODE_RETENTION_ARCHIVE": "main-pacs"}
PACSNODE = [sys.executable, "-m", "pacsnode"]
MARGIN_MB = 2048
"""So far from the watermark, to both sides, that what others write meanwhile does not matter."""

KILLED_AT_THE_SECOND_FILE = """
import os, signal, sys
left = [2]
def watch(event, arguments):
    if event == "os.remove" and str(arguments[0]).endswith(".dcm"):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
"""


def node_for(folder: Path, archive_port: int, *, rules: str = "[]", pacs_port: int = 0) -> Node:
    """A node without services."""
    (folder / "models").mkdir(exist_ok=True)
    file = folder / "rules.yaml"
    file.write_text(RULES.format(pacs=pacs_port or free_port(), archive=archive_port, rules=rules))
    return Node(folder / "home", file, models=folder / "models")


@contextmanager
def holding(folder: Path, archive: ArchivePeer, images: list[Path]) -> Iterator[Node]:
    """A running node without retention that holds `images`; commands, and later starts, have it."""
    with node_for(folder, archive.port) as node:
        node.send(images)
        node.extra |= AT_ONCE
        wait_until(lambda: stays(node) == {"unconfirmed": len(images)}, 60, 0.3)
        yield node


def study(folder: Path, name: str, count: int = 3) -> list[Path]:
    """Small images of one study."""
    uid = str(variant(electrocardiogram(), folder / name / "0.dcm", f"retention {name}").StudyInstanceUID)
    for number in range(1, count):
        made = folder / name / f"{number}.dcm"
        variant(electrocardiogram(), made, f"retention {name} {number}", StudyInstanceUID=uid)
    return sorted((folder / name).iterdir())


def uids(paths: list[Path]) -> set[str]:
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}


def shown(node: Node) -> dict[str, Any]:
    """`pacsnode retention --json`."""
    told: dict[str, Any] = json.loads(node.run("retention", "--json").stdout)
    return told


def stays(node: Node) -> dict[str, int]:
    """Instances by reason."""
    return {one["reason"]: one["instances"] for one in shown(node)["stays"]}


def index(node: Node, sql: str) -> set[str]:
    with closing(sqlite3.connect(node.home / "index.db")) as connection:
        return {str(value) for (value,) in connection.execute(sql)}


def files(node: Node) -> int:
    return sum(path.is_file() for path in (node.home / "files").rglob("*"))


def test_confirmed_images_go_tombstones_stay_and_the_rest_stays(tmp_path: Path) -> None:
    gone, stay = study(tmp_path, "gone"), study(tmp_path, "stay")
    peer = ArchivePeer(has=uids(gone) | uids(stay[:2]), how="later")
    with peer.running() as archive, holding(tmp_path, archive, [*gone, *stay]) as node:
        archive.calls = LOOPBACK, node.port, "PACSNODE"
        assert "asked about 6 images, removed 0" in node.run("retention", "run").stdout
        archive.wait()  # it has called us, on an association of its own
        assert archive.told == [0]
        assert stays(node) == {"lacking": 3}
        assert shown(node)["may_go"]["instances"] == 3
        assert "asked about 0 images, removed 3" in node.run("retention", "run").stdout
        assert index(node, "SELECT sop_instance_uid FROM instances") == uids(stay)
        assert index(node, "SELECT sop_instance_uid FROM tombstones") == uids(gone)
        assert files(node) == 3
        assert "removed    3 images so far; 0 files to unlink" in node.run("retention").stdout
        assert "says that it does not have all of 1 studies" in node.run("doctor", check=False).stdout
        node.send(gone)  # they come again: new images, asked about anew
        wait_until(lambda: stays(node) == {"lacking": 3, "unconfirmed": 3}, 60, 0.3)
        assert files(node) == 6


def test_a_removal_that_is_killed_is_ended_by_the_next_start(tmp_path: Path) -> None:
    images = study(tmp_path, "images", 5)
    with ArchivePeer().running() as archive:
        with holding(tmp_path, archive, images) as node:
            site = tmp_path / "site"
            site.mkdir()
            (site / "sitecustomize.py").write_text(KILLED_AT_THE_SECOND_FILE)
            path = {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
            killed = subprocess.run([*PACSNODE, "retention", "run"], env=node.environment | path, check=False)
            assert killed.returncode == -9
            assert (index(node, "SELECT count(*) FROM unlinking"), files(node)) == ({"5"}, 4)
            assert index(node, "SELECT sop_instance_uid FROM instances") == set()
            node.kill()
        with node:
            wait_until(lambda: files(node) == 0 and index(node, "SELECT path FROM unlinking") == set())
        assert index(node, "SELECT sop_instance_uid FROM tombstones") == uids(images)
        assert index(node, "SELECT sop_instance_uid FROM instances") == set()


def test_a_full_disk_with_nothing_to_free_is_an_alarm_and_removes_nothing(tmp_path: Path) -> None:
    images = study(tmp_path, "images")
    with ArchivePeer(has=set()).running() as archive:
        with holding(tmp_path, archive, images) as node:
            pass
        node.extra["PACSNODE_MINIMUM_FREE_MB"] = str(10**9)
        with node:
            wait_until(lambda: "nothing may go: free space by hand" in node.log())
        answer = node.run("doctor", check=False).stdout
        assert "the disk is nearly full, and nothing may go: 1 studies: the archive says" in answer
        answered = node.run("retention", "run", check=False)
        assert answered.returncode == 1
        assert "nothing more may go: 1 studies: the archive says that it does not have all of it" in answered.stderr
        node.extra |= {"PACSNODE_RETENTION_KEEP_DAYS": "0"}
        assert "nothing may go: retention is off" in node.run("doctor", check=False).stdout
        assert "retention is off" in node.run("retention", "run", check=False).stderr
        assert files(node) == 3
        assert index(node, "SELECT sop_instance_uid FROM instances") == uids(images)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"PACSNODE_RETENTION_ARCHIVE": "nobody"}, "has no peer nobody"),
        ({"PACSNODE_RETENTION_ARCHIVE": ""}, "needed for PACSNODE_RETENTION_KEEP_DAYS"),
    ],
)
def test_retention_without_an_archive_stops_the_start(tmp_path: Path, extra: dict[str, str], says: str) -> None:
    node = node_for(tmp_path, free_port())
    node.extra |= AT_ONCE | extra
    answer = node.run("serve", check=False)
    assert answer.returncode == 2
    assert says in answer.stderr
    node.rules.write_text(node.rules.read_text().replace("ARCHIVE, host: 127.0.0.1", "ARCHIVE, host: 10.0.0.0/24"))
    node.extra["PACSNODE_RETENTION_ARCHIVE"] = "main-pacs"
    assert "its host 10.0.0.0/24 is a network" in node.run("serve", check=False).stderr


@contextmanager
def filled(folder: Path, megabytes: int) -> Iterator[None]:
    """The disk has so much less room, without a byte being written."""
    path = folder / "filler"
    with path.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, megabytes << 20)
            yield
        finally:
            path.unlink()


def answer_of_storescu(node: Node, path: Path) -> str:
    """What DCMTK says to a modality's operator."""
    command = [STORESCU, "-v", "-R", "-aet", "XR1", "-aec", "PACSNODE", LOOPBACK, str(node.port), str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return said.stdout + said.stderr


def test_below_the_watermark_images_are_refused_results_are_kept_and_it_passes_by_itself(tmp_path: Path) -> None:
    free_mb = shutil.disk_usage(tmp_path).free >> 20
    if free_mb < 4 * MARGIN_MB:
        pytest.skip(f"needs a disk with {4 * MARGIN_MB} MB free to run it full")
    (first,), (second,) = study(tmp_path, "first", 1), study(tmp_path, "second", 1)
    with Pacs(tmp_path / "pacs", ae_title="XR1") as pacs:
        node = node_for(tmp_path, free_port(), rules=ECG_RULE, pacs_port=pacs.port)
        node.models = tmp_path / "ecg"
        shutil.copytree(ROOT / "models" / "ecg-arrhythmia", node.models / "ecg-arrhythmia")
        node.extra["PACSNODE_MINIMUM_FREE_MB"] = str(free_mb - MARGIN_MB)
        with node:
            node.send([first])
            with filled(tmp_path, 2 * MARGIN_MB):
                time.sleep(1)  # the node looks at the disk every half second
                assert "OutOfResources" in answer_of_storescu(node, second)
                assert index(node, "SELECT sop_instance_uid FROM instances WHERE origin = 'received'") == uids([first])
                wait_until(lambda: pacs.modalities() == ["SC", "SR"], 120, 0.3)
                assert "OutOfResources" in answer_of_storescu(node, second)
                assert files(node) == 5  # one image, its SR, SC, PDF and key objects: nothing of what was refused
                assert index(node, "SELECT count(*) FROM aside") == {"0"}
            wait_until(lambda: "(Success)" in answer_of_storescu(node, second), 20, 0.2)
            received = index(node, "SELECT sop_instance_uid FROM instances WHERE origin = 'received'")
            assert received == uids([first, second])
