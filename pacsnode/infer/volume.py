"""Series or enhanced multi-frame objects to one volume with its place in the patient. Runs in the compute child only.

In: the Part 10 files of one case, in any order. Out: a Volume, its slices in the order of their positions along the
normal of the slices, and notes of all that was left out. The mask of a Volume lies on the grid of its source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.errors import Permanent
from pacsnode.infer.decoding import read_layout, stored_frames
from pacsnode.infer.grid import Grid, grid
from pacsnode.infer.headers import items, read_dataset, value, whole
from pacsnode.infer.looks import Look
from pacsnode.infer.pixels import through_modality_lut
from pacsnode.infer.planes import Plane, is_multi_frame, plane_of, planes_of
from pacsnode.infer.splitting import Stack, choice_note, largest_part, places, split, usable

MAXIMUM_VOXELS = 400_000_000


@dataclass(frozen=True)
class Volume:
    """One volume. `intensity`: (slices, rows, columns) float32 after rescale (CT: Hounsfield units).

    `source`: SOP Instance UIDs in the order of the slices; one of an enhanced object, and then `frames` has the number
    (from 1) of the frame of each slice. `spacing_mm`: between slices (along the normal), rows, columns.
    `affine`: (4, 4) float64, from the voxel (column, row, slice), 0-based, to the patient's RAS in mm; sheared where
    the gantry was tilted. `looks`: how people look at each slice.
    """

    source: tuple[str, ...]
    intensity: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    notes: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()
    looks: tuple[Look, ...] = ()

    @property
    def voxel_mm3(self) -> float:
        """The volume of a voxel, also of a sheared one."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


@dataclass(frozen=True)
class _Unit:
    """What may hold one volume: a series of single images, or one multi-frame object."""

    name: str
    planes: tuple[Plane, ...]
    unplaced: tuple[Permanent, ...]

    @property
    def size(self) -> int:
        return len(self.planes) + len(self.unplaced)


def read_volume(files: Sequence[Path]) -> Volume:
    """The volume of the series with the most images that forms one. Raises Permanent with a radiographer's sentence."""
    units = _units(files)
    if not units:
        raise Permanent("the case holds no images")
    refusals: list[str] = []
    for unit in units:
        try:
            found, notes = _grid_of(unit)
        except Permanent as error:
            refusals.append(f"{unit.name}: {error}")
            continue
        if len(units) > 1:
            notes = (_choice_note(unit, units, refusals), *notes)
        return _read(found, notes)
    if len(refusals) == 1:
        raise Permanent(refusals[0])
    raise Permanent(f"none of the {len(refusals)} series forms a volume; {refusals[0]}")


# --- what there is, from headers only


def _units(files: Sequence[Path]) -> list[_Unit]:
    """The largest first."""
    groups: dict[tuple[str, str], list[tuple[Path, Dataset]]] = {}
    for path in files:
        header = read_dataset(path, with_pixels=False)
        series = str(value(header, "SeriesInstanceUID") or "")
        object_uid = str(header.SOPInstanceUID) if is_multi_frame(header) else ""
        groups.setdefault((series, object_uid), []).append((path, header))
    made = [(_unit(images), key) for key, images in groups.items()]
    return [unit for unit, _ in sorted(made, key=lambda pair: (-pair[0].size, pair[1]))]


def _unit(images: Sequence[tuple[Path, Dataset]]) -> _Unit:
    number = value(images[0][1], "SeriesNumber")
    series = f"series {number if number is not None else 'without number'}"
    found: list[Plane | Permanent] = []
    if is_multi_frame(images[0][1]):
        try:
            found.extend(planes_of(*images[0]))
        except Permanent as error:
            found.append(error)
        name = f"{series} (1 object with {whole(images[0][1], 'NumberOfFrames', 1)} frames)"
    else:
        for path, header in images:
            try:
                found.append(plane_of(path, header))
            except Permanent as error:
                found.append(error)
        name = f"{series} (1 image)" if len(images) == 1 else f"{series} ({len(images)} images)"
    planes = tuple(one for one in found if isinstance(one, Plane))
    return _Unit(name, planes, tuple(one for one in found if isinstance(one, Permanent)))


def _choice_note(chosen: _Unit, units: Sequence[_Unit], refusals: Sequence[str]) -> str:
    others = [unit.name for unit in units if unit is not chosen]
    told = "; ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
    note = f"Analysed: {chosen.name}, the largest that forms a volume. Left out: {told}."
    return note + "".join(f" Not usable: {refusal}." for refusal in refusals[:3])


def _grid_of(unit: _Unit) -> tuple[Grid, tuple[str, ...]]:
    """The grid to read of a unit, and its notes. Raises Permanent, with the reason of the stack that comes first."""
    part, notes = largest_part(unit.planes, unit.unplaced)
    stacks = split(part)
    refusal: Permanent | None = None
    for stack in usable(stacks):
        try:
            planes, dropped = _without_duplicates(stack)
            found = grid(planes)
        except Permanent as error:
            refusal = refusal or error
            continue
        if len(stacks) > 1:
            notes = (*notes, choice_note(stack, stacks))
        return found, (*notes, *dropped, *found.notes)
    raise refusal or Permanent("the series forms no volume")


# --- voxels


def _without_duplicates(stack: Stack) -> tuple[tuple[Plane, ...], tuple[str, ...]]:
    """Each place once, where what lies there twice is the same picture. Raises Permanent where it is not."""
    place = places(stack.planes)
    kept: dict[int, Plane] = {}
    for plane in sorted(stack.planes, key=lambda p: (p.sop_instance_uid, p.frame, str(p.path))):
        twin = kept.setdefault(place[id(plane)], plane)
        if twin is not plane and not _is_same_picture(plane, twin):
            raise Permanent(
                "several images lie at the same position and differ, and nothing in their headers tells why: "
                "more than one phase, echo or b-value in one series?"
            )
    if len({(p.sop_instance_uid, p.frame) for p in kept.values()}) < len(kept):
        raise Permanent("two different images have the same SOP Instance UID: no mask could say which one it is for")
    count = len(stack.planes) - len(kept)
    told = "1 image that was" if count == 1 else f"{count} images that were"
    return tuple(kept.values()), (f"Left out: {told} there twice, with the same pixels.",) if count else ()


def _is_same_picture(one: Plane, other: Plane) -> bool:
    if not np.allclose(one.position_mm, other.position_mm, atol=1e-3):
        return False
    first, second = (next(_voxels([plane], [np.empty(plane.size, dtype=np.float32)])) for plane in (one, other))
    return np.array_equal(first, second)


def _read(found: Grid, notes: tuple[str, ...]) -> Volume:
    first = found.planes[0]
    rows, columns = first.size
    count = len(found.planes)
    if rows * columns * count > MAXIMUM_VOXELS:
        raise Permanent(f"a volume of {columns} x {rows} x {count} voxels is larger than the node reads")
    intensity = np.empty((count, rows, columns), dtype=np.float32)
    is_enhanced = first.frame > 0
    if is_enhanced:
        # In the order of the frames: an encapsulated object is read once, from its start.
        by_frame = sorted(range(count), key=lambda n: found.planes[n].frame)
        read = _voxels([found.planes[n] for n in by_frame], [intensity[n] for n in by_frame])
        for _ in zip(by_frame, read, strict=True):
            continue
    else:
        for n, plane in enumerate(found.planes):
            (_,) = _voxels([plane], [intensity[n]])
    return Volume(
        source=(first.sop_instance_uid,) if is_enhanced else tuple(p.sop_instance_uid for p in found.planes),
        intensity=intensity,
        spacing_mm=found.spacing_mm,
        affine=found.affine,
        notes=notes,
        frames=tuple(p.frame for p in found.planes) if is_enhanced else (),
        looks=tuple(p.look for p in found.planes),
    )


def _voxels(planes: Sequence[Plane], into: Sequence[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """(rows, columns) of each plane of one file, in the unit of the modality (PS3.3 C.11.1), written into its array."""
    path, header = planes[0].path, planes[0].header
    layout = read_layout(header)
    if layout.is_colour:
        raise Permanent("the service reads grey images, the series is coloured")
    has_table = bool(items(header, "ModalityLUTSequence"))
    frames = stored_frames(path, header, layout, [plane.frame or 1 for plane in planes])
    for plane, stored, voxels in zip(planes, frames, into, strict=True):
        if has_table:
            voxels[:] = through_modality_lut(stored, header)
            yield voxels
            continue
        if plane.rescale is None:
            raise Permanent("an image has an unreadable rescale slope or intercept")
        slope, intercept = plane.rescale
        if slope == 0:
            raise Permanent("an image has a rescale slope of zero")
        np.multiply(stored, np.float32(slope), out=voxels, casting="unsafe")
        voxels += np.float32(intercept)
        yield voxels
