"""The bundle's workflow: one ECG in (millivolts, leads, sampling rate), values, findings, beats and notes out.

It reads and writes no file and keeps nothing from one ECG to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.bundle import BundleWorkflow

from . import beats, ectopy, intervals, morphology, rhythm, signals

LEAST_CONTRAST = 2.5
NOISY_CONTRAST = 6.5
NOISY_CORRELATION = 0.7
"""White and brown noise gave contrast 3.4 to 6.1 and correlation up to 0.6; see the model card."""

SHORT_S = 60.0
FEW_USUAL = 0.5


class EcgWorkflow(BundleWorkflow):
    """Beats by moving averages, intervals on the median beat, rhythm by stated criteria. No learning."""

    def __init__(self) -> None:
        super().__init__(workflow_type="inference")
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def initialize(self) -> None:
        """Forget the last ECG."""
        self.inputs, self.outputs = {}, {}

    def run(self) -> None:
        """Analyse `inputs`. Raises ValueError in plain words where the ECG cannot be analysed."""
        self.outputs = {}
        found = analyse(self.inputs["millivolts"], self.inputs["leads"], self.inputs["sampling_hz"])
        self.outputs = {
            "values": found.values,
            "findings": found.findings,
            "beats": found.beats,
            "notes": found.notes,
        }

    def finalize(self) -> None:
        """Forget the last ECG."""
        self.initialize()

    def _get_property(self, name: str, property: dict[str, Any]) -> Any:
        return None

    def _set_property(self, name: str, property: dict[str, Any], value: Any) -> None:
        raise AttributeError(f"{name} cannot be set: this workflow takes only inputs.")


@dataclass(frozen=True)
class Analysis:
    """What was seen in one ECG. `beats`: samples of the input; `wide`: the premature wide ones among them."""

    values: dict[str, float]
    findings: dict[str, rhythm.Finding]
    beats: list[int]
    wide: list[bool]
    notes: list[str]


def analyse(millivolts: Any, leads: list[str], sampling_hz: float) -> Analysis:
    """Everything this service says about one ECG. `millivolts`: (leads, samples)."""
    recording = signals.check(np.asarray(millivolts), leads, float(sampling_hz))
    found = beats.find(recording)
    if len(found.samples) < 3 or found.contrast < LEAST_CONTRAST:
        raise ValueError(_UNREADABLE)
    shapes = morphology.compare(recording, found)
    if found.contrast < NOISY_CONTRAST and float(np.median(shapes.correlation)) < NOISY_CORRELATION:
        raise ValueError(_UNREADABLE)
    usual = intervals.median_beat(recording, shapes)
    measured = intervals.Intervals() if usual is None else intervals.measure(usual, recording.leads)
    wide = ectopy.premature_wide(shapes, recording.sampling_hz, recording.millivolts.shape[1])
    seen = rhythm.describe(recording, shapes, wide, measured)
    return Analysis(
        values=rhythm.values(seen),
        findings=rhythm.findings(seen),
        beats=[int(sample) * recording.step for sample in shapes.samples],
        wide=[False] * len(shapes.samples) if wide is None else wide.tolist(),
        notes=_notes(recording, shapes),
    )


_UNREADABLE = (
    "No QRS complexes can be told from the background: noise, a wrong connection, or a rhythm without QRS complexes "
    "such as ventricular fibrillation. A person must look at this ECG now."
)


def _notes(recording: signals.Recording, shapes: morphology.Shapes) -> list[str]:
    notes = list(recording.notes)
    if float(shapes.usual.mean()) < FEW_USUAL:
        notes.append(
            "Fewer than half of the beats look alike: many ectopic beats, ventricular tachycardia or flutter, and "
            "strong noise cannot be told apart here. Beats and rate may be wrong."
        )
    if recording.duration_s < SHORT_S:
        notes.append(
            f"{recording.duration_s:.0f} s are short: SDNN and RMSSD are not comparable with longer recordings, "
            "and a rhythm that comes and goes may be missed."
        )
    if recording.still_s >= rhythm.STILL_S:
        notes.append(f"The trace stands still for {recording.still_s:.1f} s: electrodes off?")
    return notes
