"""Text in every character set that Korean sites were seen to send, and in those of the standard."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pacsnode.dicom.charsets import REPLACEMENT, Text, decode_text, person_name_groups

VECTORS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "charsets"
CHARSET_FILES = Path(pydicom.__file__).parent / "data" / "charset_files"
TOP_LEVEL_NAMES = sorted(p for p in CHARSET_FILES.glob("*.dcm") if not p.stem.startswith("chrSQ"))

THREE_GROUPS = "Hong^Gildong=洪^吉洞=홍^길동"
EXPECTED = {
    "bad_ISO-2022-IR-149": (THREE_GROUPS, "cp949"),
    "bad_ISO_IR_149": ("홍^길동", "cp949"),
    "bad_KSC5601": ("홍^길동", "cp949"),
    "ir100_euckr": ("홍^길동", "cp949 guessed"),
    "ir149_cp949_ext": ("똠^뷁햏", "cp949"),
    "ir149_escfirst_only": (THREE_GROUPS, "cp949"),
    "ir149_noesc": (THREE_GROUPS, "cp949"),
    "ir149_noesc_single": (THREE_GROUPS, "cp949"),
    "ir149_single": (THREE_GROUPS, "cp949"),
    "ir149_std": (THREE_GROUPS, "cp949"),
    "ir192_but_euckr": ("홍^길동", "cp949 guessed"),
    "ir6_empty_utf8": ("홍^길동", "utf_8 guessed"),
    "ir6_ir149": (THREE_GROUPS, "cp949"),
    "no_esc_hangul_only": ("홍길동", "cp949"),
    "none_cp949_ext": ("똠^뷁햏", "cp949 guessed"),
    "none_euckr": ("홍^길동", "cp949 guessed"),
    "order_swapped": (THREE_GROUPS, "cp949"),
    "trunc_multibyte": ("홍길" + REPLACEMENT, "cp949"),
    "utf8_192": (THREE_GROUPS, "utf_8"),
}


def declared_and_raw(path: Path, keyword: str) -> tuple[list[str], bytes]:
    """Specific Character Set and the bytes of `keyword`, before pydicom touches either."""
    data_set = pydicom.dcmread(path)
    charset = data_set.get_item("SpecificCharacterSet")
    raw = data_set.get_item(keyword)
    assert isinstance(raw, pydicom.dataelem.RawDataElement)
    value = charset.value if charset else b""
    if isinstance(value, bytes):
        value = value.decode().strip()
    declared = value.split("\\") if isinstance(value, str) else list(value)
    return declared, raw.value or b""


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about the spellings under test
@pytest.mark.parametrize("name", EXPECTED)
def test_a_name_of_a_korean_site_is_read_whatever_it_declares(name: str) -> None:
    if not VECTORS.is_dir():
        pytest.skip("the character set vectors are not beside the repository")
    declared, raw = declared_and_raw(VECTORS / f"cs_{name}.dcm", "PatientName")
    text, how = EXPECTED[name]
    assert decode_text(raw, declared) == Text(text, how, damaged=name == "trunc_multibyte")


@pytest.mark.parametrize("path", TOP_LEVEL_NAMES, ids=lambda path: path.stem)
def test_names_in_the_standards_other_character_sets_are_read_as_pydicom_reads_them(path: Path) -> None:
    declared, raw = declared_and_raw(path, "PatientName")
    text = decode_text(raw, declared)
    assert text.text.rstrip("=") == str(pydicom.dcmread(path).PatientName)
    assert not text.damaged
    assert not text.repaired


@pytest.mark.parametrize(
    ("declared", "raw", "text"),
    [
        (["GB18030"], "丂^乗=俓".encode("gb18030"), "丂^乗=俓"),  # second bytes 0x40, 0x5C and 0x5C
        (["GB18030"], "a\\乗\\b".encode("gb18030"), "a\\乗\\b"),
        (["GBK"], "乗".encode("gbk"), "乗"),
        (["", "ISO 2022 IR 58"], b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=", "Zhang^XiaoDong=张^小东="),
        (["", "ISO 2022 IR 87"], b"\x1b$BIW\x1b(B\\b", "夫\\b"),
        (["", "ISO 2022 IR 87"], b"\x1b$B\x46\x5c\x1b(B\\b", "頓\\b"),  # 0x5C inside of a JIS X 0208 character
        (["", "ISO 2022 IR 159"], b"\x1b$(D\x30\x21\x1b(B", "丂"),
        (["ISO 2022 IR 100", "ISO 2022 IR 144"], b"J\xe9r\xf4me\\\x1b-L\xbb\xee\xda\\J\xe9", "Jérôme\\Люк\\Jé"),
        (["ISO_IR 101"], "Dvořák".encode("iso8859_2"), "Dvořák"),
        (["ISO_IR 144"], "Люкceмбypг".encode("iso8859_5"), "Люкceмбypг"),
        (["ISO_IR 13"], b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        (["ISO_IR 100"], b"Caf\xe9", "Café"),
        (["ISO_IR 192"], "Jérôme".encode(), "Jérôme"),
    ],
)
def test_text_in_a_declared_character_set_is_read_in_it(declared: list[str], raw: bytes, text: str) -> None:
    decoded = decode_text(raw, declared)
    assert (decoded.text, decoded.damaged, decoded.repaired) == (text, False, False)


@pytest.mark.parametrize("name", ["Müller^Jürgen", "José", "Årud^Åse", "Conceição^João", "Bjørn", "Peña^Íñigo", "Zoë"])
def test_a_european_name_in_latin_1_is_not_taken_for_korean(name: str) -> None:
    assert decode_text(name.encode("latin_1"), ["ISO_IR 100"]) == Text(name, "latin_1", False)
    undeclared = decode_text(name.encode("latin_1"), [])
    assert undeclared.text == name
    assert undeclared.repaired


def test_korean_text_with_symbols_and_latin_words_is_read_without_a_declaration() -> None:
    for text in ("경추·요추 3㎜", "Brain CT 조영", "흉부(正面) Ⅱ", "가AB", "「표준」 검사"):
        assert decode_text(text.encode("cp949"), []) == Text(text, "cp949 guessed", False)
        assert decode_text(text.encode(), ["ISO_IR 100"]) == Text(text, "utf_8 guessed", False)


def test_a_syllable_that_pydicom_spells_in_jamo_is_put_together_again() -> None:
    raw = b"\x1b$)C" + "뷁".encode("euc_kr")
    assert len(raw) == 12
    assert decode_text(raw, ["", "ISO 2022 IR 149"]).text == "뷁"


def test_utf_8_under_a_korean_declaration_is_read_and_marked_as_repaired() -> None:
    assert decode_text("홍길동".encode(), ["", "ISO 2022 IR 149"]) == Text("홍길동", "utf_8 guessed", False)


@pytest.mark.parametrize("declared", [[], ["ISO_IR 192"]])
def test_a_utf_8_name_cut_inside_a_character_is_flagged(declared: list[str]) -> None:
    decoded = decode_text("홍길동".encode()[:-1], declared)
    assert decoded.text == "홍길" + REPLACEMENT
    assert decoded.damaged


def test_an_undeclared_korean_name_cut_inside_a_character_is_flagged() -> None:
    assert decode_text("홍길동".encode("cp949")[:-1], []) == Text("홍길" + REPLACEMENT, "cp949 guessed", True)


def test_the_default_of_the_peer_is_used_where_nothing_tells() -> None:
    greek = "Διονυσιος".encode("iso8859_7")
    assert decode_text(greek, [], default="iso8859_7").text == "Διονυσιος"
    assert decode_text(greek, ["ISO_IR 100"], default="iso8859_7").text == "Διονυσιος"
    assert decode_text("홍길동".encode("cp949"), [], default="iso8859_7").text == "홍길동"
    assert decode_text(greek, [], default="no such codec").damaged


def test_an_unknown_escape_sequence_does_not_reach_the_text() -> None:
    decoded = decode_text(b"A\x1b]0;title\x07B", [])
    assert "\x1b" not in decoded.text
    assert decoded.damaged


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("", ("", "", "")),
        ("Hong^Gildong^^^", ("Hong^Gildong", "", "")),
        (THREE_GROUPS, ("Hong^Gildong", "洪^吉洞", "홍^길동")),
        ("=洪^吉洞=", ("", "洪^吉洞", "")),
        ("Hong^ =^=홍^길동^^ ", ("Hong", "", "홍^길동")),
        ("A=B=C=D", ("A", "B", "C=D")),
    ],
)
def test_a_person_name_has_three_groups(text: str, groups: tuple[str, str, str]) -> None:
    assert person_name_groups(text) == groups


SYLLABLES = st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)
HANGUL = st.text(SYLLABLES, min_size=1, max_size=5)
HANJA = st.text(st.sampled_from("洪吉洞金李朴崔鄭姜趙尹張林"), min_size=1, max_size=3)
LATIN = st.text(st.sampled_from("ABCDEFGhijklmno -."), min_size=1, max_size=8).filter(lambda text: text == text.strip())
NAME = st.builds(lambda *parts: "{}^{}={}^{}={}^{}".format(*parts), LATIN, LATIN, HANJA, HANJA, HANGUL, HANGUL)
KOREAN_DECLARATIONS = st.sampled_from(
    [
        ["", "ISO 2022 IR 149"],
        ["ISO 2022 IR 149", ""],
        ["ISO 2022 IR 149"],
        ["ISO 2022 IR 6", "ISO 2022 IR 149"],
        ["ISO_IR 149"],
        ["KS_C_5601-1987"],
        ["EUC-KR"],
    ]
)


def with_escapes(name: str) -> bytes:
    """`name` as PS3.5 Annex I writes it: an escape sequence before each component that has Hangul or Hanja."""
    groups = [group.split("^") for group in name.split("=")]
    parts = [[c.encode() if c.isascii() else b"\x1b$)C" + c.encode("cp949") for c in group] for group in groups]
    return b"=".join(b"^".join(group) for group in parts)


@given(NAME, KOREAN_DECLARATIONS, st.booleans())
def test_a_name_in_a_declared_korean_character_set_is_read(name: str, declared: list[str], escapes: bool) -> None:
    raw = with_escapes(name) if escapes else name.encode("cp949")
    assert decode_text(raw, declared) == Text(name, "cp949", False)


@given(NAME | HANGUL)
def test_a_name_in_declared_utf_8_is_read(name: str) -> None:
    assert decode_text(name.encode(), ["ISO_IR 192"]) == Text(name, "utf_8", False)


@given(HANGUL | NAME, st.sampled_from([[], [""], ["ISO_IR 6"], ["ISO_IR 100"], ["nonsense"]]))
def test_an_undeclared_hangul_name_is_read_in_utf_8(name: str, declared: list[str]) -> None:
    assert decode_text(name.encode(), declared).text == name


@given(HANGUL, st.sampled_from([[], [""], ["ISO_IR 6"], ["ISO_IR 100"], ["nonsense"]]))
def test_an_undeclared_hangul_name_is_read_in_cp949(name: str, declared: list[str]) -> None:
    assert decode_text(name.encode("cp949"), declared).text == name


DECLARATIONS = st.lists(
    st.sampled_from(
        ["", "ISO_IR 6", "ISO_IR 13", "ISO_IR 100", "ISO_IR 144", "ISO_IR 192", "GB18030", "nonsense"]
        + [f"ISO 2022 IR {number}" for number in (6, 13, 58, 87, 100, 144, 149, 159, 166)]
    ),
    max_size=3,
)
PIECES = st.sampled_from(
    [b"\x1b$)C", b"\x1b(B", b"\x1b$B", b"\x1b$(D", b"\x1b-L", b"\x1b)I", b"\x1b", b"\\", b"^", b"\0"]
)


@given(st.lists(PIECES | st.binary(max_size=6), max_size=8).map(b"".join), DECLARATIONS, st.text(max_size=8))
@example(b"\xa4\xd4", ["ISO 2022 IR 149"], "latin-1")
def test_no_bytes_make_the_decoder_raise(raw: bytes, declared: list[str], default: str) -> None:
    decoded = decode_text(raw, declared, default)
    decoded.text.encode()
    if raw.isascii() and b"\x1b" not in raw:
        assert decoded == Text(raw.decode().rstrip(" \0"), "ascii", False)
