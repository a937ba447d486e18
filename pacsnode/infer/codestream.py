"""What an encoded frame says of itself, so that it is compared with the header before a decoder believes it.

In: one encoded frame (JPEG, JPEG-LS, JPEG 2000, HTJ2K). Out: its size, samples and bits. Never decodes. Refuses a JPEG
whose headers are damaged: GDCM, the only free decoder of lossless and of 12-bit JPEG, ends the process on such.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_START_OF_JPEG = b"\xff\xd8"
_FRAME_HEADERS = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
"""Start of frame of each JPEG process (ITU-T T.81 table B.1), and of JPEG-LS (ITU-T T.87)."""
_START_OF_SCAN = 0xDA


@dataclass(frozen=True)
class Said:
    """`bits`: of a sample."""

    rows: int
    columns: int
    samples: int
    bits: int


def read(encoded: bytes) -> Said | None:
    """What is said in `encoded`; None where it is none of these codes. Raises ValueError where it is damaged."""
    if encoded.startswith(_JP2_SIGNATURE):
        start = encoded.find(_START_OF_CODESTREAM, 0, 1 << 16)
        return _jpeg_2000(encoded[start:] if start >= 0 else b"")
    if encoded.startswith(_START_OF_CODESTREAM):
        return _jpeg_2000(encoded)
    return _jpeg(encoded) if encoded.startswith(_START_OF_JPEG) else None


def _jpeg_2000(codestream: bytes) -> Said:
    """From the SIZ marker segment (ISO/IEC 15444-1 A.5.1), which comes first."""
    if len(codestream) < 43:
        raise ValueError("the compressed image is damaged: it ends within its header")
    right, bottom, left, top = struct.unpack_from(">4I", codestream, 8)
    samples, depth = struct.unpack_from(">HB", codestream, 40)
    return Said(bottom - top, right - left, samples, (depth & 0x7F) + 1)


def _jpeg(encoded: bytes) -> Said:
    """From the frame header (ITU-T T.81 B.2.2); every marker segment up to the first scan must be where it should."""
    at = len(_START_OF_JPEG)
    said = None
    while at + 4 <= len(encoded):
        start, marker, length = struct.unpack_from(">BBH", encoded, at)
        if start != 0xFF or marker < 0xC0 or length < 2 or at + 2 + length > len(encoded):
            break
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        body = encoded[at + 4 : at + 2 + length]
        if marker in _FRAME_HEADERS:
            if said is not None or len(body) < 6 or len(body) != 6 + 3 * body[5]:
                break
            bits, rows, columns, samples = struct.unpack_from(">BHHB", body)
            said = Said(rows, columns, samples, bits)
        elif marker == _START_OF_SCAN:
            if said is None:
                break
            return said
        at += 2 + length
    raise ValueError("the compressed image is damaged in its header")
