"""Pages of a capture: the picture with its marks on the left, legend and findings on the right, the warning below.

In: a group of findings and the planes to draw. Out: 8-bit RGB. Text stands beside the picture, not on it: which plane
it is above, the scale below. Never writes a name of a patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pacsnode.encode.drawing import (
    AMBER,
    BANNER_HEIGHT,
    BLACK,
    RGB,
    Line,
    algorithm_text,
    banner,
    clipped,
    findings_lines,
    font,
    measurement_text,
    panel,
)
from pacsnode.encode.marking import View, drawn_size, marked, region_text
from pacsnode.encode.seg import present_segments
from pacsnode.findings import Algorithm, Group

Heading = tuple[str, str]
_DARK: RGB = (24, 24, 24)
_GREY: RGB = (170, 170, 170)
_WHITE: RGB = (255, 255, 255)
_STRIP = 30
_MOST_REGIONS = 40
_BAR_SHARE = 0.3
"""Of the width of the picture, that a scale bar takes at most."""


@dataclass(frozen=True)
class Form:
    """Room for the picture (columns, rows), and for the panel beside it."""

    box: tuple[int, int]
    panel_width: int
    least_height: int


SINGLE = Form((1120, 1280), 460, 480)
"""At most 1600 wide: a screen of a ward."""
STACKED = Form((720, 512), 340, 480)
"""Of many: most CT and MR in their own size, so that forty of them stay below 100 MB."""


def image_page(group: Group, picture: NDArray[np.uint8], algorithm: Algorithm) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8 of a single picture: (rows, columns), or (rows, columns, 3) RGB."""
    (page,) = pages(group, [View(picture, (picture.shape[0], picture.shape[1]))], heading(algorithm), SINGLE)
    return page


def heading(algorithm: Algorithm) -> Heading:
    """The first two lines of the panel."""
    return algorithm.title, algorithm_text(algorithm)


def pages(group: Group, views: Sequence[View], heading: Heading, form: Form = STACKED) -> Iterator[NDArray[np.uint8]]:
    """(rows, columns, 3) uint8 for each of `views`, which are of one size."""
    size = drawn_size(group, views[0], form.box)
    strips = [_STRIP if any(view.caption for view in views) else 0, _STRIP if group.spacing_mm else 0]
    least = max(size[1] + sum(strips), form.least_height)
    side = panel(_lines(group, views, heading, form), form.panel_width, _DARK, most_height=max(least, 900))
    height = max(least, side.height)
    empty = Image.new("RGB", (max(size[0], 320) + form.panel_width, height + BANNER_HEIGHT), BLACK)
    room = empty.width - form.panel_width
    empty.paste(Image.new("RGB", (form.panel_width, height), _DARK), (room, 0))
    empty.paste(side, (room, 0))
    empty.paste(banner(empty.width), (0, height))
    corner = ((room - size[0]) // 2, strips[0] + (height - sum(strips) - size[1]) // 2)
    if group.spacing_mm:
        _draw_scale(ImageDraw.Draw(empty), (corner[0], corner[1] + size[1]), size[0], _width_mm(group, views[0]))
    for view in views:
        page = empty.copy()
        page.paste(marked(group, view, size), corner)
        caption = clipped(view.caption, 17, room - 20)
        ImageDraw.Draw(page).text((10, 5), caption, font=font(17), fill=_WHITE)
        yield np.asarray(page, dtype=np.uint8)


def _lines(group: Group, views: Sequence[View], heading: Heading, form: Form) -> list[Line]:
    small = form is STACKED
    legend = [
        Line(s.label, 16 if small else 18, swatch=s.color_rgb, space_before=10 if i == 0 else 4)
        for i, s in enumerate(present_segments(group))
    ]
    lines = [
        Line(heading[0], 19 if small else 22, _WHITE),
        Line(heading[1], 15, AMBER),
        *legend,
        *_regions(group, views),
        *findings_lines(group),
    ]
    return [*lines, Line(f"{len(views)} images of the analysis.", 15, _GREY)] if len(views) > 1 else lines


def _regions(group: Group, views: Sequence[View]) -> Iterator[Line]:
    """Their numbers, and where each lies where there are several pictures."""
    names = {view.plane: view.caption.partition(",")[0].partition(":")[0] for view in views}
    for number, region in enumerate(group.regions[:_MOST_REGIONS], start=1):
        where = f", {names.get(group.plane_of(region), '')}" if len(views) > 1 else ""
        yield Line(f"{number} {region_text(region)}{where}", 16, swatch=region.color_rgb, space_before=6)
        for measurement in region.measurements:
            yield Line(measurement_text(measurement), 15, _GREY, space_before=2)
        if region.comment:
            yield Line(region.comment, 15, _GREY, space_before=2)
    if len(group.regions) > _MOST_REGIONS:
        yield Line(f"{len(group.regions) - _MOST_REGIONS} more regions in the report.", 15, AMBER)


def _width_mm(group: Group, view: View) -> float:
    assert group.spacing_mm is not None
    return view.size[1] * group.spacing_mm[1]


def _draw_scale(draw: ImageDraw.ImageDraw, corner: tuple[int, int], width: int, width_mm: float) -> None:
    """A bar of a round length below the picture."""
    length_mm = _round_below(width_mm * _BAR_SHARE)
    pixels = round(length_mm / width_mm * width)
    left, middle = corner[0] + 10, corner[1] + _STRIP // 2
    for x in (left, left + pixels):
        draw.line((x, middle - 6, x, middle + 6), fill=_WHITE, width=2)
    draw.line((left, middle, left + pixels, middle), fill=_WHITE, width=2)
    draw.text((left + pixels + 10, middle), f"{length_mm:g} mm", font=font(16), fill=_WHITE, anchor="lm")


def _round_below(length: float) -> float:
    """1, 2 or 5 times a power of ten."""
    power: float = 10.0 ** np.floor(np.log10(length))
    return float(max(step * power for step in (1, 2, 5) if step * power <= length * 1.000001))
