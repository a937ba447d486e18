"""The header reader against pydicom: the same bytes in every attribute of the table, on every file there is."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_files
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacsnode.dicom.attributes import ATTRIBUTES, PIXEL_DATA, Attribute
from pacsnode.dicom.header import decode_value, read_header
from pacsnode.errors import Rejected

FILES = sorted({Path(name) for name in (*get_testdata_files("**/*"), *get_testdata_files())})
TRUNCATED = {
    "MR_truncated.dcm",  # cut inside the pixel data; dcmread only notices when it decodes them
    "rtplan_truncated.dcm",  # cut inside a sequence, which pydicom defers
}
WITHOUT_DELIMITER = {"emri_small_jpeg_2k_lossless_too_short.dcm"}
"""The last fragment ends the file. dcmread then drops the whole data set with a warning, we keep the header."""


def readable_files() -> list[Path]:
    """The files that have a Part 10 header, which names the transfer syntax."""
    return [path for path in FILES if path.is_file() and path.read_bytes()[128:132] == b"DICM"]


def pydicoms_values(data_set: Dataset, attribute: Attribute, charset: tuple[str, ...]) -> tuple[str, ...]:
    """What pydicom found for `attribute`, its bytes decoded as ours are."""
    elements: list[DataElement | RawDataElement | None] = [data_set.get_item(attribute.tag)]
    if attribute.sequence:
        sequence = data_set.get(attribute.sequence)
        elements = [part.get_item(attribute.tag) for part in sequence.value or []] if sequence else []
    texts: list[str] = []
    for element in elements:
        if element is None or element.value is None:
            continue
        if isinstance(element, RawDataElement):
            vr = element.VR if element.VR not in (None, "UN") else attribute.vr
            big_endian = not element.is_little_endian
            texts += decode_value(element.value, vr, charset, big_endian=big_endian)[0]
        else:  # pydicom itself has looked at it while it was reading: ImageType, Rows and their like, all ASCII
            values = element.value if element.VM > 1 else [element.value] if element.VM else []
            texts += [str(value).strip() for value in values]
    return tuple(texts) if any(texts) else ()


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about the files
@pytest.mark.parametrize("path", readable_files(), ids=lambda path: path.name)
def test_every_attribute_is_what_pydicom_reads(path: Path) -> None:
    data = path.read_bytes()
    try:
        data_set = pydicom.dcmread(BytesIO(data), stop_before_pixels=path.name in WITHOUT_DELIMITER)
        transfer_syntax_uid = str(data_set.file_meta.TransferSyntaxUID)
    except (pydicom.errors.InvalidDicomError, AttributeError, EOFError, OSError) as error:
        pytest.skip(f"pydicom cannot read it or does not know its transfer syntax: {type(error).__name__}")
    with BytesIO(data) as file:
        pydicom.filereader.read_preamble(file, force=False)
        pydicom.filereader._read_file_meta_info(file)
        start = file.tell()
    if path.name in TRUNCATED:
        with pytest.raises(Rejected, match="data set is truncated"):
            read_header(data[start:], transfer_syntax_uid)
        return
    header = read_header(data[start:], transfer_syntax_uid)
    differences = {
        attribute.keyword: (expected, header.attributes.get(attribute.keyword, ()))
        for attribute in ATTRIBUTES
        if attribute.tag
        and (expected := pydicoms_values(data_set, attribute, header.charset))
        != header.attributes.get(attribute.keyword, ())
    }
    assert differences == {}
    has_pixel_data = path.name in WITHOUT_DELIMITER or any(tag in data_set for tag in PIXEL_DATA)
    assert header.attributes["HasPixelData"] == ("YES" if has_pixel_data else "NO",)
    assert header.ended_at_border is (path.name not in WITHOUT_DELIMITER)


def test_there_are_files_to_compare_with() -> None:
    assert len(readable_files()) > 90


TEXT_VALUES = {
    "CS": st.text(st.sampled_from("ABC_ 12"), max_size=16),
    "DA": st.dates().map(lambda date: f"{date.year:04}{date.month:02}{date.day:02}"),
    "DS": st.decimals(-1000, 1000, places=3).map(lambda number: f"{number:f}"),
    "DT": st.just("20260101120000.000000+0900"),
    "IS": st.integers(-(2**31), 2**31 - 1).map(str),
    "LO": st.text(st.sampled_from("abc 가나힣洪-1é"), max_size=20),
    "PN": st.lists(st.text(st.sampled_from("abc^가나힣洪"), min_size=1, max_size=9), max_size=3).map("=".join),
    "SH": st.text(st.sampled_from("abc 가나힣洪-1"), max_size=8),
    "AS": st.just("042Y"),
    "TM": st.just("235959.123"),
    "UI": st.lists(st.integers(0, 2**31).map(str), min_size=1, max_size=5).map(".".join),
}
TOP_LEVEL = [attribute for attribute in ATTRIBUTES if attribute.tag and not attribute.sequence]
BINARY = {"US": st.integers(0, 65_535), "FD": st.floats(allow_nan=False, allow_infinity=False)}
DATA_SETS = st.fixed_dictionaries(
    {}, optional={a.keyword: TEXT_VALUES[a.vr] if a.vr in TEXT_VALUES else BINARY[a.vr] for a in TOP_LEVEL}
)


@given(DATA_SETS, st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]), st.booleans())
def test_what_pydicom_writes_is_read_back(values: dict[str, str | int | float], syntax: str, with_pixels: bool) -> None:
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 192"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, about values that are not quite legal
        for attribute in TOP_LEVEL:
            if attribute.keyword in values:
                data_set.add_new(attribute.tag, attribute.vr, values[attribute.keyword])
        if with_pixels:
            data_set.add_new(0x7FE0_0010, "OW", bytes(8))
        header = read_header(written(data_set, syntax), syntax)
    expected = {keyword: as_text(value) for keyword, value in values.items()}
    given_values = {keyword: value for keyword, value in expected.items() if any(value)}
    assert header.attributes == {**given_values, "HasPixelData": ("YES" if with_pixels else "NO",)}
    assert header.damaged == ()
    assert header.ended_at_border


def as_text(value: str | float) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value.strip(" "),)
    return (str(int(value)) if value == int(value) else repr(value),)


def written(data_set: Dataset, syntax: str) -> bytes:
    """The data set as pydicom writes it, without Part 10 header."""
    data_set.file_meta = FileMetaDataset()
    target = BytesIO()
    pydicom.dcmwrite(
        target,
        data_set,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        force_encoding=True,
    )
    return target.getvalue()
