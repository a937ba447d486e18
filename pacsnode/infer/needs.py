"""Whether an input is what its service needs: views, spacing, slices, orientation, leads. In the compute child only.

In: `needs` of a pipeline.yaml and an input as it was read. Out: nothing, or Permanent with the sentence that a
radiographer understands. Changes nothing: what does not fit is never made to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from pacsnode.archive.attributes import read_attributes
from pacsnode.conditions import Condition, evaluate
from pacsnode.errors import Permanent, Rejected
from pacsnode.infer.frames import Clip
from pacsnode.infer.pipeline import Needs
from pacsnode.infer.volume import Volume
from pacsnode.infer.waveform import Waveform

ALONG_AN_AXIS = 0.8
"""From this cosine between the normal of the slices and an axis of the patient on: 37 degrees, as for rules."""
AXES = ("sagittal", "coronal", "axial")
"""By the axis of the patient along the normal of the slices: left to right, back to front, foot to head."""


class Spaced(Protocol):
    """What says how far its pixels are from each other."""

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """(between rows, between columns), None where it is not known."""


def refuse_missing_views(needs: Needs, files: Sequence[Path]) -> None:
    """Raises Permanent unless each of the views is there, on some image of the case."""
    missing = [view for view in needs.views if not any(meets(view, path) for path in files)]
    if missing:
        told = "; ".join(view.in_words for view in missing)
        raise Permanent(f"the service needs an image with {told}, and the study has none")


def meets(view: Condition, path: Path) -> bool:
    """Whether the image in a file is what a condition says. Raises Permanent where it cannot be read."""
    try:
        return evaluate(view, read_attributes(path, [name for name in view.names() if name.steps]))[0]
    except Rejected as error:
        raise Permanent(f"an image of the case cannot be read: {error.comment}") from error


def refuse_image(needs: Needs, image: Spaced) -> None:
    """Raises Permanent where the image is not what the service needs."""
    _refuse_spacing(needs, image.spacing_mm or ())


def refuse_clip(needs: Needs, clip: Clip) -> None:
    """Raises Permanent where the clip is not what the service needs."""
    _refuse_spacing(needs, clip.spacing_mm or ())
    _refuse_outside("number of frames", clip.frames, needs.frames)


def refuse_volume(needs: Needs, volume: Volume) -> None:
    """Raises Permanent where the series is not what the service needs."""
    _refuse_spacing(needs, volume.spacing_mm[1:])
    _refuse_outside("distance between slices", volume.spacing_mm[0], needs.slice_spacing_mm, " mm")
    _refuse_outside("number of slices", volume.intensity.shape[0], needs.slices)
    orientation = _orientation(volume)
    if needs.orientation is not None and orientation != needs.orientation:
        raise Permanent(f"the service reads {needs.orientation} slices; these are {orientation}")


def refuse_waveform(needs: Needs, recording: Waveform) -> None:
    """Raises Permanent where the recording is not what the service needs."""
    missing = [lead for lead in needs.leads if lead not in recording.leads]
    if missing:
        there = ", ".join(recording.leads)
        raise Permanent(f"the service needs the leads {', '.join(missing)}; the recording has {there}")
    _refuse_outside("sampling frequency", recording.sampling_hz, needs.sampling_hz, " Hz")
    _refuse_outside("recording's length", recording.millivolts.shape[1] / recording.sampling_hz, needs.duration_s, " s")


def _refuse_spacing(needs: Needs, spacing_mm: Sequence[float]) -> None:
    if needs.pixel_spacing_mm is None:
        return
    if not spacing_mm:
        raise Permanent("the image does not say how large its pixels are, which the service needs to know")
    for one in spacing_mm:
        _refuse_outside("pixel spacing", one, needs.pixel_spacing_mm, " mm")


def _refuse_outside(what: str, found: float, wanted: tuple[float, float] | None, unit: str = "") -> None:
    if wanted is not None and not wanted[0] <= found <= wanted[1]:
        raise Permanent(f"the {what} is {found:g}{unit}; the service needs {wanted[0]:g} to {wanted[1]:g}{unit}")


def _orientation(volume: Volume) -> str:
    """By the direction from slice to slice, in the patient's axes."""
    normal = np.abs(volume.affine[:3, 2])
    along = int(normal.argmax())
    return AXES[along] if normal[along] >= ALONG_AN_AXIS * float(np.linalg.norm(normal)) else "oblique"
