"""How long to wait after a failure. Pure but for its jitter."""

from __future__ import annotations

import random
from typing import Final

FIRST_DELAY_S: Final = 5.0
LONGEST_DELAY_S: Final = 86_400.0
"""Of one row that the peer does not take though it answers."""
LONGEST_SILENCE_S: Final = 600.0
"""Of a destination that does not answer: one C-ECHO in ten minutes costs nobody anything, and what comes up again gets
its results soon.
"""


def delay_us(failures: int, longest_s: float = LONGEST_DELAY_S) -> int:
    """Doubling from 5 s to `longest_s`, each within half of it to itself, so that many do not come at once."""
    longest = min(longest_s, FIRST_DELAY_S * 2.0 ** min(failures, 20))
    return int(longest * random.uniform(0.5, 1.0) * 1_000_000)  # noqa: S311  # jitter, no secret
