"""Lookup tables and windows: the modality's reaches the network, the eye's only what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.config
import pytest
from pydicom.data import get_testdata_file

from pacsnode.infer.pixels import read_image
from tests.infer.bundles import gradient, image, saved, saved_image


def pydicom_file(name: str) -> Path:
    return Path(str(get_testdata_file(name)))


def table(entries: list[int], first: int = 0) -> Any:
    """An item of a lookup table sequence, 16 bits."""
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(entries), first, 16]
    item.LUTData = np.array(entries, dtype="<u2").tobytes()
    item["LUTData"].VR = "OW"
    item.ModalityLUTType = "US"
    return item


def test_a_modality_table_shapes_what_the_network_sees(tmp_path: Path) -> None:
    squares = [n * n // 250 for n in range(4001)]
    found = read_image(saved_image(tmp_path, gradient(), ModalityLUTSequence=[table(squares)])).intensity
    assert np.allclose(found, np.linspace(0, 1, 60)[None] ** 2, atol=0.03)


def test_a_real_modality_table_is_applied() -> None:
    path = pydicom_file("mlut_18.dcm")
    dataset = pydicom.dcmread(path)
    item = dataset.ModalityLUTSequence[0]
    _, first, _ = item.LUTDescriptor
    entries = np.array(item.LUTData) if not isinstance(item.LUTData, bytes) else np.frombuffer(item.LUTData, "<u2")
    expected = entries[np.clip(dataset.pixel_array.astype(int) - first, 0, len(entries) - 1)].astype(float)
    found = read_image(path).intensity.astype(float)
    inside = (found > 0) & (found < 1)
    assert np.corrcoef(found[inside], expected[inside])[0, 1] > 0.9999


WINDOWS: list[tuple[dict[str, Any], list[int]]] = [
    ({"WindowCenter": 2000, "WindowWidth": 2000}, [0, 0, 128, 255, 255]),
    ({"WindowCenter": [1000, 2000], "WindowWidth": [2000, 2000]}, [0, 128, 255, 255, 255]),
    ({"WindowCenter": 2000, "WindowWidth": 2000, "VOILUTFunction": "LINEAR_EXACT"}, [0, 0, 128, 255, 255]),
    ({"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"}, [0, 5, 128, 250, 255]),
    ({"WindowCenter": 4000, "WindowWidth": 4000, "RescaleSlope": 2, "RescaleIntercept": 0}, [0, 0, 128, 255, 255]),
    ({"VOILUTSequence": [table([n * n // 250 for n in range(4001)])]}, [0, 16, 64, 143, 255]),
]


@pytest.mark.parametrize(("attributes", "shown"), WINDOWS)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_the_picture_is_drawn_through_the_window(
    tmp_path: Path, attributes: dict[str, Any], shown: list[int], photometric: str
) -> None:
    plain = read_image(saved_image(tmp_path, gradient(40, 401), PhotometricInterpretation=photometric))
    found = read_image(saved_image(tmp_path, gradient(40, 401), PhotometricInterpretation=photometric, **attributes))
    assert np.array_equal(found.intensity, plain.intensity)
    drawn = found.picture[20, [5, 100, 200, 300, 395]].astype(int)
    expected = np.array(shown) if photometric == "MONOCHROME2" else 255 - np.array(shown)
    assert np.abs(drawn - expected).max() <= 4


def test_the_negative_of_an_image_is_drawn_as_its_negative(tmp_path: Path) -> None:
    found = read_image(saved_image(tmp_path, gradient(), WindowCenter=2000, WindowWidth=2000))
    turned = found.negative()
    assert np.allclose(turned.intensity, 1 - found.intensity)
    assert np.abs(turned.picture.astype(int) - (255 - found.picture.astype(int))).max() <= 1


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": 90_000, "WindowWidth": 10},
        {"WindowCenter": 2000, "WindowWidth": 0},
        {"WindowCenter": "nan", "WindowWidth": "nan"},
        {"WindowCenter": 2000, "WindowWidth": 2000, "VOILUTFunction": "WRONG"},
        {"WindowWidth": 2000},
        {"VOILUTSequence": [table([5] * 300)]},
        {"VOILUTSequence": [pydicom.Dataset()]},
    ],
)
def test_a_window_that_shows_nothing_is_not_used(tmp_path: Path, attributes: dict[str, Any]) -> None:
    with pydicom.config.disable_value_validation():
        found = read_image(saved_image(tmp_path, gradient(), **attributes))
    assert found.curve is None
    assert np.array_equal(found.picture, read_image(saved_image(tmp_path, gradient())).picture)


def test_a_real_voi_table_is_drawn() -> None:
    found = read_image(pydicom_file("vlut_04.dcm"))
    assert found.curve is not None
    assert found.picture.std() > 20


def test_a_grey_picture_that_was_stored_in_colour_is_grey(tmp_path: Path) -> None:
    grey = gradient(40, 60, "uint8", 255)
    dataset = image(grey)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = np.repeat(grey[..., None], 3, axis=2).tobytes()
    found = read_image(saved(dataset, tmp_path / "rgb.dcm")).intensity
    assert np.array_equal(found, read_image(saved_image(tmp_path, grey)).intensity)
