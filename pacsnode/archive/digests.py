"""SHA-256 of what is held, computed after the answer: before a study is routed, a commitment answered, or a duplicate
believed. Reads each file once, and compares it with the checksum that its bytes had when they came in.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import xxhash

from pacsnode.archive.files import arrival_of
from pacsnode.archive.index import Index
from pacsnode.database import Turns, connect
from pacsnode.dimse.part10 import read_meta
from pacsnode.errors import Permanent
from pacsnode.handover import Study
from pacsnode.telemetry import Log

log = Log(__name__)

_BLOCK_BYTES = 1 << 20
_ROWS_AT_ONCE = 50


@dataclass(frozen=True)
class _File:
    sop_instance_uid: str
    study_instance_uid: str
    path: str


class Digests:
    """Fills `instances.dataset_sha256`; one object for one thread."""

    def __init__(self, files: Path, index_db: Path) -> None:
        self._files = files
        self._connection = connect(index_db, "NORMAL", automatic_checkpoint=False)
        self._turns = Turns(index_db)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()
        self._turns.close()

    def fill_study(self, study_instance_uid: str) -> None:
        """Every instance of the study that has none yet gets its SHA-256; a file that has changed makes a conflict."""
        self._fill("study_instance_uid = ?", study_instance_uid)

    def whole_study(self, index: Index, study_instance_uid: str) -> Study:
        """A study that is in the index, with the SHA-256 of every instance, also of those that came meanwhile.

        Of a study in conflict one may be missing: that of a damaged file.
        """
        while True:
            self.fill_study(study_instance_uid)
            study = index.study(study_instance_uid)
            assert study is not None
            if study.conflict or all(instance.dataset_sha256 for instance in study.instances):
                return study

    def fill_instance(self, sop_instance_uid: str) -> None:
        """The same for one instance, received or a result of ours."""
        self._fill("sop_instance_uid = ?", sop_instance_uid)

    def _fill(self, which: str, parameter: str) -> None:
        missing = [
            _File(*row)
            for row in self._connection.execute(
                "SELECT sop_instance_uid, study_instance_uid, path FROM instances "  # noqa: S608  # our words
                f"WHERE {which} AND dataset_sha256 = ''",
                (parameter,),
            )
        ]
        for first in range(0, len(missing), _ROWS_AT_ONCE):
            some = missing[first : first + _ROWS_AT_ONCE]
            read = [(file, *_digest(self._files / file.path)) for file in some]
            with self._turns.transaction(self._connection):
                for file, sha256, fault in read:
                    _record(self._connection, file, sha256, fault)


def _record(connection: sqlite3.Connection, file: _File, sha256: str, fault: str) -> None:
    if not fault:
        connection.execute(
            "UPDATE instances SET dataset_sha256 = ? WHERE sop_instance_uid = ? AND path = ?",
            (sha256, file.sop_instance_uid, file.path),
        )
        return
    log.error("an image is not what was received", path=file.path, reason=fault)
    connection.execute(
        "UPDATE studies SET conflict = ? WHERE study_instance_uid = ? AND conflict = ''",
        ("an image on the disk is damaged", file.study_instance_uid),
    )


def _digest(path: Path) -> tuple[str, str]:
    """SHA-256 of the data set of a file of ours, and what is wrong with it."""
    try:
        with path.open("rb") as file:
            meta = read_meta(file)
            _, checksum = arrival_of(meta.information)
            return digest_of(file.fileno(), meta.dataset_offset, checksum)
    except (Permanent, ValueError) as error:
        return "", str(error)
    except OSError as error:
        return "", f"the file cannot be read: {error.strerror}"


def digest_of(descriptor: int, offset: int, checksum: str) -> tuple[str, str]:
    """SHA-256 of the data set that begins at `offset`, and a reason where its bytes do not have `checksum`."""
    sha256, inline, at = hashlib.sha256(), xxhash.xxh3_128(), offset
    while block := os.pread(descriptor, _BLOCK_BYTES, at):
        sha256.update(block)
        inline.update(block)
        at += len(block)
    return sha256.hexdigest(), "" if inline.hexdigest() == checksum else "its checksum differs"
