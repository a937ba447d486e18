"""PR, QRS and QT on the median beat of all leads; what cannot be measured is left out, never guessed.

Onset and end of the QRS and onset of P: the spatial velocity falls below a fraction of its maximum (derivative
thresholds after Laguna, Jane and Caminal, Comput Biomed Res 1994;27:45-60, on the summed leads). End of T: the
tangent at its steepest downslope meets the level before the QRS (Lepeschkin and Surawicz, Circulation
1952;6:378-388), median over the leads with a measurable T. Checked on drawn ECGs and one real cart ECG only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .morphology import Shapes
from .signals import Array, Recording, low_pass

BEFORE_S = 0.40
AFTER_S = 0.60
FEWEST_BEATS = 3
QRS_HZ = 60.0
P_HZ = 20.0
T_HZ = 20.0
QRS_ON_FRACTION = 0.06
QRS_OFF_FRACTION = 0.06
QUIET_S = 0.012
P_LONGEST_S = 0.30
P_ON_FRACTION = 0.25
P_LEAST_MV = 0.03
P_LEAST_SIGNAL = 4.0  # times the noise of the median; tells P waves from none on MIT-BIH records not held out
T_LEAST_MV = 0.08
T_LEAST_SIGNAL = 6.0


@dataclass(frozen=True)
class MedianBeat:
    """`millivolts`: (leads, samples), QRS near `origin`; `noise_mv`: standard error of each lead's median."""

    millivolts: Array
    noise_mv: Array
    origin: int
    sampling_hz: float
    shortest_rr_s: float


@dataclass(frozen=True)
class Intervals:
    """Seconds; None where not measurable. `p_wave`: whether a P wave was seen, None where it cannot be said.

    `p_upright`: whether the P wave of lead II points up, None without it.
    """

    pr_s: float | None = None
    qrs_s: float | None = None
    qt_s: float | None = None
    p_wave: bool | None = None
    p_signal: float = 0.0
    p_upright: bool | None = None


def median_beat(recording: Recording, shapes: Shapes) -> MedianBeat | None:
    """Median of the usual beats that lie wholly inside the recording; None with fewer than three."""
    hz = recording.sampling_hz
    before, after = int(BEFORE_S * hz), int(AFTER_S * hz)
    intervals = np.diff(shapes.samples)
    typical = float(np.median(intervals)) if len(intervals) else 0.0
    settled = np.concatenate(([True], intervals > 0.7 * typical))
    room = (shapes.samples >= before) & (shapes.samples < recording.millivolts.shape[1] - after)
    chosen = shapes.samples[shapes.usual & settled & room]
    if len(chosen) < FEWEST_BEATS:
        return None
    pieces = recording.millivolts[:, chosen[:, None] + np.arange(-before, after)]
    level = np.median(pieces[:, :, before - int(0.10 * hz) : before - int(0.05 * hz)], axis=2, keepdims=True)
    pieces = pieces - level
    beat = np.median(pieces, axis=1)
    noise = np.median(np.abs(pieces - beat[:, None]), axis=(1, 2)) * 1.4826 * 1.25 / np.sqrt(len(chosen))
    return MedianBeat(beat, noise, before, hz, typical / hz)


def measure(beat: MedianBeat, leads: tuple[str, ...]) -> Intervals:
    """All intervals that this median beat allows."""
    on, off = _qrs(beat)
    if on is None or off is None:
        return Intervals()
    hz = beat.sampling_hz
    p_on, signal, upright = _p_wave(beat, on, leads)
    t_end = _t_end(beat, on, off)
    return Intervals(
        pr_s=None if p_on is None else (on - p_on) / hz,
        qrs_s=(off - on) / hz,
        qt_s=None if t_end is None else (t_end - on) / hz,
        p_wave=signal >= P_LEAST_SIGNAL,
        p_signal=signal,
        p_upright=upright,
    )


def _velocity(millivolts: Array, hz: float) -> Array:
    return np.asarray(np.sqrt((np.gradient(millivolts, axis=1) ** 2).sum(axis=0)) * hz)


def _qrs(beat: MedianBeat) -> tuple[int | None, int | None]:
    """First and last sample of the QRS complex."""
    hz = beat.sampling_hz
    speed = _velocity(low_pass(beat.millivolts, hz, QRS_HZ), hz)
    reach = int(0.10 * hz)
    peak = beat.origin - reach + int(np.argmax(speed[beat.origin - reach : beat.origin + reach]))
    quiet = max(2, int(QUIET_S * hz))
    floor = float(np.percentile(speed[: beat.origin - reach], 50))
    on = _until_quiet(speed, peak, -1, max(QRS_ON_FRACTION * speed[peak], 1.5 * floor), quiet)
    off = _until_quiet(speed, peak, 1, max(QRS_OFF_FRACTION * speed[peak], 1.5 * floor), quiet)
    if on is None or off is None or not 0.04 <= (off - on) / hz <= 0.24:
        return None, None
    return on, off


def _until_quiet(speed: Array, start: int, step: int, level: float, quiet: int) -> int | None:
    """First place from `start` on where the speed stays below `level` for `quiet` samples."""
    at = start
    while 0 <= at + step * quiet < len(speed):
        window = speed[at : at + quiet] if step > 0 else speed[at - quiet + 1 : at + 1]
        if (window < level).all():
            return at
        at += step
    return None


def _p_wave(beat: MedianBeat, on: int, leads: tuple[str, ...]) -> tuple[int | None, float, bool | None]:
    """Onset of P, its height in units of the noise (best lead), and whether it points up in lead II."""
    hz = beat.sampling_hz
    last = on - int(0.02 * hz)
    first = max(0, on - int(min(P_LONGEST_S, 0.45 * beat.shortest_rr_s) * hz))
    if last - first < int(0.08 * hz):
        return None, 0.0, None
    smooth = low_pass(beat.millivolts, hz, P_HZ)[:, first:last]
    bumps = [_bump(trace, hz) for trace in smooth]
    heights = np.array([height for _, height in bumps])
    signals = np.where(np.abs(heights) >= P_LEAST_MV, np.abs(heights) / np.maximum(beat.noise_mv, 1e-4), 0.0)
    best = int(np.argmax(signals))
    upright = None
    if "II" in leads or "MLII" in leads:
        second = leads.index("II") if "II" in leads else leads.index("MLII")
        upright = bool(heights[second] > 0) if signals[second] >= P_LEAST_SIGNAL else None
    if signals[best] < P_LEAST_SIGNAL:
        return None, float(signals[best]), upright
    speed = _velocity(smooth[signals >= P_LEAST_SIGNAL], hz)
    top = bumps[best][0]
    if top < 2:
        return None, float(signals[best]), upright
    reach = max(0, top - int(0.08 * hz))
    steepest = reach + int(np.argmax(speed[reach:top]))
    onset = _until_quiet(speed, steepest, -1, P_ON_FRACTION * speed[steepest], 2)
    return (None if onset is None else first + onset), float(signals[best]), upright


def _bump(trace: Array, hz: float) -> tuple[int, float]:
    """Place and signed height of the most prominent hill or valley; a slope alone has height 0."""
    edge = int(0.02 * hz)
    best = (0, 0.0)
    for sign in (1.0, -1.0):
        hill = sign * trace
        left = np.minimum.accumulate(hill)
        right = np.minimum.accumulate(hill[::-1])[::-1]
        prominence = hill - np.maximum(left, right)
        place = edge + int(np.argmax(prominence[edge : len(trace) - edge]))
        if prominence[place] > abs(best[1]):
            best = (place, sign * float(prominence[place]))
    return best


def _t_end(beat: MedianBeat, on: int, off: int) -> int | None:
    """End of the T wave; None where no lead shows one that ends before the next beat may begin."""
    hz = beat.sampling_hz
    first = off + int(0.06 * hz)
    limit_s = min(AFTER_S + BEFORE_S, beat.origin / hz + 0.80 * beat.shortest_rr_s)
    last = min(int(limit_s * hz), beat.millivolts.shape[1]) - 1
    if last - first < int(0.15 * hz):
        return None
    smooth = low_pass(beat.millivolts, hz, T_HZ)
    level = np.median(smooth[:, max(0, on - int(0.02 * hz)) : on + 1], axis=1)
    ends = []
    for trace, noise, base in zip(smooth, beat.noise_mv, level, strict=True):
        end = _tangent(trace[first:last] - base, hz, max(T_LEAST_MV, T_LEAST_SIGNAL * float(noise)))
        if end is not None:
            ends.append(first + end)
    return round(float(np.median(ends))) if ends else None


def _tangent(trace: Array, hz: float, least_mv: float) -> int | None:
    """Where the tangent at the steepest return of the last large wave meets zero."""
    top = int(np.argmax(np.abs(trace)))
    height = float(trace[top])
    if abs(height) < least_mv or top < 2 or len(trace) - top < int(0.04 * hz):
        return None
    slope = np.gradient(trace * np.sign(height))
    reach = slope[top : top + int(0.16 * hz)]
    steepest = top + int(np.argmin(reach))
    if slope[steepest] >= 0:
        return None
    end = steepest + abs(trace[steepest]) / -slope[steepest] if trace[steepest] * height > 0 else None
    return None if end is None or end >= len(trace) else round(float(end))
