"""What all kinds of destination share: which of the owed can go now, and how an answer ends a row.

In: rows of the outbox. Out: archived files, and each row's outcome. Talks to no peer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.dimse.commands import Status
from pacsnode.dimse.part10 import FileMeta, read_meta
from pacsnode.dimse.tls import NO_CREDENTIALS, Credentials
from pacsnode.errors import Permanent
from pacsnode.peers import Peer

Locate = Callable[[str], Path]
"""SOP Instance UID to the archived file. Raises Permanent when there is none."""
Convert = Callable[[Path, str, Path], None]
"""Write the first file in the transfer syntax of that UID to the second path: same UID, no pixel value changed.

Raises Permanent where that cannot be without loss, Transient.
"""
Answers = Mapping[tuple[str, str], str]
"""(SOP class, transfer syntax) to why the peer refuses it, "" where it takes it; "" as syntax: the class as such."""
Learn = Callable[[Peer, Answers], None]

OUT_OF_RESOURCES = 0xA7


def cannot_convert(_source: Path, _transfer_syntax_uid: str, _target: Path) -> None:
    """Where there is no compute process. Raises Permanent."""
    raise Permanent("there is no compute process that converts it")


def learn_nothing(_peer: Peer, _answers: Answers) -> None:
    """Where nothing is remembered."""


@dataclass(frozen=True)
class Route:
    """What every delivery of this node shares. Once `stopping` is true, what is not begun stays owed."""

    calling_ae_title: str
    locate: Locate
    forbidden: Callable[[Owed, Peer], str]
    """Why a peer may not have an instance as things stand now, "" where it may: a retry is no way round a rule."""
    stopping: Callable[[], bool]
    credentials: Credentials = NO_CREDENTIALS
    convert: Convert = cannot_convert
    learn: Learn = learn_nothing
    pace: Callable[[int], None] = lambda size: None
    """Called before so many bytes go; waits where there is a cap."""


class Named(Protocol):
    """What a question for proof needs to know of an instance."""

    @property
    def sop_instance_uid(self) -> str:
        """The instance."""

    @property
    def study_instance_uid(self) -> str:
        """Its study."""

    @property
    def series_instance_uid(self) -> str:
        """Its series."""


@dataclass(frozen=True)
class Ready:
    """One row that may go now, and its file."""

    owed: Owed
    path: Path
    meta: FileMeta
    size_bytes: int


def ready(outbox: Outbox, owed: Sequence[Owed], peer: Peer, route: Route) -> list[Ready]:
    """The rows that may go; the others are parked with the reason."""
    found = []
    obstacle = peer.obstacle
    for one in owed:
        if obstacle:
            outbox.park(one, f"nothing can be sent to peer {peer.name}: {obstacle}; correct it, then retry")
            continue
        if reason := route.forbidden(one, peer):
            outbox.park(one, reason)
            continue
        try:
            path = route.locate(one.sop_instance_uid)
            with path.open("rb") as file:
                found.append(Ready(one, path, read_meta(file), os.fstat(file.fileno()).st_size))
        except (Permanent, OSError) as error:
            outbox.park(one, f"the archived file cannot be read: {error}")
    return found


def settle(outbox: Outbox, owed: Owed, answer: Status | str, note: str = "") -> None:
    """End a row by the peer's status (PS3.4 B.2.3), or by why the instance could not be offered.

    `note`: what was sent in place of the stored bytes.
    """
    if isinstance(answer, str):
        outbox.park(owed, answer)
    elif answer.is_success or answer.is_warning:
        outbox.sent(owed, answer.code, note)
    elif answer.code >> 8 == OUT_OF_RESOURCES:
        outbox.postpone([owed], f"the peer is out of resources ({answer})")
    else:
        outbox.park(owed, f"the peer refused it: {answer}", answer.code)
