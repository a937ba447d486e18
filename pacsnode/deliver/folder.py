"""Delivery into a folder, often a mounted share: `<study>/<series>/<instance>.dcm`, each file whole or not there.

In: what is owed, archived files. Out: the same bytes in the folder, and proof by reading them back. Never makes the
folder itself (a share that is not mounted is no place), never takes a name from a UID that is not digits and dots,
never overwrites.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import pydicom
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.errors import InvalidDicomError

from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.ready import Named, Route, ready, settle
from pacsnode.dimse.commands import DONE
from pacsnode.dimse.tls import Credentials
from pacsnode.errors import Permanent, Transient
from pacsnode.peers import Peer

_PIECE_BYTES = 1 << 20
_SAFE_NAME = re.compile(r"(?=.{1,64}$)[0-9]+(\.[0-9]+)*", re.ASCII)
"""As PS3.5 9.1 has it: two dots in a row are none, and so no name of another folder."""
_NAMES = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def deliver(outbox: Outbox, owed: Sequence[Owed], peer: Peer, route: Route) -> None:
    """Put `owed` into the peer's folder; every row ends sent, parked or unsent."""
    waiting = ready(outbox, owed, peer, route)
    while waiting and not route.stopping():
        one = waiting[0]
        route.pace(one.size_bytes)
        try:
            _put(one.path, _place(_root(peer), one.path))
        except Transient as error:
            outbox.unsent([left.owed for left in waiting], str(error))
            return
        except Permanent as error:
            settle(outbox, one.owed, str(error))
        else:
            settle(outbox, one.owed, DONE)
        waiting.pop(0)


def confirm(sent: Sequence[Named], peer: Peer, route: Route) -> Mapping[str, str]:
    """By SOP Instance UID, "" where the folder holds our very bytes, else what is wrong. Raises Transient."""
    root = _root(peer)
    return {one.sop_instance_uid: _difference(root, route, one.sop_instance_uid) for one in sent}


def look(peer: Peer, credentials: Credentials) -> str:
    """Whether the folder is there and may be written. Raises Transient."""
    root = _root(peer)
    if not os.access(root, os.W_OK | os.X_OK):
        raise Transient(f"the folder may not be written by this user: {root}")
    return "is there and may be written"


def _difference(root: Path, route: Route, sop_instance_uid: str) -> str:
    try:
        ours = route.locate(sop_instance_uid)
        theirs = _place(root, ours)
        if _digest(theirs) != _digest(ours):
            return "the folder holds other bytes under this UID"
    except FileNotFoundError:
        return "the file is not in the folder any more"
    except OSError as error:
        raise _trouble(error, root) from error
    except Permanent as error:
        return str(error)
    return ""


def _root(peer: Peer) -> Path:
    assert peer.folder is not None
    root = Path(peer.folder)
    try:
        is_there = root.is_dir()
    except OSError as error:
        raise _trouble(error, root) from error
    if not is_there:
        raise Transient(f"there is no folder {root}: is the share mounted?")
    return root


def _place(root: Path, source: Path) -> Path:
    """Where the file goes. Raises Permanent where a UID is none."""
    try:
        header = pydicom.dcmread(source, stop_before_pixels=True, specific_tags=list(_NAMES))
    except (InvalidDicomError, AttributeError, EOFError, LookupError, NotImplementedError, ValueError) as error:
        raise Permanent("its header cannot be read") from error
    names = [_text(header.get_item(keyword)) for keyword in _NAMES]
    if not all(map(_SAFE_NAME.fullmatch, names)):
        raise Permanent("its study, series or instance has a UID that is not of digits and dots")
    study, series, instance = names
    return root / study / series / f"{instance}.dcm"


def _text(element: DataElement | RawDataElement | None) -> str:
    """A UID as it stands in the file: pydicom would warn of a wrong one, with its text."""
    value = b"" if element is None else element.value
    return value.decode("ascii", errors="replace").rstrip("\0 ") if isinstance(value, bytes) else str(value or "")


def _put(source: Path, target: Path) -> None:
    """Write aside, flush, rename, flush the folders. Raises Transient, Permanent."""
    try:
        if target.exists():
            if _digest(target) != _digest(source):
                raise Permanent("the folder holds another file under this UID; nothing was overwritten")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.parent / f".{secrets.token_hex(8)}.part"
        try:
            _copy(source, aside)
            aside.rename(target)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink()
        for folder in (target.parent, target.parent.parent, target.parent.parent.parent):
            _flush(folder)
    except OSError as error:
        raise _trouble(error, target) from error


def _copy(source: Path, aside: Path) -> None:
    with source.open("rb") as theirs, aside.open("xb") as ours:
        while piece := theirs.read(_PIECE_BYTES):
            ours.write(piece)
        ours.flush()
        os.fsync(ours.fileno())


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some shares cannot flush a folder; the file itself is flushed
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _trouble(error: OSError, where: Path) -> Transient:
    return Transient(f"the folder cannot be used ({error.strerror}): {where}")
