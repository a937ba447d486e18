"""How many images a peer has of a study, or which: C-FIND as the side that asks (PS3.4 C.4.1), nothing else of query.

In: a study, and where the peer is. Out: a number, None where the peer knows no such study or counts nothing; or the
UIDs of the images that it has of some series. Raises Transient, Permanent and ConfigError. What a peer answers is
believed as little as may be: only numbers within reason, of the very study that was asked for, and only so many answers
in so much time. Keeps no attribute but UIDs.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from pacsnode.dicom.uids import is_safe
from pacsnode.dimse import commands, nested
from pacsnode.dimse.association import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Association,
    Timeouts,
)
from pacsnode.dimse.commands import Status
from pacsnode.dimse.commitment import Encoder
from pacsnode.dimse.pdus import AssociationLost, ProtocolViolation, TimedOut
from pacsnode.dimse.tls import NO_CREDENTIALS, Credentials
from pacsnode.errors import Permanent, Transient, Unsupported
from pacsnode.peers import Peer

STUDY_ROOT: Final = "1.2.840.10008.5.1.4.1.2.2.1"
PATIENT_ROOT: Final = "1.2.840.10008.5.1.4.1.2.1.1"
"""Query/Retrieve Information Models - FIND."""
MOST_IMAGES: Final = 1_000_000
"""No study has more: a larger number is none."""

SOP_INSTANCE_UID: Final = 0x0008_0018
QUERY_LEVEL: Final = 0x0008_0052
PATIENT_ID: Final = 0x0010_0020
STUDY_INSTANCE_UID: Final = 0x0020_000D
SERIES_INSTANCE_UID: Final = 0x0020_000E
STUDY_RELATED_INSTANCES: Final = 0x0020_1208
SERIES_RELATED_INSTANCES: Final = 0x0020_1209
_VRS: Final = {
    QUERY_LEVEL: b"CS",
    PATIENT_ID: b"LO",
    STUDY_RELATED_INSTANCES: b"IS",
    SERIES_RELATED_INSTANCES: b"IS",
}
_NUMBER: Final = re.compile(r"\+?0*([0-9]{1,7})", re.ASCII)
_PLAIN_ID: Final = re.compile(r"[ -~]{1,64}", re.ASCII)
_TIMEOUTS: Final = Timeouts(connect_s=5.0, acse_s=10.0, pdu_s=10.0, dimse_s=10.0)
_CONTEXTS: Final = tuple(
    (root, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)) for root in (STUDY_ROOT, PATIENT_ROOT)
)


@dataclass(frozen=True)
class Question:
    """Which study. `patient_id` is told to a peer that knows no Study Root alone: there it is a key (PS3.4 C.6.1.1).

    Images of `without_series` do not count: those that we made and may have sent to the peer ourselves.
    """

    study_instance_uid: str
    patient_id: str = field(default="", repr=False)
    without_series: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Limits:
    """How long a peer may take, for each step and for the whole question, and how many answers it may give."""

    timeouts: Timeouts = _TIMEOUTS
    in_all_s: float = 30.0
    most_answers: int = 20_000


LIMITS: Final = Limits()


def count_images(
    question: Question,
    peer: Peer,
    calling_ae_title: str,
    credentials: Credentials = NO_CREDENTIALS,
    limits: Limits = LIMITS,
) -> int | None:
    """How many images of the study `peer` has; None where it knows no such study, or tells no number of any kind.

    Asks for the study's number; where a peer has none, for that of each series; where a series has none, for its
    images. Raises Transient and Permanent, with a sentence, and ConfigError.
    """
    if not is_safe(question.study_instance_uid):
        raise Permanent("a study whose UID is no UID cannot be asked for")
    with _asking(peer, calling_ae_title, credentials, limits) as association:
        return _Counting(association, peer, question, limits.most_answers).count()


def held_images(
    series: Mapping[str, frozenset[str]],
    peer: Peer,
    calling_ae_title: str,
    credentials: Credentials = NO_CREDENTIALS,
    limits: Limits = LIMITS,
) -> frozenset[str]:
    """SOP Instance UIDs that `peer` says it has, at IMAGE level, of the series of some studies (by StudyInstanceUID).

    Raises as `count_images` does; Unsupported where the peer answers no queries, or not this one.
    """
    held: set[str] = set()
    with _asking(peer, calling_ae_title, credentials, limits) as association:
        for study, of_study in series.items():
            counting = _Counting(association, peer, Question(study), limits.most_answers)
            for one in sorted(of_study):
                held |= counting.images(one)
    return frozenset(held)


@contextmanager
def _asking(peer: Peer, calling_ae_title: str, credentials: Credentials, limits: Limits) -> Iterator[Association]:
    """An association for queries, cut when the whole takes too long."""
    if peer.obstacle or peer.port is None:
        raise Permanent(f"peer {peer.name} cannot be asked: {peer.obstacle}")
    ends_s = time.monotonic() + limits.in_all_s
    association = Association.request(
        peer.host,
        peer.port,
        calling_ae_title,
        peer.ae_title,
        _CONTEXTS,
        limits.timeouts,
        tls=credentials.toward(peer),
    )
    end = threading.Timer(max(0.0, ends_s - time.monotonic()), association.cut)
    end.daemon = True
    end.start()
    try:
        with association:
            yield association
    except AssociationLost as lost:
        if time.monotonic() < ends_s:
            raise
        raise TimedOut(f"peer {peer.name} did not answer within {limits.in_all_s:g} s") from lost
    finally:
        end.cancel()


class _Counting:
    """One question on one association."""

    def __init__(self, association: Association, peer: Peer, question: Question, most_answers: int) -> None:
        self._association = association
        self._peer = peer
        self._question = question
        self._answers_left = most_answers
        accepted = sorted(association.accepted, key=lambda context: context[0] != STUDY_ROOT)
        if not accepted:
            association.release()  # it did nothing wrong
            raise Unsupported(f"peer {peer.name} answers no queries: it takes neither Study Root nor Patient Root FIND")
        self._root, self._transfer_syntax = accepted[0]

    def count(self) -> int | None:
        if not self._question.without_series:
            told: list[int] = []
            self._ask(
                "STUDY", {STUDY_RELATED_INSTANCES: ""}, lambda m: told.append(_number(m, STUDY_RELATED_INSTANCES))
            )
            if not told or max(told):
                return max(told, default=None)
        of_series = self._of_series()
        return sum(number or len(self.images(series)) for series, number in of_series.items()) or None

    def _of_series(self) -> dict[str, int]:
        """The number of each series, 0 where the peer tells none."""
        found: dict[str, int] = {}

        def take(match: nested.Item) -> None:
            uid = match.text(SERIES_INSTANCE_UID)
            if is_safe(uid) and uid not in self._question.without_series:
                found[uid] = _number(match, SERIES_RELATED_INSTANCES)

        self._ask("SERIES", {SERIES_INSTANCE_UID: "", SERIES_RELATED_INSTANCES: ""}, take)
        return found

    def images(self, series_instance_uid: str) -> set[str]:
        found: set[str] = set()

        def take(match: nested.Item) -> None:
            uid = match.text(SOP_INSTANCE_UID)
            if is_safe(uid) and match.text(SERIES_INSTANCE_UID) == series_instance_uid:
                found.add(uid)

        self._ask("IMAGE", {SERIES_INSTANCE_UID: series_instance_uid, SOP_INSTANCE_UID: ""}, take)
        return found

    def _ask(self, level: str, keys: Mapping[int, str], take: Callable[[nested.Item], None]) -> None:
        """One C-FIND; `take` gets each answer that is of the study."""
        keys = {QUERY_LEVEL: level, STUDY_INSTANCE_UID: self._question.study_instance_uid, **keys}
        if self._root == PATIENT_ROOT:
            keys[PATIENT_ID] = _plain(self._question.patient_id)

        def read(identifier: bytes) -> None:
            self._answers_left -= 1
            if self._answers_left < 0:
                raise ProtocolViolation(f"peer {self._peer.name} gives more answers than a study has images")
            try:
                match = nested.read(identifier, self._transfer_syntax, frozenset())
            except ValueError as error:
                raise ProtocolViolation(f"peer {self._peer.name} answers with what is no data set: {error}") from None
            if match.text(STUDY_INSTANCE_UID) == self._question.study_instance_uid:
                take(match)

        status = self._association.find(self._root, encode_identifier(keys, self._transfer_syntax), read)
        if not (status.is_success or status.is_warning):
            raise _refused(self._peer, level, status)


def encode_identifier(keys: Mapping[int, str], transfer_syntax_uid: str) -> bytes:
    """The identifier of a C-FIND request; an empty value asks for the attribute."""
    put = Encoder(explicit=transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN)
    out = b""
    for tag, value in sorted(keys.items()):
        vr = _VRS.get(tag)
        out += put.uid(tag, value) if vr is None else put.element(tag, vr, _padded(value))
    return out


def _padded(text: str) -> bytes:
    return (text + " " * (len(text) & 1)).encode("ascii")


def _plain(patient_id: str) -> str:
    """A PatientID that matches itself alone (PS3.4 C.2.2.2.4) and needs no character set; else "", which matches any.

    The StudyInstanceUID tells the study all the same.
    """
    return patient_id if _PLAIN_ID.fullmatch(patient_id) and not set(patient_id) & set("*?\\") else ""


def _number(match: nested.Item, tag: int) -> int:
    """A number of images; 0 where there is none, or one out of all reason."""
    found = _NUMBER.fullmatch(match.text(tag))
    number = int(found[1]) if found else 0
    return number if number <= MOST_IMAGES else 0


def _refused(peer: Peer, level: str, status: Status) -> Transient | Permanent:
    text = f"peer {peer.name} refuses the question at {level} level: {status}"
    out_of_resources = status.code >> 8 == 0xA7 or status.code == commands.RESOURCE_LIMITATION
    return Transient(text) if out_of_resources else Unsupported(text)
