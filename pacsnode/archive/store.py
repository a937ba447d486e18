"""The archive's way in: bytes to a durable file, then one group-committed row, and only then an answer.

`Archive.begin` gives a writer for one object. Rows of objects that wait at the same time share one transaction.
Never decodes a pixel; reads the header from the file after it was written.
"""

from __future__ import annotations

import mmap
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from pacsnode.archive import rows
from pacsnode.archive.epochs import Epochs
from pacsnode.archive.files import Arrival, NewFile, Piece, free_mb, meta_header, sync_folder
from pacsnode.database import boot_id, boot_us, connect, transaction, utc_us
from pacsnode.dicom import uids
from pacsnode.dicom.header import read_header
from pacsnode.errors import Rejected
from pacsnode.handover import Attributes, Stored, StoreRequest
from pacsnode.telemetry import Log

log = Log(__name__)

LARGEST_BATCH = 200
CHECKPOINT_EVERY_S = 1.0
FREE_SPACE_LOOK_EVERY_US = 500_000


@dataclass(frozen=True)
class _Waiting:
    row: rows.NewRow
    verdict: Future[Stored]


class Archive:
    """Files and index rows of one process. `close` commits what waits, then checkpoints and seals.

    `on_rows` is called after a commit, in the committing thread; it must not raise.
    """

    def __init__(
        self, files: Path, index_db: Path, owner: str, *, minimum_free_mb: int, on_rows: Callable[[], None]
    ) -> None:
        self.files = files
        self._minimum_free_mb = minimum_free_mb
        self._on_rows = on_rows
        self._index_db = index_db
        self._connection = connect(index_db, "NORMAL", automatic_checkpoint=False)
        self.epochs = Epochs(connect(index_db, "NORMAL", automatic_checkpoint=False), files, owner)
        self._boot_id = boot_id()
        self._free = (-FREE_SPACE_LOOK_EVERY_US, False)
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._dirty = threading.Event()
        self._closing = threading.Event()
        self._gate = threading.Lock()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._commit_rows, name="archive rows"),
            threading.Thread(target=self._checkpoint, name="archive checkpoint"),
        ]
        for thread in self._threads:
            thread.start()

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
        )
        return Writer(self, request, arrival, origin)

    def commit(self, row: rows.NewRow) -> Stored:
        """Index one durable file; returns after the transaction's commit. Raises Rejected: there is no row then."""
        waiting = _Waiting(row, Future())
        with self._gate:
            if self._closed:
                raise Rejected(Rejected.OUT_OF_RESOURCES, "the node is stopping, send again later")
            self._waiting.put(waiting)
        return waiting.verdict.result()

    def describe(self, request: StoreRequest, arrival: Arrival, file: Path, found: Found) -> rows.NewRow:
        """The row of a durable file: its header read, and compared with what the command set said (PS3.4 B.2.3)."""
        attributes, damaged, unusable = _read_attributes(found, request)
        return rows.NewRow(
            request.sop_class_uid,
            request.sop_instance_uid,
            request.transfer_syntax_uid,
            str(file.relative_to(self.files)),
            found.sha256,
            found.dataset_bytes,
            found.origin,
            arrival,
            boot_us(),
            self._boot_id,
            attributes,
            damaged,
            unusable,
        )

    def close(self) -> None:
        """Settle everything; what is begun or committed from now on is refused."""
        with self._gate:
            self._closed = True
            self._waiting.put(None)
        self._threads[0].join()
        self.epochs.close()
        self._closing.set()
        self._dirty.set()
        self._threads[1].join()
        self._connection.close()
        self.epochs.disconnect()

    def _commit_rows(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while len(batch) < LARGEST_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get())
            entries = [entry for entry in batch if entry is not None]
            if entries:
                self._commit_batch(entries)
            if len(entries) < len(batch):
                return

    def _commit_batch(self, entries: Sequence[_Waiting]) -> None:
        try:
            # One flush of a folder serves every file that was named in it meanwhile.
            for folder in {(self.files / entry.row.path).parent for entry in entries}:
                sync_folder(folder)
            with transaction(self._connection):
                verdicts = [rows.insert(self._connection, entry.row, self.files) for entry in entries]
        except Exception as error:  # each waiting store must be answered, whatever happened
            no_room = isinstance(error, sqlite3.OperationalError | OSError)
            if not no_room and len(entries) > 1:  # one of them is at fault, the others must not suffer for it
                for entry in entries:
                    self._commit_batch([entry])
                return
            log.exception("index rows not committed", rows=len(entries))
            for entry in entries:
                entry.verdict.set_exception(_refusal(error, no_room))
            return
        for entry, verdict in zip(entries, verdicts, strict=True):
            entry.verdict.set_result(verdict)
        self._dirty.set()
        if any(verdict.verdict == "stored" for verdict in verdicts):
            self._on_rows()

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


def _refusal(error: Exception, no_room: bool) -> Rejected:
    if no_room:
        refusal = Rejected(Rejected.OUT_OF_RESOURCES, "index not writable, send again later")
    else:
        refusal = Rejected(Rejected.CANNOT_UNDERSTAND, "cannot be indexed, see the log of the node")
    refusal.__cause__ = error
    return refusal


@dataclass(frozen=True)
class Found:
    """What is known of a data set's bytes: in the file of `descriptor`, from `offset` on."""

    descriptor: int
    offset: int
    sha256: str
    dataset_bytes: int
    origin: str


class Writer:
    """One object on its way in (handover.InstanceWriter)."""

    def __init__(self, archive: Archive, request: StoreRequest, arrival: Arrival, origin: str) -> None:
        self._archive = archive
        self._request = request
        self._arrival = arrival
        self._origin = origin
        self._meta = meta_header(request, arrival)
        self._epoch, folder = archive.epochs.enter()
        try:
            self._file = NewFile(folder)
        except BaseException:
            archive.epochs.leave(self._epoch)
            raise
        self._begun = False

    def write(self, pieces: Sequence[Piece]) -> None:
        """Append data set bytes. Raises Rejected (A700)."""
        if not self._begun:
            self._begun = True
            self._file.write_meta(self._meta)
        self._file.write(pieces)

    def commit(self) -> Stored:
        """Durable file, then row. Raises Rejected: A700 no room, A900 not what was announced, C000 not readable.

        What is refused with A900 or C000 is kept aside with its reason: the bytes stay.
        """
        try:
            if not self._file.dataset_bytes:
                raise Rejected(Rejected.CANNOT_UNDERSTAND, "no data set")
            self._file.keep()
            new = self._file
            found = Found(new.descriptor, len(self._meta), new.sha256.hexdigest(), new.dataset_bytes, self._origin)
            row = self._archive.describe(self._request, self._arrival, new.path, found)
            stored = self._archive.commit(row)
            self._file.close()
            if stored.verdict == "duplicate":
                self._file.drop()
        except Exception:  # no row: the peer keeps the object and sends it again
            self._file.drop()
            raise
        finally:
            self._archive.epochs.leave(self._epoch)
        if row.unusable:
            log.warning("kept aside", reason=row.unusable, peer=self._arrival.peer, path=row.path)
            status, comment = row.unusable.split(" ", 1)
            raise Rejected(int(status, 16), comment)
        if stored.verdict == "aside":
            log.warning("kept aside", reason=stored.comment, peer=self._arrival.peer, path=row.path)
        return stored

    @property
    def path(self) -> Path:
        """Where the file is after `commit`."""
        return self._file.path

    def abort(self) -> None:
        """The association ended before the object did."""
        try:
            self._file.drop()
        finally:
            self._archive.epochs.leave(self._epoch)


def _read_attributes(found: Found, request: StoreRequest) -> tuple[Attributes, tuple[str, ...], str]:
    """Attributes, repaired keywords, and why the object is unusable ("A900 …" or "C000 …"; "" when it is usable)."""
    try:
        with (
            mmap.mmap(found.descriptor, 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
            whole[found.offset :] as dataset,
        ):
            header = read_header(dataset, request.transfer_syntax_uid)
    except Rejected as error:
        return {}, (), f"{error.status:04X} {error.comment}"
    attributes = header.attributes
    for keyword, said in (("SOPClassUID", request.sop_class_uid), ("SOPInstanceUID", request.sop_instance_uid)):
        if attributes.get(keyword) != (said,):
            return attributes, header.damaged, f"A900 {keyword} of data set and command differ"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        uid = next(iter(attributes.get(keyword, ())), "")
        if not uids.is_safe(uid):
            return attributes, header.damaged, f"A900 {keyword} is absent or no UID"
    return attributes, header.damaged, ""
