"""The file meta information of a Part 10 file, read by hand (PS3.10 7.1): what a C-STORE of the file needs.

In: an open file. Out: three UIDs, the private information, and the file positioned at its data set. Never reads that.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import Final

from pacsnode.dicom.uids import is_safe
from pacsnode.errors import Permanent

_LONG_LENGTH_VRS: Final = frozenset((b"OB", b"OW", b"SQ", b"UN", b"UT", b"OD", b"OF", b"OL", b"OV", b"UC", b"UR"))
_MEDIA_STORAGE_SOP_CLASS_UID: Final = 0x0002
_MEDIA_STORAGE_SOP_INSTANCE_UID: Final = 0x0003
_TRANSFER_SYNTAX_UID: Final = 0x0010
_PRIVATE_INFORMATION: Final = 0x0102
_LONGEST_META_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class FileMeta:
    """Which object a Part 10 file holds, how it is encoded, and at which byte of the file its data set begins.

    `information` is what the file's writer noted for itself (0002,0102), with its padding. Two files that hold the same
    object in the same encoding are equal here.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    information: bytes = field(default=b"", compare=False)
    dataset_offset: int = field(default=0, compare=False)


def read_meta(file: io.BufferedIOBase) -> FileMeta:
    """Read the meta information of `file`, leave it at its data set. Raises Permanent if it is no Part 10 file."""
    file.seek(0)
    if file.read(132)[128:] != b"DICM":
        raise Permanent("not a DICOM Part 10 file: the prefix DICM is missing")
    values = _elements(file)
    sop_class_uid, sop_instance_uid, transfer_syntax_uid = (
        values.get(element, b"").decode("ascii", errors="replace").rstrip("\0 ")
        for element in (_MEDIA_STORAGE_SOP_CLASS_UID, _MEDIA_STORAGE_SOP_INSTANCE_UID, _TRANSFER_SYNTAX_UID)
    )
    if not (is_safe(sop_class_uid) and is_safe(sop_instance_uid) and is_safe(transfer_syntax_uid)):
        raise Permanent("the file meta information lacks a UID that a C-STORE needs")
    information = values.get(_PRIVATE_INFORMATION, b"")
    return FileMeta(sop_class_uid, sop_instance_uid, transfer_syntax_uid, information, file.tell())


def _elements(file: io.BufferedIOBase) -> dict[int, bytes]:
    """Values of group 0002 by element number; the file is left behind the last of them."""
    values: dict[int, bytes] = {}
    while (start := file.tell()) < _LONGEST_META_BYTES:
        header = file.read(8)
        if len(header) < 8 or header[:2] != b"\x02\x00":
            # The group length (0002,0000) is wrong or absent in some files: the first other group ends the meta.
            file.seek(start)
            return values
        element = int.from_bytes(header[2:4], "little")
        if header[4:6] in _LONG_LENGTH_VRS:
            length = int.from_bytes(file.read(4), "little")
        else:
            (length,) = struct.unpack_from("<H", header, 6)
        value = file.read(length) if length <= _LONGEST_META_BYTES else b""
        if len(value) != length:
            raise Permanent("the file meta information is damaged")
        values[element] = value
    raise Permanent("the file meta information is longer than 1 MB")
