"""One association that a peer asked for, from its request to its end: C-ECHO, C-STORE (PS3.7 9.1, 9.3), N-operations.

In: a connection, who may do what, the archive. Out: instances handed to the archive, one answer a request. Answers
0x0000 only after the archive's `commit`; never decodes a data set, never logs what is in one.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pacsnode.dicom.uids import is_safe
from pacsnode.dimse import associate, commands, pdus
from pacsnode.dimse.commands import CommandSet, Status
from pacsnode.dimse.pdus import (
    LEAST_RATE,
    Aborted,
    AssociationLost,
    LeastRate,
    ProtocolViolation,
    ReleaseRequested,
)
from pacsnode.dimse.tls import why_failed
from pacsnode.dimse.transport import Transport
from pacsnode.errors import Rejected
from pacsnode.handover import ObjectStore, Stored, StoreRequest
from pacsnode.receive.admission import (
    ANSWER,
    BY_ACSE,
    PERMANENT,
    STORE,
    Admission,
    Admitted,
    Caller,
    Refused,
)
from pacsnode.receive.counters import Counters
from pacsnode.receive.mailbox import Mailbox
from pacsnode.receive.negotiation import NORMALISED, Negotiated, is_storage, negotiate
from pacsnode.receive.normalised import LONGEST_DATA_SET_BYTES, Notice, Notices
from pacsnode.receive.transfer import Transfer

_log: Final = logging.getLogger(__name__)

_AFFECTED_SOP_CLASS_UID: Final = 0x0000_0002
_AFFECTED_SOP_INSTANCE_UID: Final = 0x0000_1000


@dataclass(frozen=True)
class TimeLimits:
    """For a TLS handshake and for the A-ASSOCIATE-RQ, for each PDU, between two messages, and for the peer to close at
    the end; and how slowly a message may come."""

    request_s: float = 10.0
    pdu_s: float = 30.0
    idle_s: float = 300.0
    linger_s: float = 2.0
    least_rate: LeastRate = LEAST_RATE


@dataclass(frozen=True)
class Service:
    """What every association of a server shares. `on_stored` is called after each commit and must not raise.

    Without `notices`, N-operations are answered as unknown.
    """

    admission: Admission
    store: ObjectStore
    on_stored: Callable[[StoreRequest, Stored], None]
    counters: Counters
    limits: TimeLimits
    notices: Notices | None = None


class AcceptedAssociation:
    """One connection of a peer. `run` returns when it is over; `cancel` ends it from another thread."""

    def __init__(
        self,
        transport: Transport,
        address: str,
        service: Service,
        claim: Callable[[AcceptedAssociation, Admitted], None],
        tls_context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._transport = transport
        self._address = address
        self._service = service
        self._claim = claim
        self._tls_context = tls_context
        self._between_messages = True
        self._stopping = False
        self._calling_ae_title = self._called_ae_title = ""
        self._mailbox: Mailbox | None = None

    def run(self) -> None:
        """Negotiate, serve, end: by release, by the peer's abort, or by ours."""
        try:
            established = self._establish() if self._secured() else None
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
            if self._mailbox is not None:
                self._mailbox.close()
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

    def _secured(self) -> bool:
        """Whether the line is what its port is for. The handshake is here, where a silent peer holds its own thread."""
        if self._tls_context is None:
            return True
        try:
            self._transport.secure(self._tls_context(), wait_s=self._service.limits.request_s)
        except OSError as error:
            self._service.counters.lost()
            reason = (
                f"no TLS: {'the handshake takes too long' if isinstance(error, TimeoutError) else why_failed(error)}"
            )
            _log.warning("connection from %s ended: %s", self._address, reason)
            self._service.admission.refused(Caller("", "", self._address, tls=True), reason)
            return False
        return True

    def _establish(self) -> tuple[Admitted, Negotiated] | None:
        """Answer the A-ASSOCIATE-RQ; None when it was rejected."""
        limits = self._service.limits
        kind, pdu = self._transport.read_pdu(limit=pdus.LONGEST_ASSOCIATE_BYTES, wait_s=limits.request_s)
        if kind != pdus.ASSOCIATE_RQ:
            raise ProtocolViolation("the first PDU is no association request", pdus.UNEXPECTED_PDU)
        version, self._called_ae_title, self._calling_ae_title = associate.titles(pdu)
        titles = self._calling_ae_title, self._called_ae_title
        caller = Caller(*titles, self._address, self._tls_context is not None, self._transport.certificate)
        try:
            admitted = self._service.admission.admit(caller)
            if not version & 1:
                raise Refused(PERMANENT, BY_ACSE, 2, "another protocol version")
            negotiated = negotiate(pdu[associate.ITEMS_OFFSET :])
            if negotiated.application_context != associate.APPLICATION_CONTEXT:
                raise Refused(PERMANENT, 1, 2, "another application context")
            self._claim(self, admitted)
        except Refused as refused:
            self._service.counters.rejected()
            _log.warning("association of %r from %s rejected: %s", self._calling_ae_title, self._address, refused)
            self._service.admission.refused(caller, str(refused))
            self._last_word(pdus.reject_pdu(refused.result, refused.source, refused.reason))
            return None
        self._service.counters.accepted()
        echoed = pdu[10 : associate.ITEMS_OFFSET]  # AE titles and reserved bytes as received (PS3.8 table 9-17)
        accept = negotiated.accept_pdu
        self._transport.send(accept[:10] + echoed + accept[associate.ITEMS_OFFSET :])
        return admitted, negotiated

    # messages

    def _serve(self, admitted: Admitted, negotiated: Negotiated) -> None:
        mailbox = self._mailbox = Mailbox(self._transport, negotiated.maximum_length)
        while not self._stopping:
            context_id, command = self._read_command(mailbox)
            if context_id not in negotiated.contexts:
                raise ProtocolViolation("a message on a context that was not accepted")
            if command.command_field & commands.RESPONSE:
                if not mailbox.answered(command):
                    raise ProtocolViolation("a response to nothing")
                if command.has_data_set:
                    self._drain(context_id)
                continue
            if command.command_field == commands.C_CANCEL_RQ:
                continue  # nothing of ours lasts long enough to be cancelled, and a cancel has no response
            if command.command_field == commands.C_STORE_RQ:
                self._store(context_id, command, admitted, negotiated)
                continue
            if self._service.notices is not None and negotiated.contexts[context_id][0] in NORMALISED:
                notice = self._notice(context_id, command, negotiated, mailbox)
                self._answer(context_id, negotiated, self._service.notices.take(notice, admitted))
                continue
            if command.has_data_set:
                self._drain(context_id)
            if command.command_field == commands.C_ECHO_RQ:
                self._service.counters.echoed()
                self._answer(context_id, negotiated, commands.response(command, commands.DONE))
            else:
                unknown = Status(commands.UNRECOGNISED_OPERATION, "only C-ECHO and C-STORE are served here")
                self._answer(context_id, negotiated, commands.response(command, unknown))
        raise AssociationLost("the node is stopping")

    def _read_command(self, mailbox: Mailbox) -> tuple[int, CommandSet]:
        data = b""
        self._between_messages = True
        if self._stopping:  # asked between the check of the loop and the line above
            raise AssociationLost("the node is stopping")
        wait_s = mailbox.attend(self._service.limits.idle_s)
        while True:
            fragments = self._transport.read_fragments(wait_s=wait_s)
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

    def _notice(self, context_id: int, command: CommandSet, negotiated: Negotiated, mailbox: Mailbox) -> Notice:
        """An N-operation with its data set, which is small: where it is not, it is read to its end and forgotten."""
        data: bytearray | None = bytearray()
        is_last = not command.has_data_set
        while not is_last:
            pieces, is_last = self._pieces(context_id)
            if data is not None and len(data) + sum(map(len, pieces)) <= LONGEST_DATA_SET_BYTES:
                data += b"".join(pieces)
            else:
                data = None
        caller = Caller(self._calling_ae_title, self._called_ae_title, self._address)
        data_set = None if data is None else bytes(data)
        return Notice(command, data_set, context_id, *negotiated.contexts[context_id], caller, mailbox)

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
            charset=admitted.charset,
            is_answer=STORE not in admitted.may,
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
        transfer = Transfer(self._service.store)
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
        return transfer.stored, transfer.failure or commands.DONE


def _refusal(command: CommandSet, admitted: Admitted) -> tuple[Status, int] | None:
    """The status, and the offending element or 0, of a C-STORE request that is refused before the archive sees it."""
    if not admitted.may & {STORE, ANSWER}:
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
