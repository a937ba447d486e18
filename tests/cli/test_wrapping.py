"""`pacsnode wrap` as a person runs it: the commands of the docs on real files, and a wrapped picture through a node."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from tests.receive.real import Site
from tests.wrap.sources import COLON, SHARED, TWELVE, needs_shared, record, wrapped

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "endoscopy": SHARED / "gastroscopy" / "edd2020" / "images",
    "dx": SHARED / "chest_xray",
    "mg": SHARED / "mammography" / "monai_density_samples" / "D",
    "px": SHARED / "dental" / "images",
    "op": SHARED / "fundus" / "idrid" / "grading" / "test",
}
MODALITIES = {"endoscopy": "ES", "dx": "DX", "mg": "MG", "px": "PX", "op": "OP", "ecg": "ECG"}
SHOWN = re.findall(r"^\$ pacsnode (wrap .*)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pacsnode", *words], cwd=folder, capture_output=True, text=True, check=False
    )


def a_few(kind: str, folder: Path) -> Path:
    """Some real pictures of a kind, or a made-up record, in a folder of their own."""
    folder.mkdir()
    if kind == "ecg":
        samples = np.random.default_rng(1).integers(-900, 900, (12, 10_000)).astype(np.int16)
        return record(folder, samples, TWELVE).parent
    for path in sorted(SOURCES[kind].glob("*.[jp][pn]g"))[:3]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@needs_shared
@pytest.mark.parametrize("command", SHOWN, ids=lambda command: command.split()[3])
def test_every_command_of_the_docs_wraps_real_files(command: str, tmp_path: Path) -> None:
    kind = command.split()[3]
    a_few(kind, tmp_path / "FOLDER")
    (tmp_path / "ORDER.dcm").write_bytes(Path(str(get_testdata_file("CT_small.dcm", download=False))).read_bytes())
    answer = run(*command.split(), folder=tmp_path)
    assert (answer.returncode, answer.stderr) == (0, "")
    made = [pydicom.dcmread(path) for path in (tmp_path / "DICOM").iterdir()]
    assert {one.Modality for one in made} == {MODALITIES[kind]}
    assert f"{len(made)} objects of {len(made)} files in DICOM, 0 files not wrapped" in answer.stdout
    assert ("--burned-in no" in answer.stdout) == (kind in ("mg", "px", "op"))


def test_all_kinds_are_shown_in_the_docs() -> None:
    assert sorted(command.split()[3] for command in SHOWN) == sorted(MODALITIES)


def picture(path: Path) -> Path:
    """A small portable picture in colour."""
    from PIL import Image

    Image.linear_gradient("L").convert("RGB").resize((64, 48)).save(path)
    return path


WHO = ("--patient-id", "7", "--study-date", "20261101")


def test_one_bad_file_is_named_the_others_go_on_and_the_exit_code_is_one(tmp_path: Path) -> None:
    good = picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(good.read_bytes()[:100])
    answer = run("wrap", ".", "--as", "endoscopy", "--out", "out", *WHO, folder=tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.startswith("not wrapped b.png: the picture is damaged")
    assert "1 objects of 1 files in out, 1 files not wrapped" in answer.stdout
    assert len(list((tmp_path / "out").iterdir())) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--as", "ct", *WHO), "--as: is one of dx"),
        (("--as", "endoscopy"), "--patient-id: whose is it?"),
        (("--as", "endoscopy", "--patient-id", "7"), "--study-date: which examination"),
        (("--as", "dx", "--body-part", "chest", "--pixel-spacing-mm", "0.1", *WHO), "--pixel-spacing-mm: is two"),
        (("--as", "endoscopy", "--like", "a.png", "--sex", "F"), "--like: patient and study are taken from there"),
        (("--as", "ecg", *WHO), "there is no file with one of .hea"),
        (("--as", "endoscopy", "--out", "a.png", *WHO), "--out: no folder can be made there"),
    ],
)
def test_wrong_options_end_with_their_name_and_exit_code_two(
    words: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    picture(tmp_path / "a.png")
    answer = run("wrap", ".", "--out", "out", *words, folder=tmp_path)
    assert answer.returncode == 2
    assert expected in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_wrapped_picture_is_stored_by_a_node_as_it_is(tmp_path: Path) -> None:
    outcome = wrapped(picture(tmp_path / "a.jpg"), COLON, tmp_path / "out")
    sent = outcome.made[0].path
    with Site(tmp_path) as site:
        answer = run(
            "send", str(sent), "--to", f"127.0.0.1:{site.server.port}:PACSNODE", "--from", "MODALITY", folder=tmp_path
        )
        assert (answer.returncode, answer.stderr) == (0, "")
        (kept,) = site.settings.files.rglob("*.dcm")
        stored, source = pydicom.dcmread(kept), pydicom.dcmread(sent)
        assert stored == source
        assert stored.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
