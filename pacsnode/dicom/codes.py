"""Coded concepts: (value, scheme designator, meaning) as PS3.16 and its context groups pin them. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

PRIVATE_SCHEME = "99PACSNODE"
"""Coding scheme of concepts for which no standard code was verified; declared in (0008,0110)."""


@dataclass(frozen=True)
class Concept:
    """One coded concept (PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str


PRESENT = Concept("52101004", "SCT", "Present")
ABSENT = Concept("272519000", "SCT", "Absent")
UNDETERMINED = Concept("373068000", "SCT", "Undetermined")

RIGHT = Concept("24028007", "SCT", "Right")
LEFT = Concept("7771000", "SCT", "Left")

NO_UNITS = Concept("1", "UCUM", "no units")
PERCENT = Concept("%", "UCUM", "Percent")
SQUARE_MILLIMETER = Concept("mm2", "UCUM", "SquareMilliMeter")
