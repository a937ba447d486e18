"""One object from an association into the archive, with every failure as a status of its answer.

In: pieces of a data set. Out: what the archive made of them, or a Status. Never decodes, never logs what is in it.
"""

from __future__ import annotations

import logging
import traceback
from typing import Final

from pacsnode.dimse import commands
from pacsnode.dimse.commands import Status
from pacsnode.errors import Rejected
from pacsnode.handover import InstanceWriter, ObjectStore, Stored, StoreRequest

_log: Final = logging.getLogger(__name__)


class Transfer:
    """One object on its way to the archive. What the archive raises becomes the status of the answer, not an exception:
    this is the edge at which an error of ours must not end the peer's association."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._writer: InstanceWriter | None = None
        self.stored: Stored | None = None
        self.failure: Status | None = None
        self.byte_count = 0

    def begin(self, request: StoreRequest) -> None:
        try:
            self._writer = self._store.begin(request)
        except Exception as error:  # noqa: BLE001  # the DIMSE edge
            self.failure = _status(error)

    def write(self, pieces: list[memoryview]) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write(pieces)
        except Exception as error:  # noqa: BLE001
            self.failure = _status(error)
            self.abandon()
            return
        for piece in pieces:
            self.byte_count += len(piece)

    def commit(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                self.stored = writer.commit()
            except Exception as error:  # noqa: BLE001
                self.failure = _status(error)

    def abandon(self) -> None:
        """Forget an object that was not committed; without effect after `commit`."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.abort()
            except Exception as error:  # noqa: BLE001
                self.failure = _status(error)


def _status(error: Exception) -> Status:
    if isinstance(error, Rejected):
        return Status(error.status, error.comment)
    if isinstance(error, OSError):
        _log.error("the archive failed: %s at %s", error.strerror, _place(error))
        return Status(Rejected.OUT_OF_RESOURCES, "the archive cannot write now")
    _log.error("the archive failed: %s at %s", type(error).__name__, _place(error))
    return Status(commands.PROCESSING_FAILURE, "internal error, see the log of the node")


def _place(error: BaseException) -> str:
    """Where it was raised. Not its text, which may quote the data set."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
