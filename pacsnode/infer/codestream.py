"""The size that an encoded frame says of itself, so that it is compared with the header's before a decoder believes it.

In: one encoded frame (JPEG, JPEG-LS, JPEG 2000, HTJ2K). Out: rows and columns, None where it does not say. Never
decodes.
"""

from __future__ import annotations

import struct

_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_FRAME_HEADERS = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
"""Start of frame of each JPEG process (ITU-T T.81 table B.1), and of JPEG-LS (ITU-T T.87)."""
_ALONE = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
"""Markers without a length."""


def size(encoded: bytes) -> tuple[int, int] | None:
    """(rows, columns) of the picture in `encoded`."""
    if encoded.startswith(_JP2_SIGNATURE):
        start = encoded.find(_START_OF_CODESTREAM, 0, 1 << 16)
        return _jpeg_2000(encoded[start:]) if start >= 0 else None
    if encoded.startswith(_START_OF_CODESTREAM):
        return _jpeg_2000(encoded)
    return _jpeg(encoded) if encoded.startswith(b"\xff\xd8") else None


def _jpeg_2000(codestream: bytes) -> tuple[int, int] | None:
    """From the SIZ marker segment (ISO/IEC 15444-1 A.5.1), which comes first."""
    if len(codestream) < 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", codestream, 8)
    return bottom - top, right - left


def _jpeg(encoded: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(encoded):
        if encoded[at] != 0xFF:
            return None
        marker = encoded[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAME_HEADERS:
            rows, columns = struct.unpack_from(">2H", encoded, at + 5)
            return rows, columns
        else:
            at += 2 + int(struct.unpack_from(">H", encoded, at + 2)[0])
    return None
