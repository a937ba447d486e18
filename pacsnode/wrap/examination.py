"""Whose picture it is, and of which examination: the Patient and Study attributes of every object of one call.

In: what a person typed, or a DICOM object of the same examination. Out: a data set with these attributes in UTF-8. What
is not known stays empty (type 2); nothing is guessed, and what is no value of its VR is refused with its option's name.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date, datetime, time
from pathlib import Path

import pydicom.config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from pacsnode.dicom import uids
from pacsnode.encode.header import identity_keywords, is_left_out
from pacsnode.encode.normalise import UTF_8, read_header
from pacsnode.errors import ConfigError

_EMPTY = ("ReferringPhysicianName",)
"""Type 2 of the study of which nothing is asked."""
_FORMATS = {("DA", 8): "%Y%m%d", ("TM", 2): "%H", ("TM", 4): "%H%M", ("TM", 6): "%H%M%S"}


@dataclass(frozen=True)
class Subject:
    """Patient and study as they were typed. The names of fields are those of the command's options."""

    patient_id: str
    patient_name: str = ""
    birth_date: str = ""
    sex: str = ""
    issuer: str = ""
    study_date: str = ""
    study_time: str = ""
    accession: str = ""
    description: str = ""
    study_id: str = ""
    study_uid: str = ""


_KEYWORDS = {
    "patient_id": "PatientID",
    "patient_name": "PatientName",
    "birth_date": "PatientBirthDate",
    "sex": "PatientSex",
    "issuer": "IssuerOfPatientID",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "accession": "AccessionNumber",
    "description": "StudyDescription",
    "study_id": "StudyID",
    "study_uid": "StudyInstanceUID",
}
_OPTIONAL = {"issuer", "description"}  # type 3: absent, not empty


def examination_of(subject: Subject) -> Dataset:
    """Patient and study of what was typed. Raises ConfigError with the option that is wrong."""
    if not subject.patient_id:
        raise ConfigError("whose is it? give the patient's number, or --like a DICOM file", where="--patient-id")
    if not (subject.study_date or subject.accession or subject.study_uid):
        raise ConfigError("which examination is it? give its date, or --accession, or --like a DICOM file",
                          where="--study-date")  # fmt: skip
    examination = Dataset()
    examination.SpecificCharacterSet = UTF_8
    for field in fields(subject):
        value, keyword = getattr(subject, field.name), _KEYWORDS[field.name]
        checked(keyword, value, f"--{field.name.replace('_', '-')}")
        if value or field.name not in _OPTIONAL:
            setattr(examination, keyword, value)
    for keyword in _EMPTY:
        setattr(examination, keyword, "")
    if not subject.study_uid:
        examination.StudyInstanceUID = _derived(subject)
    return examination


def examination_like(path: Path) -> Dataset:
    """Patient and study of a DICOM object, in Unicode. Raises Permanent where it cannot be read."""
    header = read_header(path)
    examination = Dataset()
    examination.SpecificCharacterSet = UTF_8
    for keyword in identity_keywords():
        if keyword in header and not is_left_out(header[keyword]):
            examination[keyword] = header[keyword]
    asked_for = [keyword for name, keyword in _KEYWORDS.items() if name not in _OPTIONAL]
    for keyword in (*asked_for, *_EMPTY):
        if keyword not in examination:
            setattr(examination, keyword, "")
    return examination


def day_of(examination: Dataset) -> date | None:
    """The study's date; None where it is not known, or no date."""
    found = _moment(str(examination.StudyDate), "DA")
    return found.date() if found else None


def clock_of(examination: Dataset) -> time | None:
    """The study's time; None where it is not known, or no time."""
    found = _moment(str(examination.StudyTime), "TM")
    return found.time() if found else None


def checked(keyword: str, value: str, option: str) -> str:
    """`value`, where it is one of the attribute's VR and has one value. Raises ConfigError with the option."""
    vr = dictionary_VR(keyword)
    if "\\" in value or not value.isprintable():
        raise ConfigError("has a backslash or a character that cannot be seen", where=option)
    try:
        validate_value(vr, value, pydicom.config.RAISE)
    except ValueError:
        raise ConfigError(f"is no value that DICOM allows there (VR {vr})", where=option) from None
    if value and vr in ("DA", "TM") and _moment(value, vr) is None:
        raise ConfigError(f"is no {'date as YYYYMMDD' if vr == 'DA' else 'time as HHMMSS'}", where=option)
    if keyword == "PatientSex" and value not in ("", "M", "F", "O"):
        raise ConfigError("is M, F, O or empty", where=option)
    if vr == "UI" and value and not uids.is_valid(value):
        raise ConfigError("is no UID", where=option)
    return value


def _moment(value: str, vr: str) -> datetime | None:
    """A DA or TM as it is in an object, trailing spaces and all; None where it is none. Strict: strptime is not."""
    whole, dot, fraction = value.strip().partition(".")
    form = _FORMATS.get((vr, len(whole)))
    if form is None or not (whole + fraction).isdecimal() or (dot and form != "%H%M%S"):
        return None
    try:
        return datetime.strptime(whole, form).replace(microsecond=int(fraction.ljust(6, "0")[:6]))
    except ValueError:
        return None


def _derived(subject: Subject) -> str:
    """The study of a patient on a day under an accession number: the same on every call."""
    study = (subject.study_date, subject.study_time, subject.accession, subject.study_id)
    return uids.derive("wrapped study", subject.issuer, subject.patient_id, *study)
