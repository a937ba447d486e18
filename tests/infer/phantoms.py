"""CT made for tests in any orientation, classic or enhanced: where each voxel lies is known by construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import generate_uid

from tests.infer.bundles import CT, image, saved

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
Vector = tuple[float, float, float]


def turn(about: str, degrees: float) -> NDArray[np.float64]:
    a = np.radians(degrees)
    c, s = np.cos(a), np.sin(a)
    matrix = {"x": [[1, 0, 0], [0, c, -s], [0, s, c]], "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]]}[about]
    return np.array(matrix)


@dataclass(frozen=True)
class Phantom:
    """`across`, `down`: unit vectors along rows and down columns. `tilt_mm`: shift along `down` from slice to slice.

    One voxel has 1000 HU, the others -1000.
    """

    across: Vector = (1, 0, 0)
    down: Vector = (0, 1, 0)
    tilt_mm: float = 0.0
    marked: tuple[int, int, int] = (3, 17, 22)
    shape: tuple[int, int, int] = (8, 32, 40)
    spacing_mm: Vector = (2.5, 0.75, 0.5)
    origin_mm: Vector = (-12.5, 33.25, -101.0)

    @property
    def step_mm(self) -> NDArray[np.float64]:
        """From a slice to the next one."""
        normal = np.cross(self.across, self.down)
        return np.asarray(normal * self.spacing_mm[0] + np.array(self.down) * self.tilt_mm)

    def position_mm(self, slice_: float, row: float, column: float) -> NDArray[np.float64]:
        """The centre of a voxel in the patient (LPS)."""
        found = np.array(self.origin_mm) + slice_ * self.step_mm
        found = found + np.array(self.down) * row * self.spacing_mm[1]
        return np.asarray(found + np.array(self.across) * column * self.spacing_mm[2])

    @property
    def marked_mm(self) -> NDArray[np.float64]:
        """Where the marked voxel lies in the patient."""
        return self.position_mm(*self.marked)

    def stored(self, slice_: int) -> NDArray[np.int16]:
        """Stored values of a slice: HU + 1000."""
        pixels = np.zeros(self.shape[1:], dtype=np.int16)
        if slice_ == self.marked[0]:
            pixels[self.marked[1:]] = 2000
        return pixels

    @property
    def cosines(self) -> list[str]:
        return [f"{v:.9f}" for v in (*self.across, *self.down)]

    def corner(self, slice_: float) -> list[str]:
        return [f"{v:.6f}" for v in self.position_mm(slice_, 0, 0)]


IDENTITY = Phantom()
_OBLIQUE = (turn("x", 20.0) @ turn("z", -13.0)).T
PHANTOMS = {
    "axial": IDENTITY,
    "sagittal": replace(IDENTITY, across=(0, 1, 0), down=(0, 0, -1)),
    "coronal": replace(IDENTITY, across=(1, 0, 0), down=(0, 0, -1)),
    "oblique": replace(IDENTITY, across=tuple(_OBLIQUE[0]), down=tuple(_OBLIQUE[1])),
    "reversed": replace(IDENTITY, across=(-1, 0, 0), down=(0, 1, 0)),
    "tilted": replace(IDENTITY, tilt_mm=2.5 * np.tan(np.radians(17.0))),
}


def slice_of(phantom: Phantom, number: int, **attributes: Any) -> FileDataset:
    """Slice `number` (from 0, along the normal), its Instance Number in no order."""
    fixed = {
        "ImageOrientationPatient": phantom.cosines,
        "ImagePositionPatient": phantom.corner(number),
        "PixelSpacing": list(phantom.spacing_mm[1:]),
        "SliceThickness": phantom.spacing_mm[0],
        "FrameOfReferenceUID": generate_uid(entropy_srcs=["frame"]),
        "PositionReferenceIndicator": "",
        "RescaleSlope": 1,
        "RescaleIntercept": -1000,
        "InstanceNumber": number * 5 % phantom.shape[0] + 1,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    }
    return image(phantom.stored(number), sop_class_uid=CT, **(fixed | attributes))


def classic(folder: Path, phantom: Phantom, numbers: Sequence[int] | None = None, **attributes: Any) -> list[Path]:
    """Files of single images, in a shuffled order."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = list(range(phantom.shape[0]) if numbers is None else numbers)
    files = [saved(slice_of(phantom, n, **attributes), folder / f"{generate_uid()}.dcm") for n in chosen]
    return [files[n] for n in np.random.default_rng(3).permutation(len(files))]


def _item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced_dataset(
    phantom: Phantom, order: Sequence[int] | None = None, *, phases: int = 1, all_per_frame: bool = False
) -> FileDataset:
    """One enhanced object, its frames in the order `order` of the slices, `phases` times; each phase 1 HU higher.

    The rescale intercept of each frame is its own, so that each holds the same HU in other stored values.
    """
    frames = [(phase, n) for phase in range(phases) for n in (order or range(phantom.shape[0]))]
    pixels = np.stack([phantom.stored(n) + 10 * place + phase for place, (phase, n) in enumerate(frames)])
    first = slice_of(phantom, 0)
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "RescaleSlope"):
        delattr(first, keyword)
    del first.RescaleIntercept, first.SliceThickness
    first.SOPClassUID = first.file_meta.MediaStorageSOPClassUID = ENHANCED_CT
    first.NumberOfFrames = len(frames)
    first.PixelData = pixels.astype("<i2").tobytes()
    orientation = [_item(ImageOrientationPatient=phantom.cosines)]
    measures = [_item(PixelSpacing=list(phantom.spacing_mm[1:]), SliceThickness=phantom.spacing_mm[0])]
    shared = {} if all_per_frame else {"PlaneOrientationSequence": orientation, "PixelMeasuresSequence": measures}
    first.SharedFunctionalGroupsSequence = [_item(**shared)]
    own = {"PlaneOrientationSequence": orientation, "PixelMeasuresSequence": measures} if all_per_frame else {}
    first.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=phantom.corner(n))],
            PixelValueTransformationSequence=[
                _item(RescaleSlope=1, RescaleIntercept=-1000 - 10 * place, RescaleType="HU")
            ],
            FrameContentSequence=[_item(TemporalPositionIndex=phase + 1, StackID="1", InStackPositionNumber=n + 1)],
            **own,
        )
        for place, (phase, n) in enumerate(frames)
    ]
    return first


def enhanced(path: Path, phantom: Phantom, order: Sequence[int] | None = None, **choices: Any) -> Path:
    """`enhanced_dataset` as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return saved(enhanced_dataset(phantom, order, **choices), path)
