"""`pacsnode deliveries …`: lists, numbers, and orders that a running node sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deliver.nodes import Node, made_node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with made_node(tmp_path) as made:
        made.owe("pacs", "1.1", "1.2", case="case-a", rule="chest x-ray")
        made.owe("ward", "1.1", study="1.2.4", case="case-b", rule="ecg")
        yield made


def run(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pacsnode", "deliveries", *arguments],
        env=os.environ | {"PACSNODE_HOME": str(node.settings.home)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_list_is_narrowed_by_what_one_looks_for(node: Node) -> None:
    def listed(*arguments: str) -> list[str]:
        return [row["destination"] for row in json.loads(run(node, "list", "--json", *arguments).stdout)]

    assert listed() == ["ward", "pacs", "pacs"]
    assert listed("--destination", "pacs") == ["pacs", "pacs"]
    assert listed("--rule", "ecg") == ["ward"]
    assert listed("--case", "case-a", "--limit", "1") == ["pacs"]
    assert listed("--study", "1.2.4", "--state", "sent") == []


def test_a_hold_is_seen_in_the_list_and_ends_with_its_release(node: Node) -> None:
    assert "2 deliveries wait" in run(node, "hold", "--rule", "chest x-ray", "--because", "new template").stdout
    assert run(node, "list", "--destination", "pacs").stdout.count("owed, held") == 2
    told = run(node, "list", "--summary").stdout
    assert "pacs  2 owed, 2 held" in told
    assert "held  rule chest x-ray  by " in told
    assert "new template" in told
    wrong = run(node, "release", "--destination", "pacs")
    assert wrong.returncode == 2
    assert "held is: rule chest x-ray" in wrong.stderr
    assert run(node, "release", "--rule", "chest x-ray").returncode == 0
    assert "held" not in run(node, "list").stdout


def test_orders_concern_what_is_named_and_nothing_without_a_name(node: Node) -> None:
    assert run(node, "cancel").returncode == 2
    assert run(node, "hold", "--study", "1.2.3", "--destination", "pacs").returncode == 2
    assert "1 deliveries are cancelled" in run(node, "cancel", "ward", "--because", "wrong ward").stdout
    assert node.states("ward") == ["cancelled"]
    assert "2 deliveries go first" in run(node, "expedite", "--case", "case-a").stdout
    assert {one.priority for one in node.rows("pacs")} == {1}
    number = node.rows("ward")[0].id
    assert "0 deliveries are tried again" not in run(node, "retry", str(number)).stdout
    assert node.states("ward") == ["owed"]
    assert run(node, "proof", "pacs").returncode == 2, "nothing was sent yet"


def test_one_delivery_is_shown_with_its_history(node: Node) -> None:
    claimed = node.outbox.claim("pacs")
    node.outbox.park(claimed[0], "the peer refused it: 0xA900", 0xA900)
    shown = json.loads(run(node, "show", str(claimed[0].id), "--json").stdout)
    assert (shown["state"], shown["status"]) == ("refused", "0xA900")
    assert [one["event"] for one in shown["history"]] == ["refused"]
    text = run(node, "show", str(claimed[0].id)).stdout
    assert "refused  the peer refused it: 0xA900" in text
    assert run(node, "show", "4711").returncode == 2
