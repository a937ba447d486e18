"""Planes: where a single image, or a frame of an enhanced multi-frame object, lies in the patient.

In: headers. Out: Planes, with what may tell them apart from others at the same place (phase, echo, b-value …). Frames
have their attributes in functional groups (PS3.3 C.7.6.16): their own first, then the shared ones, then the object's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.errors import Permanent
from pacsnode.infer.headers import items, numbers, positive_pair, value, whole
from pacsnode.infer.looks import NO_LOOK, Look, read_look
from pacsnode.infer.marks import MARKS, Mark

RIGHT_ANGLE_TOLERANCE = 0.01
MACROS: Mapping[str, tuple[str, ...]] = {
    "ImagePositionPatient": ("PlanePositionSequence",),
    "ImageOrientationPatient": ("PlaneOrientationSequence",),
    "PixelSpacing": ("PixelMeasuresSequence",),
    "RescaleSlope": ("PixelValueTransformationSequence",),
    "RescaleIntercept": ("PixelValueTransformationSequence",),
    "WindowCenter": ("FrameVOILUTSequence",),
    "WindowWidth": ("FrameVOILUTSequence",),
    "DiffusionBValue": ("MRDiffusionSequence",),
    "DiffusionGradientOrientation": ("MRDiffusionSequence", "DiffusionGradientDirectionSequence"),
    "EffectiveEchoTime": ("MREchoSequence",),
    "InversionTimes": ("MRModifierSequence",),
    "NominalCardiacTriggerDelayTime": ("CardiacSynchronizationSequence",),
    "NominalPercentageOfCardiacPhase": ("CardiacSynchronizationSequence",),
    "ConvolutionKernel": ("CTReconstructionSequence",),
    "KVP": ("CTXRayDetailsSequence",),
    "TemporalPositionIndex": ("FrameContentSequence",),
    "FrameAcquisitionNumber": ("FrameContentSequence",),
    "FrameAcquisitionDateTime": ("FrameContentSequence",),
}
"""The functional group in which an enhanced object keeps an attribute; a sequence within it where there are two."""
FRAME_TYPES = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence")

Finder = Callable[[str], Any]


@dataclass(frozen=True)
class Plane:
    """The geometry of one image or frame. `across`, `down`: unit vectors (LPS) along its rows and down its columns.

    `frame`: its number from 1 in a multi-frame object, 0 for a single image. `spacing_mm`: between rows, columns.
    `rescale`: slope and intercept; None where they are unreadable. `marks`: by name, as text or numbers. `look`: how
    people look at it. `header`: of its file, without pixels.
    """

    path: Path
    header: Dataset = field(repr=False, compare=False)
    sop_instance_uid: str
    frame: int
    position_mm: NDArray[np.float64]
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    size: tuple[int, int]
    frame_of_reference: str
    rescale: tuple[float, float] | None = (1.0, 0.0)
    marks: Mapping[str, Mark] = field(default_factory=dict)
    look: Look = NO_LOOK

    @property
    def normal(self) -> NDArray[np.float64]:
        """The unit vector out of the plane: right-handed, from columns and rows."""
        return np.cross(self.across, self.down)


def is_multi_frame(header: Dataset) -> bool:
    """Whether the object holds frames rather than one image."""
    return "PerFrameFunctionalGroupsSequence" in header or whole(header, "NumberOfFrames", 1) != 1


def plane_of(path: Path, header: Dataset) -> Plane:
    """The plane of a single image. Raises Permanent where it has none."""
    return _plane(path, header, 0, partial(_of_image, header))


def planes_of(path: Path, header: Dataset) -> list[Plane | Permanent]:
    """A plane for each frame of a multi-frame object, in the order of the frames; the reason where one has none."""
    groups = items(header, "PerFrameFunctionalGroupsSequence")
    frames = whole(header, "NumberOfFrames", 1)
    if not groups:
        raise Permanent("the multi-frame object does not say where its frames lie in the patient")
    if len(groups) != frames:
        raise Permanent(f"the multi-frame object says {frames} frames and describes {len(groups)}")
    shared = items(header, "SharedFunctionalGroupsSequence")[:1]
    found: list[Plane | Permanent] = []
    for number, group in enumerate(groups, start=1):
        try:
            found.append(_plane(path, header, number, partial(_of_frame, header, (group, *shared))))
        except Permanent as error:
            found.append(error)
    return found


def _plane(path: Path, header: Dataset, frame: int, find: Finder) -> Plane:
    cosines, position = numbers(find("ImageOrientationPatient"), 6), numbers(find("ImagePositionPatient"), 3)
    spacing = positive_pair(find("PixelSpacing"))
    if cosines is None or position is None or spacing is None:
        raise Permanent("an image does not say where it lies in the patient (position, orientation or pixel spacing)")
    across, down = cosines[:3], cosines[3:]
    lengths = np.array([np.linalg.norm(across), np.linalg.norm(down)])
    if np.abs(lengths - 1).max() > RIGHT_ANGLE_TOLERANCE or abs(float(across @ down)) > RIGHT_ANGLE_TOLERANCE:
        raise Permanent("an image has an impossible orientation: its rows and columns are not at right angles")
    return Plane(
        path=path,
        header=header,
        sop_instance_uid=str(header.SOPInstanceUID),
        frame=frame,
        position_mm=position,
        across=across / lengths[0],
        down=down / lengths[1],
        spacing_mm=spacing,
        size=(whole(header, "Rows", 0), whole(header, "Columns", 0)),
        frame_of_reference=str(value(header, "FrameOfReferenceUID") or ""),
        rescale=_rescale(find),
        marks={mark.name: mark.read(find) for mark in MARKS},
        look=read_look(find),
    )


def _rescale(find: Finder) -> tuple[float, float] | None:
    """MR often has none: the stored values."""
    found = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        given = find(keyword)
        if given is None:
            given = default
        if not isinstance(given, float | int) or not np.isfinite(given):
            return None
        found.append(float(given))
    return found[0], found[1]


def _of_image(header: Dataset, keyword: str) -> Any:
    if keyword == "FrameType":
        return value(header, "ImageType")
    found = value(header, keyword)
    if found is None and keyword == "DiffusionBValue":
        return _private_b_value(header)
    if found is None and keyword in header and keyword.startswith("Rescale"):
        return "unreadable"
    return found


def _private_b_value(header: Dataset) -> Any:
    """Where Siemens and GE write it in classic objects."""
    for group, creator, element in ((0x0019, "SIEMENS MR HEADER", 0x0C), (0x0043, "GEMS_PARM_01", 0x39)):
        try:
            given = header.private_block(group, creator)[element].value
            first = given if isinstance(given, str | float | int | bytes) else given[0]
            text = first.decode("ascii") if isinstance(first, bytes) else str(first)
            return float(int(text.strip(" \0")) % 1_000_000_000)  # GE adds 1e9 as a flag
        except (LookupError, TypeError, ValueError, AttributeError, NotImplementedError):
            continue
    return None


def _of_frame(header: Dataset, groups: tuple[Dataset, ...], keyword: str) -> Any:
    macros = [(name,) for name in FRAME_TYPES] if keyword == "FrameType" else [MACROS.get(keyword, ())]
    for group in groups:
        for macro in filter(None, macros):
            found = _within(group, macro, keyword)
            if found is not None:
                return found
    return value(header, "ImageType" if keyword == "FrameType" else keyword)


def _within(group: Dataset, macro: tuple[str, ...], keyword: str) -> Any:
    """The value in the macro's first item, or in the first item of the sequence within it."""
    inside = items(group, macro[0])
    for name in macro[1:]:
        inside = items(inside[0], name) if inside else []
    return value(inside[0], keyword) if inside else None
