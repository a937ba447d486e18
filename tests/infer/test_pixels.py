"""Images to arrays: sense, scale, spacing, every compression that modalities send, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder
from pydicom.uid import DeflatedExplicitVRLittleEndian, HTJ2KLossless, JPEG2000Lossless, JPEGLSLossless

from pacsnode.errors import Permanent
from pacsnode.infer.pixels import read_image
from tests.infer.bundles import gradient, image, saved, saved_image


def pydicom_file(name: str) -> Path:
    return Path(str(get_testdata_file(name)))


def test_bright_is_dense_in_both_senses(tmp_path: Path) -> None:
    usual = read_image(saved_image(tmp_path, gradient())).intensity
    turned = read_image(saved_image(tmp_path, 4000 - gradient(), PhotometricInterpretation="MONOCHROME1")).intensity
    falling = read_image(saved_image(tmp_path, 4000 - gradient(), RescaleSlope=-1, RescaleIntercept=4000)).intensity
    assert usual.dtype == np.float32
    assert (usual.min(), usual.max()) == (0, 1)
    assert (np.diff(usual, axis=1) >= 0).all()
    assert np.allclose(turned, usual)
    assert np.allclose(falling, usual)


@pytest.mark.parametrize(
    ("dtype", "bits", "top"),
    [("uint8", 8, 255), ("uint16", 12, 4095), ("uint16", 16, 65535), ("int16", 16, 30000), ("uint16", 10, 1023)],
)
def test_the_range_is_found_at_each_bit_depth(tmp_path: Path, dtype: str, bits: int, top: int) -> None:
    pixels = gradient(dtype=dtype, top=top)
    found = read_image(saved_image(tmp_path, pixels, BitsStored=bits)).intensity
    assert np.allclose(found, np.linspace(0, 1, 60)[None], atol=0.02)


def test_signed_values_below_zero_are_dark(tmp_path: Path) -> None:
    found = read_image(saved_image(tmp_path, (gradient(dtype="int16") - 2000).astype("int16"))).intensity
    assert np.allclose(found, np.linspace(0, 1, 60)[None], atol=0.02)


def test_rescale_and_window_change_nothing(tmp_path: Path) -> None:
    plain = read_image(saved_image(tmp_path, gradient())).intensity
    other = saved_image(
        tmp_path, gradient(), RescaleSlope=2.5, RescaleIntercept=-1024, WindowCenter=100, WindowWidth=50
    )
    assert np.array_equal(read_image(other).intensity, plain)


def test_an_overlay_in_the_unused_bits_does_not_set_the_range(tmp_path: Path) -> None:
    pixels = gradient(top=4095)
    pixels[:, ::7] |= 0x8000
    found = read_image(saved_image(tmp_path, pixels, BitsStored=12)).intensity
    assert np.allclose(found, np.linspace(0, 1, 60)[None], atol=0.02)


# --- collimation


def anatomy() -> NDArray[Any]:
    random = np.random.default_rng(1)
    return (1500 + 500 * random.standard_normal((60, 60))).clip(200, 3800).astype("uint16")


@pytest.mark.parametrize("border", [0, 4095])
@pytest.mark.parametrize("width", [1, 20, 200, 900])
def test_a_collimated_border_does_not_change_the_exposed_field(tmp_path: Path, border: int, width: int) -> None:
    inside = anatomy()
    alone = read_image(saved_image(tmp_path, inside)).intensity
    film = np.pad(inside, width, constant_values=border)
    found = read_image(saved_image(tmp_path, film)).intensity[width:-width, width:-width]
    # A wide film is sampled, which moves a percentile a little.
    assert np.abs(found - alone).max() < 0.1
    assert found.std() > 0.15


def test_a_small_structure_on_a_plain_ground_is_not_called_empty(tmp_path: Path) -> None:
    film = np.zeros((400, 400), dtype="uint16")
    film[100, 100] = film[300, 300] = 900
    assert read_image(saved_image(tmp_path, film)).intensity[100, 100] == 1


# --- compression


@pytest.mark.parametrize(
    ("compressed", "twin"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
        ("MR_small_expb.dcm", "MR_small.dcm"),
        ("RG1_J2KR.dcm", "RG1_UNCR.dcm"),
        ("RG3_J2KR.dcm", "RG3_UNCR.dcm"),
    ],
)
def test_lossless_compression_gives_the_same_picture(compressed: str, twin: str) -> None:
    found, plain = read_image(pydicom_file(compressed)), read_image(pydicom_file(twin))
    assert np.array_equal(found.intensity, plain.intensity)


def test_the_decoder_of_high_throughput_jpeg_2000_is_there(tmp_path: Path) -> None:
    """OpenJPEG reads both kinds of code block; it writes only the older one, which stands in for the other here."""
    decoder = get_decoder(HTJ2KLossless)
    if not decoder.is_available:
        pytest.skip(f"HTJ2K cannot be decoded here: {'; '.join(decoder.missing_dependencies)}")
    dataset = image(gradient())
    plain = read_image(saved(dataset, tmp_path / "plain.dcm")).intensity
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
    assert np.array_equal(read_image(saved(dataset, tmp_path / "htj2k.dcm")).intensity, plain)


def test_a_deflated_file_is_read(tmp_path: Path) -> None:
    dataset = image(gradient())
    plain = read_image(saved(dataset, tmp_path / "plain.dcm")).intensity
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert np.array_equal(read_image(saved(dataset, tmp_path / "deflated.dcm")).intensity, plain)


# --- refusals


def refusal(path: Path) -> str:
    with pytest.raises(Permanent) as caught:
        read_image(path)
    text = str(caught.value)
    assert len(text) < 400
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("waveform_ecg.dcm", "the object holds no pixel data"),
        ("rtplan.dcm", "the object holds no pixel data"),
        ("SC_rgb_rle_2frame.dcm", "the service reads single images, this object holds 2 frames"),
        ("SC_rgb_jpeg_dcmtk.dcm", "the service reads grey images, this one is coloured"),
        ("examples_palette.dcm", "the service reads grey images, this one is coloured"),
        ("rtdose_1frame.dcm", "an image of 10 x 10 pixels cannot be read"),
        ("MR_truncated.dcm", "the pixels cannot be decoded"),
        ("no_meta.dcm", "the file is damaged and cannot be read"),
        ("README.txt", "the file is damaged and cannot be read"),
    ],
)
def test_what_is_no_grey_image_is_refused_with_a_sentence(name: str, sentence: str) -> None:
    assert refusal(pydicom_file(name)).startswith(sentence)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"Rows": 60000, "Columns": 60000}, "an image of 60000 x 60000 pixels cannot be read"),
        ({"Rows": 15}, "an image of 60 x 15 pixels cannot be read"),
        ({"Rows": 0}, "an image of 60 x 0 pixels cannot be read"),
        ({"Rows": 41}, "the pixels cannot be decoded"),
        (
            {"PhotometricInterpretation": None},
            "the node reads grey, palette, RGB and YBR images",
        ),
        ({"BitsAllocated": 7}, "the pixels cannot be decoded"),
        ({"BitsAllocated": None}, "the pixels cannot be decoded"),
        ({"PixelData": b""}, "the pixels cannot be decoded"),
        ({"SOPInstanceUID": None}, "the object is damaged: it has no SOP Instance UID"),
    ],
)
def test_an_impossible_header_is_refused_before_decoding(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    dataset = image(gradient())
    for keyword, new in changes.items():
        if new is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, new)
    path = tmp_path / "image.dcm"
    dataset.save_as(path)
    assert refusal(path).startswith(sentence)


def test_a_wrong_transfer_syntax_is_refused(tmp_path: Path) -> None:
    dataset = image(gradient())
    path = saved(dataset, tmp_path / "image.dcm")
    raw = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
    path.write_bytes(raw)
    assert "cannot be" in refusal(path)
    dataset.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00junk"
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    assert refusal(saved(dataset, path)).startswith("the pixels cannot be decoded (JPEG-LS Lossless")


@pytest.mark.parametrize("stored", [0, 1000, 65535])
def test_a_plain_image_is_refused(tmp_path: Path, stored: int) -> None:
    assert "all pixels have the same value" in refusal(saved_image(tmp_path, np.full((50, 50), stored, "uint16")))


def test_a_missing_file_is_no_fault_of_the_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "gone.dcm")


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_but_never_a_crash(name: str, tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(pydicom_file(name).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(128, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 3))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(raw[: len(raw) - 1000 * cut])
    try:
        found = read_image(path).intensity
    except Permanent as refused:
        assert str(refused)
    else:
        assert np.isfinite(found).all()
