"""Synthetic objects to send, the same on every machine: CT slices, large radiographs, small mixed ones.

In: a kind, a count, an empty folder. Out: Part 10 files with what a C-STORE of each needs to know. No patient is in
them; the pixels are noise, which no file system compresses away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pacsnode.dimse.part10 import FileMeta, read_meta

Kind = Literal["ct", "cr", "mixed"]

CT: Final = "1.2.840.10008.5.1.4.1.1.2"
MR: Final = "1.2.840.10008.5.1.4.1.1.4"
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
DX: Final = "1.2.840.10008.5.1.4.1.1.1.1"
MODALITIES: Final = {CT: "CT", MR: "MR", SECONDARY_CAPTURE: "OT", DX: "DX"}

UID_ROOT: Final = "2.25.20771"
NAMES: Final[tuple[tuple[list[str], str], ...]] = (
    ([], "Doe^Jane"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    (["ISO_IR 192"], "Kim^Minsu=金^民秀=김^민수"),
    (["ISO_IR 100"], "Müller^Jörg"),
)
"""Character sets and names as Korean modalities and visitors bring them, one after the other by study."""


@dataclass(frozen=True)
class Sample:
    """One file to send: `dataset_sha256` is that of the bytes behind the meta header."""

    path: Path
    meta: FileMeta
    file_bytes: int
    dataset_sha256: str


@dataclass(frozen=True)
class _Place:
    """Where an object stands: numbers of its study, series and instance, 1-based."""

    study: int
    series: int
    instance: int

    @property
    def study_uid(self) -> str:
        return f"{UID_ROOT}.{self.study}"

    @property
    def series_uid(self) -> str:
        return f"{self.study_uid}.{self.series}"

    @property
    def instance_uid(self) -> str:
        return f"{self.series_uid}.{self.instance}"


def make(kind: Kind, count: int, folder: Path) -> list[Sample]:
    """Write `count` objects of a kind below `folder`."""
    folder.mkdir(parents=True)
    write = _WRITERS[kind]
    samples = []
    for number in range(count):
        path = folder / f"{number:05d}.dcm"
        write(number).save_as(path, enforce_file_format=True)
        samples.append(_sample(path))
    return samples


def _sample(path: Path) -> Sample:
    with path.open("rb") as file:
        meta = read_meta(file)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Sample(path, meta, path.stat().st_size, digest)


def _ct(number: int) -> Dataset:
    """Slice of a study of 300: 512 x 512, signed 16 bit, 0.53 MB."""
    place = _Place(1 + number // 300, 1, 1 + number % 300)
    dataset = _dataset(CT, place, _noise(512, 512, number).view(np.int16))
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    return dataset


def _cr(number: int) -> Dataset:
    """A radiograph of its own study: 2800 rows x 2400 columns, 13.4 MB."""
    return _dataset(DX, _Place(10_000 + number, 1, 1), _noise(2800, 2400, number))


def _mixed(number: int) -> Dataset:
    """MR, CT or SC of 256 x 256, 0.13 MB, eight in a study of two series."""
    study = number // 8
    place = _Place(20_000 + study, 1 + number % 2, 1 + number)
    return _dataset((MR, CT, SECONDARY_CAPTURE)[study % 3], place, _noise(256, 256, number))


_WRITERS: Final[dict[Kind, Callable[[int], Dataset]]] = {"ct": _ct, "cr": _cr, "mixed": _mixed}


def _noise(rows: int, columns: int, seed: int) -> NDArray[np.uint16]:
    """Pixels (row, column) of 12 bit."""
    return np.random.default_rng(seed).integers(0, 4096, (rows, columns), dtype=np.uint16)


def _dataset(sop_class_uid: str, place: _Place, pixels: NDArray[np.uint16] | NDArray[np.int16]) -> Dataset:
    character_sets, name = NAMES[place.study % len(NAMES)]
    dataset = Dataset()
    if character_sets:
        dataset.SpecificCharacterSet = character_sets
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class_uid, place.instance_uid
    dataset.StudyDate, dataset.StudyTime = "20240102", "101112"
    dataset.AccessionNumber, dataset.StudyID = f"A{place.study:07d}", str(place.study)
    dataset.Modality, dataset.Manufacturer = MODALITIES[sop_class_uid], "SYNTHETIC"
    dataset.StudyDescription, dataset.SeriesDescription = f"study {place.study}", f"series {place.series}"
    dataset.PatientName, dataset.PatientID = name, f"P{place.study:06d}"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = place.study_uid, place.series_uid
    dataset.SeriesNumber, dataset.InstanceNumber = place.series, place.instance
    dataset.FrameOfReferenceUID = f"{place.study_uid}.999"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, place.instance], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [0.7, 0.7], 1
    reference = Dataset()
    reference.ReferencedSOPClassUID = sop_class_uid
    reference.ReferencedSOPInstanceUID = f"{place.series_uid}.{10_000 + place.instance}"
    dataset.ReferencedImageSequence = [reference]
    _set_pixels(dataset, pixels)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _set_pixels(dataset: Dataset, pixels: NDArray[np.uint16] | NDArray[np.int16]) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = int(pixels.dtype == np.int16)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
