"""Delivery by C-STORE: what is owed to one peer, over as few associations as there is room. Each row has its outcome.

A data set goes out as its stored bytes where the peer takes their transfer syntax. Where it takes Explicit or Implicit
VR Little Endian alone, the compute process writes it anew in that one: same SOP Instance UID, same pixel values. This
happens between two associations, since a peer does not wait for a conversion.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.uid import UID

from pacsnode.deliver.outbox import Outbox, Owed, Taken
from pacsnode.deliver.pace import Paced
from pacsnode.deliver.ready import Ready, Route, ready, settle
from pacsnode.dimse.associate import MOST_CONTEXTS
from pacsnode.dimse.association import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Association,
    contexts_for,
)
from pacsnode.dimse.commands import SOP_CLASS_NOT_SUPPORTED, Status
from pacsnode.dimse.part10 import FileMeta, read_meta
from pacsnode.errors import ConfigError, Permanent, Transient
from pacsnode.peers import Peer

FALLBACKS: Final = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""What an object is written anew in, in this order."""
MOST_CONVERTED_BYTES: Final = 1 << 30
"""So much lies in temporary files before it is sent."""
ENTER_TOGETHER: Final = 25
ENTER_WITHIN_S: Final = 0.25
LARGE_BYTES: Final = 4 << 20
"""Outcomes are entered so many in one transaction, so soon, and before an object that takes its time: each transaction
waits for the disk, which costs as much as sending a CT image does."""

Pair = tuple[str, str]
"""SOP class and transfer syntax."""


@dataclass(frozen=True)
class _Instead:
    """An object that the peer takes in this transfer syntax, not as it is stored."""

    one: Ready
    syntax: str


class _Sending:
    """Rows on their way to one peer. `left`: those without an outcome yet."""

    def __init__(self, outbox: Outbox, left: Sequence[Ready], peer: Peer, route: Route) -> None:
        self._outbox = outbox
        self._peer = peer
        self._route = route
        self._taken: list[Taken] = []
        self._taken_since_s = 0.0
        self.left = deque(left)
        self._offered: Ready | None = None

    def associate(self, pairs: Sequence[Pair]) -> Association:
        """An association for these pairs; what the peer says to each is remembered."""
        assert self._peer.port is not None
        association = Association.request(
            self._peer.host,
            self._peer.port,
            self._route.calling_ae_title,
            self._peer.ae_title,
            contexts_for(pairs),
            tls=self._route.credentials.toward(self._peer),
        )
        self._route.learn(self._peer, dict.fromkeys(association.accepted, "") | dict(association.refused))
        return association

    def as_stored(self, some: Sequence[Ready]) -> list[_Instead]:
        """Send what the peer takes as it is stored; the others that it takes are given back."""
        instead: list[_Instead] = []
        with self.associate([(one.meta.sop_class_uid, s) for one in some for s in _syntaxes(one)]) as association:
            for one in some:
                if self._route.stopping():
                    return []
                sop_class = one.meta.sop_class_uid
                taken = [s for s in _syntaxes(one) if (sop_class, s) in association.accepted]
                if not taken:
                    self._end(one, _refusal(association, one))
                elif taken[0] == one.meta.transfer_syntax_uid:
                    self._end(one, self._store(association, one))
                else:
                    instead.append(_Instead(one, taken[0]))
        return instead

    def converted(self, instead: Sequence[_Instead]) -> None:
        """Write objects anew and send them, some at a time."""
        rest = list(instead)
        while rest and not self._route.stopping():
            with tempfile.TemporaryDirectory(prefix="pacsnode-send-") as folder:
                made: list[tuple[_Instead, Path]] = []
                held_bytes = 0
                while rest and held_bytes < MOST_CONVERTED_BYTES and not self._route.stopping():
                    one = rest.pop(0)
                    path = Path(folder) / f"{len(made)}.dcm"
                    if self._convert(one, path):
                        made.append((one, path))
                        held_bytes += path.stat().st_size
                self._send_made(made)

    def _convert(self, instead: _Instead, path: Path) -> bool:
        """Whether the object lies at `path` now; else it has its outcome."""
        try:
            self._route.convert(instead.one.path, instead.syntax, path)
        except Permanent as error:
            stored = UID(instead.one.meta.transfer_syntax_uid).name
            told = f"the peer does not take {stored}, and it cannot be sent in {UID(instead.syntax).name}: {error}"
            self._end(instead.one, told)
            return False
        except Transient as error:
            self._outbox.postpone([instead.one.owed], str(error))
            self.left.remove(instead.one)
            return False
        return True

    def _send_made(self, made: Sequence[tuple[_Instead, Path]]) -> None:
        if not made or self._route.stopping():
            return
        with self.associate([(i.one.meta.sop_class_uid, i.syntax) for i, _ in made]) as association:
            for instead, path in made:
                if self._route.stopping():
                    return
                if (instead.one.meta.sop_class_uid, instead.syntax) in association.accepted:
                    self.enter()
                    with path.open("rb") as file:
                        status = self._offer(association, instead.one, read_meta(file), file)
                    self._end(instead.one, status, f"sent in {UID(instead.syntax).name}")
                else:
                    self._end(instead.one, _refusal(association, instead.one))

    def _store(self, association: Association, one: Ready) -> Status:
        if one.size_bytes > LARGE_BYTES:
            self.enter()  # what was taken before is not kept waiting
        with one.path.open("rb") as file:
            file.seek(one.meta.dataset_offset)
            return self._offer(association, one, one.meta, file)

    def _offer(self, association: Association, one: Ready, meta: FileMeta, file: io.BufferedReader) -> Status:
        """C-STORE from where the file stands. What ends the association meanwhile may be this instance."""
        self._offered = one
        paced = Paced(file, self._route.pace)
        status = association.store(meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, paced)
        self._offered = None
        return status

    def break_off(self, reason: str) -> None:
        """The association ended, or there was none: an attempt only of the instance that was under way."""
        under_way = [one.owed for one in self.left if one is self._offered]
        self._outbox.postpone(under_way, reason)
        self._outbox.unsent([one.owed for one in self.left if one is not self._offered], reason)

    def _end(self, one: Ready, answer: Status | str, note: str = "") -> None:
        """The outcome of one row. What was taken is entered for several rows together, within moments."""
        if isinstance(answer, Status) and (answer.is_success or answer.is_warning):
            self._taken.append(Taken(one.owed, answer.code, note))
            now_s = time.monotonic()
            if len(self._taken) == 1:
                self._taken_since_s = now_s
            if len(self._taken) >= ENTER_TOGETHER or now_s - self._taken_since_s > ENTER_WITHIN_S:
                self.enter()
        else:
            if isinstance(answer, Status) and answer.code == SOP_CLASS_NOT_SUPPORTED:
                self._route.learn(self._peer, {(one.meta.sop_class_uid, ""): f"answered C-STORE with {answer}"})
            settle(self._outbox, one.owed, answer, note)
        self.left.remove(one)

    def enter(self) -> None:
        """Enter what was taken. After a kill before this, the same UIDs are sent once more."""
        if self._taken:
            self._outbox.sent_together(self._taken)
            self._taken.clear()


def deliver(outbox: Outbox, owed: Sequence[Owed], peer: Peer, route: Route) -> None:
    """Send `owed` to `peer`; every row ends sent, refused, parked, postponed or unsent."""
    sending = _Sending(outbox, ready(outbox, owed, peer, route), peer, route)
    try:
        for some in groups(list(sending.left), _syntaxes):
            if route.stopping():
                return
            sending.converted(sending.as_stored(some))
    except (Transient, Permanent, ConfigError) as error:
        # Permanent and ConfigError are of the association: they need a person, or a peer set right, and another try.
        sending.break_off(str(error))
    finally:
        sending.enter()


def groups(waiting: Sequence[Ready], syntaxes: Callable[[Ready], Sequence[str]]) -> Iterator[list[Ready]]:
    """Rows by association, in their order: as many as 128 presentation contexts have room for (PS3.8 9.3.2.2)."""
    group: list[Ready] = []
    pairs: set[Pair] = set()
    for one in waiting:
        more = {(one.meta.sop_class_uid, syntax) for syntax in syntaxes(one)}
        if group and len(pairs | more) > MOST_CONTEXTS:
            yield group
            group, pairs = [], set()
        group.append(one)
        pairs |= more
    if group:
        yield group


def _syntaxes(one: Ready) -> tuple[str, ...]:
    """What to propose: as stored first, then what it can be written anew in."""
    return tuple(dict.fromkeys((one.meta.transfer_syntax_uid, *FALLBACKS)))


def _refusal(association: Association, one: Ready) -> str:
    """Why the peer takes the object in no form; the SOP class is named for people and for the ladder."""
    sop_class = one.meta.sop_class_uid
    told = f"the peer does not accept {UID(sop_class).name} ({sop_class})"
    refused = association.refused.get((sop_class, one.meta.transfer_syntax_uid), "")
    return f"{told}: {refused}" if refused else told
