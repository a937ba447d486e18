"""Whether a receiver has what was sent: in a node every byte of every object, in a peer each SOP Instance UID.

Reads the receiver's folder, while a node still runs: what was answered must be there then. Changes nothing.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.corpus import Sample

from pacsnode.dimse.part10 import read_meta
from pacsnode.errors import Permanent

LOOK_EVERY_S: Final = 0.05
HASH_LIMIT_S: Final = 20.0


@dataclass(frozen=True)
class Check:
    """Numbers of objects. `altered` is None where the bytes were not compared."""

    missing: int
    altered: int | None


def check_peer(folder: Path, samples: Sequence[Sample]) -> Check:
    """Look for every SOP Instance UID in the files below a peer's folder."""
    held = set()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file, suppress(Permanent):  # a database or a log
                held.add(read_meta(file).sop_instance_uid)
    return Check(sum(sample.meta.sop_instance_uid not in held for sample in samples), None)


def indexed(home: Path) -> frozenset[str]:
    """SOP Instance UIDs that a node has a row of now."""
    with closing(_index(home)) as index:
        return frozenset(uid for (uid,) in index.execute("SELECT sop_instance_uid FROM instances"))


def wait_until_hashed(home: Path) -> tuple[float, int]:
    """Wait until every row has the SHA-256 of its data set, which a node computes behind its answers.

    Gives the seconds that it took, and how many rows had none when the time was over.
    """
    started_s = time.monotonic()
    with closing(_index(home)) as index:
        while True:
            (left,) = index.execute("SELECT COUNT(*) FROM instances WHERE dataset_sha256 = ''").fetchone()
            waited_s = time.monotonic() - started_s
            if not left or waited_s > HASH_LIMIT_S:
                return waited_s, left
            time.sleep(LOOK_EVERY_S)


def check_node(home: Path, samples: Sequence[Sample], answered: frozenset[str]) -> Check:
    """Compare encoding, bytes and recorded hash of every object with what was sent.

    `answered`: what the node had rows of when the last answer was there; a row that came later counts as missing.
    """
    with closing(_index(home)) as index:
        rows = {
            uid: (syntax, home / "files" / path, sha256)
            for uid, syntax, path, sha256 in index.execute(
                "SELECT sop_instance_uid, transfer_syntax_uid, path, dataset_sha256 FROM instances"
            )
            if uid in answered
        }
    missing = altered = 0
    for sample in samples:
        row = rows.get(sample.meta.sop_instance_uid)
        if row is None or not row[1].is_file():
            missing += 1
        else:
            altered += not _is_same(sample, *row)
    return Check(missing, altered)


def _is_same(sample: Sample, transfer_syntax_uid: str, path: Path, recorded_sha256: str) -> bool:
    with path.open("rb") as file:
        meta = read_meta(file)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return (
        meta == sample.meta
        and transfer_syntax_uid == sample.meta.transfer_syntax_uid
        and sha256 == sample.dataset_sha256
        and recorded_sha256 in ("", sha256)
    )


def _index(home: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{home / 'index.db'}?mode=ro", uri=True)
