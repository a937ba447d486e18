"""Start after a crash: the fsynced file is the truth, so rows that a power cut took are put back from the files.

Reads only epochs that were not sealed. A torn file (`.part`) was never answered and is removed.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from pacsnode.archive.files import HASH_DIGITS, Arrival, arrival_of
from pacsnode.archive.store import Archive, Found
from pacsnode.database import connect
from pacsnode.dimse.part10 import FileMeta, read_meta
from pacsnode.errors import Permanent, Rejected
from pacsnode.handover import StoreRequest
from pacsnode.telemetry import Log

log = Log(__name__)


@dataclass
class Recovered:
    """What one start found."""

    epochs: int = 0
    rows_restored: int = 0
    torn_removed: int = 0
    unreadable: int = 0


def recover(archive: Archive, index_db: Path) -> Recovered:
    """Restore rows of whole files and remove torn ones in every unsealed epoch of this owner; then seal them.

    Raises Rejected (A700) when there is no room for the rows: nothing is lost, a later start goes on.
    """
    report = Recovered()
    connection = connect(index_db, "NORMAL", automatic_checkpoint=False)
    try:
        for epoch, folder in archive.epochs.unsealed():
            report.epochs += 1
            unreadable = report.unreadable
            for torn in folder.glob("*/*.part"):
                torn.unlink()
                report.torn_removed += 1
            for whole in _without_row(connection, archive, folder, report):
                _restore(archive, whole, report)
            busy, frames, moved = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            if not busy and frames == moved and report.unreadable == unreadable:
                archive.epochs.seal([epoch])
    finally:
        connection.close()
    if report.rows_restored or report.torn_removed or report.unreadable:
        log.warning("recovered after a crash", **vars(report))
    return report


@dataclass(frozen=True)
class _Whole:
    """A file that is whole and has no row."""

    path: Path
    meta: FileMeta
    arrival: Arrival


def _without_row(connection: sqlite3.Connection, archive: Archive, folder: Path, report: Recovered) -> list[_Whole]:
    """In the order of their arrival: of two objects under one UID the first must stay the first."""
    known = {
        path
        for table in ("instances", "aside")
        for (path,) in connection.execute(
            f"SELECT path FROM {table} WHERE path >= ? AND path < ?",  # noqa: S608  # our own table names
            (f"{folder.name}/", f"{folder.name}0"),
        )
    }
    found: list[_Whole] = []
    for path in folder.glob("*/*.dcm"):
        if str(path.relative_to(archive.files)) in known:
            continue
        try:
            with path.open("rb") as opened:
                meta = read_meta(opened)
            found.append(_Whole(path, meta, arrival_of(meta.information)))
        except (Permanent, ValueError, OSError) as error:
            _unreadable(path, error, report)
    return sorted(found, key=lambda whole: (whole.arrival.received_utc_us, whole.path))


def _unreadable(path: Path, error: Exception, report: Recovered) -> None:
    """Left where it is for an operator; its epoch stays unsealed, so that each start says so again."""
    log.error("a file without a row cannot be read", path=path, reason=error)
    report.unreadable += 1


def _restore(archive: Archive, whole: _Whole, report: Recovered) -> None:
    meta, arrival = whole.meta, whole.arrival
    request = StoreRequest(
        meta.sop_class_uid,
        meta.sop_instance_uid,
        meta.transfer_syntax_uid,
        arrival.calling_ae_title,
        arrival.called_ae_title,
        arrival.address,
        arrival.peer,
        arrival.issuer,
    )
    origin = "result" if arrival.peer == "" else "received"
    try:
        with whole.path.open("rb") as opened:
            opened.seek(meta.dataset_offset)
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            offset = meta.dataset_offset
            found = Found(opened.fileno(), offset, sha256, opened.tell() - offset, origin)
            row = archive.describe(request, arrival, whole.path, found)
        if not whole.path.name.startswith(sha256[:HASH_DIGITS]):  # cut by a power failure before it was answered
            whole.path.unlink()
            report.torn_removed += 1
            return
        stored = archive.commit(row)
    except OSError as error:
        _unreadable(whole.path, error, report)
        return
    except Rejected as error:
        if error.status == Rejected.OUT_OF_RESOURCES:
            raise
        _unreadable(whole.path, error, report)
        return
    if stored.verdict == "duplicate":
        whole.path.unlink()
    report.rows_restored += 1
