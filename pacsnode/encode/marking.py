"""Marks on a picture: segments as outlines with a light fill, regions as thin outlines with a number or a label.

In: a picture, grey or RGB, and what lies in its plane. Out: RGB of another size. Never changes a pixel outside the
marks, but for the letters beside a region, which have a dark edge and no box behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pacsnode.encode.drawing import BLACK, font
from pacsnode.encode.fonts import shown
from pacsnode.findings import Group, Presence, Region, Shape, outline

FILL = 0.14
"""How much of a segment's colour lies on the tissue: it must stay readable."""
_OUTLINE_PIXELS = 2
_POINT_PIXELS = 10
_MOST_LABELLED = 4
"""Regions of one plane whose label stands beside them; more of them have their number only."""
_LETTERS = 18
_BOLD = 0.6
"""Of a pixel, by which the letters are thickened: the font is a thin one."""


@dataclass(frozen=True)
class View:
    """One plane as it is drawn. `size`: rows, columns of the source; `plane`: from 0; `caption`: which one it is."""

    picture: NDArray[np.uint8]
    size: tuple[int, int]
    plane: int = 0
    caption: str = ""


def drawn_size(group: Group, view: View, box: tuple[int, int]) -> tuple[int, int]:
    """Columns and rows of the picture in `box` (columns, rows): as the patient is, where pixels are not square."""
    rows, columns = view.size
    down, across = group.spacing_mm or (1.0, 1.0)
    height, width = rows * down / min(down, across), columns * across / min(down, across)
    scale = min(box[0] / width, box[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def marked(group: Group, view: View, size: tuple[int, int]) -> Image.Image:
    """The picture of `view` in `size` (columns, rows) with all that was found in its plane."""
    picture = Image.fromarray(view.picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).convert("RGB")
    for labels in labels_of(group, view.plane):
        if labels.any() and labels.shape == view.size:
            _mark_segments(group, picture, np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)))
    here = regions_in(group, view.plane)
    for _, region in here:
        _mark_region(picture, region, _place(region, view, size))
    for number, region in here:
        text = f"{number} {region_text(region)}" if len(here) <= _MOST_LABELLED else str(number)
        _label(picture, text, region.color_rgb, _place(region, view, size))
    return picture


def labels_of(group: Group, plane: int) -> list[NDArray[np.uint8]]:
    """(rows, columns): the labels of a plane."""
    return [one[plane] for one in group.maps if plane < len(one)]


def regions_in(group: Group, plane: int) -> list[tuple[int, Region]]:
    """The regions of a plane with their numbers, which count from 1 through the whole group."""
    return [(number, r) for number, r in enumerate(group.regions, start=1) if plane in group.planes_of(r)]


def region_text(region: Region) -> str:
    """`Polyp 93 %`, `Nodule absent`."""
    probability = "" if region.probability is None else f" {region.probability * 100:.0f} %"
    presence = "" if region.presence in (None, Presence.PRESENT) else f" {region.presence}"
    return f"{region.label}{presence}{probability}"


def _mark_segments(group: Group, picture: Image.Image, labels: NDArray[np.uint8]) -> None:
    for segment in sorted(group.segments, key=lambda s: s.value):
        region = labels == segment.value
        box = _bounds(region)
        if box is None:  # not in this plane, or smaller than a pixel of the drawing
            continue
        part = region[box]
        # Between two segments there is one line, that of the one with the higher value: a lesion's, not its organ's.
        edge = part & _edge((labels >= segment.value)[box])
        alpha = np.where(edge, 255, np.where(part, round(255 * FILL), 0)).astype(np.uint8)
        corner = (box[1].start, box[0].start)
        end = (corner[0] + part.shape[1], corner[1] + part.shape[0])
        picture.paste(segment.color_rgb, (*corner, *end), Image.fromarray(alpha))


def _bounds(region: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """The rows and columns that `region` lies in, and those beside it that its edge depends on."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not rows.size:
        return None
    (top, left), (bottom, right) = (rows[0], columns[0]), (rows[-1], columns[-1])
    more = _OUTLINE_PIXELS
    return slice(max(0, int(top) - more), int(bottom) + 1 + more), slice(
        max(0, int(left) - more), int(right) + 1 + more
    )


def _edge(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of `region` within `_OUTLINE_PIXELS` of its edge."""
    inside = region
    for _ in range(_OUTLINE_PIXELS):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & ~inside


def _place(region: Region, view: View, size: tuple[int, int]) -> list[tuple[float, float]]:
    """The outline in pixels of the drawing; what lies outside of the image is cut to its border."""
    rows, columns = view.size
    return [
        (min(max(x / columns, 0.0), 1.0) * size[0], min(max(y / rows, 0.0), 1.0) * size[1]) for x, y in outline(region)
    ]


def _mark_region(picture: Image.Image, region: Region, points: Sequence[tuple[float, float]]) -> None:
    draw = ImageDraw.Draw(picture)
    if region.shape == Shape.POINT:
        (x, y), arm = points[0], _POINT_PIXELS
        # A cross with an open middle: what it points at stays visible.
        lines = [
            [(x + dx * arm / 2, y + dy * arm / 2), (x + dx * arm * 1.6, y + dy * arm * 1.6)]
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))
        ]
    else:
        lines = [list(points)]
    for width, color in ((4, BLACK), (2, region.color_rgb)):
        for line in lines:
            draw.line(line, fill=color, width=width, joint="curve")


def _label(picture: Image.Image, text: str, color: tuple[int, int, int], points: Sequence[tuple[float, float]]) -> None:
    """Above the region, below it where there is no room, always inside the picture."""
    letters, drawn = font(_LETTERS), shown(text)
    wide, high = letters.getlength(drawn) + 4, _LETTERS * 1.3
    left = min(max(2.0, min(x for x, _ in points)), max(2.0, picture.width - wide))
    top = min(y for _, y in points) - high - 4
    if top < 2:
        top = min(max(y for _, y in points) + 4, picture.height - high)
    draw = ImageDraw.Draw(picture)
    draw.text((left, top), drawn, font=letters, fill=BLACK, stroke_width=3, stroke_fill=BLACK)
    draw.text((left, top), drawn, font=letters, fill=color, stroke_width=_BOLD, stroke_fill=color)
