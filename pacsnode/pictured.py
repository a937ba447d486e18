"""Planes of a volume or clip as they are drawn: made where pixels are decoded, marked where results are encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pictures:
    """Some planes, window applied, only for drawing; the first one is the one to show.

    `planes`: their numbers, from 0, on the first axis of the label map. `pixels`: (planes, rows, columns) uint8, bright
    is dense, or (planes, rows, columns, 3) RGB; reduced where the source is large. `size`: rows, columns of the source.
    """

    planes: tuple[int, ...]
    pixels: NDArray[np.uint8]
    size: tuple[int, int]

    @property
    def plain(self) -> dict[str, Any]:
        """All but the pixels, for JSON."""
        return {"planes": self.planes, "size": self.size}

    @classmethod
    def of(cls, plain: dict[str, Any], pixels: NDArray[np.uint8]) -> Pictures:
        """The same from `plain` and the pixels."""
        rows, columns = plain["size"]
        return cls(tuple(plain["planes"]), pixels, (rows, columns))
