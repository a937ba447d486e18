"""DICOM waveforms to millivolts by lead. Runs in the compute child only. PS3.3 C.10.9."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.errors import Permanent

MAXIMUM_SAMPLES = 100_000_000
_MILLIVOLTS = {"uV": 1e-3, "µV": 1e-3, "mV": 1.0, "V": 1e3}
_NUMBERS = {"1": "I", "2": "II", "61": "III", "62": "aVR", "63": "aVL", "64": "aVF"} | {
    str(n + 2): f"V{n}" for n in range(1, 7)
}
"""Lead numbers shared by the coding schemes MDC (2:n) and SCPECG (5.6.3-9-n), PS3.16 CID 3001."""
_NAMES = {name.upper(): name for name in _NUMBERS.values()}


@dataclass(frozen=True)
class Waveform:
    """One recording. `millivolts`: (leads, samples) float32."""

    sop_instance_uid: str
    leads: tuple[str, ...]
    millivolts: NDArray[np.float32]
    sampling_hz: float


def read_waveform(path: Path) -> Waveform:
    """The recording with the most channels, then the longest. Raises Permanent."""
    dataset = pydicom.dcmread(path)
    groups = list(dataset.get("WaveformSequence") or [])
    if not groups:
        raise Permanent("the object holds no waveform (a picture or PDF of an ECG cannot be measured)")
    number = max(range(len(groups)), key=lambda n: (_channels(groups[n]), int(groups[n].NumberOfWaveformSamples)))
    group = groups[number]
    if _channels(group) * int(group.NumberOfWaveformSamples) > MAXIMUM_SAMPLES:
        raise Permanent("the waveform is longer than the node reads")
    try:
        values = np.asarray(dataset.waveform_array(number), dtype=np.float32).T
        definitions = list(group.ChannelDefinitionSequence)
        leads = tuple(_lead(channel, n) for n, channel in enumerate(definitions))
        scale = np.array([_to_millivolts(channel) for channel in definitions], dtype=np.float32)
        sampling_hz = float(group.SamplingFrequency)
    except (AttributeError, ValueError, KeyError, NotImplementedError) as error:
        raise Permanent(f"the waveform cannot be decoded: {error}") from error
    return Waveform(str(dataset.SOPInstanceUID), leads, values * scale[:, None], sampling_hz)


def _channels(group: Dataset) -> int:
    return int(group.NumberOfWaveformChannels)


def _to_millivolts(channel: Dataset) -> float:
    units = channel.get("ChannelSensitivityUnitsSequence")
    if not units:
        raise ValueError("a channel has no unit")
    unit = str(units[0].CodeValue)
    if unit not in _MILLIVOLTS:
        raise ValueError(f"a channel is in {unit}, expected one of {', '.join(_MILLIVOLTS)}")
    return _MILLIVOLTS[unit]


def _lead(channel: Dataset, number: int) -> str:
    """The usual name of a lead from its code, else from the code's meaning, else channel 1, 2, …"""
    sources = channel.get("ChannelSourceSequence")
    if sources:
        source = sources[0]
        scheme, value = str(source.get("CodingSchemeDesignator", "")), str(source.get("CodeValue", ""))
        if scheme == "MDC" and value.startswith("2:") and value[2:] in _NUMBERS:
            return _NUMBERS[value[2:]]
        if scheme == "SCPECG" and value.startswith("5.6.3-9-") and value[8:] in _NUMBERS:
            return _NUMBERS[value[8:]]
        words = str(source.get("CodeMeaning", "")).upper().replace("LEAD", " ").split()
        if words and words[0] in _NAMES:
            return _NAMES[words[0]]
    label = str(channel.get("ChannelLabel", "")).upper()
    return _NAMES.get(label, f"channel {number + 1}")
