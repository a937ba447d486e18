"""Stored values of images, frame by frame: grey as stored, colour as RGB of 8 bits, whatever compressed them.

Runs in the compute child only: decoders are fed with what came off the wire. Never trusts a header: what a file says of
itself is checked, also inside the compressed data, before anything of that size is made. Holds one frame at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_color_lut, get_decoder, iter_pixels
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from pacsnode.errors import Permanent
from pacsnode.infer import codestream, jpeg12
from pacsnode.infer.headers import DAMAGED, one_line, read_dataset, value, whole

MAXIMUM_PIXELS = 200_000_000
"""Of one frame."""
MINIMUM_SIDE = 16
LARGEST_PALETTE = 1 << 16
"""Entries."""
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
PALETTE = "PALETTE COLOR"
DISCRETE, LINEAR = 0, 1
"""Segments of a palette; a third kind repeats others."""
COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
"""Photometric Interpretations of three samples that the decoders bring to RGB."""
VIDEO = "1.2.840.10008.1.2.4.10"
"""MPEG-2, MPEG-4 and HEVC: 1.2.840.10008.1.2.4.100 to .108."""

DECODERS = {
    JPEGBaseline8Bit: ("pillow",),
    JPEGExtended12Bit: ("pillow",),
    JPEGLSLossless: ("pyjpegls", "gdcm"),
    JPEGLSNearLossless: ("pyjpegls", "gdcm"),
    JPEG2000Lossless: ("pylibjpeg",),
    JPEG2000: ("pylibjpeg",),
}
"""pydicom would take GDCM first, which ends the process on some damaged JPEG; these raise. CharLS (pyjpegls) refuses
some JPEG-LS that GDCM reads. Where nothing stands here there is only one: GDCM for lossless JPEG, pydicom for RLE.
"""

jpeg12.register()


@dataclass(frozen=True)
class Layout:
    """What a header says of its pixels, after it was found possible."""

    frames: int
    rows: int
    columns: int
    photometric: str

    @property
    def is_colour(self) -> bool:
        """Whether frames come out as (rows, columns, 3)."""
        return not self.photometric.startswith("MONOCHROME")


def read_layout(header: Dataset) -> Layout:
    """The layout of the pixels. Raises Permanent where it is impossible or nothing that the node reads."""
    if "Rows" not in header and "Columns" not in header:
        raise Permanent("the object holds no pixel data")
    if syntax_uid(header).startswith(VIDEO) and len(syntax_uid(header)) == len(VIDEO) + 1:
        raise Permanent("the object is a video (MPEG); the node reads clips of single frames")
    frames = whole(header, "NumberOfFrames", 1)
    if frames < 1:
        raise Permanent("the object has an impossible number of frames")
    rows, columns = whole(header, "Rows", 0), whole(header, "Columns", 0)
    if rows * columns > MAXIMUM_PIXELS or min(rows, columns) < MINIMUM_SIDE:
        raise Permanent(f"an image of {columns} x {rows} pixels cannot be read")
    photometric = str(value(header, "PhotometricInterpretation") or "")
    samples = whole(header, "SamplesPerPixel", 1)
    is_known = photometric.startswith("MONOCHROME") or photometric == PALETTE
    if not (is_known and samples == 1) and not (photometric in COLOURS and samples == 3):
        told = f"{photometric[:16]} with {samples} values a pixel" if photometric else "unknown colour"
        raise Permanent(f"the node reads grey, palette, RGB and YBR images, this one is of {told}")
    if photometric == PALETTE:
        _refuse_large_palette(header)
    return Layout(frames, rows, columns, photometric)


def _refuse_large_palette(header: Dataset) -> None:
    """Each six bytes of a segmented palette may stand for 65535 entries (PS3.3 C.7.9.2): counted before it is made."""
    descriptor = value(header, "RedPaletteColorLookupTableDescriptor")
    if not isinstance(descriptor, Sequence) or len(descriptor) != 3:
        raise Permanent("the image has a damaged palette")
    order = ">" if syntax_uid(header) == ExplicitVRBigEndian else "<"
    kind = np.dtype("u1" if descriptor[2] == 8 else f"{order}u2")
    for colour in ("Red", "Green", "Blue", "Alpha"):
        data = value(header, f"Segmented{colour}PaletteColorLookupTableData") or b""
        if not isinstance(data, bytes):
            raise Permanent("the image has a damaged palette")
        codes = np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind).tolist()
        entries = at = 0
        while at + 1 < len(codes):
            operation, length = codes[at], codes[at + 1]
            entries += length if operation in (DISCRETE, LINEAR) else LARGEST_PALETTE + 1
            at += 2 + (length if operation == DISCRETE else 1)
        if entries > LARGEST_PALETTE:
            raise Permanent("the image has a segmented palette of a kind that the node does not read")


def stored_frames(path: Path, header: Dataset, layout: Layout, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
    """The frames of the numbers `wanted` (from 1, rising): stored grey values, or RGB of 8 bits. Raises Permanent.

    `header`: of the file at `path`. With its pixels, they are taken from there; without, plain ones stay in the file
    until their turn, and compressed ones are read into memory as they are.
    """
    named = syntax(header)
    frames = _opened(path, header, layout, wanted)
    while True:
        with warnings.catch_warnings():  # around each frame: a generator must not change its consumer's filters
            warnings.simplefilter("ignore")
            try:
                frame = next(frames, None)
                if frame is None:
                    return
                frame = _coloured(frame, header, layout) if layout.is_colour else frame
            except DAMAGED as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the disk, not the data
                raise _undecodable(named, error) from error
        if frame.shape[:2] != (layout.rows, layout.columns):
            raise Permanent(f"the pixels have shape {frame.shape}, the header says {layout.rows} rows")
        yield frame


def _opened(path: Path, header: Dataset, layout: Layout, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
    """The decoders' frames, as they come."""
    is_plain = not _is_encapsulated(header)
    if is_plain and syntax_uid(header) != DeflatedExplicitVRLittleEndian and not _has_pixels(header):
        _refuse_short(path, header, layout)
        return _plain(path, wanted)
    dataset = header if _has_pixels(header) else read_dataset(path)
    if not _has_pixels(dataset):
        raise Permanent("the object holds no pixel data")
    return _plain(dataset, wanted) if is_plain else _encapsulated(dataset, layout, wanted)


def _has_pixels(dataset: Dataset) -> bool:
    return any(keyword in dataset for keyword in PIXELS)


def _undecodable(named: str, error: Exception) -> Permanent:
    said = one_line(error)
    if "no 'Pixel Data'" in said:
        return Permanent("the object holds no pixel data")
    return Permanent(f"the pixels cannot be decoded ({named}): {said}")


def _plain(source: Path | Dataset, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
    frames: Iterator[NDArray[Any]] = iter_pixels(source, indices=[number - 1 for number in wanted])
    return frames


def _encapsulated(dataset: Dataset, layout: Layout, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Each wanted frame by itself: where the offset table is empty, looking one up is a walk from the start."""
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    plugins = plugins_for(dataset)
    encoded = _encoded_frames(dataset, layout)
    remaining = iter(wanted)
    next_wanted = next(remaining, None)
    for number, frame in enumerate(encoded, start=1):
        if next_wanted is None:
            return
        if number == next_wanted:
            _refuse_contradiction(codestream.read(frame), layout, whole(dataset, "BitsAllocated", 0))
            options = as_pixel_options(dataset) | {"number_of_frames": 1}
            options.pop("extended_offsets", None)
            yield _by_first(plugins, decoder, encapsulate([frame]), options)
            next_wanted = next(remaining, None)
    if next_wanted is not None:
        raise ValueError(f"the object has no frame {next_wanted}, although its header says so")


def plugins_for(dataset: Dataset) -> tuple[str, ...]:
    """pydicom's names of the decoders for a compressed data set, the first choice first; "" for the only one."""
    uid = dataset.file_meta.TransferSyntaxUID
    if uid in jpeg12.DECODER_DEPENDENCIES and whole(dataset, "BitsStored", 0) > 8:
        return (jpeg12.LABEL,)
    return DECODERS.get(uid, ("",))


def refuse_contradictions(dataset: Dataset, layout: Layout) -> None:
    """Look into every compressed frame before one is decoded. Raises ValueError where the header says otherwise."""
    count = 0
    for frame in _encoded_frames(dataset, layout):
        _refuse_contradiction(codestream.read(frame), layout, whole(dataset, "BitsAllocated", 0))
        count += 1
    if count != layout.frames:
        raise ValueError(f"the object has {count} frames, although its header says {layout.frames}")


def _encoded_frames(dataset: Dataset, layout: Layout) -> Iterator[bytes]:
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    frames: Iterator[bytes] = generate_frames(
        dataset.PixelData, number_of_frames=layout.frames, extended_offsets=offsets
    )
    return frames


def _by_first(plugins: Sequence[str], decoder: Any, encapsulated: bytes, options: Mapping[str, Any]) -> NDArray[Any]:
    """The frame by the first decoder that reads it; the last one's error where none does."""
    for plugin in plugins[:-1]:
        with suppress(*DAMAGED):
            return np.asarray(decoder.as_array(encapsulated, index=0, decoding_plugin=plugin, **options)[0])
    return np.asarray(decoder.as_array(encapsulated, index=0, decoding_plugin=plugins[-1], **options)[0])


def _refuse_contradiction(said: codestream.Said | None, layout: Layout, bits_allocated: int) -> None:
    """Raises ValueError where the compressed data are not what the header says: decoders write what they are told."""
    if said is None:
        return
    samples = 3 if layout.photometric in COLOURS else 1
    if (said.rows, said.columns) != (layout.rows, layout.columns):
        raise ValueError(f"the compressed image has {said.columns} x {said.rows} pixels, the header says otherwise")
    if said.samples != samples or said.bits > bits_allocated:
        raise ValueError(
            f"the compressed image has {said.samples} samples of {said.bits} bits, the header says otherwise"
        )


def _coloured(frame: NDArray[Any], header: Dataset, layout: Layout) -> NDArray[np.uint8]:
    if layout.photometric == PALETTE:
        frame = apply_color_lut(frame, header)
        bits = 8 * frame.dtype.itemsize
    else:
        bits = whole(header, "BitsStored", 8)
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"a colour image of shape {frame.shape}")
    return (frame >> max(0, bits - 8)).astype(np.uint8)


def _refuse_short(path: Path, header: Dataset, layout: Layout) -> None:
    """A file that is shorter than its pixels: told before room is made for them."""
    bits = whole(header, "BitsAllocated", 0)
    samples = 1 if layout.photometric.startswith(("MONOCHROME", PALETTE)) else 3
    if layout.photometric == "YBR_FULL_422":
        samples = 2
    wanted = layout.frames * layout.rows * layout.columns * samples * bits // 8
    if wanted > path.stat().st_size:
        dataset = read_dataset(path)
        if not any(value(dataset, keyword) for keyword in PIXELS):
            raise Permanent("the object holds no pixel data")
        raise _undecodable(syntax(header), ValueError("the file is shorter than the pixels that its header announces"))


def _is_encapsulated(header: Dataset) -> bool:
    uid = header.file_meta.get("TransferSyntaxUID")
    try:
        return bool(uid and uid.is_encapsulated)
    except (AttributeError, ValueError):  # pydicom: no transfer syntax at all, or several
        return False


def syntax_uid(header: Dataset) -> str:
    """Transfer Syntax UID, empty where there is none."""
    return str(header.file_meta.get("TransferSyntaxUID") or "")


def syntax(header: Dataset) -> str:
    """The transfer syntax, for a person."""
    uid = header.file_meta.get("TransferSyntaxUID")
    return str(getattr(uid, "name", "several")) if uid else "no transfer syntax"
