"""Storage commitment in the background: requests checked against the disk, results told to who asked (PS3.4 J.3.3).

In: requests that the ledger holds. Out: N-EVENT-REPORTs, on the association of the request while it is there, else on
one that we ask the peer for. One thread checks, and one for each peer to which something is owed tells: a peer that is
down delays no other. A crash at any point tells a result twice at worst. Never polls.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pacsnode.database import utc_us
from pacsnode.dimse.association import Association, Timeouts
from pacsnode.dimse.commands import Status
from pacsnode.dimse.tls import Outgoing
from pacsnode.errors import Permanent, Transient
from pacsnode.receive import commitment
from pacsnode.receive.commitment import COMMITMENT_INSTANCE, EXPLICIT_VR
from pacsnode.receive.ledger import Commitment, Ledger
from pacsnode.receive.mailbox import Mailbox, Report
from pacsnode.receive.negotiation import COMMITMENT, NORMALISED_TRANSFER_SYNTAXES
from pacsnode.receive.verification import Verifier
from pacsnode.telemetry import Log

log = Log(__name__)

AFTER_ERROR_S: Final = 30.0
_TIMEOUTS: Final = Timeouts(connect_s=10, acse_s=30, pdu_s=30, dimse_s=60)


@dataclass(frozen=True)
class Destination:
    """Where a peer takes the results of its requests."""

    host: str
    port: int
    ae_title: str
    tls: Outgoing | None = field(default=None, compare=False)


Locate = Callable[[Commitment], Destination]
"""Where the result of a request goes, by the rules file as it is now. Raises Permanent with what a person must do."""


@dataclass(frozen=True)
class Route:
    """The association on which a request came, and the presentation context in it."""

    mailbox: Mailbox
    context_id: int
    transfer_syntax_uid: str


class Reporter:
    """`start`, then `asked` for each request that was entered; `close` leaves what is owed to the next start."""

    def __init__(self, ledger: Ledger, verifier: Verifier, locate: Locate) -> None:
        self._ledger = ledger
        self._verifier = verifier
        self._locate = locate
        self._lock = threading.Lock()
        self._routes: dict[int, Route] = {}
        self._offered: dict[int, tuple[Mailbox, Report]] = {}
        self._bells: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self._unchecked = threading.Event()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Go on with what an earlier process left."""
        self._ledger.resume()
        self._unchecked.set()
        self._spawn("commitment checks", self._check_all)
        for peer in self._ledger.owed_to():
            self._ring(peer)

    def close(self, grace_s: float) -> None:
        """Let every thread end after its present file or message."""
        self._stopping.set()
        self._unchecked.set()
        with self._lock:
            bells, threads = list(self._bells.values()), list(self._threads)
        for bell in bells:
            bell.set()
        until = time.monotonic() + grace_s
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def asked(self, id: int, route: Route) -> None:
        """A request was entered in the ledger; its result may go back on `route`."""
        route.mailbox.open()
        with self._lock:
            self._routes[id] = route
        self._unchecked.set()

    # checks

    def _check_all(self) -> None:
        while not self._stopping.is_set():
            self._unchecked.wait()
            self._unchecked.clear()  # before the look: what is entered during it rings again
            try:
                while not self._stopping.is_set() and (asked := self._ledger.unchecked()):
                    self._check(asked)
                with self._lock:
                    routes = list(self._routes)
                for id in routes:  # failed at once, for a Transaction UID in use: nothing was to be checked
                    self._offer(id)
            except Exception:  # the thread must not end: nothing would be committed any more, in silence
                log.exception("a storage commitment request was not checked; it is tried again")
                self._stopping.wait(AFTER_ERROR_S)
                self._unchecked.set()

    def _check(self, asked: Commitment) -> None:
        failures = self._verifier.failures(asked, self._stopping.is_set)
        if failures is None:
            return
        self._ledger.checked(asked.id, failures)
        log.info(
            "storage commitment checked",
            peer=asked.peer,
            transaction=asked.transaction_uid,
            instances=len(failures),
            failed=sum(map(bool, failures)),
        )
        self._offer(asked.id)

    # on the association of the request

    def _offer(self, id: int) -> None:
        owed = self._ledger.get(id)
        if owed is None:
            return
        with self._lock:
            route = self._routes.pop(id, None)
        if route is not None:
            event_type_id, data_set = commitment.encode(owed.transaction_uid, owed.results, route.transfer_syntax_uid)
            report = Report(route.context_id, event_type_id, data_set, lambda status: self._answered(owed, status))
            with self._lock:
                self._offered[id] = route.mailbox, report
            if not route.mailbox.put(report):
                self._ledger.due_now(id)
        else:
            self._ledger.due_now(id)
        self._ring(owed.peer)

    def _answered(self, owed: Commitment, status: Status | None) -> None:
        """The association of the request told: taken, refused, or it has ended."""
        with self._lock:
            self._offered.pop(owed.id, None)
        try:
            if status is not None and (status.is_success or status.is_warning):
                self._taken(owed)
                return
            self._ledger.due_now(owed.id)
            self._ring(owed.peer)
        except sqlite3.Error as error:  # it stays owed, and is told again on an association of ours
            log.error("the answer to a storage commitment result is lost", peer=owed.peer, reason=error)

    # on an association of ours

    def _ring(self, peer: str) -> None:
        """Have the thread of `peer` look at what is due, and make one where there is none."""
        with self._lock:
            bell = self._bells.get(peer)
            if bell is None and not self._stopping.is_set():
                bell = self._bells[peer] = threading.Event()
                self._spawn(f"commitment reports {peer}", self._tell_all, peer, bell)
            if bell is not None:
                bell.set()

    def _spawn(self, name: str, target: Callable[..., None], *arguments: object) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _tell_all(self, peer: str, bell: threading.Event) -> None:
        """Tell what is due, sleep until more is; end when nothing is owed."""
        while not self._stopping.is_set():
            bell.clear()
            try:
                self._tell_due(peer)
                with self._lock:  # so that nobody rings between the look and the end
                    due = self._ledger.next_due_utc_us(peer)
                    if due is None:
                        del self._bells[peer]
                        return
                sleep_s = max(0.0, (due - utc_us()) / 1e6)
            except Exception:  # the thread must not end: a result would be owed for ever in silence
                log.exception("storage commitment not reported; it is tried again", peer=peer)
                sleep_s = AFTER_ERROR_S
            bell.wait(sleep_s)

    def _tell_due(self, peer: str) -> None:
        while not self._stopping.is_set() and (due := self._ledger.due(peer)):
            places: dict[tuple[str, Destination], list[Commitment]] = {}
            for owed in due:
                self._withdraw(owed.id)
                try:
                    places.setdefault((owed.called_ae_title, self._locate(owed)), []).append(owed)
                except Permanent as error:
                    self._postpone([owed], str(error))
            for (our_ae_title, place), batch in places.items():
                self._tell(our_ae_title, place, batch)

    def _withdraw(self, id: int) -> None:
        with self._lock:
            offered = self._offered.pop(id, None)
        if offered is not None:
            mailbox, report = offered
            mailbox.withdraw(report)

    def _tell(self, our_ae_title: str, place: Destination, batch: list[Commitment]) -> None:
        """Tell results of one peer in one association, as the SCP that asked for it (PS3.4 J.3.3.1.2)."""
        left = {owed.id: owed for owed in batch}
        contexts = ((COMMITMENT, NORMALISED_TRANSFER_SYNTAXES),)
        where = place.host, place.port, our_ae_title, place.ae_title
        try:
            with Association.request(*where, contexts, _TIMEOUTS, tls=place.tls, scp_of=(COMMITMENT,)) as association:
                syntax = next((syntax for _, syntax in association.accepted), EXPLICIT_VR)
                for owed in batch:
                    event_type_id, data_set = commitment.encode(owed.transaction_uid, owed.results, syntax)
                    status = association.event_report(COMMITMENT, COMMITMENT_INSTANCE, event_type_id, data_set)
                    del left[owed.id]
                    self._told(owed, status)
        except (Transient, Permanent) as error:
            self._postpone(list(left.values()), str(error))

    def _told(self, owed: Commitment, status: Status) -> None:
        if status.is_success or status.is_warning:
            self._taken(owed)
        else:
            self._postpone([owed], f"the peer answered {status}")

    def _taken(self, owed: Commitment) -> None:
        self._ledger.reported(owed.id)
        with self._lock:
            bell = self._bells.get(owed.peer)
        if bell is not None:
            bell.set()  # it waits in vain for the time of the next attempt
        log.info("storage commitment reported", peer=owed.peer, transaction=owed.transaction_uid)

    def _postpone(self, owed: list[Commitment], reason: str) -> None:
        given_up = self._ledger.postpone([one.id for one in owed], reason)
        for one in owed:
            event = "storage commitment given up" if one.id in given_up else "storage commitment not reported yet"
            log.warning(event, peer=one.peer, transaction=one.transaction_uid, attempt=one.attempts + 1, reason=reason)
