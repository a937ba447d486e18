"""Objects of unknown callers: kept aside at arrival, taken into their studies once a person has allowed the caller.

In: the index, and which callers are allowed now. Out: rows as if the peer had just sent them. Never touches the bytes:
the file's own meta header goes on to say that it came from an unknown caller.
"""

from __future__ import annotations

import mmap
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pacsnode.archive import rows
from pacsnode.archive.digests import Digests
from pacsnode.archive.files import arrival_of
from pacsnode.database import boot_id, boot_us, connect, transaction
from pacsnode.dicom.header import read_header
from pacsnode.dimse.part10 import read_meta
from pacsnode.errors import PacsnodeError
from pacsnode.peers import QUARANTINE, Peer
from pacsnode.telemetry import Log

log = Log(__name__)

FindPeer = Callable[[str, str], Peer | None]
"""The peer of a calling AE title and an address, as the rules file has it now."""


def count(index_db: Path) -> int:
    """How many objects are in quarantine."""
    connection = connect(index_db, "NORMAL", automatic_checkpoint=False)
    try:
        return int(connection.execute("SELECT count(*) FROM aside WHERE peer = ?", (QUARANTINE,)).fetchone()[0])
    finally:
        connection.close()


def release(index_db: Path, files: Path, find_peer: FindPeer) -> int:
    """Take in what callers sent who are peers that may store by now; how many objects were taken in."""
    connection, digests = connect(index_db, "NORMAL"), Digests(files, index_db)
    released = 0
    try:
        kept = connection.execute("SELECT * FROM aside WHERE peer = ? ORDER BY received_utc_us", (QUARANTINE,))
        for row in kept.fetchall():
            peer = find_peer(row["calling_ae_title"], row["address"])
            if peer is not None and "store" in peer.may:
                digests.fill_instance(row["sop_instance_uid"])  # of another sender, should there be one
                released += _release(connection, files, row, peer)
    finally:
        digests.close()
        connection.close()
    return released


def _release(connection: sqlite3.Connection, files: Path, kept: sqlite3.Row, peer: Peer) -> bool:
    path = files / kept["path"]
    try:
        row = _row(path, kept, peer)
    except (PacsnodeError, OSError, ValueError) as error:
        log.error("stays in quarantine: its file cannot be read", path=path, reason=error)
        return False
    with transaction(connection):
        gone = connection.execute("DELETE FROM aside WHERE path = ?", (row.path,)).rowcount
        verdict = rows.insert(connection, [row], files, rows.Common())[0] if gone else None
    if verdict is not None and verdict.verdict == "duplicate":  # the same bytes came again, from a known peer
        path.unlink(missing_ok=True)
    return bool(gone)


def _row(path: Path, kept: sqlite3.Row, peer: Peer) -> rows.NewRow:
    with path.open("rb") as opened:
        meta = read_meta(opened)
        with (
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
            whole[meta.dataset_offset :] as dataset,
        ):
            header = read_header(dataset, meta.transfer_syntax_uid, peer.charset)
            dataset_bytes = len(dataset)
    arrival = replace(arrival_of(meta.information)[0], peer=peer.name, issuer=peer.issuer, charset=peer.charset)
    return rows.NewRow(
        meta.sop_class_uid,
        meta.sop_instance_uid,
        meta.transfer_syntax_uid,
        kept["path"],
        kept["dataset_sha256"],
        dataset_bytes,
        "received",
        arrival,
        boot_us(),
        boot_id(),
        header.attributes,
        header.damaged,
    )
