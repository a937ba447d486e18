"""Premature wide beats (PVC-like): beats unlike the usual one that come early, or that are much wider and unlike.

The idea, distance to the patient's own median beat, is de Chazal's and Llamedo's kind of normalisation; the
thresholds were set on MIT-BIH records not held out. Beats with a usual QRS (most supraventricular premature beats)
are never found; fusion beats and aberrant conduction may be.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .morphology import Shapes

LEAST_DISTANCE = 0.6
MOST_CORRELATION = 0.9
EARLY = 0.95  # of the median RR interval
LEAST_WIDTH_S = 0.09  # on the narrow scale of `Shapes.width_s`, which reads less than a caliper
WIDER_S = 0.02
LATE_DISTANCE = 1.0
LATE_CORRELATION = 0.6
EDGE_S = 0.2
FEWEST_BEATS = 4
FEWEST_USUAL = 0.3  # below this share of usual beats nothing is said


def premature_wide(shapes: Shapes, sampling_hz: float, samples: int) -> NDArray[np.bool_] | None:
    """One truth value per beat; None where the usual beat is not clear enough to say."""
    count = len(shapes.samples)
    if count < FEWEST_BEATS or shapes.usual.mean() < FEWEST_USUAL:
        return None
    rr_s = np.diff(shapes.samples) / sampling_hz
    early = np.concatenate(([False], rr_s < EARLY * shapes.usual_rr_s[1:]))
    unlike = (shapes.distance >= LEAST_DISTANCE) & (shapes.correlation < MOST_CORRELATION)
    very_unlike = (shapes.distance >= LATE_DISTANCE) & (shapes.correlation < LATE_CORRELATION)
    wider = shapes.width_s > shapes.usual_width_s + WIDER_S
    whole = (shapes.samples > EDGE_S * sampling_hz) & (shapes.samples < samples - EDGE_S * sampling_hz)
    found = unlike & (shapes.width_s >= LEAST_WIDTH_S) & (early | (wider & very_unlike)) & whole
    return np.asarray(found, dtype=np.bool_)
