"""One study of each kind with all its results, before the independent tools: dcentvfy, dciodvfy, dsrdump.

dcentvfy compares what objects of one patient, study, series and frame of reference say of it. It gets the sources and
every result of a study in one call; what it says of the sources alone is theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from harness import ROOT, electrocardiogram, radiograph
from numpy.typing import NDArray
from pydicom.data import get_testdata_file

from pacsnode.encode.build import encode
from pacsnode.findings import Findings, Group, Presence
from pacsnode.handover import RESULT_KINDS, Form
from pacsnode.infer.shown import of_clip, of_volume
from pacsnode.infer.volume import read_volume
from tests.encode.cases import (
    CHEST,
    CR,
    ECG,
    RHYTHM,
    chest_findings,
    ecg_findings,
    errors_of_dciodvfy,
    request,
    run_tool,
)
from tests.encode.marked import ORGAN_AND_LESION, korean_film, marked_film, one_object, stack
from tests.encode.marked import ct as ct_study
from tests.infer.bundles import saved
from tests.infer.phantoms import IDENTITY, classic, enhanced
from tests.infer.test_forms import clip_of
from tests.infer.test_zoo import coloured, scene

DCENTVFY, DSRDUMP = "/usr/bin/dcentvfy", "/usr/bin/dsrdump"
SR = "1.2.840.10008.5.1.4.1.1.88."
KEY_OBJECTS = f"{SR}59"
TRUE_COLOUR_FRAMES = "1.2.840.10008.5.1.4.1.1.7.4"
ITS_TABLES = "Warning - Different information entities for attribute - Element=<AccessionNumber> "
"""It looks for Accession Number in the study of a report and in the series of an image, and says so of anyone's."""

pytestmark = pytest.mark.skipif(not Path(DCENTVFY).exists(), reason="needs dcentvfy (Debian package dicom3tools)")

Made = tuple[Findings, Sequence[Path]]


def film(folder: Path) -> Made:
    """A chest film of a patient with a Korean name in UTF-8: segments, every shape of region, a finding."""
    source = korean_film(folder)
    dataset = pydicom.dcmread(source)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.save_as(source)
    return inside(marked_film(source)), [source]


def inside(findings: Findings) -> Findings:
    """Without the region over the edge, which a report refuses."""
    (group,) = findings.groups
    return replace(
        findings, groups=(replace(group, regions=tuple(r for r in group.regions if r.key != "over the edge")),)
    )


def quiet_film(_: Path) -> Made:
    return chest_findings(), [CR]


def rhythm(_: Path) -> Made:
    (group,) = ecg_findings().groups
    found = replace(group.evaluations[0], presence=Presence.PRESENT)
    return Findings(RHYTHM, (replace(group, evaluations=(found, *group.evaluations[1:])),)), [ECG]


def volume(folder: Path) -> Made:
    return marked_volume(classic(folder, IDENTITY))


def enhanced_volume(folder: Path) -> Made:
    return marked_volume([enhanced(folder / "one.dcm", IDENTITY, (5, 0, 7, 3, 1, 6, 2, 4))])


def real_ct(folder: Path) -> Made:
    return marked_volume(list(ct_study(folder)[1]))


def enhanced_mr(_: Path) -> Made:
    """Frames that do not say where they lie: marked one by one."""
    path = one_object("emri_small.dcm")[1]
    return marked_clip(path, stack(10, 64, 64))


def ultrasound(folder: Path) -> Made:
    path = clip_of(folder, 10)
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    saved(dataset, path)
    return marked_clip(path, stack(10, 40, 60))


def endoscopy(folder: Path) -> Made:
    made = coloured(np.stack([scene(n) for n in range(5)]), SOPClassUID=TRUE_COLOUR_FRAMES)
    made.file_meta.MediaStorageSOPClassUID = TRUE_COLOUR_FRAMES
    return marked_clip(saved(made, folder / "clip.dcm"), stack(5, 80, 120))


def colour_picture(_: Path) -> Made:
    findings, source = one_object("examples_rgb_color.dcm")
    picture = pydicom.dcmread(source).pixel_array
    return Findings(CHEST, (replace(findings.groups[0], picture=picture),)), [source]


def classification(folder: Path) -> Made:
    """Nothing is marked, something is there: SR, SC, PDF and KO, no SEG."""
    findings, sources = film(folder)
    bare = {"segments": (), "label_map": None, "measurements": (), "regions": ()}
    return Findings(CHEST, (replace(findings.groups[0], **bare),)), sources  # type: ignore[arg-type]


def marked_volume(files: list[Path]) -> Made:
    read = read_volume(files)
    planes, rows, columns = read.intensity.shape
    label_map = stack(planes, rows, columns)
    group = Group(read.source, segments=ORGAN_AND_LESION, label_map=label_map, frames=read.frames, notes=read.notes)
    return Findings(CHEST, (of_volume(group, read),)), files


def marked_clip(path: Path, label_map: NDArray[Any]) -> Made:
    uid = str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
    return Findings(CHEST, (of_clip(Group((uid,), segments=ORGAN_AND_LESION, label_map=label_map), path),)), [path]


STUDIES: dict[Callable[[Path], Made], str] = {
    film: "ko pdf pr sc seg sr",
    quiet_film: "pdf pr sc seg sr",
    rhythm: "ko pdf sc sr",
    volume: "ko pdf pr sc seg sr",
    enhanced_volume: "ko pdf pr sc seg sr",
    real_ct: "ko pdf pr sc seg sr",
    enhanced_mr: "ko pdf pr sc seg sr",
    ultrasound: "ko pdf pr sc seg sr",
    endoscopy: "ko pdf pr sc seg sr",
    colour_picture: "ko pdf pr sc seg sr",
    classification: "ko pdf sc sr",
}


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.__name__.replace("_", " "))
def test_independent_tools_find_nothing_wrong_in_a_study_with_its_results(
    study: Callable[[Path], Made], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    findings, sources = study(tmp_path / "in")
    results = encode(findings, request(tmp_path / "out", *sources, results=RESULT_KINDS))
    assert " ".join(sorted({result.kind for result in results})) == STUDIES[study]
    nothing_wrong(sources, [result.path for result in results])


def test_nor_where_a_destination_wants_the_korean_set_that_the_source_has(tmp_path: Path) -> None:
    source = korean_film(tmp_path)  # dcentvfy compares bytes: in UTF-8 the same name would be another one for it
    asked = replace(request(tmp_path / "out", source, results=RESULT_KINDS), form=Form(charset="korean"))
    nothing_wrong([source], [result.path for result in encode(inside(marked_film(source)), asked)])


def test_a_result_that_says_another_birth_date_would_be_found(tmp_path: Path) -> None:
    (result,) = encode(chest_findings(), request(tmp_path, CR, results=("sc",)))
    changed = pydicom.dcmread(result.path)
    changed.PatientBirthDate = "19000101"
    changed.save_as(tmp_path / "changed.dcm")
    assert entities([CR, result.path]) == entities([CR])
    (line,) = entities([CR, tmp_path / "changed.dcm"])
    assert line.startswith("Error - ") and "<PatientBirthDate> IE=<Patient>" in line


def test_the_one_warning_that_is_left_out_is_said_of_anyones_report_beside_an_image(tmp_path: Path) -> None:
    report = pydicom.dcmread(str(get_testdata_file("reportsi.dcm")))  # DCMTK's
    picture = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    report.AccessionNumber = "A1"
    for keyword in ("StudyInstanceUID", "PatientID", "AccessionNumber"):
        setattr(picture, keyword, report[keyword].value)
    picture.save_as(tmp_path / "picture.dcm")
    report.save_as(tmp_path / "report.dcm")
    told = run_tool(DCENTVFY, str(tmp_path / "report.dcm"), str(tmp_path / "picture.dcm"))
    assert [line for line in told if line.startswith(ITS_TABLES)]


@pytest.mark.parametrize(
    ("service", "source", "kinds"),
    [("chest-xray", radiograph(), "pdf pr sc seg sr"), ("ecg-arrhythmia", electrocardiogram(), "ko pdf sc sr")],
)
def test_nor_in_what_a_shipped_service_makes_of_a_real_study(
    service: str, source: Path, kinds: str, tmp_path: Path
) -> None:
    environment = os.environ | {"PACSNODE_HOME": str(tmp_path / "home"), "PACSNODE_MODELS": str(ROOT / "models")}
    command = [sys.executable, "-m", "pacsnode", "models", "run", service, str(source), "--out", str(tmp_path / "out")]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    made = sorted((tmp_path / "out").iterdir())
    assert " ".join(sorted({path.stem.split("-")[1] for path in made})) == kinds
    nothing_wrong([source], made)


def nothing_wrong(sources: Sequence[Path], made: Sequence[Path]) -> None:
    """No mismatch in the study, no Error in an object, every SR readable."""
    theirs = set(entities(sources))
    assert [line for line in entities([*sources, *made]) if line not in theirs] == []
    for path in made:
        assert errors_of_dciodvfy(path) == [], path.name
        sop_class = str(pydicom.dcmread(path, stop_before_pixels=True).SOPClassUID)
        if sop_class.startswith(SR):
            text = "\n".join(run_tool(DSRDUMP, "+Pl", str(path)))
            assert "E: " not in text
            assert "CONTAINER:" in text
            assert "Verification Flag   : UNVERIFIED" in text or sop_class == KEY_OBJECTS  # which have no such flag


def entities(paths: Sequence[Path]) -> list[str]:
    """What dcentvfy says of all these together; it says nothing where they agree."""
    told = run_tool(DCENTVFY, *map(str, paths))
    return [line for line in told if line.strip() and not line.startswith(ITS_TABLES)]
