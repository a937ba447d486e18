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
    grey = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    marked = np.repeat(grey[:, :, None], 3, axis=2)
    # A volume's label map has no single plane that belongs to the picture.
    if group.label_map is None or group.label_map.shape != (1, rows, columns):
        return marked.astype(np.uint8)
    for segment in present_segments(group):
        mask = Image.fromarray(np.where(group.label_map[0] == segment.value, 255, 0).astype(np.uint8))
        region = np.asarray(mask.resize(size, Image.Resampling.BILINEAR)) >= 128
        color = np.array(segment.color_rgb, dtype=np.float32)
        marked[region] = marked[region] * (1 - _FILL) + color * _FILL
        marked[_outline(region)] = color
    return marked.round().astype(np.uint8)


def _outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of `region` within `_OUTLINE_PIXELS` of its edge."""
    inside = region
    for _ in range(_OUTLINE_PIXELS):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & ~inside
