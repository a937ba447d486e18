"""Versions of the rules file in node.db: one is live, the others stay for whoever asks what was decided by them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacsnode import yamlfile
from pacsnode.archive.rule_versions import RuleVersion, RuleVersions
from pacsnode.settings import Settings
from tests.archive import homes

FIRST, SECOND = "version: 1\n", "version: 1  # 흉부\r\n"
SOURCE = Path("/etc/pacsnode/routing_rules.yaml")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return homes.home(tmp_path)


@pytest.fixture
def versions(settings: Settings) -> Iterator[RuleVersions]:
    opened = RuleVersions(settings.node_db)
    yield opened
    opened.close()


def go_live(versions: RuleVersions, text: str, author: str = "kim") -> RuleVersion:
    return versions.go_live(yamlfile.parse(text, str(SOURCE)), text, author, SOURCE)


def rows(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(settings.node_db, isolation_level=None)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_a_new_node_has_no_live_version(versions: RuleVersions) -> None:
    assert versions.live() is None
    assert versions.live_id() is None


def test_a_version_is_kept_whole_with_who_and_where_from(settings: Settings, versions: RuleVersions) -> None:
    made = go_live(versions, SECOND)
    assert (made.text, made.author, made.source) == (SECOND, "kim", str(SOURCE))
    assert made.name == f"routing_rules.yaml (version {made.hash[:12]})"
    assert made.document().sha256 == made.hash
    other = RuleVersions(settings.node_db)  # as another process has it
    assert other.live() == made
    assert other.live_id() == made.id
    other.close()


def test_going_back_to_earlier_content_makes_a_new_row(settings: Settings, versions: RuleVersions) -> None:
    made = [go_live(versions, text) for text in (FIRST, SECOND, FIRST)]
    assert [one.hash for one in made] == [made[0].hash, made[1].hash, made[0].hash]
    assert versions.live() == made[2]
    times = rows(settings, "SELECT live_utc_us, retired_utc_us FROM rule_versions ORDER BY id")
    assert [retired for _, retired in times] == [times[1][0], times[2][0], None]


def test_what_is_live_already_makes_no_row(settings: Settings, versions: RuleVersions) -> None:
    made = go_live(versions, FIRST)
    assert go_live(versions, FIRST, "lee") == made
    assert rows(settings, "SELECT count(*) FROM rule_versions") == [(1,)]
    assert rows(settings, "SELECT count(*) FROM audit") == [(1,)]


def test_each_version_has_its_audit_row(settings: Settings, versions: RuleVersions) -> None:
    made = [go_live(versions, FIRST), go_live(versions, SECOND, "lee")]
    told = [(event, json.loads(detail)) for event, detail in rows(settings, "SELECT event, detail FROM audit")]
    assert told == [("rules live", {"hash": one.hash, "author": one.author}) for one in made]


def test_nothing_goes_live_without_its_audit_row(settings: Settings, versions: RuleVersions) -> None:
    made = go_live(versions, FIRST)
    rows(settings, "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(sqlite3.IntegrityError, match="no room"):
        go_live(versions, SECOND)
    assert versions.live() == made


def test_two_versions_are_never_live_together(settings: Settings, versions: RuleVersions) -> None:
    go_live(versions, FIRST)
    with pytest.raises(sqlite3.IntegrityError):
        rows(
            settings,
            "INSERT INTO rule_versions (hash, text, live_utc_us, author, source) VALUES ('00', 'a: 1', 1, 'kim', '')",
        )
