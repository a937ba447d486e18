"""Planes of one stack to a grid: their order, the distance between them, the way from voxel to patient.

Pure. Never trusts Instance Number, never fills a gap, never bends a volume straight: where the gantry was tilted, each
slice keeps its own pixels and the affine is sheared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacsnode.errors import Permanent
from pacsnode.infer.planes import Plane
from pacsnode.infer.splitting import LEAST_TOLERANCE_MM

SPACING_TOLERANCE = 0.05
"""Of the distance between slices; below it lie rounded positions, above it missing slices."""
TILT_TOLERANCE = 0.01
"""Sideways shift per distance between slices: 0.6 degrees. A tilted gantry has 5 degrees and more."""
STEEPEST_TILT_DEGREES = 45.0
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Grid:
    """Planes in the order of their positions along their normal.

    `spacing_mm`: between the planes of the slices (along the normal), rows, columns: their product is the volume of a
    voxel, also where the gantry was tilted. `affine`: (4, 4) float64, from the voxel (column, row, slice), 0-based, to
    the patient's RAS in mm.
    """

    planes: tuple[Plane, ...]
    spacing_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    notes: tuple[str, ...] = ()


def grid(planes: Sequence[Plane]) -> Grid:
    """The grid of one stack. Raises Permanent where the planes lie on no even, straight one."""
    if len(planes) == 1:
        raise Permanent("only one image; a volume needs at least two")
    normal = planes[0].normal
    ordered = sorted(planes, key=lambda plane: float(plane.position_mm @ normal))
    steps = np.diff(np.array([plane.position_mm for plane in ordered]), axis=0)
    along = steps @ normal
    _refuse_uneven(along, len(planes))
    first, last = ordered[0], ordered[-1]
    step = (last.position_mm - first.position_mm) / (len(ordered) - 1)
    notes = _tilt(steps - along[:, None] * normal, float(np.median(along)))
    affine = np.eye(4)
    affine[:3, 0] = first.across * first.spacing_mm[1]
    affine[:3, 1] = first.down * first.spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position_mm
    spacing = (float(step @ normal), *first.spacing_mm)
    return Grid(tuple(ordered), spacing, LPS_TO_RAS @ affine, notes)


def _refuse_uneven(along: NDArray[np.float64], count: int) -> None:
    """`along`: the distances from each plane to the next one."""
    usual = float(np.median(along))
    tolerance = max(SPACING_TOLERANCE * usual, LEAST_TOLERANCE_MM)
    if along.min() <= LEAST_TOLERANCE_MM:
        n = int(np.count_nonzero(along <= LEAST_TOLERANCE_MM))
        raise Permanent(
            f"several images lie at the same position ({n} of {count}): "
            "more than one phase, echo or b-value in one series?"
        )
    worst = int(np.abs(along - usual).argmax())
    if abs(along[worst] - usual) > tolerance:
        if along[worst] > 1.5 * usual:
            raise Permanent(
                f"images are missing: a gap of {along[worst]:.1f} mm after image {worst + 1} of {count}, "
                f"where the others are {usual:.1f} mm apart"
            )
        raise Permanent(
            f"the distance between the images changes, from {along.min():.2f} to {along.max():.2f} mm; "
            "send a series with even distances"
        )


def _tilt(sideways: NDArray[np.float64], usual: float) -> tuple[str, ...]:
    """The note of a tilt. Raises Permanent where the shift to the side (mm, by step) is no even one."""
    shift = sideways.mean(axis=0)
    tolerance = max(TILT_TOLERANCE * usual, LEAST_TOLERANCE_MM)
    if np.linalg.norm(sideways - shift, axis=1).max() > max(SPACING_TOLERANCE * usual, LEAST_TOLERANCE_MM):
        raise Permanent("the images do not lie in one straight row: they are shifted to the side against each other")
    length = float(np.linalg.norm(shift))
    if length <= tolerance:
        return ()
    degrees = float(np.degrees(np.arctan2(length, usual)))
    if degrees > STEEPEST_TILT_DEGREES:
        raise Permanent(f"the images are shifted to the side by {degrees:.0f} degrees, more than any gantry tilts")
    return (
        f"The gantry was tilted by {degrees:.0f} degrees: the images are not straight above each other. They were "
        "analysed as they are; the mask lies on the same tilted images, and volumes allow for the tilt.",
    )
