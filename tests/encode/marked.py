"""Findings with places in them: a film with a nodule and a line, a small CT, a stack of frames, a colour picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file

from pacsnode.dicom.codes import LEFT, Concept
from pacsnode.findings import Evaluation, Findings, Group, Measurement, Presence, Region, Segment, Shape
from tests.encode.cases import ANATOMY, CHEST, CR, HEART, LUNG, chest_findings

ABNORMAL = Concept("49755003", "SCT", "Morphologically Abnormal Structure")
NODULE = Concept("27925004", "SCT", "Nodule")
PNEUMONIA = Concept("233604007", "SCT", "Pneumonia")
LENGTH = Concept("410668003", "SCT", "Length")
MILLIMETER = Concept("mm", "UCUM", "millimeter")
NAME = "Hong^Gildong=洪^吉洞=홍^길동"


def korean_film(folder: Path) -> Path:
    """The chest film, of a patient whose name has three component groups."""
    dataset = pydicom.dcmread(CR)
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 149"]
    dataset.PatientName = NAME
    dataset.StudyDescription = "흉부 정면"
    dataset.save_as(folder / "film.dcm")
    return folder / "film.dcm"


def regions(image: str) -> tuple[Region, ...]:
    """One of each shape; the circle is a nodule, the line the width of the heart, the rest says nothing."""

    def region(key: str, shape: Shape, *points: tuple[float, float]) -> Region:
        return Region(key, key, ABNORMAL, NODULE, image, shape, points, presence=Presence.ABSENT)

    width = Measurement(LENGTH, 123.4, MILLIMETER)
    return (
        Region(
            "n1",
            "Nodule 결절",
            ABNORMAL,
            NODULE,
            image,
            Shape.CIRCLE,
            ((300.0, 300.0), (340.0, 300.0)),
            site=LUNG,
            laterality=LEFT,
            presence=Presence.PRESENT,
            probability=0.91,
        ),
        Region(
            "w",
            "Heart width",
            ANATOMY,
            HEART,
            image,
            Shape.POLYLINE,
            ((700.0, 1100.0), (1300.0, 1100.0)),
            measurements=(width,),
        ),
        region("box", Shape.BOX, (1600.0, 10.0), (1700.0, 100.0)),
        region("polygon", Shape.POLYGON, (10.0, 10.0), (60.0, 10.0), (60.0, 60.0)),
        region("ellipse", Shape.ELLIPSE, (0.0, 900.0), (200.0, 900.0), (100.0, 850.0), (100.0, 950.0)),
        region("beyond", Shape.CIRCLE, (5.0, 900.0), (5.0, 850.0)),
        region("over the edge", Shape.CIRCLE, (5.0, 900.0), (-45.0, 900.0)),
        region("point", Shape.POINT, (5.0, 1800.0)),
    )


def marked_film(source: Path = CR) -> Findings:
    """The findings of `chest_findings`, with regions, and pneumonia on the left."""
    (group,) = chest_findings(source).groups
    present = Evaluation(PNEUMONIA, Presence.PRESENT, 0.9, site=LUNG, laterality=LEFT)
    more = replace(group, regions=regions(group.source[0]), evaluations=(*group.evaluations, present))
    return Findings(CHEST, (more,))


def ct(folder: Path) -> tuple[Findings, tuple[Path, ...]]:
    """Six slices, the last two with another window: an organ in slices 1 to 4, a lesion largest in slice 3."""
    paths = []
    for number in range(6):
        dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        dataset.InstanceNumber = number + 1
        dataset.ImagePositionPatient = [-158, -179, -75 + 5 * number]
        dataset.WindowCenter, dataset.WindowWidth = (40 if number < 4 else 300), 400
        paths.append(folder / f"ct-{number}.dcm")
        dataset.save_as(paths[-1])
    group = Group(
        source=tuple(f"1.2.3.{number}" for number in range(6)), segments=ORGAN_AND_LESION, label_map=stack(6, 128, 128)
    )
    return Findings(CHEST, (group,)), tuple(paths)


ORGAN_AND_LESION = (
    Segment(1, "Organ", ANATOMY, LUNG),
    Segment(2, "Lesion", ABNORMAL, NODULE, color_rgb=(0, 255, 0)),
)


def stack(frames: int, rows: int, columns: int) -> np.ndarray:
    """(frames, rows, columns): the organ in all but the first and the last plane, the lesion largest in the fourth."""
    label_map = np.zeros((frames, rows, columns), dtype=np.uint8)
    label_map[1:-1, rows // 4 : rows // 2, columns // 4 : columns // 2] = 1
    label_map[2, -8:-6, -8:-6] = 2
    label_map[3, -8:-4, -8:-4] = 2
    return label_map


def one_object(name: str) -> tuple[Findings, Path]:
    """A single object of pydicom's: its first frame, or a stack of frames, marked."""
    path = Path(str(get_testdata_file(name)))
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 3:
        label_map = stack(frames, dataset.Rows, dataset.Columns)
    else:
        label_map = np.zeros((frames, dataset.Rows, dataset.Columns), dtype=np.uint8)
        label_map[0, 2:9, 2:9] = 2
        label_map[0, 12:20, 12:20] = 1
    group = Group(source=(str(dataset.SOPInstanceUID),), segments=ORGAN_AND_LESION, label_map=label_map)
    return Findings(CHEST, (group,)), path
