"""DICOM images to arrays with their meaning: one frame, bright is dense, spacing only where it is true.

Runs in the compute child only: decoders are fed with what came off the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.errors import Permanent

MAXIMUM_PIXELS = 200_000_000
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5


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
    dataset = pydicom.dcmread(path)
    stored = _decode(dataset)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        stored = stored.max() - stored
    spacing, note = true_spacing_mm(dataset)
    return Image(str(dataset.SOPInstanceUID), _scale(stored), spacing, note)


def _decode(dataset: Dataset) -> NDArray[np.float32]:
    if "PixelData" not in dataset:
        raise Permanent("the object holds no pixel data")
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    rows, columns = int(dataset.get("Rows", 0)), int(dataset.get("Columns", 0))
    if frames != 1:
        raise Permanent(f"the service reads single images, this object holds {frames} frames")
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise Permanent("the service reads grey images, this one is coloured")
    if rows * columns > MAXIMUM_PIXELS or rows < 16 or columns < 16:
        raise Permanent(f"an image of {columns} x {rows} pixels cannot be read")
    try:
        return np.asarray(dataset.pixel_array, dtype=np.float32)
    except (RuntimeError, ValueError, NotImplementedError, AttributeError, OSError) as error:
        name = dataset.file_meta.TransferSyntaxUID.name
        raise Permanent(f"the pixels cannot be decoded ({name}): {str(error).splitlines()[0]}") from error


def _scale(stored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Percentiles to 0 and 1, clipped: collimated borders and markers do not set the range."""
    step = max(1, int(np.sqrt(stored.size / 250_000)))
    low, high = np.percentile(stored[::step, ::step], [LOW_PERCENTILE, HIGH_PERCENTILE])
    if not high > low:
        raise Permanent("the image is empty: all pixels have the same value")
    scaled = stored - np.float32(low)
    scaled *= np.float32(1 / (high - low))
    return np.clip(scaled, 0, 1, out=scaled)


def true_spacing_mm(dataset: Dataset) -> tuple[tuple[float, float] | None, str]:
    """Spacing in the patient and what must be said about it (PS3.3 10.7.1.3, C.8.11.4).

    A zero is no spacing. Imager Pixel Spacing lies at the detector: true only with the magnification factor.
    """
    pixel = _pair(dataset, "PixelSpacing")
    imager = _pair(dataset, "ImagerPixelSpacing")
    if pixel is not None:
        if dataset.get("PixelSpacingCalibrationType"):
            return pixel, f"Pixel spacing calibrated by {dataset.PixelSpacingCalibrationType}."
        if dataset.get("Modality") in ("CR", "DX", "RG", "MG", "XA", "RF"):
            return pixel, "Pixel spacing as the device stated it, not corrected for projection magnification."
        return pixel, ""
    factor = _number(dataset.get("EstimatedRadiographicMagnificationFactor"))
    if imager is not None and factor:
        return (imager[0] / factor, imager[1] / factor), "Pixel spacing at the detector divided by the magnification."
    return None, "No true pixel spacing in the image: areas are given as a fraction of the image, not in mm2."


def _pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    given = dataset.get(keyword)
    if given is None or isinstance(given, str | float | int) or len(given) != 2:
        return None
    first, second = _number(given[0]), _number(given[1])
    return (first, second) if first and second else None


def _number(value: object) -> float | None:
    """A finite positive number, else None."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 < number < 1e6 else None
