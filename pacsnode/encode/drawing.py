"""Text on pictures: what both kinds of secondary capture write beside and below the picture.

In: a group of findings and the algorithm. Out: lines of text and Pillow images of them. Never a patient's name: the
pixels of a result carry no identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from pacsnode.dicom.codes import Concept
from pacsnode.encode.fonts import font_path, shown
from pacsnode.findings import Algorithm, Evaluation, Group, Measurement

RGB = tuple[int, int, int]

BANNER = "AI result, unverified - not for diagnosis"
BANNER_HEIGHT = 44
AMBER: RGB = (255, 191, 0)
BLACK: RGB = (0, 0, 0)

_UNITS = {"1": "", "{ratio}": ""}


@dataclass(frozen=True)
class Line:
    """One line of a panel; `swatch` is the colour of the box before it, in a legend."""

    text: str
    size: int = 18
    color: RGB = (230, 230, 230)
    swatch: RGB | None = None
    space_before: int = 4


@lru_cache(16)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The project's own font, so that every machine draws the same; it has Hangul."""
    return ImageFont.truetype(font_path(), size)


def wrapped(text: str, size: int, width: int) -> list[str]:
    """`text` in lines of at most `width` pixels, broken at spaces; a longer word is broken anywhere."""
    lines: list[str] = []
    current = ""
    for word in shown(text).split(" "):
        longer = f"{current} {word}".strip()
        if font(size).getlength(longer) <= width:
            current = longer
            continue
        if current:
            lines.append(current)
        while word and font(size).getlength(word) > width:
            fits = _fitting(word, size, width)
            lines.append(word[:fits])
            word = word[fits:]
        current = word
    return [*lines, current] if current else lines


def _fitting(word: str, size: int, width: int) -> int:
    """How many letters of a word that is too long have room, at least one."""
    fits, too_many = 1, len(word)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if font(size).getlength(word[:middle]) <= width:
            fits = middle
        else:
            too_many = middle
    return fits


def clipped(text: str, size: int, width: int) -> str:
    """`text` on one line of at most `width` pixels, its end cut off."""
    lines = wrapped(text, size, width)
    if len(lines) <= 1:
        return lines[0] if lines else ""
    return wrapped(lines[0], size, max(1, width - round(font(size).getlength("…"))))[0] + "…"


def measurement_text(measurement: Measurement) -> str:
    """`Area, right lung: 183 mm2`."""
    where = " ".join(c.meaning.lower() for c in (measurement.laterality, measurement.site) if c)
    value = measurement.value
    number = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    unit = _unit(measurement.unit)
    return f"{measurement.name.meaning}{', ' if where else ''}{where}: {number}{' ' if unit else ''}{unit}"


def evaluation_text(evaluation: Evaluation) -> str:
    """`Atrial fibrillation: absent (3 %)`, `Pneumonia, left lung: present (90 %)`."""
    probability = "" if evaluation.probability is None else f" ({evaluation.probability * 100:.0f} %)"
    where = " ".join(part.meaning.lower() for part in (evaluation.laterality, evaluation.site) if part)
    return f"{evaluation.name.meaning}{f', {where}' if where else ''}: {evaluation.presence.value}{probability}"


def algorithm_text(algorithm: Algorithm) -> str:
    """Which algorithm, in one line."""
    return f"{algorithm.service} {algorithm.version}, status: {algorithm.status}"


def findings_lines(group: Group) -> list[Line]:
    """Measurements, evaluations and notes of `group`, in this order."""
    lines = [Line(measurement_text(m), space_before=8 if i == 0 else 4) for i, m in enumerate(group.measurements)]
    for evaluation in group.evaluations:
        lines.append(Line(evaluation_text(evaluation), space_before=8))
        if evaluation.comment:
            lines.append(Line(evaluation.comment, 15, (170, 170, 170), space_before=2))
    lines += [Line(note, 15, (170, 170, 170), space_before=8) for note in group.notes]
    return lines


def panel(lines: Iterable[Line], width: int, background: RGB, most_height: int) -> Image.Image:
    """`lines` below each other, wrapped to `width`, cut with a hint after `most_height` pixels."""
    placed = _placed(lines, width)
    height = placed[-1][0] + 30 if placed else 1
    if height > most_height:
        placed = [p for p in placed if p[0] < most_height - 60]
        hint = Line("More in the structured report.", 15, AMBER)
        placed.append((most_height - 30, hint, hint.text, False))
        height = most_height
    image = Image.new("RGB", (width, height), background)
    draw = ImageDraw.Draw(image)
    for top, line, text, is_first in placed:
        left = 12
        if line.swatch is not None:
            if is_first:
                draw.rectangle((left, top + 1, left + 16, top + 17), fill=line.swatch)
            left += 26
        draw.text((left, top), text, font=font(line.size), fill=line.color)
    return image


def banner(width: int) -> Image.Image:
    """The strip below every picture."""
    image = Image.new("RGB", (width, BANNER_HEIGHT), AMBER)
    size = 26
    while font(size).getlength(BANNER) > width - 8 and size > 8:
        size -= 1
    ImageDraw.Draw(image).text((width / 2, BANNER_HEIGHT / 2), BANNER, font=font(size), fill=BLACK, anchor="mm")
    return image


def _placed(lines: Iterable[Line], width: int) -> Sequence[tuple[int, Line, str, bool]]:
    placed = []
    top = 8
    for line in lines:
        room = width - 24 - (26 if line.swatch is not None else 0)
        top += line.space_before
        for number, text in enumerate(wrapped(line.text, line.size, room)):
            placed.append((top, line, text, number == 0))
            top += round(line.size * 1.3)
    return placed


def _unit(unit: Concept) -> str:
    return _UNITS.get(unit.value, unit.value.strip("{}[]"))
