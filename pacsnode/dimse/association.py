"""The side that asks for an association: C-ECHO, C-STORE, C-FIND, N-ACTION and N-EVENT-REPORT to a peer.

In: where the peer is, what to propose, data sets as files. Out: accepted contexts, the peer's statuses. Raises
Transient for what a later try may cure, Permanent for what a person must, each with a sentence for that person.
Never transcodes, never logs.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

from pacsnode.dimse import associate, commands, pdus, requesting
from pacsnode.dimse.associate import MOST_CONTEXTS
from pacsnode.dimse.commands import CommandSet, Status
from pacsnode.dimse.part10 import FileMeta, read_meta
from pacsnode.dimse.pdus import AssociationLost, ProtocolViolation
from pacsnode.dimse.tls import Outgoing
from pacsnode.dimse.transport import Transport
from pacsnode.errors import Permanent, Transient

VERIFICATION: Final = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
_DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
ECHO_CONTEXT: Final = (VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))

Context = tuple[str, tuple[str, ...]]
"""An abstract syntax and the transfer syntaxes proposed for it."""


@dataclass(frozen=True)
class Timeouts:
    """How long to wait for a peer: to connect, for its A-ASSOCIATE answer, for one PDU, for the answer to a request."""

    connect_s: float = 10.0
    acse_s: float = 30.0
    pdu_s: float = 60.0
    dimse_s: float = 300.0


def contexts_for(pairs: Iterable[tuple[str, str]]) -> tuple[Context, ...]:
    """One context for each different (SOP class, transfer syntax): so the peer cannot pick a syntax that we lack.

    Raises Permanent for more than the 128 that one association has room for.
    """
    contexts = tuple((sop_class, (transfer_syntax,)) for sop_class, transfer_syntax in dict.fromkeys(pairs))
    if len(contexts) > MOST_CONTEXTS:
        raise Permanent(f"{len(contexts)} presentation contexts do not fit one association: send in several")
    return contexts


class Association:
    """One association that we asked for; as a context manager it is released at the end, aborted on an exception."""

    def __init__(
        self,
        transport: Transport,
        accepted: dict[tuple[str, str], int],
        maximum_length: int,
        timeouts: Timeouts,
        refused: Mapping[tuple[str, str], str] = MappingProxyType({}),
    ) -> None:
        self._transport = transport
        self._accepted = accepted
        self._refused = refused
        self._maximum_length = maximum_length
        self._timeouts = timeouts
        self._message_id = 0
        self._open = True

    @classmethod
    def request(
        cls,
        host: str,
        port: int,
        calling_ae_title: str,
        called_ae_title: str,
        contexts: Sequence[Context],
        timeouts: Timeouts = Timeouts(),
        tls: Outgoing | None = None,
        scp_of: Sequence[str] = (),
    ) -> Self:
        """Ask `called_ae_title` at `host`:`port` for an association, as the SCP of the SOP classes in `scp_of`.

        Raises Transient and Permanent. A peer that says nothing to our role is taken to agree, as many do.
        """
        if not 0 < len(contexts) <= MOST_CONTEXTS:
            raise Permanent(f"{len(contexts)} presentation contexts: an association has 1 to {MOST_CONTEXTS}")
        request = associate.encode_request(calling_ae_title, called_ae_title, contexts, scp_of)
        transport = Transport(requesting.connect(host, port, timeouts.connect_s), pdu_timeout_s=timeouts.pdu_s)
        try:
            if tls is not None:
                requesting.secure(transport, tls, timeouts.acse_s)
            transport.send(request)
            kind, answer = transport.read_pdu(limit=pdus.LONGEST_ASSOCIATE_BYTES, wait_s=timeouts.acse_s)
            items = requesting.accepted_items(kind, answer, calling_ae_title, called_ae_title)
            pdus.payload_bytes(items.maximum_length)
        except ProtocolViolation as violation:
            _abort(transport, violation.reason)
            raise
        except BaseException:
            transport.close()
            raise
        accepted = {}
        for index, (abstract_syntax, proposed) in enumerate(contexts):
            transfer_syntax = items.accepted.get(2 * index + 1)
            if transfer_syntax in proposed:
                accepted[abstract_syntax, transfer_syntax] = 2 * index + 1
        refused = requesting.refusals(contexts, items.refused)
        return cls(transport, accepted, items.maximum_length, timeouts, refused)

    @property
    def accepted(self) -> frozenset[tuple[str, str]]:
        """The (abstract syntax, transfer syntax) pairs that the peer takes."""
        return frozenset(self._accepted)

    @property
    def refused(self) -> Mapping[tuple[str, str], str]:
        """The (abstract syntax, transfer syntax) pairs that the peer does not take, with its reason in words."""
        return self._refused

    def echo(self) -> Status:
        """C-ECHO. Raises Permanent if Verification was not proposed or not accepted."""
        context_id = self._context(VERIFICATION, "")
        self._message_id = self._message_id % 0xFFFF + 1
        command = commands.echo_request(self._message_id, VERIFICATION)
        with self._aborting():
            self._transport.send(pdus.command_pdus(context_id, command, self._maximum_length))
            return self._answer(commands.C_ECHO_RSP)

    def store(
        self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, data_set: io.BufferedIOBase
    ) -> Status:
        """C-STORE of the bytes of `data_set` from its position to its end, as they are; what the peer answered.

        Raises Permanent if the peer does not accept this SOP class in this transfer syntax, Transient if it leaves.
        """
        context_id = self._context(sop_class_uid, transfer_syntax_uid)
        self._message_id = self._message_id % 0xFFFF + 1
        command = commands.store_request(self._message_id, sop_class_uid, sop_instance_uid)
        prefix = pdus.command_pdus(context_id, command, self._maximum_length)
        if transfer_syntax_uid == _DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
            data_set = _padded(data_set)
        with self._aborting():
            self._transport.send_message(prefix, context_id, data_set, self._maximum_length)
            return self._answer(commands.C_STORE_RSP)

    def store_file(self, path: Path, meta: FileMeta | None = None) -> Status:
        """C-STORE of a Part 10 file, its data set as it lies there. `meta`: where the file was read before."""
        with path.open("rb") as file:
            if meta is None:
                meta = read_meta(file)
            else:
                file.seek(meta.dataset_offset)
            return self.store(meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, file)

    def find(self, sop_class_uid: str, identifier: bytes, take: Callable[[bytes], None]) -> Status:
        """C-FIND; `take` gets the identifier of each match, b"" where the peer sent none. Raises as `store` does.

        The identifiers are in the accepted transfer syntax. What `take` raises aborts the association: no peer need
        be believed that there is an end.
        """
        context_id = self._context(sop_class_uid, "")
        self._message_id = self._message_id % 0xFFFF + 1
        command = commands.find_request(self._message_id, sop_class_uid)
        prefix = pdus.command_pdus(context_id, command, self._maximum_length)
        with self._aborting():
            self._transport.send_message(prefix, context_id, io.BytesIO(identifier), self._maximum_length)
            while True:
                answer = self._read_response(commands.C_FIND_RSP)
                match = self._read_data_set() if answer.has_data_set else b""
                if not answer.status.is_pending:
                    return answer.status
                take(match)

    def event_report(self, sop_class_uid: str, sop_instance_uid: str, event_type_id: int, data_set: bytes) -> Status:
        """N-EVENT-REPORT; `data_set` in the transfer syntax that was accepted. Raises as `store` does."""
        names = sop_class_uid, sop_instance_uid, event_type_id
        return self._normalised(commands.event_report_request, commands.N_EVENT_REPORT_RSP, names, data_set)

    def action(self, sop_class_uid: str, sop_instance_uid: str, action_type_id: int, data_set: bytes) -> Status:
        """N-ACTION; `data_set` in the transfer syntax that was accepted. Raises as `store` does."""
        names = sop_class_uid, sop_instance_uid, action_type_id
        return self._normalised(commands.action_request, commands.N_ACTION_RSP, names, data_set)

    def _normalised(
        self,
        encode: Callable[[int, str, str, int], bytes],
        response_field: int,
        names: tuple[str, str, int],
        data_set: bytes,
    ) -> Status:
        context_id = self._context(names[0], "")
        self._message_id = self._message_id % 0xFFFF + 1
        prefix = pdus.command_pdus(context_id, encode(self._message_id, *names), self._maximum_length)
        with self._aborting():
            self._transport.send_message(prefix, context_id, io.BytesIO(data_set), self._maximum_length)
            return self._answer(response_field)

    def cut(self) -> None:
        """End what another thread waits for on this association: it gets ConnectionLost."""
        self._transport.cancel()

    def release(self) -> None:
        """A-RELEASE and close. What was answered before stays true, whatever the peer does now."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(AssociationLost):
            self._transport.send(pdus.RELEASE_RQ_PDU)
            self._transport.read_pdu(limit=pdus.LONGEST_PDU_BYTES, wait_s=self._timeouts.acse_s)
        self._transport.close()

    def abort(self) -> None:
        """A-ABORT and close."""
        if self._open:
            self._open = False
            _abort(self._transport, pdus.NOT_SPECIFIED, source=pdus.BY_USER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.release()
        else:
            self.abort()

    def _context(self, abstract_syntax: str, transfer_syntax: str) -> int:
        """The id of the accepted context; any transfer syntax where "" is asked."""
        if not self._open:
            raise Transient("the association has ended")
        for (accepted_class, accepted_syntax), context_id in self._accepted.items():
            if accepted_class == abstract_syntax and transfer_syntax in ("", accepted_syntax):
                return context_id
        raise Permanent(f"the peer does not accept SOP class {abstract_syntax} in transfer syntax {transfer_syntax}")

    @contextlib.contextmanager
    def _aborting(self) -> Iterator[None]:
        try:
            yield
        except ProtocolViolation as violation:
            self._open = False
            _abort(self._transport, violation.reason)
            raise
        except BaseException:
            self.abort()
            raise

    def _answer(self, command_field: int) -> Status:
        """The response to the request just sent; the reply of an event or action (PS3.7 10.1.1.1.9) is skipped."""
        command = self._read_response(command_field)
        if command.has_data_set:
            if command_field not in (commands.N_ACTION_RSP, commands.N_EVENT_REPORT_RSP):
                raise ProtocolViolation("the peer answered with a data set")
            self._read_data_set()
        return command.status

    def _read_response(self, command_field: int) -> CommandSet:
        command = self._read_command()
        if command.command_field != command_field or command.message_id != self._message_id:
            raise ProtocolViolation("the peer answered something that was not asked")
        return command

    def _read_data_set(self) -> bytes:
        data, is_last = b"", False
        while not is_last:
            fragments = self._transport.read_fragments(wait_s=self._timeouts.pdu_s)
            data += b"".join(fragments.pieces)
            if fragments.is_command or len(data) > commands.LONGEST_COMMAND_BYTES:
                raise ProtocolViolation("the peer answered with something else than a short data set")
            is_last = fragments.is_last
        return data

    def _read_command(self) -> CommandSet:
        data = b""
        while True:
            fragments = self._transport.read_fragments(wait_s=self._timeouts.dimse_s)
            data += b"".join(fragments.pieces)
            if not fragments.is_command or len(data) > commands.LONGEST_COMMAND_BYTES:
                raise ProtocolViolation("the peer answered with something else than a command set")
            if fragments.is_last:
                return commands.parse(data)


def _padded(deflated: io.BufferedIOBase) -> io.BufferedIOBase:
    """A deflated data set of even length (PS3.5 A.5): not all files have it, and DCMTK aborts on an odd fragment."""
    data = deflated.read()
    return io.BytesIO(data + b"\0" * (len(data) & 1))


def _abort(transport: Transport, reason: int, *, source: int = pdus.BY_PROVIDER) -> None:
    with contextlib.suppress(AssociationLost):  # it has gone by itself
        transport.send(pdus.abort_pdu(source, reason))
    transport.close()
