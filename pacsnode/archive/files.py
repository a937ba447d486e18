"""Part 10 files below `files/<epoch>/<xx>/<random><number>.dcm`: bytes as received, a checksum in the meta header.

An epoch is an increasing number, recorded before use, new each hour and each start: recovery reads only epochs that
are not sealed. A file that was not whole when the machine stopped fails its checksum. No part of a path comes from
the wire.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import cast

import xxhash

from pacsnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacsnode.errors import Rejected
from pacsnode.handover import StoreRequest

PREAMBLE = bytes(128) + b"DICM"
FOLDERS = tuple(f"0{digit}" for digit in "0123456789abcdef")
"""Below an epoch, made with it. A writer has one for itself: what others name there would make its flush dearer."""

CHECKSUM_DIGITS = 32
"""XXH3-128 of the data set, in hexadecimal: 46 GB/s where SHA-256 has 1.6 (one core of the reference machine)."""
_PROCESS, _NUMBERS = os.urandom(12).hex(), count()
"""The name of a file. In order, so that the index's keys of paths end in a few pages, however large it is."""
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_SHORT_ELEMENT = struct.Struct("<HH2sH")
_LONG_ELEMENT = struct.Struct("<HH2sHI")
_NO_CHECKSUM = b"0" * CHECKSUM_DIGITS
_INFORMATION_START = b'{"xxh3_128": "'
_FULL = {errno.ENOSPC, errno.EDQUOT}
_BLOCK_BYTES = 1 << 20
_BEGIN_FLUSH_BYTES = 4 << 20
"""A large object goes to the disk while the rest of it still comes."""
_SYNC_FILE_RANGE_WRITE = 2


def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """sync_file_range(2), which Python does not have; None where there is none."""
    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is None:
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return cast("Callable[[int, int, int, int], int]", function)


_SYNC_FILE_RANGE = _sync_file_range()

Piece = bytes | bytearray | memoryview


class Disk:
    """What makes files and names durable. Another one may flush less, or watch what was flushed."""

    def begin_flush(self, descriptor: int) -> None:
        """Have the kernel begin to write a file's content, without waiting for it: `flush` then waits the less."""
        if _SYNC_FILE_RANGE is not None:  # a hint: what it could not do, `flush` does or raises
            _SYNC_FILE_RANGE(descriptor, 0, 0, _SYNC_FILE_RANGE_WRITE)

    def flush(self, descriptor: int) -> None:
        """Return when the content of a file is on the disk."""
        os.fsync(descriptor)

    def flush_folder(self, descriptor: int) -> None:
        """Return when the names in a folder are on the disk."""
        os.fsync(descriptor)


class UnflushedDisk(Disk):
    """Leaves it to the kernel, within about half a minute: a power cut loses what was answered since."""

    def begin_flush(self, descriptor: int) -> None:
        """Do nothing."""

    def flush(self, descriptor: int) -> None:
        """Do nothing."""

    def flush_folder(self, descriptor: int) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Arrival:
    """How an object came to us: in its meta header's private information (0002,0102), to rebuild the row from."""

    peer: str
    issuer: str
    calling_ae_title: str
    called_ae_title: str
    address: str
    received_utc_us: int
    charset: str = ""
    is_answer: bool = False


def meta_header(request: StoreRequest, arrival: Arrival) -> tuple[bytes, int]:
    """Preamble and File Meta Information of our own making (PS3.10 7.1), and where in it the checksum is to stand."""
    before = _first_elements(request.sop_class_uid) + _element(0x0003, b"UI", request.sop_instance_uid.encode())
    after = _middle_elements(request.transfer_syntax_uid, request.calling_ae_title, request.called_ae_title)
    start = _INFORMATION_START + _NO_CHECKSUM
    information = _element(0x0102, b"OB", start + b'", ' + _arrival_members(arrival))
    length = len(before) + len(after) + len(information)
    head = PREAMBLE + _element(0x0000, b"UL", struct.pack("<I", length)) + before + after
    return head + information, len(head) + 12 + len(_INFORMATION_START)


def _arrival_members(arrival: Arrival) -> bytes:
    """The rest of a JSON object: what every object of an association has in common is encoded once."""
    sender = _sender_members(
        arrival.peer,
        arrival.issuer,
        arrival.calling_ae_title,
        arrival.called_ae_title,
        arrival.address,
        arrival.charset,
        arrival.is_answer,
    )
    return b'%b, "received_utc_us": %d}' % (sender, arrival.received_utc_us)


@lru_cache(maxsize=256)
def _sender_members(
    peer: str, issuer: str, calling_ae_title: str, called_ae_title: str, address: str, charset: str, is_answer: bool
) -> bytes:
    members: dict[str, str | bool] = {
        "peer": peer,
        "issuer": issuer,
        "calling_ae_title": calling_ae_title,
        "called_ae_title": called_ae_title,
        "address": address,
    }
    if charset:
        members["charset"] = charset
    if is_answer:
        members["is_answer"] = True
    return json.dumps(members).encode()[1:-1]


@lru_cache(maxsize=256)
def _first_elements(sop_class_uid: str) -> bytes:
    return _element(0x0001, b"OB", b"\x00\x01") + _element(0x0002, b"UI", sop_class_uid.encode())


@lru_cache(maxsize=256)
def _middle_elements(transfer_syntax_uid: str, calling_ae_title: str, called_ae_title: str) -> bytes:
    return b"".join(
        (
            _element(0x0010, b"UI", transfer_syntax_uid.encode()),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
            _element(0x0017, b"AE", calling_ae_title.encode("ascii", "replace")),
            _element(0x0018, b"AE", called_ae_title.encode("ascii", "replace")),
            _element(0x0100, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
        )
    )


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b" " if vr in (b"SH", b"AE") else b"\x00"
    if vr == b"OB":
        return _LONG_ELEMENT.pack(2, number, vr, 0, len(value)) + value
    return _SHORT_ELEMENT.pack(2, number, vr, len(value)) + value


def arrival_of(information: bytes) -> tuple[Arrival, str]:
    """What `meta_header` put into the private information, and the checksum, all zeros in a file that was not finished.

    Raises ValueError for a file that is not of our making.
    """
    try:
        fields = json.loads(information.rstrip(b"\0"))
        fields.setdefault("charset", "")
        fields.setdefault("is_answer", False)
        return Arrival(**{name: fields[name] for name in Arrival.__dataclass_fields__}), str(fields["xxh3_128"])
    except (TypeError, KeyError, AttributeError):
        raise ValueError("the private information of the meta header is not ours") from None


def checksum_of(descriptor: int, offset: int) -> tuple[str, int]:
    """Checksum and length of the data set that begins at `offset` of an open file."""
    digest, at = xxhash.xxh3_128(), offset
    while block := os.pread(descriptor, _BLOCK_BYTES, at):
        digest.update(block)
        at += len(block)
    return digest.hexdigest(), at - offset


class NewFile:
    """One file on its way to disk: `path` is below `files/`, in the folder of `folder_descriptor`."""

    def __init__(self, files: Path, folder: str, folder_descriptor: int, disk: Disk) -> None:
        self._files = files
        self._folder_descriptor = folder_descriptor
        self._disk = disk
        name = f"{_PROCESS}{next(_NUMBERS):08x}.dcm"
        self.path = f"{folder}/{name}"
        self._digest = xxhash.xxh3_128()
        self.dataset_bytes = 0
        self._begun_bytes = 0
        try:
            self._descriptor = os.open(name, _NEW, 0o600, dir_fd=folder_descriptor)
        except OSError as error:
            raise _a700(error) from error

    def write(self, pieces: Sequence[Piece], meta: bytes = b"") -> None:
        """Append data set bytes; before the first of them, `meta`. Raises Rejected (A700) when the disk is full."""
        size = 0
        for piece in pieces:
            self._digest.update(piece)
            size += len(piece)
        self.dataset_bytes += size
        try:
            done = os.writev(self._descriptor, [meta, *pieces] if meta else pieces)
            if done < size + len(meta):
                rest = memoryview(b"".join([meta, *pieces]))[done:]
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise _a700(error) from error
        self._begun_bytes += size
        if self._begun_bytes >= _BEGIN_FLUSH_BYTES:
            self._begun_bytes = 0
            self._disk.begin_flush(self._descriptor)

    def finish(self, checksum_offset: int) -> None:
        """Write the checksum, which tells recovery a file that a power cut tore; let the disk begin."""
        try:
            os.pwrite(self._descriptor, self.checksum.encode(), checksum_offset)
        except OSError as error:
            raise _a700(error) from error
        self._disk.begin_flush(self._descriptor)

    def keep(self) -> None:
        """Return when file and name are durable."""
        try:
            self._disk.flush(self._descriptor)
            # On ext4 and XFS the file's own flush has committed its name; elsewhere it may not have.
            self._disk.flush_folder(self._folder_descriptor)
        except OSError as error:
            raise _a700(error) from error

    def drop(self) -> None:
        """Forget the file, torn or whole; only while no row points to it."""
        self.close()
        (self._files / self.path).unlink(missing_ok=True)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def checksum(self) -> str:
        """Of all data set bytes written so far."""
        return self._digest.hexdigest()

    @property
    def descriptor(self) -> int:
        """The open file, to read what was written."""
        return self._descriptor


def _a700(error: OSError) -> Rejected:
    if error.errno in _FULL:
        return Rejected(Rejected.OUT_OF_RESOURCES, "disk full, send again later")
    return Rejected(Rejected.OUT_OF_RESOURCES, f"cannot write: {error.strerror}")


def free_mb(folder: Path) -> int:
    """Free space below `folder`, in MB of 2^20 bytes."""
    return shutil.disk_usage(folder).free >> 20
