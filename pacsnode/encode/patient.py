"""The patient and the study in words, for people: names in each of their scripts, dates as they are written in Korea.

In: a normalised header. Out: text. Never guesses: what is no date is told as it stands.
"""

from __future__ import annotations

import re
import unicodedata

from pydicom.dataset import Dataset

_MOST_CHARACTERS = 200


def names(header: Dataset) -> str:
    """`홍길동 (洪吉洞, Hong Gildong)`: of the three component groups of the name (PS3.5 6.2.1.2) Hangul first."""
    groups = [_spelt(group) for group in str(header.get("PatientName", "")).split("=")[:3]]
    known = list(dict.fromkeys(group for group in groups if group))
    known.sort(key=_script)
    first, *others = known or ["-"]
    return f"{first} ({', '.join(others)})" if others else first


def birth_date(header: Dataset) -> str:
    """`1962-03-05`."""
    return _date(str(header.get("PatientBirthDate", "")))


def moment(header: Dataset, which: str) -> str:
    """`2026-11-22 14:05`: the attributes StudyDate and StudyTime for `Study`."""
    time = re.match(r"(\d\d):?(\d\d)", str(header.get(f"{which}Time", "")))
    date = _date(str(header.get(f"{which}Date", "")))
    return f"{date} {time[1]}:{time[2]}" if time and date else date


def _date(text: str) -> str:
    parts = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", text.strip())
    return "-".join(parts.groups()) if parts else text[:_MOST_CHARACTERS]


def _spelt(group: str) -> str:
    """One component group in the order in which it is spoken; Hangul and Hanja without a space between."""
    components = [part.strip() for part in group[:_MOST_CHARACTERS].split("^")[:5]]
    components += [""] * (5 - len(components))
    family, given, middle, prefix, suffix = components
    if _script(group) < 2:
        return "".join((family, given, middle))
    return " ".join(part for part in (prefix, family, given, middle, suffix) if part)


def _script(text: str) -> int:
    """0 Hangul, 1 Hanja, 2 any other."""
    kinds = {unicodedata.name(character, "").partition(" ")[0] for character in unicodedata.normalize("NFC", text)}
    return 0 if "HANGUL" in kinds else 1 if "CJK" in kinds else 2
