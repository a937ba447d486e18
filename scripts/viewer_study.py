"""A made CT of a chest with a nodule, and what a service would find on it: for pictures of viewers.

In: a folder. Out: files of the images, and of the SEG and the SR that our encoder makes of the findings. Noise has a
fixed seed; nothing comes from a patient.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from pacsnode.dicom.codes import RIGHT, Concept
from pacsnode.encode.build import encode
from pacsnode.findings import Findings, Group, Measurement, Presence, Region, Segment, Shape
from tests.encode.cases import CHEST, LUNG, LUNGS_AND_HEART, request
from tests.infer.bundles import saved
from tests.infer.phantoms import Phantom, slice_of

PHANTOM = Phantom(shape=(24, 256, 256), spacing_mm=(5.0, 1.4, 1.4), origin_mm=(-179.0, -179.0, -60.0))
SLICE = 13
"""Of the nodule, from 0."""
LESION = Concept("49755003", "SCT", "Morphologically Abnormal Structure")
NODULE = Concept("27925004", "SCT", "Nodule")
SEGMENTS = (*LUNGS_AND_HEART, Segment(4, "Nodule", LESION, NODULE, RIGHT, (255, 220, 0)))
_ALL = (128.0, 128.0, 1e3, 1e3, 0.0, 1e3)
_BODY = (128.0, 128.0, 115.0, 82.0, 0.0, 1e3)
_HU: tuple[tuple[tuple[float, ...], int, int], ...] = (
    (_ALL, -1000, 0),
    (_BODY, -80, 0),
    ((128.0, 126.0, 105.0, 72.0, 0.0, 1e3), 40, 0),
    ((76.0, 124.0, 40.0, 56.0, 11.5, 14.0), -860, 1),
    ((182.0, 124.0, 38.0, 56.0, 11.5, 14.0), -860, 2),
    ((146.0, 108.0, 34.0, 30.0, 9.0, 9.0), 45, 3),
    ((128.0, 176.0, 15.0, 14.0, 0.0, 1e3), 350, 0),
    ((84.0, 146.0, 9.0, 8.0, 13.0, 2.4), 20, 4),
)
"""Ellipsoids, each over those before: centre and half axis in columns and rows, then in slices; HU; segment."""


def study(folder: Path) -> tuple[str, list[Path]]:
    """Study Instance UID, and all files of the study."""
    folder.mkdir()
    density, label_map = _anatomy()
    images = [_image(folder, number, density[number]) for number in range(len(density))]
    heads = [pydicom.dcmread(path, stop_before_pixels=True) for path in images]
    findings = _findings(tuple(str(head.SOPInstanceUID) for head in heads), label_map)
    results = encode(findings, request(folder / "results", *images, results=("sr", "seg")))
    return str(heads[0].StudyInstanceUID), [*images, *(one.path for one in results)]


def _anatomy() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """HU and label map, both (slices, rows, columns)."""
    z, y, x = np.mgrid[: PHANTOM.shape[0], : PHANTOM.shape[1], : PHANTOM.shape[2]].astype(np.float32)
    density, label_map = np.zeros(PHANTOM.shape, np.float32), np.zeros(PHANTOM.shape, np.uint8)
    for (column, row, across, down, slice_, along), hu, segment in _HU:
        inside = ((x - column) / across) ** 2 + ((y - row) / down) ** 2 + ((z - slice_) / along) ** 2 < 1
        density[inside] = hu
        label_map[inside] = segment
    density += np.random.default_rng(1).normal(0, 18, PHANTOM.shape).astype(np.float32)
    return density, label_map


def _image(folder: Path, number: int, density: NDArray[np.float32]) -> Path:
    window = {"WindowCenter": -200, "WindowWidth": 1400, "SeriesDescription": "Phantom, 5 mm"}
    dataset = slice_of(PHANTOM, number, InstanceNumber=number + 1, **window)
    dataset.PixelData = np.clip(density + 1000, 0, 3000).astype(np.int16).tobytes()
    return saved(dataset, folder / f"{number}.dcm")


def _findings(source: tuple[str, ...], label_map: NDArray[np.uint8]) -> Findings:
    """Segments, a box that is a finding, and a line from which its length was got."""
    box = Region("nodule", "Nodule", LESION, NODULE, source[SLICE], Shape.BOX, ((74.0, 137.0), (95.0, 156.0)))
    line = Region("axis", "Long axis", LESION, NODULE, source[SLICE], Shape.POLYLINE, ((75.5, 146.5), (93.5, 146.5)))
    length = Measurement(
        Concept("410668003", "SCT", "Length"), 25.2, Concept("mm", "UCUM", "millimeter"), LUNG, RIGHT, regions=("axis",)
    )
    group = Group(
        source=source,
        measurements=(length,),
        segments=SEGMENTS,
        label_map=label_map,
        regions=(replace(box, presence=Presence.PRESENT, probability=0.87), line),
    )
    procedure = Concept("77477000", "SCT", "Computerized axial tomography")
    return Findings(replace(CHEST, service="chest-ct", title="Chest CT, made up", procedure=procedure), (group,))
