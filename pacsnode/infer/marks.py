"""What tells images at the same place apart: b-value, echo, phase, kind of image …, and which of them is taken.

The table is the documented rule (docs/reading.md): the first mark that tells images apart counts first.
In: a function that finds an attribute of an image or frame. Out: a Mark, comparable, as a person reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.multival import MultiValue

MOST_PARTS = 8
LONGEST_PART = 32


@dataclass(frozen=True, order=True)
class Mark:
    """One value: absent before numbers before text; `text` for a person."""

    is_given: bool = False
    number: float = 0.0
    text: str = ""

    def __str__(self) -> str:
        return (self.text or f"{self.number:g}") if self.is_given else "none"


@dataclass(frozen=True)
class Kind:
    """One way in which images at one place differ. `keywords`: the first that an image has. `taken`: see `rank`."""

    name: str
    keywords: tuple[str, ...]
    taken: str = "the first"

    def read(self, find: Callable[[str], Any]) -> Mark:
        """The mark of one image; an absent or unreadable value is a mark too."""
        for keyword in self.keywords:
            given = find(keyword)
            if given not in (None, ""):
                return _mark(given)
        return Mark()

    def rank(self, mark: Mark) -> tuple[Any, ...]:
        """The smallest is taken."""
        if self.taken == "the highest":
            return (not mark.is_given, -mark.number)
        if self.taken == "original, then magnitude":
            parts = mark.text.split("\\")
            is_magnitude = any(p in ("M", "MAGNITUDE") or p.startswith("M_") for p in parts)
            return ("ORIGINAL" not in parts, "PRIMARY" not in parts, not is_magnitude, mark)
        return (mark,)


MARKS = (
    Kind("b-value", ("DiffusionBValue",), "the highest"),
    Kind("kind of image", ("FrameType",), "original, then magnitude"),
    Kind("diffusion direction", ("DiffusionGradientOrientation",)),
    Kind("echo time", ("EffectiveEchoTime", "EchoTime", "EchoNumbers")),
    Kind("inversion time", ("InversionTimes", "InversionTime")),
    Kind("temporal position", ("TemporalPositionIndex", "TemporalPositionIdentifier")),
    Kind("cardiac phase", ("NominalCardiacTriggerDelayTime", "NominalPercentageOfCardiacPhase", "TriggerTime")),
    Kind("acquisition", ("FrameAcquisitionNumber", "AcquisitionNumber")),
    Kind("contrast start", ("ContrastBolusStartTime",)),
    Kind("contrast agent", ("ContrastBolusAgent",)),
    Kind("kernel", ("ConvolutionKernel",)),
    Kind("tube voltage", ("KVP",)),
    Kind("slice thickness", ("SliceThickness",)),
    Kind("time", ("FrameAcquisitionDateTime", "AcquisitionDateTime", "AcquisitionTime", "ContentTime")),
)
"""In the order in which they are tried."""
TIME = "time"


def _mark(given: Any) -> Mark:
    if isinstance(given, float | int):
        number = float(given)
        return Mark(True, number) if np.isfinite(number) else Mark()
    parts = list(given) if isinstance(given, list | tuple | MultiValue | np.ndarray) else [given]
    text = "\\".join(str(part)[:LONGEST_PART] for part in parts[:MOST_PARTS])
    return Mark(True, 0.0, text)
