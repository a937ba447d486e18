"""Everything toward one destination: threads that send, one that asks for proof, its cap, its hours, its circuit.

A thread sleeps until something is due or `wake` is called; it never polls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Final

from pacsnode.deliver.destinations import Destinations
from pacsnode.deliver.outbox import LARGEST_BATCH, Outbox, Owed
from pacsnode.deliver.pace import Pace, Slots, opens_in_s, priority_now
from pacsnode.deliver.proving import Prover, Proving
from pacsnode.deliver.ready import Route
from pacsnode.deliver.ways import WAYS
from pacsnode.errors import ConfigError, Permanent, Transient
from pacsnode.peers import Peer
from pacsnode.telemetry import Log

log = Log(__name__)

LONGEST_SLEEP_S: Final = 300.0
AFTER_ERROR_S: Final = 30.0
LOOK_EVERY_S: Final = 1.0
"""Between two instances of a batch: whether an operator holds the destination by now, or its hours are over."""


@dataclass(frozen=True)
class Around:
    """What all lanes share. `find_peer` answers as the rules file has it now."""

    outbox: Outbox
    route: Route
    find_peer: Callable[[str], Peer | None]
    proving: Proving | None
    zone: tzinfo
    stopping: threading.Event


class Lane:
    """One destination. `wake` makes its threads look; they end when the node stops."""

    def __init__(self, name: str, around: Around) -> None:
        self._name = name
        self._around = around
        self._destinations = Destinations(around.outbox)
        self._slots = Slots()
        self._pace = Pace(around.stopping)
        self._lock = threading.Lock()
        self._bells: list[threading.Event] = []
        self._proof_bell: threading.Event | None = None
        self._in_hand: dict[int, list[Owed]] = {}
        """Claimed rows by the number of a thread; what an error of the database left there is concluded later."""
        self.threads: list[threading.Thread] = []

    def wake(self) -> None:
        """Something is owed, retried or reconfigured."""
        self._widen(1)
        for bell in self._bells:
            bell.set()

    def wake_prover(self) -> None:
        """Something is to be proven, or an answer may have come."""
        if self._around.proving is None:
            return
        with self._lock:
            if self._proof_bell is None:
                self._proof_bell = threading.Event()
                prover = Prover(self._name, self._around.outbox, self._around.proving, self._slots)
                self._spawn(f"prover {self._name}", self._proof_bell, lambda: self._prove(prover))
            self._proof_bell.set()

    def stop(self) -> None:
        """Let every thread see that the node stops."""
        for bell in (*self._bells, self._proof_bell):
            if bell is not None:
                bell.set()

    def _widen(self, at_once: int) -> None:
        """Have so many threads at least; those beyond what the rules file allows sleep."""
        with self._lock:
            while len(self._bells) < at_once:
                number, bell = len(self._bells), threading.Event()
                self._bells.append(bell)
                name = f"sender {self._name}" + (f" {number + 1}" if number else "")
                self._spawn(name, bell, lambda number=number: self._send_due(number))  # type: ignore[misc]

    def _spawn(self, name: str, bell: threading.Event, turn: Callable[[], float]) -> None:
        thread = threading.Thread(target=self._run, args=(bell, turn), name=name, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _run(self, bell: threading.Event, turn: Callable[[], float]) -> None:
        while True:
            bell.clear()  # before the look at `stopping`, which is set before the bell
            if self._around.stopping.is_set():
                return
            try:
                sleep_s = turn()
            except Exception:  # a thread that ends would owe for ever in silence
                log.exception("sender failed; it goes on", destination=self._name)
                sleep_s = AFTER_ERROR_S
            bell.wait(sleep_s)

    # --- sending

    def _send_due(self, number: int) -> float:
        """Send what is due; seconds to sleep then. The first of several threads alone deals with a closed circuit."""
        outbox = self._around.outbox
        if left := self._in_hand.get(number):
            outbox.conclude(left)
            del self._in_hand[number]
        while not self._around.stopping.is_set():
            peer = self._around.find_peer(self._name)
            if peer is None:
                self._park_due(f"the rules file has no peer {self._name}; enter it, then retry")
                return LONGEST_SLEEP_S
            if number >= peer.sends.at_once:
                return LONGEST_SLEEP_S
            now = outbox.now_us()
            priority = priority_now(peer.sends.between, now, self._around.zone)
            due = outbox.next_due_utc_us(self._name, priority)
            if due is None or due > now:
                return min(self._until(due), opens_in_s(peer.sends.between, now, self._around.zone) or LONGEST_SLEEP_S)
            trouble = self._destinations.trouble(self._name)
            if trouble is not None and (number or trouble.retry_utc_us > now):
                return LONGEST_SLEEP_S if number else self._until(trouble.retry_utc_us)
            if trouble is not None and not self._is_there(peer):
                continue
            if not number:
                self._widen(peer.sends.at_once)
            at_most = LARGEST_BATCH if trouble is None else 1
            if not self._send(number, peer, at_most, priority):
                return LOOK_EVERY_S  # what is due belongs to studies of which another thread sends something
        return 0.0

    def _until(self, utc_us: int | None) -> float:
        if utc_us is None:
            return LONGEST_SLEEP_S
        return min(LONGEST_SLEEP_S, max(0.0, (utc_us - self._around.outbox.now_us()) / 1e6))

    def _park_due(self, reason: str) -> None:
        while owed := self._around.outbox.claim(self._name):
            for one in owed:
                self._around.outbox.park(one, reason)

    def _is_there(self, peer: Peer) -> bool:
        """Half-open: one question, however much is owed, decides whether an instance is tried."""
        try:
            with self._slots.take(peer.sends.at_once, self._around.stopping):
                WAYS[peer.type].probe(peer, self._around.route)
        except (Transient, Permanent, ConfigError) as error:
            self._failed(str(error))
            return False
        return True

    def _failed(self, reason: str) -> None:
        self._destinations.failed(self._name, reason)
        while self._around.outbox.give_up(self._name, reason):
            continue

    def _send(self, number: int, peer: Peer, at_most: int, priority: int) -> bool:
        """One batch; False when there was nothing to claim."""
        outbox = self._around.outbox
        self._pace.kilobytes_per_s = peer.sends.kilobytes_per_s
        with self._slots.take(peer.sends.at_once, self._around.stopping):
            owed = [] if self._around.stopping.is_set() else outbox.claim(self._name, at_most, priority)
            if not owed:
                return False
            self._in_hand[number] = owed
            route = replace(self._around.route, stopping=self._breaks(peer, priority), pace=self._pace.wait)
            try:
                WAYS[peer.type].deliver(outbox, owed, peer, route)
            except Exception as error:
                outbox.postpone(owed, f"an error of the node itself, see its log: {type(error).__name__}")
                raise
            finally:
                outcome = outbox.conclude(owed)
                del self._in_hand[number]
        if outcome.answered:
            self._destinations.answered(self._name)
            self.wake_prover()
        elif outcome.reason:
            self._failed(outcome.reason)
        return True

    def _breaks(self, peer: Peer, priority: int) -> Callable[[], bool]:
        """Whether a batch ends before its next instance: the node stops, or the destination is to get no more now."""
        looked_s = time.monotonic()

        def breaks() -> bool:
            nonlocal looked_s
            if self._around.stopping.is_set():
                return True
            if time.monotonic() - looked_s < LOOK_EVERY_S:
                return False
            looked_s = time.monotonic()
            is_over = priority_now(peer.sends.between, self._around.outbox.now_us(), self._around.zone) < priority
            return is_over or self._around.outbox.is_held(self._name)

        return breaks

    # --- proof

    def _prove(self, prover: Prover) -> float:
        """Ask for what is due; seconds to sleep then."""
        while not self._around.stopping.is_set():
            if prover.take_answers():
                self.wake()  # what the peer has not is owed again
            due = prover.next_due_utc_us()
            if due is None or due > self._around.outbox.now_us():
                return self._until(due)
            trouble = self._destinations.trouble(self._name)
            if trouble is not None:
                return max(LOOK_EVERY_S, self._until(trouble.retry_utc_us))
            peer = self._around.find_peer(self._name)
            if peer is None or not prover.ask(peer, self._around.stopping):
                return AFTER_ERROR_S
            self.wake()
        return 0.0
