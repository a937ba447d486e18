"""What a site gets wrong ends in a sentence that says what to do, with exit code 2, never in a traceback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness import LOOPBACK, ROOT, Node, free_port, write_rules


@pytest.fixture
def node(tmp_path: Path) -> Node:
    rules = write_rules(tmp_path / "rules.yaml", sender_port=free_port(), pacs_port=free_port())
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models", models)
    return Node(tmp_path / "home", rules, models=models)


def refused(node: Node, *arguments: str) -> str:
    """What a command says that must not run."""
    answer = node.run(*arguments, check=False)
    assert answer.returncode == 2, answer
    assert "Traceback" not in answer.stderr
    return answer.stderr


def test_wrong_yaml_is_told_with_file_line_column_and_what_was_expected(node: Node) -> None:
    text = node.rules.read_text()
    node.rules.write_text(text.replace("send_to: [sender, main-pacs]", "send_to: [sender, main-pac]", 1))
    told = refused(node, "serve")
    assert f"{node.rules}:12:" in told
    assert "there is no peer main-pac" in told
    assert "did you mean main-pacs" in told


def test_a_sender_without_a_port_is_told_before_the_first_study(node: Node) -> None:
    text = node.rules.read_text()
    node.rules.write_text(
        text.replace(text[text.index(" port:", text.index("xray-1")) : text.index(" may: [store]")], "")
    )
    told = refused(node, "rules", "check")
    assert "xray-1" in told
    assert "reply_to" in told


def test_missing_weights_are_told(node: Node) -> None:
    (node.models / "chest-xray" / "models" / "model.pt").unlink()
    assert "copy the weights there" in refused(node, "serve")


def test_weights_of_another_hash_are_refused(node: Node) -> None:
    with (node.models / "chest-xray" / "models" / "model.pt").open("ab") as file:
        file.write(b"x")
    assert "restore the weights that belong to this service" in refused(node, "serve")


def test_a_home_that_cannot_be_written_is_told(node: Node) -> None:
    node.home.write_text("a file, not a folder")
    assert "set PACSNODE_HOME to a folder that this user may write" in refused(node, "serve")


def test_a_taken_port_ends_serve(node: Node) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, node.port))
        taken.listen(1)
        answer = node.run("serve", check=False)
    assert answer.returncode == 2
    assert "taken by another program" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_without_the_ai_extra_serve_says_what_to_install(node: Node, tmp_path: Path) -> None:
    # A finder that knows no torch and no monai: as in an environment where the extra was not installed.
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import importlib.machinery as machinery\n"
        "found = machinery.PathFinder.find_spec\n"
        "def find_spec(name, path=None, target=None):\n"
        "    return None if name.split('.')[0] in ('torch', 'monai') else found(name, path, target)\n"
        "machinery.PathFinder.find_spec = find_spec\n"
    )
    answer = subprocess.run(
        [sys.executable, "-m", "pacsnode", "serve"],
        env=node.environment | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "pip install 'pacsnode[ai]'" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_below_the_free_space_mark_images_are_refused_and_doctor_says_so(node: Node) -> None:
    node.extra["PACSNODE_MINIMUM_FREE_MB"] = str(10**9)
    node.run("migrate")
    assert "free space on this disk" in node.run("doctor", check=False).stdout
    node.start("scp")
    try:
        ecg = Path(shutil.which("true") or "/bin/true")
        told = node.run("send", str(ecg), "--to", f"{LOOPBACK}:{node.port}:PACSNODE", check=False)
        assert "not a DICOM Part 10 file" in told.stderr
        from harness import electrocardiogram

        target = f"{LOOPBACK}:{node.port}:PACSNODE"
        told = node.run("send", str(electrocardiogram()), "--to", target, "--from", "XR1", check=False)
        assert told.returncode == 1
        assert "0xA700" in told.stderr
    finally:
        node.stop()


def test_a_newer_database_is_refused_with_exit_code_three(node: Node) -> None:
    import sqlite3

    node.run("migrate")
    connection = sqlite3.connect(node.home / "node.db")
    connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('node', 'node_9999', '')"
    )
    connection.commit()
    connection.close()
    answer = node.run("scp", check=False)
    assert answer.returncode == 3
    assert "newer than this program" in answer.stderr


def test_rubbish_from_the_wire_is_kept_aside_and_listed_with_its_reason(node: Node, tmp_path: Path) -> None:
    from harness import electrocardiogram

    node.run("migrate")
    node.start("scp")
    try:
        whole = electrocardiogram().read_bytes()
        torn = tmp_path / "torn.dcm"
        torn.write_bytes(whole[: len(whole) * 2 // 3])
        told = node.run("send", str(torn), "--to", f"{LOOPBACK}:{node.port}:PACSNODE", "--from", "XR1", check=False)
        assert told.returncode == 1
        assert "0xC000" in told.stderr
        listed = node.run("studies", "aside").stdout
        assert "C000" in listed
        assert ".dcm" in listed
        assert "pacsnode studies aside" in node.run("doctor", check=False).stdout
    finally:
        node.stop()


def test_help_explains_every_setting(node: Node) -> None:
    from pacsnode.settings import Settings

    told = node.run("--help").stdout
    assert all(f"PACSNODE_{name.upper()}" in told for name in Settings.model_fields)
