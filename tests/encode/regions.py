"""Findings with regions of every shape on the chest film, and on a small volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom

from pacsnode.dicom.codes import LEFT, NO_UNITS, RIGHT, Concept
from pacsnode.findings import Evaluation, Findings, Group, Measurement, Presence, Region, Shape
from tests.encode.cases import ANATOMY, CARDIOMEGALY, CHEST, CR, HEART, LUNG, LUNGS_AND_HEART, RATIO, chest_group
from tests.infer.phantoms import Phantom, classic, enhanced

LESION = Concept("49755003", "SCT", "Morphologically Abnormal Structure")
NODULE = Concept("27925004", "SCT", "Nodule")
LENGTH = Concept("410668003", "SCT", "Length")
MILLIMETER = Concept("mm", "UCUM", "millimeter")


def nodule(image: str, shape: Shape, *points: tuple[float, float], key: str = "") -> Region:
    """A nodule of that shape."""
    return Region(key or f"nodule-{shape.value}", "Nodule", LESION, NODULE, image, shape, points)


def shapes(image: str) -> tuple[Region, ...]:
    """One region of each shape; a box that says all that a region can, and two lines that say nothing."""
    box = nodule(image, Shape.BOX, (10.0, 20.0), (30.5, 40.25))
    return (
        replace(
            box,
            site=LUNG,
            laterality=RIGHT,
            presence=Presence.PRESENT,
            probability=0.873,
            comment="Near the hilum.",
            measurements=(Measurement(LENGTH, 12.3, MILLIMETER),),
        ),
        nodule(image, Shape.POINT, (100.5, 200.5)),
        nodule(image, Shape.POLYGON, (1, 2), (30, 4), (9, 70)),
        replace(nodule(image, Shape.CIRCLE, (100, 200), (110, 200)), laterality=LEFT),
        nodule(image, Shape.ELLIPSE, (100, 200), (120, 200), (110, 190), (110, 210)),
        nodule(image, Shape.POLYLINE, (5, 5), (6, 6), (9, 5)),
        Region("heart", "Widest heart", ANATOMY, HEART, image, Shape.POLYLINE, ((100, 300), (400, 300))),
        Region("lungs", "Widest lungs", ANATOMY, LUNG, image, Shape.POLYLINE, ((50, 310), (700, 310))),
    )


def marked_group(source: Path = CR) -> Group:
    """The chest film with all shapes, and a ratio of two lines."""
    group = chest_group(source)
    ratio = Measurement(RATIO, 0.4615, NO_UNITS, HEART, derivation="Line over line.", regions=("heart", "lungs"))
    return replace(group, regions=shapes(group.source[0]), measurements=(*group.measurements, ratio))


def marked_findings() -> Findings:
    """The same as the findings of a case."""
    return Findings(CHEST, (marked_group(),))


def volume(folder: Path, *, is_enhanced: bool = False, slices: int = 6) -> tuple[Findings, list[Path]]:
    """Findings on a small CT: two segments, a nodule through three slices, a point on one; and its files."""
    phantom = Phantom(shape=(slices, 24, 32), marked=(1, 5, 6))
    if is_enhanced:
        files = [enhanced(folder / "ct.dcm", phantom)]
        uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).SOPInstanceUID)
        source: tuple[str, ...] = (uid,)
        frames: tuple[int, ...] = tuple(range(1, slices + 1))
        places: list[tuple[str, int | None]] = [(uid, frame) for frame in frames]
    else:
        files = classic(folder, phantom)
        heads = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
        heads.sort(key=lambda head: float(head.ImagePositionPatient[2]))
        source, frames = tuple(str(head.SOPInstanceUID) for head in heads), ()
        places = [(uid, None) for uid in source]
    label_map = np.zeros(phantom.shape, dtype=np.uint8)
    label_map[1:4, 5:10, 5:10] = 1
    label_map[2:4, 12:20, 5:10] = 2
    box = replace(nodule(places[2][0], Shape.BOX, (3, 4), (9, 11)), frame=places[2][1], probability=0.5)
    point = replace(nodule(places[0][0], Shape.POINT, (3.5, 4.5)), frame=places[0][1])
    group = Group(
        source=source,
        measurements=(Measurement(LENGTH, 7.5, MILLIMETER, LUNG, RIGHT),),
        evaluations=(Evaluation(CARDIOMEGALY, Presence.UNDETERMINED),),
        segments=LUNGS_AND_HEART[:2],
        label_map=label_map,
        frames=frames,
        regions=(replace(box, also=(places[1], places[3])), point),
    )
    return Findings(
        replace(CHEST, procedure=Concept("77477000", "SCT", "Computerized axial tomography")), (group,)
    ), files
