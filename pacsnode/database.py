"""SQLite for the node: connections, transactions, migrations. Schema and queries stand with those who own the tables.

WAL always; `index.db` with synchronous NORMAL (its rows can be rebuilt from files), `node.db` with FULL.
Never a network file system: WAL needs shared memory.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

from sqlite_utils import Database, Migrations

from pacsnode.errors import ConfigError, SchemaError

BUSY_TIMEOUT_S = 10.0
Synchronous = Literal["NORMAL", "FULL"]


def connect(path: Path, synchronous: Synchronous, *, automatic_checkpoint: bool = True) -> sqlite3.Connection:
    """A connection for one thread at a time; autocommit, so that every transaction is written as one."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA synchronous={synchronous}")
    if not automatic_checkpoint:
        connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection


def transaction(connection: sqlite3.Connection) -> AbstractContextManager[sqlite3.Connection]:
    """BEGIN IMMEDIATE … COMMIT; rolled back when the block raises. Keep it under 20 ms and 500 rows."""
    return _Transaction(connection)


class _Transaction:
    """A class, since a generator for each costs a receiver of images as much as one more statement."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


class _Turn(_Transaction):
    """A transaction in a queue: `descriptor` is that of its lock."""

    __slots__ = ("_descriptor",)

    def __init__(self, connection: sqlite3.Connection, descriptor: int) -> None:
        super().__init__(connection)
        self._descriptor = descriptor

    def __enter__(self) -> sqlite3.Connection:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            return super().__enter__()
        except BaseException:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            raise

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            super().__exit__(kind, *rest)
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)


class Turns:
    """A queue for the writers of a database that two processes write often: SQLite itself lets one sleep, for 1, 2, 5
    and more milliseconds, and try again; this one wakes at once. Only who writes often need take part.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(f"{path}.turns", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def transaction(self, connection: sqlite3.Connection) -> AbstractContextManager[sqlite3.Connection]:
        """As `transaction`, when it is our turn; for one thread at a time."""
        return _Turn(connection, self._descriptor)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


def migrate(path: Path, migrations: Migrations) -> list[str]:
    """Bring one database to this program's schema; the caller holds the migration lock. Returns what was applied.

    A database that holds rows is copied to `<name>.before-<migration>` first. Raises SchemaError when it is newer.
    """
    database = Database(path)
    try:
        with _whole(path):
            database.enable_wal()
            pending = [m.name for m in migrations.pending(database)]
            _refuse_newer(path, database, migrations)
            if pending and migrations.applied(database):
                copy = path.with_name(f"{path.name}.before-{pending[0]}")
                copy.unlink(missing_ok=True)
                database.execute("VACUUM INTO ?", [str(copy)])
            migrations.apply(database)
        return pending
    finally:
        database.close()


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """A damaged file becomes a sentence."""
    try:
        yield
    except sqlite3.OperationalError:  # busy, or no room: not the file's fault
        raise
    except sqlite3.DatabaseError as error:
        todo = "restore it from a backup; index.db may be moved away instead: `pacsnode migrate` and a start rebuild it"
        raise ConfigError(f"damaged ({error}); {todo}", where=str(path)) from None


def check(path: Path, migrations: Migrations) -> None:
    """Raises SchemaError unless the database has exactly this program's schema."""
    if not path.exists():
        raise SchemaError(f"{path} does not exist yet; run `pacsnode migrate`")
    database = Database(path)
    try:
        with _whole(path):
            _refuse_newer(path, database, migrations)
            pending = migrations.pending(database)
        if pending:
            raise SchemaError(f"{path} is older than this program; run `pacsnode migrate`")
    finally:
        database.close()


def _refuse_newer(path: Path, database: Database, migrations: Migrations) -> None:
    applied = {m.name for m in migrations.applied(database)}
    known = {m.name for m in migrations._migrations}  # no public list of all migrations in sqlite-utils 4.2
    if applied - known:
        names = ", ".join(sorted(applied - known))
        raise SchemaError(f"{path} is newer than this program (it has {names}); install the newer pacsnode")


@contextmanager
def locked(path: Path, *, wait: bool, busy: str = "") -> Iterator[None]:
    """Hold an advisory lock on `path`. Without `wait`, raises ConfigError(`busy`) when another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ConfigError(busy) from None
        yield
    finally:
        os.close(descriptor)


def utc_us() -> int:
    """Now, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def boot_us() -> int:
    """Now on the boot clock (runs through suspend, no steps), in microseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def boot_id() -> str:
    """Which boot of the machine this is: boot clocks of two boots do not compare."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
