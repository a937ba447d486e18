"""Real pictures, made-up ones, WFDB records, and what independent tools say of the objects."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.wrap.examination import Subject, examination_of
from pacsnode.wrap.making import Outcome, wrap
from pacsnode.wrap.wanted import Wanted

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data of ../shared, which is not here")
DCIODVFY = shutil.which("dciodvfy") or ""

HONG = Subject(
    "P-7",
    "Hong^Gildong=洪^吉洞=홍^길동",
    birth_date="19610305",
    sex="M",
    issuer="BUKGU-PHC",
    study_date="20261101",
    study_time="101530",
    accession="A1",
    description="흉부 정면",
)
TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

DX = Wanted("dx", body_part="chest", view="pa", pixel_spacing_mm=(0.2, 0.25), orientation=("L", "F"))
MG = Wanted("mg", view="mlo", laterality="r", pixel_spacing_mm=(0.1, 0.1), orientation=("A", "F"), burned_in="no")
PX = Wanted("px", pixel_spacing_mm=(0.1, 0.1), orientation=("L", "F"), burned_in="no")
OP = Wanted("op", laterality="l")
FUNDUS = replace(OP, device="fundus-camera", pixel_spacing_mm=(0.01, 0.01), body_part="retina")
STOMACH = Wanted("endoscopy", body_part="stomach", burned_in="yes")
COLON = Wanted("endoscopy", body_part="colon")
ECG = Wanted("ecg")


def examination(**changed: str) -> Dataset:
    """Patient and study of the tests."""
    return examination_of(replace(HONG, **changed))


def wrapped(files: Path | Sequence[Path], wanted: Wanted, out: Path, **changed: str) -> Outcome:
    """What becomes of the files."""
    return wrap([files] if isinstance(files, Path) else files, examination(**changed), wanted, out)


def only(outcome: Outcome) -> Dataset:
    """The one object that was made."""
    assert outcome.failed == ()
    (made,) = outcome.made
    return pydicom.dcmread(made.path)


def reason(outcome: Outcome) -> str:
    """Why the one file was not wrapped."""
    assert outcome.made == ()
    ((_, why),) = outcome.failed
    return why


def errors_of_dciodvfy(path: Path) -> list[str]:
    """What dicom3tools finds wrong; its exit code is not reliable."""
    if not DCIODVFY:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    answer = subprocess.run([DCIODVFY, "-new", str(path)], capture_output=True, check=False)
    text = (answer.stdout + answer.stderr).decode("utf-8", "replace")
    assert not re.search("not found|cannot", text, re.IGNORECASE), text
    return [line for line in text.splitlines() if line.startswith("Error")]


def record(
    folder: Path,
    samples: NDArray[np.int16],
    names: Sequence[str],
    *,
    form: int = 16,
    start: str = "",
    **header: str | int,
) -> Path:
    """A WFDB record of (leads, samples); what `header` gives replaces the usual fs, gain and file."""
    said = {"fs": 500, "gain": "1000(0)/mV", "file": "r.dat", "count": samples.shape[1], "leads": len(names)} | header
    folder.mkdir(parents=True, exist_ok=True)
    flat = samples.T.reshape(-1)
    (folder / "r.dat").write_bytes(flat.astype("<i2").tobytes() if form == 16 else format_212(flat))
    lines = [f"r {said['leads']} {said['fs']} {said['count']} {start}".strip()]
    for name, one in zip(names, samples, strict=True):
        checksum = int(one.sum(dtype=np.int64)) & 0xFFFF
        lines.append(f"{said['file']} {form} {said['gain']} 12 0 {one[0]} {checksum} 0 {name}")
    (folder / "r.hea").write_text("\n".join(lines) + "\n# Hong Gildong, 61 years\n")
    return folder / "r.hea"


def format_212(flat: NDArray[np.int16]) -> bytes:
    """Pairs of 12 bits in three bytes, as signal(5) of WFDB draws them."""
    content = bytearray()
    for first, second in zip(flat[::2], [*flat[1::2], 0], strict=False):
        low, high = int(first) & 0xFFF, int(second) & 0xFFF
        content += bytes((low & 0xFF, low >> 8 | (high >> 8) << 4, high & 0xFF))
    return bytes(content)


def mitbih(name: str) -> NDArray[np.int16]:
    """(2, 650000) samples of a record of the MIT-BIH Arrhythmia Database; see its SOURCE.txt."""
    with np.load(SHARED / "ecg" / "mitbih" / f"{name}.npz") as held:
        coded = held["lo"].astype("i4") | (held["hi"].astype("i4") << 8)
    return np.asarray(np.cumsum((coded >> 1) ^ -(coded & 1), axis=1).astype("i2"))
