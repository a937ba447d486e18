"""Text files that people of the site write: bytes in, text out, with a place for everything that is no plain UTF-8.

Never guesses an encoding: what Korean Windows saved as EUC-KR is named, not converted.
"""

from __future__ import annotations

import re
from pathlib import Path

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


NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
TAB_INDENT = re.compile(r"^ *\t[ \t]*[^\s#]", re.MULTILINE)


def _decode(raw: bytes, name: str) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
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
    if found := NOT_TEXT.search(text):
        raise mistake_at(name, *_line_column(text, found), f"a control character U+{ord(found[0]):04X}; delete it")
    if found := TAB_INDENT.search(text):
        raise mistake_at(name, *_line_column(text, found), "a tab at the start of a line; indent with spaces")
    if found := re.search("^%", text, re.MULTILINE):
        raise mistake_at(name, *_line_column(text, found), "a % line changes how YAML is read; leave it out")
    return text


def _line_column(text: str, found: re.Match[str] | None) -> tuple[int, int]:
    before = text[: found.start() if found else 0]
    return before.count("\n") + 1, len(before) - before.rfind("\n")
