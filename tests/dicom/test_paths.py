"""Names of rules looked up in data sets: what pydicom finds, in every encoding, and what hostile bytes come to."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
)

from pacsnode.dicom.header import MAX_VALUE_BYTES
from pacsnode.dicom.names import parse_name
from pacsnode.dicom.paths import read_names
from pacsnode.errors import Rejected
from tests.dicom.test_header import (
    DELIMITER,
    FRAGMENTS,
    PIECES,
    SYNTAXES,
    UNDEFINED,
    deflate,
    encoded,
    explicit,
    implicit,
    item,
)
from tests.fuzz.mutations import mutate

Values = dict[str, tuple[str, ...]]
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
ROWS = explicit(0x0028_0010, "US", b"\0\2")
VIEW, MODIFIER, REQUEST = 0x0054_0220, 0x0054_0222, 0x0040_0275


def read(data: bytes, *texts: str, syntax: str = ExplicitVRLittleEndian) -> Values:
    """What each name stands for."""
    return read_names(data, syntax, [parse_name(text) for text in texts])


def code(value: str, meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodeMeaning = value, meaning
    return made


def magnetic_resonance(*, undefined_length: bool = False) -> Dataset:
    """An image with two private creators in a group, sequences in sequences, numbers of every kind, and an icon."""
    made = Dataset()
    made.SpecificCharacterSet = ["", "ISO 2022 IR 149"]
    made.ImageType = ["ORIGINAL", "PRIMARY", "", "AXIAL"]
    made.Modality, made.PatientSex, made.AcquisitionNumber = "MR", "", 3
    made.FrameIncrementPointer = [0x0018_1063, 0x0019_100C]
    made.ImagePositionPatient = ["-12.5", "0", "7"]
    made.SmallestImagePixelValue, made.PixelRepresentation, made.Rows = 500, 0, 2
    made.add_new(0x0018_9087, "FD", 0.1)
    made.add_new(0x0018_9074, "DT", "20260101120000")
    made.add_new(0x0008_2112, "SQ", [])
    siemens = made.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    siemens.add_new(0x0C, "IS", "1000")
    siemens.add_new(0x0E, "FD", [1.0, -0.5, 0.25])
    other = made.private_block(0x0019, "OUR LAB", create=True)
    other.add_new(0x0C, "LO", "다른 것")
    request = Dataset()
    request.ScheduledProcedureStepDescription = "머리 MRI"
    request.ScheduledProtocolCodeSequence = [code("A", "일"), code("B", ""), Dataset(), code("C", "셋")]
    inner = request.private_block(0x0019, "OUR LAB", create=True)
    inner.add_new(0x0C, "LO", "inside")
    second = Dataset()
    second.ScheduledProcedureStepDescription, second.ScheduledProtocolCodeSequence = "목", [code("D", "넷")]
    made.RequestAttributesSequence = [request, second]
    icon = Dataset()
    icon.Rows = 7
    icon.add_new(0x7FE0_0010, "OW", bytes(8))
    made.IconImageSequence = [icon]
    made.add_new(0x7FE0_0010, "OW", bytes(8))
    for element in made.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined_length
            for part in element.value:
                part.is_undefined_length_sequence_item = undefined_length
    return made


EXPECTED: Values = {
    "Modality": ("MR",),
    "HasPixelData": ("YES",),
    "0008,0008": ("ORIGINAL", "PRIMARY", "", "AXIAL"),
    "AcquisitionNumber": ("3",),
    "FrameIncrementPointer": ("0018,1063", "0019,100C"),
    "ImagePositionPatient": ("-12.5", "0", "7"),
    "SmallestImagePixelValue": ("500",),
    "(0018,9087)": ("0.1",),
    "00189074": ("20260101120000",),
    "0019,xx0C SIEMENS MR HEADER": ("1000",),
    "0019,xx0E siemens mr header": ("1", "-0.5", "0.25"),
    "0019,100C": ("1000",),
    "0019,xx0C OUR LAB": ("다른 것",),
    "0019,110C": ("다른 것",),
    "0019,0011": ("OUR LAB",),
    "RequestAttributesSequence.ScheduledProcedureStepDescription": ("머리 MRI", "목"),
    "RequestAttributesSequence.ScheduledProtocolCodeSequence.CodeMeaning": ("일", "", "셋", "넷"),
    "0040,0275.0040,0008.0008,0100": ("A", "B", "C", "D"),
    "RequestAttributesSequence.0019,xx0C OUR LAB": ("inside",),
    "RequestAttributesSequence.0019,100C": ("inside",),
    "IconImageSequence.Rows": ("7",),
}
ABSENT = (
    "PatientSex",
    "PatientName",
    "0019,xx0D SIEMENS MR HEADER",
    "0021,xx0C SIEMENS MR HEADER",
    "0019,xx0C NOBODY",
    "SourceImageSequence.ReferencedSOPInstanceUID",
    "ViewCodeSequence.CodeMeaning",
    "RequestAttributesSequence.0019,xx0C SIEMENS MR HEADER",
    "RequestAttributesSequence.ScheduledProtocolCodeSequence.0019,xx0C OUR LAB",
    "RequestAttributesSequence.Modality",
    "0002,0010",
)


@pytest.mark.parametrize("undefined_length", [False, True])
@pytest.mark.parametrize("syntax", [*SYNTAXES, DeflatedExplicitVRLittleEndian])
def test_any_attribute_is_read_in_each_encoding(syntax: str, undefined_length: bool) -> None:
    deflated = syntax == DeflatedExplicitVRLittleEndian
    whole = encoded(
        magnetic_resonance(undefined_length=undefined_length), ExplicitVRLittleEndian if deflated else syntax
    )
    assert read(deflate(whole) if deflated else whole, *EXPECTED, *ABSENT, syntax=syntax) == EXPECTED
    for text, values in EXPECTED.items():
        assert read(deflate(whole) if deflated else whole, text, syntax=syntax) == {text: values}


def test_all_values_are_given_where_one_is_named() -> None:
    assert read(encoded(magnetic_resonance(), ExplicitVRLittleEndian), "ImageType[1]", "ImageType[4]") == {
        "ImageType": EXPECTED["0008,0008"]
    }
    assert read(ROWS) == {}


def test_pixels_may_be_encapsulated_cut_off_or_absent() -> None:
    pixels = explicit(0x7FE0_0010, "OB", FRAGMENTS, UNDEFINED)
    for behind in (pixels + DELIMITER, pixels, pixels + b"garbage", explicit(0x7FE0_0010, "OW", b"", length=99)):
        assert read(ROWS + behind, "0028,0010", "HasPixelData", syntax=JPEGLosslessSV1) == {
            "0028,0010": ("512",),
            "HasPixelData": ("YES",),
        }
    assert read(ROWS, "HasPixelData") == {"HasPixelData": ("NO",)}


def test_a_deflated_data_set_is_inflated_no_further_than_needed() -> None:
    made = magnetic_resonance()
    made["PixelData"].value = bytes(5_000_000)
    whole = deflate(encoded(made, ExplicitVRLittleEndian))
    assert read(whole, *EXPECTED, syntax=DeflatedExplicitVRLittleEndian) == EXPECTED
    bomb = deflate(ROWS + explicit(0x0029_1010, "UN", bytes(50_000_000)))
    for data in (bomb, whole[:200], b"\xff\xff\xff"):
        with pytest.raises(Rejected):
            read(data, "Modality", "0028,0010", syntax=DeflatedExplicitVRLittleEndian)


CP949, UTF_8, ESCAPED = "흉부".encode("cp949"), "흉부".encode(), b"\x1b$)C" + "흉부".encode("euc_kr")


def view(*elements: bytes) -> bytes:
    """A View Code Sequence of one item."""
    return explicit(VIEW, "SQ", item(b"".join(elements)))


@pytest.mark.parametrize(
    "data",
    [
        explicit(0x0008_0005, "CS", b"\\ISO 2022 IR 149 ") + view(explicit(0x0008_0104, "LO", ESCAPED)),
        explicit(0x0008_0005, "CS", b"ISO_IR 192") + view(explicit(0x0008_0104, "LO", UTF_8)),
        view(explicit(0x0008_0104, "LO", CP949)),
        explicit(0x0008_0005, "CS", b"ISO_IR 100") + view(explicit(0x0008_0104, "LO", CP949)),
        explicit(0x0008_0005, "CS", b"ISO_IR 144")
        + view(explicit(0x0008_0005, "CS", b"ISO_IR 192"), explicit(0x0008_0104, "LO", UTF_8)),
        explicit(0x0008_0005, "CS", b"ISO_IR 192")
        + view(explicit(0x0008_0005, "CS", b"ISO_IR 149"), explicit(0x0008_0104, "LO", CP949)),
        view(explicit(0x0008_0005, "CS", b"\\ISO 2022 IR 149 "), explicit(0x0008_0104, "LO", ESCAPED)),
    ],
    ids=["IR 149", "UTF-8", "EUC-KR undeclared", "EUC-KR as Latin-1", "own UTF-8", "own IR 149", "own only"],
)
def test_korean_in_an_item_is_read_in_its_own_character_set(data: bytes) -> None:
    assert read(data, "ViewCodeSequence.CodeMeaning", "ViewCodeMeaning")["ViewCodeSequence.CodeMeaning"] == ("흉부",)


def test_an_item_without_a_character_set_has_that_of_the_item_around_it() -> None:
    latin, cyrillic = explicit(0x0008_0005, "CS", b"ISO_IR 148"), explicit(0x0008_0005, "CS", b"ISO_IR 144")
    text = explicit(0x0008_0104, "LO", b"\xc1\xd2")
    inner = explicit(MODIFIER, "SQ", item(text) + item(latin + text))
    data = latin + explicit(VIEW, "SQ", item(cyrillic + inner) + item(inner))
    found = read(data, "ViewCodeSequence.ViewModifierCodeSequence.CodeMeaning")
    assert found == {"ViewCodeSequence.ViewModifierCodeSequence.CodeMeaning": ("Св", "ÁÒ", "ÁÒ", "ÁÒ")}


BLOCK = explicit(0x0019_0010, "LO", b"OUR LAB ")
SLOPPY: dict[str, tuple[bytes, str, tuple[str, ...]]] = {
    "UN of a text": (BLOCK + explicit(0x0019_100C, "UN", "둘".encode("cp949")), "0019,xx0C OUR LAB", ("둘",)),
    "UN of a number that the creator's dictionary knows": (
        explicit(0x0019_0010, "UN", b"SIEMENS MR HEADER ") + explicit(0x0019_100E, "UN", b"\0\0\0\0\0\0\xe0\x3f"),
        "0019,xx0E SIEMENS MR HEADER",
        ("0.5",),
    ),
    "a creator with NULs": (
        explicit(0x0019_00FF, "LO", b"OUR LAB\0") + explicit(0x0019_FF0C, "LO", b"x "),
        "0019,xx0C OUR LAB",
        ("x",),
    ),
    "two blocks of one creator": (
        BLOCK
        + explicit(0x0019_0012, "LO", b"OUR LAB ")
        + explicit(0x0019_100C, "LO", b"a ")
        + explicit(0x0019_120C, "LO", b"b "),
        "0019,xx0C OUR LAB",
        ("a", "b"),
    ),
    "a creator behind its block": (explicit(0x0019_100C, "LO", b"a ") + BLOCK, "0019,xx0C OUR LAB", ("a",)),
    "a block without a creator": (explicit(0x0019_100C, "LO", b"a "), "0019,xx0C OUR LAB", ()),
    "binary data in a private tag": (explicit(0x0019_100C, "OB", b"ab"), "0019,100C", ()),
    "a sequence where a text was named": (explicit(0x0019_100C, "SQ", item()), "0019,100C", ()),
    "another VR than the dictionary's": (explicit(0x0020_0012, "US", b"\3\0"), "AcquisitionNumber", ("3",)),
    "a value of 16 KB": (
        explicit(0x0020_4000, "UT", b"a" * MAX_VALUE_BYTES),
        "ImageComments",
        ("a" * MAX_VALUE_BYTES,),
    ),
    "a longer value": (explicit(0x0020_4000, "UT", b"a" * (MAX_VALUE_BYTES + 1)), "ImageComments", ()),
    "only empty values": (explicit(0x0018_1050, "DS", b"\\ "), "SpatialResolution", ()),
    "an element that is there twice": (
        explicit(0x0018_1050, "DS", b"1 ") + explicit(0x0018_1050, "DS", b"2 "),
        "SpatialResolution",
        ("2",),
    ),
    "text in place of a sequence": (explicit(VIEW, "LO", b"ANONYMIZED"), "ViewCodeSequence.CodeMeaning", ()),
    "text in place of an implicit sequence": (implicit(VIEW, b"ANONYMIZED"), "ViewCodeSequence.CodeMeaning", ()),
    "fragments in place of a sequence": (
        explicit(VIEW, "OB", FRAGMENTS + DELIMITER, UNDEFINED),
        "ViewCodeSequence.CodeMeaning",
        (),
    ),
    "a private sequence as UN": (
        BLOCK + explicit(0x0019_1001, "UN", item(implicit(0x0008_0104, b"m ")) + DELIMITER, UNDEFINED),
        "0019,xx01 OUR LAB.CodeMeaning",
        ("m",),
    ),
    "a private sequence as UN with a length": (
        BLOCK + explicit(0x0019_1001, "UN", item(implicit(0x0008_0104, b"m "))),
        "0019,xx01 OUR LAB.CodeMeaning",
        ("m",),
    ),
    "one private tag of two creators, a text and a sequence": (
        explicit(0x0019_0010, "LO", b"A ")
        + explicit(0x0019_0011, "LO", b"B ")
        + explicit(0x0019_1001, "LO", b"text")
        + explicit(0x0019_1101, "SQ", item(explicit(0x0008_0104, "LO", b"m "))),
        "0019,xx01 B.CodeMeaning",
        ("m",),
    ),
}


@pytest.mark.parametrize("what", SLOPPY)
def test_what_sloppy_devices_send_is_read_or_absent(what: str) -> None:
    data, text, values = SLOPPY[what]
    assert read(data + ROWS, text, "Rows") == {**({text: values} if values else {}), "Rows": ("512",)}


def test_numbers_in_an_unknown_sequence_are_little_endian_in_a_big_endian_data_set() -> None:
    rows = b"\x28\0\x10\0\2\0\0\0\0\2"
    sequence = b"\0\x19\x10\1UN\0\0\xff\xff\xff\xff" + item(rows) + DELIMITER
    assert read(sequence, "0019,1001.Rows", syntax=ExplicitVRBigEndian) == {"0019,1001.Rows": ("512",)}


@pytest.mark.parametrize(
    "data",
    [
        explicit(VIEW, "SQ", item(ROWS, UNDEFINED), UNDEFINED),
        explicit(VIEW, "SQ", item(ROWS, length=99)),
        explicit(0x0010_0010, "LO", b"", length=2),
        explicit(VIEW, "SQ", item(length=UNDEFINED), UNDEFINED) * 66,
        explicit(VIEW, "SQ", item(explicit(MODIFIER, "SQ", item() * 999_999)))[: 1 << 23],
    ],
    ids=["undelimited", "long item", "cut off", "deep", "cut off with many items"],
)
def test_what_cannot_be_parsed_is_refused(data: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        read(data, "ViewCodeSequence.ViewModifierCodeSequence.CodeMeaning")
    assert caught.value.status == Rejected.CANNOT_UNDERSTAND


NAMES = [parse_name(text) for text in (*EXPECTED, *ABSENT, "0029,xx01 A.0009,xx01 B.0019,xx01 C.CodeMeaning")]
WANTED_PIECES = st.sampled_from(
    [
        BLOCK,
        explicit(0x0019_100C, "LO", b"x "),
        explicit(0x0008_0104, "LO", b"y "),
        explicit(0x0008_0005, "CS", b"ISO_IR 192"),
        explicit(REQUEST, "SQ", item(explicit(0x0040_0008, "SQ", item()))),
        implicit(REQUEST, item(b"\x19\0\x10\0", UNDEFINED), UNDEFINED),
    ]
    + [explicit(tag, vr, b"", UNDEFINED) for tag in (REQUEST, 0x0040_0008, 0x0019_100C) for vr in ("SQ", "UN", "OB")]
)


@given(
    st.lists(PIECES | WANTED_PIECES | st.binary(max_size=12), max_size=12).map(b"".join) | st.binary(max_size=200),
    st.sampled_from([*SYNTAXES, DeflatedExplicitVRLittleEndian, JPEGLosslessSV1, "", "nonsense"]),
)
def test_no_bytes_make_the_reader_raise_anything_but_rejected(data: bytes, syntax: str) -> None:
    read_or_refused(data, syntax)


SEEDS = {
    syntax: encoded(magnetic_resonance(undefined_length=undefined_length), syntax)
    for syntax in SYNTAXES
    for undefined_length in (False, True)
}


@given(st.sampled_from(SYNTAXES), st.sampled_from(SYNTAXES), st.integers(0, 2**32), st.integers(0, 5000))
@settings(max_examples=300, deadline=timedelta(seconds=2))
def test_a_damaged_data_set_is_read_or_refused(written: str, said: str, damage: int, cut: int) -> None:
    damaged = mutate(SEEDS[written], random.Random(damage), list(SEEDS.values()))
    read_or_refused(damaged, said)
    read_or_refused(SEEDS[written][:cut], said)
    read_or_refused(deflate(damaged)[:cut], DeflatedExplicitVRLittleEndian)


def read_or_refused(data: bytes, syntax: str) -> None:
    try:
        values = read_names(data, syntax, NAMES)
    except Rejected as rejected:
        assert rejected.status == Rejected.CANNOT_UNDERSTAND
        return
    assert values.keys() <= {name.base for name in NAMES}
    for texts in values.values():
        assert any(texts)
        assert all(isinstance(text, str) for text in texts)


@pytest.mark.parametrize(
    "sequence",
    [
        item(explicit(0x0008_0104, "LO", b"x ")) * 100_000,
        item(b"".join(explicit(0x0019_0000 | block, "LO", b"A ") for block in range(16, 256))) * 1000,
        item(explicit(0x0008_0104, "US", bytes(16_384))) * 100,
    ],
    ids=["items", "private creators", "numbers"],
)
def test_two_megabytes_of_what_is_named_take_no_longer_than_a_few_seconds(sequence: bytes) -> None:
    texts = ["ViewCodeSequence.CodeMeaning", *(f"ViewCodeSequence.0019,xx{n:02X} A" for n in range(20))]
    begun = time.process_time()
    read(explicit(VIEW, "SQ", sequence), *texts)
    assert time.process_time() - begun < 10
