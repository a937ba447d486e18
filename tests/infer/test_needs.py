"""An input that is not what its service needs is parked with a sentence; one that is, is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from pacsnode.errors import Permanent
from pacsnode.infer import needs as needs_of
from pacsnode.infer.pipeline import Needs
from pacsnode.infer.pixels import Image
from pacsnode.infer.volume import Volume
from pacsnode.infer.waveform import read_waveform
from tests.infer.bundles import gradient, saved_image

ECG = Path(str(get_testdata_file("waveform_ecg.dcm")))


def needs(**given: Any) -> Needs:
    return Needs.model_validate(given)


def image(spacing_mm: tuple[float, float] | None) -> Image:
    return Image("1.2", np.zeros((4, 5), dtype=np.float32), spacing_mm, "")


def volume(normal: tuple[float, float, float] = (0, 0, 1)) -> Volume:
    """Ten slices, 2 mm apart, pixels of 0.5 x 0.5 mm."""
    affine = np.eye(4)
    affine[:3, 2] = 2 * np.asarray(normal) / np.linalg.norm(normal)
    return Volume(("1.2",) * 10, np.zeros((10, 4, 5), dtype=np.float32), (2.0, 0.5, 0.5), affine)


@pytest.mark.parametrize(
    ("given", "spacing_mm", "sentence"),
    [
        ({}, None, ""),
        ({"pixel_spacing_mm": [0.1, 0.2]}, (0.1, 0.2), ""),
        ({"pixel_spacing_mm": [0.1, 0.2]}, None, "does not say how large its pixels are"),
        ({"pixel_spacing_mm": [0.1, 0.2]}, (0.15, 0.25), "pixel spacing is 0.25 mm; the service needs 0.1 to 0.2 mm"),
    ],
)
def test_the_spacing_of_an_image(given: dict[str, Any], spacing_mm: tuple[float, float] | None, sentence: str) -> None:
    if not sentence:
        needs_of.refuse_image(needs(**given), image(spacing_mm))
        return
    with pytest.raises(Permanent, match=sentence):
        needs_of.refuse_image(needs(**given), image(spacing_mm))


FITTING = {"pixel_spacing_mm": [0.5, 0.5], "slice_spacing_mm": [1, 2], "slices": [10, 10], "orientation": "axial"}


@pytest.mark.parametrize(
    ("given", "normal", "sentence"),
    [
        (FITTING, (0, 0, 1), ""),
        (FITTING, (0, 0, -1), ""),
        (FITTING, (0, 0.5, 1), ""),
        (FITTING, (0, 1, 1), "reads axial slices; these are oblique"),
        (FITTING, (1, 0, 0), "reads axial slices; these are sagittal"),
        ({"orientation": "coronal"}, (0, -1, 0), ""),
        ({"slices": [20, 100]}, (0, 0, 1), "number of slices is 10; the service needs 20 to 100$"),
        (
            {"slice_spacing_mm": [0.5, 1.5]},
            (0, 0, 1),
            "distance between slices is 2 mm; the service needs 0.5 to 1.5 mm",
        ),
        ({"pixel_spacing_mm": [0.6, 1]}, (0, 0, 1), "pixel spacing is 0.5 mm"),
    ],
)
def test_the_geometry_of_a_series(given: dict[str, Any], normal: tuple[float, float, float], sentence: str) -> None:
    if not sentence:
        needs_of.refuse_volume(needs(**given), volume(normal))
        return
    with pytest.raises(Permanent, match=sentence):
        needs_of.refuse_volume(needs(**given), volume(normal))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"leads": ["I", "V6"], "sampling_hz": [500, 1000], "duration_s": [10, 10]}, ""),
        ({"leads": ["I", "V9"]}, "needs the leads V9; the recording has I, II, III, aVR"),
        ({"sampling_hz": [100, 500]}, "sampling frequency is 1000 Hz; the service needs 100 to 500 Hz"),
        ({"duration_s": [30, 60]}, "recording's length is 10 s; the service needs 30 to 60 s"),
    ],
)
def test_the_leads_and_the_length_of_a_recording(given: dict[str, Any], sentence: str) -> None:
    recording = read_waveform(ECG)
    if not sentence:
        needs_of.refuse_waveform(needs(**given), recording)
        return
    with pytest.raises(Permanent, match=sentence):
        needs_of.refuse_waveform(needs(**given), recording)


def test_every_view_must_be_there_on_some_image(tmp_path: Path) -> None:
    wanted = needs(views=[{"ViewPosition": "CC"}, {"ViewPosition": {"in": ["MLO", "ML"]}}])
    files = [saved_image(tmp_path, gradient(), ViewPosition="CC") for _ in range(2)]
    with pytest.raises(Permanent, match="needs an image with ViewPosition MLO or ML, and the study has none"):
        needs_of.refuse_missing_views(wanted, files)
    needs_of.refuse_missing_views(wanted, [*files, saved_image(tmp_path, gradient(), ViewPosition="ML")])
    needs_of.refuse_missing_views(needs(), files)


def test_a_damaged_image_among_the_views_is_a_sentence(tmp_path: Path) -> None:
    path = saved_image(tmp_path, gradient())
    path.write_bytes(path.read_bytes()[:300] + b"\xff" * 40)
    with pytest.raises(Permanent):
        needs_of.refuse_missing_views(needs(views=[{"ViewPosition": "CC"}]), [path])
