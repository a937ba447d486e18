"""`pacsnode results`: what a person sees of a result, on real objects, and that nothing in one acts on the screen."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from pacsnode.encode.build import encode
from tests.cli.test_models import Site
from tests.encode.cases import CR, ECG, chest_findings, ecg_findings, request
from tests.show.documents import hostile, nested
from tests.show.test_pictures import document as with_pdf


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The results of a real radiograph and of a real ECG."""
    folder = tmp_path_factory.mktemp("results")
    made = {r.kind: r.path for r in encode(chest_findings(), request(folder / "cr", CR))}
    return made | {f"ecg-{r.kind}": r.path for r in encode(ecg_findings(), request(folder / "ecg", ECG))}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_report_is_printed(site: Site, objects: dict[str, Path]) -> None:
    printed = site.run("results", "show", objects["sr"]).stdout.splitlines()
    assert printed[0] == "AI result, unverified. Not for diagnosis; not evaluated clinically."
    assert "    Cardiomegaly: Undetermined, probability 12.35 %" in printed
    assert "  Right lung" in printed
    assert site.run("results", "show", objects["ecg-sr"]).stdout.count("Heart rate: 61.2 /min") == 1
    assert "Tracking Unique Identifier" in site.run("results", "show", objects["sr"], "--tree").stdout


def test_a_page_is_written_for_the_user_alone_and_never_over_another_file(
    site: Site, objects: dict[str, Path], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    assert f"written: {page}" in site.run("results", "show", objects["sr"], "--html", page).stdout
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "Cardiothoracic ratio" in page.read_text() and "http" not in page.read_text().replace("http-equiv", "")
    assert "exists already" in site.run("results", "show", objects["sr"], "--html", page, code=2).stderr
    away = tmp_path / "missing" / "a.html"
    assert "cannot be written" in site.run("results", "show", objects["sr"], "--html", away, code=2).stderr


def test_outlines_lie_on_the_image(site: Site, objects: dict[str, Path], tmp_path: Path) -> None:
    without = site.run("results", "show", objects["seg"])
    assert "Not drawn: none of the images" in without.stdout
    assert "has no picture" in site.run("results", "show", objects["seg"], "--png", tmp_path / "a.png", code=2).stderr
    site.run("results", "show", objects["seg"], "--images", CR, "--png", tmp_path / "a.png")
    drawn = np.asarray(Image.open(tmp_path / "a.png")).astype(int)
    right_lung = (np.abs(drawn - (70, 160, 255)).max(axis=2) <= 2)[:, :1100]  # beside it is the legend
    columns = np.flatnonzero(right_lung.any(axis=0))
    assert columns.size and columns.max() < 600  # on the left of the picture
    answer = site.run("results", "show", objects["seg"], "--images", tmp_path / "none", code=2)
    assert "there is no such file or folder" in answer.stderr


def test_the_page_of_an_ecg_is_a_picture(site: Site, objects: dict[str, Path], tmp_path: Path) -> None:
    site.run("results", "show", objects["ecg-sc"], "--png", tmp_path / "ecg.png", "--out", tmp_path / "ecg.dcm")
    pixels = np.asarray(Image.open(tmp_path / "ecg.png"))
    assert np.array_equal(pixels, pydicom.dcmread(objects["ecg-sc"]).pixel_array)
    assert (tmp_path / "ecg.dcm").read_bytes() == objects["ecg-sc"].read_bytes()


def test_a_pdf_comes_out(site: Site, tmp_path: Path) -> None:
    made = b"%PDF-1.7\n%%EOF\n"
    path = with_pdf(tmp_path / "pdf.dcm", made + b"\0", EncapsulatedDocumentLength=len(made))
    site.run("results", "show", path, "--out", tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == made


def test_it_is_opened_from_a_private_folder(site: Site, objects: dict[str, Path], tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o700)
    site.extra = {"BROWSER": f"{browser} %s", "TMPDIR": str(tmp_path)}
    site.run("results", "show", objects["sr"], "--open")
    opened = Path((tmp_path / "opened").read_text().strip().removeprefix("file://"))
    assert opened.name == "page.html" and opened.parent.parent == tmp_path
    assert stat.S_IMODE(opened.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(opened.stat().st_mode) == 0o600
    assert "Cardiothoracic ratio" in opened.read_text()
    assert not list(tmp_path.glob("pacsnode-result-*"))  # what it worked in is gone


def test_hostile_text_neither_acts_on_the_terminal_nor_on_the_browser(site: Site, tmp_path: Path) -> None:
    answer = site.run("results", "show", hostile(tmp_path / "a.dcm"), "--html", tmp_path / "a.html", "--tree")
    assert all(line.isprintable() for line in answer.stdout.splitlines())
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(answer.stdout + answer.stderr)
    page = (tmp_path / "a.html").read_text()
    assert "<script" not in page and "<svg" not in page and "<img" not in page and "\x1b" not in page
    assert "&lt;script&gt;" in page


def test_what_cannot_be_shown_is_a_sentence(site: Site, tmp_path: Path) -> None:
    assert "not a result that can be shown" in site.run("results", "show", CR, code=1).stderr
    (tmp_path / "text.dcm").write_text("no DICOM" * 40)
    assert "cannot be read" in site.run("results", "show", tmp_path / "text.dcm", code=1).stderr
    assert "cannot be read" in site.run("results", "show", nested(tmp_path / "n.dcm", 60), code=1).stderr


def test_an_unknown_uid_is_a_sentence(site: Site) -> None:
    site.run("migrate")
    for what in ("1.2.3", "no-such-file.dcm", "abcdef012345", "../../etc/passwd", "1.2.3'; DROP TABLE results"):
        assert "there is no result, study or case" in site.run("results", "show", what, code=2).stderr
    assert site.run("results", "list").stdout == "no results\n"
    assert site.run("results", "list", "--study", "1.2.3", "--json").stdout == "[]\n"


def test_the_command_starts_without_what_draws(site: Site) -> None:
    program = "import sys, pacsnode.cli.results; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True, cwd=site.folder
    )
    assert not {"numpy", "PIL", "pydicom"} & set(loaded.stdout.split())
