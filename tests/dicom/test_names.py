"""Names of attributes as people write them: what each leads to, and what is said of those that lead nowhere."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import keyword_dict, private_dictionaries

from pacsnode.dicom.attributes import ATTRIBUTES, BY_KEYWORD, Attribute
from pacsnode.dicom.names import Name, Step, UnknownWordError, creator_key, keywords, parse_name
from pacsnode.yamlfile import nearest

SIEMENS = "0019,xx0C SIEMENS MR HEADER"


@pytest.mark.parametrize("row", ATTRIBUTES, ids=lambda row: row.keyword)
def test_a_keyword_of_the_table_is_in_the_index(row: Attribute) -> None:
    steps = tuple(Step(tag) for tag in (row.sequence, row.tag) if tag)
    assert parse_name(row.keyword) == Name(row.keyword, row.keyword, 0, row.vr, steps, in_index=True)


@pytest.mark.parametrize(
    ("text", "vr", "steps"),
    [
        ("ImageOrientationPatient", "DS", [Step(0x0020_0037)]),
        ("AcquisitionNumber", "IS", [Step(0x0020_0012)]),
        ("SmallestImagePixelValue", "US", [Step(0x0028_0106)]),  # US or SS
        ("FrameIncrementPointer", "AT", [Step(0x0028_0009)]),
        ("0018,1030", "LO", [Step(0x0018_1030)]),
        ("(0018,1030)", "LO", [Step(0x0018_1030)]),
        ("00181030", "LO", [Step(0x0018_1030)]),
        ("0018,9087", "FD", [Step(0x0018_9087)]),
        ("0018,106a", "CS", [Step(0x0018_106A)]),
        ("6002,0010", "US", [Step(0x6002_0010)]),  # rows of the second overlay
        ("0018,FFF9", "LO", [Step(0x0018_FFF9)]),  # nobody knows it
        ("0002,0016", "AE", [Step(0x0002_0016)]),
        ("0019,100c", "LO", [Step(0x0019_100C)]),
        ("(0019,100C)", "LO", [Step(0x0019_100C)]),
        (SIEMENS, "IS", [Step(0x0019_000C, "SIEMENS MR HEADER")]),
        ("(0019,XX0c)  SIEMENS MR HEADER", "IS", [Step(0x0019_000C, "SIEMENS MR HEADER")]),
        ("0019,xx0C Siemens MR header", "IS", [Step(0x0019_000C, "Siemens MR header")]),
        ("0019,xx0C OUR OWN", "LO", [Step(0x0019_000C, "OUR OWN")]),
        ("0009,xx01 1.2.840.113663.1", "LO", [Step(0x0009_0001, "1.2.840.113663.1")]),
        ("7E01,xx01 HOLOGIC, Inc.", "LO", [Step(0x7E01_0001, "HOLOGIC, Inc.")]),
        ("calling_ae_title", "AE", [Step(0x0002_0017)]),
        ("called_ae_title", "AE", [Step(0x0002_0018)]),
        (
            "RequestAttributesSequence.ScheduledProcedureStepDescription",
            "LO",
            [Step(0x0040_0275), Step(0x0040_0007)],
        ),
        ("ViewCodeSequence.0008,0104", "LO", [Step(0x0054_0220), Step(0x0008_0104)]),
        ("0054,0220 . (0008,0104)", "LO", [Step(0x0054_0220), Step(0x0008_0104)]),
        (
            "ContentSequence.ContentSequence.ConceptNameCodeSequence.CodeMeaning",
            "LO",
            [Step(0x0040_A730), Step(0x0040_A730), Step(0x0040_A043), Step(0x0008_0104)],
        ),
        ("0021,10FE.0019,100C", "LO", [Step(0x0021_10FE), Step(0x0019_100C)]),
        (
            f"0021,xxFE SIEMENS V.1 SDI.{SIEMENS}",
            "IS",
            [Step(0x0021_00FE, "SIEMENS V.1 SDI"), Step(0x0019_000C, "SIEMENS MR HEADER")],
        ),
        ("0021,xxFE HOLOGIC, Inc..CodeMeaning", "LO", [Step(0x0021_00FE, "HOLOGIC, Inc."), Step(0x0008_0104)]),
    ],
)
def test_a_name_leads_to_an_attribute_that_the_table_need_not_have(text: str, vr: str, steps: list[Step]) -> None:
    assert parse_name(f" {text} ") == Name(text, text, 0, vr, tuple(steps), in_index=text in BY_KEYWORD)


def test_one_value_of_several_is_counted_from_one() -> None:
    assert parse_name("ImageType[3]") == Name("ImageType[3]", "ImageType", 3, "CS", (Step(0x0008_0008),), True)
    assert parse_name("0018,1164 [ 12 ]").base == "0018,1164"
    name = parse_name(SIEMENS + "[2]")
    assert (name.base, name.index, name.steps) == (SIEMENS, 2, parse_name(SIEMENS).steps)


def test_only_names_of_group_two_are_in_the_file_meta_information() -> None:
    assert [parse_name(text).in_file_meta for text in ("0002,0010", "called_ae_title")] == [True, True]
    assert [parse_name(text).in_file_meta for text in ("0008,0060", "HasPixelData", "Modality")] == [False] * 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the name of an attribute is empty"),
        ("  ", "the name of an attribute is empty"),
        ("Moda\nlity", "cannot be seen"),
        ("ImageType[0]", "ImageType[0]: the first value is [1]"),
        ("ImageType[-1]", "written as a number at the end"),
        ("ImageType[]", "written as a number at the end"),
        ("ImageType[1][2]", "written as a number at the end"),
        ("ImageType]", "written as a number at the end"),
        ("ViewCodeSequence[1].CodeMeaning", "written as a number at the end"),
        ("[1]", "written as a number at the end"),
        (
            "ViewCodeSequence",
            "ViewCodeSequence is a sequence; name an attribute in it such as ViewCodeSequence.CodeMeaning",
        ),
        ("0054,0220", "0054,0220 is a sequence"),
        ("0049,xx01 GEMS_CT_CARDIAC_001", "is a sequence"),
        ("Modality.CodeMeaning", "Modality is not a sequence; nothing lies in it"),
        ("calling_ae_title.CodeMeaning", "calling_ae_title is neither"),
        ("ViewCodeSequence.", "no name in front of or behind one of its dots"),
        (".CodeMeaning", "no name in front of or behind one of its dots"),
        ("ViewCodeSequence..CodeMeaning", "no name in front of or behind one of its dots"),
        (".".join(["ContentSequence"] * 4 + ["TextValue"]), "has 5 levels; at most 4 are looked into"),
        ("EncapsulatedDocument", "EncapsulatedDocument holds binary data (OB), which is not read"),
        ("RedPaletteColorLookupTableData", "holds binary data (OW)"),
        ("0029,xx10 SIEMENS CSA HEADER", "holds binary data (OB)"),
        ("PixelData", "PixelData is pixel data, which is not read; there is HasPixelData"),
        ("7FE0,0010", "is pixel data"),
        ("IconImageSequence.PixelData", "is pixel data"),
        ("DigitalSignaturesSequence.DigitalSignatureUID", "stands behind the pixel data"),
        ("7FE1,1010", "stands behind the pixel data"),
        ("FFFE,E000", "is no attribute of an image"),
        ("AffectedSOPClassUID", "is no attribute of an image"),
        ("ViewCodeSequence.0002,0010", "stands in the file meta information"),
        ("0019,xx0C", "0019,xx0C needs its private creator behind it, such as 0019,xx0C SIEMENS MR HEADER"),
        ("0018,xx0C ACME", "0018 is not a private (odd) group"),
        ("0019,100C SIEMENS MR HEADER", "with a private creator, write 0019,xx0C SIEMENS MR HEADER"),
    ],
)
def test_what_names_nothing_that_can_be_read_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_name(text)


@pytest.mark.parametrize(
    ("text", "word", "meant"),
    [
        ("Modalty", "Modalty", "Modality"),
        ("modality", "modality", "Modality"),
        ("ImageOrientation(Patient)[1]", "ImageOrientation(Patient)", "ImageOrientationPatient"),
        ("ViewCodeSequence.CodeMening", "CodeMening", "CodeMeaning"),
        ("ReqestAttributesSequence.CodeMeaning", "ReqestAttributesSequence", "RequestAttributesSequence"),
        ("calling_aetitle", "calling_aetitle", "calling_ae_title"),
        ("0018,103", "0018,103", ""),
        ("(0018,1030", "(0018,1030", ""),
        ("0018,1030)", "0018,1030)", ""),
        ("0018,1030 X", "0018,1030 X", ""),
        ("ViewCodeSequence.HasPixelData", "HasPixelData", "HasPixelData"),
    ],
)
def test_a_word_that_nobody_knows_is_named_so_that_the_right_one_can_be_looked_for(
    text: str, word: str, meant: str
) -> None:
    with pytest.raises(UnknownWordError, match="is neither a DICOM keyword nor a tag such as 0018,1030") as caught:
        parse_name(text)
    assert caught.value.word == word
    if meant:
        assert nearest(word, keywords()) == f"; did you mean {meant}?"


def test_every_keyword_is_known_and_most_can_be_read() -> None:
    read = 0
    for keyword in keywords():
        try:
            read += parse_name(keyword).base == keyword
        except ValueError as error:
            assert not isinstance(error, UnknownWordError), keyword
    assert read > 3500
    assert {keyword for keyword in keyword_dict if keyword} - set(keywords()) <= {
        keyword for keyword, tag in keyword_dict.items() if tag >> 16 in (0, 0xFFFE)
    }


def test_every_private_creator_that_is_known_can_be_written() -> None:
    for creator in private_dictionaries:
        steps = parse_name(f"0011,xxF9 {creator}").steps
        assert steps == (Step(0x0011_00F9, creator),), creator
        assert parse_name(f"0011,xxF9 {creator}.CodeMeaning").steps == (*steps, Step(0x0008_0104))


def test_creators_are_compared_without_capitals_and_spaces() -> None:
    assert creator_key("SIEMENS  MR HEADER ") == creator_key("Siemens MR Header") != creator_key("SIEMENS MRHEADER")


TAGS = st.builds("{:04X},{:04x}".format, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
WORDS = TAGS | st.sampled_from(
    [*keywords(), SIEMENS, "(0029,xx01) A.B Inc.", "0008,1140", "0021,10FE", "00181030", "(0018,1030)", "", " "]
)
ACCEPTABLE = st.builds(
    "{}{}".format, st.lists(WORDS, min_size=1, max_size=5).map(".".join), st.sampled_from(["", "[1]", " [20]", "[0]"])
)
NOISE = st.text(st.sampled_from(".,xX()[] 01239AFfzé\\\"'") | st.characters(), max_size=30)


@given(ACCEPTABLE | NOISE)
def test_any_text_is_a_name_that_reads_the_same_again_or_is_refused(text: str) -> None:
    try:
        name = parse_name(text)
    except ValueError as error:
        assert str(error)
        return
    assert name.text == text.strip()
    assert parse_name(name.text) == name
    assert parse_name(f"{name.base}[7]") == Name(f"{name.base}[7]", name.base, 7, name.vr, name.steps, name.in_index)
    assert parse_name(name.base) == Name(name.base, name.base, 0, name.vr, name.steps, name.in_index)


def test_names_of_the_table_are_read_without_a_data_dictionary() -> None:
    program = (
        "import sys; from pacsnode.dicom.names import parse_name\n"
        "for text in ('Modality', 'ImageType[2]', 'ViewCodeMeaning', '00181030', 'called_ae_title'): parse_name(text)\n"
        "print('pydicom' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout == "False\n"
