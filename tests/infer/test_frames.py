"""Clips and colour pictures: every way of writing colour, frame times, bounded memory, hostile headers."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.config
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, RLELossless

from pacsnode.errors import Permanent
from pacsnode.infer.frames import evenly_spaced, read_clip, read_frames
from tests.infer.bundles import gradient, image, saved

BARS = [(255, 0, 0), (255, 128, 128), (0, 255, 0), (128, 255, 128), (0, 0, 255), (128, 128, 255), (0, 0, 0)]
"""What pydicom's colour samples show, ten rows each."""
ROOT = Path(__file__).resolve().parents[2]


def pydicom_file(name: str) -> Path:
    return Path(str(get_testdata_file(name)))


def bars_of(name: str, frame: int = 0) -> NDArray[Any]:
    return np.asarray(read_frames(pydicom_file(name)).pixels[frame, 5:75:10, 50].astype(int))


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb.dcm",
        "SC_rgb_rle.dcm",
        "SC_rgb_16bit.dcm",
        "SC_rgb_rle_16bit.dcm",
        "SC_rgb_32bit.dcm",
        "SC_rgb_rle_32bit.dcm",
        "SC_rgb_expb.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "SC_rgb_gdcm2k_uncompressed.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "SC_rgb_dcmtk_+eb+cr.dcm",
    ],
)
def test_colours_are_exact_where_nothing_was_lost(name: str) -> None:
    assert bars_of(name).tolist() == [list(c) for c in BARS]


@pytest.mark.parametrize(
    "name",
    [
        "SC_ybr_full_uncompressed.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "SC_rgb_dcmtk_+eb+cy+n1.dcm",
        "SC_rgb_dcmtk_+eb+cy+n2.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_rgb_dcmtk_+eb+cy+s2.dcm",
        "SC_rgb_dcmtk_+eb+cy+s4.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_jpeg_lossy_gdcm.dcm",
        "SC_rgb_jls_lossy_line.dcm",
        "SC_rgb_jls_lossy_sample.dcm",
    ],
)
def test_luminance_and_chrominance_become_red_green_and_blue(name: str) -> None:
    assert np.abs(bars_of(name) - np.array(BARS)).max() <= 5


@pytest.mark.parametrize("name", ["SC_rgb_2frame.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_rle_16bit_2frame.dcm"])
def test_the_second_frame_is_the_negative_of_the_first_in_pydicoms_samples(name: str) -> None:
    assert bars_of(name, 1).tolist() == [[255 - v for v in c] for c in BARS]


def test_a_palette_is_looked_up() -> None:
    name = "examples_palette.dcm"
    dataset = pydicom.dcmread(pydicom_file(name))
    tables = []
    for colour in ("Red", "Green", "Blue"):
        entries, first, bits = dataset[f"{colour}PaletteColorLookupTableDescriptor"].value
        kind = "<u2" if bits == 16 else "u1"
        table = np.frombuffer(dataset[f"{colour}PaletteColorLookupTableData"].value, kind)[: entries or 1 << 16]
        assert first == 0
        tables.append((table >> (bits - 8)).astype(np.uint8))
    stored = np.frombuffer(dataset.PixelData, f"<u{dataset.BitsAllocated // 8}")[: dataset.Rows * dataset.Columns]
    expected = np.stack([table[stored] for table in tables], axis=-1).reshape(dataset.Rows, dataset.Columns, 3)
    found = read_frames(pydicom_file(name))
    assert np.array_equal(found.pixels[0], expected)
    assert found.clip.is_colour


def test_a_segmented_palette_of_an_ultrasound_is_read() -> None:
    found = read_frames(pydicom_file("gdcm-US-ALOKA-16.dcm"))
    assert found.pixels.shape == (1, 480, 640, 3)
    colours = len(np.unique(found.pixels.reshape(-1, 3), axis=0))
    assert colours > 50


def test_a_segmented_palette_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    dataset = image(gradient(32, 48, "uint8", 100), PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        segments = np.tile(np.array([1, 65_535, 7], dtype="<u2"), 10_000)
        setattr(dataset, f"Segmented{colour}PaletteColorLookupTableData", segments.tobytes())
    assert "segmented palette" in refusal(saved(dataset, tmp_path / "bomb.dcm"))


# --- clips


def clip(path: Path, frames: int = 12, *, syntax: Any = None, **attributes: Any) -> Path:
    """A grey clip of 32 x 48 pixels: each frame is 10 brighter than the one before."""
    dataset = image(gradient(32, 48, "uint8", 100), **({"Modality": "US"} | attributes))
    base = gradient(32, 48, "uint8", 100)
    dataset.NumberOfFrames = frames
    dataset.PixelData = b"".join((base + 10 * n).astype("uint8").tobytes() for n in range(frames))
    if syntax is not None:
        dataset.compress(syntax, generate_instance_uid=False)
    with pydicom.config.disable_value_validation():
        return saved(dataset, path)


@pytest.mark.parametrize("syntax", [None, RLELossless], ids=["plain", "RLE"])
def test_some_frames_of_a_clip_are_those_of_the_whole(tmp_path: Path, syntax: Any) -> None:
    path = clip(tmp_path / "clip.dcm", syntax=syntax)
    whole = read_frames(path)
    assert whole.pixels.shape == (12, 32, 48)
    assert whole.pixels.dtype == np.float32
    assert (whole.pixels.min(), whole.pixels.max()) == (0, 1)
    means = whole.pixels.mean(axis=(1, 2))
    assert (np.diff(means) > 0).all()
    some = read_frames(path, [9, 2, 2])
    assert some.numbers == (2, 9)
    assert np.array_equal(some.pixels, whole.pixels[[1, 8]])


@pytest.mark.parametrize("syntax", ["RLE", "big_endian", "jpeg_2k_lossless", "jpeg_ls_lossless"])
def test_each_frame_of_a_compressed_mr_equals_its_plain_twin(syntax: str) -> None:
    found, plain = read_frames(pydicom_file(f"emri_small_{syntax}.dcm")), read_frames(pydicom_file("emri_small.dcm"))
    assert found.pixels.shape == (10, 64, 64)
    assert np.array_equal(found.pixels, plain.pixels)


def test_a_clip_in_monochrome1_is_turned(tmp_path: Path) -> None:
    plain = read_frames(clip(tmp_path / "a.dcm")).pixels
    turned = read_frames(clip(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1")).pixels
    assert np.allclose(plain, 1 - turned, atol=0.02)


@pytest.mark.parametrize(
    ("attributes", "times"),
    [
        ({"FrameTime": "40"}, [0.04 * n for n in range(12)]),
        ({"CineRate": "25"}, [0.04 * n for n in range(12)]),
        ({"RecommendedDisplayFrameRate": "50"}, [0.02 * n for n in range(12)]),
        ({"FrameTimeVector": [0, *[100] * 11]}, [0.1 * n for n in range(12)]),
        ({"FrameTimeVector": [0, *[100] * 5], "FrameTime": "40"}, [0.04 * n for n in range(12)]),
        ({"FrameTimeVector": [0, *[-100] * 11]}, None),
        ({"FrameTimeVector": [0, "nan", *[100] * 10]}, None),
        ({"FrameTime": "0"}, None),
        ({"FrameTime": "nan"}, None),
        ({}, None),
    ],
)
def test_frames_are_timed_where_the_header_says_so(
    tmp_path: Path, attributes: dict[str, Any], times: list[float] | None
) -> None:
    with pydicom.config.disable_value_validation():
        found = read_clip(clip(tmp_path / "clip.dcm", **attributes)).times_s
    assert found == (None if times is None else pytest.approx(times))


def test_a_single_colour_picture_is_a_clip_of_one_frame() -> None:
    found = read_clip(pydicom_file("examples_rgb_color.dcm"))
    assert (found.frames, found.rows, found.columns, found.is_colour) == (1, 240, 320, True)


@given(count=st.integers(1, 500), most=st.integers(1, 600))
def test_evenly_spaced_frames_are_few_rising_and_reach_from_end_to_end(count: int, most: int) -> None:
    numbers = evenly_spaced(count, most)
    assert len(numbers) == min(count, most)
    assert numbers[0] == 1 and numbers[-1] <= count
    assert most < 2 or numbers[-1] == count
    assert list(numbers) == sorted(set(numbers))


# --- refusals


def refusal(path: Path) -> str:
    with pytest.raises(Permanent) as caught:
        read_frames(path)
    text = str(caught.value)
    assert len(text) < 400 and "\n" not in text
    return text


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"NumberOfFrames": 13}, "the pixels cannot be decoded (Explicit VR Little Endian): the file is shorter"),
        ({"NumberOfFrames": 2_000_000_000}, "a clip of 2000000000 frames is longer than the node reads"),
        ({"NumberOfFrames": 0}, "the object has an impossible number of frames"),
        ({"NumberOfFrames": -1}, "the object has an impossible number of frames"),
        (
            {"NumberOfFrames": 200_000, "Rows": 10_000, "Columns": 10_000},
            "200000 frames of 10000 x 10000 pixels are more",
        ),
        ({"Rows": 65_535, "Columns": 65_535}, "an image of 65535 x 65535 pixels cannot be read"),
        ({"BitsAllocated": 64_000}, "the pixels cannot be decoded"),
        ({"SamplesPerPixel": 3}, "the node reads grey, palette, RGB and YBR images, this one is of MONOCHROME2 with 3"),
        (
            {"PhotometricInterpretation": "CMYK"},
            "the node reads grey, palette, RGB and YBR images, this one is of CMYK",
        ),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "the image has a damaged palette"),
    ],
)
def test_a_hostile_header_is_refused_with_a_sentence(tmp_path: Path, attributes: dict[str, Any], sentence: str) -> None:
    dataset = pydicom.dcmread(clip(tmp_path / "clip.dcm"))
    with pydicom.config.disable_value_validation():
        for keyword, new in attributes.items():
            setattr(dataset, keyword, new)
        assert refusal(saved(dataset, tmp_path / "hostile.dcm")).startswith(sentence)


def test_fewer_compressed_frames_than_announced_are_refused(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(clip(tmp_path / "clip.dcm", syntax=RLELossless))
    dataset.NumberOfFrames = 40
    assert refusal(saved(dataset, tmp_path / "hostile.dcm")).startswith("the pixels cannot be decoded (RLE Lossless)")


def test_a_video_is_refused_by_its_name(tmp_path: Path) -> None:
    dataset = image(gradient(32, 48, "uint8", 100))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.102")
    dataset.PixelData = encapsulate([b"\0" * 100])
    dataset["PixelData"].VR = "OB"
    assert refusal(saved(dataset, tmp_path / "video.dcm")).startswith("the object is a video (MPEG)")


def jpeg_2000_of(rows: int, columns: int) -> bytes:
    """The start of a codestream that announces so many pixels."""
    size = (0, columns, rows, 0, 0, columns, rows, 0, 0)
    body = b"\0\0" + b"".join(v.to_bytes(4, "big") for v in size[1:]) + b"\0\1\7\1\1"
    return b"\xff\x4f\xff\x51" + (len(body) + 2).to_bytes(2, "big") + body + b"\xff\xd9"


def jpeg_of(rows: int, columns: int) -> bytes:
    frame = b"\x08" + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + b"\x01\x01\x11\x00"
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    return b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0" + (len(frame) + 2).to_bytes(2, "big") + frame + scan + b"\xff\xd9"


@pytest.mark.parametrize(
    ("syntax", "encoded"),
    [
        ("1.2.840.10008.1.2.4.90", jpeg_2000_of(60_000, 60_000)),
        ("1.2.840.10008.1.2.4.201", jpeg_2000_of(60_000, 60_000)),
        ("1.2.840.10008.1.2.4.90", b"\0\0\0\x0cjP  \r\n\x87\n" + jpeg_2000_of(60_000, 60_000)),
        (JPEGBaseline8Bit, jpeg_of(60_000, 60_000)),
        ("1.2.840.10008.1.2.4.70", jpeg_of(60_000, 60_000).replace(b"\xff\xc0", b"\xff\xc3")),
        ("1.2.840.10008.1.2.4.80", jpeg_of(60_000, 60_000).replace(b"\xff\xc0", b"\xff\xf7")),
    ],
)
def test_a_bomb_inside_the_compressed_data_is_refused_before_decoding(
    tmp_path: Path, syntax: str, encoded: bytes
) -> None:
    dataset = image(gradient(32, 48, "uint8", 100))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.PixelData = encapsulate([encoded])
    dataset["PixelData"].VR = "OB"
    text = refusal(saved(dataset, tmp_path / "bomb.dcm"))
    assert "the compressed image has 60000 x 60000 pixels, the header says otherwise" in text


def test_a_long_clip_is_read_within_the_memory_of_the_frames_that_are_asked_for(tmp_path: Path) -> None:
    """2000 frames of 512 x 512 lie in a file of 500 MB; eight of them are read within 100 MB more than at the start."""
    dataset = image(gradient(512, 512, "uint8", 100), Modality="US")
    dataset.NumberOfFrames = 2000
    frame = dataset.PixelData
    dataset.PixelData = b""
    path = saved(dataset, tmp_path / "long.dcm")
    with path.open("r+b") as file:
        file.seek(-4, 2)
        file.write((2000 * len(frame)).to_bytes(4, "little"))
        for _ in range(2000):
            file.write(frame)
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from pacsnode.infer.frames import evenly_spaced, read_frames\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = read_frames(Path(sys.argv[1]), evenly_spaced(2000, 8))\n"
        "print(found.pixels.shape, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    shape, _, more_kb = done.stdout.strip().rpartition(" ")
    assert shape == "(8, 512, 512)"
    assert int(more_kb) < 100_000, resource.getpagesize()


@pytest.mark.parametrize("name", ["SC_rgb_rle_2frame.dcm", "examples_palette.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_but_never_a_crash(name: str, tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(pydicom_file(name).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(128, min(len(raw), 4000) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(raw)
    try:
        found = read_frames(path)
    except Permanent as refused:
        assert str(refused)
    else:
        assert found.pixels.shape[0] == len(found.numbers) == found.clip.frames
