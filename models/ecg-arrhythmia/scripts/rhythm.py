"""Numbers and findings from the beats: rates, RR variability, and rhythm by stated criteria.

Each finding is present, absent or undetermined; `absent` is said only for findings whose sensitivity is measured
on MIT-BIH in the model card, and only where the criterion could be tested on this ECG.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from .intervals import Intervals
from .morphology import Shapes
from .signals import Array, Recording

SLOW_PER_MINUTE = 60.0
FAST_PER_MINUTE = 100.0
PAUSE_S = 2.0
STILL_S = 1.0
IRREGULAR = 0.08
FEWEST_CHANGES = 5
FEWEST_NORMAL = 5
SPAN_INTERVALS = 3


class Finding(TypedDict):
    """What the node's evaluations take."""

    presence: str
    probability: float | None
    comment: str


@dataclass(frozen=True)
class Rhythm:
    """Beat-to-beat facts of one recording.

    `rr_s`: all RR intervals. `normal_rr_s`: those between two beats that are not premature wide ones.
    `irregularity`: median absolute difference of successive normal RR intervals over their mean (None if too few).
    `premature_wide`: one truth value per beat, None where it cannot be said.
    """

    rr_s: Array
    normal_rr_s: Array
    irregularity: float | None
    rmssd_s: float | None
    premature_wide: NDArray[np.bool_] | None
    intervals: Intervals
    still_s: float

    @property
    def rate(self) -> float:
        """Beats per minute over the whole recording."""
        return 60 / float(self.rr_s.mean())


def describe(
    recording: Recording, shapes: Shapes, premature_wide: NDArray[np.bool_] | None, intervals: Intervals
) -> Rhythm:
    """Needs at least two beats."""
    rr_s = np.diff(shapes.samples) / recording.sampling_hz
    plain = np.ones(len(shapes.samples), dtype=bool) if premature_wide is None else ~premature_wide
    normal = plain[1:] & plain[:-1]
    changes = np.diff(rr_s)[normal[1:] & normal[:-1]]
    enough = len(changes) >= FEWEST_CHANGES
    return Rhythm(
        rr_s=rr_s,
        normal_rr_s=rr_s[normal],
        irregularity=float(np.median(np.abs(changes)) / rr_s[normal].mean()) if enough else None,
        rmssd_s=float(np.sqrt((changes**2).mean())) if enough else None,
        premature_wide=premature_wide,
        intervals=intervals,
        still_s=recording.still_s,
    )


def values(rhythm: Rhythm) -> dict[str, float]:
    """What was measurable: rates in /min, times in ms."""
    rr_s, intervals = rhythm.rr_s, rhythm.intervals
    numbers = {"heart_rate": rhythm.rate, "rr_interval": 1000 * float(rr_s.mean())}
    if len(rr_s) >= SPAN_INTERVALS:
        spans = np.convolve(rr_s, np.ones(SPAN_INTERVALS), "valid") / SPAN_INTERVALS
        numbers["heart_rate_lowest"] = 60 / float(spans.max())
        numbers["heart_rate_highest"] = 60 / float(spans.min())
    if len(rhythm.normal_rr_s) >= FEWEST_NORMAL:
        numbers["sdnn"] = 1000 * float(rhythm.normal_rr_s.std(ddof=1))
        if rhythm.rmssd_s is not None:
            numbers["rmssd"] = 1000 * rhythm.rmssd_s
    if rhythm.premature_wide is not None:
        numbers["premature_wide_beats"] = float(rhythm.premature_wide.sum())
    if intervals.qrs_s is not None:
        numbers["qrs_duration"] = 1000 * intervals.qrs_s
    if intervals.pr_s is not None and _regular(rhythm):
        numbers["pr_interval"] = 1000 * intervals.pr_s
    if intervals.qt_s is not None:
        numbers["qt_interval"] = 1000 * intervals.qt_s
        if _regular(rhythm):
            mean_s = float(rhythm.normal_rr_s.mean())
            numbers["qtc_bazett"] = 1000 * intervals.qt_s / mean_s ** (1 / 2)
            numbers["qtc_fridericia"] = 1000 * intervals.qt_s / mean_s ** (1 / 3)
    return numbers


def findings(rhythm: Rhythm) -> dict[str, Finding]:
    """All findings of this service, by the keys of pipeline.yaml."""
    return {
        "normal_sinus_rhythm": _normal_sinus(rhythm),
        "bradycardia": _finding(rhythm.rate < SLOW_PER_MINUTE, f"Mean rate {rhythm.rate:.0f}/min (limit 60)."),
        "tachycardia": _finding(rhythm.rate > FAST_PER_MINUTE, f"Mean rate {rhythm.rate:.0f}/min (limit 100)."),
        "atrial_fibrillation": _atrial_fibrillation(rhythm),
        "premature_wide_beats": _premature_wide(rhythm),
        "pause": _pause(rhythm),
    }


def _finding(present: bool | None, comment: str) -> Finding:
    presence = "undetermined" if present is None else "present" if present else "absent"
    return {"presence": presence, "probability": None, "comment": comment}


def _regular(rhythm: Rhythm) -> bool:
    return rhythm.irregularity is not None and rhythm.irregularity < IRREGULAR


def _normal_sinus(rhythm: Rhythm) -> Finding:
    """Rule: 60 to 100/min, regular, P before the usual QRS (upright in lead II, if given), no PVC-like beat."""
    if not SLOW_PER_MINUTE <= rhythm.rate <= FAST_PER_MINUTE:
        return _finding(False, f"Mean rate {rhythm.rate:.0f}/min is outside 60 to 100.")
    if rhythm.premature_wide is None or rhythm.premature_wide.any():
        return _finding(None, "Premature wide beats were seen or could not be excluded.")
    if not rhythm.intervals.p_wave or rhythm.intervals.p_upright is False:
        return _finding(None, "No upright P wave could be seen before the usual QRS complex.")
    if not _regular(rhythm):
        return _finding(None, "The RR intervals are not regular, or too few to say.")
    return _finding(True, "Regular RR, P wave before the usual QRS complex, 60 to 100/min. P axis not measured.")


def _atrial_fibrillation(rhythm: Rhythm) -> Finding:
    """Rule: irregularly irregular RR without P waves; P waves speak against it; regular without P is left open."""
    if rhythm.intervals.p_wave is None or rhythm.irregularity is None:
        return _finding(None, "Too few usual beats to judge RR irregularity and P waves.")
    change = f"Successive RR intervals change by {100 * rhythm.irregularity:.0f} % (median; irregular from 8 %)"
    if rhythm.intervals.p_wave:
        return _finding(False, f"{change}; P waves are seen.")
    if _regular(rhythm):
        return _finding(None, f"{change}; no P wave is seen: paced, junctional or flutter cannot be told apart.")
    return _finding(True, f"Possible atrial fibrillation: {change}; no P wave is seen. Flutter can look the same.")


def _premature_wide(rhythm: Rhythm) -> Finding:
    if rhythm.premature_wide is None:
        return _finding(None, "The patient's usual beat is not clear enough to compare with.")
    count = int(rhythm.premature_wide.sum())
    return _finding(
        count > 0, f"{count} of {len(rhythm.premature_wide)} beats are premature and wide, unlike the usual beat."
    )


def _pause(rhythm: Rhythm) -> Finding:
    longest = float(rhythm.rr_s.max())
    comment = f"Longest RR interval {longest:.2f} s; a pause is over 2 s."
    if longest > PAUSE_S and rhythm.still_s >= STILL_S:
        return _finding(None, f"{comment} The trace stood still for {rhythm.still_s:.1f} s: electrodes off?")
    return _finding(longest > PAUSE_S, comment)
