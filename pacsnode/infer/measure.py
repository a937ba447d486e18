"""Measures of a label map that the node itself takes, so that a segmentation bundle needs no code for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pacsnode.dicom.codes import SQUARE_MILLIMETER, Concept
from pacsnode.errors import Permanent

FRACTION = Concept("{fraction}", "UCUM", "fraction of the image")
MILLILITER = Concept("ml", "UCUM", "Milliliter")


def area(
    label_map: NDArray[np.uint8], values: Sequence[int], spacing_mm: tuple[float, float] | None
) -> tuple[float, Concept]:
    """Area of the union of labels in a (rows, columns) map: mm2, or the fraction of the image without a spacing."""
    pixels = int(np.count_nonzero(_union(label_map, values)))
    if spacing_mm is None:
        return pixels / label_map.size, FRACTION
    return pixels * spacing_mm[0] * spacing_mm[1], SQUARE_MILLIMETER


def volume(label_map: NDArray[np.uint8], values: Sequence[int], voxel_mm3: float) -> tuple[float, Concept]:
    """Volume of the union of labels in a (slices, rows, columns) map, in mL."""
    voxels = sum(count(label_map, value) for value in set(values))
    return voxels * voxel_mm3 / 1000, MILLILITER


def width_ratio(label_map: NDArray[np.uint8], of: Sequence[int], over: Sequence[int]) -> float:
    """Widest horizontal extent of `of` over that of `over`: with heart over lungs, the cardiothoracic ratio.

    Danzer CS. The cardiothoracic ratio. Am J Med Sci 157 (1919) 513. Raises Permanent when either is empty.
    """
    return _width(label_map, of) / _width(label_map, over)


def count(label_map: NDArray[np.uint8], value: int) -> int:
    """Pixels with this label in a (planes, rows, columns) map; plane by plane, what is compared stays in the cache."""
    return sum(int(np.count_nonzero(plane == value)) for plane in label_map)


def _union(label_map: NDArray[np.uint8], values: Sequence[int]) -> NDArray[np.bool_]:
    """Where any of the labels is; a comparison a label is three times as quick as np.isin on a film."""
    union = np.zeros(label_map.shape, dtype=np.bool_)
    for value in values:
        union |= label_map == value
    return union


def _width(label_map: NDArray[np.uint8], values: Sequence[int]) -> int:
    columns = np.flatnonzero(_union(label_map, values).any(axis=0))
    if not columns.size:
        raise Permanent("the model found nothing to measure")
    return int(columns[-1] - columns[0] + 1)
