"""What a detecting network gave, to boxes on the grid of the source. Pure.

In: the network's output in the style of MONAI's and torchvision's detectors, and the affines of what the network saw
and of the source. Out: Boxes. Coordinates are those of edges: the pixel i goes from i to i + 1, as in MONAI's boxes and
in DICOM's SCOORD. Never invents a box, never mends one: what is no box is refused with a sentence.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from pacsnode.errors import Permanent

BOX_KEYS, SCORE_KEYS, LABEL_KEYS = ("box", "boxes"), ("label_scores", "scores", "score"), ("label", "labels")
MOST_BOXES = 10_000
"""Of one input; a detector keeps some hundred."""


@dataclass(frozen=True)
class Boxes:
    """n boxes. `corners`: (n, 2 * dimensions), the low corner first; `scores`: (n,), 0 to 1; `labels`: (n,)."""

    corners: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]

    @property
    def dimensions(self) -> int:
        """Of the input: 2 or 3."""
        return int(self.corners.shape[1] // 2)


def boxes_of(given: Any, count: int, dimensions: int) -> list[Boxes]:
    """The boxes of each of `count` inputs. Raises Permanent."""
    told = [given] if isinstance(given, Mapping) else list(given) if isinstance(given, list | tuple) else []
    if len(told) != count or not all(isinstance(one, Mapping) for one in told):
        raise Permanent(
            "the model gave no boxes: expected for each image a map of `box`, `label_scores` and `label`, as MONAI's "
            "detectors give it"
        )
    return [_boxes(one, dimensions) for one in told]


def _boxes(given: Mapping[str, Any], dimensions: int) -> Boxes:
    corners = _array(given, BOX_KEYS).reshape(-1, 2 * dimensions) if _size(given, BOX_KEYS) else None
    if corners is None:
        return Boxes(np.empty((0, 2 * dimensions)), np.empty(0), np.empty(0, dtype=np.int64))
    scores = _array(given, SCORE_KEYS).ravel()
    labels = _array(given, LABEL_KEYS).ravel() if any(key in given for key in LABEL_KEYS) else np.zeros(len(corners))
    if not len(corners) == len(scores) == len(labels) <= MOST_BOXES:
        raise Permanent(f"the model gave {len(corners)} boxes, {len(scores)} scores and {len(labels)} labels")
    if not all(np.isfinite(one).all() for one in (corners, scores, labels)):
        raise Permanent("the model's boxes are not numbers (NaN or infinity)")
    if scores.min() < 0 or scores.max() > 1:
        raise Permanent(f"the model gave scores from {scores.min():g} to {scores.max():g}; they must be from 0 to 1")
    if (corners[:, :dimensions] > corners[:, dimensions:]).any():
        raise Permanent("the model gave a box whose first corner lies beyond its last one")
    return Boxes(corners, scores, labels.astype(np.int64))


def _size(given: Mapping[str, Any], keys: Sequence[str]) -> int:
    return int(_array(given, keys).size)


def _array(given: Mapping[str, Any], keys: Sequence[str]) -> NDArray[np.float64]:
    for key in keys:
        if isinstance(given.get(key), torch.Tensor):
            return np.asarray(torch.Tensor.numpy(given[key].detach().cpu().as_subclass(torch.Tensor)), dtype=np.float64)
    raise Permanent(f"the model's answer has no {' or '.join(keys)}")


def on_source(boxes: Boxes, seen: torch.Tensor, source: NDArray[np.float64] | None) -> Boxes:
    """The boxes on the grid of the source: through the affine of what the network saw (`seen`) and that of the source.

    `source` is None in two dimensions, where the node gives none. A box that was turned becomes the one around it.
    """
    if not isinstance(seen, MetaTensor):
        return boxes
    size = boxes.dimensions
    to_source = np.linalg.inv(_of(source if source is not None else np.eye(4), size)) @ _of(seen.affine.cpu(), size)
    choices = itertools.product(*((axis, axis + size) for axis in range(size)))
    # An affine has whole numbers at the centres of voxels, a box at their edges.
    corners = np.stack([boxes.corners[:, list(choice)] for choice in choices]) - 0.5
    moved = corners @ to_source[:size, :size].T + to_source[:size, size] + 0.5
    return Boxes(np.concatenate([moved.min(axis=0), moved.max(axis=0)], axis=1), boxes.scores, boxes.labels)


def _of(affine: Any, size: int) -> NDArray[np.float64]:
    """The part of an affine for so many axes."""
    whole = np.asarray(affine, dtype=np.float64)
    axes = [*range(size), whole.shape[0] - 1]
    return whole[np.ix_(axes, axes)]
