"""Patient and study of the results: equal to the source's, in whatever character set and shape it sends them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacsnode.encode.build import encode
from pacsnode.encode.normalise import read_header
from pacsnode.errors import Permanent
from pacsnode.findings import Findings, Group
from pacsnode.handover import ResultKind
from tests.encode.cases import (
    CHEST,
    CR,
    ECG,
    chest_findings,
    chest_group,
    ecg_findings,
    errors_of_dciodvfy,
    read,
    request,
    run_tool,
)

NAME = "Hong^Gildong=洪^吉洞=홍^길동"
KINDS: tuple[ResultKind, ...] = ("sr", "seg", "sc", "pdf", "pr")
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "charsets"


def iso_2022(text: str) -> bytes:
    """`text` as PS3.5 annex I wants it: the escape sequence at the start of each component with Hangul or Hanja."""
    parts = re.split("([=^])", text)
    return b"".join(p.encode() if p.isascii() else b"\x1b$)C" + p.encode("euc_kr") for p in parts)


def with_raw(source: Path, target: Path, values: dict[int, bytes]) -> Path:
    """A copy of `source` with these bytes as values, whatever they are: written by hand, Explicit VR Little Endian."""
    dataset = pydicom.dcmread(source)
    raw = {tag: value + b" " * (len(value) % 2) for tag, value in values.items()}
    for tag in raw:
        if tag in dataset:
            del dataset[tag]
    dataset.save_as(target)
    content = target.read_bytes()
    for tag, value in sorted(raw.items()):
        vr = pydicom.datadict.dictionary_VR(tag).encode()
        length = len(value).to_bytes(2, "little")
        element = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr + length + value
        content = _inserted(content, tag, element)
    target.write_bytes(content)
    return target


def _inserted(content: bytes, tag: int, element: bytes) -> bytes:
    """`content` with `element` at its place: in front of the first element with a greater tag."""
    position = 144 + int.from_bytes(content[140:144], "little")  # PS3.10 7.1: the meta information's group length
    while position < len(content):
        here = int.from_bytes(content[position : position + 2], "little") << 16
        here |= int.from_bytes(content[position + 2 : position + 4], "little")
        if here > tag:
            break
        long_form = content[position + 4 : position + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR")
        size = content[position + (8 if long_form else 6) : position + (12 if long_form else 8)]
        position += (12 if long_form else 8) + int.from_bytes(size, "little")
    return content[:position] + element + content[position:]


@pytest.mark.parametrize(
    ("declared", "raw", "expected"),
    [
        pytest.param(b"\\ISO 2022 IR 149", iso_2022(NAME), NAME, id="declared as the standard says"),
        pytest.param(b"ISO_IR 192", NAME.encode(), NAME, id="UTF-8"),
        pytest.param(b"", "홍^길동".encode("euc_kr"), "홍^길동", id="EUC-KR undeclared"),
    ],
)
def test_a_korean_name_arrives_right_in_every_object(
    declared: bytes, raw: bytes, expected: str, tmp_path: Path
) -> None:
    source = with_raw(CR, tmp_path / "source.dcm", {0x00080005: declared, 0x00100010: raw})
    before = source.read_bytes()
    results = encode(chest_findings(source), request(tmp_path / "out", source, results=KINDS))
    for kind in KINDS:
        dataset = read(results, kind)
        assert dataset.SpecificCharacterSet == "ISO_IR 192"
        assert str(dataset.PatientName) == expected
    for result in results:
        assert errors_of_dciodvfy(result.path) == []
        lines = run_tool("/usr/bin/dcmdump", "+U8", "+P", "0010,0010", str(result.path))
        assert any(f"[{expected}]" in line for line in lines)
    assert source.read_bytes() == before


@pytest.mark.parametrize("path", sorted(SHARED.glob("*.dcm")), ids=lambda path: path.stem)
def test_each_korean_spelling_met_in_practice_gives_the_same_name(path: Path, tmp_path: Path) -> None:
    expected = NAME
    if any(word in path.stem for word in ("none_euckr", "ir100", "ir6_empty", "ISO_IR_149", "KSC", "ir192_but")):
        expected = "홍^길동"
    elif "cp949_ext" in path.stem:
        expected = "똠^뷁햏"
    elif "hangul_only" in path.stem:
        expected = "홍길동"
    elif "trunc" in path.stem:
        expected = "홍길\ufffd"
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
    results = encode(Findings(CHEST, (group,)), request(tmp_path, path, results=KINDS))
    assert {str(read(results, kind).PatientName) for kind in KINDS} == {expected}


def test_the_character_set_vectors_are_here() -> None:
    if not SHARED.exists():
        pytest.skip("the 19 character set vectors do not lie beside this repository")
    assert len(list(SHARED.glob("*.dcm"))) == 19


def test_patient_and_study_are_those_of_the_source(tmp_path: Path) -> None:
    results = encode(chest_findings(), request(tmp_path, CR, results=KINDS))
    source = pydicom.dcmread(CR, stop_before_pixels=True)
    for kind in KINDS:
        dataset = read(results, kind)
        for keyword in (
            "StudyInstanceUID",
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "PatientSex",
            "AccessionNumber",
            "StudyID",
            "StudyDate",
            "StudyTime",
            "StudyDescription",
            "ReferringPhysicianName",
        ):
            assert dataset[keyword].value == source[keyword].value, keyword
        assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
        assert dataset.SeriesNumber >= 9000


TEXT = st.binary(max_size=70) | st.binary(max_size=70).map(lambda b: b"\x1b$)C" + b)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=TEXT, patient_id=TEXT, sex=TEXT, birth=TEXT, date=TEXT, description=TEXT)
def test_whatever_a_console_writes_there_the_result_has_it_too(
    name: bytes, patient_id: bytes, sex: bytes, birth: bytes, date: bytes, description: bytes, tmp_path: Path
) -> None:
    values = {
        0x00080020: date,
        0x00081030: description,
        0x00100010: name,
        0x00100020: patient_id,
        0x00100030: birth,
        0x00100040: sex,
    }
    source = with_raw(ECG, tmp_path / "source.dcm", values)
    findings = ecg_findings(ECG)
    results = encode(findings, request(tmp_path / "out", source, results=("sr",)))  # the gate compares each attribute
    assert len(results) == 1


def test_sources_of_two_patients_are_refused(tmp_path: Path) -> None:
    other = with_raw(CR, tmp_path / "other.dcm", {0x00080018: b"1.2.3.4", 0x00100020: b"SOMEONE"})
    with pytest.raises(Permanent, match="disagree in PatientID"):
        encode(chest_findings(), request(tmp_path / "out", CR, other))
