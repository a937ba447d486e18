"""For tests of proof: an archive of pynetdicom that takes images and answers storage commitment, in its ways."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
PATIENCE_S = 30.0
How = Literal["same", "early", "later", "release", "abort", "refuse", "silent"]
"""The answer on the same association after or before the response, on one of its own, or none."""


@dataclass
class ArchivePeer:
    """Says that it has the instances of `has` (all of them where it is None). `told`: the statuses of its reports."""

    has: set[str] | None = None
    how: How = "same"
    syntaxes: Sequence[str] = tuple(SYNTAXES)
    ae_title: str = "ARCHIVE"
    calls: tuple[str, int, str] = ("127.0.0.1", 0, "PACSNODE")
    forget: set[str] = field(default_factory=set)
    port: int = 0
    asked: list[list[str]] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    sockets: list[Any] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[ArchivePeer]:
        """Until the end of the block."""
        ae = AE(self.ae_title)
        ae.add_supported_context(StorageCommitmentPushModel, list(self.syntaxes))
        handlers = [(evt.EVT_N_ACTION, self._acted), (evt.EVT_CONN_OPEN, self._note)]
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None
        self.port = int(server.socket.getsockname()[1])
        try:
            yield self
            self.wait()
        finally:
            server.shutdown()
            server.server_close()
            for left in self.sockets:
                left.close()

    def _note(self, event: Any) -> None:
        self.sockets.append(event.assoc.dul.socket.socket)

    def wait(self) -> None:
        """Until it has told what it had to tell."""
        for thread in self.threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _acted(self, event: Any) -> tuple[int, None]:
        said = event.action_information
        items = list(said.ReferencedSOPSequence)
        self.asked.append([str(item.ReferencedSOPInstanceUID) for item in items])
        if self.how == "refuse":
            return 0x0110, None
        event_type, answer = self.answer(str(said.TransactionUID), items)
        association = event.assoc
        if self.how == "early":
            self._send(association, event_type, answer)
        elif self.how != "silent":
            self._spawn(association, event_type, answer)
        return 0x0000, None

    def answer(self, transaction_uid: str, items: Sequence[Dataset]) -> tuple[int, Dataset]:
        """Event type and data set; what is in `forget` is in neither sequence."""
        answer, safe, failed = Dataset(), [], []
        answer.TransactionUID = transaction_uid
        for item in items:
            uid = str(item.ReferencedSOPInstanceUID)
            one = Dataset()
            one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = item.ReferencedSOPClassUID, uid
            if uid in self.forget:
                continue
            if self.has is None or uid in self.has:
                safe.append(one)
            else:
                one.FailureReason = 0x0112
                failed.append(one)
        if failed:
            answer.FailedSOPSequence = failed
        if safe:
            answer.ReferencedSOPSequence = safe
        return (2 if failed else 1), answer

    def _spawn(self, association: Any, event_type: int, answer: Dataset) -> None:
        """After the response: pynetdicom sends it when the handler has returned."""

        def tell() -> None:
            time.sleep(0.2)
            if self.how == "same":
                self._send(association, event_type, answer)
            elif self.how == "abort":
                association.abort()
            elif self.how == "release":
                association.release()
            elif self.how == "later":
                association.abort()
                self.call(event_type, answer)

        self.threads.append(threading.Thread(target=tell))
        self.threads[-1].start()

    def call(self, event_type: int, answer: Dataset, *, roles: bool = True) -> None:
        """Tell it on an association of its own, as SCP of storage commitment."""
        from pynetdicom import build_role

        host, port, called = self.calls
        ae = AE(self.ae_title)
        ae.add_requested_context(StorageCommitmentPushModel, list(self.syntaxes))
        role = [build_role(StorageCommitmentPushModel, scu_role=False, scp_role=True)] if roles else []
        association = ae.associate(host, port, ae_title=called, ext_neg=role)
        assert association.is_established
        self.sockets.append(association.dul.socket.socket)
        context = association.accepted_contexts[0]
        assert (context.as_scu, context.as_scp) == ((False, True) if roles else (True, False))
        self._send(association, event_type, answer)
        association.release()

    def _send(self, association: Any, event_type: int, answer: Dataset) -> None:
        status, _ = association.send_n_event_report(
            answer, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.told.append(int(status.Status))
