"""The benchmark of receivers, one tiny round: it ends with a table, and every object is there as it was sent."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def receive(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.receive", *words],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("sender", ["lean", "storescu"])
def test_one_round_ends_with_a_table_and_every_object_is_there_bit_for_bit(sender: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    words = ("--receivers", "pacsnode,storescp", "--sender", sender, "--corpus", "mixed", "--associations", "2")
    ended = receive(*words, "--objects", "4", "--rounds", "1", "--folder", str(tmp_path), "--json", str(raw))

    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = {line.split("|")[1].strip(): line for line in ended.stdout.splitlines() if line.startswith("|")}
    assert {"receiver", "pacsnode", "storescp"} <= set(lines)
    assert "/proc/loadavg" in ended.stdout
    (series,) = json.loads(raw.read_text())["raw"]
    rounds = {round_["receiver"]: round_ for round_ in series["rounds"]}
    assert [rounds["pacsnode"][key] for key in ("missing", "altered", "unhashed")] == [0, 0, 0]
    assert [rounds["storescp"][key] for key in ("missing", "altered")] == [0, None]
    assert all(round_["seconds"] > 0 and round_["cpu_s"] >= 0 for round_ in rounds.values())
    assert (rounds["pacsnode"]["p99_ms"] is not None) == (sender == "lean")  # storescu does not tell
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw.json"]  # nothing is left behind


def test_the_comparison_sees_an_altered_byte_a_wrong_hash_and_a_missing_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from bench import checks, corpus

    samples = corpus.make("mixed", 4, tmp_path / "corpus")
    home = tmp_path / "home"
    (home / "files").mkdir(parents=True)
    index = sqlite3.connect(home / "index.db")
    index.execute("CREATE TABLE instances (sop_instance_uid, transfer_syntax_uid, path, dataset_sha256)")
    for sample, sha256 in zip(samples, ("", samples[1].dataset_sha256, "0" * 64, ""), strict=True):
        shutil.copy(sample.path, home / "files")
        meta = sample.meta
        row = (meta.sop_instance_uid, meta.transfer_syntax_uid, sample.path.name, sha256)
        index.execute("INSERT INTO instances VALUES (?, ?, ?, ?)", row)
    index.commit()
    index.close()
    assert checks.check_node(home, samples, checks.indexed(home)) == checks.Check(0, 1)

    with (home / "files" / samples[1].path.name).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    (home / "files" / samples[3].path.name).unlink()
    assert checks.check_node(home, samples, checks.indexed(home)) == checks.Check(1, 2)
    assert checks.check_node(home, samples, frozenset()) == checks.Check(4, 0)


def test_a_receiver_that_does_not_exist_is_named() -> None:
    ended = receive("--receivers", "storescp,telepathy")

    assert ended.returncode == 2
    assert "no such receiver: telepathy" in ended.stderr
