"""Part 10 files below `files/<epoch>/<xx>/<digest>.dcm`: written whole or not at all, data set bytes as received.

An epoch is an increasing number, recorded before use, new each hour and each start: recovery reads only epochs that
are not sealed. No part of a path comes from the wire.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pacsnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacsnode.errors import Rejected
from pacsnode.handover import StoreRequest

PREAMBLE = bytes(128) + b"DICM"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}
HASH_DIGITS = 32
"""A file's name begins with so many digits of the SHA-256 of its data set; the rest is random."""
FOLDERS = tuple(f"0{digit}" for digit in "0123456789abcdef")
"""Below an epoch, made with it: a folder made later would cost a flush of its own."""

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
            _element(0x0017, b"AE", request.calling_ae_title.encode("ascii", "replace")),
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


def arrival_of(information: bytes) -> Arrival:
    """What `meta_header` put into the private information. Raises ValueError for a file that is not of our making."""
    try:
        return Arrival(**json.loads(information.rstrip(b"\0")))
    except TypeError:
        raise ValueError("the private information of the meta header is not ours") from None


class NewFile:
    """One file on its way to disk, without a name until `keep` gives it one that holds its hash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._part: Path | None = None
        self.path = folder
        self.sha256 = hashlib.sha256()
        self.dataset_bytes = 0
        with _disk_full_is_a700():
            try:
                self._descriptor = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
                self._part = folder / "00" / f"{secrets.token_hex(16)}.part"
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
        """Name the file, then fsync it: ext4 commits name and content with one turn of its journal.

        The caller flushes the folder before the row. A power cut in between may leave a named file that is torn; its
        name tells recovery what the hash must be.
        """
        # Random behind the hash: the same object may come twice.
        name = self.sha256.hexdigest()[:HASH_DIGITS] + secrets.token_hex(8)
        path = self._folder / f"0{name[0]}" / f"{name}.dcm"
        with _disk_full_is_a700():
            if self._part is None:
                # A dir_fd, though the path is absolute: without one Python calls link(2), which follows no symlink.
                os.link(f"/proc/self/fd/{self._descriptor}", path, src_dir_fd=self._descriptor, follow_symlinks=True)
            else:
                self._part.rename(path)
            self.path = path
            os.fsync(self._descriptor)

    def drop(self) -> None:
        """Forget the file, torn or whole; only while no row points to it."""
        self.close()
        if self._part is not None:
            self._part.unlink(missing_ok=True)
        if self.path != self._folder:
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """The open file, to read what was written."""
        return self._descriptor

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
