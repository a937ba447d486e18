"""Part 10 files below `files/<epoch>/<xx>/<digest>.dcm`: written whole or not at all, data set bytes as received.

An epoch is an increasing number, recorded before use, new each hour and each start: recovery reads only epochs that
are not sealed. No part of a path comes from the wire.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from pacsnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacsnode.errors import Rejected
from pacsnode.handover import StoreRequest

PREAMBLE = bytes(128) + b"DICM"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_counter = itertools.count()

Piece = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Arrival:
    """How an object came to us: in its meta header's private information (0002,0102), to rebuild the row from."""

    peer: str
    issuer: str
    calling_ae_title: str
    called_ae_title: str
    address: str
    received_utc_us: int


def meta_header(request: StoreRequest, arrival: Arrival) -> bytes:
    """Preamble and File Meta Information of our own making (PS3.10 7.1), Explicit VR Little Endian."""
    information = json.dumps(asdict(arrival)).encode()
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", request.sop_class_uid.encode()),
            _element(0x0003, b"UI", request.sop_instance_uid.encode()),
            _element(0x0010, b"UI", request.transfer_syntax_uid.encode()),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
            _element(0x0016, b"AE", request.calling_ae_title.encode("ascii", "replace")),
            _element(0x0018, b"AE", request.called_ae_title.encode("ascii", "replace")),
            _element(0x0100, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
            _element(0x0102, b"OB", information),
        )
    )
    return PREAMBLE + _element(0x0000, b"UL", struct.pack("<I", len(elements))) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b" " if vr in (b"SH", b"AE") else b"\x00"
    if vr == b"OB":
        return struct.pack("<HH2sHI", 2, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value


@dataclass(frozen=True)
class Part10:
    """The meta header of a file and where its data set begins."""

    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    calling_ae_title: str
    information: bytes
    dataset_offset: int

    def arrival(self) -> Arrival:
        """What `meta_header` put in. Raises ValueError for a file that is not of our making."""
        return Arrival(**json.loads(self.information.rstrip(b"\0")))


def read_part10(file: BinaryIO) -> Part10:
    """Read the meta header of an open file, which is left at its data set. Raises ValueError when there is none."""
    if file.read(132)[128:] != b"DICM":
        raise ValueError("not a DICOM Part 10 file: the mark DICM is missing")
    first = file.read(12)
    if len(first) != 12 or first[:8] != b"\x02\x00\x00\x00UL\x04\x00":
        raise ValueError("the File Meta Information does not begin with its group length")
    length = struct.unpack("<I", first[8:])[0]
    block = file.read(length) if length <= 1 << 20 else b""
    if len(block) != length:
        raise ValueError("the File Meta Information is cut or longer than 1 MB")
    values = _meta_values(block)
    text = {n: v.rstrip(b" \0").decode("ascii", "replace") for n, v in values.items() if n != 0x0102}
    return Part10(
        text.get(0x0010, ""),
        text.get(0x0002, ""),
        text.get(0x0003, ""),
        text.get(0x0016, ""),
        values.get(0x0102, b""),
        144 + length,
    )


def _meta_values(block: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    position = 0
    while position + 8 <= len(block):
        group, number, vr, length = struct.unpack_from("<HH2sH", block, position)
        position += 8
        if vr in (b"OB", b"OW", b"UN", b"SQ", b"UT", b"OF"):
            if position + 4 > len(block):
                raise ValueError("the File Meta Information is cut")
            length = struct.unpack_from("<I", block, position)[0]
            position += 4
        if group != 2 or position + length > len(block):
            raise ValueError("the File Meta Information is damaged")
        values[number] = block[position : position + length]
        position += length
    return values


class NewFile:
    """One file on its way to disk: `<digest>.part` until `keep` has made it durable under its name."""

    def __init__(self, folder: Path, seed: str) -> None:
        digest = hashlib.blake2b(f"{seed}|{os.getpid()}|{next(_counter)}".encode(), digest_size=16).hexdigest()
        self.path = folder / digest[:2] / f"{digest}.dcm"
        self._part = self.path.with_suffix(".part")
        self.sha256 = hashlib.sha256()
        self.dataset_bytes = 0
        with _disk_full_is_a700():
            self.path.parent.mkdir(exist_ok=True, mode=0o700)
            self._descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write_meta(self, meta: bytes) -> None:
        """Write the meta header; it is not part of the data set's hash."""
        self._write([meta])

    def write(self, pieces: Sequence[Piece]) -> None:
        """Append data set bytes. Raises Rejected (A700) when the disk is full."""
        for piece in pieces:
            self.sha256.update(piece)
            self.dataset_bytes += len(piece)
        self._write(pieces)

    def keep(self) -> None:
        """Make the file durable under its final name: fsync, rename, fsync of the folder."""
        with _disk_full_is_a700():
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self._part.rename(self.path)
            sync_folder(self.path.parent)

    def drop(self) -> None:
        """Forget the torn file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._part.unlink(missing_ok=True)

    def _write(self, pieces: Sequence[Piece]) -> None:
        with _disk_full_is_a700():
            done = os.writev(self._descriptor, pieces)
            if done < sum(map(len, pieces)):
                rest = memoryview(b"".join(pieces))[done:]
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]


@contextlib.contextmanager
def _disk_full_is_a700() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Rejected(Rejected.OUT_OF_RESOURCES, "disk full, send again later") from None
        raise Rejected(Rejected.OUT_OF_RESOURCES, f"cannot write: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_mb(folder: Path) -> int:
    """Free space below `folder`, in MB of 2^20 bytes."""
    return shutil.disk_usage(folder).free >> 20
