"""A series of single images to one volume with its place in the patient. Runs in the compute child only.

In: the Part 10 files of one case, in any order. Out: a Volume, its slices in the order of their positions along the
normal of the slices. Never trusts Instance Number, never fills a gap, never bends a volume straight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.errors import Permanent
from pacsnode.infer.pixels import decode, positive_pair, read_dataset, value

MAXIMUM_VOXELS = 400_000_000
ORIENTATION_TOLERANCE = 1e-3
"""Of a direction cosine: 0.06 degrees. Consoles write six digits."""
SPACING_TOLERANCE = 0.05
"""Of the distance between slices; below it lie rounded positions, above it missing slices."""
LEAST_TOLERANCE_MM = 0.02
TILT_TOLERANCE = 0.01
"""Sideways shift per distance between slices: 0.6 degrees. A tilted gantry has 5 degrees and more."""
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Volume:
    """One series. `intensity`: (slices, rows, columns) float32 after rescale (CT: Hounsfield units).

    `source`: SOP Instance UIDs in the order of the slices. `spacing_mm`: between slices, rows, columns.
    `affine`: (4, 4) float64, from the voxel (column, row, slice), 0-based, to the patient's RAS in mm.
    """

    source: tuple[str, ...]
    intensity: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Slice:
    """The geometry of one image. `across`, `down`: unit vectors (LPS) along its rows and down its columns."""

    path: Path
    sop_instance_uid: str
    position_mm: NDArray[np.float64]
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    frame_of_reference: str

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.across, self.down)


def read_volume(files: Sequence[Path]) -> Volume:
    """The volume of the series with the most images that forms one. Raises Permanent with a radiographer's sentence."""
    series: dict[str, list[tuple[Path, Dataset]]] = {}
    for path in files:
        header = read_dataset(path, with_pixels=False)
        series.setdefault(str(value(header, "SeriesInstanceUID") or ""), []).append((path, header))
    if not series:
        raise Permanent("the case holds no images")
    by_size = sorted(series.items(), key=lambda item: (-len(item[1]), item[0]))
    refusals: list[str] = []
    for _, images in by_size:
        try:
            slices = _ordered(images)
        except Permanent as error:
            refusals.append(f"{_name(images)}: {error}")
            continue
        notes = (_choice_note(images, by_size, refusals),) if len(by_size) > 1 else ()
        return _read(slices, notes)
    if len(refusals) == 1:
        raise Permanent(refusals[0])
    raise Permanent(f"none of the {len(refusals)} series forms a volume; {refusals[0]}")


def _name(images: Sequence[tuple[Path, Dataset]]) -> str:
    number = value(images[0][1], "SeriesNumber")
    count = "1 image" if len(images) == 1 else f"{len(images)} images"
    return f"series {number if number is not None else 'without number'} ({count})"


def _choice_note(
    chosen: Sequence[tuple[Path, Dataset]],
    by_size: Sequence[tuple[str, Sequence[tuple[Path, Dataset]]]],
    refusals: Sequence[str],
) -> str:
    others = [_name(images) for _, images in by_size if images is not chosen]
    told = "; ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
    note = f"Analysed: {_name(chosen)}, the largest that forms a volume. Left out: {told}."
    return note + "".join(f" Not usable: {refusal}." for refusal in refusals[:3])


# --- geometry, from headers only


def _ordered(images: Sequence[tuple[Path, Dataset]]) -> list[_Slice]:
    """The slices in order along their normal. Raises Permanent where they form no volume on one straight grid."""
    if len(images) == 1:
        _slice(*images[0])  # what is wrong with it by itself is the better reason
        raise Permanent("only one image; a volume needs at least two")
    slices = [_slice(path, header) for path, header in images]
    _refuse_mixed(slices)
    normal = slices[0].normal
    slices.sort(key=lambda s: float(s.position_mm @ normal))
    _refuse_uneven(slices)
    return slices


def _slice(path: Path, header: Dataset) -> _Slice:
    if "PerFrameFunctionalGroupsSequence" in header or (value(header, "NumberOfFrames") or 1) != 1:
        raise Permanent(
            "the images are in one enhanced multi-frame object, which the node does not read yet; "
            "send the series as single images (classic CT or MR)"
        )
    if "ModalityLUTSequence" in header:
        raise Permanent("the images have a modality lookup table in place of rescale slope and intercept")
    cosines, position = _numbers(header, "ImageOrientationPatient", 6), _numbers(header, "ImagePositionPatient", 3)
    spacing = positive_pair(header, "PixelSpacing")
    if cosines is None or position is None or spacing is None:
        raise Permanent("an image does not say where it lies in the patient (position, orientation or pixel spacing)")
    across, down = cosines[:3], cosines[3:]
    lengths = np.array([np.linalg.norm(across), np.linalg.norm(down)])
    if np.abs(lengths - 1).max() > 0.01 or abs(float(across @ down)) > 0.01:
        raise Permanent("an image has an impossible orientation: its rows and columns are not at right angles")
    return _Slice(
        path,
        str(header.SOPInstanceUID),
        position,
        across / lengths[0],
        down / lengths[1],
        spacing,
        (int(value(header, "Rows") or 0), int(value(header, "Columns") or 0)),
        str(value(header, "FrameOfReferenceUID") or ""),
    )


def _numbers(header: Dataset, keyword: str, count: int) -> NDArray[np.float64] | None:
    """`count` finite numbers, else None."""
    given = value(header, keyword)
    if given is None or isinstance(given, str | float | int) or len(given) != count:
        return None
    try:
        numbers = np.array([float(v) for v in given])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() and np.abs(numbers).max() < 1e6 else None


def _refuse_mixed(slices: Sequence[_Slice]) -> None:
    first = slices[0]
    sizes = sorted({s.size for s in slices})
    if len(sizes) > 1:
        told = ", ".join(f"{columns} x {rows}" for rows, columns in sizes[:4])
        raise Permanent(f"the images have different sizes ({told} pixels)")
    for one in slices:
        turned = max(np.abs(one.across - first.across).max(), np.abs(one.down - first.down).max())
        if turned > ORIENTATION_TOLERANCE:
            raise Permanent("the images have different orientations (localizers or several planes in one series?)")
        if max(abs(a / b - 1) for a, b in zip(one.spacing_mm, first.spacing_mm, strict=True)) > 1e-3:
            raise Permanent("the images have different pixel spacings")
        if one.frame_of_reference != first.frame_of_reference:
            raise Permanent("the images have different frames of reference: the patient was positioned anew in between")
    if len({s.sop_instance_uid for s in slices}) < len(slices):
        raise Permanent("an image is there twice")


def _refuse_uneven(slices: Sequence[_Slice]) -> None:
    """`slices` in order: as far from each other everywhere, and straight above each other."""
    positions = np.array([s.position_mm for s in slices])
    steps = np.diff(positions, axis=0)
    along = steps @ slices[0].normal
    usual = float(np.median(along))
    tolerance = max(SPACING_TOLERANCE * usual, LEAST_TOLERANCE_MM)
    if along.min() <= LEAST_TOLERANCE_MM:
        n = int(np.count_nonzero(along <= LEAST_TOLERANCE_MM))
        raise Permanent(
            f"several images lie at the same position ({n} of {len(slices)}): "
            "more than one phase, echo or b-value in one series?"
        )
    worst = int(np.abs(along - usual).argmax())
    if abs(along[worst] - usual) > tolerance:
        if along[worst] > 1.5 * usual:
            raise Permanent(
                f"images are missing: a gap of {along[worst]:.1f} mm after image {worst + 1} of {len(slices)}, "
                f"where the others are {usual:.1f} mm apart"
            )
        raise Permanent(
            f"the distance between the images changes, from {along.min():.2f} to {along.max():.2f} mm; "
            "send a series with even distances"
        )
    sideways = np.linalg.norm(steps - along[:, None] * slices[0].normal, axis=1)
    if sideways.max() > max(TILT_TOLERANCE * usual, LEAST_TOLERANCE_MM):
        degrees = np.degrees(np.arctan2(sideways.max(), usual))
        raise Permanent(
            f"the images are not straight above each other ({degrees:.0f} degrees): the gantry was tilted, which the "
            "node does not read yet; send a series that the scanner has straightened"
        )


# --- voxels


def _read(slices: Sequence[_Slice], notes: tuple[str, ...]) -> Volume:
    first, last = slices[0], slices[-1]
    rows, columns = first.size
    if rows * columns * len(slices) > MAXIMUM_VOXELS:
        raise Permanent(f"a volume of {columns} x {rows} x {len(slices)} voxels is larger than the node reads")
    intensity = np.empty((len(slices), rows, columns), dtype=np.float32)
    for number, one in enumerate(slices):
        intensity[number] = _rescaled(read_dataset(one.path))
    step = (last.position_mm - first.position_mm) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, 0] = first.across * first.spacing_mm[1]
    affine[:3, 1] = first.down * first.spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position_mm
    spacing = (float(np.linalg.norm(step)), *first.spacing_mm)
    return Volume(tuple(s.sop_instance_uid for s in slices), intensity, spacing, LPS_TO_RAS @ affine, notes)


def _rescaled(dataset: Dataset) -> NDArray[np.float32]:
    """(rows, columns) in the unit of the modality (PS3.3 C.11.1); MR often has no rescale: the stored values."""
    stored = decode(dataset)
    slope, intercept = (_rescale(dataset, k, d) for k, d in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)))
    if slope == 0:
        raise Permanent("an image has a rescale slope of zero")
    stored *= np.float32(slope)
    stored += np.float32(intercept)
    return stored


def _rescale(dataset: Dataset, keyword: str, default: float) -> float:
    if keyword not in dataset:
        return default
    given = value(dataset, keyword)
    if not isinstance(given, float | int) or not np.isfinite(given):
        raise Permanent(f"an image has an unreadable {keyword}")
    return float(given)
