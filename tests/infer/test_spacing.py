"""The size of a pixel: which attribute is believed, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pydicom.config
import pytest

from pacsnode.infer.pixels import read_image
from pacsnode.infer.spacing import true_spacing_mm
from tests.infer.bundles import gradient, image, saved_image


def region(**attributes: Any) -> pydicom.Dataset:
    """An ultrasound region of 0.02 x 0.04 cm a pixel."""
    found = pydicom.Dataset()
    fixed = {
        "RegionSpatialFormat": 1,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.02,
        "PhysicalDeltaY": 0.04,
    }
    for keyword, value in (fixed | attributes).items():
        setattr(found, keyword, value)
    return found


@pytest.mark.parametrize(
    ("attributes", "spacing", "word"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "not corrected for projection magnification"),
        ({"PixelSpacing": [0.2, 0.1], "PixelSpacingCalibrationType": "FIDUCIAL"}, (0.2, 0.1), "calibrated by FIDUCIAL"),
        ({"PixelSpacing": [0, 0]}, None, "No true pixel spacing"),
        ({"PixelSpacing": [0.1, 0]}, None, "No true pixel spacing"),
        ({"PixelSpacing": [-0.1, 0.1]}, None, "No true pixel spacing"),
        ({"PixelSpacing": ["nan", "nan"]}, None, "No true pixel spacing"),
        ({"PixelSpacing": ["1e300", "1e300"]}, None, "No true pixel spacing"),
        ({"PixelSpacing": None}, None, "No true pixel spacing"),
        ({"PixelSpacing": "0.1"}, None, "No true pixel spacing"),
        ({"PixelSpacing": [0.1, 0.1, 0.1]}, None, "No true pixel spacing"),
        ({"ImagerPixelSpacing": [0.2, 0.2]}, None, "No true pixel spacing"),
        (
            {"ImagerPixelSpacing": [0.3, 0.15], "EstimatedRadiographicMagnificationFactor": 1.5},
            (0.2, 0.1),
            "divided by the magnification",
        ),
        (
            {"ImagerPixelSpacing": [0.3, 0.15], "EstimatedRadiographicMagnificationFactor": 0},
            None,
            "No true pixel spacing",
        ),
        ({"Modality": "CT", "PixelSpacing": [0.5, 0.5]}, (0.5, 0.5), ""),
        (
            {
                "PixelSpacing": [0.2, 0.1],
                "PixelSpacingCalibrationType": "GEOMETRY",
                "PixelSpacingCalibrationDescription": "ball of 25 mm",
            },
            (0.2, 0.1),
            r"calibrated by GEOMETRY (ball of 25 mm).",
        ),
        (  # Pixel Spacing that only repeats the detector's
            {
                "PixelSpacing": [0.3, 0.15],
                "ImagerPixelSpacing": [0.3, 0.15],
                "EstimatedRadiographicMagnificationFactor": 1.5,
            },
            (0.2, 0.1),
            "divided by the magnification",
        ),
        (  # one that the device corrected already
            {
                "PixelSpacing": [0.2, 0.1],
                "ImagerPixelSpacing": [0.3, 0.15],
                "EstimatedRadiographicMagnificationFactor": 1.5,
            },
            (0.2, 0.1),
            "as the device stated it",
        ),
        ({"NominalScannedPixelSpacing": [0.1, 0.1]}, None, "No true pixel spacing"),
        ({"SequenceOfUltrasoundRegions": [region()]}, (0.4, 0.2), "within the region only"),
        ({"SequenceOfUltrasoundRegions": [region(), region()]}, None, "No true pixel spacing"),
        ({"SequenceOfUltrasoundRegions": [region(PhysicalUnitsXDirection=4)]}, None, "No true pixel spacing"),
        ({"SequenceOfUltrasoundRegions": [region(PhysicalDeltaX=0.0)]}, None, "No true pixel spacing"),
        ({"SequenceOfUltrasoundRegions": [region(RegionSpatialFormat=3)]}, None, "No true pixel spacing"),
    ],
)
def test_only_a_true_spacing_reaches_millimetres(
    attributes: dict[str, Any], spacing: tuple[float, float] | None, word: str
) -> None:
    keys = {k: v for k, v in attributes.items() if v is not None}
    with pydicom.config.disable_value_validation():
        found, note = true_spacing_mm(image(gradient(), **keys))
    assert found == (None if spacing is None else pytest.approx(spacing))
    assert word in note
    assert bool(note) == bool(word)


def test_a_spacing_that_is_no_number_is_none(tmp_path: Path) -> None:
    path = saved_image(tmp_path, gradient(), PixelSpacing=[0.25, 0.25])
    raw = path.read_bytes()
    assert raw.count(b"0.25\\0.25") == 1
    path.write_bytes(raw.replace(b"0.25\\0.25", b"zero\\.1.2"))
    assert read_image(path).spacing_mm is None


def test_a_secondary_capture_has_no_true_spacing_unless_it_is_calibrated() -> None:
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.Modality, dataset.PixelSpacing = "1.2.840.10008.5.1.4.1.1.7", "CR", [0.168, 0.168]
    assert true_spacing_mm(dataset)[0] is None
    dataset.PixelSpacingCalibrationType = "FIDUCIAL"
    assert true_spacing_mm(dataset)[0] == (0.168, 0.168)
