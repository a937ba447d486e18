"""DICOM waveforms to millivolts by lead. Runs in the compute child only. PS3.3 C.10.9."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.errors import Permanent
from pacsnode.infer.headers import DAMAGED, numbers, one_line, positive, read_dataset, value

MAXIMUM_SAMPLES = 100_000_000
MAXIMUM_SAMPLING_HZ = 1e6
SAMPLES = {"SB": "<i1", "UB": "<u1", "SS": "<i2", "US": "<u2", "SL": "<i4", "UL": "<u4"}
"""numpy's types by Waveform Sample Interpretation."""
MOST_CHANNELS = 512
_MILLIVOLTS = {"nV": 1e-6, "uV": 1e-3, "µV": 1e-3, "mV": 1.0, "V": 1e3}
_NUMBERS = (
    {"1": "I", "2": "II", "61": "III", "62": "aVR", "63": "aVL", "64": "aVF"}
    | {str(n + 2): f"V{n}" for n in range(1, 8)}
    | {"66": "V8", "67": "V9", "68": "V8R", "69": "V9R"}
    | {str(n + 8): f"V{n}R" for n in range(2, 8)}
    | {"16": "X", "17": "Y", "18": "Z"}
)
"""Lead numbers shared by the coding schemes MDC (2:n) and SCPECG (5.6.3-9-n), PS3.16 CID 3001."""
_NAMES = {name.upper(): name for name in _NUMBERS.values()}
_LEAST_SKEW_S = 0.001
"""Shift between channels that is told; below it lies the scan of one sample through the channels."""


@dataclass(frozen=True)
class Filter:
    """What the cart took away from a lead before it was stored, in Hz; None where it does not say (PS3.3 C.10.9.1)."""

    above_hz: float | None = None
    below_hz: float | None = None
    notch_hz: float | None = None

    def __str__(self) -> str:
        parts = []
        if self.above_hz is not None:
            parts.append(f"from {self.above_hz:g} Hz")
        if self.below_hz is not None:
            parts.append(f"to {self.below_hz:g} Hz")
        if self.notch_hz is not None:
            parts.append(f"without {self.notch_hz:g} Hz")
        return " ".join(parts)


@dataclass(frozen=True)
class Waveform:
    """One recording. `millivolts`: (leads, samples) float32, finite. `notes`: what a reader must know of it.

    `filters`: of each lead, as the cart states them; the node filters nothing.
    """

    sop_instance_uid: str
    leads: tuple[str, ...]
    millivolts: NDArray[np.float32]
    sampling_hz: float
    notes: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()


def read_waveform(path: Path) -> Waveform:
    """The recording with the most channels, then the longest. Raises Permanent."""
    dataset = read_dataset(path)
    try:
        return _read(dataset)
    except DAMAGED as error:
        raise Permanent(f"the waveform cannot be decoded: {one_line(error)}") from error


def _read(dataset: Dataset) -> Waveform:
    groups = list(dataset.get("WaveformSequence") or [])
    if not groups:
        raise Permanent("the object holds no waveform (a picture or PDF of an ECG cannot be measured)")
    number = max(range(len(groups)), key=lambda n: (_channels(groups[n]), int(groups[n].NumberOfWaveformSamples)))
    group = groups[number]
    if _channels(group) > MOST_CHANNELS or _channels(group) * int(group.NumberOfWaveformSamples) > MAXIMUM_SAMPLES:
        raise Permanent("the waveform is longer than the node reads")
    sampling_hz = float(group.SamplingFrequency)
    if not 1 <= sampling_hz <= MAXIMUM_SAMPLING_HZ:
        raise Permanent(f"the waveform has an impossible sampling frequency of {sampling_hz:g} Hz")
    definitions = list(group.ChannelDefinitionSequence)
    if len(definitions) != _channels(group):
        raise Permanent(f"the waveform says {_channels(group)} channels and describes {len(definitions)}")
    leads = _distinct([_lead(channel, n) for n, channel in enumerate(definitions)])
    scale = np.array([_to_millivolts(channel) for channel in definitions], dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        millivolts = np.asarray(dataset.waveform_array(number), dtype=np.float32).T * scale[:, None]
    filters = dict(zip(leads, (_filter(channel) for channel in definitions), strict=True))
    leads, millivolts, notes = _without_padding(leads, millivolts, _padding(group, millivolts.shape))
    if not np.isfinite(millivolts).all():
        raise Permanent("the waveform holds values that are no numbers")
    kept = tuple(filters[lead] for lead in leads)
    notes = (*notes, *_filter_notes(leads, kept), *_skew_notes(definitions, sampling_hz))
    return Waveform(str(dataset.SOPInstanceUID), leads, millivolts, sampling_hz, notes, kept)


def _channels(group: Dataset) -> int:
    return int(group.NumberOfWaveformChannels)


def _distinct(leads: list[str]) -> tuple[str, ...]:
    """A name that is there twice is no name: the later channels are called by their number."""
    return tuple(f"channel {n + 1}" if lead in leads[:n] else lead for n, lead in enumerate(leads))


def _filter(channel: Dataset) -> Filter:
    """Zero is how carts say that there is none, or that they do not know."""
    keywords = ("FilterLowFrequency", "FilterHighFrequency", "NotchFilterFrequency")
    return Filter(*(positive(value(channel, keyword)) for keyword in keywords))


def _filter_notes(leads: tuple[str, ...], filters: tuple[Filter, ...]) -> tuple[str, ...]:
    """One sentence for each filter: intervals and ST segments are read from what it left."""
    told: dict[str, list[str]] = {}
    for lead, stated in zip(leads, filters, strict=True):
        if str(stated):
            told.setdefault(str(stated), []).append(lead)
    return tuple(
        f"Recorded through a filter: {stated}" + ("." if len(named) == len(leads) else f" ({', '.join(named)}).")
        for stated, named in told.items()
    )


def _skew_notes(definitions: list[Dataset], sampling_hz: float) -> tuple[str, ...]:
    """Channel Time Skew (seconds) or Sample Skew (samples), PS3.3 C.10.9.1.4."""
    skews = []
    for channel in definitions:
        seconds, samples = (numbers([value(channel, k)], 1) for k in ("ChannelTimeSkew", "ChannelSampleSkew"))
        if seconds is not None:
            skews.append(float(seconds[0]))
        elif samples is not None:
            skews.append(float(samples[0]) / sampling_hz)
        else:
            skews.append(0.0)
    apart_s = max(skews) - min(skews)
    if apart_s < _LEAST_SKEW_S:
        return ()
    return (f"The leads were not sampled at the same time: up to {apart_s * 1000:.0f} ms apart, not corrected.",)


def _padding(group: Dataset, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """(leads, samples): where nothing was recorded (Waveform Padding Value, PS3.3 C.10.9.1.4.5)."""
    padding = group.get("WaveformPaddingValue")
    kind = SAMPLES.get(str(group.get("WaveformSampleInterpretation")))
    if padding is None or kind is None:
        return np.zeros(shape, dtype=bool)
    size = np.dtype(kind).itemsize
    wanted = np.frombuffer(padding[:size], kind)[0] if isinstance(padding, bytes) else np.dtype(kind).type(padding)
    count = shape[0] * shape[1]
    stored = np.frombuffer(group.WaveformData[: count * size], kind).reshape(shape[1], shape[0])
    return np.asarray(wanted == stored.T)


def _without_padding(
    leads: tuple[str, ...], millivolts: NDArray[np.float32], padding: NDArray[np.bool_]
) -> tuple[tuple[str, ...], NDArray[np.float32], tuple[str, ...]]:
    """Padding is no signal: cut off where it lies at the ends of all leads; a lead with more of it is left out."""
    if not padding.any():
        return leads, millivolts, ()
    recorded = np.flatnonzero(~padding.all(axis=0))
    if not recorded.size:
        raise Permanent("the waveform is empty: nothing was recorded")
    kept = slice(recorded[0], recorded[-1] + 1)
    whole = np.flatnonzero(~padding[:, kept].any(axis=1))
    if not whole.size:
        raise Permanent("parts are missing in every lead of the waveform (leads recorded one after the other?)")
    left_out = [lead for n, lead in enumerate(leads) if n not in whole]
    notes = (f"Left out, since parts of it were not recorded: {', '.join(left_out)}.",) if left_out else ()
    return tuple(leads[n] for n in whole), millivolts[whole, kept], notes


def _to_millivolts(channel: Dataset) -> float:
    units = channel.get("ChannelSensitivityUnitsSequence")
    if not units:
        raise ValueError("a channel has no unit")
    unit = str(units[0].get("CodeValue", ""))
    if unit not in _MILLIVOLTS:
        raise ValueError(f"a channel is in {unit}, expected one of {', '.join(_MILLIVOLTS)}")
    return _MILLIVOLTS[unit]


def _lead(channel: Dataset, number: int) -> str:
    """The usual name of a lead from its code, else from the code's meaning, else channel 1, 2, …"""
    sources = channel.get("ChannelSourceSequence")
    if sources:
        source = sources[0]
        scheme, code = str(source.get("CodingSchemeDesignator", "")), str(source.get("CodeValue", ""))
        if scheme == "MDC" and code.startswith("2:") and code[2:] in _NUMBERS:
            return _NUMBERS[code[2:]]
        if scheme == "SCPECG" and code.startswith("5.6.3-9-") and code[8:] in _NUMBERS:
            return _NUMBERS[code[8:]]
        words = str(source.get("CodeMeaning", "")).upper().replace("LEAD", " ").split()
        if words and words[0] in _NAMES:
            return _NAMES[words[0]]
    label = str(channel.get("ChannelLabel", "")).upper()
    return _NAMES.get(label, f"channel {number + 1}")
