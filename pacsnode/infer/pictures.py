"""One picture as a network reads it: its negative, and a smaller copy. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]
"""(rows, columns), 0 to 1, or (rows, columns, 3), RGB, 0 to 255."""


def turned_round(picture: Picture) -> Picture:
    """The negative."""
    return np.float32(1 if picture.ndim == 2 else 255) - picture


def at_most(picture: Picture, side: int) -> tuple[Picture, int]:
    """(rows, columns …) reduced by the mean of blocks to at most `side`, and the block; the last blocks may be cut."""
    rows, columns = picture.shape[:2]
    block = -(-max(rows, columns) // side)
    if block == 1:
        return picture, block
    beside = ((0, 0),) * (picture.ndim - 2)
    edged = np.pad(picture, ((0, -rows % block), (0, -columns % block), *beside), mode="edge")
    summed = sum(edged[row::block, column::block] for row in range(block) for column in range(block))
    return np.asarray(summed / np.float32(block * block), dtype=np.float32), block
