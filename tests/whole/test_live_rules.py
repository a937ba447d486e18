"""A whole node whose rules file is edited while it works."""

from __future__ import annotations

import json
from pathlib import Path

from harness import Node
from live_edits import NEWEST, RULES, is_let_in, run_live_edits


def test_studies_are_decided_by_whole_good_files_alone_while_the_file_is_edited(tmp_path: Path) -> None:
    outcome = run_live_edits(tmp_path, studies=60, saves=25, seed=1)
    assert outcome.faults() == []
    assert len(outcome.decided_by) == 61
    assert len(outcome.live) > 5, outcome
    assert len(set(outcome.decided_by.values())) > 3, outcome
    log = (tmp_path / "home.log").read_text()
    assert 1 <= log.count("rules not taken over, the last good ones stay") <= outcome.broken


def test_a_node_starts_with_its_last_good_version_when_the_file_is_bad(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    (tmp_path / "models").mkdir()
    good = (RULES + NEWEST).format(number=1)
    rules.write_text(good)
    node = Node(tmp_path / "home", rules, models=tmp_path / "models")
    with node:
        pass
    rules.write_text(good.replace("may: [store]", "may: [stor]"))
    with node:
        assert is_let_in(node, "NEW1")
        checks = json.loads(node.run("doctor", "--json", check=False).stdout)
    (told,) = [check for check in checks if check["subject"] == "rules"]
    assert told["level"] == "wrong"
    assert f"{rules}:15:48 peers.ct-1.may.0: " in told["found"]
    assert told["found"].endswith(" stays live")
    by_role = {json.loads(line)["role"] for line in node.log().splitlines() if f"{rules}:15:48 " in line}
    assert by_role == {"serve", "scp", "work"}
