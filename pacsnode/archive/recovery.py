"""Start after a crash: the fsynced file is the truth, so rows that a power cut took are put back from the files.

Reads only epochs that were not sealed. A torn file was never answered and is removed; where the index itself was lost,
so that nobody knows what was answered, it stays for an operator.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from pacsnode.archive.epochs import Unsealed
from pacsnode.archive.files import PREAMBLE, Arrival, arrival_of, checksum_of
from pacsnode.archive.retention import going
from pacsnode.archive.store import Archive, Found, describe, header_of_file
from pacsnode.database import connect
from pacsnode.dimse.part10 import FileMeta, read_meta
from pacsnode.errors import Permanent, Rejected
from pacsnode.handover import StoreRequest
from pacsnode.telemetry import Log

log = Log(__name__)

_GROUP_LENGTH_END = len(PREAMBLE) + 12
"""Preamble, prefix and (0002,0000), which every meta header of ours begins with."""


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
        for epoch in archive.epochs.unsealed():
            report.epochs += 1
            unreadable = report.unreadable
            for whole in _without_row(connection, archive, epoch, report):
                _restore(archive, whole, report)
            busy, frames, moved = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            if not busy and frames == moved and report.unreadable == unreadable:
                archive.epochs.seal([epoch.epoch])
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
    checksum: str
    dataset_bytes: int


def _without_row(connection: sqlite3.Connection, archive: Archive, epoch: Unsealed, report: Recovered) -> list[_Whole]:
    """In the order of their arrival: of two objects under one UID the first must stay the first."""
    name = epoch.folder.name
    known = {
        path
        for table in ("instances", "aside")
        for (path,) in connection.execute(
            f"SELECT path FROM {table} WHERE path >= ? AND path < ?",  # noqa: S608  # our own table names
            (f"{name}/", f"{name}0"),
        )
    }
    known |= going(connection, name)
    found: list[_Whole] = []
    for path in epoch.folder.glob("*/*.dcm"):
        if f"{name}/{path.parent.name}/{path.name}" in known:
            continue
        try:
            whole = _read(path)
        except (Permanent, ValueError, OSError) as error:
            _unreadable(path, error, report)
            continue
        if whole is not None:
            found.append(whole)
        elif epoch.adopted:
            _unreadable(path, "it is torn or damaged", report)
        else:
            path.unlink()
            report.torn_removed += 1
    return sorted(found, key=lambda whole: (whole.arrival.received_utc_us, whole.path))


def _read(path: Path) -> _Whole | None:
    """What a file holds; None for one that was not whole when the machine stopped."""
    with path.open("rb") as opened:
        head = opened.read(_GROUP_LENGTH_END)
        if not head.strip(b"\0") or (len(head) < _GROUP_LENGTH_END and PREAMBLE.startswith(head[: len(PREAMBLE)])):
            return None
        size, length = os.fstat(opened.fileno()).st_size, int.from_bytes(head[-4:], "little")
        if head.startswith(PREAMBLE) and size < _GROUP_LENGTH_END + length:  # cut within the meta header
            return None
        meta = read_meta(opened)
        arrival, checksum = arrival_of(meta.information)
        actual, dataset_bytes = checksum_of(opened.fileno(), meta.dataset_offset)
        return _Whole(path, meta, arrival, checksum, dataset_bytes) if actual == checksum else None


def _unreadable(path: Path, reason: object, report: Recovered) -> None:
    """Left where it is for an operator; its epoch stays unsealed, so that each start says so again."""
    log.error("a file without a row cannot be read", path=path, reason=reason)
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
        arrival.charset,
        arrival.is_answer,
    )
    origin = "result" if arrival.peer == "" else "answer" if arrival.is_answer else "received"
    try:
        with whole.path.open("rb") as opened:
            found = Found(opened.fileno(), meta.dataset_offset, whole.checksum, whole.dataset_bytes)
            header = header_of_file(found, meta.transfer_syntax_uid, arrival.charset)
            path = str(whole.path.relative_to(archive.files))
            stored = archive.commit(describe(archive, request, arrival, path, found, origin, header), found)
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
