"""Two services compared: real tables and folders of findings, figures worked out by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pacsnode import findings_files as stored
from pacsnode import schema
from pacsnode.archive import numbers
from pacsnode.archive.case_rows import Arrived, Pending
from pacsnode.archive.cases import Cases
from pacsnode.comparing import NO_NUMBERS, OTHER_VERSION, Comparison, compare
from pacsnode.database import utc_us
from pacsnode.dicom.codes import NO_UNITS, RIGHT
from pacsnode.findings import Evaluation, Findings, Group, Measurement, Presence
from pacsnode.handover import Candidate, Case, Completion
from pacsnode.readings import from_text, readings_of, to_text
from pacsnode.settings import Settings, load
from tests.encode.cases import AREA, CARDIOMEGALY, CHEST, LUNG, LUNGS_AND_HEART, RATIO

LIVE, NEXT = "chest-xray", "chest-xray-next"
NEXT_CHEST = replace(CHEST, service=NEXT, version="0.2.0", bundle_hash="ef" * 32)
DAY_S = 86400
CAME = Arrived(1, "boot", 1, ("xray-1",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load(home=tmp_path / "home")
    schema.migrate(made)
    made.runs.mkdir(parents=True, exist_ok=True)
    return made


@pytest.fixture
def cases(settings: Settings) -> Iterator[Cases]:
    made = Cases(settings.node_db)
    yield made
    made.close()


def opened(cases: Cases, service: str, study: str, *, shadow: bool = False, age_s: int = 10) -> str:
    key = f"{service}.{study}.{age_s}"
    started = utc_us() - age_s * 1_000_000
    case = Case(key, study, service, ("chest",), "rules", (f"{study}.1",), ("sr",), started)
    candidate = Candidate(study, service, ("chest",), (f"{study}.1",), ("sr",), (), 10, Completion(1.0), shadow=shadow)
    cases.open(Pending(0, candidate, "rules", CAME, False), case, "quiet")
    return key


def done(cases: Cases, settings: Settings, key: str, found: Findings) -> None:
    """As the workflow ends a case."""
    stored.save(found, settings.runs / key)
    read = readings_of(stored.load(settings.runs / key, with_arrays=False))
    cases.add_results(key, [], lambda connection: numbers.enter(connection, key, read), is_last=True)


def group(study: str, ratio: float, presence: Presence, label_map: NDArray[np.uint8] | None = None) -> Group:
    return Group(
        source=(f"{study}.1",),
        measurements=(Measurement(RATIO, ratio, NO_UNITS),),
        evaluations=(Evaluation(CARDIOMEGALY, presence, 0.5, "Kim^Minsu must not be shown"),),
        segments=LUNGS_AND_HEART if label_map is not None else (),
        label_map=label_map,
    )


def row(*values: int) -> NDArray[np.uint8]:
    return np.array([[values]], dtype=np.uint8)


PRESENT, ABSENT, UNDETERMINED = Presence.PRESENT, Presence.ABSENT, Presence.UNDETERMINED
WEEK: Sequence[tuple[tuple[float, Presence], tuple[float, Presence]]] = (
    ((0.50, PRESENT), (0.48, PRESENT)),
    ((0.50, PRESENT), (0.51, ABSENT)),
    ((0.40, ABSENT), (0.43, ABSENT)),
    ((0.40, UNDETERMINED), (0.46, ABSENT)),
)


def a_week(cases: Cases, settings: Settings) -> None:
    """Four studies that both read."""
    for number, (live, shadow) in enumerate(WEEK, 1):
        study = f"1.2.{number}"
        done(cases, settings, opened(cases, LIVE, study), Findings(CHEST, (group(study, *live),)))
        key = opened(cases, NEXT, study, shadow=True)
        done(cases, settings, key, Findings(NEXT_CHEST, (group(study, *shadow),)))


def compared(settings: Settings, since_s: int = 7 * DAY_S, limit: int = 100) -> Comparison:
    return compare(settings, (LIVE, NEXT), since_s, limit)


def test_numbers_and_findings_are_those_worked_out_by_hand(settings: Settings, cases: Cases) -> None:
    a_week(cases, settings)
    made = compared(settings)
    assert (made.studies, made.said.inputs, made.by_one, dict(made.left_out)) == (4, 4, (0, 0), {})
    (ratio,) = made.said.numbers
    assert ratio.words == "Cardiothoracic ratio"
    assert ratio.spread.count == 4
    assert ratio.spread.mean == pytest.approx(0.02)
    assert ratio.spread.sd == pytest.approx(0.03366502)
    assert ratio.spread.limits == pytest.approx((0.02 - 1.96 * 0.03366502, 0.02 + 1.96 * 0.03366502))
    assert ratio.extreme == pytest.approx(0.06)
    assert ratio.study == "1.2.4"
    (table,) = made.said.findings
    assert table.counts == {
        ("present", "present"): 1,
        ("present", "absent"): 1,
        ("absent", "absent"): 1,
        ("undetermined", "absent"): 1,
    }
    assert table.kappa == pytest.approx((0.5 - 5 / 16) / (1 - 5 / 16))  # by chance (2 * 1 + 1 * 3) / 16
    assert made.made_by[1] is not None
    assert (made.made_by[1].version, made.made_by[1].devices) == ("0.2.0", ("cpu",))


def test_dice_of_each_label_of_which_both_label_maps_are_kept(settings: Settings, cases: Cases) -> None:
    maps = {
        "1.2.1": (row(1, 1, 2, 2, 0, 0), row(1, 0, 2, 2, 0, 0)),  # right 2/3, left 1
        "1.2.2": (row(1, 1, 2, 2, 0, 0), row(1, 1, 0, 2, 2, 0)),  # right 1, left 1/2
        "1.2.3": (row(1, 1, 2, 2, 0, 0), row(1, 1, 2, 2)),  # another grid
        "1.2.4": (row(1, 1, 2, 2, 0, 0), row(1, 1, 2, 2, 0, 0)),  # freed
    }
    for study, (live, shadow) in maps.items():
        done(cases, settings, opened(cases, LIVE, study), Findings(CHEST, (group(study, 0.5, PRESENT, live),)))
        key = opened(cases, NEXT, study, shadow=True)
        done(cases, settings, key, Findings(NEXT_CHEST, (group(study, 0.5, PRESENT, shadow),)))
    shutil.rmtree(settings.runs / key)
    made = compared(settings).outlines
    assert (made.studies, made.freed, made.off_grid) == (3, 1, 1)
    found = {figure.words: figure for figure in made.labels}
    assert sorted(found) == ["Left lung", "Right lung"]  # neither marked a heart
    assert found["Right lung"].spread.mean == pytest.approx((2 / 3 + 1) / 2)
    assert found["Right lung"].extreme == pytest.approx(2 / 3)
    assert found["Right lung"].study == "1.2.1"
    assert (found["Left lung"].extreme, found["Left lung"].study) == (0.5, "1.2.2")


def test_labels_that_a_new_version_numbers_otherwise_are_paired_by_their_codes(
    settings: Settings, cases: Cases
) -> None:
    swapped = tuple(replace(one, value={1: 2, 2: 1, 3: 3}[one.value]) for one in LUNGS_AND_HEART)
    mine, other = group("1.2.1", 0.5, PRESENT, row(1, 1, 2)), group("1.2.1", 0.5, PRESENT, row(2, 2, 1))
    done(cases, settings, opened(cases, LIVE, "1.2.1"), Findings(CHEST, (mine,)))
    key = opened(cases, NEXT, "1.2.1")
    done(cases, settings, key, Findings(NEXT_CHEST, (replace(other, segments=swapped),)))
    assert [figure.spread.mean for figure in compared(settings).outlines.labels] == [1.0, 1.0]


def test_numbers_outlive_the_folders_and_are_forgotten_in_the_end(settings: Settings, cases: Cases) -> None:
    a_week(cases, settings)
    shutil.rmtree(settings.runs)
    assert compared(settings).said.numbers[0].spread.count == 4
    with cases.transaction() as connection:
        assert numbers.forget(connection, utc_us() - DAY_S * 1_000_000) == 0
        assert numbers.forget(connection, utc_us() + 1) == 8
    made = compared(settings)
    assert (made.studies, made.said.numbers, dict(made.left_out)) == (0, (), {NO_NUMBERS: 4})


def test_failures_of_either_are_told_with_their_reasons(settings: Settings, cases: Cases) -> None:
    a_week(cases, settings)
    done(cases, settings, opened(cases, LIVE, "1.2.8"), Findings(CHEST, (group("1.2.8", 0.5, PRESENT),)))
    cases.park(opened(cases, NEXT, "1.2.8", shadow=True), 1, "the model failed")
    cases.park(opened(cases, LIVE, "1.2.9"), 1, "no pixel data")
    cases.park(opened(cases, NEXT, "1.2.9", shadow=True), 1, "no pixel data")
    made = compared(settings)
    assert made.studies == 4
    told = sorted((one.study, one.service, one.reason, one.other) for one in made.parked)
    assert told == [
        ("1.2.8", NEXT, "the model failed", "done"),
        ("1.2.9", LIVE, "no pixel data", "parked"),
        ("1.2.9", NEXT, "no pixel data", "parked"),
    ]


def test_what_one_version_alone_says_or_says_twice_is_told_and_not_compared(settings: Settings, cases: Cases) -> None:
    twice = (Measurement(AREA, 1.0, NO_UNITS, LUNG, RIGHT), Measurement(AREA, 2.0, NO_UNITS, LUNG, RIGHT))
    mine = group("1.2.1", 0.5, PRESENT)
    done(cases, settings, opened(cases, LIVE, "1.2.1"), Findings(CHEST, (replace(mine, measurements=twice),)))
    done(cases, settings, opened(cases, NEXT, "1.2.1"), Findings(NEXT_CHEST, (mine,)))
    said = compared(settings).said
    assert said.numbers == ()
    assert said.only == ({}, {"Cardiothoracic ratio": 1})
    assert said.repeated == {"Area (right lung)": 1}


def test_only_the_newest_version_of_each_side_counts(settings: Settings, cases: Cases) -> None:
    a_week(cases, settings)
    old = replace(NEXT_CHEST, bundle_hash="00" * 32, version="0.1.9")
    study = "1.2.7"
    done(cases, settings, opened(cases, LIVE, study, age_s=60), Findings(CHEST, (group(study, 0.5, PRESENT),)))
    done(cases, settings, opened(cases, NEXT, study, age_s=60), Findings(old, (group(study, 0.9, PRESENT),)))
    made = compared(settings)
    assert (made.studies, dict(made.left_out)) == (4, {OTHER_VERSION: 1})


def test_since_and_limit_take_the_newest_studies(settings: Settings, cases: Cases) -> None:
    for number in range(1, 6):
        study = f"1.2.{number}"
        for service, algorithm in ((LIVE, CHEST), (NEXT, NEXT_CHEST)):
            key = opened(cases, service, study, age_s=number * DAY_S)
            done(cases, settings, key, Findings(algorithm, (group(study, float(number), PRESENT),)))
    opened(cases, LIVE, "1.3", age_s=5)  # waits
    done(cases, settings, opened(cases, LIVE, "1.4"), Findings(CHEST, (group("1.4", 0.5, PRESENT),)))
    assert compared(settings, round(3.5 * DAY_S)).studies == 3
    made = compared(settings, limit=2)
    assert (made.studies, made.by_one) == (2, (1, 0))


def test_readings_come_back_as_they_were_written() -> None:
    said = (Measurement(AREA, 0.1, NO_UNITS, LUNG, RIGHT), Measurement(RATIO, 1 / 3, NO_UNITS))
    read = readings_of(Findings(CHEST, (replace(group("1.2.1", 0.5, ABSENT, row(1)), measurements=said),)))
    again = from_text(to_text(read))
    assert again == read
    assert [subject.words for subject in again.inputs[0].numbers] == ["Area (right lung)", "Cardiothoracic ratio"]
    assert "Kim" not in to_text(read)
    assert len(to_text(read)) < 1000


def command(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pacsnode", "models", "compare", *words],
        env=os.environ | {"PACSNODE_HOME": str(settings.home)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_says_the_same_to_people_and_as_json(settings: Settings, cases: Cases) -> None:
    a_week(cases, settings)
    cases.park(opened(cases, NEXT, "1.2.9", shadow=True), 1, "the model failed")
    cases.park(opened(cases, LIVE, "1.2.9"), 1, "no pixel data")
    told = command(settings, LIVE, NEXT)
    assert told.returncode == 0, told.stderr
    for words in (
        "compared        4 studies, inputs: 4",
        "Cardiothoracic ratio: n 4, mean +0.02, SD 0.03367",
        "limits of agreement -0.04598 to +0.08598",
        "largest +0.06 in 1.2.4",
        "Cardiomegaly: n 4, kappa 0.273",
        "parked          1 of chest-xray-next",
        "1.2.9  chest-xray-next: the model failed (the other: parked)",
    ):
        assert words in told.stdout, told.stdout
    plain = json.loads(command(settings, LIVE, NEXT, "--since", "12h", "--json").stdout)
    assert plain["numbers"][0]["limits_of_agreement"] == pytest.approx([-0.0459834, 0.0859834], abs=1e-6)
    assert plain["made_by"][NEXT]["bundle_hash"] == "ef" * 32
    assert len(plain["parked"]) == 2
    assert "Kim" not in told.stdout + json.dumps(plain)


def test_a_misspelt_service_and_one_service_twice_are_mistakes(settings: Settings, cases: Cases) -> None:
    a_week(cases, settings)
    assert "no case of chest-xry has ended since 7d" in command(settings, LIVE, "chest-xry").stderr
    for words in ((LIVE, "chest-xry"), (LIVE, LIVE), (LIVE, NEXT, "--since", "soon")):
        answer = command(settings, *words)
        assert (answer.returncode, "Traceback" in answer.stderr) == (2, False)
