"""Beats: samples at which a QRS complex was seen, from all leads together.

Elgendi's two moving averages (PLoS ONE 2013;8(9):e73557) on the squared signal in the band of Pan and Tompkins
(IEEE Trans Biomed Eng 1985;32:230-236: 5 to 15 Hz), summed over the leads by their quality; then decision rules
after Hamilton (Computers in Cardiology 2002;29:101-104): height against the neighbours, refractory time, T wave,
search back. Squares make the method blind to polarity. Thresholds were set on MIT-BIH records not held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from .signals import Array, Recording

Samples = NDArray[np.intp]

BAND_HZ = (5.0, 15.0)
QRS_WINDOW_S = 0.097  # Elgendi 2013: the mean length of a QRS complex
BEAT_WINDOW_S = 0.611  # and of a beat
OFFSET_FRACTION = 0.06  # of the mean energy, added to the beat average (Elgendi: 0.08 on squared lead II)
BIN_S = 1.5  # nearly every heart beats once in it
NEIGHBOURHOOD_BINS = 9
CLIP = 1.5  # an artefact counts at most this many times the typical QRS height
REFRACTORY_S = 0.24
T_WAVE_S = 0.36  # Pan and Tompkins 1985
T_WAVE_FRACTION = 0.3
LOW_FRACTION = 0.25  # of the neighbours' median height
SEARCH_BACK_RR = 1.6
SEARCH_BACK_FRACTION = 0.35
UNSEEN_MV = 0.02  # a lead whose QRS stays below this in the band is off


@dataclass(frozen=True)
class Beats:
    """`samples`: one per beat, ascending. `weights`: share of each lead in the decision, sums to 1.

    `contrast`: typical QRS height over the background, in the best lead; about 3.5 in pure noise.
    """

    samples: Samples
    weights: Array
    contrast: float


def find(recording: Recording) -> Beats:
    """All beats of the recording; none is a valid answer."""
    hz = recording.sampling_hz
    energy, weights, contrast = _energy(recording)
    slow = ndimage.uniform_filter1d(energy, int(BEAT_WINDOW_S * hz) | 1)
    quick = ndimage.uniform_filter1d(energy, int(QRS_WINDOW_S * hz) | 1)
    mean = ndimage.uniform_filter1d(energy, min(int(10 * hz), energy.size), mode="reflect")
    above = np.concatenate(([0], (quick > slow + OFFSET_FRACTION * mean).astype(np.int8), [0]))
    change = np.diff(above)
    starts, ends = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    peaky = ndimage.uniform_filter1d(energy, int(0.04 * hz) | 1)
    centres = [
        start + int(np.argmax(peaky[start:end]))
        for start, end in zip(starts, ends, strict=True)
        if end - start >= 0.5 * QRS_WINDOW_S * hz
    ]
    if not centres:
        return Beats(np.array([], dtype=np.intp), weights, contrast)
    candidates = np.array(centres, dtype=np.intp)
    tall = ndimage.maximum_filter1d(quick, 2 * int(0.05 * hz) + 1)[candidates]
    return Beats(_decide(candidates, tall, hz), weights, contrast)


def _energy(recording: Recording) -> tuple[Array, Array, float]:
    """Weighted energy (samples,), lead weights and contrast. A typical QRS has height 1 in every lead."""
    hz = recording.sampling_hz
    band = signal.butter(2, BAND_HZ, "bandpass", fs=hz, output="sos")
    height = np.abs(signal.sosfiltfilt(band, recording.millivolts, axis=1))
    leads, samples = height.shape
    bin_samples = int(BIN_S * hz)
    bins = samples // bin_samples
    binned = height[:, : bins * bin_samples].reshape(leads, bins, bin_samples)
    size = (1, min(bins, NEIGHBOURHOOD_BINS))
    peaks = binned.max(axis=2)
    typical = ndimage.median_filter(peaks, size=size, mode="nearest")
    background = ndimage.median_filter(np.median(binned, axis=2), size=size, mode="nearest")
    low = ndimage.percentile_filter(peaks, 25, size=size, mode="nearest")
    high = ndimage.percentile_filter(peaks, 85, size=size, mode="nearest")
    contrast = typical / np.maximum(background, 1e-6)
    steadiness = low / np.maximum(high, 1e-6)
    weight = np.where(typical < UNSEEN_MV, 0.0, np.clip(contrast - 3, 0.05, None) * steadiness**2)
    weight = weight / np.maximum(weight.sum(axis=0), 1e-9)
    middles = (np.arange(bins) + 0.5) * bin_samples
    at = np.arange(samples)
    energy = np.zeros(samples)
    for lead in range(leads):
        scale = np.maximum(np.interp(at, middles, typical[lead]), 1e-3)
        relative = np.minimum(height[lead] / scale, CLIP)
        energy += np.interp(at, middles, weight[lead]) * relative**2
    share = weight.mean(axis=1)
    return energy, share / max(float(share.sum()), 1e-9), float(np.median(contrast, axis=1).max())


def _decide(candidates: Samples, tall: Array, hz: float) -> Samples:
    """The candidates that are beats, by their height among those within 5 s and by the time between them."""
    level = _level(candidates, tall, 5 * hz)
    accepted: list[int] = []
    for index in np.flatnonzero(tall >= LOW_FRACTION * level):
        if accepted:
            gap_s = (candidates[index] - candidates[accepted[-1]]) / hz
            if gap_s < REFRACTORY_S:
                if tall[index] > tall[accepted[-1]]:
                    accepted[-1] = int(index)
                continue
            if gap_s < T_WAVE_S and tall[index] < T_WAVE_FRACTION * tall[accepted[-1]]:
                continue
        accepted.append(int(index))
    found = _search_back(accepted, candidates, tall >= SEARCH_BACK_FRACTION * LOW_FRACTION * level, tall, hz)
    return candidates[sorted(accepted + found)]


def _level(candidates: Samples, tall: Array, reach: float) -> Array:
    """For each candidate the median height of the tall ones around it."""
    first = np.searchsorted(candidates, candidates - reach)
    last = np.searchsorted(candidates, candidates + reach, side="right")
    level = np.empty(len(candidates))
    for index, (start, end) in enumerate(zip(first, last, strict=True)):
        near = tall[start:end]
        level[index] = np.median(near[near >= 0.3 * np.percentile(near, 75)])
    return level


def _search_back(
    accepted: list[int], candidates: Samples, eligible: NDArray[np.bool_], tall: Array, hz: float
) -> list[int]:
    """In gaps much longer than the local RR interval, the tallest lower candidate clear of both neighbours."""
    if len(accepted) < 4:
        return []
    intervals = np.diff(candidates[accepted])
    found: list[int] = []
    clear = T_WAVE_S * hz
    for gap, (before, after) in enumerate(pairwise(accepted)):
        if intervals[gap] <= SEARCH_BACK_RR * np.median(intervals[max(0, gap - 8) : gap + 9]):
            continue
        inside = [
            index
            for index in range(before + 1, after)
            if eligible[index]
            and candidates[index] - candidates[before] > clear
            and candidates[after] - candidates[index] > clear
        ]
        if inside:
            found.append(max(inside, key=lambda index: float(tall[index])))
    return found
