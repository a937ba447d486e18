"""The font of what we draw, on pictures and in the PDF: it has every Hangul syllable, and each machine draws the same.

In: text from anywhere. Out: the font's file, and text in characters that it has. Never looks for fonts of the system.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "fonts"
_INSTEAD: Final = str.maketrans({"µ": "μ", "−": "-", "\u00a0": " ", "\u2011": "-", "∙": "·"})
"""What the font has under another code."""
_UNKNOWN: Final = "□"


def font_path() -> Path:
    """A TrueType file: all 11,172 Hangul syllables, the Hanja of KS X 1001, Latin, Greek, symbols. See fonts/README."""
    return _FOLDER / "PacsnodeGothic.ttf"


@cache
def glyphs() -> frozenset[int]:
    """The code points that the font can draw."""
    from reportlab.pdfbase.ttfonts import TTFontFace

    return frozenset(TTFontFace(str(font_path())).charToGlyph)


def shown(text: str) -> str:
    """`text` on one line in characters of the font: an accent that it lacks is dropped, any other stranger is □.

    Invisible characters (also those that turn the direction of writing) are dropped: they may hide what is written.
    """
    composed = unicodedata.normalize("NFC", text).translate(_INSTEAD)
    return " ".join("".join(map(_drawn, composed)).split())


def _drawn(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Zs", "Zl", "Zp"):
        return " "
    if category in ("Cf", "Cs", "Mn", "Me"):
        return ""
    if ord(character) in glyphs():
        return character
    plain = [c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)]
    return "".join(plain) if plain and all(ord(c) in glyphs() for c in plain) else _UNKNOWN
