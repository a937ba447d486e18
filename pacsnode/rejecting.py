"""Rejection notes that come in, and the operator's `studies reject`: looked at, judged, entered.

In: a study as the index has it, the peers of the rules file. Out: the study without what counts no more, and in
`node.db` the rejection with all that follows from it. A note is hostile until it is judged: its file is read with
bounds, and only one of the same study and patient, from a peer that may store, does anything. Never in the receiver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pacsnode.archive.attributes import read_attributes
from pacsnode.archive.case_rows import CaseRecord
from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.archive.rejections import ReceivedNote, Rejection, Rejections
from pacsnode.deliver.debts import withdraw
from pacsnode.dicom.identity import disagreement, identity
from pacsnode.dicom.names import parse_name
from pacsnode.dicom.rejection import BY_CODE, KEY_OBJECT_SELECTION
from pacsnode.errors import Permanent, Rejected
from pacsnode.handover import Attributes, Instance, Study
from pacsnode.peers import Directory
from pacsnode.telemetry import Log

log = Log(__name__)

LARGEST_NOTE_BYTES: Final = 4 << 20
"""Some 30,000 references; a note is of one study."""

_TITLE: Final = parse_name("ConceptNameCodeSequence.CodeValue")
_SCHEME: Final = parse_name("ConceptNameCodeSequence.CodingSchemeDesignator")
_EVIDENCE: Final = "CurrentRequestedProcedureEvidenceSequence"
_STUDIES: Final = parse_name(f"{_EVIDENCE}.StudyInstanceUID")
_INSTANCES: Final = parse_name(f"{_EVIDENCE}.ReferencedSeriesSequence.ReferencedSOPSequence.ReferencedSOPInstanceUID")
_NAMES: Final = (_TITLE, _SCHEME, _STUDIES, _INSTANCES)


class Rejecting:
    """Takes rejections for the watcher of `work`, in its thread."""

    def __init__(self, files: Path, cases: Cases, index: Index) -> None:
        self._files = files
        self._cases = cases
        self._index = index
        self.rejections = Rejections(cases, withdraw)

    def without_rejected(self, study: Study, peers: Directory) -> Study:
        """The study as it counts, once the notes among its objects that are new were looked at."""
        notes = [one for one in study.instances if one.sop_class_uid == KEY_OBJECT_SELECTION]
        if notes:
            unread = self.rejections.unread([one.sop_instance_uid for one in notes])
            for one in notes:
                if one.sop_instance_uid in unread:
                    self._look(one, study, peers)
        gone = {one.sop_instance_uid for one in self.rejections.of_study(study.study_instance_uid)}
        if not gone:
            return study
        return replace(study, instances=tuple(i for i in study.instances if i.sop_instance_uid not in gone))

    def _look(self, one: Instance, study: Study, peers: Directory) -> None:
        removed = self._removed(study)
        note = judged(one, self._files / one.path, Subject(study, removed), peers)
        withdrawn = self.rejections.enter(note)
        if note.objection:
            log.warning(
                "rejection note does nothing",
                study=study.study_instance_uid,
                note=one.sop_instance_uid,
                peer=one.peer,
                reason=note.objection,
            )
        elif note.code:
            log.warning(
                "instances rejected",
                study=study.study_instance_uid,
                peer=one.peer,
                code=note.code,
                instances=len(note.instances),
                cases=",".join(record.case.key for record in withdrawn),
            )

    def _removed(self, study: Study) -> dict[str, Attributes]:
        """Images that cases have read and retention has removed, each with the attributes of a result of its case."""
        held = {i.sop_instance_uid for i in study.instances}
        removed: dict[str, Attributes] = {}
        for record in self._cases.of_study(study.study_instance_uid):
            gone = set(record.case.instances) - held
            results = self._cases.results(record.case.key) if gone else []
            result = self._index.instance(results[0].sop_instance_uid) if results else None
            if result is not None:
                removed |= dict.fromkeys(gone, result.attributes)
        return removed


@dataclass(frozen=True)
class Subject:
    """What a note can be about: a study, and the images of it that are here no more but were analysed."""

    study: Study
    removed: Mapping[str, Attributes]


def judged(one: Instance, path: Path, subject: Subject, peers: Directory) -> ReceivedNote:
    """What a Key Object Selection of a study does to it."""
    plain = ReceivedNote(one.sop_instance_uid, subject.study.study_instance_uid, one.peer, "")
    try:
        if path.stat().st_size > LARGEST_NOTE_BYTES:
            raise Permanent("it is larger than 4 MB")
        said = read_attributes(path, _NAMES)
    except (Rejected, Permanent, OSError) as error:
        log.warning("a key object selection cannot be read", path=one.path, reason=error)
        return plain
    code = said.get(_TITLE.base, ("",))[0]
    if code not in BY_CODE or said.get(_SCHEME.base, ("",))[0] != "DCM":
        return plain
    peer = peers.by_name(one.peer)
    if peer is None or "store" not in peer.may:
        return replace(plain, code=code, objection=f"peer {one.peer} may not store, so it may not reject")
    instances, objection = _named(one, subject, said)
    return replace(plain, code=code, instances=instances, objection=objection)


def _named(one: Instance, subject: Subject, said: dict[str, tuple[str, ...]]) -> tuple[tuple[str, ...], str]:
    """Which instances a note rejects, or why it rejects none."""
    study = subject.study
    if set(said.get(_STUDIES.base, ())) - {study.study_instance_uid}:
        return (), "it names instances of another study"
    known = {i.sop_instance_uid: i.attributes for i in study.instances if i.sop_class_uid != KEY_OBJECT_SELECTION}
    known |= subject.removed
    named = set(said.get(_INSTANCES.base, ()))
    held = sorted(named & known.keys())
    if not held:
        return (), f"none of the {len(named)} instances that it names is an image here"
    patient = identity(one.attributes, study.issuer)
    of_patient = tuple(uid for uid in held if not disagreement(identity(known[uid], study.issuer), patient))
    return of_patient, "" if of_patient else "it is of another patient than the instances that it names"


def rejection_by_hand(study: Study | None, cases: Sequence[CaseRecord], code: str, author: str) -> Rejection | None:
    """All that is here of a study, or that was analysed of it, counts no more, since a person says so."""
    uids = dict.fromkeys(_uids(study.instances) if study else ())
    uids |= dict.fromkeys(uid for record in cases for uid in record.case.instances)
    known = study.study_instance_uid if study else next((record.case.study_instance_uid for record in cases), "")
    return Rejection(known, tuple(uids), code, author) if uids else None


def has_images(study: Study) -> bool:
    """Whether something is left of a study beside notes."""
    return bool(_uids(study.instances))


def _uids(instances: Sequence[Instance]) -> tuple[str, ...]:
    return tuple(i.sop_instance_uid for i in instances if i.sop_class_uid != KEY_OBJECT_SELECTION)
