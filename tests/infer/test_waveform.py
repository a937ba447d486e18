"""Waveforms to millivolts: leads by code, units, padding, several groups, damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.config
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from pacsnode.errors import Permanent
from pacsnode.infer.waveform import Filter, read_waveform

ECG = Path(str(get_testdata_file("waveform_ecg.dcm")))
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ecg" / "anonymous_12lead_ecg.dcm"
FILTERED = "Recorded through a filter: from 0.05 Hz to 300 Hz."
TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def changed(folder: Path, change: Callable[[Dataset, Dataset], Any]) -> Path:
    """pydicom's ECG after `change(dataset, its rhythm group)`."""
    dataset = pydicom.dcmread(ECG)
    change(dataset, dataset.WaveformSequence[0])
    path = folder / "changed.dcm"
    with pydicom.config.disable_value_validation():
        dataset.save_as(path)
    return path


def not_a_number(_: Dataset, group: Dataset) -> None:
    with pydicom.config.disable_value_validation():
        group.ChannelDefinitionSequence[3].ChannelSensitivity = "nan"


def refusal(path: Path) -> str:
    with pytest.raises(Permanent) as caught:
        read_waveform(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", [ECG, SHARED], ids=["pydicom", "shared"])
def test_a_twelve_lead_ecg_is_read_in_millivolts(path: Path) -> None:
    if not path.is_file():
        pytest.skip(f"the ECG is not at {path}")
    found = read_waveform(path)
    assert found.leads == TWELVE
    assert found.millivolts.shape == (12, 10000)
    assert found.millivolts.dtype == np.float32
    assert found.sampling_hz == 1000
    assert 0.5 < np.ptp(found.millivolts[1]) < 5
    stored = np.frombuffer(pydicom.dcmread(path).WaveformSequence[0].WaveformData, "<i2").reshape(10000, 12)
    assert np.allclose(found.millivolts, stored.T * 1.25e-3, atol=1e-6)
    # Einthoven: what the two files hold is an ECG and not a mix-up of channels.
    assert np.abs(found.millivolts[0] + found.millivolts[2] - found.millivolts[1]).max() < 0.01


@pytest.mark.parametrize(("unit", "factor"), [("mV", 1000.0), ("V", 1e6), ("µV", 1.0), ("nV", 1e-3)])
def test_units_are_brought_to_millivolts(tmp_path: Path, unit: str, factor: float) -> None:
    def change(_: Dataset, group: Dataset) -> None:
        for channel in group.ChannelDefinitionSequence:
            channel.ChannelSensitivityUnitsSequence[0].CodeValue = unit

    def utf_8(dataset: Dataset, group: Dataset) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 192"
        change(dataset, group)

    found = read_waveform(changed(tmp_path, utf_8))
    assert np.allclose(found.millivolts, read_waveform(ECG).millivolts * factor, rtol=1e-5)


def test_each_lead_has_its_own_sensitivity_and_baseline(tmp_path: Path) -> None:
    def change(_: Dataset, group: Dataset) -> None:
        channel = group.ChannelDefinitionSequence[6]
        channel.ChannelSensitivity = "2.5"
        channel.ChannelBaseline = "100"
        channel.ChannelSensitivityCorrectionFactor = "1"

    found, plain = read_waveform(changed(tmp_path, change)).millivolts, read_waveform(ECG).millivolts
    assert np.allclose(found[6], 2 * plain[6] + 0.1, atol=1e-5)
    assert np.array_equal(found[5], plain[5])


@pytest.mark.parametrize(
    ("scheme", "value", "meaning", "label", "lead"),
    [
        ("MDC", "2:1", "whatever", "", "I"),
        ("MDC", "2:63", "", "", "aVL"),
        ("MDC", "2:8", "", "", "V6"),
        ("MDC", "2:9", "", "", "V7"),
        ("MDC", "2:67", "", "", "V9"),
        ("MDC", "2:12", "", "", "V4R"),
        ("MDC", "2:65", "-aVR", "", "channel 1"),
        ("MDC", "2:31", "Derived Lead I", "", "channel 1"),
        ("SCPECG", "5.6.3-9-64", "", "", "aVF"),
        ("99HOUSE", "x", "Lead V3 (chest)", "", "V3"),
        ("99HOUSE", "x", "avr", "", "aVR"),
        ("99HOUSE", "2:1", "", "", "channel 1"),
        ("MDC", "2:999", "", "II", "II"),
        ("MDC", "2:999", "", "MLX", "channel 1"),
    ],
)
def test_a_lead_is_named_by_its_code(
    tmp_path: Path, scheme: str, value: str, meaning: str, label: str, lead: str
) -> None:
    def change(_: Dataset, group: Dataset) -> None:
        channel = group.ChannelDefinitionSequence[0]
        channel.ChannelLabel = label
        source = channel.ChannelSourceSequence[0]
        source.CodingSchemeDesignator, source.CodeValue, source.CodeMeaning = scheme, value, meaning

    assert read_waveform(changed(tmp_path, change)).leads[0] == lead


def test_a_lead_that_is_there_twice_is_called_by_its_channel(tmp_path: Path) -> None:
    def change(_: Dataset, group: Dataset) -> None:
        group.ChannelDefinitionSequence[2].ChannelSourceSequence[0].CodeValue = "5.6.3-9-1"

    assert read_waveform(changed(tmp_path, change)).leads[:4] == ("I", "II", "channel 3", "aVR")


def test_filters_are_told_by_lead_and_zero_is_none(tmp_path: Path) -> None:
    def change(_: Dataset, group: Dataset) -> None:
        for n, channel in enumerate(group.ChannelDefinitionSequence):
            channel.FilterHighFrequency = "40" if n < 2 else "150"
            channel.NotchFilterFrequency = "60" if n < 2 else "0"

    found = read_waveform(changed(tmp_path, change))
    assert found.notes == (
        "Recorded through a filter: from 0.05 Hz to 40 Hz without 60 Hz (I, II).",
        "Recorded through a filter: from 0.05 Hz to 150 Hz (III, aVR, aVL, aVF, V1, V2, V3, V4, V5, V6).",
    )
    assert found.filters[0] == Filter(0.05, 40.0, 60.0)
    assert found.filters[11] == Filter(0.05, 150.0, None)


@pytest.mark.parametrize(
    ("keyword", "skew", "note"),
    [
        ("ChannelSampleSkew", "20", "up to 20 ms apart, not corrected"),
        ("ChannelTimeSkew", "0.004", "up to 4 ms apart, not corrected"),
        ("ChannelTimeSkew", "0.0005", None),
        ("ChannelTimeSkew", "nan", None),
    ],
)
def test_leads_that_were_not_sampled_together_are_told(
    tmp_path: Path, keyword: str, skew: str, note: str | None
) -> None:
    def change(_: Dataset, group: Dataset) -> None:
        with pydicom.config.disable_value_validation():
            setattr(group.ChannelDefinitionSequence[5], keyword, skew)

    notes = read_waveform(changed(tmp_path, change)).notes
    assert len(notes) == 1 + (note is not None)
    assert note is None or note in notes[1]


def with_padding(leads: slice | list[int], samples: slice) -> Callable[[Dataset, Dataset], None]:
    def change(_: Dataset, group: Dataset) -> None:
        stored = np.frombuffer(group.WaveformData, "<i2").reshape(10000, 12).copy()
        stored[samples, leads] = -32768
        group.WaveformData = stored.tobytes()
        group.WaveformPaddingValue = np.int16(-32768).tobytes()
        group["WaveformPaddingValue"].VR = "OW"

    return change


def test_padding_at_the_ends_is_cut_off(tmp_path: Path) -> None:
    found = read_waveform(changed(tmp_path, with_padding(slice(None), slice(9000, None))))
    assert np.array_equal(found.millivolts, read_waveform(ECG).millivolts[:, :9000])
    assert found.notes == (FILTERED,)


def test_a_lead_with_padding_inside_is_left_out_and_named(tmp_path: Path) -> None:
    found = read_waveform(changed(tmp_path, with_padding([0, 7], slice(0, 2500))))
    assert found.leads == tuple(lead for n, lead in enumerate(TWELVE) if n not in (0, 7))
    assert np.abs(found.millivolts).max() < 10
    assert found.notes == ("Left out, since parts of it were not recorded: I, V2.", FILTERED)
    assert len(found.filters) == len(found.leads)


def test_leads_recorded_one_after_the_other_are_refused(tmp_path: Path) -> None:
    def change(dataset: Dataset, group: Dataset) -> None:
        for leads, samples in (([0, 1, 2, 3, 4, 5], slice(0, 5000)), ([6, 7, 8, 9, 10, 11], slice(5000, None))):
            with_padding(leads, samples)(dataset, group)

    assert refusal(changed(tmp_path, change)).startswith("parts are missing in every lead")


def test_a_waveform_of_padding_only_is_refused(tmp_path: Path) -> None:
    path = changed(tmp_path, with_padding(slice(None), slice(None)))
    assert refusal(path) == "the waveform is empty: nothing was recorded"


def test_of_several_groups_the_rhythm_is_read_and_not_the_median_beat(tmp_path: Path) -> None:
    def change(dataset: Dataset, _: Dataset) -> None:
        dataset.WaveformSequence = list(reversed(dataset.WaveformSequence))

    found = read_waveform(changed(tmp_path, change))
    assert np.array_equal(found.millivolts, read_waveform(ECG).millivolts)


CHANGES: list[tuple[str, Callable[[Dataset, Dataset], Any], str]] = [
    ("no groups", lambda d, g: d.__delattr__("WaveformSequence"), "the object holds no waveform"),
    ("empty", lambda d, g: setattr(d, "WaveformSequence", []), "the object holds no waveform"),
    ("no channels", lambda d, g: g.__delattr__("NumberOfWaveformChannels"), "the waveform cannot be decoded"),
    ("no data", lambda d, g: g.__delattr__("WaveformData"), "the waveform cannot be decoded"),
    ("cut", lambda d, g: setattr(g, "WaveformData", g.WaveformData[:1000]), "the waveform cannot be decoded"),
    ("long", lambda d, g: setattr(g, "NumberOfWaveformSamples", 4_000_000_000), "the waveform is longer than"),
    ("hertz", lambda d, g: setattr(g, "SamplingFrequency", "0"), "the waveform has an impossible sampling frequency"),
    ("no hertz", lambda d, g: g.__delattr__("SamplingFrequency"), "the waveform cannot be decoded"),
    ("fewer", lambda d, g: g.ChannelDefinitionSequence.pop(), "the waveform says 12 channels and describes 11"),
    (
        "one",
        lambda d, g: setattr(g, "ChannelDefinitionSequence", [g.ChannelDefinitionSequence[0]]),
        "the waveform says 12 channels and describes 1",
    ),
    (
        "no unit",
        lambda d, g: g.ChannelDefinitionSequence[3].__delattr__("ChannelSensitivityUnitsSequence"),
        "the waveform cannot be decoded: a channel has no unit",
    ),
    (
        "pressure",
        lambda d, g: setattr(g.ChannelDefinitionSequence[3].ChannelSensitivityUnitsSequence[0], "CodeValue", "mm[Hg]"),
        "the waveform cannot be decoded: a channel is in mm[Hg]",
    ),
    ("not a number", not_a_number, "the waveform holds values that are no numbers"),
]


@pytest.mark.parametrize(("change", "sentence"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_a_damaged_waveform_is_refused_with_a_sentence(
    tmp_path: Path, change: Callable[[Dataset, Dataset], Any], sentence: str
) -> None:
    assert refusal(changed(tmp_path, change)).startswith(sentence)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_but_never_a_crash(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(ECG.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(132, 9000))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(raw)
    try:
        found = read_waveform(path)
    except Permanent as refused:
        assert str(refused)
    else:
        assert np.isfinite(found.millivolts).all()
