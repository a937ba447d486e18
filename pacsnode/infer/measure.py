"""Measures of masks that the node itself takes, so that a segmentation bundle needs no code for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pacsnode.dicom.codes import FRACTION_OF_IMAGE, MILLILITER, SQUARE_MILLIMETER, Concept
from pacsnode.errors import Permanent


def area(mask: NDArray[np.bool_], spacing_mm: tuple[float, float] | None) -> tuple[float, Concept]:
    """Area of a (rows, columns) mask: mm2, or the fraction of the image without a spacing."""
    pixels = int(np.count_nonzero(mask))
    if spacing_mm is None:
        return pixels / mask.size, FRACTION_OF_IMAGE
    return pixels * spacing_mm[0] * spacing_mm[1], SQUARE_MILLIMETER


def volume(voxels: int, voxel_mm3: float) -> tuple[float, Concept]:
    """Volume of so many voxels, in mL."""
    return voxels * voxel_mm3 / 1000, MILLILITER


def width_ratio(of: NDArray[np.bool_], over: NDArray[np.bool_]) -> float:
    """Widest horizontal extent of `of` over that of `over`: with heart over lungs, the cardiothoracic ratio.

    Danzer CS. The cardiothoracic ratio. Am J Med Sci 157 (1919) 513. Raises Permanent when either is empty.
    """
    return _width(of) / _width(over)


def _width(mask: NDArray[np.bool_]) -> int:
    columns = np.flatnonzero(mask.any(axis=0))
    if not columns.size:
        raise Permanent("the model found nothing to measure")
    return int(columns[-1] - columns[0] + 1)
