"""Proof that a peer holds what we hold: storage commitment, as the side that asks (PS3.4 Annex J).

In: instances and the peer that is the archive. Out: questions, and what it answers on the same association; what it
tells later, on an association of its own, the receiving process takes. Never sends an image, never removes one.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from pacsnode.archive.confirmations import Asked, Confirmations
from pacsnode.dimse import commands, pdus
from pacsnode.dimse.association import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Association,
    Timeouts,
)
from pacsnode.dimse.commands import CommandSet, Status
from pacsnode.dimse.commitment import (
    COMMITMENT,
    COMMITMENT_INSTANCE,
    LONGEST_DATA_SET_BYTES,
    REQUEST_COMMITMENT,
    encode_request,
)
from pacsnode.dimse.pdus import AssociationLost, ProtocolViolation, ReleaseRequested, TimedOut
from pacsnode.dimse.tls import Credentials
from pacsnode.errors import Permanent, Rejected, Transient, Unsupported
from pacsnode.peers import Peer
from pacsnode.telemetry import Log

log = Log(__name__)

MOST_IN_ONE: Final = 500
"""Instances in one question: some archives refuse longer ones."""
ANSWER_WITHIN_S: Final = 10.0
"""How long the association stays open for an answer; afterwards the archive has to call us."""
LOOK_EVERY_S: Final = 0.25
"""How soon whoever waits for an answer gives way."""
_TIMEOUTS: Final = Timeouts(connect_s=10, acse_s=30, pdu_s=30, dimse_s=60)
_CONTEXTS: Final = ((COMMITMENT, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)),)

Take = Callable[[CommandSet, bytes, str], None]
"""Keeps an N-EVENT-REPORT: command, data set, transfer syntax. Raises Rejected with the status of the answer."""


@dataclass
class Outcome:
    """What came of asking: instances in questions that the archive took, and questions still without an answer."""

    asked: int = 0
    unanswered: int = 0
    questions: list[str] = field(default_factory=list, compare=False)
    """Their Transaction UIDs, in the order of the instances."""


@dataclass(frozen=True)
class Asker:
    """Who asks, and what he remembers it in. Once `stopping` is true no further question is put.

    Once `gives_way` is true no answer is waited for: somebody needs the association.
    """

    calling_ae_title: str
    credentials: Credentials
    confirmations: Confirmations
    stopping: Callable[[], bool]
    gives_way: Callable[[], bool] = lambda: False
    answer_within_s: float = ANSWER_WITHIN_S


def ask(archive: Peer, asker: Asker, instances: Iterator[Asked]) -> Outcome:
    """Ask `archive` about `instances`, in one association, and wait a little for its answers.

    Raises Transient or Permanent when it cannot be asked; what it answered before that is kept.
    """
    first = list(islice(instances, MOST_IN_ONE))
    if not first:
        return Outcome()
    if archive.obstacle or archive.port is None:
        raise Permanent(f"peer {archive.name} cannot be asked: {archive.obstacle}")
    kept = asker.confirmations
    with _Asking.request(
        archive.host,
        archive.port,
        asker.calling_ae_title,
        archive.ae_title,
        _CONTEXTS,
        _TIMEOUTS,
        tls=asker.credentials.toward(archive),
    ) as association:
        if not association.accepted:
            association.release()  # it did nothing wrong
            raise Unsupported(f"peer {archive.name} does not accept Storage Commitment ({COMMITMENT})")

        def take(command: CommandSet, data_set: bytes, transfer_syntax_uid: str) -> None:
            kept.take(archive.name, command, data_set, transfer_syntax_uid)

        outcome, batch = Outcome(), first
        while batch and not asker.stopping():
            outcome.questions.append(_put(association, archive, kept, batch, take))
            outcome.asked += len(batch)
            batch = list(islice(instances, MOST_IN_ONE))

        def is_enough() -> bool:
            return asker.stopping() or asker.gives_way()

        while any(map(kept.is_open, outcome.questions)) and association.hear(take, asker.answer_within_s, is_enough):
            continue
    outcome.unanswered = sum(map(kept.is_open, outcome.questions))
    return outcome


def _put(association: _Asking, archive: Peer, kept: Confirmations, batch: Sequence[Asked], take: Take) -> str:
    """Put one question; its Transaction UID. It is remembered first: the answer may overtake the response."""
    transaction_uid = kept.ask(archive.name, batch)
    try:
        status = association.ask(transaction_uid, batch, take)
    except (Transient, Permanent):
        kept.withdraw(transaction_uid)
        raise
    if not (status.is_success or status.is_warning):
        kept.withdraw(transaction_uid)
        raise Unsupported(f"peer {archive.name} does not take a storage commitment request: {status}")
    return transaction_uid


class _Asking(Association):
    """An association on which the peer, too, may send a request: its N-EVENT-REPORT."""

    def ask(self, transaction_uid: str, instances: Sequence[Asked], take: Take) -> Status:
        """N-ACTION; how the peer answered. Reports that come before the answer are taken."""
        ((abstract_syntax, transfer_syntax),) = self.accepted
        data_set = encode_request(transaction_uid, [one.reference for one in instances], transfer_syntax)
        with self._aborting():
            self._message_id = self._message_id % 0xFFFF + 1
            names = abstract_syntax, COMMITMENT_INSTANCE, REQUEST_COMMITMENT
            prefix = self._command(commands.action_request(self._message_id, *names))
            self._transport.send_message(prefix, self._id, io.BytesIO(data_set), self._maximum_length)
            while True:
                command, told = self._message(self._timeouts.dimse_s)
                if command.command_field == commands.N_EVENT_REPORT_RQ:
                    self._answer_report(command, told, take)
                elif (command.command_field, command.message_id) == (commands.N_ACTION_RSP, self._message_id):
                    return command.status
                else:
                    raise ProtocolViolation("the peer answered something that was not asked")

    def hear(self, take: Take, within_s: float, is_enough: Callable[[], bool]) -> bool:
        """Wait for one report; False when none comes any more on this association, or it is enough."""
        until_s = time.monotonic() + within_s
        try:
            while (heard := self._heard()) is None:
                if is_enough() or time.monotonic() >= until_s:
                    return False
        except ReleaseRequested:
            self._transport.send(pdus.RELEASE_RP_PDU)
            self._transport.close()
            self._open = False
            return False
        except AssociationLost as lost:  # whatever it did not say it may tell on an association of its own
            log.info("the archive ended the association", reason=lost)
            self.abort()
            return False
        command, told = heard
        if command.command_field != commands.N_EVENT_REPORT_RQ:
            raise ProtocolViolation("the peer sent something that is no N-EVENT-REPORT")
        with self._aborting():
            self._answer_report(command, told, take)
        return True

    def _heard(self) -> tuple[CommandSet, bytes] | None:
        """A message, None when none begins for a moment; one that begins is waited for."""
        try:
            return self._message(LOOK_EVERY_S)
        except TimedOut:
            return None

    @property
    def _id(self) -> int:
        """The one context that was proposed."""
        return self._context(COMMITMENT, "")

    def _command(self, command: bytes) -> bytes:
        return pdus.command_pdus(self._id, command, self._maximum_length)

    def _answer_report(self, command: CommandSet, data_set: bytes, take: Take) -> None:
        status = Status(commands.SUCCESS)
        try:
            take(command, data_set, next(syntax for _, syntax in self.accepted))
        except Rejected as rejected:
            log.warning("an answer of the archive is not taken", reason=rejected)
            status = Status(rejected.status, rejected.comment)
        self._transport.send(self._command(commands.response(command, status)))

    def _message(self, wait_s: float) -> tuple[CommandSet, bytes]:
        """The next message whole, its data set b"" where it has none."""
        command = commands.parse(self._part(wait_s, commands.LONGEST_COMMAND_BYTES, is_command=True))
        if not command.has_data_set:
            return command, b""
        return command, self._part(self._timeouts.pdu_s, LONGEST_DATA_SET_BYTES, is_command=False)

    def _part(self, wait_s: float, longest_bytes: int, *, is_command: bool) -> bytes:
        data, is_last = bytearray(), False
        while not is_last:
            fragments = self._transport.read_fragments(wait_s=wait_s)
            if fragments.is_command is not is_command:
                raise ProtocolViolation("command set and data set of the peer do not follow one another")
            data += b"".join(fragments.pieces)
            if len(data) > longest_bytes:
                raise ProtocolViolation("the peer's answer is too long")
            is_last = fragments.is_last
        return bytes(data)
