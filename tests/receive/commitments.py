"""For tests of storage commitment: a node with a real archive, and a modality of pynetdicom that asks and listens."""

from __future__ import annotations

import queue
import socket
import sqlite3
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from pacsnode.archive.store import Archive
from pacsnode.handover import Stored, StoreRequest
from pacsnode.peers import Directory, Peer
from pacsnode.receive import committing
from pacsnode.receive.protocol import TimeLimits
from pacsnode.receive.server import ListenOptions, Server, TlsPort
from pacsnode.settings import Settings
from tests.archive import homes
from tests.receive.doubles import CT, Door

PATIENCE_S = 30.0
MAY = frozenset({"store", "commit"})


@dataclass
class Site:
    """A home and the peers around it; `running` is one life of its receiving process."""

    settings: Settings
    port: int = 0
    callback_port: int | None = None
    host: str = "127.0.0.1"
    reply_to: Peer | None = None
    tls: TlsPort | None = None
    sockets: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        """pynetdicom leaves a socket open whose peer was the first to go."""
        for left in self.sockets:
            left.close()

    def peers(self) -> Directory:
        """MODALITY as the rules file would have it now."""
        peer = Peer(name="modality", ae_title="MODALITY", host=self.host, port=self.callback_port)
        if self.tls is not None:
            peer = peer.model_copy(update={"tls": True, "certificate": "CT 1"})
        if self.reply_to is None:
            return Directory({"modality": peer})
        peer = peer.model_copy(update={"reply_to": self.reply_to.name})
        return Directory({"modality": peer, self.reply_to.name: self.reply_to})

    @contextmanager
    def running(self, may: frozenset[str] = MAY, idle_s: float = 60.0) -> Iterator[Site]:
        """Server, archive and background threads, as `pacsnode scp` puts them together."""
        limits = TimeLimits(linger_s=0.5, idle_s=idle_s)
        listen = ListenOptions(host="127.0.0.1", port=0, limits=limits, tls=self.tls)
        with ExitStack() as stack:
            archive: Archive = homes.archive(self.settings)
            stack.callback(archive.close)
            notices = stack.enter_context(committing.notices(self.settings, self.peers))
            server = stack.enter_context(Server(listen, Door(may), archive, _nothing, notices))
            self.port = server.tls_port or server.port
            yield self

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What the index says."""
        connection = sqlite3.connect(self.settings.index_db, isolation_level=None)
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    def file_of(self, uid: str) -> Path:
        """Where the instance lies."""
        ((path,),) = self.rows("SELECT path FROM instances WHERE sop_instance_uid = ?", uid)
        return self.settings.files / str(path)


def _nothing(request: StoreRequest, stored: Stored) -> None:
    return


@dataclass(frozen=True)
class Result:
    """One N-EVENT-REPORT as the modality read it."""

    where: str
    event_type: int
    transaction_uid: str
    safe: list[str]
    failed: dict[str, int]
    roles: tuple[bool | None, bool | None] | None


@dataclass
class Modality:
    """Stores, asks, and remembers the results; `status` is what it answers to them."""

    site: Site
    results: queue.Queue[Result] = field(default_factory=queue.Queue)
    unanswered: queue.SimpleQueue[Result] = field(default_factory=queue.SimpleQueue)
    status: int = 0x0000
    syntax: str = ExplicitVRLittleEndian
    calls_with: ssl.SSLContext | None = None
    listens_with: ssl.SSLContext | None = None

    def associate(self, *, store: bool = False) -> Any:
        """An association for commitment, with storage in it or not."""
        ae = AE("MODALITY")
        ae.add_requested_context(StorageCommitmentPushModel, self.syntax)
        if store:
            ae.add_requested_context(CT, ExplicitVRLittleEndian)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._take, ["same"]), (evt.EVT_PDU_SENT, self._answered)]
        tls = None if self.calls_with is None else (self.calls_with, "127.0.0.1")
        where = "127.0.0.1", self.site.port
        association = ae.associate(*where, ae_title="PACSNODE", evt_handlers=handlers, tls_args=tls)
        assert association.is_established
        self.site.sockets.append(association.dul.socket.socket)
        return association

    @contextmanager
    def listening(self, port: int = 0) -> Iterator[None]:
        """Takes associations of the node, as SCU of storage commitment."""
        ae = AE("MODALITY")
        ae.add_supported_context(StorageCommitmentPushModel, self.syntax, scu_role=False, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self._take, ["new"]), (evt.EVT_PDU_SENT, self._answered)]
        handlers.append((evt.EVT_CONN_OPEN, self._note))
        where = "127.0.0.1", port
        server = ae.start_server(where, block=False, evt_handlers=handlers, ssl_context=self.listens_with)
        assert server is not None
        self.site.callback_port = int(server.socket.getsockname()[1])
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()

    def _note(self, event: Any) -> None:
        self.site.sockets.append(event.assoc.dul.socket.socket)

    def store(self, association: Any, uid: str) -> None:
        """C-STORE of a small CT."""
        whole = Dataset()
        whole.SpecificCharacterSet = "ISO_IR 192"
        whole.SOPClassUID, whole.SOPInstanceUID = CT, uid
        whole.StudyInstanceUID, whole.SeriesInstanceUID = "1.2.3", "1.2.3.1"
        whole.Modality, whole.PatientID, whole.PatientName = "CT", "4711", "Hong^Gildong"
        whole.add_new("PixelData", "OW", bytes(20_000))
        whole.ensure_file_meta()
        whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        assert association.send_c_store(whole).Status == 0x0000

    def ask(self, association: Any, uids: Sequence[str], transaction_uid: str = "", sop_class: str = CT) -> str:
        """N-ACTION that must be answered with success; the Transaction UID."""
        transaction_uid = transaction_uid or generate_uid()
        status, _ = association.send_n_action(
            request(transaction_uid, uids, sop_class), 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        assert status.Status == 0x0000, status
        return transaction_uid

    def result(self) -> Result:
        """The next result, once it is answered; raises queue.Empty where none comes.

        pynetdicom's own state machine fails where a release is asked for while the answer still waits to be sent.
        """
        return self.results.get(timeout=PATIENCE_S)

    def _take(self, event: Any, where: str) -> tuple[int, None]:
        said = event.event_information
        roles = event.assoc.requestor.role_selection.get(StorageCommitmentPushModel)
        self.unanswered.put(
            Result(
                where,
                event.event_type,
                said.TransactionUID,
                [str(item.ReferencedSOPInstanceUID) for item in said.get("ReferencedSOPSequence", [])],
                {str(i.ReferencedSOPInstanceUID): int(i.FailureReason) for i in said.get("FailedSOPSequence", [])},
                None if roles is None else (roles.scu_role, roles.scp_role),
            )
        )
        return self.status, None

    def _answered(self, event: Any) -> None:
        if isinstance(event.pdu, P_DATA_TF) and not self.unanswered.empty():
            self.results.put(self.unanswered.get())


def request(transaction_uid: str, uids: Sequence[str], sop_class: str = CT) -> Dataset:
    """The data set of an N-ACTION."""
    asked = Dataset()
    asked.TransactionUID = transaction_uid
    asked.ReferencedSOPSequence = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        asked.ReferencedSOPSequence.append(item)
    return asked
