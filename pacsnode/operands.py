"""The values that conditions compare: what YAML holds and what a data set holds, brought to one key by the VR. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

from pacsnode.dicom.attributes import BY_KEYWORD
from pacsnode.patterns import fold
from pacsnode.yamlfile import found_in_words

NUMBER_VRS = frozenset({"DS", "IS", "FL", "FD", "US", "SS", "UL", "SL", "UV", "SV"})

Key = str | Decimal

NUMBER = re.compile(r"[+-]?(\d{1,32}\.?\d{0,32}|\.\d{1,32})([eE][+-]?\d{1,3})?", re.ASCII)
AGE = re.compile(r"(\d{1,4})([DWMY])", re.ASCII)
DATE = re.compile(r"(\d{4})[-.]?(0[1-9]|1[0-2])[-.]?(0[1-9]|[12]\d|3[01])", re.ASCII)
DAYS = {"D": Decimal(1), "W": Decimal(7), "M": Decimal("30.4375"), "Y": Decimal("365.25")}


def vr_of(keyword: str) -> str:
    """The VR of an attribute that rules may use; a peer's name is text."""
    attribute = BY_KEYWORD.get(keyword)
    return attribute.vr if attribute else "LO"


@lru_cache(maxsize=65536)
def key_of(keyword: str, value: str) -> Key | None:
    """What a value is compared by, from the attribute's VR; None where it is no value of that VR.

    Numbers are Decimal, DA and the date of DT `YYYYMMDD`, AS days (a month 30.4375, a year 365.25), UI as it is, other
    VRs folded text.
    """
    vr = vr_of(keyword)
    plain = value.strip(" \0")
    if vr in NUMBER_VRS:
        return Decimal(plain) if NUMBER.fullmatch(plain) else None
    if vr in ("DA", "DT"):
        date = DATE.fullmatch(plain) if vr == "DA" else DATE.match(plain)
        return "".join(date.groups()) if date else None
    if vr == "AS":
        age = AGE.fullmatch(plain.upper())
        return int(age[1]) * DAYS[age[2]] if age else None
    return plain if vr == "UI" else fold(value)


class Wrong(Exception):
    """A mistake inside one operand."""


FORMS = {"DA": "a date such as 2026-03-31", "DT": "a date such as 2026-03-31", "AS": "an age such as 18Y or 6M"}


def operand_of(keyword: str, raw: object) -> tuple[str, Key]:
    """One value of a file: as written, and its key."""
    vr = vr_of(keyword)
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        hint = "; write {in: [...]} for one of several" if isinstance(raw, list) else ""
        hint = "; write {exists: false} for an absent attribute" if raw is None else hint
        raise Wrong(f"expected text or a number, found {found_in_words(raw)}{hint}")
    if isinstance(raw, float) and vr not in NUMBER_VRS:
        raise Wrong(f"{keyword} is text, and {raw} may be written in several ways; put it in quotes")
    text = f"{raw}Y" if vr == "AS" and str(raw).isdecimal() else str(raw)
    key = key_of(keyword, text)
    if key is None or key == "":
        form = "a number" if vr in NUMBER_VRS else FORMS.get(vr, "a value with a letter or digit in it")
        raise Wrong(f"{keyword} has VR {vr}: expected {form}, found {found_in_words(raw)}")
    return text, key
