"""For tests of delivery: a PACS of pynetdicom that misbehaves as it is told, and remembers what it took."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from tests.deliver.archives import ArchivePeer
from tests.deliver.nodes import SC

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


@dataclass
class ScriptedPacs(ArchivePeer):
    """Takes objects; `statuses` are its first answers, `aborts_at` the C-STOREs (from 1) at which it aborts instead.

    `has` (of ArchivePeer) is what it took, less what it `loses`: so many times each object. What it has it says by
    commitment where `commits`, and by query where `finds`.
    """

    commits: bool = False
    finds: bool = False
    statuses: list[int] = field(default_factory=list)
    aborts_at: set[int] = field(default_factory=set)
    loses: Counter[str] = field(default_factory=Counter)
    at_once: int = 10
    taken: list[str] = field(default_factory=list)
    stores: int = 0
    echoes: int = 0
    associations: int = 0
    rejected: int = 0
    open_now: int = 0
    most_open: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.has = set()
        self.gate.set()

    @contextmanager
    def running(self) -> Iterator[ScriptedPacs]:
        """Until the end of the block; it keeps its port and what it took."""
        ae = AE(self.ae_title)
        ae.maximum_associations = self.at_once
        ae.require_called_aet = True
        ae.add_supported_context(Verification)
        ae.add_supported_context(SC, SYNTAXES)
        if self.commits:
            ae.add_supported_context(StorageCommitmentPushModel, SYNTAXES)
        if self.finds:
            ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind, SYNTAXES)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, self._echo),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_ACTION, self._acted),
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_CONN_CLOSE, self._closed),
            (evt.EVT_REJECTED, self._rejected),
        ]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None
        self.port = int(server.socket.getsockname()[1])
        try:
            yield self
            self.wait()
        finally:
            self.gate.set()
            server.shutdown()
            server.server_close()
            for left in self.sockets:
                left.close()

    def _opened(self, event: Any) -> None:
        self._note(event)
        with self.lock:
            self.associations += 1
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)

    def _closed(self, event: Any) -> None:
        with self.lock:
            self.open_now -= 1

    def _rejected(self, event: Any) -> None:
        self.rejected += 1

    def _echo(self, event: Any) -> int:
        self.echoes += 1
        return 0x0000

    def _store(self, event: Any) -> int:
        self.gate.wait(30)
        with self.lock:
            self.stores += 1
            number = self.stores
            status = self.statuses.pop(0) if self.statuses else 0x0000
        if number in self.aborts_at:
            event.assoc.abort()
            return 0xC000
        if status in (0x0000, 0xB000):
            uid = str(event.request.AffectedSOPInstanceUID)
            self.taken.append(uid)
            assert self.has is not None
            if self.loses[uid]:
                self.loses[uid] -= 1
            else:
                self.has.add(uid)
        return status

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        assert asked.QueryRetrieveLevel == "IMAGE"
        for uid in sorted(self.has or ()):
            found = Dataset()
            found.QueryRetrieveLevel = "IMAGE"
            found.StudyInstanceUID, found.SeriesInstanceUID = asked.StudyInstanceUID, asked.SeriesInstanceUID
            found.SOPInstanceUID = uid
            yield 0xFF00, found
