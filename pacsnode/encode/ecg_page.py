"""The page of an ECG: as on paper, 25 mm/s and 10 mm/mV, 3 x 4 leads and a rhythm strip, with the beats marked.

In: a group with a trace. Out: 8-bit RGB. Draws at most the first ten seconds; filters nothing, only the median of
each lead is taken off as its baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pacsnode.encode.drawing import (
    BANNER_HEIGHT,
    RGB,
    Line,
    algorithm_text,
    banner,
    evaluation_text,
    font,
    measurement_text,
    panel,
)
from pacsnode.encode.fonts import shown
from pacsnode.findings import Algorithm, Group, Trace

_PX_PER_MM = 6
_PX_PER_S = 25 * _PX_PER_MM
_PX_PER_MV = 10 * _PX_PER_MM
_PAGE_S = 10.0
_COLUMN_S = 2.5
_WIDTH = 1590  # 265 mm
_LEFT = 12 * _PX_PER_MM  # room for the 1 mV pulse
_TOP = 5 * _PX_PER_MM
_LANE = 30 * _PX_PER_MM
_MOST_LANES = 6
_SHARPNESS = 2  # the traces are drawn so many times larger and reduced

_LAYOUT = (("I", "AVR", "V1", "V4"), ("II", "AVL", "V2", "V5"), ("III", "AVF", "V3", "V6"))
_RHYTHM = "II"
_PAPER: RGB = (255, 252, 250)
_FINE: RGB = (250, 220, 215)
_COARSE: RGB = (238, 170, 165)
_INK: RGB = (15, 15, 30)
_BEAT: RGB = (0, 90, 200)
_GREY: RGB = (70, 70, 70)


@dataclass(frozen=True)
class Strip:
    """A piece of one lead on the page: drawn from `start_s` for `length_s`, beginning at column `left`."""

    lead: int
    left: int
    lane: int
    start_s: float
    length_s: float


def ecg_page(group: Group, trace: Trace, algorithm: Algorithm) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8: findings above, the grid with the leads, the scale and the warning below."""
    strips = list(_strips(trace))
    lanes = max((s.lane for s in strips), default=0) + 1
    head = _head(group, algorithm)
    grid = _grid(lanes)
    draw = ImageDraw.Draw(grid)
    _draw_traces(grid, trace, strips)
    for strip in strips:
        top = _TOP + strip.lane * _LANE + 6
        draw.text((strip.left + 6, top), shown(trace.leads[strip.lead]), font=font(22), fill=_INK)
        if strip.left > _LEFT:
            middle = _middle(strip.lane)
            draw.line((strip.left, middle - 24, strip.left, middle + 24), fill=_INK, width=2)
    if strips:
        _draw_beats(draw, trace, strips[-1])
    foot = Image.new("RGB", (_WIDTH, 30), _PAPER)
    scale = f"25 mm/s   10 mm/mV   {trace.sampling_hz:g} Hz   unfiltered"
    if trace.beats:
        scale += "   blue marks: detected beats"
    ImageDraw.Draw(foot).text((12, 6), scale, font=font(16), fill=_GREY)
    page = Image.new("RGB", (_WIDTH, head.height + grid.height + foot.height + BANNER_HEIGHT), _PAPER)
    top = 0
    for part in (head, grid, foot, banner(_WIDTH)):
        page.paste(part, (0, top))
        top += part.height
    return np.asarray(page, dtype=np.uint8)


def _strips(trace: Trace) -> Iterator[Strip]:
    """Where each lead goes: 3 x 4 and a rhythm strip for twelve leads, else one lane a lead."""
    by_name = {name.upper().removeprefix("LEAD ").strip(): i for i, name in enumerate(trace.leads)}
    if all(name in by_name for row in _LAYOUT for name in row):
        for lane, row in enumerate(_LAYOUT):
            for column, name in enumerate(row):
                start_s = column * _COLUMN_S
                yield Strip(by_name[name], _LEFT + round(start_s * _PX_PER_S), lane, start_s, _COLUMN_S)
        yield Strip(by_name[_RHYTHM], _LEFT, len(_LAYOUT), 0.0, _PAGE_S)
    else:
        for lane in range(min(len(trace.leads), _MOST_LANES)):
            yield Strip(lane, _LEFT, lane, 0.0, _PAGE_S)


def _middle(lane: int) -> int:
    return _TOP + lane * _LANE + _LANE // 2


def _head(group: Group, algorithm: Algorithm) -> Image.Image:
    """Title, then measurements on the left and evaluations with notes on the right."""
    title = panel(
        [Line(algorithm.title, 24, _INK), Line(algorithm_text(algorithm), 15, _GREY, space_before=2)],
        _WIDTH,
        _PAPER,
        most_height=120,
    )
    numbers = [Line(measurement_text(m), 18, _INK, space_before=2) for m in group.measurements]
    texts = []
    for evaluation in group.evaluations:
        texts.append(Line(evaluation_text(evaluation), 18, _INK, space_before=2))
        if evaluation.comment:
            texts.append(Line(evaluation.comment, 14, _GREY, space_before=0))
    texts += [Line(note, 14, _GREY, space_before=4) for note in group.notes]
    half = (len(numbers) + 1) // 2
    widths = (_WIDTH // 4, _WIDTH // 4, _WIDTH // 2)
    columns = [
        panel(lines, width, _PAPER, most_height=420)
        for lines, width in zip((numbers[:half], numbers[half:], texts), widths, strict=True)
    ]
    head = Image.new("RGB", (_WIDTH, title.height + max(c.height for c in columns)), _PAPER)
    head.paste(title, (0, 0))
    left = 0
    for column in columns:
        head.paste(column, (left, title.height))
        left += column.width
    return head


def _grid(lanes: int) -> Image.Image:
    height = 2 * _TOP + lanes * _LANE
    image = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(image)
    for step, color in ((_PX_PER_MM, _FINE), (5 * _PX_PER_MM, _COARSE)):
        for x in range(0, _WIDTH, step):
            draw.line((x, 0, x, height), fill=color)
        for y in range(0, height, step):
            draw.line((0, y, _WIDTH, y), fill=color)
    return image


def _draw_traces(grid: Image.Image, trace: Trace, strips: Sequence[Strip]) -> None:
    """The leads and, before each lane, the pulse of 1 mV and 0.2 s that proves the scale."""
    mask = Image.new("L", (grid.width * _SHARPNESS, grid.height * _SHARPNESS))
    draw = ImageDraw.Draw(mask)
    for strip in strips:
        for points in _points(trace, strip):
            draw.line([(x * _SHARPNESS, y * _SHARPNESS) for x, y in points], fill=255, width=3, joint="curve")
    for lane in {s.lane for s in strips}:
        base, left = _middle(lane), 3 * _PX_PER_MM
        corners = [(0, 0), (12, 0), (12, -_PX_PER_MV), (42, -_PX_PER_MV), (42, 0), (48, 0)]
        draw.line([((left + x) * _SHARPNESS, (base + y) * _SHARPNESS) for x, y in corners], fill=255, width=3)
    reduced = mask.resize(grid.size, Image.Resampling.BOX)
    grid.paste(Image.new("RGB", grid.size, _INK), (0, 0), reduced)


def _points(trace: Trace, strip: Strip) -> Iterator[list[tuple[float, float]]]:
    """The polylines of `strip` in page pixels; samples that are no numbers interrupt it."""
    first = round(strip.start_s * trace.sampling_hz)
    end = min(round((strip.start_s + strip.length_s) * trace.sampling_hz) + 1, trace.millivolts.shape[1])
    samples = trace.millivolts[strip.lead].astype(np.float64)
    finite = np.isfinite(samples)
    baseline = float(np.median(samples[finite])) if finite.any() else 0.0
    middle, least = _middle(strip.lane), 2
    line: list[tuple[float, float]] = []
    for sample in range(first, end):
        if finite[sample]:
            x = strip.left + (sample - first) / trace.sampling_hz * _PX_PER_S
            y = middle - (samples[sample] - baseline) * _PX_PER_MV
            line.append((x, min(max(y, middle - 1.2 * _LANE, least), middle + 1.2 * _LANE)))
        elif line:
            yield line
            line = []
    if line:
        yield line


def _draw_beats(draw: ImageDraw.ImageDraw, trace: Trace, rhythm: Strip) -> None:
    """A mark at the lower edge of the rhythm strip for each beat that was detected."""
    bottom = _TOP + (rhythm.lane + 1) * _LANE
    for beat in trace.beats:
        second = beat / trace.sampling_hz
        if 0 <= second <= rhythm.length_s:
            x = rhythm.left + round(second * _PX_PER_S)
            draw.polygon(((x, bottom - 16), (x - 7, bottom - 2), (x + 7, bottom - 2)), fill=_BEAT)
