"""Results for a peer on the association on which it asked: put by another thread, sent by the association's own.

In: encoded N-EVENT-REPORTs. Out: messages, at a moment when the peer is quiet, and the peer's answers. Costs an
association that asked for no commitment nothing; never polls.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pacsnode.dimse import commands, pdus
from pacsnode.dimse.commands import CommandSet, Status
from pacsnode.dimse.transport import Transport
from pacsnode.receive.commitment import COMMITMENT_INSTANCE
from pacsnode.receive.negotiation import COMMITMENT

_QUIET_S: Final = 0.5
"""A peer that has just been answered sends its next object at once, and then expects no question of ours."""
_LEAST_WAIT_S: Final = 0.001


@dataclass(frozen=True)
class Report:
    """One result. `on_answer` gets the peer's status, or None when the association ended without one."""

    context_id: int
    event_type_id: int
    data_set: bytes
    on_answer: Callable[[Status | None], None]


class Mailbox:
    """The reports for one association; `put` and `withdraw` alone may be called by another thread."""

    def __init__(self, transport: Transport, maximum_length: int) -> None:
        self._transport = transport
        self._maximum_length = maximum_length
        self._lock = threading.Lock()
        self._reports: deque[Report] = deque()
        self._awaited: Report | None = None
        self._message_id = 0
        self._wake = -1
        self._closed = False

    def open(self) -> None:
        """A report will come: from now on `attend` looks for it."""
        with self._lock:
            if self._wake < 0 and not self._closed:
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def put(self, report: Report) -> bool:
        """Have it sent when the peer is quiet; False when the association has ended."""
        with self._lock:
            if self._closed or self._wake < 0:
                return False
            self._reports.append(report)
            os.eventfd_write(self._wake, 1)
            return True

    def withdraw(self, report: Report) -> None:
        """Do not send it any more; without effect once it was sent."""
        with self._lock:
            if report in self._reports:
                self._reports.remove(report)

    def attend(self, idle_s: float) -> float:
        """Return when the peer sends something, or after `idle_s`; send what is put meanwhile. The time that is left.

        Raises AssociationLost.
        """
        if self._wake < 0:
            return idle_s
        until = time.monotonic() + idle_s
        while (left_s := until - time.monotonic()) > 0:
            ready = bool(self._reports) and self._awaited is None
            started = time.monotonic()
            if self._transport.wait_for_input(self._wake, min(_QUIET_S, left_s) if ready else left_s):
                return left_s
            if ready and time.monotonic() - started >= _QUIET_S:
                self._send()
            self._clear()
        return _LEAST_WAIT_S

    def _clear(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:  # time was over, nobody woke us
            return

    def _send(self) -> None:
        with self._lock:
            if not self._reports:
                return
            report = self._awaited = self._reports.popleft()
        self._message_id = self._message_id % 0xFFFF + 1
        command = commands.event_report_request(self._message_id, COMMITMENT, COMMITMENT_INSTANCE, report.event_type_id)
        prefix = pdus.command_pdus(report.context_id, command, self._maximum_length)
        self._transport.send_message(prefix, report.context_id, io.BytesIO(report.data_set), self._maximum_length)

    def answered(self, response: CommandSet) -> bool:
        """Take the peer's response; False when nothing was asked that it could answer."""
        report = self._awaited
        if report is None or (response.command_field, response.message_id) != (
            commands.N_EVENT_REPORT_RSP,
            self._message_id,
        ):
            return False
        self._awaited = None
        report.on_answer(response.status)
        return True

    def close(self) -> None:
        """The association is over: what was not answered has to go another way."""
        with self._lock:
            self._closed = True
            left = [*([self._awaited] if self._awaited else ()), *self._reports]
            self._reports.clear()
            self._awaited = None
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1
        for report in left:
            report.on_answer(None)
