"""Every attribute of every file there is, looked up by name: what pydicom reads."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom._dicom_dict import DicomDictionary
from pydicom.data import get_testdata_files
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pacsnode.dicom.attributes import ATTRIBUTES
from pacsnode.dicom.header import MAX_VALUE_BYTES, decode_value, read_header
from pacsnode.dicom.names import Name, Step, creator_key, parse_name
from pacsnode.dicom.paths import read_names
from pacsnode.errors import Rejected

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def part_10_files(paths: list[Path]) -> list[Path]:
    return [path for path in sorted(set(paths)) if path.is_file() and path.read_bytes()[128:132] == b"DICM"]


OF_PYDICOM = part_10_files([Path(name) for name in (*get_testdata_files("**/*"), *get_testdata_files())])
OF_SHARED = part_10_files([*(SHARED / "dicom_test").rglob("*"), *(SHARED / "charsets").rglob("*")])
TRUNCATED = {"rtplan_truncated.dcm", "DICOMDIR-nooffset"}
"""Cut inside a sequence, and with a wrong length in one, which pydicom passes over."""
CUT_IN_ITS_PIXELS = "MR_truncated.dcm"
"""The header reader refuses it; here nothing looks at pixel data."""
BINARY = ("OB", "OD", "OF", "OL", "OV", "OW")
WITHOUT_SYNTAX = "meta_missing_tsyntax.dcm"


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about the files
@pytest.mark.parametrize("path", [path for path in OF_PYDICOM if path.name != WITHOUT_SYNTAX], ids=lambda p: p.name)
def test_every_attribute_is_what_pydicom_reads(path: Path) -> None:
    compare(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.skipif(not OF_SHARED, reason="../shared/data/dicom_test and charsets are not on this machine")
def test_every_attribute_of_the_shared_files_is_what_pydicom_reads() -> None:
    assert len(OF_SHARED) > 100
    for path in OF_SHARED:
        compare(path)


def compare(path: Path) -> None:
    """Each attribute that a file has, by tag, by keyword or creator, and those of the attribute table."""
    data = path.read_bytes()
    with BytesIO(data) as file:
        pydicom.filereader.read_preamble(file, force=False)
        pydicom.filereader._read_file_meta_info(file)
        dataset_bytes = data[file.tell() :]
    data_set, theirs = (pydicom.dcmread(BytesIO(data), stop_before_pixels=True) for _ in range(2))
    syntax = str(theirs.file_meta.TransferSyntaxUID)
    names = [*named(data_set)]
    assert len(names) > 3
    if path.name in TRUNCATED:
        with pytest.raises(Rejected, match="truncated"):
            read_names(dataset_bytes, syntax, names)
        return
    ours = read_names(dataset_bytes, syntax, names)
    differences = {
        name.base: (expected, ours.get(name.base, ()))
        for name in names
        if (expected := pydicoms_values(theirs, name)) != ours.get(name.base, ())
    }
    assert differences == {}, path.name
    if path.name == CUT_IN_ITS_PIXELS:
        return
    table = [parse_name(row.keyword) for row in ATTRIBUTES]
    assert read_names(dataset_bytes, syntax, table) == read_header(dataset_bytes, syntax).attributes, path.name


def named(data_set: Dataset) -> Iterator[Name]:
    """A name for each attribute of a data set that can be named, two for one of a private block."""
    texts: dict[str, None] = {}
    for tags in paths_of(data_set):
        texts[".".join(f"{tag >> 16:04X},{tag & 0xFFFF:04X}" for tag in tags)] = None
        texts[".".join(DicomDictionary[tag][4] if tag in DicomDictionary else f"{tag:08x}" for tag in tags)] = None
        tag = tags[0]
        creator = data_set.get_item(tag & 0xFFFF_0000 | (tag >> 8 & 0xFF)) if tag >> 16 & 1 and tag & 0xFF00 else None
        if creator is not None and len(tags) == 1:
            text = creator.value if isinstance(creator.value, str) else creator.value.decode("latin_1").strip(" \0")
            texts[f"{tag >> 16:04x},xx{tag & 0xFF:02x} {text}"] = None
    for text in texts:
        try:
            yield parse_name(text)
        except ValueError as error:
            assert any(why in str(error) for why in ("is a sequence", "binary data", "pixel data", "levels"))


def paths_of(data_set: Dataset, before: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    for tag in list(data_set.keys()):
        yield (*before, int(tag))
        if len(before) < 3 and data_set[tag].VR == "SQ":
            for part in data_set[tag].value or []:
                yield from paths_of(part, (*before, int(tag)))


def pydicoms_values(data_set: Dataset, name: Name) -> tuple[str, ...]:
    """What pydicom found where `name` leads, its bytes decoded as ours are."""
    holders = [(data_set, charset_of(data_set, ()))]
    for step in name.steps[:-1]:
        sequences = [(part.get(tag), charset) for part, charset in holders for tag in tags_of(part, step)]
        holders = [
            (inner, charset_of(inner, charset))
            for sequence, charset in sequences
            if sequence is not None and sequence.VR == "SQ"
            for inner in sequence.value or []
        ]
    texts: list[str] = []
    for part, charset in holders:
        for tag in tags_of(part, name.steps[-1]):
            element = part.get_item(tag)
            if element is not None:
                texts += pydicoms_texts(part, element, name.vr, charset)
    return tuple(texts) if any(texts) else ()


def charset_of(data_set: Dataset, around: tuple[str, ...]) -> tuple[str, ...]:
    if "SpecificCharacterSet" not in data_set:
        return around
    value = data_set.SpecificCharacterSet
    return (value or "",) if value is None or isinstance(value, str) else tuple(value)


def tags_of(data_set: Dataset, step: Step) -> list[int]:
    group = step.tag & 0xFFFF_0000
    creators = {block: data_set.get(group | block) for block in range(0x10, 0x100)} if step.creator else {}
    named_by = [block for block, found in creators.items() if found is not None and same(found.value, step.creator)]
    return [step.tag | block << 8 for block in named_by] if step.creator else [step.tag]


def same(value: object, creator: str) -> bool:
    return creator_key(str(value)) == creator_key(creator)


def pydicoms_texts(
    part: Dataset, element: DataElement | RawDataElement, vr: str, charset: tuple[str, ...]
) -> list[str]:
    if element.VR == "SQ":
        return []
    if element.VR == "AT" or (vr == "AT" and element.VR in (None, "UN")):
        value = part[element.tag].value
        many = [] if value is None else value if isinstance(value, MultiValue) else [value]
        return [f"{one >> 16:04X},{one & 0xFFFF:04X}" for one in many]
    if not isinstance(element, RawDataElement):  # pydicom itself has looked at it while it was reading, all ASCII
        values = element.value if element.VM > 1 else [element.value] if element.VM else [""]
        return [str(value).strip() for value in values]
    raw = element.value or b""
    if len(raw) > MAX_VALUE_BYTES or (element.tag.is_private and element.VR in BINARY):
        return []
    own = None if element.VR in (*BINARY, "UN") else element.VR
    return list(decode_value(raw, own or vr, charset, big_endian=not element.is_little_endian)[0])
