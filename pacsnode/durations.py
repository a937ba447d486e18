"""Spans of time as people write them in rules and contracts: `20s`, `2m`, `1h`, `7d`.

In: a text of YAML. Out: seconds, or a mistake that `yamlfile` places.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, WithJsonSchema

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
