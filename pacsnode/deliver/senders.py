"""One sender thread for each destination to which something is owed: a dead destination delays no other.

A thread sleeps until something is due or `wake` is called; it never polls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pacsnode.database import utc_us
from pacsnode.deliver import destinations
from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.ready import Convert, Learn, Locate, Route, cannot_convert, learn_nothing
from pacsnode.dimse.tls import NO_CREDENTIALS, Credentials
from pacsnode.peers import Peer
from pacsnode.telemetry import Log

log = Log(__name__)

LONGEST_SLEEP_S = 300.0
AFTER_ERROR_S = 30.0


class Senders:
    """Threads by destination. `find_peer` and `forbidden` (see `Route`) answer as the rules file has it now."""

    def __init__(
        self,
        outbox: Outbox,
        calling_ae_title: str,
        find_peer: Callable[[str], Peer | None],
        locate: Locate,
        forbidden: Callable[[Owed, Peer], str],
        credentials: Credentials = NO_CREDENTIALS,
        convert: Convert = cannot_convert,
        learn: Learn = learn_nothing,
    ) -> None:
        self._outbox = outbox
        self._find_peer = find_peer
        self._stopping = threading.Event()
        self._route = Route(calling_ae_title, locate, forbidden, self._stopping.is_set, credentials, convert, learn)
        self._lock = threading.Lock()
        self._threads: dict[str, tuple[threading.Thread, threading.Event]] = {}

    def wake(self) -> None:
        """Something was owed, retried or reconfigured: every destination with a debt looks now."""
        for destination in self._outbox.destinations():
            self._thread(destination)[1].set()

    def stop(self, grace_s: float) -> None:
        """Let every thread end after its present object; what is left stays owed."""
        self._stopping.set()
        with self._lock:
            threads = list(self._threads.values())
        for _, bell in threads:
            bell.set()
        until = time.monotonic() + grace_s
        for thread, _ in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _thread(self, destination: str) -> tuple[threading.Thread, threading.Event]:
        with self._lock:
            if destination not in self._threads:
                bell = threading.Event()
                thread = threading.Thread(
                    target=self._run, args=(destination, bell), name=f"sender {destination}", daemon=True
                )
                self._threads[destination] = thread, bell
                thread.start()
            return self._threads[destination]

    def _run(self, destination: str, bell: threading.Event) -> None:
        while True:
            bell.clear()  # before the look at `_stopping`, which is set before the bell
            if self._stopping.is_set():
                return
            try:
                self._deliver_due(destination)
                sleep_s = self._sleep_s(destination)
            except Exception:  # a sender that ends would owe for ever in silence
                log.exception("sender failed; it goes on", destination=destination)
                sleep_s = AFTER_ERROR_S
            bell.wait(sleep_s)

    def _deliver_due(self, destination: str) -> None:
        while not self._stopping.is_set() and (owed := self._outbox.due(destination)):
            peer = self._find_peer(destination)
            if peer is None:
                for one in owed:
                    self._outbox.park(one, f"the rules file has no peer {destination}; enter it, then retry")
                continue
            destinations.deliver(self._outbox, owed, peer, self._route)

    def _sleep_s(self, destination: str) -> float:
        due = self._outbox.next_due_utc_us(destination)
        if due is None:
            return LONGEST_SLEEP_S
        return min(LONGEST_SLEEP_S, max(0.0, (due - utc_us()) / 1e6))
