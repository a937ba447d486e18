"""Recorded leads as DICOM waveforms: 12-lead ECG where it fits, else General ECG (PS3.3 A.34.3, A.34.4).

In: a recording and which part of it. Out: the Waveform attributes of one object a part, samples as the device counted
them. What a record does not tell (filters, electrodes) stays out; never resamples, never scales a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from pacsnode.dicom.codes import MILLIVOLT, Concept
from pacsnode.errors import Permanent
from pacsnode.wrap.anatomy import coded
from pacsnode.wrap.examination import clock_of, day_of
from pacsnode.wrap.parts import Content
from pacsnode.wrap.wanted import Wanted
from pacsnode.wrap.wfdb import MISSING, Recording, Signal

TWELVE_LEAD_ECG = "1.2.840.10008.5.1.4.1.1.9.1.1"
GENERAL_ECG = "1.2.840.10008.5.1.4.1.1.9.1.2"
SLOWEST_HZ, FASTEST_HZ = 200, 1000
MOST_SAMPLES_OF_12_LEADS = 16_384
MOST_PARTS = 1000

_UNSPECIFIED = ("", Concept("2:0", "MDC", "Unspecified lead"))


def _leads() -> Iterator[tuple[str, Concept]]:
    """The usual name and the code of each lead that we know (PS3.16 CID 3001)."""
    for name, number in {"I": 1, "II": 2, "III": 61}.items():
        yield name, Concept(f"2:{number}", "MDC", f"Lead {name}")
    for number, name, meaning in ((62, "aVR", "right"), (63, "aVL", "left"), (64, "aVF", "foot")):
        yield name, Concept(f"2:{number}", "MDC", f"{name}, augmented voltage, {meaning}")
    for number, place in {3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6", 9: "V7", 66: "V8", 67: "V9"}.items():
        yield place, Concept(f"2:{number}", "MDC", f"Lead {place}")
    for number, axis in {16: "X", 17: "Y", 18: "Z"}.items():
        yield f"V{axis}", Concept(f"2:{number}", "MDC", f"Lead {axis}")
    yield "MLII", Concept("2:126", "MDC", "Modified limb lead")


LEADS = {name.upper(): (name, concept) for name, concept in _leads()}
_TWELVE = {"I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"}


def waveforms_of(recording: Recording, wanted: Wanted, examination: Dataset) -> list[Content]:
    """The objects of a recording, one a part. Raises Permanent where no kind of ECG object can hold it."""
    if not SLOWEST_HZ <= recording.sampling_hz <= FASTEST_HZ:
        raise Permanent(
            f"it is sampled at {recording.sampling_hz:g} Hz; an ECG object has {SLOWEST_HZ} to {FASTEST_HZ} Hz"
        )
    started = _started(recording, examination)
    return [_waveform(recording, first, end, started) for first, end in _parts(recording, wanted)]


def _parts(recording: Recording, wanted: Wanted) -> list[tuple[int, int]]:
    """First sample and end of each part: the whole, the one from `from_s` on, or one after the other."""
    total = recording.samples.shape[1]
    first = round((wanted.from_s or 0) * recording.sampling_hz)
    if first >= total:
        raise Permanent(f"it ends after {total / recording.sampling_hz:g} s, before the part that was asked for")
    size = total if wanted.seconds is None else round(wanted.seconds * recording.sampling_hz)
    if size < 1:
        raise Permanent("a part would be shorter than one sample")
    if wanted.from_s is not None:
        return [(first, min(first + size, total))]
    if -(-total // size) > MOST_PARTS:
        raise Permanent(f"it would become more than {MOST_PARTS} parts; make them longer")
    return [(start, min(start + size, total)) for start in range(0, total, size)]


def _started(recording: Recording, examination: Dataset) -> datetime:
    """When the recording began: by its own header, else by the study. Both are type 1 in the object."""
    day, clock = recording.day or day_of(examination), recording.clock or clock_of(examination)
    if day is None or clock is None:
        raise Permanent("the record does not say when it began; give --study-date and --study-time")
    return datetime.combine(day, clock)


def _waveform(recording: Recording, first: int, end: int, started: datetime) -> Content:
    samples = recording.samples[:, first:end]
    names = [signal.name for signal in recording.signals]
    is_twelve = len(names) == len(_TWELVE) == len(_TWELVE.intersection(names))
    begun = started + timedelta(seconds=first / recording.sampling_hz)
    dataset = Dataset()
    fits = is_twelve and samples.shape[1] <= MOST_SAMPLES_OF_12_LEADS
    dataset.SOPClassUID = TWELVE_LEAD_ECG if fits else GENERAL_ECG
    dataset.Modality = "ECG"
    dataset.InstanceNumber = None
    dataset.Manufacturer = ""
    dataset.AcquisitionContextSequence = []
    dataset.ContentDate, dataset.ContentTime = begun.strftime("%Y%m%d"), begun.strftime("%H%M%S.%f")
    dataset.AcquisitionDateTime = begun.strftime("%Y%m%d%H%M%S.%f")
    dataset.WaveformSequence = [_group(recording, samples)]
    unknown = sum(name not in LEADS for name in names)
    notes = (f"{unknown} leads with names that have no code: unspecified",) if unknown else ()
    return Content(dataset, ExplicitVRLittleEndian, "WFDB", notes)


def _group(recording: Recording, samples: NDArray[np.int16]) -> Dataset:
    """The multiplex group (PS3.3 C.10.9)."""
    group = Dataset()
    group.WaveformOriginality = "ORIGINAL"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = samples.shape
    group.SamplingFrequency = format_number_as_ds(recording.sampling_hz)
    group.ChannelDefinitionSequence = [_channel(signal, n) for n, signal in enumerate(recording.signals, start=1)]
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    if (samples == MISSING).any():
        group.WaveformPaddingValue = MISSING.to_bytes(2, "little", signed=True)
        group["WaveformPaddingValue"].VR = "OW"
    group.WaveformData = samples.T.astype("<i2").tobytes()
    group["WaveformData"].VR = "OW"
    return group


def _channel(signal: Signal, number: int) -> Dataset:
    """How a sample becomes millivolts: sample x sensitivity + baseline (PS3.3 C.10.9.1.4)."""
    channel = Dataset()
    label, lead = LEADS.get(signal.name, _UNSPECIFIED)
    channel.WaveformChannelNumber = number
    if label:
        channel.ChannelLabel = label
    channel.ChannelSourceSequence = [coded(lead)]
    channel.ChannelSensitivity = format_number_as_ds(1 / signal.units_per_mv)
    channel.ChannelSensitivityUnitsSequence = [coded(MILLIVOLT)]
    channel.ChannelSensitivityCorrectionFactor = "1"
    channel.ChannelBaseline = format_number_as_ds(-signal.baseline / signal.units_per_mv)
    channel.ChannelTimeSkew = "0"
    channel.WaveformBitsStored = 16
    return channel
