"""The outlines of a mask: closed lines along the borders of its pixels, thinned to what the eye sees.

In: one plane of a mask. Out: points as (column, row), 0, 0 at the outer corner of the top left pixel. Tracing takes
some microseconds a pixel border: ask `borders` first, a mask that is noise has millions.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(points, 2): column, row."""

MOST_POINTS: Final = 2000
"""Of one line; GraphicData in Explicit VR holds 8191."""
_TOLERANCE_PIXELS: Final = 1.25
"""How far the thinned line may be from the true one: the steps of a border that is nearly level are 1 deep."""
_FINE_TOLERANCE_PIXELS: Final = 0.5
_FINE_EDGES: Final = 240
"""A line of fewer pixel borders (60 pixels across) is kept nearly as it is."""


def borders(mask: NDArray[np.bool_]) -> int:
    """How many pixel borders the outlines of `mask` run along."""
    padded = np.pad(mask, 1)
    return int((padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum())


def outlines(mask: NDArray[np.bool_], most: int) -> list[Points]:
    """The `most` longest outlines of `mask`, also of its holes; the first point of each is not repeated at its end.

    Parts that meet in a corner have outlines of their own.
    """
    starts, directions = _edges(mask)
    width = mask.shape[1] + 1
    following = _following(starts, directions, width)
    lines = []
    done = np.zeros(len(starts), dtype=bool)
    following_list = following.tolist()
    for first in range(len(starts)):
        if done[first]:
            continue
        loop = [first]
        while (after := following_list[loop[-1]]) != first:
            loop.append(after)
        done[loop] = True
        vertices, turns = starts[loop], directions[loop]
        corners = vertices[turns != np.roll(turns, 1)]
        line = np.stack([corners % width, corners // width], axis=1).astype(np.float64)
        lines.append((len(loop), line))
    lines.sort(key=lambda one: one[0], reverse=True)
    return [
        _thinned(line, _FINE_TOLERANCE_PIXELS if n < _FINE_EDGES else _TOLERANCE_PIXELS) for n, line in lines[:most]
    ]


def _edges(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixel borders with the mask on the right: start vertex, direction (0 right, 1 down, 2 left, 3 up)."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    width = mask.shape[1] + 1
    starts, directions = [], []
    # The neighbour that must be outside, and the corner of the pixel from which the border runs clockwise.
    for direction, (neighbour, right, down) in enumerate(
        (
            (padded[:-2, 1:-1], 0, 0),
            (padded[1:-1, 2:], 1, 0),
            (padded[2:, 1:-1], 1, 1),
            (padded[1:-1, :-2], 0, 1),
        )
    ):
        rows, columns = np.nonzero(inside & ~neighbour)
        starts.append((rows + down) * width + columns + right)
        directions.append(np.full(len(rows), direction))
    return np.concatenate(starts), np.concatenate(directions)


def _following(starts: NDArray[np.int64], directions: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """For each border the one that follows it; where two do, the sharper turn to the right."""
    ends = starts + np.array([1, width, -1, -width])[directions]
    keys = starts * 4 + directions
    order = np.argsort(keys)
    in_order = keys[order]
    following = np.full(len(starts), -1)
    for turn in (3, 0, 1):  # left, straight on, right: the last that exists wins
        wanted = ends * 4 + (directions + turn) % 4
        found = np.minimum(np.searchsorted(in_order, wanted), max(len(keys) - 1, 0))
        exists = in_order[found] == wanted if len(keys) else np.zeros(0, dtype=bool)
        following[exists] = order[found[exists]]
    return following


def _thinned(line: Points, tolerance: float) -> Points:
    """`line` with few points, by Douglas and Peucker on both halves of the ring; more than `MOST_POINTS` never."""
    thin = line
    while True:
        farthest = int(np.argmax(((line - line[0]) ** 2).sum(axis=1)))
        ring = np.concatenate([line, line[:1]])
        kept = _kept(ring, 0, farthest, tolerance) | _kept(ring, farthest, len(line), tolerance)
        candidate = ring[np.flatnonzero(kept[:-1])]
        if len(candidate) >= 3:
            thin = candidate
        if len(thin) <= MOST_POINTS:
            return thin
        tolerance *= 2


def _kept(ring: Points, first: int, last: int, tolerance: float) -> NDArray[np.bool_]:
    kept = np.zeros(len(ring), dtype=bool)
    kept[[first, last]] = True
    waiting = [(first, last)]
    while waiting:
        start, end = waiting.pop()
        if end - start < 2:
            continue
        between = ring[start + 1 : end] - ring[start]
        chord = ring[end] - ring[start]
        length = float(np.hypot(*chord))
        if length == 0:
            distances = np.hypot(between[:, 0], between[:, 1])
        else:
            distances = np.abs(between[:, 0] * chord[1] - between[:, 1] * chord[0]) / length
        worst = int(np.argmax(distances))
        if distances[worst] > tolerance:
            middle = start + 1 + worst
            kept[middle] = True
            waiting += [(start, middle), (middle, end)]
    return kept
