"""The character set of a finished object, as its destination wants it (`Form.charset`). Runs last, after `stamp`.

In: a data set in Unicode and the raw bytes of its source. Out: the same data set, declared and filled so that it is
written in UTF-8 (as it is), in `\\ISO 2022 IR 149`, or as its source wrote. What that character set cannot say stays in
UTF-8 as a whole: no text ever becomes a question mark or another syllable.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

import pydicom.config
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.tag import Tag

from pacsnode.encode.header import identity_keywords
from pacsnode.encode.normalise import TEXT_VRS
from pacsnode.encode.provenance import Origin
from pacsnode.errors import Permanent

KOREAN = ("", "ISO 2022 IR 149")
"""As PS3.3 C.12.1.1.2 has it: ASCII, and KS X 1001 after an escape sequence."""
_CHARACTER_SET = Tag(0x0008, 0x0005)
_AFTER_IDENTITY = Tag(0x0041, 0x0000)
_NAMES_THE_PATIENT = (Tag(0x0010, 0x0010), Tag(0x0010, 0x0020))

Raw = dict[int, RawDataElement | DataElement]
"""Elements by tag, their text as bytes."""


def settle(dataset: Dataset, origin: Origin) -> None:
    """Bring the text of `dataset` into the character set of the form that is asked for, where it can hold it."""
    wanted = origin.request.form.charset
    if wanted == "korean" and _is_in_korean_set(dataset):
        _declare(dataset, list(KOREAN))
    elif wanted == "source":
        _as_the_source(dataset, _raw_source(origin))


def check(content: bytes, origin: Origin) -> None:
    """Raise Permanent unless Part 10 bytes that are not in UTF-8, which may always be, are in the set of their form."""
    wanted = origin.request.form.charset
    raw = _raw_identity(BytesIO(content))
    declared = _declared_by(raw)
    if wanted == "korean" and declared == list(KOREAN):
        return
    source = _raw_source(origin)
    if wanted != "source" or declared != _declared_by(source):
        raise Permanent(f"the result is in a character set that was not asked for ({declared})")
    for tag in _NAMES_THE_PATIENT:
        if tag in raw and raw[tag].value != source[tag].value:
            raise Permanent("the patient's name or ID of the result is not, byte for byte, that of its source")


def _declare(dataset: Dataset, values: list[str]) -> None:
    """Say it, in place of UTF-8; items have no character set of their own."""
    if values:
        dataset.SpecificCharacterSet = values if len(values) > 1 else values[0]
    else:
        del dataset.SpecificCharacterSet


def _as_the_source(dataset: Dataset, raw: Raw) -> None:
    """What identifies patient and study goes out in the very bytes of the source, so that it is one patient there."""
    declared = _declared_by(raw)
    taken = {tag: raw[tag].value for tag in _identity_tags(dataset) if tag in raw and isinstance(raw[tag].value, bytes)}
    ours = [text for tag, text in _texts(dataset) if tag not in taken and not text.isascii()]
    if ours and (declared != list(KOREAN) or not all(map(_is_ks_x_1001, ours))):
        return
    correct_ambiguous_vr(dataset, True)  # which pydicom only does where it reads and writes all anew
    for tag, value in taken.items():
        dataset[tag] = RawDataElement(tag, dataset[tag].VR, len(value), value, 0, False, True)
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")  # of a declaration that is none, which is the source's
        _declare(dataset, declared)
        codecs = convert_encodings(dataset.SpecificCharacterSet) if declared else default_encoding
    dataset.set_original_encoding(False, True, codecs)


def _raw_source(origin: Origin) -> Raw:
    with origin.request.sources[0].open("rb") as file:
        return _raw_identity(file)


def _raw_identity(file: BinaryIO) -> Raw:
    """Patient and study of a Part 10 file as they stand there."""
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        found = read_partial(file, stop_when=lambda tag, _vr, _length: tag >= _AFTER_IDENTITY)
        return {int(tag): found.get_item(tag) for tag in found.keys()}  # noqa: SIM118  # items would be converted


def _declared_by(raw: Raw) -> list[str]:
    """Specific Character Set as it stands in the source; empty where there is none."""
    if _CHARACTER_SET not in raw or not raw[_CHARACTER_SET].value:
        return []
    value = raw[_CHARACTER_SET].value
    text = (
        value.decode("latin-1") if isinstance(value, bytes) else "\\".join([value] if isinstance(value, str) else value)
    )
    return [one.strip(" \0") for one in text.rstrip(" \0").split("\\")]


def _identity_tags(dataset: Dataset) -> list[int]:
    """Of the text that patient and study have in `dataset` itself."""
    return [int(e.tag) for e in dataset if e.VR in TEXT_VRS and e.keyword in identity_keywords()]


def _texts(dataset: Dataset) -> Iterator[tuple[int, str]]:
    """Every text of `dataset` with the tag at its top."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from ((int(element.tag), text) for _, text in _texts(item))
        elif element.VR in TEXT_VRS and not element.is_empty:
            values = element.value if element.VM > 1 else [element.value]
            yield from ((int(element.tag), str(value)) for value in values)


def _is_in_korean_set(dataset: Dataset) -> bool:
    return all(_is_ks_x_1001(text) for _, text in _texts(dataset))


def _is_ks_x_1001(text: str) -> bool:
    """Whether each character is ASCII or one of the 8,226 of KS X 1001, two bytes each.

    Python's codec spells the other 8,822 syllables with eight bytes of filler and jamo, which viewers do not know.
    """
    for character in text:
        try:
            if not character.isascii() and len(character.encode("euc_kr")) != 2:
                return False
        except UnicodeEncodeError:
            return False
    return True
