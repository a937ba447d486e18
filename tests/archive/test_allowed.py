"""The allow list: who let which bundle run, and that nothing of it is forgotten."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pacsnode import database
from pacsnode.archive.allowed import AllowList, Bundle
from pacsnode.node_tables import node

ONE = Bundle("chest", "a" * 64, "1.0")
OTHER = Bundle("chest", "b" * 64, "1.1")


@pytest.fixture
def node_db(tmp_path: Path) -> Path:
    path = tmp_path / "node.db"
    database.migrate(path, node)
    return path


def test_a_bundle_is_found_by_its_hash_with_who_and_when(node_db: Path) -> None:
    with closing(AllowList(node_db)) as allowed:
        before = allowed.newest()
        allowed.allow(ONE, "kim", "allow")
        found = allowed.find("chest", ONE.bundle_hash)
        assert found is not None
        assert (found.bundle, found.author, found.source) == (ONE, "kim", "allow")
        assert abs(found.allowed_utc_us - database.utc_us()) < 60_000_000
        assert allowed.newest() > before
        assert allowed.find("chest", OTHER.bundle_hash) is None
        assert allowed.find("other", ONE.bundle_hash) is None


def test_the_first_start_is_once_in_the_life_of_a_node(node_db: Path) -> None:
    with closing(AllowList(node_db)) as allowed:
        assert allowed.begin([ONE], "root")
        assert not allowed.begin([OTHER], "root")
        assert allowed.find("chest", ONE.bundle_hash) is not None
        assert allowed.find("chest", OTHER.bundle_hash) is None


def test_a_first_start_without_services_allows_none_later(node_db: Path) -> None:
    with closing(AllowList(node_db)) as allowed:
        assert allowed.begin([], "root")
        assert not allowed.begin([ONE], "root")
        assert allowed.find("chest", ONE.bundle_hash) is None


def test_each_row_has_its_audit_row(node_db: Path) -> None:
    with closing(AllowList(node_db)) as allowed:
        allowed.begin([ONE], "root")
        allowed.allow(OTHER, "kim", "install")
    with closing(sqlite3.connect(node_db)) as connection:
        rows = connection.execute(
            "SELECT json_extract(detail, '$.bundle_hash'), json_extract(detail, '$.author') FROM audit "
            "WHERE event = 'bundle allowed' ORDER BY id"
        ).fetchall()
    assert rows == [(ONE.bundle_hash, "root"), (OTHER.bundle_hash, "kim")]
