"""Delivery by C-STORE: what is owed to one peer, over one association. Gives each row its own outcome."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.pace import Paced
from pacsnode.dimse.association import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Association,
    contexts_for,
)
from pacsnode.dimse.commands import Status
from pacsnode.dimse.part10 import FileMeta, read_meta
from pacsnode.dimse.tls import NO_CREDENTIALS, Credentials
from pacsnode.errors import ConfigError, Permanent, Transient
from pacsnode.peers import Peer

Locate = Callable[[str], Path]
"""SOP Instance UID to the archived file. Raises Permanent when there is none."""

OUT_OF_RESOURCES = 0xA7


@dataclass(frozen=True)
class Route:
    """What every delivery of this node shares. Once `stopping` is true, what is not begun stays owed."""

    calling_ae_title: str
    locate: Locate
    forbidden: Callable[[Owed, Peer], str]
    """Why a peer may not have an instance as things stand now, "" where it may: a retry is no way round a rule."""
    stopping: Callable[[], bool]
    credentials: Credentials = NO_CREDENTIALS
    pace: Callable[[int], None] = lambda size: None
    """Called before so many bytes go, as often as a type of destination likes; waits where there is a cap."""


def deliver(outbox: Outbox, owed: Sequence[Owed], peer: Peer, route: Route) -> None:
    """Send `owed` to `peer`; every row ends sent, refused, parked, postponed or unsent, or stays as it was claimed."""
    if peer.obstacle:
        for one in owed:
            outbox.park(one, f"nothing can be sent to peer {peer.name}: {peer.obstacle}; correct it, then retry")
        return
    files: list[tuple[Owed, Path, FileMeta]] = []
    for one in owed:
        if reason := route.forbidden(one, peer):
            outbox.park(one, reason)
            continue
        try:
            path = route.locate(one.sop_instance_uid)
            with path.open("rb") as file:
                files.append((one, path, read_meta(file)))
        except (Permanent, OSError) as error:
            outbox.park(one, f"the archived file cannot be read: {error}")
    if not files:
        return
    assert peer.port is not None
    pairs = [(meta.sop_class_uid, syntax) for _, _, meta in files for syntax in _syntaxes(meta)]
    waiting = [one for one, _, _ in files]
    offered = 0  # 1: the first of those that wait may be what ended the association
    try:
        with Association.request(
            peer.host,
            peer.port,
            route.calling_ae_title,
            peer.ae_title,
            contexts_for(pairs),
            tls=route.credentials.toward(peer),
        ) as association:
            for one, path, meta in files:
                if route.stopping():
                    break
                offered = 1
                _settle(outbox, one, _store(association, path, meta, route))
                waiting.remove(one)
                offered = 0
    except (Transient, Permanent, ConfigError) as error:
        outbox.postpone(waiting[:offered], str(error))
        outbox.unsent(waiting[offered:], str(error))


def _syntaxes(meta: FileMeta) -> tuple[str, ...]:
    """What to propose: as stored, and for our own uncompressed results Implicit VR too (the default of PS3.5 10.1)."""
    if meta.transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN:
        return EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
    return (meta.transfer_syntax_uid,)


def _store(association: Association, path: Path, meta: FileMeta, route: Route) -> Status | str:
    """The peer's status, or why the instance could not be offered."""
    for syntax in _syntaxes(meta):
        if (meta.sop_class_uid, syntax) in association.accepted:
            names = meta.sop_class_uid, meta.sop_instance_uid, syntax
            if syntax != meta.transfer_syntax_uid:
                return association.store(*names, Paced(_as_implicit(path), route.pace))
            with path.open("rb") as file:
                read_meta(file)  # leaves the file at its data set
                return association.store(*names, Paced(file, route.pace))
    name = pydicom.uid.UID(meta.sop_class_uid).name
    return f"the peer does not accept {name} ({meta.sop_class_uid})"


def _as_implicit(path: Path) -> io.BytesIO:
    """Our own result in Implicit VR Little Endian: another encoding of the same values, no pixel touched."""
    buffer = io.BytesIO()
    try:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        dataset.save_as(buffer, implicit_vr=True, little_endian=True)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise Permanent(f"cannot be written in Implicit VR Little Endian: {error}") from error
    read_meta(buffer)  # leaves the buffer at the data set
    return buffer


def _settle(outbox: Outbox, owed: Owed, answer: Status | str) -> None:
    if isinstance(answer, str):
        outbox.park(owed, answer)
    elif answer.is_success or answer.is_warning:
        outbox.sent(owed, answer.code)
    elif answer.code >> 8 == OUT_OF_RESOURCES:
        outbox.postpone([owed], f"the peer is out of resources ({answer})")
    else:
        outbox.park(owed, f"the peer refused it: {answer}", answer.code)
