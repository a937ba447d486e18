"""The archive's way in: bytes to a durable file, then one group-committed row, and only then an answer.

`Archive.begin` gives a writer for one object. The header is read from its first bytes, where they hold all of it, while
the disk writes. Never decodes a pixel.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pacsnode.archive import rows
from pacsnode.archive.committer import Committer
from pacsnode.archive.digests import Digests, digest_of
from pacsnode.archive.epochs import Epochs
from pacsnode.archive.files import Arrival, Disk, NewFile, Piece, UnflushedDisk, free_mb, meta_header
from pacsnode.database import Turns, boot_id, boot_us, connect, utc_us
from pacsnode.dicom import uids
from pacsnode.dicom.beginning import ENDING_BYTES, read_beginning
from pacsnode.dicom.header import Header, read_header
from pacsnode.errors import Rejected
from pacsnode.handover import Stored, StoreRequest
from pacsnode.telemetry import Log

log = Log(__name__)

Durability = Literal["full", "file", "none"]
CHECKPOINT_EVERY_S = 1.0
FREE_SPACE_LOOK_EVERY_US = 500_000
HEAD_BYTES = 32_768
"""So much of a data set is looked at for its header; a CT slice has about 4 KB before its pixels."""


class Archive:
    """Files and index rows of one process. `close` commits what waits, then checkpoints and seals.

    `durability`: "file" flushes each file and its name, and rows are put back from files after a power cut; "full"
    flushes the row too; "none" flushes nothing. `on_rows` is called after a commit, in one of the writing threads; it
    must not raise.
    """

    def __init__(
        self,
        files: Path,
        index_db: Path,
        owner: str,
        *,
        minimum_free_mb: int,
        on_rows: Callable[[], None],
        durability: Durability = "file",
        disk: Disk | None = None,
    ) -> None:
        self.files = files
        self.disk = disk or (UnflushedDisk() if durability == "none" else Disk())
        self._minimum_free_mb = minimum_free_mb
        self._on_rows = on_rows
        self._index_db = index_db
        self._connection = connect(index_db, "FULL" if durability == "full" else "NORMAL", automatic_checkpoint=False)
        self.epochs = Epochs(connect(index_db, "FULL", automatic_checkpoint=False), files, owner, self.disk)
        self.boot_id = boot_id()
        self._free = (-FREE_SPACE_LOOK_EVERY_US, False)
        self._turns = Turns(index_db)
        self._dirty = threading.Event()
        self._closing = threading.Event()
        self._committer = Committer(self._connection, self._turns, files, self._committed)
        self._checkpointer = threading.Thread(target=self._checkpoint, name="archive checkpoint")
        self._checkpointer.start()

    def begin(self, request: StoreRequest) -> Writer:
        """A writer for one received object. Raises Rejected (A700) below the free-space watermark."""
        now = boot_us()
        if now - self._free[0] > FREE_SPACE_LOOK_EVERY_US:
            self._free = (now, free_mb(self.files) >= self._minimum_free_mb)
        if not self._free[1]:
            raise Rejected(Rejected.OUT_OF_RESOURCES, "disk nearly full, send again later")
        return self.open(request, "received")

    def open(self, request: StoreRequest, origin: str) -> Writer:
        """A writer with no look at the free space: results of ours use the reserve."""
        arrival = Arrival(
            request.peer,
            request.issuer,
            request.calling_ae_title,
            request.called_ae_title,
            request.address,
            utc_us(),
            request.charset,
        )
        return Writer(self, request, arrival, origin)

    def commit(self, row: rows.NewRow, found: Found) -> Stored:
        """Index one durable file; returns after the transaction's commit. Raises Rejected: there is no row then."""
        if row.origin == "result" or row.aside_because:
            row = self._digested(row, found)
        stored = self._committer.commit(row)
        if stored is None:
            digests = Digests(self.files, self._index_db)
            try:
                digests.fill_instance(row.sop_instance_uid)
            finally:
                digests.close()
            stored = self._committer.commit(self._digested(row, found))
            assert stored is not None, "a row with its SHA-256 gets a verdict"
        self._to_checkpoint()
        return stored

    def _digested(self, row: rows.NewRow, found: Found) -> rows.NewRow:
        sha256, fault = digest_of(found.descriptor, found.offset, found.checksum)
        if fault:
            log.error("a file is not what was written", path=row.path)
            raise Rejected(Rejected.OUT_OF_RESOURCES, "the archive read back other bytes")
        return row._replace(dataset_sha256=sha256)

    def close(self) -> None:
        """Settle everything; what is begun or committed from now on is refused."""
        self._committer.close()
        self.epochs.close()
        self._closing.set()
        self._dirty.set()
        self._checkpointer.join()
        self._connection.close()
        self._turns.close()
        self.epochs.disconnect()

    def _committed(self) -> None:
        self._to_checkpoint()
        self._on_rows()

    def _to_checkpoint(self) -> None:
        if not self._dirty.is_set():  # where it is, the checkpoint that it is for is still to come
            self._dirty.set()

    def _checkpoint(self) -> None:
        """Move the WAL into the database once a second while there is something to move, never on a commit's way."""
        connection = connect(self._index_db, "NORMAL", automatic_checkpoint=False)
        try:
            closing = False
            while not closing:
                self._dirty.wait()
                self._dirty.clear()
                closing = self._closing.wait(CHECKPOINT_EVERY_S)
                self._checkpoint_once(connection)
        finally:
            connection.close()

    def _checkpoint_once(self, connection: sqlite3.Connection) -> None:
        try:
            settled = self.epochs.settled()
            busy, frames, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if not busy and frames == moved:
                self.epochs.seal(settled)
        except sqlite3.OperationalError as error:  # no room: the rows stay in the WAL until there is
            log.error("index not checkpointed", reason=error)


class Found(NamedTuple):
    """A whole file: its open descriptor, where the data set begins in it, its checksum and length."""

    descriptor: int
    offset: int
    checksum: str
    dataset_bytes: int


def describe(
    archive: Archive,
    request: StoreRequest,
    arrival: Arrival,
    path: str,
    found: Found,
    origin: str,
    header: Header | str,
) -> rows.NewRow:
    """The row of a durable file: what its header says, compared with what the command set said (PS3.4 B.2.3).

    `header` is the reason where there is none to be read.
    """
    unusable = header if isinstance(header, str) else _unusable(header, request)
    return rows.NewRow(
        request.sop_class_uid,
        request.sop_instance_uid,
        request.transfer_syntax_uid,
        path,
        "",
        found.dataset_bytes,
        origin,
        arrival,
        boot_us(),
        archive.boot_id,
        {} if isinstance(header, str) else header.attributes,
        () if isinstance(header, str) else header.damaged,
        unusable,
        None if isinstance(header, str) else header.json(),
    )


class Writer:
    """One object on its way in (handover.InstanceWriter)."""

    def __init__(self, archive: Archive, request: StoreRequest, arrival: Arrival, origin: str) -> None:
        self._archive = archive
        self._request = request
        self._arrival = arrival
        self._origin = origin
        self._meta, self._checksum_offset = meta_header(request, arrival)
        self._head = bytearray()
        self._place = archive.epochs.enter()
        try:
            self._file = NewFile(archive.files, self._place.folder, self._place.descriptor, archive.disk)
        except BaseException:
            archive.epochs.leave(self._place)
            raise

    def write(self, pieces: Sequence[Piece]) -> None:
        """Append data set bytes. Raises Rejected (A700)."""
        for piece in pieces:
            if len(self._head) >= HEAD_BYTES:
                break
            self._head += piece[: HEAD_BYTES - len(self._head)]
        self._file.write(pieces, b"" if self._file.dataset_bytes else self._meta)

    def commit(self) -> Stored:
        """Durable file, then row. Raises Rejected: A700 no room, A900 not what was announced, C000 not readable.

        What is refused with A900 or C000 is kept aside with its reason: the bytes stay.
        """
        try:
            if not self._file.dataset_bytes:
                raise Rejected(Rejected.CANNOT_UNDERSTAND, "no data set")
            self._file.finish(self._checksum_offset)
            row, found = self._describe()  # while the disk writes
            self._file.keep()
            stored = self._archive.commit(row, found)
            self._file.close()
            if stored.verdict == "duplicate":
                self._file.drop()
        except Exception:  # no row: the peer keeps the object and sends it again
            self._file.drop()
            raise
        finally:
            self._archive.epochs.leave(self._place)
        if row.unusable:
            log.warning("kept aside", reason=row.unusable, peer=self._arrival.peer, path=row.path)
            status, comment = row.unusable.split(" ", 1)
            raise Rejected(int(status, 16), comment)
        if stored.verdict == "aside":
            log.warning("kept aside", reason=stored.comment, peer=self._arrival.peer, path=row.path)
        return stored

    def _describe(self) -> tuple[rows.NewRow, Found]:
        file, syntax = self._file, self._request.transfer_syntax_uid
        found = Found(file.descriptor, len(self._meta), file.checksum, file.dataset_bytes)
        begun = read_beginning(self._head, syntax, self._arrival.charset)
        if begun is not None and begun.is_all(file.dataset_bytes, self._ending):
            header: Header | str = begun.header
        else:
            header = header_of_file(found, syntax, self._arrival.charset)
        row = describe(self._archive, self._request, self._arrival, file.path, found, self._origin, header)
        return row, found

    def _ending(self) -> bytes:
        """The last bytes of the data set."""
        return os.pread(self._file.descriptor, ENDING_BYTES, len(self._meta) + self._file.dataset_bytes - ENDING_BYTES)

    @property
    def path(self) -> Path:
        """Where the file is after `commit`."""
        return self._archive.files / self._file.path

    def abort(self) -> None:
        """The association ended before the object did."""
        try:
            self._file.drop()
        finally:
            self._archive.epochs.leave(self._place)


def header_of_file(found: Found, transfer_syntax_uid: str, charset: str) -> Header | str:
    """The header of a whole file, or "C000 …" where none can be read. `charset`: of one that declares none."""
    try:
        with (
            mmap.mmap(found.descriptor, 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
            whole[found.offset :] as dataset,
        ):
            return read_header(dataset, transfer_syntax_uid, charset)
    except Rejected as error:
        return f"{error.status:04X} {error.comment}"


def _unusable(header: Header, request: StoreRequest) -> str:
    """Why the object is not what was announced ("A900 …"); "" when it is."""
    attributes = header.attributes
    for keyword, said in (("SOPClassUID", request.sop_class_uid), ("SOPInstanceUID", request.sop_instance_uid)):
        if attributes.get(keyword) != (said,):
            return f"A900 {keyword} of data set and command differ"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        uid = next(iter(attributes.get(keyword, ())), "")
        if not uids.is_safe(uid):
            return f"A900 {keyword} is absent or no UID"
    return ""
