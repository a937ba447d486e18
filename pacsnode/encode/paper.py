"""Pages of A4: text, tables and pictures below each other, with a head and a warning on every page.

In: text from anywhere, pictures as arrays. Out: the bytes of a PDF, the same for the same content. Never runs markup,
never links, never grows beyond `MOST_PAGES`: what comes after is left out, and the last page says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from reportlab import rl_config
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from pacsnode.encode.fonts import font_path, shown

RGB = tuple[int, int, int]

MOST_PAGES: Final = 20
MOST_CHARACTERS: Final = 2000
"""Of one text; a paragraph of a model card is shorter."""
_MOST_IN_CELL: Final = 400
"""So that the narrowest column of a row fits on a page."""
INK: Final[RGB] = (20, 20, 30)
GREY: Final[RGB] = (95, 95, 105)
ALARM: Final[RGB] = (176, 0, 32)
_AMBER: Final[RGB] = (255, 191, 0)
_RULE: Final[RGB] = (200, 200, 210)
_BAR: Final[RGB] = (30, 70, 120)

_FONT: Final = "PacsnodeGothic"
_WIDTH, _HEIGHT = A4
_LEFT: Final = 16 * mm
_BODY_WIDTH: Final = _WIDTH - 2 * _LEFT
_TOP: Final = _HEIGHT - 26 * mm
_BOTTOM: Final = 24 * mm
_BAND: Final = 7 * mm
_JPEG_QUALITY: Final = 90


@dataclass(frozen=True)
class Cell:
    """A text in a table or on its own."""

    text: str
    color: RGB = INK
    size: float = 9


@dataclass(frozen=True)
class _Text:
    x: float
    y: float
    cell: Cell

    def draw(self, canvas: Any) -> None:
        canvas.setFillColorRGB(*(part / 255 for part in self.cell.color))
        canvas.setFont(_FONT, self.cell.size)
        canvas.drawString(self.x, self.y, self.cell.text)


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float
    height: float
    color: RGB

    def draw(self, canvas: Any) -> None:
        canvas.setFillColorRGB(*(part / 255 for part in self.color))
        canvas.rect(self.x, self.y, self.width, self.height, stroke=0, fill=1)


@dataclass(frozen=True)
class _Picture:
    x: float
    y: float
    width: float
    height: float
    image: Any

    def draw(self, canvas: Any) -> None:
        canvas.drawImage(self.image, self.x, self.y, self.width, self.height)


@dataclass(frozen=True)
class Furniture:
    """What every page bears: `head` above (who it is), `warning` above and below, `cut` on a last page that is full."""

    title: str
    head: str
    warning: str
    cut: str
    page: str


class Paper:
    """Takes content from above to below and keeps what is drawn where; `pdf` ends it."""

    def __init__(self, furniture: Furniture) -> None:
        if _FONT not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(_FONT, str(font_path())))
        self._furniture = furniture
        self._pages: list[list[_Text | _Box | _Picture]] = [[]]
        self._y = _TOP
        self._is_full = False

    def text(self, cell: Cell, *, space_before: float = 3, indent: float = 0) -> None:
        """One paragraph, wrapped."""
        self._y -= space_before
        for line in wrapped(cell.text, cell.size, _BODY_WIDTH - indent):
            if not self._room(_leading(cell.size)):
                return
            self._y -= _leading(cell.size)
            self._pages[-1].append(_Text(_LEFT + indent, self._y, replace(cell, text=line)))

    def heading(self, text: str) -> None:
        """The title of a section, never alone at the end of a page."""
        if self._room(60):
            self._y -= 26
            self._pages[-1].append(_Box(_LEFT, self._y - 3, 3, 15, _BAR))
            self._pages[-1].append(_Text(_LEFT + 9, self._y, Cell(shown(text), _BAR, 12)))
            self._y -= 6

    def table(self, rows: Sequence[Sequence[Cell]], shares: Sequence[float]) -> None:
        """Rows of cells, columns by their share of the width; a row that fits on a page is not divided."""
        lefts = [_LEFT + _BODY_WIDTH * sum(shares[:i]) / sum(shares) for i in range(len(shares))]
        widths = [_BODY_WIDTH * share / sum(shares) - 6 for share in shares]
        for row in rows:
            columns = [
                wrapped(cell.text, cell.size, width, _MOST_IN_CELL) for cell, width in zip(row, widths, strict=True)
            ]
            lead = max(_leading(cell.size) for cell in row)
            height = max(map(len, columns)) * lead + 5
            if not self._room(min(height, _TOP - _BOTTOM)):
                return
            page = self._pages[-1]
            for left, cell, lines in zip(lefts, row, columns, strict=True):
                for number, line in enumerate(lines[: int((self._y - _BOTTOM) / lead)], start=1):
                    page.append(_Text(left, self._y - lead * number, replace(cell, text=line)))
            self._y = max(self._y - height, _BOTTOM)
            page.append(_Box(_LEFT, self._y, _BODY_WIDTH, 0.4, _RULE))

    def picture(self, pixels: NDArray[np.uint8], *, is_photographic: bool) -> None:
        """(rows, columns, 3) uint8, as wide as the page or as high as it; JPEG where lines need not stay sharp."""
        rows, columns = pixels.shape[:2]
        scale = min(_BODY_WIDTH / columns, (_TOP - _BOTTOM - 8) / rows)
        if self._room(rows * scale + 8):
            self._y -= rows * scale + 8
            image = _reader(pixels, is_photographic=is_photographic)
            self._pages[-1].append(_Picture(_LEFT, self._y, columns * scale, rows * scale, image))

    def pdf(self, created: datetime) -> bytes:
        """The document, as made at that time."""
        rl_config.useA85 = 0  # binary streams: a quarter smaller
        buffer = BytesIO()
        canvas = Canvas(buffer, pagesize=A4, pageCompression=1, invariant=1, lang="ko-KR")
        offset = created.strftime("%z") or "+0000"
        stamp = f"D:{created:%Y%m%d%H%M%S}{offset[:3]}'{offset[3:5]}'"
        canvas.setDateFormatter(lambda *_: stamp)
        canvas.setTitle(self._furniture.title)
        canvas.setAuthor("pacsnode")
        canvas.setCreator("pacsnode")
        canvas.setSubject(self._furniture.warning)
        for number, page in enumerate(self._pages, start=1):
            for item in [*self._page_furniture(number), *page]:
                item.draw(canvas)
            canvas.showPage()
        canvas.save()
        return buffer.getvalue()

    def _page_furniture(self, number: int) -> Iterator[_Text | _Box]:
        furniture = self._furniture
        last = len(self._pages)
        for bottom in (_HEIGHT - 8 * mm - _BAND, 8 * mm):
            yield _Box(_LEFT, bottom, _BODY_WIDTH, _BAND, _AMBER)
            yield _Text(_LEFT + 8, bottom + 6.5, Cell(furniture.warning, INK, 10))
        counted = f"{furniture.page} {number} / {last}"
        right = _LEFT + _BODY_WIDTH - _width(counted, 8)
        yield _Text(right, 17.5 * mm, Cell(counted, GREY, 8))
        yield _Text(_LEFT, _HEIGHT - 21 * mm, Cell(_one_line(furniture.head, 9, _BODY_WIDTH), GREY, 9))
        if self._is_full and number == last:
            yield _Text(_LEFT, 20.5 * mm, Cell(furniture.cut, ALARM, 8))

    def _room(self, height: float) -> bool:
        """Whether so much can be drawn below, on a new page where it must be."""
        if not self._is_full and self._y - height < _BOTTOM and self._pages[-1]:
            if len(self._pages) == MOST_PAGES:
                self._is_full = True
            else:
                self._pages.append([])
                self._y = _TOP
        return not self._is_full


def wrapped(text: str, size: float, width: float, most: int = MOST_CHARACTERS) -> list[str]:
    """`text` in lines of at most `width` points, broken at spaces; a longer word is broken anywhere."""
    plain = shown(text[:most]) + ("…" if len(text) > most else "")
    lines: list[str] = []
    current, used = "", 0.0
    for word in plain.split(" "):
        length = _width(word, size)
        together = used + _width(" ", size) + length
        if current and together <= width:
            current, used = f"{current} {word}", together
            continue
        if current:
            lines.append(current)
        rest = word
        while length > width and len(rest) > 1:
            fitting = _one_line(rest, size, width)
            lines.append(fitting)
            rest, length = rest[len(fitting) :], length - _width(fitting, size)
        current, used = rest, length
    return [*lines, current] if current else lines


def _one_line(text: str, size: float, width: float) -> str:
    """As much of `text` as fits, one character at least."""
    used = 0.0
    for i, character in enumerate(text):
        used += _advance(character) * size
        if used > width and i:
            return text[:i]
    return text


def _width(text: str, size: float) -> float:
    return sum(map(_advance, text)) * size


@cache
def _advance(character: str) -> float:
    """The width of a character of the font in units of its size; there are at most as many as the font has."""
    return float(pdfmetrics.stringWidth(character, _FONT, 1))


def _leading(size: float) -> float:
    return size * 1.45


def _reader(pixels: NDArray[np.uint8], *, is_photographic: bool) -> Any:
    image = Image.fromarray(pixels)
    if not is_photographic:
        return ImageReader(image)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    buffer.seek(0)
    return ImageReader(buffer)
