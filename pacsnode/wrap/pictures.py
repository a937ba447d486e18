"""PNG, JPEG and TIFF files to pixels, as far as a DICOM object may hold them.

In: one file of a person, which may be hostile. Out: its pixels as they are: 8 or 16 bits grey or 8 bits colour,
upright, without alpha; and the JPEG stream where it can go into the object unchanged. Never takes over a word of what
is written around the pixels (EXIF, XMP, comments, colour profiles, file names), never makes an array before its size is
known.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pacsnode.errors import Permanent
from pacsnode.infer.headers import DAMAGED, one_line
from pacsnode.wrap.jpeg import Baseline, baseline

MAXIMUM_PIXELS = 80_000_000
LONGEST_SIDE = 65_535
"""Rows and Columns are US (PS3.6)."""
MAXIMUM_FILE_BYTES = 512 * 1024 * 1024

_FORMATS = ("PNG", "JPEG", "TIFF")
_BROKEN = (*DAMAGED, SyntaxError, MemoryError)
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES = 258, 262, 277  # TIFF 6.0
_WHITE_IS_ZERO = 0
_TIFF_LOSSLESS = {"raw", "tiff_ccitt", "group3", "group4", "tiff_lzw", "tiff_raw_16", "packbits"}
_TIFF_LOSSLESS |= {"tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd"}
_TIFF_JPEG = {"jpeg", "tiff_jpeg"}
_TOO_LARGE = f"it says more pixels than the {MAXIMUM_PIXELS // 1_000_000} million that are read"


@dataclass(frozen=True)
class Picture:
    """One picture. `pixels`: (rows, columns) uint8 or uint16, 0 is black; or (rows, columns, 3) uint8 RGB.

    `lossy_bytes` is the size of the JPEG file that the pixels came from, 0 where it is lossless. `jpeg` decodes to
    `pixels`. `notes` are what was changed, for the object and for the person.
    """

    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    format: str
    lossy_bytes: int
    jpeg: Baseline | None
    notes: tuple[str, ...]

    @property
    def is_grey(self) -> bool:
        """Whether there is one value a pixel."""
        return self.pixels.ndim == 2


def read_picture(path: Path) -> Picture:
    """The one picture of a file. Raises Permanent with the reason where it holds none that can be wrapped."""
    if path.stat().st_size > MAXIMUM_FILE_BYTES:
        raise Permanent(f"the file is larger than {MAXIMUM_FILE_BYTES >> 20} MB")
    content = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(BytesIO(content), formats=_FORMATS) as image:
                return _read(image, content)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise Permanent(_TOO_LARGE) from None
        except UnidentifiedImageError:
            raise Permanent("it is no PNG, JPEG or TIFF picture") from None
        except _BROKEN as error:
            raise Permanent(f"the picture is damaged: {one_line(error)}") from error


def _read(image: Image.Image, content: bytes) -> Picture:
    if image.width * image.height > MAXIMUM_PIXELS:
        raise Permanent(_TOO_LARGE)
    if max(image.size) > LONGEST_SIDE:
        raise Permanent(f"a side is longer than the {LONGEST_SIDE} pixels that DICOM can say")
    kind = "JPEG" if image.format == "MPO" else str(image.format)  # what some telephones write: several JPEG in one
    if kind != "JPEG" and _has_more(image):
        raise Permanent("the file holds several pictures; save them one by one")
    _refuse_deep_colour(image, content)
    lossy = kind == "JPEG" or _is_jpeg_inside(image)
    turned = _is_turned(image)
    inverted = kind == "TIFF" and _is_inverted(image)
    image.load()
    turned = turned or _is_turned(image)  # a PNG may say it behind its pixels; Pillow turns a TIFF as it loads it
    pixels, notes = _pixels(ImageOps.exif_transpose(image))
    if inverted:
        np.bitwise_not(pixels, out=pixels)
        notes.append("white is zero in the file: values turned round")
    if turned:
        notes.append("turned upright as its EXIF orientation says")
    stream = None if turned or kind != "JPEG" else _same_stream(content, pixels)
    return Picture(pixels, kind, len(content) if lossy else 0, stream, tuple(notes))


def _is_turned(image: Image.Image) -> bool:
    return image.getexif().get(_ORIENTATION, 1) in range(2, 9)


def _has_more(image: Image.Image) -> bool:
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _refuse_deep_colour(image: Image.Image, content: bytes) -> None:
    """Pillow would cut these to 8 bits without a word."""
    if image.format == "PNG":  # bit depth and colour type in IHDR
        deep = content[24] == 16 and content[25] != 0
    else:
        tags = getattr(image, "tag_v2", {})
        deep = max(tags.get(_BITS_PER_SAMPLE, (8,))) > 8 and tags.get(_SAMPLES, 1) > 1
    if deep:
        raise Permanent("it has 16 bits for each colour; save it as 8 bit colour, or as 16 bit grey")


def _is_jpeg_inside(image: Image.Image) -> bool:
    """Whether a TIFF is compressed with loss. Raises Permanent for a compression that we do not know."""
    if image.format != "TIFF":
        return False
    compression = str(image.info.get("compression", "raw"))
    if compression not in _TIFF_LOSSLESS | _TIFF_JPEG:
        raise Permanent("the TIFF is compressed in a way that is not read; save it as PNG")
    return compression in _TIFF_JPEG


def _is_inverted(image: Image.Image) -> bool:
    """Whether zero is white and Pillow leaves it so, which it does for more than 8 bits."""
    return image.mode.startswith("I") and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _pixels(image: Image.Image) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], list[str]]:
    """The values of a picture, and what was left out."""
    notes = []
    if image.has_transparency_data:
        notes.append("transparency left out")
    mode = image.mode
    if mode.startswith("I"):
        return _sixteen_bits(np.asarray(image)), notes
    if mode in ("L", "RGB"):
        return np.asarray(image), notes
    if mode in ("1", "LA"):
        # The first band, and not a conversion: that would blend with what is behind.
        return np.asarray(image.convert("L") if mode == "1" else image.getchannel(0)), notes
    if mode in ("RGBA", "RGBX"):
        return np.asarray(image)[..., :3], notes
    if mode in ("P", "PA", "YCbCr"):
        return np.asarray(image.convert("RGBA"))[..., :3] if "P" in mode else np.asarray(image.convert("RGB")), notes
    raise Permanent(f"its colours ({mode}) are not read; save it as RGB or grey")


def _sixteen_bits(values: NDArray[np.generic]) -> NDArray[np.uint16]:
    if values.dtype.itemsize > 2 and (int(np.min(values)) < 0 or int(np.max(values)) > 0xFFFF):
        raise Permanent("its values do not fit into 16 bits without sign")
    return values.astype(np.uint16)


def _same_stream(content: bytes, pixels: NDArray[np.generic]) -> Baseline | None:
    """The JPEG stream without its metadata, where it still decodes to the same pixels."""
    stream = baseline(content)
    if stream is None:
        return None
    try:
        with Image.open(BytesIO(stream.stream), formats=("JPEG",)) as image:
            return stream if np.array_equal(np.asarray(image), pixels) else None
    except _BROKEN:
        return None  # decodes only with what was left out


def is_colourless(pixels: NDArray[np.generic]) -> bool:
    """Whether a colour picture, (rows, columns, 3), has only greys in it."""
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The brightness of a colour picture (ITU-R BT.601), (rows, columns)."""
    return np.asarray(Image.fromarray(pixels).convert("L"))
