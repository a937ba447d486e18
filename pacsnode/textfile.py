"""Text files that people of the site write: bytes in, text out, with a place for everything that is no plain UTF-8.

Never guesses an encoding: what Korean Windows saved as EUC-KR is named, not converted.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from ruamel.yaml.error import MarkedYAMLError

from pacsnode.errors import ConfigError

MAX_BYTES = 256_000
"""ruamel.yaml needs about 10 s for a megabyte."""


def mistake_at(name: str, line: int, column: int, text: str) -> ConfigError:
    """A mistake at a place of a file."""
    where = f"{name}:{line}:{column}"
    error = ConfigError(f"{where} file: {text} [not-readable]")
    error.where = where
    return error


def read(path: Path) -> str:
    """The text of a file. Raises ConfigError with file, line and column."""
    return _decode(_read(path), str(path))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise mistake_at(str(path), 1, 1, f"cannot be read: {error.strerror or error}") from None
    if len(raw) > MAX_BYTES:
        raise mistake_at(str(path), 1, 1, f"larger than {MAX_BYTES} bytes: this is no file written by hand")
    return raw


NOT_TEXT = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
UNSEEN = "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
"""No editor shows them, and they make another word: they come along when text is copied."""
REFUSED = [
    (re.compile(pattern, re.MULTILINE), told)
    for pattern, told in (
        (f"({NOT_TEXT})", "a control character U+{:04X}; delete it"),
        (f"({UNSEEN})", "an invisible character U+{:04X}; delete it"),
        (r"^ *(\t)[ \t]*[^\s#]", "a tab at the start of a line; indent with spaces"),
        ("^ *([\u00a0\u2000-\u200a\u3000])", "a wide space U+{:04X} at the start of a line; indent with plain spaces"),
        ("^(%)", "a % line changes how YAML is read; leave it out"),
    )
]
"""What stands nowhere in such a file, and what to do about it."""
WIDE = re.compile("[\u00a0\u3000\uff01-\uff5e\u2018\u2019\u201c\u201d]")
"""Punctuation of Korean, Japanese and Chinese keyboards and of word processors; YAML takes it for letters."""
PLAIN = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'}

HINTS = (
    ("unknown escape character", "in double quotes a \\ begins an escape; put the text in single quotes"),
    ("found character '\\t'", "a tab; write a space in its place"),
    ("that cannot start any token", "put the text in quotes"),
    ("alias", "* begins an alias; put the text in quotes"),
    ("anchor", "& begins an anchor; put the text in quotes"),
    ("mapping values", "a value with a colon in it goes in quotes; or this line is indented further than it may be"),
    ("found '<scalar>'", "text behind a closing quote; inside single quotes a ' is written ''"),
    ("<block end>", "this line is not indented like those that it belongs to"),
    ("expected ':'", "behind a key stand a colon and a space"),
    ("quoted scalar", "the quote that begins here is not closed"),
    ("flow sequence", "a comma is missing, or the [ of line {opened} is not closed"),
    ("flow mapping", "a comma is missing, or the {{ of line {opened} is not closed"),
    ("another document", "leave the line --- out"),
)
"""What is most likely meant by what the YAML parser says."""


def not_yaml(error: MarkedYAMLError, text: str, name: str) -> ConfigError:
    """What the parser says, and what to write: there, or where something begins that does not end."""
    begun = error.context_mark or error.problem_mark
    mark = error.problem_mark or begun
    said = ": ".join(part for part in (error.context, error.problem) if part)
    if said.startswith(("while scanning a quoted scalar", "while scanning a simple key")):
        mark = begun
    lines = text.splitlines()
    looked_at = " ".join(lines[number] for number in (begun.line, mark.line) if number < len(lines))
    hint = _hint(said, looked_at, begun.line + 1)
    return mistake_at(name, mark.line + 1, mark.column + 1, f"not YAML: {said}{hint}")


def _hint(said: str, lines: str, opened: int) -> str:
    hint = next((f"; {hint.format(opened=opened)}" for words, hint in HINTS if words in said), "")
    if found := WIDE.search(lines):
        plain = PLAIN.get(found[0]) or unicodedata.normalize("NFKC", found[0])
        hint += f"; {found[0]!r} (U+{ord(found[0]):04X}) is not {plain!r}"
    return hint


def _decode(raw: bytes, name: str) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or 0 in raw[:2]:
        raise mistake_at(name, 1, 1, "saved as UTF-16; save the file as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        good = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        line, column = _line_column(good, re.search("[\udc80-\udcff]", good))
        try:  # Korean Windows saves as EUC-KR (code page 949)
            raw.decode("cp949")
            text = "saved as EUC-KR (CP949)"
        except UnicodeDecodeError:
            text = "not UTF-8"
        raise mistake_at(name, line, column, f"{text}; save the file as UTF-8") from None
    for refused, told in REFUSED:
        if found := refused.search(text):
            raise mistake_at(name, *_line_column(text, found), told.format(ord(found[1])))
    return text


def _line_column(text: str, found: re.Match[str] | None) -> tuple[int, int]:
    before = text[: found.start(found.lastindex or 0) if found else 0]
    return before.count("\n") + 1, len(before) - before.rfind("\n")
