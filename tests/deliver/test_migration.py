"""A node of an earlier version keeps what it owed, sent and parked; its outbox knows the new states afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from pacsnode.archive.confirmations import Confirmations
from pacsnode.database import migrate
from pacsnode.deliver.outbox import Outbox
from pacsnode.index_tables import index
from pacsnode.node_tables import node

ROWS = [
    ("1.1", "owed", None, None, ""),
    ("1.2", "sent", 0, 5, ""),
    ("1.3", "parked", 0xA900, 5, "the peer refused it"),
    ("1.4", "parked", None, 5, "the rules file has no peer"),
]


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """node.db as the version before had it."""
    path = tmp_path / "node.db"
    with closing(Database(path)) as database:
        node.apply(database, stop_before="node_0007")
        database.executescript(
            "INSERT INTO cases (key, study_instance_uid, service, rules, rules_hash, instances, results, send_to, "
            "priority, state, whole_because, started_utc_us) "
            """VALUES ('k', '1.2.3', 's', '["chest"]', 'r', '[]', '[]', '[]', 1, 'done', 'quiet', 1)"""
        )
        with database.conn:
            database.conn.executemany(
                "INSERT INTO outbox (sop_instance_uid, destination, case_key, study_instance_uid, state, priority, "
                "next_attempt_utc_us, created_utc_us, status, ended_utc_us, reason) "
                "VALUES (?, 'pacs', 'k', '1.2.3', ?, 10, 1, 7, ?, ?, ?)",
                ROWS,
            )
    yield path


def test_rows_of_the_version_before_stand_as_they_did(old: Path) -> None:
    migrate(old, node)
    with closing(Outbox(old, 86_400)) as outbox:
        found = {one.sop_instance_uid: one for one in outbox.listing()}
        assert {uid: one.state for uid, one in found.items()} == {
            "1.1": "owed",
            "1.2": "sent",
            "1.3": "refused",
            "1.4": "parked",
        }
        assert {one.since_utc_us for one in found.values()} == {7}
        assert outbox.unproven_destinations() == [], "what was sent long ago is asked about when somebody wants it"
        assert outbox.rows("SELECT DISTINCT rules FROM outbox WHERE state != 'sent'")[0][0] == '["chest"]'
        assert [one.sop_instance_uid for one in outbox.claim("pacs")] == ["1.1"]


def test_confirmations_of_the_version_before_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with closing(Database(path)) as database:
        index.apply(database, stop_before="index_0006")
        with database.conn:
            database.conn.execute("INSERT INTO confirmations VALUES ('1.1', 'pacs', '1.9', 'hash', 0, 5)")
    migrate(path, index)
    with closing(Database(path)) as database:
        assert list(database["confirmations"].rows) == [
            {
                "sop_instance_uid": "1.1",
                "archive": "pacs",
                "transaction_uid": "1.9",
                "dataset_sha256": "hash",
                "failure": 0,
                "told_utc_us": 5,
            }
        ]
        assert database.table("confirmations").pks == ["sop_instance_uid", "archive"]
    with closing(Confirmations(path)) as kept:
        assert kept.waiting("pacs") == set()
