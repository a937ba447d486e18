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
LOWEST_SAMPLING_HZ = 100.0
WORKING_HZ = 500.0
"""Faster recordings are decimated to between this and twice this: AHA/ACC/HRS 2007 ask for 500 Hz."""

FLAT_MV = 0.05
ABSURD_MV = 30.0


@dataclass(frozen=True)
class Recording:
    """Usable leads of one ECG. `millivolts` is (leads, samples) without wander (0.5 Hz high pass, zero phase).

    A sample here times `step` is a sample of the input.
    """

    millivolts: Array
    leads: tuple[str, ...]
    sampling_hz: float
    step: int
    notes: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.millivolts.shape[1] / self.sampling_hz


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
    step = max(1, int(sampling_hz // WORKING_HZ))
    working_hz = sampling_hz / step
    kept, names, left_out = [], [], []
    for name, samples in zip(leads, millivolts, strict=True):
        trace = _clean(np.asarray(samples, dtype=np.float64), sampling_hz, step)
        if trace is None:
            left_out.append(name or "unnamed")
        else:
            kept.append(trace)
            names.append(name)
    if not kept:
        raise ValueError("No lead of the ECG shows a signal: all are flat or unusable. Check the electrodes.")
    notes = (f"Leads left out (flat or unusable): {', '.join(left_out)}.",) if left_out else ()
    return Recording(np.stack(kept), tuple(names), working_hz, step, notes)


def _clean(samples: Array, sampling_hz: float, step: int) -> Array | None:
    """One lead decimated and freed of wander; None where it holds no usable signal."""
    if not np.isfinite(samples).all() or np.abs(samples).max() > 1e4:
        return None
    if step > 1:
        samples = signal.resample_poly(samples - samples[0], 1, step)
    high_pass = signal.butter(2, 0.5, "highpass", fs=sampling_hz / step, output="sos")
    trace: Array = signal.sosfiltfilt(high_pass, samples - samples.mean())
    height = float(np.ptp(np.percentile(trace, (0.5, 99.5))))
    return trace if FLAT_MV <= height <= ABSURD_MV else None


def low_pass(millivolts: Array, sampling_hz: float, edge_hz: float) -> Array:
    """Zero-phase second order Butterworth low pass along the last axis."""
    edge_hz = min(edge_hz, 0.4 * sampling_hz)
    sections = signal.butter(2, edge_hz, "lowpass", fs=sampling_hz, output="sos")
    filtered: Array = signal.sosfiltfilt(sections, millivolts, axis=-1)
    return filtered
