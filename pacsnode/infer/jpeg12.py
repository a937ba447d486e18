"""JPEG Extended with 12 bits a sample (1.2.840.10008.1.2.4.51), decoded by GDCM: a plugin of pydicom's decoder.

pydicom's own plugin refuses more than 8 bits, although GDCM decodes them: on the samples of NEMA WG04 its pixels equal
those of DCMTK's dcmdjpeg. In: one encoded frame. Out: its samples. Never used for 8 bits.
"""

from __future__ import annotations

import gdcm
import numpy as np
from pydicom.pixels.decoders import JPEGExtended12BitDecoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import JPEGExtended12Bit

LABEL = "gdcm-12-bit"
PRECISION = 12
"""Bits of a sample in the compressed data."""
DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("gdcm>=3.0.24",)}
"""pydicom reads this name of a plugin's module, and the next one."""


def is_available(uid: str) -> bool:
    """Whether this module decodes the transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def register() -> None:
    """Tell pydicom of this decoder, once a process."""
    if LABEL not in JPEGExtended12BitDecoder.available_plugins:
        JPEGExtended12BitDecoder.add_plugin(LABEL, (__name__, "decode_frame"))


def decode_frame(encoded: bytes, runner: DecodeRunner) -> bytes:
    """The samples of one grey frame, 16 bits each, little endian."""
    if runner.samples_per_pixel != 1 or runner.bits_allocated != 16:
        raise NotImplementedError("12-bit JPEG is read in grey with 16 bits allocated only")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(encoded)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(JPEGExtended12Bit))))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, PRECISION, PRECISION - 1, runner.pixel_representation))
    # GDCM gives its buffer as text.
    decoded = image.GetBuffer().encode("utf-8", "surrogateescape")
    if runner.pixel_representation == 0 and runner.bits_stored < PRECISION:
        # Lossy samples may overshoot what the pixel stores; cutting off their high bits would turn white into black.
        decoded = np.minimum(np.frombuffer(decoded, "<u2"), (1 << runner.bits_stored) - 1).astype("<u2").tobytes()
    return bytes(decoded)
