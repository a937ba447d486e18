"""Headers of data sets, orderly, sloppy, damaged and hostile."""

from __future__ import annotations

import mmap
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)

from pacsnode.dicom import header as header_module
from pacsnode.dicom.elements import MAX_DEPTH, MAX_ELEMENTS
from pacsnode.dicom.header import MAX_VALUE_BYTES, Header, read_header
from pacsnode.errors import Rejected

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
DELIMITER = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
ITEM_DELIMITER = struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
UNDEFINED = 0xFFFF_FFFF


def explicit(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """One element in explicit VR little endian, with any VR and, if given, another length than it has."""
    length = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return head + struct.pack("<HL", 0, length) + value
    return head + struct.pack("<H", length) + value


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(value: bytes = b"", length: int | None = None) -> bytes:
    return implicit(0xFFFE_E000, value, length)


def encoded(data_set: Dataset, syntax: str) -> bytes:
    """The data set as pydicom writes it, without Part 10 header."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    write_dataset(out, data_set)
    return bytes(out.getvalue())


def chest_x_ray() -> Dataset:
    data_set = Dataset()
    data_set.SpecificCharacterSet = ["", "ISO 2022 IR 149"]
    data_set.ImageType = ["ORIGINAL", "PRIMARY", "", "AXIAL"]
    data_set.SOPClassUID, data_set.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4"
    data_set.Modality, data_set.BodyPartExamined = "CR", "CHEST"
    view, equipment = Dataset(), [Dataset(), Dataset()]
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "399348003", "SCT", "antero-posterior"
    view.ViewModifierCodeSequence = Sequence([Dataset()])
    view.ViewModifierCodeSequence[0].CodeValue = "inner"
    data_set.ViewCodeSequence = Sequence([view])
    equipment[0].DeviceUID, equipment[1].DeviceUID = "1.2.5", "1.2.6"
    data_set.ContributingEquipmentSequence = Sequence(equipment)
    data_set.PatientName, data_set.PatientID = "Hong^Gildong=洪^吉洞=홍^길동", "P-1"
    data_set.PatientSex = ""
    data_set.PixelSpacing = ["0.15", "0.15"]
    data_set.Rows, data_set.Columns, data_set.InstanceNumber = 2, 3, 1
    data_set.add_new(0x0018_9087, "FD", 1000.0)
    data_set.add_new(0x7FE0_0010, "OW", bytes(12))
    return data_set


EXPECTED = {
    "ImageType": ("ORIGINAL", "PRIMARY", "", "AXIAL"),
    "SOPClassUID": ("1.2.840.10008.5.1.4.1.1.1",),
    "SOPInstanceUID": ("1.2.3.4",),
    "Modality": ("CR",),
    "BodyPartExamined": ("CHEST",),
    "ViewCodeValue": ("399348003",),
    "ViewCodeMeaning": ("antero-posterior",),
    "ContributingDeviceUID": ("1.2.5", "1.2.6"),
    "PatientName": ("Hong^Gildong=洪^吉洞=홍^길동",),
    "PatientID": ("P-1",),
    "PixelSpacing": ("0.15", "0.15"),
    "Rows": ("2",),
    "Columns": ("3",),
    "InstanceNumber": ("1",),
    "DiffusionBValue": ("1000",),
    "HasPixelData": ("YES",),
}


@pytest.mark.parametrize("undefined_length", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_header_is_read_in_each_encoding(syntax: str, undefined_length: bool) -> None:
    data_set = chest_x_ray()
    for keyword in ("ViewCodeSequence", "ContributingEquipmentSequence"):
        data_set[keyword].is_undefined_length = undefined_length
        for part in data_set[keyword].value:
            part.is_undefined_length_sequence_item = undefined_length
    header = read_header(encoded(data_set, syntax), syntax)
    assert header.attributes == EXPECTED
    assert header.charset == ("", "ISO 2022 IR 149")
    assert header.raw["PatientID"] == b"P-1 "
    assert header.damaged == ()
    assert header.ended_at_border


def test_a_header_is_read_from_a_mapped_file_that_can_be_closed_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "data set"
    whole = encoded(chest_x_ray(), ExplicitVRLittleEndian)
    for data in (whole, whole[:-1]):
        path.write_bytes(data)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            if data is whole:
                assert read_header(mapped, ExplicitVRLittleEndian).attributes == EXPECTED
            else:
                with pytest.raises(Rejected):
                    read_header(mapped, ExplicitVRLittleEndian)


def test_a_deflated_data_set_is_inflated_no_further_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    data_set = chest_x_ray()
    data_set.PixelData = bytes(300_000)
    whole = encoded(data_set, ExplicitVRLittleEndian)
    deflated = deflate(whole)
    assert read_header(deflated, DeflatedExplicitVRLittleEndian).attributes == EXPECTED
    assert read_header(deflated, DeflatedExplicitVRLittleEndian).ended_at_border
    monkeypatch.setattr(header_module, "MAX_INFLATED_BYTES", 10_000)
    header = read_header(deflated, DeflatedExplicitVRLittleEndian)
    assert header.attributes == EXPECTED
    assert not header.ended_at_border
    monkeypatch.setattr(header_module, "MAX_INFLATED_BYTES", 100)
    with pytest.raises(Rejected):
        read_header(deflated, DeflatedExplicitVRLittleEndian)


def deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def test_a_deflated_bomb_and_a_cut_stream_are_refused() -> None:
    bomb = deflate(explicit(0x0009_0010, "UN", bytes(50_000_000)))
    assert len(bomb) < 60_000
    elements = deflate(explicit(0x0009_0010, "SH", b"") * 1_000_000)  # 4 MB end exactly where an element ends
    for data in (bomb, elements, deflate(encoded(chest_x_ray(), ExplicitVRLittleEndian))[:-5], b"\xff\xff\xff"):
        assert refusal(data, DeflatedExplicitVRLittleEndian)


def refusal(data: bytes, syntax: str = ExplicitVRLittleEndian) -> str:
    with pytest.raises(Rejected) as caught:
        read_header(data, syntax)
    assert caught.value.status == Rejected.CANNOT_UNDERSTAND
    return caught.value.comment


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_data_set_cut_anywhere_inside_an_element_is_refused(syntax: str) -> None:
    whole = encoded(chest_x_ray(), syntax)
    borders = 0
    for size in range(1, len(whole)):
        try:
            assert read_header(whole[:size], syntax).ended_at_border
            borders += 1
        except Rejected as rejected:
            assert rejected.comment == "data set is truncated"
    assert 0 < borders < 20  # only where a top-level element ends


FRAGMENTS = item() + item(b"\xff\xd8\xff\xd9")


def encapsulated(fragments: bytes) -> bytes:
    return explicit(0x0020_0013, "IS", b"1 ") + explicit(0x7FE0_0010, "OB", fragments, UNDEFINED)


def test_encapsulated_pixel_data_is_not_walked_where_it_ends_with_its_delimiter() -> None:
    header = read_header(encapsulated(b"anything" + DELIMITER), JPEGLosslessSV1)
    assert header.attributes == {"InstanceNumber": ("1",), "HasPixelData": ("YES",)}
    assert header.ended_at_border


@pytest.mark.parametrize(
    ("fragments", "ended_at_border"),
    [
        (FRAGMENTS + DELIMITER + explicit(0xFFFC_FFFC, "OB", bytes(6)), True),
        (FRAGMENTS + DELIMITER + bytes(100), False),
        (FRAGMENTS + DELIMITER + b"garbage of a device", False),
        (FRAGMENTS, False),  # the delimiter was left out
    ],
)
def test_what_stands_behind_encapsulated_pixel_data_does_no_harm(fragments: bytes, ended_at_border: bool) -> None:
    header = read_header(encapsulated(fragments), JPEGLosslessSV1)
    assert header.attributes["HasPixelData"] == ("YES",)
    assert header.ended_at_border is ended_at_border


def test_encapsulated_pixel_data_cut_inside_a_fragment_are_refused() -> None:
    assert refusal(encapsulated(FRAGMENTS[:-1]), JPEGLosslessSV1) == "data set is truncated"


def test_an_icon_image_with_encapsulated_pixels_is_stepped_over() -> None:
    pixels = explicit(0x7FE0_0010, "OB", FRAGMENTS + DELIMITER, UNDEFINED)
    icon = explicit(0x0088_0200, "SQ", item(pixels + ITEM_DELIMITER, UNDEFINED) + DELIMITER, UNDEFINED)
    header = read_header(icon + explicit(0x0028_0010, "US", b"\1\0"), ExplicitVRLittleEndian)
    assert header.attributes == {"Rows": ("1",), "HasPixelData": ("NO",)}


ROWS = explicit(0x0028_0010, "US", b"\0\2")
SLOPPY = {
    "an odd length": (explicit(0x0008_0060, "CS", b"CTX") + ROWS, ("Modality", "CTX")),
    "spaces and NULs at the end": (explicit(0x0008_0060, "CS", b"CT  \0\0") + ROWS, ("Modality", "CT")),
    "spaces at the beginning": (explicit(0x0010_0020, "LO", b"  17") + ROWS, ("PatientID", "17")),
    "VR UN": (explicit(0x0008_0060, "UN", b"CT") + ROWS, ("Modality", "CT")),
    "VR UN of a number": (explicit(0x0028_0011, "UN", b"\0\1"), ("Columns", "256")),
    "VR UN with a length of 16 bits": (b"\x08\0\x60\0UN\2\0CT" + ROWS, ("Modality", "CT")),
    "VR ?? with a length of 16 bits": (b"\x08\0\x60\0??\2\0CT" + ROWS, ("Modality", "CT")),
    "VR ?? with a length of 32 bits": (b"\x08\0\x60\0??\0\0\2\0\0\0CT" + ROWS, ("Modality", "CT")),
    "VR of spaces": (b"\x08\0\x60\0  \2\0CT" + ROWS, ("Modality", "CT")),
    "a VR of the future": (b"\x08\0\x60\0QQ\0\0\2\0\0\0CT" + ROWS, ("Modality", "CT")),
    "a VR other than the dictionary's": (explicit(0x0028_0011, "IS", b"256 "), ("Columns", "256")),
    "OB with a length of 16 bits": (b"\x09\0\x10\x10OB\2\0CT" + ROWS, ("Rows", "512")),
    "an implicit element": (implicit(0x0008_0060, b"CT") + ROWS, ("Modality", "CT")),
    "only implicit elements": (implicit(0x0008_0060, b"CT") + implicit(0x0028_0010, b"\0\2"), ("Rows", "512")),
    "an empty implicit element": (implicit(0x0008_0050, b"") + ROWS, ("Rows", "512")),
    "elements out of order": (ROWS + explicit(0x0008_0060, "CS", b"CT"), ("Modality", "CT")),
    "group lengths": (explicit(0x0008_0000, "UL", b"\1\0\0\0") + ROWS, ("Rows", "512")),
    "zero bytes at the end": (ROWS + bytes(333), ("Rows", "512")),
    "a delimiter too many": (explicit(0x0008_1140, "SQ", item()) + DELIMITER + ROWS, ("Rows", "512")),
    "no item delimiter": (
        explicit(0x0008_1140, "SQ", item(explicit(0x0008_1150, "UI", b"1.2\0"), UNDEFINED) + DELIMITER, UNDEFINED)
        + ROWS,
        ("Rows", "512"),
    ),
    "a sequence as UN of undefined length": (
        explicit(0x0054_0220, "UN", item(implicit(0x0008_0100, b"R-1 ")) + DELIMITER, UNDEFINED),
        ("ViewCodeValue", "R-1"),
    ),
    "a sequence as UN with a length": (
        explicit(0x0054_0220, "UN", item(implicit(0x0008_0100, b"R-1 "))),
        ("ViewCodeValue", "R-1"),
    ),
    "an explicit sequence as UN": (
        explicit(0x0054_0220, "UN", item(explicit(0x0008_0100, "SH", b"R-1 ")) + DELIMITER, UNDEFINED),
        ("ViewCodeValue", "R-1"),
    ),
}


@pytest.mark.parametrize("what", SLOPPY)
def test_what_sloppy_devices_send_is_read(what: str) -> None:
    data, (keyword, value) = SLOPPY[what]
    assert read_header(data, ExplicitVRLittleEndian).attributes[keyword] == (value,)


def test_an_explicit_data_set_that_was_declared_implicit_is_read() -> None:
    header = read_header(encoded(chest_x_ray(), ExplicitVRLittleEndian), ImplicitVRLittleEndian)
    assert header.attributes == EXPECTED


def test_an_implicit_data_set_that_was_declared_explicit_is_read() -> None:
    header = read_header(encoded(chest_x_ray(), ImplicitVRLittleEndian), ExplicitVRLittleEndian)
    assert header.attributes == EXPECTED


def test_text_that_was_repaired_or_cleaned_is_named_as_damaged() -> None:
    data = explicit(0x0008_0060, "CS", b"CT") + explicit(0x0008_0080, "LO", "서울의원".encode("cp949"))
    data += explicit(0x0008_1030, "LO", b"two\r\nlines") + explicit(0x0010_0010, "PN", "홍길동".encode())
    header = read_header(data, ExplicitVRLittleEndian)
    assert header.attributes["InstitutionName"] == ("서울의원",)
    assert header.attributes["StudyDescription"] == ("two  lines",)
    assert header.attributes["PatientName"] == ("홍길동",)
    assert header.damaged == ("InstitutionName", "StudyDescription", "PatientName")
    assert header.raw["StudyDescription"] == b"two\r\nlines"


def test_hangul_in_a_code_string_is_read() -> None:
    data = explicit(0x0008_0005, "CS", b"ISO_IR 192") + explicit(0x0018_0015, "CS", "흉부".encode())
    assert read_header(data, ExplicitVRLittleEndian).attributes["BodyPartExamined"] == ("흉부",)


def test_a_backslash_byte_inside_of_a_chinese_character_splits_nothing() -> None:
    data = explicit(0x0008_0005, "CS", b"GB18030 ") + explicit(0x0008_1030, "LO", "乗\\俓".encode("gb18030"))
    assert read_header(data, ExplicitVRLittleEndian).attributes["StudyDescription"] == ("乗", "俓")


def test_two_values_of_one_element_are_refused_where_they_make_two_patients() -> None:
    twice = explicit(0x0010_0020, "LO", b"P-1 ") + explicit(0x0010_0020, "LO", b"P-2 ")
    assert refusal(twice) == "(0010,0020) is there twice with different values"
    same = (
        explicit(0x0010_0020, "LO", b"P-1 ") * 2
        + explicit(0x0008_1030, "LO", b"a ")
        + explicit(0x0008_1030, "LO", b"b ")
    )
    attributes = read_header(same, ExplicitVRLittleEndian).attributes
    assert (attributes["PatientID"], attributes["StudyDescription"]) == (("P-1",), ("b",))


def nested(depth: int) -> bytes:
    """Sequences of undefined length, one within the other."""
    opening = explicit(0x0040_A730, "SQ", item(length=UNDEFINED), UNDEFINED)
    return opening * depth + (ITEM_DELIMITER + DELIMITER) * depth + ROWS


def test_nested_sequences_are_bounded() -> None:
    assert read_header(nested(MAX_DEPTH), ExplicitVRLittleEndian).attributes["Rows"] == ("512",)
    assert refusal(nested(MAX_DEPTH + 1)) == "data set has too many nested sequences"
    assert refusal(nested(10_000)) == "data set has too many nested sequences"


@pytest.mark.parametrize(
    ("data", "comment"),
    [
        (explicit(0x0009_0010, "SH", b"") * (MAX_ELEMENTS + 1), "data set has too many elements"),
        (explicit(0x0010_0010, "PN", b"A" * (MAX_VALUE_BYTES + 1)), "(0010,0010) is too long"),
        (explicit(0x0010_0010, "LO", b"", length=2), "data set is truncated"),
        (explicit(0x7FE0_0010, "OW", bytes(9), length=10), "data set is truncated"),
        (explicit(0x0008_1140, "SQ", item(), UNDEFINED), "data set is truncated"),
        (explicit(0x0008_1140, "SQ", item(length=UNDEFINED), UNDEFINED), "data set is truncated"),
        (explicit(0x0008_1140, "SQ", item(length=9) + DELIMITER, UNDEFINED), "data set is truncated"),
        (explicit(0x0008_1140, "SQ", ROWS + DELIMITER, UNDEFINED), "a sequence holds something other than items"),
        (item() + ROWS, "an item stands outside of a sequence"),
        (b"\0" * 128 + b"DICM" + ROWS, ""),
        (b"GET / HTTP/1.1\r\n\r\n", ""),
        (b"%PDF-1.7\n" * 20, ""),
    ],
)
def test_what_cannot_be_parsed_is_refused_with_its_reason(data: bytes, comment: str) -> None:
    if len(data) > 1_000_000:
        data = data[: 8 * (MAX_ELEMENTS + 1)] + ROWS
    assert refusal(data).startswith(comment)


PIECES = st.sampled_from(
    [ROWS, DELIMITER, ITEM_DELIMITER, item(), item(length=UNDEFINED), FRAGMENTS, explicit(0x0010_0010, "PN", b"A^B ")]
    + [explicit(tag, "SQ", b"", UNDEFINED) for tag in (0x0008_1140, 0x0008_2218, 0x0054_0220)]
    + [
        explicit(0x7FE0_0010, "OB", b"", UNDEFINED),
        explicit(0x0009_1010, "UN", b"", UNDEFINED),
        implicit(0x0010_0020, b"1"),
    ]
)


@given(
    st.lists(PIECES | st.binary(max_size=12), max_size=12).map(b"".join),
    st.sampled_from([*SYNTAXES, DeflatedExplicitVRLittleEndian, JPEGLosslessSV1, "", "nonsense"]),
)
def test_no_bytes_make_the_reader_raise_anything_but_rejected(data: bytes, syntax: str) -> None:
    try:
        header = read_header(data, syntax)
    except Rejected as rejected:
        assert rejected.status == Rejected.CANNOT_UNDERSTAND
    else:
        assert isinstance(header, Header)
        assert header.attributes["HasPixelData"] in (("YES",), ("NO",))


@pytest.mark.parametrize("size", [100_000, 4 << 20])
def test_a_run_of_zeros_is_no_run_of_elements(size: int) -> None:
    """4 MB of zeros are 4 KB when they are deflated; read as elements they took a core for six seconds."""
    data_set = Dataset()
    data_set.PatientID = "P-1"
    plain = encoded(data_set, ExplicitVRLittleEndian) + b"\0\0\0\1\0\0\0\0" + bytes(size)
    for syntax, data in ((ExplicitVRLittleEndian, plain), (DeflatedExplicitVRLittleEndian, deflate(plain))):
        with pytest.raises(Rejected, match="zeros"):
            read_header(data, syntax)
