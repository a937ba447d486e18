"""Who the patient of an instance is, and whether two instances can be of the same patient.

In: attributes as `header.read_header` gives them, and the issuer configured for the peer that sent them. Out: an
`Identity`, and the reason why two disagree. The reason names attributes, never their values: it goes into logs.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pacsnode.dicom.charsets import REPLACEMENT, person_name_groups


@dataclass(frozen=True)
class Identity:
    """A patient as one data set names them; "" is what the data set does not say."""

    issuer: str
    patient_id: str
    name: tuple[str, str, str]
    birth_date: str
    sex: str


def identity(attributes: Mapping[str, Sequence[str]], peer_issuer: str = "") -> Identity:
    """The patient of a data set; its own Issuer of Patient ID goes before that of the peer."""

    def text(keyword: str) -> str:
        return "\\".join(attributes.get(keyword, ())).strip(" \0")

    return Identity(
        issuer=text("IssuerOfPatientID") or peer_issuer,
        patient_id=text("PatientID"),
        name=person_name_groups(text("PatientName")),
        birth_date=text("PatientBirthDate"),
        sex=text("PatientSex"),
    )


def disagreement(a: Identity, b: Identity) -> str:
    """Why `a` and `b` are not the same person, e.g. "PatientName differs"; "" if they are, as far as can be seen."""
    if a == b:
        return ""
    if a.issuer.strip(" \0") != b.issuer.strip(" \0"):
        return "IssuerOfPatientID differs"
    if a.patient_id.strip(" \0") != b.patient_id.strip(" \0"):
        return "PatientID differs"
    if not all(_names_agree(one, other) for one, other in zip(a.name, b.name, strict=True)):
        return "PatientName differs"
    if a.birth_date and b.birth_date and _digits(a.birth_date) != _digits(b.birth_date):
        return "PatientBirthDate differs"
    if a.sex and b.sex and _folded(a.sex) != _folded(b.sex):
        return "PatientSex differs"
    return ""


def _names_agree(one: str, other: str) -> bool:
    """Whether two component groups are the same name, as far as both are given and readable."""
    one, other = _folded(one), _folded(other)
    if REPLACEMENT in one or REPLACEMENT in other:
        # Cut at 64 bytes inside a character: only what stands before it can be compared.
        readable = min(name.find(REPLACEMENT) for name in (one, other) if REPLACEMENT in name)
        one, other = one[:readable], other[:readable]
    return not one or not other or one == other


def _folded(text: str) -> str:
    """`text` without the differences of width, case and white space that keyboards and consoles make."""
    compatible = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", compatible).split())


def _digits(date: str) -> str:
    """`date` without the dots of the older format YYYY.MM.DD (PS3.5 6.2)."""
    return date.replace(".", "").replace("-", "").strip()
