"""An ECG as it came in (leads by samples, millivolts) becomes a checked Recording, or a ValueError in plain words.

Leads that cannot be used (not finite, flat, absurd amplitude) are left out with a note; nothing is repaired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

Array = NDArray[np.float64]

SHORTEST_S = 5.0
LONGEST_S = 3600.0
MOST_VALUES = 12_000_000
"""Leads times samples: 12 leads at 1000 Hz for 16 minutes; keeps the working memory below 1 GB."""

LOWEST_SAMPLING_HZ = 100.0
WORKING_HZ = 500.0
"""Faster recordings are decimated to between this and twice this: AHA/ACC/HRS 2007 ask for 500 Hz."""

FLAT_MV = 0.05
ABSURD_MV = 30.0


@dataclass(frozen=True)
class Recording:
    """Usable leads of one ECG. `millivolts` is (leads, samples) without wander (0.5 Hz high pass, zero phase).

    A sample here times `step` is a sample of the input. `still_s`: longest time in which no lead changed at all
    (digitally constant: electrodes off, or a gap filled by the device).
    """

    millivolts: Array
    leads: tuple[str, ...]
    sampling_hz: float
    step: int
    still_s: float
    notes: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return float(self.millivolts.shape[1] / self.sampling_hz)


def check(millivolts: NDArray[np.floating], leads: Sequence[str], sampling_hz: float) -> Recording:
    """The recording to work on. Raises ValueError where it cannot be analysed, with the reason."""
    if millivolts.ndim != 2 or millivolts.shape[0] == 0:
        raise ValueError("The ECG holds no lead.")
    if len(leads) != millivolts.shape[0]:
        raise ValueError("The ECG names another number of leads than it holds.")
    if not LOWEST_SAMPLING_HZ <= sampling_hz <= 100_000:
        raise ValueError(f"The ECG was sampled at {sampling_hz:g} Hz; at least 100 Hz are needed.")
    seconds = millivolts.shape[1] / sampling_hz
    if seconds < SHORTEST_S:
        raise ValueError(f"The ECG lasts {seconds:.1f} s; at least 5 s are needed.")
    if seconds > LONGEST_S:
        raise ValueError(f"The ECG lasts {seconds / 60:.0f} min; this service takes at most 60 min.")
    if millivolts.size > MOST_VALUES:
        raise ValueError("The ECG is too long for its number of leads and its sampling rate; send a part of it.")
    step = max(1, int(sampling_hz // WORKING_HZ))
    finite = np.isfinite(millivolts).all(axis=1) & (np.abs(np.nan_to_num(millivolts)).max(axis=1) < 1e4)
    traces = _without_wander(np.where(finite[:, None], millivolts, 0.0).astype(np.float64), sampling_hz, step)
    heights = np.ptp(np.percentile(traces, (0.5, 99.5), axis=1), axis=0)
    usable = finite & (heights >= FLAT_MV) & (heights <= ABSURD_MV)
    if not usable.any():
        raise ValueError("No lead of the ECG shows a signal: all are flat or unusable. Check the electrodes.")
    still_s = _longest_still(millivolts[usable]) / sampling_hz
    names = np.array([name or "unnamed" for name in leads])
    left_out = ", ".join(names[~usable])
    notes = (f"Leads left out (flat or unusable): {left_out}.",) if left_out else ()
    return Recording(traces[usable], tuple(names[usable].tolist()), sampling_hz / step, step, still_s, notes)


def _longest_still(millivolts: NDArray[np.floating]) -> int:
    """Samples in the longest stretch in which every lead keeps its value."""
    moving = np.flatnonzero((np.diff(millivolts, axis=1) != 0).any(axis=0))
    return int(np.diff(np.concatenate(([-1], moving, [millivolts.shape[1] - 1]))).max()) - 1


def _without_wander(millivolts: Array, sampling_hz: float, step: int) -> Array:
    """Decimated by `step` and high-pass filtered along the samples."""
    level = np.median(millivolts, axis=1, keepdims=True)
    decimated = signal.resample_poly(millivolts - level, 1, step, axis=1) if step > 1 else millivolts - level
    high_pass = signal.butter(2, 0.5, "highpass", fs=sampling_hz / step, output="sos")
    filtered: Array = signal.sosfiltfilt(high_pass, decimated, axis=1)
    return filtered


def low_pass(millivolts: Array, sampling_hz: float, edge_hz: float) -> Array:
    """Zero-phase second order Butterworth low pass along the last axis."""
    edge_hz = min(edge_hz, 0.4 * sampling_hz)
    sections = signal.butter(2, edge_hz, "lowpass", fs=sampling_hz, output="sos")
    filtered: Array = signal.sosfiltfilt(sections, millivolts, axis=-1)
    return filtered
