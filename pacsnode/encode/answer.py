"""The gate for results that a vendor's node made: they leave as they came, or not at all.

In: what the archive knows of an object and of the images that were sent, and the object's file. Out: its kind, or why
it may not leave. Reads headers alone; changes nothing, makes nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from pacsnode.dicom.identity import disagreement, identity
from pacsnode.encode.normalise import read_header
from pacsnode.errors import Permanent
from pacsnode.handover import Attributes, Instance, ResultKind

_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
KINDS: Final[dict[str, ResultKind]] = {
    **{f"{_STORAGE}{part}": "sr" for part in ("88.11", "88.22", "88.33", "88.34", "88.50", "88.65", "88.69")},
    **{f"{_STORAGE}{part}": "seg" for part in ("66.4", "66.7")},
    **{f"{_STORAGE}{part}": "sc" for part in ("7", "7.1", "7.2", "7.3", "7.4")},
    f"{_STORAGE}104.1": "pdf",
    f"{_STORAGE}88.59": "ko",
    **{f"{_STORAGE}11.{part}": "pr" for part in range(1, 9)},
}
"""SR: Basic Text, Enhanced, Comprehensive, Comprehensive 3D, Mammography, Chest and Colon CAD. SEG: segmentation, label
map. SC: single frame and the multi-frame ones. PDF: encapsulated. KO: key object selection. PR: grayscale, color,
pseudo-color, blending, XA/XRF grayscale, planar MPR volumetric, compositing, advanced blending (PS3.4 table B.5-1)."""
_WITHOUT_REFERENCES: Final[frozenset[ResultKind]] = frozenset(("sc", "pdf"))
"""Their IODs ask for no reference to an image, and many vendors write none."""

_OF_STUDY: Final = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber")
_NO_IMAGES: Final = frozenset(
    (
        "ReferencedStudySequence",
        "ReferencedPatientSequence",
        "ReferencedVisitSequence",
        "ReferencedPerformedProcedureStepSequence",
        "ReferencedRequestSequence",
        "RequestAttributesSequence",
        "PredecessorDocumentsSequence",
        "IdenticalDocumentsSequence",
    )
)
"""What is named here is no evidence of this result."""
_ELSEWHERE: Final = "PertinentOtherEvidenceSequence"
"""Evidence of other studies, such as a prior (PS3.3 C.17.2): named there, it may be referred to."""


@dataclass(frozen=True)
class Asked:
    """What an answer is held against: an image that was sent, its study, and all instances that may be referred to."""

    image: Attributes
    issuer: str
    sent: Collection[str]
    known: Collection[str]


def kind_of(sop_class_uid: str) -> ResultKind | None:
    """The kind of result that a SOP class is; None for what is no result."""
    return KINDS.get(sop_class_uid)


def objection(answer: Instance, path: Path, asked: Asked) -> str:
    """Why an object may not leave as a result for these images; "" where it may. Names attributes, never values."""
    if reason := _other_patient(answer.attributes, asked):
        return f"it is not of the same examination: {reason}"
    try:
        references = _References(read_header(path))
    except Permanent as error:
        return f"it cannot be read: {str(error).partition(': ')[2] or error}"
    if strange := sorted(references.named - references.elsewhere - set(asked.known)):
        return f"it refers to {strange[0]}, which is no image of the study"
    if kind_of(answer.sop_class_uid) not in _WITHOUT_REFERENCES and not references.named & set(asked.sent):
        return "it refers to none of the images that were sent"
    return ""


def _other_patient(found: Attributes, asked: Asked) -> str:
    """In whom or in what the two differ; what an answer leaves empty agrees, but for the PatientID."""
    reason = disagreement(identity(asked.image, asked.issuer), identity(found, asked.issuer))
    if reason:
        return reason
    for keyword in _OF_STUDY:
        ours, theirs = _plain(keyword, asked.image), _plain(keyword, found)
        if ours and theirs and ours != theirs:
            return f"{keyword} differs"
    return ""


def _plain(keyword: str, attributes: Attributes) -> str:
    text = " ".join(unicodedata.normalize("NFKC", "".join(attributes.get(keyword, ()))).casefold().split())
    if keyword == "StudyTime":
        return text.replace(":", "").partition(".")[0].ljust(6, "0")
    return text.replace(".", "").replace("-", "") if keyword == "StudyDate" else text


class _References:
    """Every instance that an object names, and those that it says are of other studies."""

    def __init__(self, header: Dataset) -> None:
        self.named: set[str] = set()
        self.elsewhere: set[str] = set()
        for keyword, uid in _instances(header, ""):
            (self.elsewhere if keyword == _ELSEWHERE else self.named).add(uid)


def _instances(dataset: Dataset, within: str) -> Iterator[tuple[str, str]]:
    """(the sequence of the object itself that it lies in, UID)"""
    for element in dataset:
        if element.keyword == "ReferencedSOPInstanceUID":
            yield within, str(element.value)
        elif element.VR == "SQ" and element.keyword not in _NO_IMAGES:
            for item in element.value:
                yield from _instances(item, within or element.keyword)
