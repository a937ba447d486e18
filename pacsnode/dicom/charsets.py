"""Text as it comes off the wire, in any character set, declared or not.

In: the raw bytes of a value and the values of Specific Character Set (0008,0005). Out: text, how it was read, and
whether characters were lost. Never raises, never trusts the declaration alone: Korean devices declare `ISO 2022 IR
149` with and without escape sequences, under five spellings, or declare nothing and send EUC-KR, CP949 or UTF-8.

Decode first, split at backslash afterwards: in GBK, GB18030 and JIS X 0208 the byte 0x5C is also half of a character.
The codecs are Python's own and strict. pydicom's `decode_bytes` is not used, because it replaces what it cannot
read with only a warning, and warnings are state of the whole process, which here has one thread per association.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass

REPLACEMENT = "\ufffd"
"""Stands for each character that was lost."""

_ESC = b"\x1b"
_KOREAN_ESCAPE = re.compile(rb"\x1b(?:\$\)C|\$\(C|\(B|\)C)")
_FRAGMENT = re.compile(rb"\x1b[^\x1b]*|[^\x1b]+")
_DELIMITER = re.compile(rb"[\\^=\t\n\f\r]")

_CODECS = {  # Defined Terms of PS3.3 C.12.1.1.2 without ISO_IR / ISO 2022 IR and punctuation, and what is met instead
    "": "ascii",
    "6": "ascii",
    "13": "shift_jis",
    "58": "gbk",
    "87": "iso2022_jp_2",
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "149": "cp949",
    "159": "iso2022_jp_2",
    "166": "tis_620",
    "192": "utf_8",
    "203": "iso8859_15",
    "CP949": "cp949",
    "EUCKR": "cp949",
    "GB18030": "gb18030",
    "GB2312": "gbk",
    "GBK": "gbk",
    "KSC5601": "cp949",
    "KSC56011987": "cp949",
    "KSX1001": "cp949",
    "UTF8": "utf_8",
}

_ESCAPES = {  # PS3.3 tables C.12-3 and C.12-4
    b"\x1b(B": "ascii",
    b"\x1b(J": "shift_jis",
    b"\x1b)I": "shift_jis",
    b"\x1b-A": "latin_1",
    b"\x1b-B": "iso8859_2",
    b"\x1b-C": "iso8859_3",
    b"\x1b-D": "iso8859_4",
    b"\x1b-F": "iso8859_7",
    b"\x1b-G": "iso8859_6",
    b"\x1b-H": "iso8859_8",
    b"\x1b-L": "iso8859_5",
    b"\x1b-M": "iso8859_9",
    b"\x1b-T": "tis_620",
    b"\x1b-b": "iso8859_15",
    b"\x1b$)A": "gbk",
    b"\x1b$)C": "cp949",
    b"\x1b$(C": "cp949",
    b"\x1b)C": "cp949",
    b"\x1b$B": "iso2022_jp_2",
    b"\x1b$(D": "iso2022_jp_2",
}

_HANGUL_OR_HANJA = "\u3130-\u318f\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
_KOREAN_SYMBOLS = "\u00b7\u2010-\u2027\u2103\u2160-\u217f\u2460-\u246f\u3000-\u303f\u3380-\u33df\uff01-\uff5e"
_KOREAN = re.compile(f"[\x00-\x7f{_HANGUL_OR_HANJA}{_KOREAN_SYMBOLS}]*")
_ANCHOR = re.compile(f"[{_HANGUL_OR_HANJA}]")
_ONE_INSIDE_A_WORD = re.compile(f"[a-z][{_HANGUL_OR_HANJA}][a-z]")
_BEFORE_A_LETTER = re.compile(f"([{_HANGUL_OR_HANJA}])[A-Za-z]")


@dataclass(frozen=True)
class Text:
    """A decoded value; `how` is the codec, with " guessed" behind it if the declaration does not account for it."""

    text: str
    how: str
    damaged: bool

    @property
    def repaired(self) -> bool:
        """Whether the text was read against, or without, its declaration."""
        return self.how.endswith(" guessed")


def decode_text(raw: bytes, declared: Sequence[str], default: str = "latin-1") -> Text:
    """Read `raw`, possibly several values with backslashes between them, without trailing padding; never raises.

    `declared` is Specific Character Set as it stands in the data set; `default` is the codec configured for the
    peer, used when neither the declaration nor the bytes themselves tell.
    """
    padded = bytes(raw).rstrip(b" \0")
    if padded.isascii() and _ESC not in padded:
        return Text(padded.decode("ascii"), "ascii", False)
    plain = _KOREAN_ESCAPE.sub(b"", padded)
    if _ESC not in plain and plain.isascii():
        return Text(plain.decode("ascii"), "ascii", False)
    charsets = [_codec(value) for value in declared] or ["ascii"]
    if _ESC in plain or (plain != padded and charsets[0] not in ("ascii", "cp949", "utf_8", "")):
        return _code_extensions(padded, charsets[0] or "ascii")
    if "utf_8" in charsets:
        return _declared_utf_8(plain, default)
    if "cp949" in charsets or plain != padded:
        return _declared_korean(plain)
    for charset in charsets:
        # Latin-1 reads any bytes, and consoles declare it without knowing what was typed.
        if charset not in ("", "ascii", "latin_1") and (text := _strict(plain, charset)) is not None:
            return Text(text, charset, False)
    return _guess(plain, default, latin_1="latin_1" in charsets)


def person_name_groups(text: str) -> tuple[str, str, str]:
    """The alphabetic, ideographic and phonetic group of a PN (PS3.5 6.2.1.2), trailing delimiters trimmed."""
    groups = [group.strip().rstrip("^ ") for group in text.rstrip("=^ ").split("=", 2)]
    alphabetic, ideographic, phonetic = (*groups, "", "")[:3]
    return alphabetic, ideographic, phonetic


def is_known(term: str) -> bool:
    """Whether a value of Specific Character Set is one that can be read, in any spelling."""
    return bool(term.strip() and _codec(term))


def _codec(declared: str) -> str:
    """The Python codec of a value of Specific Character Set in any spelling; "" if unknown."""
    name = re.sub("[^A-Z0-9]", "", declared.upper())
    if name not in _CODECS:
        name = re.sub("^(ISO2022IR|ISO2022|ISOIR|IR)", "", name)
    return _CODECS.get(name, "")


def _strict(data: bytes, codec: str) -> str | None:
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return None


def _cut_short(data: bytes, codec: str) -> str | None:
    """`data` whose last character a length limit (64 bytes) has cut; None if something else is wrong with it."""
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        text = decoder.decode(data, final=False)
    except UnicodeDecodeError:
        return None
    return text + REPLACEMENT if decoder.getstate()[0] else None


def _korean(data: bytes) -> str | None:
    """`data` as CP949, the superset of EUC-KR that Korean Windows writes."""
    if b"\xa4\xd4" in data and (text := _strict(data, "euc_kr")) is not None:
        return text  # KS X 1001 annex 3: a syllable spelt as filler and jamo; pydicom writes these for CP949 syllables
    return _strict(data, "cp949")


def _is_korean(text: str | None) -> bool:
    """Whether all of `text` is what Koreans write: nothing but ASCII, Hangul, Hanja and common symbols."""
    body = (text or "").removesuffix(REPLACEMENT)
    return _KOREAN.fullmatch(body) is not None and _ANCHOR.search(body) is not None


def _is_western(text: str) -> bool:
    """Whether `text`, read as CP949, is rather a European name: a CJK character inside a word, as in `Concei節o`.

    Also where a byte pair with an ASCII letter as second half runs into a word: `C5 72 75 64` is `Årud`.
    """
    if _ONE_INSIDE_A_WORD.search(text):
        return True
    return any(m[1].encode("cp949", "replace")[-1] < 0x80 for m in _BEFORE_A_LETTER.finditer(text))


def _declared_utf_8(data: bytes, default: str) -> Text:
    if (text := _strict(data, "utf_8")) is not None:
        return Text(text, "utf_8", False)
    text = _cut_short(data, "utf_8")
    if text is not None and _is_korean(text):
        return Text(text, "utf_8", True)
    guessed = _guess(data, default, latin_1=False)
    # Neither Korean nor what it says: better the readable part as declared than one more guess.
    return Text(data.decode("utf_8", "replace"), "utf_8", True) if guessed.damaged else guessed


def _declared_korean(data: bytes) -> Text:
    korean = _korean(data)
    utf_8 = _strict(data, "utf_8")
    if utf_8 is not None and _is_korean(utf_8) and not _is_korean(korean):
        return Text(utf_8, "utf_8 guessed", False)
    if korean is not None:
        return Text(korean, "cp949", False)
    return Text(data.decode("cp949", "replace"), "cp949", True)


def _guess(data: bytes, default: str, *, latin_1: bool) -> Text:
    """Text without a usable declaration. Hangul in EUC-KR is never valid Hangul in UTF-8, so the order is safe."""
    utf_8, korean = _strict(data, "utf_8"), _korean(data)
    if utf_8 is not None and _is_korean(utf_8):
        return Text(utf_8, "utf_8 guessed", False)
    if korean is not None and _is_korean(korean) and not _is_western(korean):
        return Text(korean, "cp949 guessed", False)
    if utf_8 is not None:
        return Text(utf_8, "utf_8 guessed", False)
    if (configured := _configured(data, default)) is not None:
        return Text(configured, f"{default} guessed", False)
    if latin_1:
        return Text(data.decode("latin_1"), "latin_1", any(0x80 <= byte < 0xA0 for byte in data))
    for codec in ("utf_8", "cp949"):
        cut = _cut_short(data, codec)
        if cut is not None and _is_korean(cut) and not _is_western(cut):
            return Text(cut, f"{codec} guessed", True)
    return Text(data.decode("latin_1"), "latin_1 guessed", True)


def _configured(data: bytes, codec: str) -> str | None:
    """`data` in the codec that somebody chose for the peer; Latin-1 is nobody's choice and reads anything."""
    try:
        return data.decode(codec) if codecs.lookup(codec).name != "iso8859-1" else None
    except (LookupError, ValueError):
        return None


def _code_extensions(data: bytes, first: str) -> Text:
    """ISO 2022 (PS3.5 6.1.2.5): each escape sequence switches until the next one or until a delimiter."""
    text, damaged = "", False
    for fragment in _FRAGMENT.findall(data):
        part = _fragment(fragment, first)
        text += part.text
        damaged = damaged or part.damaged
    return Text(text, "iso_2022", damaged)


def _fragment(fragment: bytes, first: str) -> Text:
    escape = next((e for e in (fragment[:4], fragment[:3]) if e in _ESCAPES), b"")
    if fragment.startswith(_ESC) and not escape:
        return Text(REPLACEMENT + fragment[1:].decode("ascii", "replace"), "", True)
    codec = _ESCAPES[escape] if escape else first
    if codec == "iso2022_jp_2":  # Python's codec reads the escape sequence itself; any byte may be half a character
        text = _strict(fragment, codec)
        return Text(text if text is not None else fragment.decode(codec, "replace"), "", text is None)
    if codec == "ascii":
        codec = first  # ESC ( B switches G0 only: G1 stays with the first character set
    body = fragment[len(escape) :]
    delimiter = _DELIMITER.search(body) if escape and first not in ("ascii", codec) else None
    if delimiter and (after := _strict(body[delimiter.start() :], first)) is not None:
        before = body[: delimiter.start()]
        return Text(before.decode(codec, "replace") + after, "", _strict(before, codec) is None)
    text = _strict(body, codec)
    return Text(text if text is not None else body.decode(codec, "replace"), "", text is None)
