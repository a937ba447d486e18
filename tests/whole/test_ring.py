"""Three nodes that forward everything to the next: a study goes once round, and then there is silence."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from harness import LOOPBACK, STORESCU, Node, free_port, wait_until

from tests.deliver.owing import image

RULES = """
version: 1
peers:
  before:   {{ae_title: {before}, host: 127.0.0.1, may: [store]}}
  modality: {{ae_title: CT1, host: 127.0.0.1, may: [store]}}
  after:    {{ae_title: {after}, host: 127.0.0.1, port: {port}}}
rules:
  - name: everything goes on
    when: {{Modality: {{exists: true}}}}
    forward: after
unmatched: keep
"""
NAMES = ("A", "B", "C")
IMAGES = 5
QUIET_S = 8.0
"""Longer than the sweep of `work`: what would go on by itself has gone on by then."""


def deliveries(node: Node) -> list[tuple[str, str, int]]:
    with sqlite3.connect(f"file:{node.home / 'node.db'}?mode=ro", uri=True) as node_db:
        return list(node_db.execute("SELECT sop_instance_uid, state, attempts FROM outbox ORDER BY id"))


def test_a_study_that_is_forwarded_in_a_ring_of_three_stops(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    ports = {name: free_port() for name in NAMES}
    with ExitStack() as stack:
        nodes = []
        for number, name in enumerate(NAMES):
            before, after = NAMES[number - 1], NAMES[(number + 1) % 3]
            rules = tmp_path / f"{name}.yaml"
            rules.write_text(RULES.format(before=before, after=after, port=ports[after]))
            extra = {"PACSNODE_AE_TITLE": name}
            nodes.append(Node(tmp_path / name, rules, tmp_path / "models", ports[name], extra))
            stack.enter_context(nodes[-1])
        paths = [image(tmp_path / f"{n}.dcm", n) for n in range(IMAGES)]
        command = [STORESCU, "-R", "-aet", "CT1", "-aec", NAMES[0], LOOPBACK, str(nodes[0].port)]
        subprocess.run([*command, *map(str, paths)], check=True, capture_output=True)

        def is_round() -> bool:
            return all([state for _, state, _ in deliveries(node)] == ["sent"] * IMAGES for node in nodes)

        wait_until(is_round, 60)
        seen = [deliveries(node) for node in nodes]
        time.sleep(QUIET_S)
        assert [deliveries(node) for node in nodes] == seen
        assert [[attempts for *_, attempts in rows] for rows in seen] == [[1] * IMAGES] * 3
        for node in nodes:
            studies = json.loads(node.run("studies", "list", "--json").stdout)
            assert [study["instances"] for study in studies] == [IMAGES]
