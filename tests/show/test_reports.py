"""Reports made readable: ours by finding, a vendor's as its tree; nothing in them becomes markup or a control."""

from __future__ import annotations

import html.parser
from pathlib import Path

import pydicom
import pytest

from pacsnode.encode.build import encode
from pacsnode.errors import Permanent
from pacsnode.show.items import MOST_ITEMS, read_items
from pacsnode.show.lines import DEEPEST, LONGEST_VALUE, Node, clean, html_page, text_lines
from pacsnode.show.objects import OF_OTHERS, OURS, show
from pacsnode.show.report import report_nodes
from tests.encode.cases import CR, ECG, chest_findings, ecg_findings, request
from tests.show.documents import COMPREHENSIVE, content, document, header_of, hostile, nested

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "dicom_test"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data of ../shared, which is not here")


class Page(html.parser.HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def shown_in(folder: Path, path: Path, **choices: bool) -> tuple[list[str], Page]:
    folder.mkdir(exist_ok=True)
    shown = show(path, {}, folder, **choices)
    return shown.lines, Page((folder / "page.html").read_text(encoding="utf-8"))


def test_our_report_is_read_by_finding(tmp_path: Path) -> None:
    results = encode(chest_findings(), request(tmp_path, CR))
    report = next(r.path for r in results if r.kind == "sr")
    lines, page = shown_in(tmp_path / "page", report)
    text = "\n".join(lines)
    assert lines[:2] == [OURS, "Imaging Measurement Report"]
    for line in (
        "  Procedure: Plain chest X-ray",
        "  Images: 1",
        "  State: complete, unverified, preliminary",
        "  Whole image",
        "    Cardiothoracic ratio: 0.483712",
        "      Widest heart over widest lungs.",
        "    Cardiomegaly: Undetermined, probability 12.35 %",
        "      Sensitivity not measured.",
        "    Note: Pixel spacing is not known: no lengths in millimetres.",
        "  Right lung",
        "  Heart",
        "    Area, heart: 12345.7 mm2",
        "    Algorithm: chest-xray 0.1.0",
        "  About this result",
    ):
        assert line in lines, (line, text)
    assert any(line.startswith("    Referenced Segment: 2.25.") and line.endswith(" segment 1") for line in lines)
    assert "Bundle SHA-256" in text
    assert [line.strip() for line in lines if "Tracking" in line or "rules=" in line] == []
    for line in lines[2:]:
        name, _, value = line.strip().partition(": ")
        assert name in page.text and value in page.text


def test_the_tree_shows_what_the_reading_leaves_out(tmp_path: Path) -> None:
    report = next(r.path for r in encode(ecg_findings(), request(tmp_path, ECG)) if r.kind == "sr")
    lines, _ = shown_in(tmp_path / "page", report, whole_tree=True)
    assert any("Tracking Unique Identifier: 2.25." in line for line in lines)
    assert any("rules=" in line for line in lines)
    plain, _ = shown_in(tmp_path / "other", report)
    assert "    Heart rate: 61.2 /min" in plain
    assert "    Atrial fibrillation: Absent, probability 3 %" in plain
    assert any(line.startswith("    Source of Measurement: ") and line.endswith("channels 1, 0") for line in plain)


def test_no_patient_is_named(tmp_path: Path) -> None:
    lines, page = shown_in(tmp_path / "page", document(tmp_path / "a.dcm", content("TEXT", "Finding", TextValue="x")))
    for secret in ("Hong", "홍", "SECRET"):
        assert secret not in "\n".join(lines) + page.text


def test_hostile_text_is_neither_markup_nor_terminal_control(tmp_path: Path) -> None:
    lines, page = shown_in(tmp_path / "page", hostile(tmp_path / "a.dcm"))
    assert lines[0] == OF_OTHERS
    for line in lines:
        assert line.isprintable(), line
    text = "\n".join(lines)
    assert "\\x07" in text and "\\u202e" in text  # what the character set left of them is spelt
    assert not {"script", "svg", "iframe", "a", "link", "object", "form"} & set(page.tags)
    assert "img" not in page.tags  # there is no picture in a report
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("href", "src")]
    assert "<script>alert" in page.text and "<svg onload" in page.text  # it stands there, as text
    assert all(mark.isprintable() or mark in "\n" for mark in page.text)


def test_a_page_loads_nothing() -> None:
    page = html_page(Node("Report"), "warning", ["data:image/png;base64,AAAA"])
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert "http:" not in page and "https:" not in page and "url(" not in page and "@import" not in page


def test_lines_of_a_text_stand_below_each_other(tmp_path: Path) -> None:
    path = document(tmp_path / "a.dcm", content("TEXT", "Finding", TextValue="one\r\ntwo\rthree\nfour"))
    lines, page = shown_in(tmp_path / "page", path)
    start = lines.index("  Finding: one")
    assert lines[start + 1 : start + 4] == ["    two", "    three", "    four"]
    assert "one\ntwo\nthree\nfour" in page.text


@pytest.mark.parametrize(
    "text", ["a\x1b[2Jb", "a\x9b31mb", "a\u2028b", "a\u200bb", "a\ue000b", "a\x00b", "a\x85b", "a\ud800b", "a\u202eb"]
)
def test_what_is_no_letter_is_spelt(text: str) -> None:
    assert clean(text).isprintable() and clean(text).startswith("a\\") and clean(text).endswith("b")
    assert clean("홍길동 mm² 용종") == "홍길동 mm² 용종"


def test_a_long_or_deep_tree_is_cut(tmp_path: Path) -> None:
    many = [content("TEXT", "t", TextValue="x" * 9000) for _ in range(50)]
    lines, _ = shown_in(tmp_path / "page", document(tmp_path / "a.dcm", *many))
    assert max(map(len, lines)) < LONGEST_VALUE + 100
    wide = content("CONTAINER", "wide", *(content("TEXT", "t", TextValue="x") for _ in range(MOST_ITEMS + 500)))
    lines, _ = shown_in(tmp_path / "page", document(tmp_path / "b.dcm", wide, content("TEXT", "last", TextValue="x")))
    assert len(lines) < MOST_ITEMS + 50 and "the rest of the report is left out" in "\n".join(lines)
    node = Node("bottom")
    for _ in range(100):
        node = Node("level", children=(node,))
    told = list(text_lines(node))
    assert len(told) == DEEPEST + 2 and told[-1].strip() == "…"
    assert "<li>…</li>" in html_page(node, "", [])


@pytest.mark.parametrize("depth", [5, 12])
def test_a_nested_document_is_shown_as_deep_as_it_is(tmp_path: Path, depth: int) -> None:
    lines, _ = shown_in(tmp_path / "page", nested(tmp_path / "a.dcm", depth))
    assert f"{'  ' * (depth + 1)}innermost: bottom" in lines


@pytest.mark.parametrize("depth", [17, 60])
def test_a_document_that_is_nested_too_deep_is_a_sentence(tmp_path: Path, depth: int) -> None:
    path = nested(tmp_path / "a.dcm", depth)
    with pytest.raises(Permanent, match="cannot be read"):
        shown_in(tmp_path / "page", path)


def test_items_that_say_nothing_readable_are_marked(tmp_path: Path) -> None:
    path = document(
        tmp_path / "a.dcm",
        content("NUM", "number"),
        content("NUM", "empty", MeasuredValueSequence=[]),
        content("TEXT", "text"),
        content("WHAT", "unknown"),
        content("IMAGE", "image"),
        content("SCOORD", "place"),
        content("TCOORD", "time"),
        content("CODE", "code"),
    )
    told = {n.name: n.value for n in report_nodes(read_items(header_of(path)))}
    assert told["number"] == told["empty"] == "no value"
    assert told["text"] == told["unknown"] == told["image"] == "?"
    assert told["place"].strip() == "()" and told["time"] == told["code"] == ""


def test_a_korean_report_in_its_old_character_set_is_read(tmp_path: Path) -> None:
    path = document(tmp_path / "a.dcm", content("TEXT", "판독", TextValue="폐 결절"))
    dataset = pydicom.dcmread(path)
    dataset.decode()
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 149"]
    dataset.save_as(path)
    lines, _ = shown_in(tmp_path / "page", path)
    assert "  판독: 폐 결절" in lines


def test_an_image_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="not a result"):
        shown_in(tmp_path / "page", CR)


@needs_shared
def test_a_real_report_of_another_vendor_is_read() -> None:
    root = read_items(header_of(SHARED / "dcmqi" / "sr-example" / "sr.dcm"))
    lines = [line for node in report_nodes(root) for line in text_lines(node)]
    assert "Procedure: PET whole body" in lines
    assert "  Volume: 33.5824 ml" in lines
    assert "  SUVbw: 6.01529 Standardized Uptake Value body weight" in lines


@needs_shared
@pytest.mark.parametrize("name", ["sr_document.dcm", "sr_document_with_multiple_groups.dcm"])
def test_places_of_a_real_report_are_told(name: str, tmp_path: Path) -> None:
    lines, _ = shown_in(tmp_path / "page", SHARED / "highdicom" / name)
    assert not [line for line in lines if line.endswith(": ?")]
    if "multiple" in name:
        assert "    Image Region: circle (45 55, 45 65)" in lines
        assert "    Volume Surface: point (123.5 234.1 -23.7)" in lines


def test_the_sop_class_decides_what_a_report_is(tmp_path: Path) -> None:
    for number in ("11", "22", "33", "34", "50", "59", "65"):
        path = document(tmp_path / f"{number}.dcm", sop_class_uid=f"{COMPREHENSIVE[:-2]}{number}", title="Key Object")
        assert shown_in(tmp_path / f"page{number}", path)[0][1] == "Key Object"
