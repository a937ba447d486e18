"""The picture of an image with what was found in it: outlines, a legend, the numbers.

In: a group with a picture (and a label map on the same grid, or none). Out: 8-bit RGB. Never changes the grey values
outside the marked regions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pacsnode.encode.drawing import (
    AMBER,
    BANNER_HEIGHT,
    BLACK,
    Line,
    algorithm_text,
    banner,
    findings_lines,
    panel,
)
from pacsnode.encode.seg import present_segments
from pacsnode.findings import Algorithm, Group

_PICTURE_BOX = (1120, 1280)  # columns, rows: together with the panel at most 1600 wide
_PANEL_WIDTH = 460
_LEAST_HEIGHT = 480
_FILL = 0.2  # how much of the colour lies on the tissue: it must stay readable
_OUTLINE_PIXELS = 2


def image_page(group: Group, picture: NDArray[np.uint8], algorithm: Algorithm) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8: the picture on the left, legend and findings on the right, the warning below."""
    drawn = Image.fromarray(_marked(group, picture))
    height = max(drawn.height, _LEAST_HEIGHT)
    legend = [
        Line(s.label, swatch=s.color_rgb, space_before=10 if i == 0 else 4)
        for i, s in enumerate(present_segments(group))
    ]
    lines = [
        Line(algorithm.title, 22, (255, 255, 255)),
        Line(algorithm_text(algorithm), 15, AMBER),
        *legend,
        *findings_lines(group),
    ]
    side = panel(lines, _PANEL_WIDTH, (24, 24, 24), most_height=max(height, 900))
    height = max(height, side.height)
    page = Image.new("RGB", (drawn.width + _PANEL_WIDTH, height + BANNER_HEIGHT), BLACK)
    page.paste(Image.new("RGB", (_PANEL_WIDTH, height), (24, 24, 24)), (drawn.width, 0))
    page.paste(drawn, (0, (height - drawn.height) // 2))
    page.paste(side, (drawn.width, 0))
    page.paste(banner(page.width), (0, height))
    return np.asarray(page, dtype=np.uint8)


def _marked(group: Group, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = picture.shape
    scale = min(_PICTURE_BOX[0] / columns, _PICTURE_BOX[1] / rows)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    marked = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).convert("RGB")
    # A volume's label map has no single plane that belongs to the picture.
    if group.label_map is None or group.label_map.shape != (1, rows, columns):
        return np.asarray(marked)
    labels = np.asarray(Image.fromarray(group.label_map[0]).resize(size, Image.Resampling.NEAREST))
    for segment in present_segments(group):
        region = labels == segment.value
        box = _bounds(region)
        if box is None:  # smaller than a pixel of the drawing
            continue
        part = region[box]
        alpha = np.where(_outline(part), 255, np.where(part, round(255 * _FILL), 0)).astype(np.uint8)
        corner = (box[1].start, box[0].start)
        marked.paste(
            segment.color_rgb, (*corner, corner[0] + part.shape[1], corner[1] + part.shape[0]), Image.fromarray(alpha)
        )
    return np.asarray(marked)


def _bounds(region: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """The rows and columns that `region` lies in."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not rows.size:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of `region` within `_OUTLINE_PIXELS` of its edge."""
    inside = region
    for _ in range(_OUTLINE_PIXELS):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & ~inside
