"""Every image of NEMA's compression samples (WG04) against the pixels of its uncompressed twin.

A lossless image equals its twin in every pixel; for a lossy one the table states by how much it may differ. The set's
own uncompressed files are pydicom-data's; where it has none, the RLE file, which is lossless, is the twin (XA1: J2KR).
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000

from pacsnode.infer.decoding import read_layout, stored_frames
from pacsnode.infer.headers import read_dataset

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dicom_test" / "wg04"
UNCOMPRESSED = ("MR2", "RG3", "US1")
"""Twins that pydicom-data holds."""

LOSSLESS = [
    *(f"CT{n}_{syntax}" for n in (1, 2) for syntax in ("RLE", "J2KR", "JLSL", "JPLL")),
    *(f"MR{n}_{syntax}" for n in (1, 3, 4) for syntax in ("RLE", "J2KR", "JLSL", "JPLL")),
    *(f"NM1_{syntax}" for syntax in ("RLE", "J2KR", "JLSL", "JPLL")),
    *(f"VL{n}_{syntax}" for n in (1, 2, 3) for syntax in ("RLE", "J2KR")),
    "US1_J2KR",
    "XA1_J2KR",
    "XA1_JLSL",
]
LOSSY = {  # largest and mean absolute difference, in stored values
    "CT1_J2KI": (352, 25.93),
    "CT2_J2KI": (402, 17.62),
    "MR1_J2KI": (396, 34.92),
    "MR2_J2KI": (32, 3.94),
    "MR3_J2KI": (296, 21.98),
    "MR4_J2KI": (29, 3.02),
    "NM1_J2KI": (101, 4.22),
    "RG3_J2KI": (9, 0.78),
    "US1_J2KI": (124, 1.70),
    "VL1_J2KI": (44, 1.17),
    "VL2_J2KI": (66, 1.36),
    "VL3_J2KI": (40, 1.36),
    "XA1_J2KI": (8, 1.14),
    "CT1_JLSN": (4, 2.15),
    "CT2_JLSN": (4, 2.16),
    "MR1_JLSN": (4, 2.22),
    "MR2_JLSN": (4, 1.75),
    "MR3_JLSN": (4, 1.48),
    "MR4_JLSN": (4, 1.89),
    "NM1_JLSN": (4, 1.29),
    "RG3_JLSN": (4, 1.55),
    "XA1_JLSN": (4, 1.97),
    "MR1_JPLY": (128, 11.29),
    "MR2_JPLY": (61, 5.61),
    "MR3_JPLY": (55, 4.47),
    "MR4_JPLY": (40, 3.07),
    "NM1_JPLY": (36, 2.28),
    "RG3_JPLY": (48, 1.77),
    "XA1_JPLY": (116, 2.17),
}
WITHOUT_TWIN = ("RG2_JPLY", "VL6_J2KI")
"""Of these the set here has no other version: they are compared with a second decoder."""


def at(name: str) -> Path:
    path = FOLDER / name.partition("_")[2] / name
    if not path.is_file():
        pytest.skip(f"the sample is not at {path}")
    return path


def twin_of(name: str) -> Path:
    image = name.partition("_")[0]
    if image in UNCOMPRESSED:
        return Path(str(get_testdata_file(f"{image}_UNCR.dcm")))
    return at(f"{image}_J2KR" if image == "XA1" else f"{image}_RLE")


def pixels(path: Path) -> NDArray[Any]:
    header = read_dataset(path)
    (frame,) = stored_frames(path, header, read_layout(header), (1,))
    return frame


def test_no_sample_is_forgotten() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"the samples are not at {FOLDER}")
    there = {p.name for folder in FOLDER.iterdir() if folder.is_dir() for p in folder.iterdir()}
    assert there == {*LOSSLESS, *LOSSY, *WITHOUT_TWIN}


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_image_equals_its_twin(name: str) -> None:
    found = pixels(at(name))
    assert np.array_equal(found, pixels(twin_of(name)))
    assert np.ptp(found) > 50


@pytest.mark.parametrize(("name", "largest", "mean"), [(name, *allowed) for name, allowed in LOSSY.items()])
def test_a_lossy_image_differs_from_its_twin_by_no_more_than_stated(name: str, largest: int, mean: float) -> None:
    difference = np.abs(pixels(at(name)).astype(np.int64) - pixels(twin_of(name)))
    assert difference.max() <= largest
    assert 0 < difference.mean() <= mean


@pytest.mark.parametrize("name", [name for name in [*LOSSY, *WITHOUT_TWIN] if name.endswith("JPLY")])
def test_jpeg_of_twelve_bits_has_the_pixels_of_dcmtk(tmp_path: Path, name: str) -> None:
    if not Path("/usr/bin/dcmdjpeg").exists():
        pytest.skip("dcmdjpeg is not installed (package dcmtk)")
    subprocess.run(["/usr/bin/dcmdjpeg", str(at(name)), str(tmp_path / "plain")], check=True, capture_output=True)
    plain = pydicom.dcmread(tmp_path / "plain")
    theirs = np.frombuffer(plain.PixelData, "<u2").reshape(plain.Rows, plain.Columns)
    # DCMTK leaves what overshoots the bits stored; pydicom would cut it off and make black of white.
    assert np.array_equal(pixels(at(name)), np.minimum(theirs, (1 << plain.BitsStored) - 1))


def test_the_lossy_colour_image_without_a_twin_is_the_same_by_a_second_decoder() -> None:
    path = at("VL6_J2KI")
    dataset = pydicom.dcmread(path)
    theirs = {
        plugin: get_decoder(JPEG2000).as_array(dataset, decoding_plugin=plugin)[0]
        for plugin in get_decoder(JPEG2000).available_plugins
    }
    assert len(theirs) > 1
    for other in theirs.values():
        assert np.abs(pixels(path).astype(int) - other).max() <= 1
