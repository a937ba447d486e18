"""Spans of time as people write them in rules and contracts: `20s`, `2m`, `1h`, `7d`; times of day: `"18:30"`.

In: a text of YAML. Out: seconds, or the time of day as it stands there, or a mistake that `yamlfile` places.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from pacsnode.yamlfile import found_in_words, wrong

LONGEST_WAIT_S: Final = 30 * 86400.0
UNITS_S: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION: Final = WithJsonSchema({"type": "string", "pattern": r"^\d{1,5}(\.\d)? ?[smhd]$"})


def seconds(raw: object) -> float:
    """Seconds, at most 30 days of them. Raises pydantic's mistake."""
    found = re.fullmatch(r"(\d{1,5}(?:\.\d)?) ?([smhd])", raw, re.ASCII) if isinstance(raw, str) else None
    if found is None:
        raise wrong("duration", f"expected a time such as 20s, 2m, 1h or 7d, found {found_in_words(raw)}")
    wanted = float(found[1]) * UNITS_S[found[2]]
    if wanted > LONGEST_WAIT_S:
        raise wrong("duration", f"{raw} is longer than 30 days")
    return wanted


Seconds = Annotated[float, BeforeValidator(seconds), DURATION]


def _clock(raw: object) -> str:
    if not isinstance(raw, str) or not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", raw):
        raise wrong("clock", f'expected a time of day such as "18:30", found {found_in_words(raw)}')
    return raw


def _from_to(raw: object) -> object:
    if not isinstance(raw, list) or len(raw) != 2:
        raise wrong("wrong-type", f"expected two values, [from, to], found {found_in_words(raw)}")
    return raw


Clock = Annotated[str, BeforeValidator(_clock)]
PAIR_LENGTH: Final = Field(min_length=2, max_length=2)
PAIR: Final = BeforeValidator(_from_to)
"""`[from, to]`."""
