"""How people look at a slice: the window that its header gives, else one by modality and body part. Never the network.

In: a function that finds an attribute, and values of a volume. Out: the two values that become black and white.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacsnode.infer.pixels import LEAST_CONTRAST, SAMPLE, between, limits

SOFT_TISSUE = (40.0, 400.0)
CT_WINDOWS: Mapping[str, tuple[float, float]] = {
    "HEAD": (40.0, 80.0),
    "BRAIN": (40.0, 80.0),
    "CHEST": (-500.0, 1500.0),
    "LUNG": (-500.0, 1500.0),
    "THORAX": (-500.0, 1500.0),
    "SPINE": (300.0, 1500.0),
    "EXTREMITY": (300.0, 1500.0),
}
"""Centre and width in Hounsfield units, by what Body Part Examined contains; the usual presets of consoles."""


@dataclass(frozen=True)
class Look:
    """What the header of an image says. `window`: centre and width, after the rescale; the first one of several."""

    modality: str = ""
    body_part: str = ""
    window: tuple[float, float] | None = None


NO_LOOK = Look()


def read_look(find: Callable[[str], Any]) -> Look:
    """Of one image or frame; what is unreadable counts as absent."""
    centre, width = (_first(find(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    window = None if centre is None or width is None or width <= 0 else (centre, width)
    return Look(str(find("Modality") or "")[:16], str(find("BodyPartExamined") or "")[:16].upper(), window)


def drawn(slice_: NDArray[np.float32], look: Look) -> tuple[float, float]:
    """The values of `slice_` that become 0 and 255: by the first window in which something can be seen."""
    step = max(1, int(np.sqrt(slice_.size / SAMPLE)))
    sample = slice_[::step, ::step]
    preset = next((w for part, w in CT_WINDOWS.items() if part in look.body_part), SOFT_TISSUE)
    for window in (look.window, preset if look.modality == "CT" else None):
        if window is None:
            continue
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
        if (between(sample.copy(), low, high) * 255).std() >= LEAST_CONTRAST:
            return low, high
    low, high = limits(sample) or (float(sample.min()), float(sample.max()))
    return (low, high) if high > low else (low, low + 1)


def _first(given: Any) -> float | None:
    """A finite number, or the first of several."""
    if given is not None and not isinstance(given, str | bytes | float | int):
        given = given[0] if len(given) else None
    try:
        number = float(given) if given is not None else None
    except (TypeError, ValueError):
        return None
    return number if number is not None and np.isfinite(number) else None
