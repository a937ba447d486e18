"""Start after a crash: the fsynced file is the truth, so rows that a power cut took are put back from the files.

Reads only epochs that were not sealed. A torn file (`.part`) was never answered and is removed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pacsnode.archive.files import read_part10
from pacsnode.archive.store import Archive, Found
from pacsnode.database import connect
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
    """Restore rows of whole files and remove torn ones in every unsealed epoch of this owner; then seal them."""
    report = Recovered()
    connection = connect(index_db, "NORMAL", automatic_checkpoint=False)
    try:
        for epoch, folder in archive.epochs.unsealed():
            report.epochs += 1
            known = {
                path
                for table in ("instances", "aside")
                for (path,) in connection.execute(
                    f"SELECT path FROM {table} WHERE path >= ? AND path < ?",  # noqa: S608  # our own table names
                    (f"{folder.name}/", f"{folder.name}0"),
                )
            }
            for torn in folder.glob("*/*.part"):
                torn.unlink()
                report.torn_removed += 1
            for file in sorted(folder.glob("*/*.dcm")):
                if str(file.relative_to(archive.files)) not in known:
                    _restore(archive, file, report)
            _, frames, moved = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            if frames == moved:
                archive.epochs.mark_sealed(epoch)
    finally:
        connection.close()
    if report.rows_restored or report.torn_removed or report.unreadable:
        log.warning("recovered after a crash", **vars(report))
    return report


def _restore(archive: Archive, file: Path, report: Recovered) -> None:
    try:
        with file.open("rb") as opened:
            part10 = read_part10(opened)
            arrival = part10.arrival()
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    except (ValueError, TypeError) as error:  # not of our making; left where it is for an operator
        log.error("a file without a row cannot be read", path=str(file), reason=str(error))
        report.unreadable += 1
        return
    request = StoreRequest(
        part10.sop_class_uid,
        part10.sop_instance_uid,
        part10.transfer_syntax_uid,
        arrival.calling_ae_title,
        arrival.called_ae_title,
        arrival.address,
        arrival.peer,
        arrival.issuer,
    )
    origin = "result" if arrival.peer == "" else "received"
    found = Found(sha256, file.stat().st_size - part10.dataset_offset, origin)
    stored = archive.commit(archive.describe(request, arrival, file, part10.dataset_offset, found))
    if stored.verdict == "duplicate":
        file.unlink()
    report.rows_restored += 1
