"""How well two methods agree that read the same: numbers, findings, outlines.

In: pairs. Out: the figures that papers give. Pure; knows no case and no service.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WITHIN_SD = 1.96
"""95 % of normally distributed differences lie within so many SD (Bland and Altman, Lancet 1986; 327: 307-310)."""


@dataclass(frozen=True)
class Spread:
    """Some numbers together. `sd` (of n - 1) is None of a single one."""

    count: int
    mean: float
    sd: float | None

    @property
    def limits(self) -> tuple[float, float] | None:
        """Limits of agreement, where the numbers are differences: mean - 1.96 SD to mean + 1.96 SD."""
        if self.sd is None:
            return None
        return self.mean - WITHIN_SD * self.sd, self.mean + WITHIN_SD * self.sd


def spread(numbers: Sequence[float]) -> Spread:
    """Mean and SD of at least one number."""
    mean = math.fsum(numbers) / len(numbers)
    squares = math.fsum((number - mean) ** 2 for number in numbers)
    return Spread(len(numbers), mean, math.sqrt(squares / (len(numbers) - 1)) if len(numbers) > 1 else None)


def kappa(table: Mapping[tuple[str, str], int]) -> float | None:
    """Cohen's kappa, unweighted (Educ Psychol Meas 1960; 20: 37-46), of counts by (what one said, what the other said).

    None where nothing was counted, and where both always said one and the same: chance alone would agree then.
    """
    count = sum(table.values())
    words = {word for pair in table for word in pair}
    first = {word: sum(n for (one, _), n in table.items() if one == word) for word in words}
    second = {word: sum(n for (_, other), n in table.items() if other == word) for word in words}
    by_chance = sum(first[word] * second[word] for word in words)  # times the square of `count`
    if count == 0 or by_chance == count * count:
        return None
    observed = sum(table.get((word, word), 0) for word in words) / count
    expected = by_chance / (count * count)
    return (observed - expected) / (1 - expected)


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float | None:
    """Twice the common part over the sum of both (Dice, Ecology 1945); None where both are empty."""
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2 * int(np.count_nonzero(one & other)) / total if total else None
