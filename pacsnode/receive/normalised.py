"""The N-operations that peers send beside images: who may, where it goes, which status is the answer. What a peer asks
of us is an N-ACTION, what it tells of its work an N-CREATE or N-SET, what it answers to us an N-EVENT-REPORT.

In: a command with its data set, and the association that it came on. Out: a durable entry, then the status. Nothing
here waits for a disk to be read or a peer to be called: that is the reporter's.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from dataclasses import dataclass
from typing import Final

from pacsnode.archive.confirmations import Confirmations
from pacsnode.dimse import commands
from pacsnode.dimse.commands import CommandSet, Status
from pacsnode.errors import Rejected
from pacsnode.receive import commitment
from pacsnode.receive.admission import STORE, Admitted, Caller
from pacsnode.receive.commitment import LONGEST_REQUEST_BYTES
from pacsnode.receive.evidence import Evidence
from pacsnode.receive.ledger import Ledger
from pacsnode.receive.mailbox import Mailbox
from pacsnode.receive.negotiation import AVAILABILITY_NOTIFICATION, COMMITMENT, PERFORMED_PROCEDURE_STEP
from pacsnode.receive.reporter import Reporter, Route
from pacsnode.telemetry import Log

log = Log(__name__)

COMMIT: Final = "commit"
"""The permission in `Admitted.may` that a commitment request needs; what is told as evidence needs `STORE`."""

LONGEST_DATA_SET_BYTES: Final = LONGEST_REQUEST_BYTES
_SERVED: Final = {
    (COMMITMENT, commands.N_ACTION_RQ): COMMIT,
    (COMMITMENT, commands.N_EVENT_REPORT_RQ): "",
    (PERFORMED_PROCEDURE_STEP, commands.N_CREATE_RQ): STORE,
    (PERFORMED_PROCEDURE_STEP, commands.N_SET_RQ): STORE,
    (AVAILABILITY_NOTIFICATION, commands.N_CREATE_RQ): STORE,
}
"""Permission by SOP class of the presentation context and operation; "": who was asked may answer."""


@dataclass(frozen=True)
class Notice:
    """One N-operation of a peer; `data_set` is None where it was longer than may be."""

    command: CommandSet
    data_set: bytes | None
    context_id: int
    abstract_syntax: str
    transfer_syntax_uid: str
    caller: Caller
    mailbox: Mailbox


class Notices:
    """Takes what peers ask and tell; shared by all associations."""

    def __init__(self, ledger: Ledger, reporter: Reporter, evidence: Evidence, confirmations: Confirmations) -> None:
        self._ledger = ledger
        self._reporter = reporter
        self._evidence = evidence
        self._confirmations = confirmations

    def take(self, notice: Notice, admitted: Admitted) -> bytes:
        """The response, once all that it promises is durable."""
        command = notice.command
        try:
            uid = self._take(notice, admitted)
        except Rejected as rejected:
            log.warning("notice refused", peer=admitted.peer, reason=rejected)
            return commands.response(command, Status(rejected.status, rejected.comment))
        except (OSError, sqlite3.OperationalError) as error:  # no room, or busy for long
            log.error("notice not taken", peer=admitted.peer, reason=error)
            return commands.response(command, Status(commands.RESOURCE_LIMITATION, "the node cannot write now"))
        except Exception:  # the DIMSE edge: an error of ours must not end the peer's association
            log.exception("notice not taken", peer=admitted.peer)
            failed = Status(commands.PROCESSING_FAILURE, "internal error, see the log of the node")
            return commands.response(command, failed)
        return commands.response(dataclasses.replace(command, affected_sop_instance_uid=uid), Status(commands.SUCCESS))

    def _take(self, notice: Notice, admitted: Admitted) -> str:
        command, syntax = notice.command, notice.transfer_syntax_uid
        permission = _SERVED.get((notice.abstract_syntax, command.command_field))
        if permission is None:
            raise Rejected(commands.UNRECOGNISED_OPERATION, "no operation of this SOP class that is served here")
        if permission and permission not in admitted.may:
            raise Rejected(commands.NOT_AUTHORISED, f"this peer may not do this here: may: [{permission}]")
        if command.affected_sop_class_uid != notice.abstract_syntax:
            raise Rejected(commands.NO_SUCH_SOP_CLASS, "not the SOP class of the presentation context")
        if notice.data_set is None:
            raise Rejected(commands.RESOURCE_LIMITATION, f"a data set above {LONGEST_DATA_SET_BYTES >> 20} MB")
        if command.command_field == commands.N_EVENT_REPORT_RQ:
            self._confirmations.take(admitted.peer, command, notice.data_set, syntax)
            return command.affected_sop_instance_uid
        if command.command_field != commands.N_ACTION_RQ:
            return self._evidence.take(admitted.peer, notice.caller, command, notice.data_set, syntax)
        transaction_uid, references = commitment.parse(command, notice.data_set, syntax)
        id = self._ledger.enter(admitted.peer, notice.caller, transaction_uid, references)
        self._reporter.asked(id, Route(notice.mailbox, notice.context_id, syntax))
        return command.affected_sop_instance_uid
