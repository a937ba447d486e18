"""Migrations: two processes at once, a copy before a change, a newer or damaged database refused with a sentence."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlite_utils import Database, Migrations

from pacsnode import checks, database, schema
from pacsnode.errors import ConfigError, SchemaError
from pacsnode.settings import Settings, load


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(home=tmp_path / "home")


def command(settings: Settings, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pacsnode", *arguments],
        env=os.environ | {"PACSNODE_HOME": str(settings.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def migrations_of(*names: str) -> Migrations:
    made = Migrations("things")
    for name in names:

        def change(db: Database, name: str = name) -> None:
            db.execute(f"CREATE TABLE IF NOT EXISTS {name} (id INTEGER PRIMARY KEY)")

        change.__name__ = name
        made()(change)
    return made


def test_processes_that_migrate_at_once_make_one_home(settings: Settings) -> None:
    processes = [command(settings, "migrate") for _ in range(3)]
    told = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], told
    assert sorted("applied" in out for out, _ in told) == [False, False, True]
    schema.check(settings)
    assert len(schema.device_uid(settings)) > 10


def test_the_device_uid_stays(settings: Settings) -> None:
    schema.migrate(settings)
    uid = schema.device_uid(settings)
    assert schema.migrate(settings) == []
    assert schema.device_uid(settings) == uid


def test_a_home_without_databases_is_refused_with_what_to_do(settings: Settings) -> None:
    with pytest.raises(SchemaError, match="run `pacsnode migrate`"):
        schema.check(settings)


@pytest.mark.parametrize("arguments", [("migrate",), ("scp",), ("studies", "list")])
def test_a_newer_database_ends_a_command_with_exit_code_3(settings: Settings, arguments: tuple[str, ...]) -> None:
    schema.migrate(settings)
    with sqlite3.connect(settings.index_db) as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('index', 'index_0999', '2030')"
        )
    process = command(settings, *arguments)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "newer than this program (it has index_0999)" in told
    assert "Traceback" not in told


def test_an_older_database_is_copied_before_it_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "things.db"
    assert database.migrate(path, migrations_of("first")) == ["first"]
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO first VALUES (7)")
    newer = migrations_of("first", "second")
    with pytest.raises(SchemaError, match="older"):
        database.check(path, newer)
    assert database.migrate(path, newer) == ["second"]
    database.check(path, newer)
    (copy,) = tmp_path.glob("things.db.before-*")
    assert copy.name == "things.db.before-second"
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT id FROM first").fetchall() == [(7,)]
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'second'").fetchall() == []


def test_a_new_database_needs_no_copy(settings: Settings) -> None:
    schema.migrate(settings)
    assert not list(settings.home.glob("*.before-*"))


@pytest.mark.parametrize("name", ["index.db", "node.db"])
def test_a_damaged_database_is_a_sentence_with_what_to_do(settings: Settings, name: str) -> None:
    schema.migrate(settings)
    for path in settings.home.glob(f"{name}-*"):
        path.unlink()
    (settings.home / name).write_bytes(b"this was a database once" * 500)
    for act in (schema.check, schema.migrate):
        with pytest.raises(ConfigError, match=r"damaged.*backup") as error:
            act(settings)
        assert name in error.value.where


def test_doctor_tells_of_a_damaged_database_and_goes_on(settings: Settings) -> None:
    schema.migrate(settings)
    for path in settings.home.glob("node.db-*"):
        path.unlink()
    (settings.home / "node.db").write_bytes(b"this was a database once" * 500)
    looks = (lambda: checks._databases(settings)), (lambda: checks._studies(settings))
    told = [check for look in looks for check in checks._guarded("look", look)]
    assert [check.level for check in told] == ["wrong", "wrong"]
    assert "node.db" in told[0].found
    assert all(check.todo for check in told)


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    connection = database.connect(tmp_path / "x.db", "FULL")
    connection.execute("CREATE TABLE t (id INTEGER)")
    with pytest.raises(RuntimeError), database.transaction(connection):
        connection.execute("INSERT INTO t VALUES (1)")
        raise RuntimeError
    assert not connection.in_transaction
    assert connection.execute("SELECT count(*) FROM t").fetchone()[0] == 0
    connection.close()


def test_a_turn_is_given_back_however_its_transaction_ends(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection, other = database.connect(path, "FULL"), database.connect(path, "FULL")
    connection.execute("CREATE TABLE t (id INTEGER UNIQUE)")
    turns, others = database.Turns(path), database.Turns(path)
    connection.execute("PRAGMA busy_timeout=0")
    with (
        database.transaction(other),
        pytest.raises(sqlite3.OperationalError, match="locked"),
        turns.transaction(connection),
    ):
        pytest.fail("begun in spite of the other one's lock")
    with pytest.raises(sqlite3.IntegrityError), turns.transaction(connection):
        connection.executemany("INSERT INTO t VALUES (?)", [(1,), (1,)])
    with others.transaction(other):  # would wait for ever
        other.execute("INSERT INTO t VALUES (2)")
    assert [tuple(row) for row in connection.execute("SELECT id FROM t")] == [(2,)]
    turns.close()
    others.close()
    connection.close()
    other.close()


def test_a_lock_is_held_by_one_and_freed_at_the_end(tmp_path: Path) -> None:
    with (
        database.locked(tmp_path / "lock", wait=False),
        pytest.raises(ConfigError, match="busy already"),
        database.locked(tmp_path / "lock", wait=False, busy="busy already"),
    ):
        pass
    with database.locked(tmp_path / "lock", wait=False):
        pass


def test_a_home_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match="set PACSNODE_HOME"):
        schema.migrate(load(home=tmp_path / "file" / "home"))
