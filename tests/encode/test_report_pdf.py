"""The PDF report: what stands in it, in which script, and what hostile text cannot do to it."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pydicom
import pypdf
import pytest

from pacsnode.encode import conformance, korean, paper
from pacsnode.encode.build import _origin, encode
from pacsnode.encode.header import part_10, stamp
from pacsnode.encode.paper import Cell, Furniture, Paper
from pacsnode.encode.patient import birth_date, moment, names
from pacsnode.encode.report_pdf import pages, report_pdf
from pacsnode.errors import Permanent
from pacsnode.findings import Evaluation, Findings, Group, Presence
from tests.encode.cases import (
    CARDIOMEGALY,
    CHEST,
    CR,
    ECG,
    STARTED,
    chest_findings,
    chest_group,
    ecg_findings,
    errors_of_dciodvfy,
    read,
    request,
)
from tests.encode.marked import NAME, korean_film, marked_film


def document(findings: Findings, folder: Path, source: Path) -> pydicom.Dataset:
    return read(encode(findings, request(folder, source, results=("pdf",))), "pdf")


def text_of(content: bytes) -> list[str]:
    """The text of each page, as a reader finds it when searching."""
    return [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages]


def test_the_report_names_the_patient_in_hangul_and_says_what_was_found(tmp_path: Path) -> None:
    source = korean_film(tmp_path)
    dataset = document(marked_film(source), tmp_path, source)
    text = "\n".join(text_of(dataset.EncapsulatedDocument))
    for said in (
        "홍길동 (洪吉洞, Hong Gildong)",
        str(pydicom.dcmread(CR).PatientID),
        "1940-03-05",
        "여 / F",
        "흉부 정면",
        "2004-08-26 18:50",
        "폐렴 (Pneumonia), 왼쪽 폐 (left lung)",
        "있음 / present",
        "90 %",
        "심흉곽비 (Cardiothoracic ratio)",
        "0.484",
        "12346 mm²",
        "Nodule 결절",
        "91 %",
        "길이 (Length) 123 mm",
        "Right lung, Left lung, Heart",
        "Pixel spacing is not known: no lengths in millimetres.",
        "Widest heart over widest lungs.",
        CHEST.bundle_hash,
        CHEST.weights_hash,
        "학습된 모델, 임상 평가 없음 / trained",
        "2026-11-22 20:30:01",
    ):
        assert said in " ".join(text.split()), said


@pytest.mark.parametrize("source", [CR, ECG])
def test_every_page_warns_in_both_languages_and_has_its_number(source: Path, tmp_path: Path) -> None:
    dataset = document(chest_findings() if source == CR else ecg_findings(), tmp_path, source)
    pages_of = text_of(dataset.EncapsulatedDocument)
    assert len(pages_of) == 2
    for number, page in enumerate(pages_of, start=1):
        assert page.count("AI 결과, 미확인. 진단용이 아닙니다. / AI result, unverified. Not for diagnosis.") == 2
        assert f"쪽 / Page {number} / 2" in page


@pytest.mark.parametrize("source", [CR, ECG])
def test_the_document_is_an_encapsulated_pdf_that_validators_take(source: Path, tmp_path: Path) -> None:
    dataset = document(chest_findings() if source == CR else ecg_findings(), tmp_path, source)
    assert errors_of_dciodvfy(tmp_path / "pdf-1.dcm") == []
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
    assert (dataset.Modality, dataset.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    assert (dataset.BurnedInAnnotation, dataset.VerificationFlag) == ("YES", "UNVERIFIED")
    assert dataset.DocumentTitle.startswith("AI report, unverified: ")
    (item,) = dataset.SourceInstanceSequence
    assert item.ReferencedSOPInstanceUID == pydicom.dcmread(source, stop_before_pixels=True).SOPInstanceUID
    content = dataset.EncapsulatedDocument
    assert len(content) - dataset.EncapsulatedDocumentLength in (0, 1)
    metadata = pypdf.PdfReader(io.BytesIO(content)).metadata
    assert metadata is not None
    assert str(metadata["/CreationDate"]) == "D:20261122203001+09'00'"
    assert NAME.split("=")[2] not in str(metadata)


def test_the_font_is_embedded_and_only_what_is_used_of_it(tmp_path: Path) -> None:
    dataset = document(chest_findings(), tmp_path, CR)
    fonts = re.findall(rb"/FontName /([A-Z]+)\+PacsnodeGothic", dataset.EncapsulatedDocument)
    assert fonts and len(dataset.EncapsulatedDocument) < 1_000_000


def test_the_same_key_gives_the_same_bytes(tmp_path: Path) -> None:
    both = [encode(ecg_findings(), request(tmp_path / run, ECG, results=("pdf",)))[0].path.read_bytes() for run in "ab"]
    assert both[0] == both[1]


def test_hostile_texts_are_shown_as_text_and_bounded(tmp_path: Path) -> None:
    hostile = "</para><script>app.alert(1)</script> \\) Tj ET /JS (x) \u202eevil\u202c \x00\x1b[31m " + "W" * 9000
    dataset = pydicom.dcmread(CR)
    dataset.PatientName = "<b>Evil</b>^(x) Tj"
    dataset.StudyDescription = "/OpenAction << /S /JavaScript >>"
    dataset.save_as(tmp_path / "evil.dcm")
    many = tuple(Evaluation(CARDIOMEGALY, Presence.PRESENT, 0.5, hostile) for _ in range(300))
    group = replace(chest_group(tmp_path / "evil.dcm"), evaluations=many, notes=(hostile,) * 300, picture=None)
    made = document(Findings(CHEST, (group,)), tmp_path, tmp_path / "evil.dcm")
    assert errors_of_dciodvfy(tmp_path / "pdf-1.dcm") == []
    told = text_of(made.EncapsulatedDocument)
    assert len(told) == paper.MOST_PAGES
    assert korean.CUT in told[-1] and korean.CUT not in told[0]
    assert "<b>Evil</b>" in told[0] and "/OpenAction << /S /JavaScript >>" in told[0]
    assert "<script>app.alert(1)</script>" in "".join(told[0].split("\n"))
    assert all(character.isprintable() for page in told for character in page if character not in "\n")


def test_a_document_that_could_act_is_stopped_at_the_gate(tmp_path: Path) -> None:
    asked = request(tmp_path, CR, results=("pdf",))
    (result,) = encode(chest_findings(), asked)
    origin = _origin(chest_findings(), asked)
    stamp(report_pdf(origin), origin, "pdf", 1)  # derives the UIDs that the gate then takes for ours
    for name in (b"/OpenAction", b"/JavaScript", b"/Launch", b"/EmbeddedFile"):
        dataset = pydicom.dcmread(result.path)
        dataset.EncapsulatedDocument = dataset.EncapsulatedDocument.replace(b"/PageMode", name + b" 1 0 R /PageMode", 1)
        with pytest.raises(Permanent, match="not passive"):
            conformance.check(part_10(dataset), origin, "pdf", 1)
    dataset = pydicom.dcmread(result.path)
    dataset.EncapsulatedDocument = dataset.EncapsulatedDocument[:-200]
    with pytest.raises(Permanent, match="no whole PDF"):
        conformance.check(part_10(dataset), origin, "pdf", 1)


def test_a_case_without_findings_says_so(tmp_path: Path) -> None:
    findings = Findings(CHEST, (Group(source=chest_group().source),))
    content = pages(_origin(findings, request(tmp_path, CR, results=("pdf",))))
    assert korean.NOTHING_SAID in "\n".join(text_of(content))


def header(**elements: str) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("name", "spoken"),
    [
        (NAME, "홍길동 (洪吉洞, Hong Gildong)"),
        ("홍길동", "홍길동"),
        ("홍^길동", "홍길동"),
        ("Hong^Gildong", "Hong Gildong"),
        ("HONG GILDONG==홍^길동", "홍길동 (HONG GILDONG)"),
        ("Adams^John Robert Quincy^^Rev.^B.A.", "Rev. Adams John Robert Quincy B.A."),
        ("", "-"),
    ],
)
def test_a_name_is_told_in_hangul_first(name: str, spoken: str) -> None:
    assert names(header(PatientName=name)) == spoken


def test_dates_are_told_as_written_here_and_what_is_none_as_it_stands() -> None:
    assert birth_date(header(PatientBirthDate="19400305")) == "1940-03-05"
    with pydicom.config.disable_value_validation():
        assert birth_date(header(PatientBirthDate="1940.03.05")) == "1940-03-05"
        assert birth_date(header(PatientBirthDate="spring")) == "spring"
    assert moment(header(StudyDate="20261122", StudyTime="140501.5"), "Study") == "2026-11-22 14:05"
    assert moment(header(StudyDate="20261122"), "Study") == "2026-11-22"
    assert moment(header(), "Study") == ""


def test_a_long_word_is_broken_and_a_page_is_never_left(tmp_path: Path) -> None:
    sheet = Paper(Furniture("title", "head", "warning", "cut", "page"))
    lines = paper.wrapped("a" * 500 + " 홍길동" * 50, 9, 200)
    assert "".join(lines).replace(" ", "") == "a" * 500 + "홍길동" * 50
    sheet.table([(Cell("x" * 5000), Cell("y"))] * 3, (1, 20))
    assert len(text_of(sheet.pdf(STARTED))) == 3
