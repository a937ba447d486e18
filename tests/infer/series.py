"""A CT series made for tests: oblique, its files and Instance Numbers in no order, one voxel marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from tests.infer.bundles import CT, image, saved

SLICES, ROWS, COLUMNS = 12, 64, 64
SPACING_MM = (2.5, 0.75, 0.5)
MARKED = (7, 40, 21)
"""Slice, row and column of the one voxel of 1000 HU; the others have -1000."""
ORIGIN_MM = np.array([-12.5, 33.25, -101.0])


def turned() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors along rows, down columns and along the normal, turned about two axes."""
    a, b = np.radians([20.0, -13.0])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    across, down, normal = (about_z @ about_x).T
    return across, down, normal


def position_mm(slice_: float, row: float, column: float) -> NDArray[np.float64]:
    """Where a voxel's centre lies in the patient (LPS)."""
    across, down, normal = turned()
    between, row_mm, column_mm = SPACING_MM
    found: NDArray[np.float64] = (
        ORIGIN_MM + normal * slice_ * between + down * row * row_mm + across * column * column_mm
    )
    return found


def slice_dataset(number: int, **attributes: Any) -> Any:
    """Slice `number` (from 0, along the normal)."""
    across, down, _ = turned()
    stored = np.zeros((ROWS, COLUMNS), dtype=np.int16)
    if number == MARKED[0]:
        stored[MARKED[1:]] = 2000
    geometry = {
        "ImageOrientationPatient": [f"{v:.9f}" for v in (*across, *down)],
        "ImagePositionPatient": [f"{v:.6f}" for v in position_mm(number, 0, 0)],
        "PixelSpacing": list(SPACING_MM[1:]),
        "SliceThickness": SPACING_MM[0],
        "FrameOfReferenceUID": generate_uid(entropy_srcs=["frame"]),
        "PositionReferenceIndicator": "",
        "RescaleSlope": 1,
        "RescaleIntercept": -1000,
        "InstanceNumber": number * 5 % SLICES + 1,
    }
    return image(stored, sop_class_uid=CT, **(geometry | attributes))


def write_series(folder: Path, numbers: range | list[int] | None = None, **attributes: Any) -> list[Path]:
    """Files of the slices in a shuffled order."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = list(range(SLICES) if numbers is None else numbers)
    files = [saved(slice_dataset(n, **attributes), folder / f"{generate_uid()}.dcm") for n in chosen]
    order = np.random.default_rng(3).permutation(len(files))
    return [files[n] for n in order]
