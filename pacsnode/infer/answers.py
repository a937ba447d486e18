"""What a network gave to what it means: labels on the grid of the source, or probabilities. Pure.

In: the output after the bundle's postprocessing (labels) or before it (classes). Out: a checked array. Never bends an
answer to fit: another shape, another place, a value that is no label or no number is refused with a sentence.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from pacsnode.errors import Permanent
from pacsnode.infer.discrete import largest
from pacsnode.infer.pipeline import Classification

NOT_FINITE = "the model's output is not a number (NaN or infinity)"
SIGMOID_THRESHOLD = 0.5
FULL = 255
"""A probability of 1, kept in a byte."""
SAME_PLACE = 0.1
"""Of the smallest distance between voxels: closer than that two grids are one, at every corner."""
PROBABILITY_DIGITS = 4
"""So that a batch, whose sums are rounded in another order, says the same as a single run."""


@dataclass(frozen=True)
class Grid:
    """The grid of the source as the network saw it. `shape`: without channels; `affine`: to RAS in mm, None in 2-D."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64] | None = None


def labels(output: torch.Tensor, grid: Grid, segments: int) -> tuple[NDArray[np.uint8], ...]:
    """Label maps, 0 to `segments`, on `grid`; more than one where segments overlap. Raises Permanent.

    One channel holds labels; `segments` + 1 channels hold one for the background first, of which the largest counts;
    `segments` channels are yes or no each (a sigmoid's probability above a half is yes), and may overlap.
    """
    if isinstance(output, MetaTensor) and grid.affine is not None:
        _refuse_elsewhere(output, grid)
    values = np.asarray(torch.Tensor.numpy(output.detach().cpu()))
    if values.shape == grid.shape:
        values = values[None]
    if values.shape[1:] != grid.shape or values.shape[0] not in (1, segments, segments + 1):
        shape, expected = (" x ".join(map(str, one)) for one in (values.shape, (1, *grid.shape)))
        raise Permanent(f"the model's mask has the shape {shape}; the image needs {expected}")
    if values.shape[0] == segments + 1:
        if not np.isfinite(values).all():
            raise Permanent(NOT_FINITE)
        return (np.asarray(largest(torch.from_numpy(values)).numpy()),)
    if values.shape[0] == 1:
        whole = _whole(values[0])
        if whole is not None:
            return (whole,)
    return _of_yes_or_no(values, segments)


def probability_maps(output: torch.Tensor, segments: int) -> NDArray[np.uint8]:
    """(segments, …): of each segment, 255 is certain; of an answer that `labels` has taken. Raises Permanent."""
    values = np.asarray(torch.Tensor.numpy(output.detach().cpu()))
    if values.shape[0] not in (segments, segments + 1) or not (values.min() >= 0 and values.max() <= 1):
        raise Permanent(
            "the model gives no probabilities of its segments to keep (pipeline.yaml: `keep_probabilities`); "
            "let the bundle's postprocessing end with a softmax or sigmoid"
        )
    return np.asarray(np.rint(values[-segments:] * np.float32(FULL)), dtype=np.uint8)


def _whole(values: NDArray[Any]) -> NDArray[np.uint8] | None:
    """The same as labels, None where they are not whole numbers from 0 to 255."""
    if values.dtype == np.uint8:
        return values
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.uint8)
    # NaN, fractions, negative numbers and those above 255 all differ after the cast.
    return whole if np.array_equal(whole, values) else None


def _of_yes_or_no(values: NDArray[np.float32], segments: int) -> tuple[NDArray[np.uint8], ...]:
    if values.shape[0] != segments or not (values.min() >= 0 and values.max() <= 1):  # NaN fails both
        raise Permanent("the model's mask does not hold labels (whole numbers from 0 to 255)")
    return overlaid(channel > SIGMOID_THRESHOLD for channel in values)


def overlaid(masks: Iterable[NDArray[np.bool_]]) -> tuple[NDArray[np.uint8], ...]:
    """Label maps of segments 1 to n: each lies in the first map where it meets none of those before it."""
    maps: list[NDArray[np.uint8]] = []
    for number, mask in enumerate(masks, 1):
        free = next((one for one in maps if not one[mask].any()), None)
        if free is None:
            free = np.zeros(mask.shape, dtype=np.uint8)
            maps.append(free)
        free[mask] = number
    return tuple(maps)


def _refuse_elsewhere(output: MetaTensor, grid: Grid) -> None:
    affine = np.asarray(output.affine.cpu(), dtype=np.float64)
    assert grid.affine is not None
    if affine.shape == grid.affine.shape and not is_same_place(grid.shape, affine, grid.affine):
        raise Permanent(
            "the model's mask lies on another grid than the images (its position, orientation or spacing differs): "
            "does the bundle's postprocessing lack Invertd?"
        )


def is_same_place(shape: Sequence[int], one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether the corners of a grid of this shape (in the order of the affines' columns) lie at the same places."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, size - 1) for size in shape))])
    apart_mm = np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max()
    return bool(apart_mm <= SAME_PLACE * np.linalg.norm(other[:3, :3], axis=0).min())


def probabilities(output: torch.Tensor, classification: Classification) -> tuple[float, ...]:
    """One for each class of a single input, from the network's output. Raises Permanent."""
    values = output.detach().cpu().float().as_subclass(torch.Tensor).flatten()
    count = len(classification.classes)
    if len(values) != count:
        raise Permanent(f"the model gave {len(values)} numbers; pipeline.yaml has {count} classes")
    if not torch.isfinite(values).all():
        raise Permanent(NOT_FINITE)
    if classification.activation == "softmax":
        values = torch.softmax(values, 0)
    elif classification.activation == "sigmoid":
        values = torch.sigmoid(values)
    elif values.min() < 0 or values.max() > 1:
        raise Permanent(
            f"the model gave {values.min():g} to {values.max():g} as probabilities; they must lie between 0 and 1 "
            "(pipeline.yaml: `activation: none`)"
        )
    return tuple(round(value, PROBABILITY_DIGITS) for value in values.tolist())
