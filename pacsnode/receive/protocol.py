"""One association that a peer asked for, from its request to its end: C-ECHO and C-STORE (PS3.7 9.1, 9.3).

In: a connection, who may do what, the archive. Out: instances handed to the archive, one answer a request. Answers
0x0000 only after the archive's `commit`; never decodes a data set, never logs what is in one.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pacsnode.dicom.uids import is_safe
from pacsnode.dimse import associate, commands, pdus
from pacsnode.dimse.commands import CommandSet, Status
from pacsnode.dimse.pdus import Aborted, AssociationLost, ProtocolViolation, ReleaseRequested
from pacsnode.dimse.transport import Transport
from pacsnode.errors import Rejected
from pacsnode.handover import InstanceWriter, ObjectStore, Stored, StoreRequest
from pacsnode.receive.admission import (
    BY_ACSE,
    BY_PRESENTATION,
    PERMANENT,
    STORE,
    TRANSIENT,
    Admission,
    Admitted,
    Refused,
)
from pacsnode.receive.counters import Counters
from pacsnode.receive.negotiation import Negotiated, is_storage, negotiate

_log: Final = logging.getLogger(__name__)

_AFFECTED_SOP_CLASS_UID: Final = 0x0000_0002
_AFFECTED_SOP_INSTANCE_UID: Final = 0x0000_1000


@dataclass(frozen=True)
class TimeLimits:
    """For the whole A-ASSOCIATE-RQ, for each PDU, between two messages, and for the peer to close at the end."""

    request_s: float = 10.0
    pdu_s: float = 30.0
    idle_s: float = 300.0
    linger_s: float = 2.0


@dataclass(frozen=True)
class Service:
    """What every association of a server shares. `on_stored` is called after each commit and must not raise."""

    admission: Admission
    store: ObjectStore
    on_stored: Callable[[StoreRequest, Stored], None]
    counters: Counters
    limits: TimeLimits


class AcceptedAssociation:
    """One connection of a peer. `run` returns when it is over; `cancel` ends it from another thread."""

    def __init__(self, transport: Transport, address: str, service: Service, claim: Callable[[], bool]) -> None:
        self._transport = transport
        self._address = address
        self._service = service
        self._claim = claim
        self._between_messages = True
        self._stopping = False
        self._calling_ae_title = self._called_ae_title = ""

    def run(self) -> None:
        """Negotiate, serve, end: by release, by the peer's abort, or by ours."""
        try:
            established = self._establish()
            if established is not None:
                self._serve(*established)
        except ReleaseRequested:
            self._last_word(pdus.RELEASE_RP_PDU)
        except Aborted as aborted:
            _log.info("%s from %s: %s", self._calling_ae_title, self._address, aborted)
        except AssociationLost as lost:
            self._service.counters.lost()
            _log.warning("association of %r from %s ended: %s", self._calling_ae_title, self._address, lost)
            reason = lost.reason if isinstance(lost, ProtocolViolation) else pdus.NOT_SPECIFIED
            self._last_word(pdus.abort_pdu(pdus.BY_PROVIDER, reason))
        finally:
            self._transport.close(linger_s=self._service.limits.linger_s)

    def finish(self) -> None:
        """Take no further message: end now if none is on its way, else after its answer."""
        self._stopping = True
        if self._between_messages:
            self._transport.cancel()

    def cancel(self) -> None:
        """End at the next wait, even inside a message."""
        self._stopping = True
        self._transport.cancel()

    def _last_word(self, pdu: bytes) -> None:
        with contextlib.suppress(AssociationLost):  # the peer has gone already
            self._transport.send(pdu)

    # association request

    def _establish(self) -> tuple[Admitted, Negotiated] | None:
        """Answer the A-ASSOCIATE-RQ; None when it was rejected."""
        limits = self._service.limits
        kind, pdu = self._transport.read_pdu(limit=pdus.LONGEST_ASSOCIATE_BYTES, wait_s=limits.request_s)
        if kind != pdus.ASSOCIATE_RQ:
            raise ProtocolViolation("the first PDU is no association request", pdus.UNEXPECTED_PDU)
        version, self._called_ae_title, self._calling_ae_title = associate.titles(pdu)
        try:
            admitted = self._service.admission.admit(self._calling_ae_title, self._called_ae_title, self._address)
            if not version & 1:
                raise Refused(PERMANENT, BY_ACSE, 2, "another protocol version")
            negotiated = negotiate(pdu[associate.ITEMS_OFFSET :])
            if negotiated.application_context != associate.APPLICATION_CONTEXT:
                raise Refused(PERMANENT, 1, 2, "another application context")
            if not self._claim():
                raise Refused(TRANSIENT, BY_PRESENTATION, 2, "as many associations as the node allows")
        except Refused as refused:
            self._service.counters.rejected()
            _log.warning("association of %r from %s rejected: %s", self._calling_ae_title, self._address, refused)
            self._last_word(pdus.reject_pdu(refused.result, refused.source, refused.reason))
            return None
        self._service.counters.accepted()
        echoed = pdu[10 : associate.ITEMS_OFFSET]  # AE titles and reserved bytes as received (PS3.8 table 9-17)
        accept = negotiated.accept_pdu
        self._transport.send(accept[:10] + echoed + accept[associate.ITEMS_OFFSET :])
        return admitted, negotiated

    # messages

    def _serve(self, admitted: Admitted, negotiated: Negotiated) -> None:
        while not self._stopping:
            context_id, command = self._read_command()
            if context_id not in negotiated.contexts:
                raise ProtocolViolation("a message on a context that was not accepted")
            if command.command_field & commands.RESPONSE:
                raise ProtocolViolation("a response to nothing")
            if command.command_field == commands.C_CANCEL_RQ:
                continue  # nothing of ours lasts long enough to be cancelled, and a cancel has no response
            if command.command_field == commands.C_STORE_RQ:
                self._store(context_id, command, admitted, negotiated)
                continue
            if command.has_data_set:
                self._drain(context_id)
            if command.command_field == commands.C_ECHO_RQ:
                self._service.counters.echoed()
                self._answer(context_id, negotiated, commands.response(command, Status(commands.SUCCESS)))
            else:
                unknown = Status(commands.UNRECOGNISED_OPERATION, "only C-ECHO and C-STORE are served here")
                self._answer(context_id, negotiated, commands.response(command, unknown))
        raise AssociationLost("the node is stopping")

    def _read_command(self) -> tuple[int, CommandSet]:
        data = b""
        self._between_messages = True
        if self._stopping:  # asked between the check of the loop and the line above
            raise AssociationLost("the node is stopping")
        while True:
            fragments = self._transport.read_fragments(wait_s=self._service.limits.idle_s)
            self._between_messages = False
            if not fragments.is_command:
                raise ProtocolViolation("a data set without a command")
            data += b"".join(fragments.pieces)
            if len(data) > commands.LONGEST_COMMAND_BYTES:
                raise ProtocolViolation("a command set that is too long")
            if fragments.is_last:
                return fragments.context_id, commands.parse(data)

    def _pieces(self, context_id: int) -> tuple[list[memoryview], bool]:
        """The next pieces of the data set of a command on `context_id`, and whether they are the last."""
        fragments = self._transport.read_fragments(wait_s=self._service.limits.pdu_s)
        if fragments.is_command or fragments.context_id != context_id:
            raise ProtocolViolation("a command is not followed by its data set")
        return fragments.pieces, fragments.is_last

    def _drain(self, context_id: int) -> None:
        while not self._pieces(context_id)[1]:
            pass

    def _answer(self, context_id: int, negotiated: Negotiated, response: bytes) -> None:
        self._transport.send(pdus.command_pdus(context_id, response, negotiated.maximum_length))

    # C-STORE

    def _store(self, context_id: int, command: CommandSet, admitted: Admitted, negotiated: Negotiated) -> None:
        request = StoreRequest(
            sop_class_uid=command.affected_sop_class_uid,
            sop_instance_uid=command.affected_sop_instance_uid,
            transfer_syntax_uid=negotiated.contexts[context_id][1],
            calling_ae_title=self._calling_ae_title,
            called_ae_title=self._called_ae_title,
            address=self._address,
            peer=admitted.peer,
            issuer=admitted.issuer,
        )
        refusal = _refusal(command, admitted)
        if refusal is not None:
            if command.has_data_set:
                self._drain(context_id)
            status, offending_element = refusal
            self._service.counters.refused()
            self._answer(context_id, negotiated, commands.response(command, status, offending_element))
            return
        stored, status = self._receive_object(context_id, request)
        try:
            self._answer(context_id, negotiated, commands.response(command, status))
        finally:
            if stored is not None:
                self._service.on_stored(request, stored)

    def _receive_object(self, context_id: int, request: StoreRequest) -> tuple[Stored | None, Status]:
        """Hand the data set to the archive; one the archive will not have is read to its end all the same."""
        transfer = _Transfer(self._service.store)
        try:
            transfer.begin(request)
            is_last = False
            while not is_last:
                pieces, is_last = self._pieces(context_id)
                transfer.write(pieces)
            transfer.commit()
        finally:
            transfer.abandon()
        if transfer.stored is None:
            self._service.counters.refused()
            _log.warning("object of %r not stored: %s", self._calling_ae_title, transfer.failure)
        else:
            self._service.counters.stored(transfer.byte_count)
        return transfer.stored, transfer.failure or Status(commands.SUCCESS)


class _Transfer:
    """One object on its way to the archive. What the archive raises becomes the status of the answer, not an exception:
    this is the edge at which an error of ours must not end the peer's association."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._writer: InstanceWriter | None = None
        self.stored: Stored | None = None
        self.failure: Status | None = None
        self.byte_count = 0

    def begin(self, request: StoreRequest) -> None:
        with self._as_status():
            self._writer = self._store.begin(request)

    def write(self, pieces: list[memoryview]) -> None:
        if self._writer is None:
            return
        with self._as_status():
            self._writer.write(pieces)
            self.byte_count += sum(map(len, pieces))
        if self.failure is not None:
            self.abandon()

    def commit(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with self._as_status():
                self.stored = writer.commit()

    def abandon(self) -> None:
        """Forget an object that was not committed; without effect after `commit`."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with self._as_status():
                writer.abort()

    @contextlib.contextmanager
    def _as_status(self) -> Iterator[None]:
        try:
            yield
        except Rejected as rejected:
            self.failure = Status(rejected.status, rejected.comment)
        except OSError as error:
            _log.error("the archive failed: %s at %s", error.strerror, _place(error))
            self.failure = Status(Rejected.OUT_OF_RESOURCES, "the archive cannot write now")
        except Exception as error:  # noqa: BLE001  # the DIMSE edge
            _log.error("the archive failed: %s at %s", type(error).__name__, _place(error))
            self.failure = Status(commands.PROCESSING_FAILURE, "internal error, see the log of the node")


def _place(error: BaseException) -> str:
    """Where it was raised. Not its text, which may quote the data set."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"


def _refusal(command: CommandSet, admitted: Admitted) -> tuple[Status, int] | None:
    """The status, and the offending element or 0, of a C-STORE request that is refused before the archive sees it."""
    if STORE not in admitted.may:
        return Status(commands.NOT_AUTHORISED, "this peer may not store here"), 0
    sop_class_uid = command.affected_sop_class_uid
    if not is_safe(sop_class_uid) or not is_storage(sop_class_uid):
        return Status(commands.SOP_CLASS_NOT_SUPPORTED, "not a storage SOP class"), _AFFECTED_SOP_CLASS_UID
    if not is_safe(command.affected_sop_instance_uid):
        invalid = Status(commands.INVALID_OBJECT_INSTANCE, "the SOP Instance UID is not a UID")
        return invalid, _AFFECTED_SOP_INSTANCE_UID
    if not command.has_data_set:
        return Status(Rejected.CANNOT_UNDERSTAND, "a C-STORE request without a data set"), 0
    return None
