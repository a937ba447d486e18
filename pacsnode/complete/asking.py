"""Asks the senders of waiting cases how many images of the study they have, in one thread of its own.

In: questions, each to some peers. Out: what is known of their answers, at once; a ring when there is more. One question
at a time, so that a hundred waiting cases are no flood to a modality. Nothing is kept across a restart, and nothing of
studies that wait no more. Decides nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

from pacsnode.complete.policy import ANSWER_WITHIN_US, US_PER_S, Said
from pacsnode.database import boot_us
from pacsnode.dimse.find import Question
from pacsnode.errors import ConfigError, PacsnodeError, Permanent, Transient
from pacsnode.peers import SENDER, Directory, Peer
from pacsnode.telemetry import Log

log = Log(__name__)

AGAIN_AFTER_US: Final = (30 * US_PER_S, 120 * US_PER_S, 600 * US_PER_S)
"""How long until a study is asked for again, or a peer that failed is: the first time, the second, and from then on."""
MOST_TROUBLES: Final = 4096
CLOSE_WITHIN_S: Final = 1.0

Count = Callable[[Question, Peer], int | None]
"""`dimse.find.count_images`, for this node."""
_Key = tuple[str, Peer]


def askable(directory: Directory, senders: Iterable[str]) -> tuple[Peer, ...]:
    """The peers that can be asked for what `senders` sent: each itself, or whom its `reply_to` names."""
    found = (directory.destination(SENDER, sender) for sender in senders)
    return tuple(
        dict.fromkeys(peer for peer in found if peer is not None and peer.type == "dimse" and not peer.obstacle)
    )


@dataclass
class _Asking:
    """One study and one peer. `told`: its newest answer; `is_over`: none will come in time."""

    question: Question
    asked_boot_us: int
    told: int | None = None
    is_over: bool = False
    is_queued: bool = False
    times: int = 0
    not_before_us: int = 0


@dataclass(frozen=True)
class _Trouble:
    """A peer that failed so many times in a row, and until when it is left alone."""

    times: int
    until_us: int


class Asker:
    """May be used by several threads. `ring` is called after each answer, from the thread that asks."""

    def __init__(self, count: Count, ring: Callable[[], None], clock_us: Callable[[], int] = boot_us) -> None:
        self._count = count
        self._ring = ring
        self._clock_us = clock_us
        self._lock = threading.Lock()
        self._askings: dict[_Key, _Asking] = {}
        self._troubles: dict[Peer, _Trouble] = {}
        self._queue: SimpleQueue[_Key | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def said(self, study_instance_uid: str, peers: Sequence[Peer]) -> Said:
        """What is known now. Never waits."""
        with self._lock:
            found = [self._askings.get((study_instance_uid, peer)) for peer in peers]
            known = [asking for asking in found if asking is not None]
            if not known or len(known) < len(found):
                return Said()
            return Said(
                min(asking.asked_boot_us for asking in known),
                max((asking.told for asking in known if asking.told is not None), default=None),
                any(asking.told is None and not asking.is_over for asking in known),
            )

    def ask(self, question: Question, peers: Sequence[Peer], after_boot_us: int) -> None:
        """Ask, unless this is asked already or it is too early to ask again. Never waits.

        What was asked before `after_boot_us` is forgotten, with its answer.
        """
        with self._lock:
            now_us = self._clock_us()
            for peer in peers:
                key = question.study_instance_uid, peer
                asking = self._askings.get(key)
                if asking is None or asking.asked_boot_us < after_boot_us:
                    asking = self._askings[key] = _Asking(question, now_us)
                if not asking.is_queued and not asking.is_over and now_us >= asking.not_before_us:
                    asking.is_queued = True
                    self._queue.put(key)
            if (self._thread is None or not self._thread.is_alive()) and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="asking", daemon=True)
                self._thread.start()

    def keep(self, studies: Collection[str]) -> None:
        """Forget every study but these."""
        with self._lock:
            self._askings = {key: asking for key, asking in self._askings.items() if key[0] in studies}

    def close(self) -> None:
        """Ask nothing more. A question that is on its way is left to end by itself: nobody needs its answer."""
        self._stopping.set()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(CLOSE_WITHIN_S)

    def _run(self) -> None:
        while (key := self._queue.get()) is not None and not self._stopping.is_set():
            asking = self._taken(key)
            if asking is None:
                continue
            told: int | None = None
            failure: PacsnodeError | None = None
            try:
                told = self._count(asking.question, key[1])
            except (Transient, Permanent, ConfigError) as error:
                failure = error
            _log(key, told, failure)
            with self._lock:
                self._note(asking, key[1], told, failure)
            self._ring()

    def _taken(self, key: _Key) -> _Asking | None:
        """The question to put now; None where it was forgotten, or its peer is to be left alone."""
        with self._lock:
            asking = self._askings.get(key)
            if asking is None or not asking.is_queued:
                return None
            trouble = self._troubles.get(key[1])
            if trouble is None or trouble.until_us <= self._clock_us():
                return asking
            self._put_off(asking, trouble.until_us)
        self._ring()
        return None

    def _note(self, asking: _Asking, peer: Peer, told: int | None, failure: PacsnodeError | None) -> None:
        """Keep an answer, or that there is none. A peer that failed is spared for a while, whoever asks it."""
        now_us = self._clock_us()
        if failure is None:
            self._troubles.pop(peer, None)
            asking.told, asking.is_over = told, told is None
            self._put_off(asking, now_us + _pause_us(asking.times))
            return
        if len(self._troubles) >= MOST_TROUBLES:
            self._troubles.clear()
        before = self._troubles.get(peer, _Trouble(0, 0))
        pause_us = _pause_us(before.times) if isinstance(failure, Transient) else AGAIN_AFTER_US[-1]
        self._troubles[peer] = _Trouble(before.times + 1, now_us + pause_us)
        self._put_off(asking, now_us + pause_us)

    def _put_off(self, asking: _Asking, until_us: int) -> None:
        asking.is_queued = False
        asking.times += 1
        asking.not_before_us = until_us
        if asking.told is None and until_us >= asking.asked_boot_us + ANSWER_WITHIN_US:
            asking.is_over = True


def _pause_us(times: int) -> int:
    return AGAIN_AFTER_US[min(times, len(AGAIN_AFTER_US) - 1)]


def _log(key: _Key, told: int | None, failure: PacsnodeError | None) -> None:
    study, peer = key[0], key[1].name
    if failure is not None:
        log.warning("the sender cannot be asked what it has of a study", study=study, peer=peer, reason=failure)
    elif told is None:
        log.info("the sender does not say what it has of a study", study=study, peer=peer)
    else:
        log.info("the sender says what it has of a study", study=study, peer=peer, images=told)
