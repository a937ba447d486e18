"""Names and values of conditions: what YAML holds and what a data set holds, brought to one key by the VR. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

from pacsnode.dicom.names import Name, parse_name
from pacsnode.patterns import fold
from pacsnode.yamlfile import found_in_words

PEER = "peer"
FACTS = {
    # What the node itself knows of an image; no DICOM attribute, so in small letters.
    PEER: ("LO", "the peer that sent the image, by its name in `peers:`"),
    "age": ("AS", "the patient's age at the study: PatientAge, else from PatientBirthDate and StudyDate"),
    "time": ("TM", "the time of day at which the image came, on the clock of the site (PACSNODE_TIMEZONE)"),
    "weekday": ("CS", "the day on which it came: mon, tue, wed, thu, fri, sat, sun"),
    "study_images": ("IS", "how many images of the study have come so far"),
    "series_images": ("IS", "how many images of its series have come so far"),
    "study_series": ("IS", "how many series of the study have come so far"),
}
"""Each with its VR and what it is."""
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NUMBER_VRS = frozenset({"DS", "IS", "FL", "FD", "US", "SS", "UL", "SL", "UV", "SV"})
ORDERED_VRS = NUMBER_VRS | {"DA", "DT", "AS", "TM"}

Key = str | Decimal

NUMBER = re.compile(r"[+-]?(\d{1,32}\.?\d{0,32}|\.\d{1,32})([eE][+-]?\d{1,3})?", re.ASCII)
AGE = re.compile(r"(\d{1,4})([DWMY])", re.ASCII)
DATE = re.compile(r"(\d{4})[-.]?(0[1-9]|1[0-2])[-.]?(0[1-9]|[12]\d|3[01])", re.ASCII)
TIME = re.compile(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(?:\.\d{1,6})?)?)?", re.ASCII)
DAYS = {"D": Decimal(1), "W": Decimal(7), "M": Decimal("30.4375"), "Y": Decimal("365.25")}


@lru_cache(maxsize=4096)
def named(text: str) -> Name:
    """A name of a condition, understood. Raises ValueError with a sentence where it is none."""
    if text in FACTS:
        return Name(text=text, base=text, index=0, vr=FACTS[text][0], steps=(), in_index=True)
    return parse_name(text)


def values_of(name: Name, attributes: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The values that a name means: all of them, or the one of its [n]."""
    values = attributes.get(name.base, ())
    if not name.index:
        return values
    one = values[name.index - 1 : name.index]
    return one if any(one) else ()


@lru_cache(maxsize=65536)
def key_of(name: str, value: str) -> Key | None:
    """What a value is compared by, from the attribute's VR; None where it is no value of that VR.

    Numbers are Decimal, DA and the date of DT `YYYYMMDD`, TM `HHMMSS`, AS days (a month 30.4375, a year 365.25), UI as
    it is, other VRs folded text.
    """
    vr = named(name).vr
    plain = value.strip(" \0")
    if vr in NUMBER_VRS:
        return Decimal(plain) if NUMBER.fullmatch(plain) else None
    if vr in ("DA", "DT"):
        date = DATE.fullmatch(plain) if vr == "DA" else DATE.match(plain)
        return "".join(date.groups()) if date else None
    if vr == "TM":
        time = TIME.fullmatch(plain)
        return "".join(part or "00" for part in time.groups()) if time else None
    if vr == "AS":
        age = AGE.fullmatch(plain.upper())
        return int(age[1]) * DAYS[age[2]] if age else None
    return plain if vr == "UI" else fold(value)


class Wrong(Exception):
    """A mistake inside one operand."""


FORMS = {
    "DA": "a date such as 2026-03-31",
    "DT": "a date such as 2026-03-31",
    "TM": 'a time of day such as "18:30"',
    "AS": "an age such as 18Y or 6M",
}


def operand_of(name: str, raw: object) -> tuple[str, Key]:
    """One value of a file: as written, and its key."""
    vr = named(name).vr
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        hint = "; write {in: [...]} for one of several" if isinstance(raw, list) else ""
        hint = "; write {exists: false} for an absent attribute" if raw is None else hint
        raise Wrong(f"expected text or a number, found {found_in_words(raw)}{hint}")
    if isinstance(raw, float) and vr not in NUMBER_VRS:
        raise Wrong(f"{name} is text, and {raw} may be written in several ways; put it in quotes")
    text = f"{raw}Y" if vr == "AS" and str(raw).isdecimal() else str(raw)
    key = key_of(name, text)
    if key is None or key == "":
        form = "a number" if vr in NUMBER_VRS else FORMS.get(vr, "a value with a letter or digit in it")
        raise Wrong(f"{name} has VR {vr}: expected {form}, found {found_in_words(raw)}")
    if name == "weekday" and key not in WEEKDAYS:
        raise Wrong(f"expected a day, one of {', '.join(WEEKDAYS)}; found {found_in_words(raw)}")
    return text, key
