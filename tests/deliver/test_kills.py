"""Senders that are killed at any moment lose nothing; what is sent twice has the same UID."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacsnode.deliver.dimse import ENTER_TOGETHER
from tests.deliver import nodes
from tests.deliver.nodes import Node, made_node, wait_until
from tests.deliver.scripted import ScriptedPacs

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with made_node(tmp_path) as made:
        yield made


def test_what_a_killed_process_was_sending_is_owed_at_the_next_start(node: Node) -> None:
    node.owe("pacs", "1.1", "1.2")
    assert len(node.outbox.claim("pacs")) == 2
    assert node.outbox.claim("pacs") == []
    assert node.outbox.resume() == 2
    assert [(one.state, one.attempts) for one in node.rows("pacs")] == [("owed", 0)] * 2


@pytest.mark.timeout(120)
def test_kills_at_any_moment_lose_nothing(node: Node, tmp_path: Path) -> None:
    chance, owed = random.Random(7), list[str]()
    pacs = ScriptedPacs(finds=True)
    with pacs.running():
        for study in range(4):
            uids = tuple(f"1.2.{study}.{number}" for number in range(40))
            node.owe("pacs", *uids, study=f"1.2.{study}")
            owed += uids
        cut_off = 0
        for _ in range(ROUNDS):
            words = [sys.executable, "-m", nodes.__name__, str(tmp_path), str(pacs.port)]
            before = len(pacs.taken)
            with subprocess.Popen(words, cwd=ROOT) as process:
                wait_until(lambda before=before: len(pacs.taken) > before + chance.randint(0, 20))  # type: ignore[misc]
                process.kill()
            cut_off += node.states("pacs").count("sending")
        assert cut_off
        node.peer("pacs", pacs.port)
        node.start()

        def is_over() -> bool:
            node.pass_time(3)
            return set(node.states("pacs")) == {"confirmed"}

        wait_until(is_over)
    times = Counter(pacs.taken)
    assert set(times) == set(owed)
    assert max(times.values()) <= 1 + ROUNDS
    assert len(pacs.taken) - len(owed) <= 2 * (1 + ENTER_TOGETHER) * ROUNDS, "on the line, or not entered yet"
