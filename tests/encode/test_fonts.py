"""The font that comes with the program: what it can draw, and that it is the file that its README names."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from PIL import ImageFont

from pacsnode.encode.fonts import font_path, glyphs, shown

ROOT = Path(__file__).resolve().parents[2]


def test_the_font_has_every_hangul_syllable_and_what_measurements_need() -> None:
    assert set(range(0xAC00, 0xD7A4)) <= glyphs()
    assert {ord(character) for character in "洪吉洞ABCxyz0189 ²³°±μ·×≥≤–—…“”㎜□"} <= glyphs()


def test_hangul_is_drawn_and_not_left_empty() -> None:
    font = ImageFont.truetype(font_path(), 24)
    pictures = {bytes(font.getmask(character)) for character in "홍길동뷁洪"}
    assert len(pictures) == 5 and all(any(picture) for picture in pictures)


def test_the_readme_names_this_very_file_and_the_licence_lies_beside_it() -> None:
    folder = font_path().parent
    assert hashlib.sha256(font_path().read_bytes()).hexdigest() in (folder / "README.md").read_text()
    assert "SIL OPEN FONT LICENSE" in (folder / "OFL.txt").read_text()
    assert font_path().stat().st_size < 3_000_000


def test_text_is_put_into_characters_of_the_font() -> None:
    assert shown("홍^길동 洪^吉洞") == "홍^길동 洪^吉洞"
    assert shown("\u1112\u1169\u11bc") == "홍"  # in letters, as macOS writes file names
    assert shown("5 µm − Ärger") == "5 μm - Arger"
    assert shown("a\r\n\tb\x00\u2028c") == "a b c"
    assert shown("\u202e거꾸로\u200b") == "거꾸로"
    assert shown("😀ह") == "□□"


def test_the_wheel_brings_the_font_and_its_licence(tmp_path: Path) -> None:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder
    (wheel,) = builder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"pacsnode/encode/fonts/{name}" for name in ("PacsnodeGothic.ttf", "OFL.txt", "README.md")} <= set(names)
    assert any(name.endswith(".dist-info/licenses/pacsnode/encode/fonts/OFL.txt") for name in names)
