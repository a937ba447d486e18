"""Rows of `index.db` for objects whose files are durable: the duplicate verdict and the identity of the study.

Works inside a transaction that the caller holds; makes no file and deletes none.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

from pacsnode.archive.files import Arrival
from pacsnode.dicom.header import json_member, json_objects
from pacsnode.dicom.identity import Identity, disagreement
from pacsnode.dicom.identity import identity as identity_of
from pacsnode.handover import Attributes, Stored
from pacsnode.peers import QUARANTINE

_TO_JSON = json.JSONEncoder(ensure_ascii=False).encode
_STORED = Stored("stored")
_MOST_REMEMBERED = 256
_VANISHED = "the first copy had vanished from the disk"


class NewRow(NamedTuple):
    """One object to be indexed. `path` is below `files/`; `unusable` says why it can only be kept aside.

    `dataset_sha256` is "" until it is needed: `digests` computes it later. `attributes_json` is None where nobody has
    encoded the attributes yet (`Header.json`).
    """

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
    attributes_json: tuple[str, str] | None = None

    @property
    def aside_because(self) -> str:
        """Why the object cannot become part of its study; "" where it can."""
        if self.unusable:
            return self.unusable
        # No study and no UID of it counts until a person has allowed the caller.
        return "in quarantine: its sender is no peer" if self.arrival.peer == QUARANTINE else ""

    def first(self, keyword: str) -> str:
        """The first value of an attribute, "" where it is absent."""
        values = self.attributes.get(keyword)
        return values[0] if values else ""


class Common:
    """The rows of `common`: what images of a series have in common is held once, and each image's row points to it.

    Remembers what was entered lately; for one thread at a time.
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def entered(self, connection: sqlite3.Connection, text: str) -> tuple[int, bool]:
        """The id of a row with this text, and whether it is new.

        What is remembered is compared: the row may be rolled back, or retention has removed it and another has its id.
        """
        known = self._known.get(text)
        if known is not None:
            if connection.execute("SELECT 1 FROM common WHERE id = ? AND attributes = ?", (known, text)).fetchone():
                return known, False
            del self._known[text]
        made = connection.execute("INSERT INTO common (attributes) VALUES (?)", (text,)).lastrowid
        assert made is not None
        if len(self._known) >= _MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[text] = made
        return made, True


def insert(connection: sqlite3.Connection, new: Sequence[NewRow], files: Path, common: Common) -> list[Stored | None]:
    """Index objects, in their order. A `duplicate` verdict means that the caller may delete the new file.

    None: nothing was done, since only a SHA-256 can tell, of the new object and of the one that is held under its UID.
    """
    verdicts = [_insert(connection, row, files, common) for row in new]
    grown: dict[str, list[NewRow]] = {}
    for row, verdict in zip(new, verdicts, strict=True):
        if verdict is not None and verdict.verdict == "stored" and row.origin == "received":
            grown.setdefault(row.first("StudyInstanceUID"), []).append(row)
    for uid, rows in grown.items():
        _touch_study(connection, uid, rows)
    return verdicts


def _insert(connection: sqlite3.Connection, row: NewRow, files: Path, common: Common) -> Stored | None:
    if reason := row.aside_because:
        return _keep_aside(connection, row, reason) if row.dataset_sha256 else None
    if _insert_instance(connection, row, common):
        return _STORED
    if not row.dataset_sha256:
        return None
    held = connection.execute(
        "SELECT dataset_sha256, transfer_syntax_uid, path FROM instances WHERE sop_instance_uid = ?",
        (row.sop_instance_uid,),
    ).fetchone()
    is_there = (files / held["path"]).is_file()
    if not held["dataset_sha256"]:
        if is_there:
            return _keep_aside(connection, row, "its SOP Instance UID is already held, by a file that is damaged")
        connection.execute("DELETE FROM instances WHERE sop_instance_uid = ?", (row.sop_instance_uid,))
        _insert_instance(connection, row, common)
        return Stored("stored", _VANISHED)
    if (held["dataset_sha256"], held["transfer_syntax_uid"]) == (row.dataset_sha256, row.transfer_syntax_uid):
        if is_there:
            return Stored("duplicate")
        connection.execute("UPDATE instances SET path = ? WHERE sop_instance_uid = ?", (row.path, row.sop_instance_uid))
        return Stored("stored", _VANISHED)
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


def _insert_instance(connection: sqlite3.Connection, row: NewRow, common: Common) -> bool:
    """Whether there was no instance under this UID."""
    shared, own = row.attributes_json or _json_objects(row.attributes)
    common_id, is_new = common.entered(connection, shared)
    cursor = connection.execute(
        "INSERT INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (sop_instance_uid) DO NOTHING",
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
            common_id,
            own,
            _TO_JSON(row.damaged) if row.damaged else "[]",
        ),
    )
    inserted = cursor.rowcount == 1
    if is_new and not inserted:
        connection.execute("DELETE FROM common WHERE id = ?", (common_id,))
    return inserted


def _json_objects(attributes: Attributes) -> tuple[str, str]:
    return json_objects({keyword: json_member(keyword, values) for keyword, values in attributes.items()})


def _touch_study(connection: sqlite3.Connection, uid: str, rows: Sequence[NewRow]) -> None:
    """Count the changes, and compare who the patient is with what the study's first instance said."""
    connection.execute("UPDATE revision SET value = value + ?", (len(rows),))
    last_us = max(row.arrival.received_utc_us for row in rows)
    identities = [identity_of(row.attributes, row.arrival.issuer) for row in rows]
    if identities.count(identities[0]) == len(rows) and _touch_unchanged(connection, uid, identities[0], last_us):
        return
    held = connection.execute("SELECT * FROM studies WHERE study_instance_uid = ?", (uid,)).fetchone()
    first_us = min(row.arrival.received_utc_us for row in rows)
    if held is None:
        known, conflict = identities[0], ""
    else:
        name = cast("tuple[str, str, str]", tuple(held["person_name"].split("=", 2)))
        known = Identity(held["issuer"], held["patient_id"], name, held["birth_date"], held["sex"])
        conflict, first_us = held["conflict"], held["first_received_utc_us"]
        last_us = max(last_us, held["last_received_utc_us"])
    for identity in identities:
        conflict = conflict or disagreement(known, identity)
        known = _completed(known, identity)
    connection.execute(
        "INSERT OR REPLACE INTO studies VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT value FROM revision), ?, ?)",
        (
            uid,
            known.issuer,
            known.patient_id,
            "=".join(known.name),
            known.birth_date,
            known.sex,
            conflict,
            first_us,
            last_us,
        ),
    )


def _touch_unchanged(connection: sqlite3.Connection, uid: str, identity: Identity, last_us: int) -> bool:
    """Count the change where the study is held with this very patient, as nearly always: it says nothing new."""
    cursor = connection.execute(
        "UPDATE studies "
        "SET revision = (SELECT value FROM revision), last_received_utc_us = max(last_received_utc_us, ?) "
        "WHERE study_instance_uid = ? "
        "AND issuer = ? AND patient_id = ? AND person_name = ? AND birth_date = ? AND sex = ?",
        (
            last_us,
            uid,
            identity.issuer,
            identity.patient_id,
            "=".join(identity.name),
            identity.birth_date,
            identity.sex,
        ),
    )
    return cursor.rowcount == 1


def _completed(known: Identity, identity: Identity) -> Identity:
    """An empty group, date or sex agrees with anything; what the next image says then becomes the study's."""
    if known == identity:
        return known
    first, second, third = (a or b for a, b in zip(known.name, identity.name, strict=True))
    birth_date, sex = known.birth_date or identity.birth_date, known.sex or identity.sex
    return replace(known, name=(first, second, third), birth_date=birth_date, sex=sex)
