"""JPEG streams as DICOM takes them: the compressed image alone, byte for byte, without what a camera wrote around it.

In: the bytes of a JPEG file. Out: the stream that JPEG Baseline (PS3.5 A.4.1) may hold, None where it must be decoded.
Markers: ITU-T T.81 table B.1. Never decodes, and never keeps APPn or COM segments: they hold names, places, thumbnails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

_SOI, _EOI, _SOS, _SOF0, _COM = 0xD8, 0xD9, 0xDA, 0xC0, 0xFE
_JFIF, _ADOBE, _LAST_APP = 0xE0, 0xEE, 0xEF
_TABLES = {0xC4, 0xDB, 0xDD}  # Huffman, quantization, restart interval
_RESTARTS = range(0xD0, 0xD8)
_YCBCR = 1  # Adobe's transform


@dataclass(frozen=True)
class Baseline:
    """A baseline stream of 8 bits from SOI to EOI; `photometric_interpretation` is that of the DICOM object."""

    stream: bytes
    photometric_interpretation: str


class _Frame(NamedTuple):
    photometric_interpretation: str
    is_colour: bool
    in_order: bool  # its components are numbered 1, 2, 3, as JFIF says: YCbCr unless Adobe says otherwise


def baseline(content: bytes) -> Baseline | None:
    """The image of a baseline JPEG with one or three YCbCr components; None for any other, or where it is damaged."""
    if content[:2] != bytes((0xFF, _SOI)):
        return None
    kept, at = bytearray(content[:2]), 2
    frame: _Frame | None = None
    transform = _YCBCR
    while (marker := _marker(content, at)) is not None and marker != _EOI:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        body = content[at + 4 : end]
        if marker == _ADOBE and body[:5] == b"Adobe" and len(body) >= 12:
            transform = body[11]
        elif marker == _SOF0:
            frame = _frame(body)
            if frame is None:
                return None
            kept += content[at:end]
        elif marker in _TABLES:
            kept += content[at:end]
        elif marker == _SOS:
            end = _end_of_scan(content, end)
            kept += content[at:end]
        elif not (_JFIF <= marker <= _LAST_APP or marker == _COM):
            return None  # progressive, lossless, arithmetic, 12 bits
        at = max(end, at + 4)
    if marker is None or frame is None or (frame.is_colour and (transform != _YCBCR or not frame.in_order)):
        return None
    return Baseline(bytes(kept) + bytes((0xFF, _EOI)), frame.photometric_interpretation)


def _marker(content: bytes, at: int) -> int | None:
    return content[at + 1] if at + 1 < len(content) and content[at] == 0xFF else None


def _frame(body: bytes) -> _Frame | None:
    """What a SOF0 segment says, None where DICOM has no name for it (PS3.5 8.2.1)."""
    if len(body) < 6 or body[0] != 8 or len(body) != 6 + 3 * body[5]:
        return None
    components = [body[n : n + 3] for n in range(6, len(body), 3)]
    if len(components) == 1:
        return _Frame("MONOCHROME2", is_colour=False, in_order=True)
    sampling = [component[1] for component in components]
    if len(components) != 3 or sampling[0] not in (0x21, 0x22) or sampling[1:] != [0x11, 0x11]:
        return None
    return _Frame("YBR_FULL_422", is_colour=True, in_order=[component[0] for component in components] == [1, 2, 3])


def _end_of_scan(content: bytes, at: int) -> int:
    """Where the entropy-coded data ends: at the next marker that is no restart."""
    while (at := content.find(0xFF, at)) >= 0 and at + 1 < len(content):
        if content[at + 1] == 0 or content[at + 1] in _RESTARTS:
            at += 2
        elif content[at + 1] == 0xFF:  # fill byte
            at += 1
        else:
            return at
    return len(content)
