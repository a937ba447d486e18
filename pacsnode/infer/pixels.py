"""DICOM images to arrays with their meaning: one frame, bright is dense, spacing only where it is true.

Runs in the compute child only: decoders are fed with what came off the wire. Never trusts a header: what a file says of
itself is checked before anything of that size is made.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.config
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from pacsnode.errors import Permanent

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MAXIMUM_PIXELS = 200_000_000
MINIMUM_SIDE = 16
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5

DAMAGED = (  # what pydicom and the decoders raise for damaged data; OSError and EOFError for cut files
    InvalidDicomError,
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class Image:
    """One image. `intensity`: (rows, columns) float32, 0 to 1, MONOCHROME2 sense.

    `spacing_mm`: (between rows, between columns) in the patient, None where the file does not hold a true one.
    """

    sop_instance_uid: str
    intensity: NDArray[np.float32]
    spacing_mm: tuple[float, float] | None
    spacing_note: str

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The same for drawing, 0 to 255."""
        return (self.intensity * 255 + 0.5).astype(np.uint8)


def read_image(path: Path) -> Image:
    """Read and decode one single-frame grey image. Raises Permanent with a sentence that a radiographer understands."""
    dataset = read_dataset(path)
    stored = decode(dataset)
    # A falling rescale turns the sense of the stored values round, as MONOCHROME1 does.
    if (value(dataset, "PhotometricInterpretation") == "MONOCHROME1") != is_falling(dataset):
        np.subtract(stored.max(), stored, out=stored)
    spacing, note = true_spacing_mm(dataset)
    return Image(str(dataset.SOPInstanceUID), scale(stored), spacing, note)


def read_dataset(path: Path, *, with_pixels: bool = True) -> Dataset:
    """The data set of a Part 10 file. Raises Permanent where it is none, or lacks its own UID."""
    # What is wrong with the file is found here; pydicom's warnings would put its values, names too, into the log.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=not with_pixels)
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk, not the data
            raise Permanent(f"the file is damaged and cannot be read: {one_line(error)}") from error
    if not value(dataset, "SOPInstanceUID"):
        raise Permanent("the object is damaged: it has no SOP Instance UID")
    return dataset


def value(dataset: Dataset, keyword: str) -> Any:
    """An attribute's value, None where it is absent, empty or unreadable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dataset.get(keyword)
        except DAMAGED:
            return None


def decode(dataset: Dataset) -> NDArray[np.float32]:
    """(rows, columns) stored values of a single grey frame. Raises Permanent."""
    _refuse_unsuitable(dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = np.asarray(dataset.pixel_array)
        except DAMAGED as error:
            raise Permanent(f"the pixels cannot be decoded ({_syntax(dataset)}): {one_line(error)}") from error
    if pixels.shape != (dataset.Rows, dataset.Columns):
        raise Permanent(f"the pixels have shape {pixels.shape}, the header says {dataset.Rows} rows")
    return pixels.astype(np.float32)


def _refuse_unsuitable(dataset: Dataset) -> None:
    if "PixelData" not in dataset:
        raise Permanent("the object holds no pixel data")
    frames = _whole(dataset, "NumberOfFrames", 1)
    if frames != 1:
        raise Permanent(f"the service reads single images, this object holds {frames} frames")
    photometric = str(value(dataset, "PhotometricInterpretation") or "")
    if _whole(dataset, "SamplesPerPixel", 1) != 1 or not photometric.startswith("MONOCHROME"):
        raise Permanent("the service reads grey images, this one is coloured")
    rows, columns = _whole(dataset, "Rows", 0), _whole(dataset, "Columns", 0)
    if rows * columns > MAXIMUM_PIXELS or min(rows, columns) < MINIMUM_SIDE:
        raise Permanent(f"an image of {columns} x {rows} pixels cannot be read")


def is_falling(dataset: Dataset) -> bool:
    """Whether larger stored values mean smaller ones (negative Rescale Slope)."""
    slope = value(dataset, "RescaleSlope")
    return isinstance(slope, float | int) and slope < 0


def one_line(error: Exception) -> str:
    """What an exception says, for a reason: one line, cut; its class where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def scale(stored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Percentiles to 0 and 1, clipped, in place. Raises Permanent where all pixels are equal.

    They are taken where the image is: a border of one value (collimation, padding) would move them, and a large one
    would leave no contrast at all. Where almost all of the rest is equal too, the full range counts.
    """
    step = max(1, int(np.sqrt(stored.size / 250_000)))
    exposed = _without_plain_border(stored[::step, ::step])
    low, high = np.percentile(exposed, [LOW_PERCENTILE, HIGH_PERCENTILE])
    if not high > low:
        low, high = stored.min(), stored.max()
    if not high > low:
        raise Permanent("the image is empty: all pixels have the same value")
    stored -= np.float32(low)
    stored *= np.float32(1 / (float(high) - float(low)))
    return np.clip(stored, 0, 1, out=stored)


def _without_plain_border(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """The part within the outermost rows and columns that are not of the corner's value throughout."""
    differs = sample != sample[0, 0]
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not rows.size:
        return sample
    return sample[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def true_spacing_mm(dataset: Dataset) -> tuple[tuple[float, float] | None, str]:
    """Spacing in the patient and what must be said about it (PS3.3 10.7.1.3, C.8.11.4).

    A zero is no spacing. Imager Pixel Spacing lies at the detector: true only with the magnification factor. A
    Secondary Capture may have been resized after its spacing was written: only a calibrated one is believed.
    """
    pixel = positive_pair(dataset, "PixelSpacing")
    imager = positive_pair(dataset, "ImagerPixelSpacing")
    if pixel is not None:
        calibration = value(dataset, "PixelSpacingCalibrationType")
        if calibration:
            return pixel, f"Pixel spacing calibrated by {str(calibration)[:16]}."
        if str(value(dataset, "SOPClassUID")).startswith(SECONDARY_CAPTURE):
            return None, "A secondary capture has no true pixel spacing: areas are given as a fraction of the image."
        if value(dataset, "Modality") in ("CR", "DX", "RG", "MG", "XA", "RF"):
            return pixel, "Pixel spacing as the device stated it, not corrected for projection magnification."
        return pixel, ""
    factor = _positive(value(dataset, "EstimatedRadiographicMagnificationFactor"))
    if imager is not None and factor:
        return (imager[0] / factor, imager[1] / factor), "Pixel spacing at the detector divided by the magnification."
    return None, "No true pixel spacing in the image: areas are given as a fraction of the image, not in mm2."


def positive_pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Two finite positive numbers, else None."""
    given = value(dataset, keyword)
    if given is None or isinstance(given, str | float | int) or len(given) != 2:
        return None
    first, second = _positive(given[0]), _positive(given[1])
    return (first, second) if first and second else None


def _positive(given: object) -> float | None:
    """A finite positive number, else None."""
    try:
        number = float(str(given))
    except ValueError:
        return None
    return number if 0 < number < 1e6 else None


def _whole(dataset: Dataset, keyword: str, default: int) -> int:
    """A whole number of the header; one that cannot be read is none that fits."""
    if keyword not in dataset:
        return default
    given = value(dataset, keyword)
    if given in (None, ""):
        return default
    return int(given) if isinstance(given, int | float) else -1


def _syntax(dataset: Dataset) -> str:
    uid = dataset.file_meta.get("TransferSyntaxUID")
    return str(uid.name) if uid else "no transfer syntax"
