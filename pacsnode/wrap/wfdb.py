"""WFDB records (PhysioNet): a header file (.hea) and its signals in format 16 or 212, header(5) and signal(5) of WFDB.

In: the path of a header, which may be hostile, as may what lies beside it. Out: the samples as the device counted them,
with what they mean in millivolts. Opens only plain files in the header's own folder, and never takes over comments or
descriptions: they hold age, sex and diagnoses. The package wfdb would bring pandas, matplotlib, scipy and soundfile.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pacsnode.errors import Permanent

MISSING = -32768
"""The sample that says that nothing was recorded, in all of our samples."""
MAXIMUM_SIGNALS = 24
MAXIMUM_HEADER_BYTES = 64 * 1024
MAXIMUM_SIGNAL_BYTES = 256 * 1024 * 1024

_MISSING_212 = -2048
_UNITS_IN_MILLIVOLTS = {"": 1.0, "mV": 1.0, "mv": 1.0, "uV": 1e-3, "V": 1e3}
_NUMBER = r"[-+]?(?:\d{1,12}\.?\d{0,12}|\.\d{1,12})(?:[eE][-+]?\d{1,2})?"
_GAIN = re.compile(rf"({_NUMBER})(?:\(([-+]?\d{{1,9}})\))?(?:/(\S{{1,16}}))?", re.ASCII)
_FORMAT = re.compile(r"(\d{1,3})(?:x(\d{1,6}))?(?::(\d{1,9}))?(?:\+(\d{1,9}))?", re.ASCII)
_FREQUENCY = re.compile(rf"({_NUMBER})(?:/.*)?", re.ASCII)
_WHOLE = re.compile(r"[-+]?\d{1,12}", re.ASCII)


@dataclass(frozen=True)
class Signal:
    """One lead: millivolts = (sample - baseline) / units_per_mv. `name` is the header's description in upper case."""

    name: str
    units_per_mv: float
    baseline: int


@dataclass(frozen=True)
class Recording:
    """`samples`: (signals, samples) int16. `day` and `clock`: when it began, None where the header does not say."""

    signals: tuple[Signal, ...]
    samples: NDArray[np.int16]
    sampling_hz: float
    day: date | None
    clock: time | None


@dataclass(frozen=True)
class _Line:
    file: str
    format: int
    offset: int
    signal: Signal
    initial: int | None
    checksum: int | None


def read_record(path: Path) -> Recording:
    """The recording that a header describes. Raises Permanent with the reason."""
    record, lines = _lines(path)
    words = record.split()
    count = _whole(words[1] if len(words) > 1 else "", "number of signals")
    if "/" in words[0]:
        raise Permanent("the record is made of segments; join them first")
    if not 1 <= count <= MAXIMUM_SIGNALS or len(lines) < count:
        raise Permanent(f"the header says {count} signals and describes {len(lines)}; 1 to {MAXIMUM_SIGNALS} are read")
    sampling_hz = _frequency(words[2] if len(words) > 2 else "250")
    length = _whole(words[3], "number of samples") if len(words) > 3 else 0
    if length < 0:
        raise Permanent("the header says a negative number of samples")
    described = [_line(line) for line in lines[:count]]
    groups: dict[str, list[_Line]] = {}
    for one in described:
        groups.setdefault(one.file, []).append(one)
    parts = [_samples(path.parent / file, group, length) for file, group in groups.items()]
    if len({part.shape[1] for part in parts}) != 1:
        raise Permanent("its signal files are not of the same length")
    ordered = [one.signal for group in groups.values() for one in group]
    day, clock = _start(words)
    return Recording(tuple(ordered), np.concatenate(parts), sampling_hz, day, clock)


def _lines(path: Path) -> tuple[str, list[str]]:
    """The record line and the signal lines."""
    if path.stat().st_size > MAXIMUM_HEADER_BYTES:
        raise Permanent("the header is too long to be one")
    text = path.read_bytes().decode("latin-1")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise Permanent("the header is empty")
    return lines[0], lines[1:]


def _line(text: str) -> _Line:
    """One signal line: FILE FORMAT [GAIN [RESOLUTION [ZERO [INITIAL [CHECKSUM [BLOCK [DESCRIPTION]]]]]]]."""
    words = text.split(maxsplit=8)
    if len(words) < 3:
        raise Permanent("a signal has no calibration, so its height in mV is not known")
    if words[0] in (".", "..", "-", "~") or "/" in words[0] or "\\" in words[0] or not words[0].isprintable():
        raise Permanent("the header names a signal file that does not lie beside it")
    form = _FORMAT.fullmatch(words[1])
    if form is None or form[1] not in ("16", "212"):
        raise Permanent("a signal is neither in format 16 nor in 212")
    if int(form[2] or 1) != 1 or int(form[3] or 0) != 0:
        raise Permanent("the signals are not sampled together")
    numbers = [_whole(word, "signal line") for word in words[3:8]]
    signal = _signal(words[2], numbers, words[8] if len(words) > 8 else "")
    initial = numbers[2] if len(numbers) > 2 else None
    return _Line(words[0], int(form[1]), int(form[4] or 0), signal, initial, numbers[3] if len(numbers) > 3 else None)


def _signal(gain: str, numbers: Sequence[int], name: str) -> Signal:
    match = _GAIN.fullmatch(gain)
    units = match[3] or "" if match else ""
    if match is None or units not in _UNITS_IN_MILLIVOLTS:
        raise Permanent("a signal is not in mV, uV or V: it is no ECG")
    units_per_mv = float(match[1]) / _UNITS_IN_MILLIVOLTS[units]
    if not 1e-3 <= abs(units_per_mv) <= 1e9:
        raise Permanent("a signal has no calibration, so its height in mV is not known")
    zero = numbers[1] if len(numbers) > 1 else 0
    words = [word for word in name.upper().split() if word not in ("ECG", "LEAD")]
    return Signal(" ".join(words), units_per_mv, int(match[2]) if match[2] else zero)


def _samples(path: Path, group: Sequence[_Line], length: int) -> NDArray[np.int16]:
    """(signals, samples) of one file; its size is known before anything is made of it."""
    form, offset = group[0].format, group[0].offset
    if any((line.format, line.offset) != (form, offset) for line in group):
        raise Permanent("the signals of one file differ in format")
    if path.is_symlink() or not path.is_file():
        raise Permanent("the signal file that the header names is not there")
    size = path.stat().st_size - offset
    held = max(size, 0) // 2 if form == 16 else max(size, 0) * 2 // 3
    length = length or held // len(group)
    count = length * len(group)
    if size > MAXIMUM_SIGNAL_BYTES:
        raise Permanent(f"the signal file is larger than {MAXIMUM_SIGNAL_BYTES >> 20} MB")
    if not 0 < count <= held:
        raise Permanent(f"the header says {length} samples for each lead, the signal file holds {held // len(group)}")
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(count * 2 if form == 16 else (count * 3 + 1) // 2)
    flat = np.frombuffer(content, "<i2").astype(np.int16) if form == 16 else _format_212(content, count)
    samples = np.ascontiguousarray(flat.reshape(length, len(group)).T)
    for line, one in zip(group, samples, strict=True):
        _check(line, one)
    return np.where(samples == _MISSING_212, np.int16(MISSING), samples) if form == 212 else samples


def _format_212(content: bytes, count: int) -> NDArray[np.int16]:
    """Two samples of 12 bits in three bytes."""
    data = np.frombuffer(content.ljust((count + 1) // 2 * 3, b"\0"), np.uint8).reshape(-1, 3).astype(np.int16)
    pairs = np.stack([data[:, 0] | (data[:, 1] & 0x0F) << 8, data[:, 2] | (data[:, 1] & 0xF0) << 4], axis=1)
    return np.where(pairs >= 2048, pairs - 4096, pairs).reshape(-1)[:count].astype(np.int16)


def _check(line: _Line, samples: NDArray[np.int16]) -> None:
    """The header's own checksum, 16 bits of the sum, and its first sample."""
    if line.checksum is not None and (int(samples.sum(dtype=np.int64)) - line.checksum) % 0x10000:
        raise Permanent("the signal file is not the one that the header describes (checksum)")
    if line.initial is not None and line.checksum is not None and int(samples[0]) != line.initial:
        raise Permanent("the signal file is not the one that the header describes (first sample)")


def _frequency(word: str) -> float:
    match = _FREQUENCY.fullmatch(word)
    if match is None:
        raise Permanent("the sampling frequency cannot be read")
    return float(match[1])


def _whole(word: str, what: str) -> int:
    if not _WHOLE.fullmatch(word):
        raise Permanent(f"the {what} in the header cannot be read")
    return int(word)


def _start(words: Sequence[str]) -> tuple[date | None, time | None]:
    """Day and time of the record line; what is unreadable is not known."""
    clock = _parsed(words[4] if len(words) > 4 else "", "%H:%M:%S.%f", "%H:%M:%S")
    day = _parsed(words[5] if len(words) > 5 else "", "%d/%m/%Y")
    return day.date() if day else None, clock.time() if clock else None


def _parsed(word: str, *forms: str) -> datetime | None:
    for form in forms:
        try:
            return datetime.strptime(word, form)
        except ValueError:
            continue
    return None
