"""The size of a pixel in the patient, where an image states a true one (PS3.3 10.7.1.3, C.8.11.4, C.8.5.5.1).

In: a header. Out: millimetres between rows and between columns, or None, and the sentence that must go with them. Never
guesses: no length of a film or of a screen, and no spacing of zero.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from pacsnode.infer.headers import items, positive, positive_pair, value

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
PROJECTIONS = ("CR", "DX", "RG", "MG", "XA", "RF", "IO", "PX")
CENTIMETRES = 3
"""Physical Units of an ultrasound region."""
TWO_DIMENSIONAL = 1
"""Region Spatial Format."""

NONE = "No true pixel spacing in the image: areas are given as a fraction of the image, not in mm2."
UNCORRECTED = "Pixel spacing as the device stated it, not corrected for projection magnification."
Spacing = tuple[tuple[float, float] | None, str]


def true_spacing_mm(header: Dataset) -> Spacing:
    """((between rows, between columns) or None, what must be said about it).

    A zero is no spacing. Imager Pixel Spacing lies at the detector: true only with the magnification factor, and Pixel
    Spacing that repeats it lies there too. A Secondary Capture may have been resized after its spacing was written:
    only a calibrated one is believed. Ultrasound states it by region.
    """
    pixel = positive_pair(value(header, "PixelSpacing"))
    imager = positive_pair(value(header, "ImagerPixelSpacing"))
    factor = positive(value(header, "EstimatedRadiographicMagnificationFactor"))
    if pixel is not None and value(header, "PixelSpacingCalibrationType"):
        return pixel, _calibration(header)
    if imager is not None and factor and pixel in (None, imager):
        return (imager[0] / factor, imager[1] / factor), "Pixel spacing at the detector divided by the magnification."
    if pixel is not None:
        if str(value(header, "SOPClassUID")).startswith(SECONDARY_CAPTURE):
            return None, "A secondary capture has no true pixel spacing: areas are given as a fraction of the image."
        return pixel, UNCORRECTED if value(header, "Modality") in PROJECTIONS else ""
    return _of_ultrasound(header) or (None, NONE)


def _calibration(header: Dataset) -> str:
    how = str(value(header, "PixelSpacingCalibrationType"))[:16]
    description = " ".join(str(value(header, "PixelSpacingCalibrationDescription") or "").split())[:64]
    return f"Pixel spacing calibrated by {how}{f' ({description})' if description else ''}."


def _of_ultrasound(header: Dataset) -> Spacing | None:
    """Of the only two-dimensional region that is measured in centimetres; several may have several scales."""
    regions = [
        region
        for region in items(header, "SequenceOfUltrasoundRegions")
        if value(region, "RegionSpatialFormat") == TWO_DIMENSIONAL
    ]
    if len(regions) != 1:
        return None
    units = [value(regions[0], keyword) for keyword in ("PhysicalUnitsXDirection", "PhysicalUnitsYDirection")]
    across, down = (positive(value(regions[0], keyword)) for keyword in ("PhysicalDeltaX", "PhysicalDeltaY"))
    if units != [CENTIMETRES, CENTIMETRES] or not across or not down:
        return None
    return (down * 10, across * 10), "Pixel spacing of the ultrasound region; it holds within the region only."
