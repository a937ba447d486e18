"""Made-up findings on two real sources: a CR of the chest without pixel spacing, and a 12-lead ECG."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

from pacsnode.dicom.codes import LEFT, NO_UNITS, PRIVATE_SCHEME, RIGHT, SQUARE_MILLIMETER, Concept
from pacsnode.encode.normalise import read_header
from pacsnode.findings import Algorithm, Evaluation, Findings, Group, Measurement, Presence, Segment, Trace
from pacsnode.handover import Case, EncodeRequest, NodeIdentity, ResultKind, ResultObject

CR = Path(str(get_testdata_file("RG1_UNCR.dcm")))
ECG = Path(str(get_testdata_file("waveform_ecg.dcm")))

SEOUL = timezone(timedelta(hours=9))
STARTED = datetime(2026, 11, 22, 20, 30, 1, 5, tzinfo=SEOUL)
NODE = NodeIdentity("PACSNODE", "2.25.217234723047230472304", "0.1.0")

ANATOMY = Concept("91723000", "SCT", "Anatomical Structure")
LUNG = Concept("39607008", "SCT", "Lung")
HEART = Concept("80891009", "SCT", "Heart")
AREA = Concept("42798000", "SCT", "Area")
CARDIOMEGALY = Concept("8186001", "SCT", "Cardiomegaly")
RATIO = Concept("CTR", PRIVATE_SCHEME, "Cardiothoracic ratio")

LUNGS_AND_HEART = (
    Segment(1, "Right lung", ANATOMY, LUNG, RIGHT, (70, 160, 255)),
    Segment(2, "Left lung", ANATOMY, LUNG, LEFT, (90, 220, 120)),
    Segment(3, "Heart", ANATOMY, HEART, None, (255, 90, 80)),
)

CHEST = Algorithm(
    service="chest-xray",
    title="Chest X-ray: lungs, heart, cardiothoracic ratio",
    status="trained",
    version="0.1.0",
    bundle_hash="ab" * 32,
    weights_hash="cd" * 32,
    method="Ellipses, made up for a test.",
    training_data="None.",
    quality="Not measured.",
    intended_use="Tests.",
    licence="Apache-2.0",
    device="cpu",
    procedure=Concept("399208008", "SCT", "Plain chest X-ray"),
    machine_learning=True,
)
RHYTHM = replace(
    CHEST,
    service="ecg",
    title="12-lead ECG: rate, intervals, rhythm",
    weights_hash="",
    procedure=Concept("29303009", "SCT", "Electrocardiographic procedure"),
    machine_learning=False,
)


def ellipses(rows: int, columns: int) -> NDArray[np.uint8]:
    """(1, rows, columns): two lungs and a heart, roughly where they are."""
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    x, y = x / columns, y / rows
    label_map = np.zeros((1, rows, columns), dtype=np.uint8)
    for value, (cx, cy, rx, ry) in {
        1: (0.3, 0.46, 0.18, 0.3),
        2: (0.7, 0.46, 0.18, 0.3),
        3: (0.54, 0.6, 0.14, 0.12),
    }.items():
        label_map[0][((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] = value
    return label_map


def chest_group(source: Path = CR) -> Group:
    """Findings on an image of any size."""
    dataset = pydicom.dcmread(source)
    grey = dataset.pixel_array.astype(np.float32)
    low, high = np.percentile(grey, [0.5, 99.5])
    picture = 255 * np.clip((grey - low) / (high - low), 0, 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        picture = 255 - picture
    return Group(
        source=(str(dataset.SOPInstanceUID),),
        measurements=(
            Measurement(RATIO, 0.48371234567, NO_UNITS, derivation="Widest heart over widest lungs."),
            Measurement(AREA, 0.1712, NO_UNITS, LUNG, RIGHT, "Fraction of the image: no true spacing."),
            Measurement(AREA, 12345.678, SQUARE_MILLIMETER, HEART),
        ),
        evaluations=(Evaluation(CARDIOMEGALY, Presence.UNDETERMINED, 0.123456, "Sensitivity not measured."),),
        segments=LUNGS_AND_HEART,
        notes=("Pixel spacing is not known: no lengths in millimetres.",),
        label_map=ellipses(*grey.shape),
        picture=picture.astype(np.uint8),
    )


def chest_findings(source: Path = CR) -> Findings:
    """One image, three segments, three measurements, one evaluation."""
    return Findings(CHEST, (chest_group(source),))


def ecg_findings(source: Path = ECG) -> Findings:
    """One ECG with numbers, two evaluations and a beat each second."""
    dataset = pydicom.dcmread(source)
    group = dataset.WaveformSequence[0]
    names = [c.ChannelSourceSequence[0].CodeMeaning for c in group.ChannelDefinitionSequence]
    milliseconds = Concept("ms", "UCUM", "millisecond")
    hertz = float(group.SamplingFrequency)
    trace = Trace(
        leads=tuple(str(n).removeprefix("Lead ").split(" (")[0] for n in names),
        millivolts=(dataset.waveform_array(0).T / 1000).astype(np.float32),
        sampling_hz=hertz,
        beats=tuple(int(second * hertz) for second in range(1, 10)),
    )
    found = Group(
        source=(str(dataset.SOPInstanceUID),),
        measurements=(
            Measurement(Concept("8867-4", "LN", "Heart rate"), 61.2, Concept("/min", "UCUM", "/min")),
            Measurement(Concept("2:16160", "MDC", "QT interval"), 368.0, milliseconds),
        ),
        evaluations=(
            Evaluation(Concept("49436004", "SCT", "Atrial fibrillation"), Presence.ABSENT, 0.03, "Regular."),
            Evaluation(Concept("164854000", "SCT", "Electrocardiogram normal"), Presence.UNDETERMINED),
        ),
        notes=("Beats are made up.",),
        trace=trace,
    )
    return Findings(RHYTHM, (found,))


def request(
    folder: Path,
    *sources: Path,
    results: tuple[ResultKind, ...] = ("sr", "seg", "sc"),
    predecessors: tuple[Path, ...] = (),
    key: str = "case-1",
) -> EncodeRequest:
    """What the workflow would ask for these sources."""
    headers = [read_header(path) for path in sources]
    case = Case(
        key=key,
        study_instance_uid=str(headers[0].StudyInstanceUID),
        service="chest-xray",
        rules=("chest x-ray",),
        rules_hash="12" * 32,
        instances=tuple(str(h.SOPInstanceUID) for h in headers),
        results=results,
        started_utc_us=int(STARTED.timestamp() * 1e6),
    )
    folder.mkdir(parents=True, exist_ok=True)
    return EncodeRequest(case, NODE, sources, folder, STARTED, predecessors)


def read(results: tuple[ResultObject, ...], kind: ResultKind, index: int = 1) -> pydicom.Dataset:
    """The result `index` (from 1) of its kind."""
    return pydicom.dcmread([r for r in results if r.kind == kind][index - 1].path)


def errors_of_dciodvfy(path: Path) -> list[str]:
    """Lines starting with Error; the tool's exit code says nothing."""
    return [line for line in run_tool("/usr/bin/dciodvfy", "-new", str(path)) if line.startswith("Error")]


def run_tool(*command: str) -> list[str]:
    """All lines that a tool of the DCMTK or dicom3tools prints."""
    if not Path(command[0]).exists():
        pytest.skip(f"{command[0]} is not installed (packages dcmtk, dicom3tools)")
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return re.split(r"\r?\n", done.stdout + done.stderr)
