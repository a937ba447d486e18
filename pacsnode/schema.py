"""The home of a node and its two databases: made, brought to this program's version, refused where they are not."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from sqlite_utils import Migrations

from pacsnode import database
from pacsnode.dicom import uids
from pacsnode.errors import ConfigError
from pacsnode.index_tables import index
from pacsnode.node_tables import node
from pacsnode.settings import Settings


def prepare_home(settings: Settings) -> None:
    """Make the home and its folders. Raises ConfigError with what to do when that cannot be."""
    os.umask(0o077)  # everything that this process makes from now on is for its user alone, databases too
    try:
        for folder in (settings.home, settings.files, settings.runs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = settings.home / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"cannot write to {settings.home} ({error.strerror}); "
            "set PACSNODE_HOME to a folder that this user may write, or change its owner",
            where="PACSNODE_HOME",
        ) from None


def migrate(settings: Settings) -> list[str]:
    """Make or bring both databases to this program's schema; one process at a time."""
    prepare_home(settings)
    with database.locked(settings.home / "migrate.lock", wait=True):
        applied = [name for path, migrations in _databases(settings) for name in database.migrate(path, migrations)]
        _name_node(settings)
    return applied


def _name_node(settings: Settings) -> None:
    """Give the node its device UID once: it names the packager in every result (0018,1002)."""
    connection = database.connect(settings.node_db, "FULL")
    try:
        connection.execute("INSERT OR IGNORE INTO node VALUES (1, ?)", (uids.derive(secrets.token_hex(16)),))
    finally:
        connection.close()


def device_uid(settings: Settings) -> str:
    """The device UID of this node."""
    connection = database.connect(settings.node_db, "FULL")
    try:
        return str(connection.execute("SELECT device_uid FROM node").fetchone()[0])
    finally:
        connection.close()


def check(settings: Settings) -> None:
    """Raises SchemaError unless both databases fit this program."""
    for path, migrations in _databases(settings):
        database.check(path, migrations)


def _databases(settings: Settings) -> tuple[tuple[Path, Migrations], ...]:
    return (settings.index_db, index), (settings.node_db, node)
