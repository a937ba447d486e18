"""Single images to arrays with their meaning: bright is dense, spacing only where it is true, a window for the eye.

Runs in the compute child only. In: a Part 10 file with one grey frame. Out: an Image. The network's input never depends
on a window, which is what somebody found convenient to look at; the drawn picture does.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from pacsnode.errors import Permanent
from pacsnode.infer.decoding import read_layout, stored_frames
from pacsnode.infer.headers import DAMAGED, items, one_line, read_dataset, value
from pacsnode.infer.spacing import true_spacing_mm

LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
SAMPLE = 250_000
"""Pixels on which percentiles are taken, about."""
CURVE_POINTS = 4096
LEAST_CONTRAST = 8.0
"""Standard deviation of a drawn picture, of 255: below it the header's window shows nothing."""
LARGEST_LUT = 1 << 16


@dataclass(frozen=True)
class Image:
    """One image. `intensity`: (rows, columns) float32, 0 to 1, MONOCHROME2 sense.

    `spacing_mm`: (between rows, between columns) in the patient, None where the file does not hold a true one.
    `curve`: what to draw for intensity 0 to 1 in even steps, 0 to 255: the header's window, None where it is of no use.
    """

    sop_instance_uid: str
    intensity: NDArray[np.float32]
    spacing_mm: tuple[float, float] | None
    spacing_note: str
    curve: NDArray[np.uint8] | None = None

    @property
    def picture(self) -> NDArray[np.uint8]:
        """(rows, columns) for drawing, 0 to 255."""
        if self.curve is None:
            return (self.intensity * 255 + 0.5).astype(np.uint8)
        return _drawn(self.intensity, self.curve)

    def negative(self) -> Image:
        """The same where dark was dense, against the header."""
        turned = None if self.curve is None else (255 - self.curve)[::-1]
        return replace(self, intensity=1 - self.intensity, curve=turned)


def read_image(path: Path) -> Image:
    """Read and decode one single-frame grey image. Raises Permanent with a sentence that a radiographer understands."""
    header = read_dataset(path)
    modality = _grey(path, header)
    # A falling rescale turns the sense of the stored values round, as MONOCHROME1 does.
    is_turned = (value(header, "PhotometricInterpretation") == "MONOCHROME1") != is_falling(header)
    top = modality.max()
    if is_turned:
        np.subtract(top, modality, out=modality)
    intensity, low, high = scale(modality)
    spacing, note = true_spacing_mm(header)
    points = np.linspace(low, high, CURVE_POINTS, dtype=np.float32)
    curve = _curve(header, top - points if is_turned else points)
    if curve is not None and _drawn(intensity[::8, ::8], curve).std() < LEAST_CONTRAST:
        curve = None
    return Image(str(header.SOPInstanceUID), intensity, spacing, note, curve)


def _grey(path: Path, header: Dataset) -> NDArray[np.float32]:
    """(rows, columns): stored values, after the modality's table where there is one. Raises Permanent."""
    layout = read_layout(header)
    if layout.frames != 1:
        raise Permanent(f"the service reads single images, this object holds {layout.frames} frames")
    for frame in stored_frames(path, header, layout, (1,)):
        if layout.is_colour:
            frame = without_colour(frame)
        return through_modality_lut(frame, header).astype(np.float32)
    raise Permanent("the object holds no pixel data")


def without_colour(frame: NDArray[Any]) -> NDArray[Any]:
    """One channel of a grey picture that was stored in colour. Raises Permanent where there is colour in it."""
    red = frame[..., 0]
    if not np.array_equal(red, frame[..., 1]) or not np.array_equal(red, frame[..., 2]):
        raise Permanent("the service reads grey images, this one is coloured")
    return red


def through_modality_lut(frame: NDArray[Any], header: Dataset) -> NDArray[Any]:
    """Stored values through the Modality LUT Sequence, unchanged where there is none (PS3.3 C.11.1). Raises Permanent.

    A rescale is left to the caller: it is a scale only, and a picture needs none.
    """
    if not items(header, "ModalityLUTSequence"):
        return frame
    item = items(header, "ModalityLUTSequence")[0]
    _refuse_lut(item)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return np.asarray(apply_modality_lut(frame, header))
        except DAMAGED as error:
            raise Permanent(f"the modality lookup table of an image is damaged: {one_line(error)}") from error


def _refuse_lut(item: Dataset) -> None:
    descriptor, data = value(item, "LUTDescriptor"), value(item, "LUTData")
    if descriptor is None or data is None or len(data) > LARGEST_LUT * 2:
        raise Permanent("the modality lookup table of an image is damaged")


def _curve(header: Dataset, stored: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    """What the header's window makes of `stored` (in MONOCHROME2 sense), 0 to 255; None without one (PS3.3 C.11.2)."""
    has_window = value(header, "WindowCenter") is not None and value(header, "WindowWidth") is not None
    if not items(header, "VOILUTSequence") and not has_window:
        return None
    slope, intercept = (value(header, k) for k in ("RescaleSlope", "RescaleIntercept"))
    values = stored.astype(np.float64)
    if not items(header, "ModalityLUTSequence") and isinstance(slope, float | int):
        values = values * float(slope) + float(intercept if isinstance(intercept, float | int) else 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            prefers_lut = bool(items(header, "VOILUTSequence"))
            if prefers_lut:
                _refuse_lut(items(header, "VOILUTSequence")[0])
                values = values.round().astype(np.int64)
            shown = np.asarray(apply_voi_lut(values, header, prefer_lut=prefers_lut), dtype=np.float64)
        except (*DAMAGED, Permanent):
            return None  # a damaged window is no reason to refuse the image
    low, high = shown.min(), shown.max()
    if not np.isfinite(shown).all() or not high > low:
        return None
    shown = (shown - low) * (255 / (high - low))
    if value(header, "PhotometricInterpretation") == "MONOCHROME1":
        shown = 255 - shown
    return np.asarray(shown.round().astype(np.uint8))


def _drawn(intensity: NDArray[np.float32], curve: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(curve[(intensity * (len(curve) - 1) + 0.5).astype(np.int32)])


def is_falling(header: Dataset) -> bool:
    """Whether larger stored values mean smaller ones (negative Rescale Slope)."""
    slope = value(header, "RescaleSlope")
    return isinstance(slope, float | int) and slope < 0


def scale(stored: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, float]:
    """`limits` to 0 and 1, clipped, in place; and the two. Raises Permanent where all pixels are equal."""
    step = max(1, int(np.sqrt(stored.size / SAMPLE)))
    low, high = limits(stored[::step, ::step]) or (float(stored.min()), float(stored.max()))
    if not high > low:
        raise Permanent("the image is empty: all pixels have the same value")
    return between(stored, low, high), low, high


def limits(sample: NDArray[np.float32]) -> tuple[float, float] | None:
    """Percentiles of an image, or of a sample of it; None where almost all of it is equal: the full range counts then.

    They are taken where the image is: a border of one value (collimation, padding) would move them, and a large one
    would leave no contrast at all.
    """
    exposed = _without_plain_border(sample)
    low, high = np.percentile(exposed, [LOW_PERCENTILE, HIGH_PERCENTILE])
    return (float(low), float(high)) if high > low else None


def between(stored: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """`low` to 0, `high` to 1, clipped, in place."""
    stored -= np.float32(low)
    stored *= np.float32(1 / (high - low))
    return np.clip(stored, 0, 1, out=stored)


def _without_plain_border(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """The part within the outermost rows and columns that are not of the corner's value throughout."""
    differs = sample != sample[0, 0]
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not rows.size:
        return sample
    return sample[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
