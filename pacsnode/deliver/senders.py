"""Threads of their own for each destination to which something is owed: a dead destination delays no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, tzinfo

from pacsnode.deliver.lane import Around, Lane
from pacsnode.deliver.outbox import Outbox
from pacsnode.deliver.proving import Proving
from pacsnode.deliver.ready import Route
from pacsnode.peers import Peer
from pacsnode.telemetry import Log

log = Log(__name__)


class Senders:
    """Lanes by destination. `find_peer` answers as the rules file has it now; without `proving` nothing is proven.

    `zone` is that of the hours of peers. The clock is the outbox's.
    """

    def __init__(
        self,
        outbox: Outbox,
        route: Route,
        find_peer: Callable[[str], Peer | None],
        proving: Proving | None = None,
        zone: tzinfo = UTC,
    ) -> None:
        self._outbox = outbox
        self._stopping = threading.Event()
        ours = replace(route, stopping=self._stopping.is_set)
        self._around = Around(outbox, ours, find_peer, proving, zone, self._stopping)
        self._lock = threading.Lock()
        self._lanes: dict[str, Lane] = {}
        if resumed := outbox.resume():
            log.info("deliveries that were cut off are owed again", instances=resumed)

    def wake(self) -> None:
        """Something was owed, retried, answered or reconfigured: every destination that it concerns looks now."""
        for destination in self._outbox.destinations():
            self._lane(destination).wake()
        for destination in self._outbox.unproven_destinations():
            self._lane(destination).wake_prover()

    def stop(self, grace_s: float) -> None:
        """Let running sends end; what is left is owed at the next start. The grace is for all threads together."""
        self._stopping.set()
        with self._lock:
            lanes = list(self._lanes.values())
        for lane in lanes:
            lane.stop()
        until = time.monotonic() + grace_s
        for thread in [thread for lane in lanes for thread in lane.threads]:
            thread.join(max(0.0, until - time.monotonic()))

    def _lane(self, destination: str) -> Lane:
        with self._lock:
            if destination not in self._lanes:
                self._lanes[destination] = Lane(destination, self._around)
            return self._lanes[destination]
