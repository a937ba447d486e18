"""What is kept of a picture file, what is left behind, what is refused: PNG, JPEG, TIFF as programs write them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.encaps import generate_frames

from pacsnode.errors import Permanent
from pacsnode.wrap.pictures import MAXIMUM_PIXELS, read_picture
from tests.wrap.sources import COLON, DX, OP, errors_of_dciodvfy, only, reason, wrapped

PHI = "Hong Gildong 610305"


def colours(rows: int = 40, columns: int = 56) -> Image.Image:
    image = Image.new("RGB", (columns, rows), (180, 60, 40))
    ImageDraw.Draw(image).ellipse((5, 9, 40, 30), fill=(30, 200, 90))
    return image


def greys(dtype: type[np.generic] = np.uint8, rows: int = 40, columns: int = 57) -> NDArray[Any]:
    top = np.iinfo(dtype).max  # type: ignore[type-var]  # numpy's own signature
    return np.linspace(0, top, rows * columns).reshape(rows, columns).astype(dtype)


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_stay_sixteen_bits(name: str, tmp_path: Path) -> None:
    values = greys(np.uint16)
    outcome = wrapped(saved(Image.fromarray(values), tmp_path / name), DX, tmp_path / "out")
    dataset = only(outcome)
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, 16, 15)
    assert (dataset.WindowCenter, dataset.WindowWidth) == (32768, 65536)
    np.testing.assert_array_equal(dataset.pixel_array, values)
    assert errors_of_dciodvfy(outcome.made[0].path) == []


def test_sixteen_bits_do_not_go_into_an_object_of_eight(tmp_path: Path) -> None:
    path = saved(Image.fromarray(greys(np.uint16)), tmp_path / "a.png")
    assert "holds 8" in reason(wrapped(path, OP, tmp_path / "out"))


def test_a_tiff_whose_zero_is_white_is_turned_round(tmp_path: Path) -> None:
    values = greys(np.uint16)
    path = saved(Image.fromarray(values), tmp_path / "a.tif", tiffinfo={262: 0})
    dataset = only(wrapped(path, DX, tmp_path / "out"))
    np.testing.assert_array_equal(dataset.pixel_array, 65535 - values)
    assert "white is zero" in dataset.DerivationDescription


MODES: dict[str, tuple[Callable[[], Image.Image], Callable[[], NDArray[Any]]]] = {
    "RGBA": (lambda: _with_alpha(colours()), lambda: np.asarray(colours())),
    "P": (lambda: colours().quantize(8), lambda: np.asarray(colours().quantize(8).convert("RGB"))),
    "LA": (lambda: _with_alpha(Image.fromarray(greys())), greys),
    "1": (lambda: Image.fromarray(greys() > 99), lambda: (greys() > 99).astype(np.uint8) * 255),
}


def _with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


@pytest.mark.parametrize("mode", MODES)
def test_the_colours_stay_and_transparency_goes(mode: str, tmp_path: Path) -> None:
    made, expected = MODES[mode]
    path = saved(made(), tmp_path / "a.png")
    dataset = only(wrapped(path, COLON, tmp_path / "out"))
    np.testing.assert_array_equal(dataset.pixel_array, expected())
    assert ("transparency left out" in dataset.DerivationDescription) == mode.endswith("A")


def test_a_grey_jpeg_goes_into_a_radiograph_unchanged_and_a_coloured_one_needs_a_word(tmp_path: Path) -> None:
    grey = saved(Image.fromarray(greys()), tmp_path / "grey.jpg")
    dataset = only(wrapped(grey, DX, tmp_path / "1"))
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    content = grey.read_bytes()
    scan, kept = content[content.index(b"\xff\xda") :], frame[frame.index(b"\xff\xda") :]
    assert kept in (scan, scan + b"\0")
    assert dataset.PhotometricInterpretation == "MONOCHROME2"
    coloured = saved(colours(), tmp_path / "colour.jpg")
    assert "--to-grey" in reason(wrapped(coloured, DX, tmp_path / "2"))
    dataset = only(wrapped(coloured, replace(DX, to_grey=True), tmp_path / "3"))
    np.testing.assert_array_equal(dataset.pixel_array, np.asarray(Image.open(coloured).convert("L")))
    assert dataset.LossyImageCompression == "01"


def test_a_grey_jpeg_of_adobe_is_kept_and_one_of_a_telephone_gives_its_first_picture(tmp_path: Path) -> None:
    grey = saved(Image.fromarray(greys()), tmp_path / "a.jpg")
    content = grey.read_bytes()
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
    grey.write_bytes(content[:2] + adobe + content[2:])
    dataset = only(wrapped(grey, DX, tmp_path / "1"))
    assert dataset.file_meta.TransferSyntaxUID.is_encapsulated
    several = saved(colours(), tmp_path / "b.jpg", format="MPO", save_all=True, append_images=[colours(20, 30)])
    dataset = only(wrapped(several, COLON, tmp_path / "2"))
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    assert len(frame) < several.stat().st_size / 1.5
    with Image.open(several) as first:
        np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(frame))), np.asarray(first))


def test_an_orientation_behind_the_pixels_counts_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    path = saved(colours(), tmp_path / "a.png")
    content = path.read_bytes()
    end = content.index(b"IEND") - 4
    path.write_bytes(content[:end] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + content[end:])
    dataset = only(wrapped(path, COLON, tmp_path / "out"))
    assert "turned upright" in dataset.DerivationDescription
    np.testing.assert_array_equal(dataset.pixel_array, np.asarray(colours())[::-1, ::-1])


DECODED: dict[str, dict[str, Any]] = {
    "progressive": {"progressive": True},
    "4:4:4": {"subsampling": 0},
    "RGB": {"keep_rgb": True},
}


@pytest.mark.parametrize("options", DECODED.values(), ids=DECODED)
def test_a_jpeg_that_dicom_has_no_name_for_is_stored_decoded_and_still_called_lossy(
    options: dict[str, Any], tmp_path: Path
) -> None:
    path = saved(colours(), tmp_path / "a.jpg", **options)
    outcome = wrapped(path, COLON, tmp_path / "out")
    dataset = only(outcome)
    assert not dataset.file_meta.TransferSyntaxUID.is_encapsulated
    assert (dataset.LossyImageCompression, dataset.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    np.testing.assert_array_equal(dataset.pixel_array, np.asarray(Image.open(path)))
    assert errors_of_dciodvfy(outcome.made[0].path) == []


def test_a_tiff_that_holds_a_jpeg_is_lossy(tmp_path: Path) -> None:
    path = saved(colours(), tmp_path / "a.tif", compression="jpeg")
    assert only(wrapped(path, COLON, tmp_path / "1")).LossyImageCompression == "01"
    path = saved(colours(), tmp_path / "b.tif", compression="tiff_lzw")
    assert only(wrapped(path, COLON, tmp_path / "2")).LossyImageCompression == "00"


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.png"])
def test_a_picture_is_turned_upright_and_says_so(name: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(colours(), tmp_path / name, exif=exif)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[orientation]  # Image.Transpose
    plain = saved(colours(), tmp_path / f"plain-{name}")
    dataset = only(wrapped(path, COLON, tmp_path / "out"))
    np.testing.assert_array_equal(dataset.pixel_array, np.asarray(Image.open(plain).transpose(Image.Transpose(back))))
    assert "turned upright" in dataset.DerivationDescription


def with_phi(path: Path) -> Path:
    """A picture as a telephone writes it: names in EXIF, comment, XMP, and a thumbnail or text around it."""
    exif = Image.Exif()
    exif[0x010E] = exif[0x013B] = PHI
    if path.suffix == ".png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("Patient", PHI)
        return saved(colours(), path, exif=exif, pnginfo=info)
    if path.suffix == ".tif":
        return saved(colours(), path, tiffinfo={270: PHI, 315: PHI})
    saved(colours(), path, exif=exif, comment=PHI, xmp=PHI.encode())
    path.write_bytes(path.read_bytes() + PHI.encode())  # behind the image, as some cameras have their notes
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_nothing_that_is_written_around_the_pixels_is_copied(name: str, tmp_path: Path) -> None:
    path = with_phi(tmp_path / name)
    assert PHI.encode() in path.read_bytes()
    outcome = wrapped(path, COLON, tmp_path / "out")
    dataset = only(outcome)
    assert dataset.file_meta.TransferSyntaxUID.is_encapsulated == (name == "a.jpg")
    content = outcome.made[0].path.read_bytes()
    assert b"Gildong 61" not in content and b"Exif" not in content
    if name == "a.jpg":
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(frame))), np.asarray(Image.open(path)))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(columns: int, rows: int, depth: int = 8, colour: int = 0, data: bytes = b"\0") -> bytes:
    header = struct.pack(">IIBBBBB", columns, rows, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def tiff(columns: int, rows: int, **more: int) -> bytes:
    """A bare little-endian TIFF, 8 bits grey, whose strip is not there."""
    tags = {256: columns, 257: rows, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: rows, 279: columns * rows % 2**32}
    tags |= {int(tag[1:]): value for tag, value in more.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0)


def truncated(kind: str) -> bytes:
    buffer = BytesIO()
    colours(200, 300).save(buffer, kind)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


def pages() -> bytes:
    buffer = BytesIO()
    colours().save(buffer, "TIFF", save_all=True, append_images=[colours()])
    return buffer.getvalue()


def cmyk() -> bytes:
    buffer = BytesIO()
    colours().convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "bomb.png": (png(60_000, 60_000, data=b"\0" * 1_000_000), "million"),
    "just above.png": (png(10_000, MAXIMUM_PIXELS // 10_000 + 1), "million"),
    "long.png": (png(70_000, 100), "65535"),
    "endless.png": (png(2**31 - 1, 2**31 - 1), "million"),
    "bomb.tif": (tiff(50_000, 50_000), "million"),
    "huge.tif": (tiff(2**32 - 1, 2**32 - 1), "million"),
    "empty strip.tif": (tiff(900, 900), "damaged"),
    "strange compression.tif": (tiff(9, 9, t259=34925), "damaged"),
    "unknown compression.tif": (tiff(9, 9, t259=50001), "compressed in a way"),
    "zero.png": (png(0, 0), ""),
    "cut.jpg": (truncated("JPEG"), "damaged"),
    "cut.png": (truncated("PNG"), "damaged"),
    "cut.tif": (truncated("TIFF"), "damaged"),
    "pages.tif": (pages(), "several pictures"),
    "cmyk.jpg": (cmyk(), "CMYK"),
    "deep colour.png": (png(2, 2, 16, 2, b"\0" * 26), "16 bits for each colour"),
    "deep grey with alpha.png": (png(2, 2, 16, 4, b"\0" * 18), "16 bits for each colour"),
    "a page.html": (b"<html>", "no PNG, JPEG or TIFF"),
    "empty.png": (b"", "no PNG, JPEG or TIFF"),
    "a.gif": (b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;", "no PNG, JPEG or TIFF"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_picture_is_refused_with_its_reason_and_the_others_go_on(name: str, tmp_path: Path) -> None:
    content, expected = HOSTILE[name]
    bad, good = tmp_path / name, saved(colours(), tmp_path / "z.png")
    bad.write_bytes(content)
    outcome = wrapped([bad, good], COLON, tmp_path / "out")
    assert [made.source for made in outcome.made] == [good]
    ((path, why),) = outcome.failed
    assert path == bad
    assert expected in why
    assert [p.name for p in (tmp_path / "out").iterdir()] == [outcome.made[0].path.name]


def test_a_damaged_jpeg_never_goes_into_an_object_as_it_is(tmp_path: Path) -> None:
    """Every cut and many flipped bytes: refused, or an object whose stream decodes."""
    whole = saved(colours(), tmp_path / "a.jpg").read_bytes()
    random = np.random.default_rng(5)
    variants = [whole[:n] for n in range(0, len(whole), 37)]
    for at in random.integers(2, len(whole), 150):
        variants.append(whole[:at] + bytes([random.integers(256)]) + whole[at + 1 :])
    for content in variants:
        path = tmp_path / "b.jpg"
        path.write_bytes(content)
        try:
            picture = read_picture(path)
        except Permanent:
            continue
        if picture.jpeg is not None:
            decoded = np.asarray(Image.open(BytesIO(picture.jpeg.stream)))
            np.testing.assert_array_equal(decoded, picture.pixels)


def test_a_missing_file_is_told_like_any_other(tmp_path: Path) -> None:
    outcome = wrapped(tmp_path / "gone.png", COLON, tmp_path / "out")
    assert reason(outcome) == "No such file or directory"


def test_pydicom_shows_the_colours_of_an_encapsulated_jpeg(tmp_path: Path) -> None:
    path = saved(colours(), tmp_path / "a.jpg", quality=95)
    dataset = only(wrapped(path, COLON, tmp_path / "out"))
    assert dataset.PhotometricInterpretation == "YBR_FULL_422"
    shown = pydicom.dcmread(next((tmp_path / "out").iterdir())).pixel_array.astype(int)
    assert abs(shown - np.asarray(Image.open(path)).astype(int)).max() <= 2  # its own conversion rounds otherwise
