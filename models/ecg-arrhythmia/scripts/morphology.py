"""Shapes: which beats look like the patient's own usual beat, how wide each is, and the median of the usual ones.

A usual beat is the medoid of the largest cluster of QRS shapes; where a second cluster is large (bigeminy),
the one that is narrower and comes later after the beat before it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .beats import Beats, Samples
from .signals import Array, Recording, low_pass

SHAPE_HZ = 40.0
BEFORE_S = 0.14
AFTER_S = 0.20
SHIFT_S = 0.06
COARSE_S = 0.008
SAME_SHAPE = 0.85  # correlation
USUAL_SHAPE = 0.90
BLOCK_BEATS = 40  # ten seconds are one block; in long recordings the usual beat changes with posture
SECOND_CLUSTER = 0.3
NARROWER_S = 0.015
WIDTH_LEVEL = 0.2  # of the complex's steepest place


@dataclass(frozen=True)
class Shapes:
    """One entry per beat: sample after alignment, correlation with and distance from the usual beat, width.

    `distance`: root mean square of the difference over that of the usual beat. `width_s`: see `_widths`.
    `usual`: whether the beat has the usual shape. `usual_width_s`, `usual_rr_s`: medians of the beat's block.
    """

    samples: Samples
    correlation: Array
    distance: Array
    width_s: Array
    usual: NDArray[np.bool_]
    usual_width_s: Array
    usual_rr_s: Array


def compare(recording: Recording, beats: Beats) -> Shapes:
    """Compare every beat with the usual one; needs at least one beat."""
    hz = recording.sampling_hz
    smooth = low_pass(recording.millivolts, hz, SHAPE_HZ)
    weighted = smooth * np.sqrt(beats.weights)[:, None] / _scale(smooth, beats.samples, hz)[:, None]
    speed = ndimage.uniform_filter1d(np.sqrt((np.gradient(weighted, axis=1) ** 2).sum(axis=0)), int(0.02 * hz) | 1)
    widths = _widths(speed, beats.samples, hz)
    count = len(beats.samples)
    blocks = np.array_split(np.arange(count), max(1, round(count / BLOCK_BEATS)))
    parts = [_compare_block(weighted, beats.samples[block], widths[block], hz) for block in blocks]
    return Shapes(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Shapes)))


def _compare_block(weighted: Array, samples: Samples, widths: Array, hz: float) -> Shapes:
    """`compare` for beats that follow each other; the usual beat may change from one block to the next."""
    pieces = _pieces(weighted, samples, hz)
    template = pieces[_medoid(pieces, widths, samples)]
    coarse = max(1, int(COARSE_S * hz))
    for reach, step in ((int(SHIFT_S * hz), coarse), (coarse, 1)):
        samples, pieces, correlation = _align(weighted, samples, template, reach, step, hz)
        usual = correlation >= USUAL_SHAPE
        if usual.any():
            template = np.median(pieces[usual], axis=0)
    size = max(float(np.sqrt((template**2).mean())), 1e-9)
    ones = np.ones(len(samples))
    return Shapes(
        samples=samples,
        correlation=correlation,
        distance=np.sqrt(((pieces - template) ** 2).mean(axis=(1, 2))) / size,
        width_s=widths,
        usual=usual,
        usual_width_s=ones * (np.median(widths[usual]) if usual.any() else np.median(widths)),
        usual_rr_s=ones * (np.median(np.diff(samples)) / hz if len(samples) > 1 else np.nan),
    )


def _scale(smooth: Array, samples: Samples, hz: float) -> Array:
    """Typical peak-to-peak height of the QRS complex, per lead."""
    reach = int(0.06 * hz)
    inside = samples[(samples >= reach) & (samples < smooth.shape[1] - reach)]
    if not len(inside):
        return np.ones(smooth.shape[0])
    window = inside[:, None] + np.arange(-reach, reach)
    return np.asarray(np.maximum(np.median(np.ptp(smooth[:, window], axis=2), axis=1), 0.05))


def _pieces(weighted: Array, samples: Samples, hz: float, shift: int = 0) -> Array:
    """(beats, leads, samples) around each beat, the level of each piece taken out; the edge sample repeats."""
    span = np.arange(-int(BEFORE_S * hz), int(AFTER_S * hz)) + shift
    at = np.clip(samples[:, None] + span, 0, weighted.shape[1] - 1)
    pieces = weighted[:, at].transpose(1, 0, 2)
    return np.asarray(pieces - np.median(pieces, axis=2, keepdims=True))


def _correlate(pieces: Array, template: Array) -> Array:
    flat, other = pieces.reshape(len(pieces), -1), template.ravel()
    norm = np.linalg.norm(flat, axis=1) * np.linalg.norm(other)
    return np.asarray(flat @ other / np.maximum(norm, 1e-9))


def _align(
    weighted: Array, samples: Samples, template: Array, reach: int, step: int, hz: float
) -> tuple[Samples, Array, Array]:
    """Each beat moved by up to `reach` samples, in steps, to where it resembles the template most."""
    shifts = np.arange(-reach, reach + 1, step)
    scores = np.stack([_correlate(_pieces(weighted, samples, hz, int(shift)), template) for shift in shifts])
    best = scores.argmax(axis=0)
    moved = np.clip(samples + shifts[best], 0, weighted.shape[1] - 1)
    return moved, _pieces(weighted, moved, hz), scores.max(axis=0)


def _medoid(pieces: Array, widths: Array, samples: Samples) -> int:
    """Index of the beat that stands for the patient's usual beat."""
    flat = pieces.reshape(len(pieces), -1)
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    alike = flat @ flat.T
    best = _largest(alike, np.arange(len(pieces)))
    members = alike[best] >= SAME_SHAPE
    others = np.flatnonzero(~members)
    if len(others) >= 2:
        rival = _largest(alike, others)
        of_rival = (alike[rival] >= SAME_SHAPE) & ~members
        before = np.diff(samples, prepend=2 * samples[0] - samples[min(1, len(samples) - 1)])
        if (
            of_rival.sum() >= max(2, SECOND_CLUSTER * members.sum())
            and np.median(widths[members]) > np.median(widths[of_rival]) + NARROWER_S
            and np.median(before[members]) < np.median(before[of_rival])
        ):
            best = rival
    return best


def _largest(alike: Array, among: NDArray[np.intp]) -> int:
    """The beat with the most beats of its shape; among equals, the most alike on average."""
    near = alike[among][:, among]
    return int(among[np.argmax((near >= SAME_SHAPE).sum(axis=1) + near.mean(axis=1) / 2)])


def _widths(speed: Array, samples: Samples, hz: float) -> Array:
    """Seconds around each beat for which all leads together move faster than a fifth of their fastest."""
    before, after = int(BEFORE_S * hz), int(AFTER_S * hz)
    core = int(0.08 * hz)
    widths = np.empty(len(samples))
    for index, sample in enumerate(samples):
        start = max(0, int(sample) - before)
        piece = speed[start : int(sample) + after]
        middle = int(sample) - start
        peak = float(piece[max(0, middle - core) : middle + core].max())
        fast = np.flatnonzero(piece >= WIDTH_LEVEL * peak)
        widths[index] = (fast[-1] - fast[0] + 1) / hz
    return widths
