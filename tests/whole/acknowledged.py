"""Objects made for a soak, what was answered about each, and a look whether an archive holds them, bit for bit.

In: what was sent and answered. Out: what is lost, torn, changed or left over in a home. Serves the soaks of the
receiving side and the benchmark of recovery. Never looks into the node but by its files and its index.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sqlite3
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from pacsnode.dicom.uids import derive
from pacsnode.dimse.association import contexts_for
from pacsnode.dimse.part10 import read_meta
from pacsnode.errors import Permanent

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
JPEG = "1.2.840.10008.1.2.4.50"
_LONG = (b"OB", b"OW")
_POOL_BYTES = 1 << 24


@dataclass(frozen=True)
class Kind:
    """What an object is, and how it is encoded."""

    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str


CT = Kind("1.2.840.10008.5.1.4.1.1.2", EXPLICIT, "CT")
CR = Kind("1.2.840.10008.5.1.4.1.1.1", EXPLICIT, "CR")
KINDS = (
    CT,
    CR,
    Kind("1.2.840.10008.5.1.4.1.1.4", IMPLICIT, "MR"),
    Kind("1.2.840.10008.5.1.4.1.1.6.1", JPEG, "US"),
    Kind("1.2.840.10008.5.1.4.1.1.1.1", EXPLICIT, "DX"),
)
CONTEXTS = contexts_for((kind.sop_class_uid, kind.transfer_syntax_uid) for kind in KINDS)


@functools.cache
def _pool() -> memoryview:
    return memoryview(random.Random(20261122).randbytes(_POOL_BYTES))


@dataclass(frozen=True)
class Made:
    """One object. Its bytes follow from these fields: nothing of it need be kept to compare it later."""

    kind: Kind
    sop_instance_uid: str
    study_instance_uid: str
    pixel_bytes: int

    def data_set(self) -> bytes:
        """The data set, other pixels for each SOP Instance UID."""
        implicit = self.kind.transfer_syntax_uid == IMPLICIT
        start = zlib.crc32(self.sop_instance_uid.encode()) % (_POOL_BYTES - self.pixel_bytes) & ~1
        pixels = bytes(_pool()[start : start + (self.pixel_bytes & ~1)])
        values = (
            (0x0008, 0x0005, b"CS", b"ISO_IR 192"),
            (0x0008, 0x0016, b"UI", self.kind.sop_class_uid.encode()),
            (0x0008, 0x0018, b"UI", self.sop_instance_uid.encode()),
            (0x0008, 0x0060, b"CS", self.kind.modality.encode()),
            (0x0010, 0x0010, b"PN", "Hong^Gildong=洪^吉洞=홍^길동".encode()),
            (0x0010, 0x0020, b"LO", b"4711"),
            (0x0020, 0x000D, b"UI", self.study_instance_uid.encode()),
            (0x0020, 0x000E, b"UI", f"{self.study_instance_uid}.1".encode()),
        )
        elements = [_element(*value, implicit) for value in values]
        if self.kind.transfer_syntax_uid == JPEG:  # fragments behind an empty offset table (PS3.5 A.4)
            fragments = struct.pack("<HHIHHI", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, len(pixels)) + pixels
            head = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
            elements += [head, fragments, struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)]
        else:
            elements.append(_element(0x7FE0, 0x0010, b"OW", pixels, implicit))
        return b"".join(elements)

    def write(self, folder: Path) -> Path:
        """A Part 10 file of it, for DCMTK."""
        values = (
            (0x0001, b"OB", b"\0\1"),
            (0x0002, b"UI", self.kind.sop_class_uid.encode()),
            (0x0003, b"UI", self.sop_instance_uid.encode()),
            (0x0010, b"UI", self.kind.transfer_syntax_uid.encode()),
            (0x0012, b"UI", derive("sender of a soak").encode()),
        )
        meta = b"".join(_element(0x0002, *value, False) for value in values)
        length = _element(0x0002, 0x0000, b"UL", struct.pack("<I", len(meta)), False)
        path = folder / f"{self.sop_instance_uid}.dcm"
        path.write_bytes(bytes(128) + b"DICM" + length + meta + self.data_set())
        return path


def _element(group: int, number: int, vr: bytes, value: bytes, implicit: bool) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr in (b"UI", *_LONG) else b" "
    if implicit:
        return struct.pack("<HHI", group, number, len(value)) + value
    if vr in _LONG:
        return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


@dataclass
class Ledger:
    """What all senders sent, and what was answered. All of it only grows, by one atomic operation at a time."""

    sent: dict[str, Made] = field(default_factory=dict)
    acknowledged: dict[str, Made] = field(default_factory=dict)
    answers: list[Made] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)
    again: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def sending(self, made: Made) -> None:
        """It is about to be sent, for the first time or not."""
        if made.sop_instance_uid in self.acknowledged:
            self.again.append(made.sop_instance_uid)
        self.sent[made.sop_instance_uid] = made

    def answered(self, made: Made, status: str) -> None:
        """Its answer was read; `status` is "" for 0x0000."""
        if status:
            self.refused.append(f"{made.sop_instance_uid}: {status}")
        else:
            self.acknowledged[made.sop_instance_uid] = made
            self.answers.append(made)


@dataclass
class Found:
    """What is wrong in an archive: SOP Instance UIDs or paths, with the reason."""

    lost: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"lost {len(self.lost)}, torn {len(self.torn)}, changed {len(self.changed)}, "
            f"files without a row {len(self.left_over)}"
        )

    def faults(self) -> list[str]:
        """Each fault as a line."""
        kinds = vars(self).items()
        return [f"{kind.replace('_', ' ')}: {what}" for kind, found in kinds for what in found]


def indexed(home: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Paths below files/ by SOP Instance UID, and why what is kept aside is, by path.

    Read-only, so that looking at a killed node does not move its WAL into the database.
    """
    with contextlib.closing(sqlite3.connect(f"{(home / 'index.db').as_uri()}?mode=ro", uri=True)) as connection:
        instances = connection.execute("SELECT sop_instance_uid, path FROM instances").fetchall()
        aside = connection.execute("SELECT path, reason FROM aside").fetchall()
    return dict(instances), dict(aside)


def without_row(home: Path) -> list[str]:
    """Files that the index does not know."""
    on_disk = [str(p.relative_to(home / "files")) for p in (home / "files").rglob("*") if p.is_file()]
    instances, aside = indexed(home)  # after the listing: a row comes after its file
    known = {*instances.values(), *aside}
    return sorted(path for path in on_disk if path not in known)


def compare(home: Path, ledger: Ledger, compared: set[str] | None = None) -> Found:
    """Look at every row and every acknowledged object; bytes of paths in `compared` were compared before."""
    found = Found()
    instances, aside = indexed(home)
    found.changed += [f"{path} is kept aside: {reason}" for path, reason in aside.items()]
    for uid in ledger.acknowledged:
        if uid not in instances or not (home / "files" / instances[uid]).is_file():
            found.lost.append(uid)
    for uid, path in instances.items():
        if compared is not None and path in compared and (home / "files" / path).is_file():
            continue
        _compare_file(home / "files" / path, uid, ledger, found)
        if compared is not None:
            compared.add(path)
    return found


def _compare_file(path: Path, uid: str, ledger: Ledger, found: Found) -> None:
    if uid in ledger.cut or uid not in ledger.sent:
        found.torn.append(f"{uid} is indexed, but was never sent whole")
        return
    expected = ledger.sent[uid].data_set()
    try:
        with path.open("rb") as file:
            meta = read_meta(file)
            held = file.read()
    except (OSError, Permanent) as error:
        found.torn.append(f"{uid}: {error}")
        return
    if len(held) < len(expected):
        found.torn.append(f"{uid}: {len(held)} bytes for {len(expected)} in {path}")
    elif held != expected or meta.sop_instance_uid != uid:
        found.changed.append(f"{uid}: other bytes in {path}")
