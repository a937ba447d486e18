"""Stored values of images, frame by frame: grey as stored, colour as RGB of 8 bits, whatever compressed them.

Runs in the compute child only: decoders are fed with what came off the wire. Never trusts a header: what a file says of
itself is checked, also inside the compressed data, before anything of that size is made. Holds one frame at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_color_lut, get_decoder, iter_pixels
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGExtended12Bit

from pacsnode.errors import Permanent
from pacsnode.infer import codestream, jpeg12
from pacsnode.infer.headers import DAMAGED, one_line, read_dataset, value, whole

MAXIMUM_PIXELS = 200_000_000
"""Of one frame."""
MINIMUM_SIDE = 16
LONGEST_SEGMENTED_PALETTE = 1024
"""Bytes; each six of them may stand for 65535 entries (PS3.3 C.7.9.2)."""
PALETTE = "PALETTE COLOR"
COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
"""Photometric Interpretations of three samples that the decoders bring to RGB."""
VIDEO = "1.2.840.10008.1.2.4.10"
"""MPEG-2, MPEG-4 and HEVC: 1.2.840.10008.1.2.4.100 to .108."""

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
    if len(value(header, "SegmentedRedPaletteColorLookupTableData") or b"") > LONGEST_SEGMENTED_PALETTE:
        raise Permanent("the image has a segmented palette that is longer than the node reads")
    return Layout(frames, rows, columns, photometric)


def stored_frames(path: Path, layout: Layout, wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
    """The frames of the numbers `wanted` (from 1, rising): stored grey values, or RGB of 8 bits. Raises Permanent."""
    header = read_dataset(path, with_pixels=False)
    named = syntax(header)
    is_from_memory = _is_encapsulated(header) or syntax_uid(header) == DeflatedExplicitVRLittleEndian
    if is_from_memory:
        dataset = read_dataset(path)
        if not any(k in dataset for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            raise Permanent("the object holds no pixel data")
        frames = _encapsulated(dataset, layout, wanted) if _is_encapsulated(header) else _plain(dataset, wanted)
    else:
        _refuse_short(path, header, layout)
        frames = _plain(path, wanted)
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
    is_jpeg12 = JPEGExtended12Bit == decoder.UID and whole(dataset, "BitsStored", 0) > 8
    plugin = jpeg12.LABEL if is_jpeg12 else ""
    offsets = None
    if "ExtendedOffsetTable" in dataset:
        offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
    encoded = generate_frames(dataset.PixelData, number_of_frames=layout.frames, extended_offsets=offsets)
    remaining = iter(wanted)
    next_wanted = next(remaining, None)
    for number, frame in enumerate(encoded, start=1):
        if next_wanted is None:
            return
        if number == next_wanted:
            said = codestream.size(frame)
            if said is not None and said[0] and said != (layout.rows, layout.columns):
                raise ValueError(f"the compressed image has {said[1]} x {said[0]} pixels, the header says otherwise")
            options = as_pixel_options(dataset) | {"number_of_frames": 1}
            options.pop("extended_offsets", None)
            pixels, _ = decoder.as_array(encapsulate([frame]), index=0, decoding_plugin=plugin, **options)
            yield pixels
            next_wanted = next(remaining, None)
    if next_wanted is not None:
        raise ValueError(f"the object has no frame {next_wanted}, although its header says so")


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
        raise _undecodable(syntax(header), ValueError("the file is shorter than the pixels that its header announces"))


def _is_encapsulated(header: Dataset) -> bool:
    uid = header.file_meta.get("TransferSyntaxUID")
    try:
        return bool(uid and uid.is_encapsulated)
    except ValueError:  # pydicom: no transfer syntax at all
        return False


def syntax_uid(header: Dataset) -> str:
    """Transfer Syntax UID, empty where there is none."""
    return str(header.file_meta.get("TransferSyntaxUID") or "")


def syntax(header: Dataset) -> str:
    """The transfer syntax, for a person."""
    uid = header.file_meta.get("TransferSyntaxUID")
    return str(uid.name) if uid else "no transfer syntax"
