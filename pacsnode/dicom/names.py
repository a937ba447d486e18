"""Names of attributes as hospital IT writes them in rules, and where in a data set what they name stands.

In: text such as `Modality`, `0018,1030`, `0019,xx0C SIEMENS MR HEADER`, `ViewCodeSequence.CodeMeaning`, `ImageType[3]`.
Out: a `Name`, or a ValueError with a sentence for its writer. Loads pydicom's dictionaries only for what the attribute
table does not have. Never reads a data set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from pacsnode.dicom.attributes import BY_KEYWORD, BY_PLACE, HAS_PIXEL_DATA, PIXEL_DATA

MOST_LEVELS = 4
"""Names in a path: `ContentSequence.ContentSequence.ConceptNameCodeSequence.CodeMeaning` has as many."""
FILE_META = 0x0002
"""The group of the file meta information."""

_OF_THE_FILE = {"calling_ae_title": 0x0002_0017, "called_ae_title": 0x0002_0018}
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_TAG = re.compile(r"(?P<open>\()?([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})(?(open)\))", re.ASCII)
_EIGHT_DIGITS = re.compile(r"([0-9A-Fa-f]{4})([0-9A-Fa-f]{4})", re.ASCII)
_PRIVATE = re.compile(r"(?P<open>\()?([0-9A-Fa-f]{4}),[Xx]{2}([0-9A-Fa-f]{2})(?(open)\))(?:\s+(\S.*))?", re.ASCII)
_ABSOLUTE_WITH_CREATOR = re.compile(r"\(?([0-9A-Fa-f]{4}),[0-9A-Fa-f]{2}([0-9A-Fa-f]{2})\)?\s+(\S.*)", re.ASCII)
_INDEX = re.compile(r"(.*?)\s*\[\s*([0-9]{1,6})\s*\]", re.ASCII)


class UnknownWordError(ValueError):
    """A name that no dictionary has; `word` is the part of it that is not known."""

    def __init__(self, word: str) -> None:
        super().__init__(f"{word} is neither a DICOM keyword nor a tag such as 0018,1030")
        self.word = word


class Step(NamedTuple):
    """One attribute on the way; with a `creator`, `tag` is its group and its last two digits in the creator's block."""

    tag: int
    creator: str = ""


@dataclass(frozen=True)
class Name:
    """What a rule calls an attribute. `base` is `text` without `[n]`, `index` is n, from 1, or 0 for all values.

    `vr` is that of the last of `steps`, LO where no dictionary knows it. There are no steps to HasPixelData.
    """

    text: str
    base: str
    index: int
    vr: str
    steps: tuple[Step, ...]
    in_index: bool

    @property
    def in_file_meta(self) -> bool:
        """Whether it stands in the file meta information, in front of the data set."""
        return bool(self.steps) and self.steps[0].tag >> 16 == FILE_META


def parse_name(text: str) -> Name:
    """Read a name. Raises ValueError, UnknownWordError for a word that is not known."""
    text = text.strip()
    base, index = _without_index(text)
    if base in BY_KEYWORD:
        row = BY_KEYWORD[base]
        tags = [tag for tag in (row.sequence, row.tag) if tag]
        return Name(text, base, index, row.vr, tuple(map(Step, tags)), in_index=True)
    if base in _OF_THE_FILE:
        return Name(text, base, index, "AE", (Step(_OF_THE_FILE[base]),), in_index=False)
    words = _words(base)
    if len(words) > MOST_LEVELS:
        raise ValueError(f"{base} has {len(words)} levels; at most {MOST_LEVELS} are looked into")
    found = [_step(word) for word in words]
    for word, (step, vr) in zip(words[:-1], found[:-1], strict=True):
        if vr != "SQ" and not step.tag >> 16 & 1:
            raise ValueError(f"{word} is not a sequence; nothing lies in it")
    _check_place(words, tuple(step for step, _ in found))
    step, vr = found[-1]
    if vr == "SQ":
        raise ValueError(f"{base} is a sequence; name an attribute in it such as {base}.CodeMeaning")
    if vr in _BINARY:
        raise ValueError(f"{base} holds binary data ({vr}), which is not read")
    return Name(text, base, index, vr, tuple(step for step, _ in found), in_index=False)


def creator_key(creator: str) -> str:
    """A private creator to compare with: devices and people differ in capitals and spaces."""
    return " ".join(creator.split()).casefold()


def keywords() -> Iterator[str]:
    """Every word that a name may have, to look for the one that was meant."""
    from pydicom.datadict import keyword_dict

    yield from BY_KEYWORD
    yield from _OF_THE_FILE
    yield from (keyword for keyword, tag in keyword_dict.items() if keyword and tag >> 16 not in (0, 0xFFFE))


def _without_index(text: str) -> tuple[str, int]:
    """The name and n of a trailing `[n]`, 0 where there is none."""
    if not text:
        raise ValueError("the name of an attribute is empty")
    if not text.isprintable():
        raise ValueError("the name of an attribute has a character in it that cannot be seen")
    if "[" not in text and "]" not in text:
        return text, 0
    match = _INDEX.fullmatch(text)
    if match is None or not match[1] or "[" in match[1] or "]" in match[1]:
        raise ValueError(f"{text}: one value of several is written as a number at the end, such as ImageType[3]")
    if not int(match[2]):
        raise ValueError(f"{text}: the first value is [1]")
    return match[1], int(match[2])


def _words(base: str) -> list[str]:
    """The names between the dots; a private creator may have dots of its own, which no keyword or tag follows."""
    words: list[str] = []
    for part in base.split("."):
        if words and _PRIVATE.fullmatch(words[-1]) and not _begins_a_word(part):
            words[-1] += "." + part
        else:
            words.append(part.strip())
    if not all(words):
        raise ValueError(f"{base}: there is no name in front of or behind one of its dots")
    return words


def _begins_a_word(part: str) -> bool:
    part = part.strip()
    return bool(_TAG.fullmatch(part) or _PRIVATE.fullmatch(part)) or _tag_of(part) is not None


def _step(word: str) -> tuple[Step, str]:
    """Where one word of a name leads, and the VR of what is there."""
    if match := _TAG.fullmatch(word):
        return _absolute(int(match[2] + match[3], 16))
    if match := _EIGHT_DIGITS.fullmatch(word):
        return _absolute(int(match[0], 16))
    if match := _PRIVATE.fullmatch(word):
        return _relative(word, int(match[2] + "00" + match[3], 16), match[4] or "")
    if (match := _ABSOLUTE_WITH_CREATOR.fullmatch(word)) and int(match[1], 16) & 1:
        raise ValueError(f"{word}: with a private creator, write {match[1]},xx{match[2]} {match[3]}")
    tag = _tag_of(word)
    if tag is None:
        raise UnknownWordError(word)
    return _absolute(tag)


def _tag_of(keyword: str) -> int | None:
    """The tag of a keyword of PS3.6; rows of the table that lie in sequences have names of our own."""
    row = BY_KEYWORD.get(keyword)
    if row is not None and not row.sequence and row.tag:
        return row.tag
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(keyword) if keyword else None
    return int(tag) if tag is not None else None


def _absolute(tag: int) -> tuple[Step, str]:
    return Step(tag), "LO" if tag >> 16 & 1 else _public_vr(tag)


def _public_vr(tag: int) -> str:
    row = BY_PLACE.get((0, tag))
    if row is not None:
        return row.vr
    from pydicom.datadict import dictionary_VR

    try:
        return str(dictionary_VR(tag))[:2]  # the first of several, as in "US or SS"
    except KeyError:
        return "LO"


def _relative(word: str, tag: int, creator: str) -> tuple[Step, str]:
    group = f"{tag >> 16:04X}"
    if not tag >> 16 & 1:
        raise ValueError(f"{word}: xx stands for a private block, and {group} is not a private (odd) group")
    if not creator:
        raise ValueError(f"{word} needs its private creator behind it, such as 0019,xx0C SIEMENS MR HEADER")
    return Step(tag, creator), _private_vr(tag | 0x1000, creator)


def _private_vr(tag: int, creator: str) -> str:
    from pydicom.datadict import private_dictionaries, private_dictionary_VR

    for known in private_dictionaries:
        if creator_key(known) == creator_key(creator):
            with suppress(KeyError):
                vr = str(private_dictionary_VR(tag, known))[:2]
                return "LO" if vr == "UN" else vr  # UN: the dictionary does not know either
    return "LO"


def _check_place(words: list[str], steps: tuple[Step, ...]) -> None:
    """Refuse what stands where nothing is read."""
    for word, step in zip(words, steps, strict=True):
        group = step.tag >> 16
        if group in (0x0000, 0xFFFE):
            raise ValueError(f"{word} is no attribute of an image or document")
        if group == FILE_META and len(steps) > 1:
            raise ValueError(f"{word} stands in the file meta information, never in a sequence")
        if step.tag in PIXEL_DATA:
            raise ValueError(f"{word} is pixel data, which is not read; there is {HAS_PIXEL_DATA.keyword}")
    if steps[0].tag > max(PIXEL_DATA):
        raise ValueError(f"{words[0]} stands behind the pixel data, where nothing is read")
