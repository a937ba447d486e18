"""Objects in another transfer syntax: the same UID, the same values, the same pixels, or a reason."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from pacsnode.errors import Permanent
from pacsnode.infer.converting import convert

TARGETS = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def sample(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    if not found:
        pytest.skip(f"pydicom's {name} is not here")
    return Path(str(found))


def read(path: Path) -> pydicom.FileDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path)


@pytest.mark.parametrize("target", TARGETS, ids=["explicit", "implicit"])
@pytest.mark.parametrize(
    "name",
    [
        "JPEG-LL.dcm",  # lossless JPEG, MR
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "emri_small_RLE.dcm",  # 10 frames
        "SC_rgb_rle.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",  # lossy: what is decoded is kept as decoded
        "JPEG2000.dcm",
        "CT_small.dcm",
        "image_dfl.dcm",
        "MR_small_implicit.dcm",
        "reportsi.dcm",
    ],
)
def test_the_same_values_and_pixels_under_the_same_uid(name: str, target: str, tmp_path: Path) -> None:
    source, made = sample(name), tmp_path / "made.dcm"
    convert(source, target, made)
    before, after = read(source), read(made)
    assert after.file_meta.TransferSyntaxUID == target
    assert after.SOPInstanceUID == before.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID
    pixels = {"PixelData", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"}
    for element in before:
        if element.tag.is_private and target == ImplicitVRLittleEndian:
            continue  # the same bytes; pydicom guesses another VR for some of them
        if element.keyword not in pixels | {"DataSetTrailingPadding"} and element.tag.element:
            assert after[element.tag].value == element.value, element.tag
    if "PixelData" in before:
        decoder = pydicom.pixels.get_decoder(before.file_meta.TransferSyntaxUID) if _is_packed(before) else None
        ours = pydicom.pixels.pixel_array(made, raw=True)
        theirs = decoder.as_array(before, as_rgb=False)[0] if decoder else pydicom.pixels.pixel_array(before, raw=True)
        assert np.array_equal(ours, theirs)
        assert not after["PixelData"].is_undefined_length


def _is_packed(dataset: pydicom.FileDataset) -> bool:
    return bool(dataset.file_meta.TransferSyntaxUID.is_encapsulated)


@pytest.mark.parametrize("target", [JPEG2000Lossless, RLELossless, "1.2.840.10008.1.2.2"])
def test_nothing_is_ever_compressed(target: str, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="would compress"):
        convert(sample("CT_small.dcm"), target, tmp_path / "made.dcm")
    assert not (tmp_path / "made.dcm").exists()


def test_big_endian_is_not_converted(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="does not convert"):
        convert(sample("MR_small_bigendian.dcm"), ExplicitVRLittleEndian, tmp_path / "made.dcm")


def test_a_video_and_damaged_pixels_have_a_reason(tmp_path: Path) -> None:
    packed = read(sample("MR_small_jp2klossless.dcm"))
    packed.Rows = 4000
    packed.save_as(tmp_path / "lying.dcm")
    with pytest.raises(Permanent, match="the header says otherwise"):
        convert(tmp_path / "lying.dcm", ExplicitVRLittleEndian, tmp_path / "made.dcm")
    packed.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.102")
    packed.save_as(tmp_path / "video.dcm")
    with pytest.raises(Permanent, match="video"):
        convert(tmp_path / "video.dcm", ExplicitVRLittleEndian, tmp_path / "made.dcm")


def test_what_is_cut_off_has_a_reason(tmp_path: Path) -> None:
    data = sample("MR_small_RLE.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(data[: len(data) - 3000])
    with pytest.raises(Permanent):
        convert(tmp_path / "cut.dcm", ExplicitVRLittleEndian, tmp_path / "made.dcm")
