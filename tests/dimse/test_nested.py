"""Small data sets with sequences: read as pydicom reads them, and nothing from the wire does harm."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacsnode.dimse import nested

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
SERIES, IMAGES, UID = 0x0040_0340, 0x0008_1140, 0x0008_1155
SEQUENCES = frozenset((SERIES, IMAGES))


def encoded(made: Dataset, syntax: str, *, undefined: bool = False) -> bytes:
    if undefined:
        for element in made.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == IMPLICIT
    write_dataset(buffer, made)
    return bytes(buffer.getvalue())


def step(images: int = 3) -> Dataset:
    made = Dataset()
    made.PerformedProcedureStepStatus = "COMPLETED"
    made.PerformedSeriesSequence = [Dataset(), Dataset()]
    for number, series in enumerate(made.PerformedSeriesSequence):
        series.ProtocolName = "CHEST"
        series.ReferencedImageSequence = [Dataset() for _ in range(images)]
        for index, image in enumerate(series.ReferencedImageSequence):
            image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.3", f"1.9.{number}.{index}"
    made.PerformedStationAETitle = "CT1"
    return made


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_every_item_is_found_in_every_encoding(syntax: str, undefined: bool) -> None:
    read = nested.read(encoded(step(), syntax, undefined=undefined), syntax, SEQUENCES)
    found = [item.text(UID) for item in read.items(SERIES, IMAGES)]
    assert found == [f"1.9.{number}.{index}" for number in range(2) for index in range(3)]
    assert read.text(0x0040_0252) == "COMPLETED"
    assert read.text(0x0040_0241) == "CT1"
    assert list(read.items(IMAGES)) == []


def deep(levels: int, syntax: str) -> bytes:
    tag = struct.pack("<HH", SERIES >> 16, SERIES & 0xFFFF)
    head = tag + (b"SQ\0\0" if syntax == EXPLICIT else b"") + b"\xff" * 4
    return (head + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFF_FFFF)) * levels


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_depth_bomb_is_malformed(syntax: str) -> None:
    with pytest.raises(ValueError, match="too many nested"):
        nested.read(deep(60_000, syntax), syntax, SEQUENCES)


def test_a_flood_of_elements_is_malformed() -> None:
    with pytest.raises(ValueError, match="too many elements"):
        nested.read(struct.pack("<HHI", 8, 1, 0) * (nested.MOST_ELEMENTS + 1), IMPLICIT, SEQUENCES)


def test_a_data_set_that_is_cut_anywhere_is_malformed_or_shorter() -> None:
    for syntax in (EXPLICIT, IMPLICIT):
        whole = encoded(step(), syntax, undefined=True)
        for end in range(len(whole)):
            try:
                read = nested.read(whole[:end], syntax, SEQUENCES)
            except ValueError:
                continue
            assert len(list(read.items(SERIES, IMAGES))) in (0, 6)


@given(st.data(), st.sampled_from([EXPLICIT, IMPLICIT]))
def test_a_damaged_data_set_is_read_or_malformed(data: st.DataObject, syntax: str) -> None:
    whole = bytearray(encoded(step(1), syntax))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        nested.read(bytes(whole), syntax, SEQUENCES)
    except ValueError:
        return


@given(st.binary(max_size=200), st.sampled_from([EXPLICIT, IMPLICIT]))
def test_rubbish_is_read_or_malformed(data: bytes, syntax: str) -> None:
    try:
        nested.read(data, syntax, SEQUENCES)
    except ValueError:
        return
