"""Rows of `index.db` for objects whose files are durable: the duplicate verdict and the identity of the study.

Works inside a transaction that the caller holds; makes no file and deletes none.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from pacsnode.archive.files import Arrival
from pacsnode.dicom.identity import Identity, disagreement
from pacsnode.dicom.identity import identity as identity_of
from pacsnode.handover import Attributes, Stored
from pacsnode.peers import QUARANTINE


@dataclass(frozen=True)
class NewRow:
    """One object to be indexed. `path` is below `files/`; `unusable` says why it can only be kept aside."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: str
    dataset_sha256: str
    dataset_bytes: int
    origin: str
    arrival: Arrival
    received_boot_us: int
    boot_id: str
    attributes: Attributes
    damaged: tuple[str, ...]
    unusable: str = ""

    def first(self, keyword: str) -> str:
        """The first value of an attribute, "" where it is absent."""
        return next(iter(self.attributes.get(keyword, ())), "")


def insert(connection: sqlite3.Connection, row: NewRow, files: Path) -> Stored:
    """Index one object. A `duplicate` verdict means that the caller may delete the new file.

    Where the file of the first copy is gone from the disk, the second takes its place.
    """
    if row.unusable:
        return _keep_aside(connection, row, row.unusable)
    if row.arrival.peer == QUARANTINE:  # no study and no UID of it counts until a person has allowed the caller
        return _keep_aside(connection, row, "in quarantine: its sender is no peer")
    held = connection.execute(
        "SELECT dataset_sha256, transfer_syntax_uid, path FROM instances WHERE sop_instance_uid = ?",
        (row.sop_instance_uid,),
    ).fetchone()
    if held is None:
        _insert_instance(connection, row)
        if row.origin == "received":
            _touch_study(connection, row)
        return Stored("stored")
    if (held["dataset_sha256"], held["transfer_syntax_uid"]) == (row.dataset_sha256, row.transfer_syntax_uid):
        if (files / held["path"]).is_file():
            return Stored("duplicate")
        connection.execute("UPDATE instances SET path = ? WHERE sop_instance_uid = ?", (row.path, row.sop_instance_uid))
        return Stored("stored", "the first copy had vanished from the disk")
    return _keep_aside(connection, row, "other bytes under a SOP Instance UID that is already held; the first stays")


def _keep_aside(connection: sqlite3.Connection, row: NewRow, reason: str) -> Stored:
    """Keep one copy of the same bytes, however often a device repeats them."""
    kept = connection.execute(
        "SELECT 1 FROM aside WHERE sop_instance_uid = ? AND dataset_sha256 = ?",
        (row.sop_instance_uid, row.dataset_sha256),
    ).fetchone()
    if kept:
        return Stored("duplicate")
    connection.execute(
        "INSERT INTO aside VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.path,
            row.sop_instance_uid,
            row.first("StudyInstanceUID"),
            row.dataset_sha256,
            reason,
            row.arrival.peer,
            row.arrival.calling_ae_title,
            row.arrival.address,
            row.arrival.received_utc_us,
        ),
    )
    return Stored("aside", reason)


def _insert_instance(connection: sqlite3.Connection, row: NewRow) -> None:
    connection.execute(
        "INSERT INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.sop_instance_uid,
            row.sop_class_uid,
            row.first("SeriesInstanceUID"),
            row.first("StudyInstanceUID"),
            row.transfer_syntax_uid,
            row.path,
            row.dataset_sha256,
            row.dataset_bytes,
            row.origin,
            row.arrival.peer,
            row.arrival.calling_ae_title,
            row.arrival.address,
            row.arrival.received_utc_us,
            row.received_boot_us,
            row.boot_id,
            json.dumps(dict(row.attributes), ensure_ascii=False),
            json.dumps(row.damaged),
        ),
    )


def _touch_study(connection: sqlite3.Connection, row: NewRow) -> None:
    """Count the change, and compare who the patient is with what the study's first instance said."""
    revision = connection.execute("UPDATE revision SET value = value + 1 RETURNING value").fetchone()[0]
    identity = identity_of(row.attributes, row.arrival.issuer)
    uid, now = row.first("StudyInstanceUID"), row.arrival.received_utc_us
    held = connection.execute("SELECT * FROM studies WHERE study_instance_uid = ?", (uid,)).fetchone()
    if held is None:
        connection.execute(
            "INSERT INTO studies VALUES (?, ?, ?, ?, ?, ?, '', ?, ?, ?)",
            (
                uid,
                identity.issuer,
                identity.patient_id,
                "=".join(identity.name),
                identity.birth_date,
                identity.sex,
                revision,
                now,
                now,
            ),
        )
        return
    first, second, third = held["person_name"].split("=")
    known = Identity(held["issuer"], held["patient_id"], (first, second, third), held["birth_date"], held["sex"])
    conflict = held["conflict"] or disagreement(known, identity)
    connection.execute(
        "UPDATE studies SET revision = ?, last_received_utc_us = max(last_received_utc_us, ?), conflict = ?, "
        # An empty group, date or sex agrees with anything; what the next image says then becomes the study's.
        "person_name = ?, birth_date = ?, sex = ? WHERE study_instance_uid = ?",
        (
            revision,
            now,
            conflict,
            "=".join(a or b for a, b in zip(known.name, identity.name, strict=True)),
            known.birth_date or identity.birth_date,
            known.sex or identity.sex,
            uid,
        ),
    )
