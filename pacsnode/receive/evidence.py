"""What modalities tell of their procedure steps (MPPS, PS3.4 F.7) and of where instances are (IAN, PS3.4 R.3).

In: the command and data set of an N-CREATE or N-SET. Out: a row of `index.db` with the bytes as they came and the few
attributes that help to know when a study is whole. Raises Rejected with the status of the answer. Changes no study.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pacsnode.database import connect, transaction, utc_us
from pacsnode.dicom.uids import derive, is_safe
from pacsnode.dimse import commands, nested
from pacsnode.dimse.commands import CommandSet
from pacsnode.errors import Rejected
from pacsnode.receive.admission import Caller
from pacsnode.receive.negotiation import PERFORMED_PROCEDURE_STEP

LONGEST_EVIDENCE_BYTES: Final = 1 << 20
_KEPT_US: Final = 90 * 24 * 3_600_000_000
"""Longer than any study takes to become whole."""

_INSTANCE_AVAILABILITY: Final = 0x0008_0056
_REFERENCED_SERIES: Final = 0x0008_1115
_REFERENCED_IMAGES: Final = 0x0008_1140
_REFERENCED_SOP_INSTANCE_UID: Final = 0x0008_1155
_REFERENCED_SOPS: Final = 0x0008_1199
_STUDY_INSTANCE_UID: Final = 0x0020_000D
_REFERENCED_NON_IMAGES: Final = 0x0040_0220
_STEP_STATUS: Final = 0x0040_0252
_SCHEDULED_STEP_ATTRIBUTES: Final = 0x0040_0270
_PERFORMED_SERIES: Final = 0x0040_0340
_SEQUENCES: Final = frozenset(
    (
        _REFERENCED_SERIES,
        _REFERENCED_IMAGES,
        _REFERENCED_SOPS,
        _REFERENCED_NON_IMAGES,
        _SCHEDULED_STEP_ATTRIBUTES,
        _PERFORMED_SERIES,
    )
)
_IN_PROGRESS: Final = "IN PROGRESS"
_STEP_STATES: Final = frozenset((_IN_PROGRESS, "COMPLETED", "DISCONTINUED"))


@dataclass(frozen=True)
class Told:
    """One message: who said what of which object."""

    kind: str
    operation: str
    sop_instance_uid: str
    state: str
    studies: tuple[str, ...]
    referenced: tuple[str, ...]


class Evidence:
    """Writes the rows; for many threads, one connection and one lock. `has_room` is asked before each."""

    def __init__(self, index_db: Path, has_room: Callable[[], bool]) -> None:
        self._connection = connect(index_db, "FULL")
        self._lock = threading.Lock()
        self._has_room = has_room

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._connection.close()

    def take(self, peer: str, caller: Caller, command: CommandSet, data_set: bytes, transfer_syntax_uid: str) -> str:
        """Keep one N-CREATE or N-SET durably; the UID of the object that it is about. Raises Rejected.

        A message that is repeated byte for byte is taken again: its sender did not get our answer.
        """
        if len(data_set) > LONGEST_EVIDENCE_BYTES:
            raise Rejected(commands.RESOURCE_LIMITATION, "the data set is longer than 1 MB")
        if not self._has_room():
            raise Rejected(commands.RESOURCE_LIMITATION, "disk nearly full, send again later")
        told = parse(command, data_set, transfer_syntax_uid)
        now = utc_us()
        with self._lock, transaction(self._connection):
            if self._is_repeated(told, data_set):
                return told.sop_instance_uid
            told = self._allowed(told)
            row = (
                told.kind,
                told.operation,
                told.sop_instance_uid,
                told.state,
                json.dumps(told.referenced),
                transfer_syntax_uid,
                data_set,
                peer,
                caller.calling_ae_title,
                caller.address,
                now,
            )
            entered = self._connection.execute(
                "INSERT INTO evidence (kind, operation, sop_instance_uid, state, referenced, transfer_syntax_uid, "
                "data_set, peer, calling_ae_title, address, received_utc_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            ).lastrowid
            self._connection.executemany(
                "INSERT INTO evidence_studies VALUES (?, ?)", [(study, entered) for study in told.studies]
            )
            self._forget_old(now)
        return told.sop_instance_uid

    def _is_repeated(self, told: Told, data_set: bytes) -> bool:
        return bool(
            self._connection.execute(
                "SELECT 1 FROM evidence WHERE sop_instance_uid = ? AND kind = ? AND operation = ? AND data_set = ?",
                (told.sop_instance_uid, told.kind, told.operation, data_set),
            ).fetchone()
        )

    def _allowed(self, told: Told) -> Told:
        """`told`, of the studies that its object was created with. Raises Rejected where the object forbids it."""
        held = self._connection.execute(
            "SELECT id, state FROM evidence WHERE sop_instance_uid = ? AND kind = ? ORDER BY id DESC",
            (told.sop_instance_uid, told.kind),
        ).fetchall()
        if told.operation == "create":
            if held:
                raise Rejected(commands.DUPLICATE_SOP_INSTANCE, "there is another object under this UID")
            return told
        if not held:
            raise Rejected(commands.NO_SUCH_OBJECT_INSTANCE, "this procedure step was not created here")
        states = [str(row["state"]) for row in held]
        if any(state in ("COMPLETED", "DISCONTINUED") for state in states):
            # PS3.4 F.7.2.2.2
            raise Rejected(commands.PROCESSING_FAILURE, "Performed Procedure Step Object may no longer be updated")
        studies = self._studies([int(row["id"]) for row in held])
        return Told(
            told.kind,
            told.operation,
            told.sop_instance_uid,
            told.state or states[0],
            told.studies or studies,
            told.referenced,
        )

    def _studies(self, ids: list[int]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for id in ids:
            rows = self._connection.execute(
                "SELECT study_instance_uid FROM evidence_studies WHERE evidence = ?", (id,)
            ).fetchall()
            found |= dict.fromkeys(str(uid) for (uid,) in rows)
        return tuple(found)

    def _forget_old(self, now: int) -> None:
        old = "SELECT id FROM evidence WHERE received_utc_us < ? ORDER BY received_utc_us LIMIT 100"
        ids: list[sqlite3.Row] = self._connection.execute(old, (now - _KEPT_US,)).fetchall()
        self._connection.executemany("DELETE FROM evidence_studies WHERE evidence = ?", ids)
        self._connection.executemany("DELETE FROM evidence WHERE id = ?", ids)


def parse(command: CommandSet, data_set: bytes, transfer_syntax_uid: str) -> Told:
    """What the message says; UIDs that are none are left out. Raises Rejected where it cannot be read."""
    operation = "create" if command.command_field == commands.N_CREATE_RQ else "set"
    uid = command.affected_sop_instance_uid
    if not uid and operation == "create":
        uid = derive("evidence", hashlib.sha256(data_set).hexdigest())  # ours to name then (PS3.7 10.1.5.1.4)
    if not is_safe(uid):
        raise Rejected(commands.INVALID_OBJECT_INSTANCE, "the SOP Instance UID is not a UID")
    try:
        said = nested.read(data_set, transfer_syntax_uid, _SEQUENCES)
    except ValueError as error:
        raise Rejected(commands.PROCESSING_FAILURE, str(error)) from None
    if command.affected_sop_class_uid == PERFORMED_PROCEDURE_STEP:
        return _step(operation, uid, said)
    return _notice(uid, said)


def _step(operation: str, uid: str, said: nested.Item) -> Told:
    state = said.text(_STEP_STATUS)
    if state not in _STEP_STATES and (state or operation == "create"):
        raise Rejected(commands.INVALID_ATTRIBUTE_VALUE, "no Performed Procedure Step Status of PS3.3 C.4.14")
    if operation == "create" and state != _IN_PROGRESS:
        raise Rejected(commands.INVALID_ATTRIBUTE_VALUE, "a procedure step begins IN PROGRESS")
    studies = [item.text(_STUDY_INSTANCE_UID) for item in said.items(_SCHEDULED_STEP_ATTRIBUTES)]
    referenced = [
        item.text(_REFERENCED_SOP_INSTANCE_UID)
        for sequence in (_REFERENCED_IMAGES, _REFERENCED_NON_IMAGES)
        for item in said.items(_PERFORMED_SERIES, sequence)
    ]
    return Told("mpps", operation, uid, state, _uids(studies), _uids(referenced))


def _notice(uid: str, said: nested.Item) -> Told:
    items = list(said.items(_REFERENCED_SERIES, _REFERENCED_SOPS))
    state = "\\".join(sorted({item.text(_INSTANCE_AVAILABILITY)[:16] for item in items} - {""}))
    studies = _uids([said.text(_STUDY_INSTANCE_UID)])
    if not studies:
        raise Rejected(commands.MISSING_ATTRIBUTE, "no Study Instance UID")
    return Told("ian", "create", uid, state, studies, _uids([i.text(_REFERENCED_SOP_INSTANCE_UID) for i in items]))


def _uids(given: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(uid for uid in given if is_safe(uid)))
