"""Results in the character set that their destination wants, and nothing of a name lost on the way."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from pacsnode.encode import charset
from pacsnode.encode.build import encode
from pacsnode.encode.normalise import read_header
from pacsnode.findings import Findings, Group
from pacsnode.handover import RESULT_KINDS, Form, ResultCharset, ResultObject
from tests.encode.cases import CHEST, CR, chest_findings, chest_group, errors_of_dciodvfy, read, request, run_tool
from tests.encode.marked import korean_film, marked_film
from tests.encode.test_identity import NAME, SHARED, iso_2022, with_raw

STANDARD = b"\\ISO 2022 IR 149"


def made(source: Path, folder: Path, wanted: ResultCharset) -> tuple[ResultObject, ...]:
    asked = replace(request(folder, source), form=Form(charset=wanted))
    return encode(chest_findings(source), asked)


def raw(path: Path, keyword: str) -> bytes | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sources declare what is no character set
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag is not None
    value = dataset.get_item(tag).value if tag in dataset else None
    return value if isinstance(value, bytes) or value is None else str(value).encode()


def test_a_destination_that_reads_euc_kr_alone_gets_it_as_the_standard_says(tmp_path: Path) -> None:
    source = with_raw(CR, tmp_path / "source.dcm", {0x00080005: b"ISO_IR 192", 0x00100010: NAME.encode()})
    results = made(source, tmp_path / "out", "korean")
    for result in results:
        assert list(pydicom.dcmread(result.path).SpecificCharacterSet) == ["", "ISO 2022 IR 149"]
        assert (raw(result.path, "PatientName") or b"").strip() == iso_2022(NAME)
        assert errors_of_dciodvfy(result.path) == []
        lines = run_tool("/usr/bin/dcmdump", "+U8", "+P", "0010,0010", str(result.path))
        assert any(f"[{NAME}]" in line for line in lines)
        assert result.form == "korean"
    assert str(read(results, "sr").PatientName) == NAME


def test_what_korean_standard_sets_cannot_say_stays_in_utf_8(tmp_path: Path) -> None:
    source = with_raw(CR, tmp_path / "source.dcm", {0x00080005: b"ISO_IR 192", 0x00100010: "똠^뷁햏".encode()})
    results = made(source, tmp_path / "out", "korean")
    for dataset in [pydicom.dcmread(result.path) for result in results]:
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert str(dataset.PatientName) == "똠^뷁햏"


@pytest.mark.parametrize(
    ("declared", "name"),
    [
        pytest.param(STANDARD, iso_2022(NAME), id="declared as the standard says"),
        pytest.param(b"", "홍^길동".encode("euc_kr"), id="EUC-KR undeclared"),
        pytest.param(b"ISO_IR 100", "홍^길동".encode("euc_kr"), id="EUC-KR called Latin-1"),
        pytest.param(b"ISO_IR 192", NAME.encode(), id="UTF-8"),
    ],
)
def test_as_the_source_means_its_very_bytes(declared: bytes, name: bytes, tmp_path: Path) -> None:
    source = with_raw(CR, tmp_path / "source.dcm", {0x00080005: declared, 0x00100010: name})
    for result in made(source, tmp_path / "out", "source"):
        for keyword in ("SpecificCharacterSet", "PatientName", "PatientID"):
            assert (raw(result.path, keyword) or b"").strip() == (raw(source, keyword) or b"").strip(), keyword
        assert str(read_header(result.path).PatientName) == str(read_header(source).PatientName)


def test_korean_words_of_ours_stay_readable_where_the_source_declares_nothing(tmp_path: Path) -> None:
    source = with_raw(CR, tmp_path / "source.dcm", {0x00080005: b"", 0x00100010: "홍^길동".encode("euc_kr")})
    findings = chest_findings(source)
    group = replace(findings.groups[0], notes=("판독 전 참고용",))
    asked = replace(request(tmp_path / "out", source), form=Form(charset="source"))
    report = read(encode(replace(findings, groups=(group,)), asked), "sr")
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert str(report.PatientName) == "홍^길동"


def test_each_form_has_uids_and_series_of_its_own(tmp_path: Path) -> None:
    found = {wanted: made(CR, tmp_path / wanted, wanted) for wanted in ("utf-8", "korean", "source")}
    objects = [result for results in found.values() for result in results]
    assert len({result.sop_instance_uid for result in objects}) == len(objects)
    assert len({result.series_instance_uid for result in objects}) == len(objects)
    again = made(CR, tmp_path / "again", "korean")
    assert [one.path.read_bytes() for one in again] == [one.path.read_bytes() for one in found["korean"]]


@pytest.mark.parametrize("wanted", ["korean", "source"])
def test_every_kind_of_result_comes_in_every_character_set(wanted: ResultCharset, tmp_path: Path) -> None:
    source = korean_film(tmp_path)
    asked = request(tmp_path / "out", source, results=RESULT_KINDS)
    (group,) = marked_film(source).groups
    inside = tuple(region for region in group.regions if region.key != "over the edge")  # which a report refuses
    findings = Findings(CHEST, (replace(group, regions=inside),))
    results = encode(findings, replace(asked, form=Form(charset=wanted)))
    assert {result.kind for result in results} == set(RESULT_KINDS)
    for result in results:
        assert errors_of_dciodvfy(result.path) == []
        assert str(read_header(result.path).PatientName) == str(read_header(source).PatientName)
        dataset = pydicom.dcmread(result.path)
        declared = dataset.SpecificCharacterSet
        # The PDF and the key objects speak Korean too: with syllables that KS X 1001 lacks they would be in UTF-8.
        assert list(declared) == ["", "ISO 2022 IR 149"] or declared == "ISO_IR 192"
        _ = [str(element.value) for element in dataset.iterall()]


@pytest.mark.parametrize("wanted", ["korean", "source"])
@pytest.mark.parametrize("path", sorted(SHARED.glob("*.dcm")), ids=lambda path: path.stem)
def test_each_korean_spelling_met_in_practice_keeps_its_name_in_every_form(
    path: Path, wanted: ResultCharset, tmp_path: Path
) -> None:
    header = read_header(path)
    size = (int(header.Rows), int(header.Columns))
    full = chest_group()
    group = Group(
        source=(str(header.SOPInstanceUID),),
        evaluations=full.evaluations,
        segments=full.segments[:1],
        label_map=np.ones((1, *size), dtype=np.uint8),
        picture=np.zeros(size, dtype=np.uint8),
    )
    asked = replace(request(tmp_path, path), form=Form(charset=wanted))
    for result in encode(Findings(CHEST, (group,)), asked):
        assert str(read_header(result.path).PatientName) == str(header.PatientName)
        assert (raw(result.path, "PatientID") or b"").strip() == (raw(path, "PatientID") or b"").strip()


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1, max_size=8))
def test_any_hangul_is_written_so_that_it_is_read_again(text: str) -> None:
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SeriesDescription = text
    is_in_set = charset._is_in_korean_set(dataset)
    assert is_in_set == all(len(one.encode("euc_kr")) == 2 for one in text)
    if is_in_set:
        assert text.encode("euc_kr").decode("cp949") == text
