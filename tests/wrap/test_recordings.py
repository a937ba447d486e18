"""WFDB records to ECG objects: sample by sample, valid, and nothing of a hostile header believed."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.sr.codedict import Collection

from pacsnode.errors import Permanent
from pacsnode.infer.waveform import read_waveform
from pacsnode.wrap.recordings import GENERAL_ECG, LEADS, TWELVE_LEAD_ECG
from pacsnode.wrap.wfdb import MISSING, read_record
from tests.wrap.sources import (
    ECG,
    TWELVE,
    errors_of_dciodvfy,
    mitbih,
    needs_shared,
    only,
    reason,
    record,
    wrapped,
)

# Written by the package wfdb 4.3.1 (wrsamp), with the samples that its rdrecord reads back.
BY_WFDB = {
    "w16": (
        "w16 3 500 7 10:15:30.25 01/11/2026\n"
        "w16.dat 16 200(0)/mV 16 0 19936 22354 0 II\n"
        "w16.dat 16 0.5(-3)/uV 16 0 -26519 42834 0 V1\n"
        "w16.dat 16 409.6(1024)/mV 16 0 -20516 27436 0 MLII\n"
        "# age: 61 Hong\n",
        "4E1pmNyvM75XsFFLTlyKFNmMiJoAgEjvTh7D+jLF76raL6Q6LItrnwj0",
        [[19936, -26519, -20516], [-16845, -20393, 19281], [23630, 5258, -29479], [-25976, -32768, -4280],
         [7758, -1341, -15054], [-21777, 12250, 15012], [-29908, -24725, -3064]],
    ),
    "w212": (
        "w212 3 500 7 10:15:30.25 01/11/2026\n"
        "w212.dat 212 200(0)/mV 12 0 -445 65053 0 II\n"
        "w212.dat 212 0.5(-3)/uV 12 0 1588 65316 0 V1\n"
        "w212.dat 212 409.6(1024)/mV 12 0 69 2975 0 MLII\n"
        "# age: 61 Hong\n",
        "Q240ReC55C6pY6HEzkMbAEiUjNwfYCJoJFPor3wFBwg=",
        [[-445, 1588, 69], [-327, -284, 681], [355, -1340, 974], [1051, MISSING, 1172],
         [-884, -737, 608], [616, 804, 1512], [-849, 1797, -2041]],
    ),
}  # fmt: skip


def beats(leads: int = 12, samples: int = 5000, top: int = 2000) -> NDArray[np.int16]:
    return np.random.default_rng(leads).integers(-top, top, (leads, samples)).astype(np.int16)


def stored(dataset: pydicom.Dataset) -> NDArray[np.int16]:
    """(leads, samples) as they lie in the object."""
    group = dataset.WaveformSequence[0]
    flat = np.frombuffer(group.WaveformData, "<i2")
    return np.asarray(flat.reshape(group.NumberOfWaveformSamples, group.NumberOfWaveformChannels).T)


@pytest.mark.parametrize("name", BY_WFDB)
def test_a_record_of_the_package_wfdb_is_read_sample_by_sample(name: str, tmp_path: Path) -> None:
    header, content, samples = BY_WFDB[name]
    (tmp_path / f"{name}.hea").write_text(header)
    (tmp_path / f"{name}.dat").write_bytes(base64.b64decode(content))
    read = read_record(tmp_path / f"{name}.hea")
    np.testing.assert_array_equal(read.samples.T, samples)
    assert [(s.name, s.units_per_mv, s.baseline) for s in read.signals] == [
        ("II", 200, 0), ("V1", 500, -3), ("MLII", 409.6, 1024)
    ]  # fmt: skip
    assert (str(read.day), str(read.clock)) == ("2026-11-01", "10:15:30.250000")
    outcome = wrapped(tmp_path / f"{name}.hea", ECG, tmp_path / "out", study_date="20200101")
    dataset = only(outcome)
    assert dataset.AcquisitionDateTime == "20261101101530.250000"  # the record knows better than the study
    np.testing.assert_array_equal(stored(dataset).T, samples)
    assert errors_of_dciodvfy(outcome.made[0].path) == []
    assert b"Hong " not in outcome.made[0].path.read_bytes()
    expected = (np.array(samples[0]) - [0, -3, 1024]) / [200, 500, 409.6]
    np.testing.assert_allclose(dataset.waveform_array(0)[0], expected, atol=1e-9)


def test_ten_seconds_of_twelve_leads_become_a_12_lead_ecg_that_our_model_reads(tmp_path: Path) -> None:
    samples = beats()
    outcome = wrapped(record(tmp_path, samples, TWELVE), ECG, tmp_path / "out")
    dataset = only(outcome)
    assert (dataset.SOPClassUID, dataset.Modality) == (TWELVE_LEAD_ECG, "ECG")
    np.testing.assert_array_equal(stored(dataset), samples)
    assert errors_of_dciodvfy(outcome.made[0].path) == []
    assert dataset.AcquisitionDateTime == "20261101101530.000000"
    assert "FilterLowFrequency" not in dataset.WaveformSequence[0].ChannelDefinitionSequence[0]
    read = read_waveform(outcome.made[0].path)
    assert (read.leads, read.sampling_hz) == (TWELVE, 500)
    np.testing.assert_allclose(read.millivolts, samples / 1000, atol=1e-5)


def test_wrapping_twice_gives_equal_bytes(tmp_path: Path) -> None:
    path = record(tmp_path, beats(), TWELVE)
    one, two = (wrapped(path, ECG, tmp_path / name).made[0].path for name in ("1", "2"))
    assert one.name == two.name and one.read_bytes() == two.read_bytes()


@needs_shared
@pytest.mark.parametrize("form", [16, 212])
def test_half_an_hour_of_two_leads_becomes_a_general_ecg_with_every_sample(form: int, tmp_path: Path) -> None:
    samples = mitbih("100")
    path = record(tmp_path, samples, ("MLII", "V5"), form=form, fs=360, gain="200(1024)/mV")
    outcome = wrapped(path, ECG, tmp_path / "out")
    dataset = only(outcome)
    assert dataset.SOPClassUID == GENERAL_ECG
    np.testing.assert_array_equal(stored(dataset), samples)
    np.testing.assert_allclose(dataset.waveform_array(0)[:500].T, (samples[:, :500] - 1024) / 200, atol=1e-9)
    first, second = dataset.WaveformSequence[0].ChannelDefinitionSequence
    assert (first.ChannelSensitivity, first.ChannelBaseline) == (0.005, -5.12)
    assert first.ChannelSourceSequence[0].CodeValue == "2:126"
    assert (second.ChannelLabel, second.ChannelSourceSequence[0].CodeValue) == ("V5", "2:7")
    assert errors_of_dciodvfy(outcome.made[0].path) == []


def test_a_long_record_is_cut_into_parts_that_begin_when_they_began(tmp_path: Path) -> None:
    samples = beats(samples=22_500)
    path = record(tmp_path, samples, TWELVE)
    assert only(wrapped(path, ECG, tmp_path / "whole")).SOPClassUID == GENERAL_ECG  # more than 16384 samples
    outcome = wrapped(path, replace(ECG, seconds=20), tmp_path / "parts")
    parts = [pydicom.dcmread(made.path) for made in outcome.made]
    assert [one.SOPClassUID for one in parts] == [TWELVE_LEAD_ECG] * 3
    assert [one.InstanceNumber for one in parts] == [1, 2, 3]
    assert [one.AcquisitionDateTime[8:14] for one in parts] == ["101530", "101550", "101610"]
    assert len({one.SeriesInstanceUID for one in parts}) == 1
    np.testing.assert_array_equal(np.concatenate([stored(one) for one in parts], axis=1), samples)
    assert [error for made in outcome.made for error in errors_of_dciodvfy(made.path)] == []
    one = only(wrapped(path, replace(ECG, from_s=30, seconds=10), tmp_path / "one"))
    np.testing.assert_array_equal(stored(one), samples[:, 15_000:20_000])
    rest = only(wrapped(path, replace(ECG, from_s=40), tmp_path / "rest"))
    np.testing.assert_array_equal(stored(rest), samples[:, 20_000:])
    assert "before the part" in reason(wrapped(path, replace(ECG, from_s=45), tmp_path / "none"))
    assert "more than 1000 parts" in reason(wrapped(path, replace(ECG, seconds=0.01), tmp_path / "many"))


def test_samples_that_were_not_recorded_are_said_to_be_padding(tmp_path: Path) -> None:
    samples = beats(2, 3000)
    samples[1, -1000:] = MISSING
    outcome = wrapped(record(tmp_path, samples, ("II", "V5")), ECG, tmp_path / "out")
    assert errors_of_dciodvfy(outcome.made[0].path) == []
    read = read_waveform(outcome.made[0].path)
    assert read.leads == ("II",)
    assert read.notes == ("Left out, since parts of it were not recorded: V5.",)


def test_a_lead_without_a_code_is_unspecified_and_its_words_are_not_copied(tmp_path: Path) -> None:
    outcome = wrapped(record(tmp_path, beats(2), ("Hong 010-1234", "ECG lead V2")), ECG, tmp_path / "out")
    first, second = only(outcome).WaveformSequence[0].ChannelDefinitionSequence
    assert (first.ChannelSourceSequence[0].CodeValue, "ChannelLabel" in first) == ("2:0", False)
    assert second.ChannelSourceSequence[0].CodeValue == "2:4"
    assert outcome.made[0].notes == ("1 leads with names that have no code: unspecified",)
    assert errors_of_dciodvfy(outcome.made[0].path) == []
    assert b"010-1234" not in outcome.made[0].path.read_bytes()


def test_the_lead_codes_are_those_of_the_standard() -> None:
    leads = Collection("CID3001")
    known = {getattr(leads, name).value: getattr(leads, name).meaning for name in leads.dir()}
    for _, concept in LEADS.values():
        assert known[concept.value] == concept.meaning


def test_a_record_without_its_time_needs_that_of_the_study(tmp_path: Path) -> None:
    path = record(tmp_path, beats(), TWELVE)
    assert "--study-time" in reason(wrapped(path, ECG, tmp_path / "1", study_time=""))
    dated = record(tmp_path / "b", beats(), TWELVE, start="9:05:00 03/04/2025")
    assert only(wrapped(dated, ECG, tmp_path / "2", study_time="")).AcquisitionDateTime == "20250403090500.000000"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"file": "../r.dat"}, "beside it"),
        ({"file": "/etc/passwd"}, "beside it"),
        ({"file": "..\\r.dat"}, "beside it"),
        ({"file": ".."}, "beside it"),
        ({"file": "gone.dat"}, "not there"),
        ({"file": "link.dat"}, "not there"),
        ({"count": 10**11}, "the signal file holds 5000"),
        ({"count": 5001}, "the signal file holds 5000"),
        ({"count": -1}, "negative"),
        ({"count": 10**13}, "cannot be read"),
        ({"count": 4999}, "checksum"),
        ({"leads": 25}, "1 to 24 are read"),
        ({"leads": 0}, "1 to 24 are read"),
        ({"leads": "1e3"}, "cannot be read"),
        ({"fs": 100}, "200 to 1000 Hz"),
        ({"fs": "1e12"}, "200 to 1000 Hz"),
        ({"fs": 0}, "200 to 1000 Hz"),
        ({"fs": "nan"}, "cannot be read"),
        ({"gain": "0"}, "no calibration"),
        ({"gain": "200/mmHg"}, "it is no ECG"),
        ({"gain": "inf"}, "it is no ECG"),
    ],
)
def test_a_hostile_header_is_refused_with_its_reason(said: dict[str, Any], expected: str, tmp_path: Path) -> None:
    path = record(tmp_path, beats(2), ("II", "V5"), **said)
    (tmp_path / "link.dat").symlink_to(tmp_path / "r.dat")
    assert expected in reason(wrapped(path, ECG, tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("# nothing", "empty"),
        ("r", "cannot be read"),
        ("r/3 2 500 10", "segments"),
        ("r 1 500 10\nr.dat 61 200 12 0 0 0 0 II", "neither in format 16 nor in 212"),
        ("r 1 500 10\nr.dat 16x4 200 12 0 0 0 0 II", "not sampled together"),
        ("r 1 500 10\nr.dat 16:5 200 12 0 0 0 0 II", "not sampled together"),
        ("r 1 500 10\nr.dat 16", "no calibration"),
        ("r 1 500 10\nr.dat 16+999999999 200", "the signal file holds 0"),
        ("r 1 500 10\nr.dat 16 200 x", "cannot be read"),
        ("x" * 100_000, "too long"),
    ],
)
def test_a_header_that_is_none_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    record(tmp_path, beats(2), ("II", "V5"))
    (tmp_path / "r.hea").write_text(text)
    with pytest.raises(Permanent, match=expected):
        read_record(tmp_path / "r.hea")


def test_signals_that_are_not_those_of_the_header_are_refused(tmp_path: Path) -> None:
    path = record(tmp_path, beats(), TWELVE)
    content = bytearray((tmp_path / "r.dat").read_bytes())
    content[5000] ^= 1
    (tmp_path / "r.dat").write_bytes(content)
    assert "checksum" in reason(wrapped(path, ECG, tmp_path / "out"))


def test_the_signals_alone_are_no_record(tmp_path: Path) -> None:
    record(tmp_path, beats(), TWELVE)
    assert "give the header" in reason(wrapped(tmp_path / "r.dat", ECG, tmp_path / "out"))
