"""Whether what a peer asks about is safe: in the index, on the disk, and the bytes that were received.

In: SOP class and instance UIDs. Out: a FailureReason for each, 0 where it is safe. Reads every file from the disk, not
from memory, and makes sure that it stays there; never changes one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from pacsnode.archive.digests import Digests
from pacsnode.archive.index import Copy, Index
from pacsnode.dimse import commands
from pacsnode.dimse.part10 import read_meta
from pacsnode.errors import Permanent
from pacsnode.receive.commitment import Reference
from pacsnode.receive.ledger import Commitment
from pacsnode.telemetry import Log

log = Log(__name__)


class Verifier:
    """Compares files with their rows; one object for one thread."""

    def __init__(self, files: Path, index_db: Path) -> None:
        self._files = files
        self._index = Index(index_db)
        self._digests = Digests(files, index_db)

    def close(self) -> None:
        """Give the connection back."""
        self._index.close()
        self._digests.close()

    def failures(self, asked: Commitment, stopping: Callable[[], bool]) -> list[int] | None:
        """The FailureReason of each reference (PS3.3 C.14), in their order; None when `stopping` in between."""
        found = []
        for reference in asked.references:
            if stopping():
                return None
            found.append(self._failure(reference, asked.peer))
        return found

    def _failure(self, reference: Reference, peer: str) -> int:
        self._digests.fill_instance(reference.sop_instance_uid)
        copies = self._index.copies(reference.sop_instance_uid, peer)
        if not copies:
            return commands.NO_SUCH_OBJECT_INSTANCE
        if copies[0].sop_class_uid != reference.sop_class_uid:
            return commands.CLASS_INSTANCE_CONFLICT
        for copy in copies:  # a peer that sent other bytes under the UID too may mean those
            why = self._why_unsafe(copy)
            if why:
                log.error("an image cannot be committed", path=copy.path, reason=why)
                return commands.PROCESSING_FAILURE
        return commands.SUCCESS

    def _why_unsafe(self, copy: Copy) -> str:
        try:
            with (self._files / copy.path).open("rb") as file:
                os.fsync(file.fileno())  # whatever was waited for when it was stored
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # read the disk, not the page cache
                meta = read_meta(file)
                file.seek(meta.dataset_offset)
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except Permanent as error:
            return str(error)
        except OSError as error:
            return f"the file cannot be read: {error.strerror}"
        return "" if digest == copy.dataset_sha256 else "the file is not what was received"
