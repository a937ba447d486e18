"""A file that people edit by hand while the node runs: read once it lies still, so that nobody sees half of it.

In: its path, looked at every second. Out: its document, text and owner when something new was saved. Editors write in
place, empty the file first, put another one over it or turn a link: each is a change, none is read while it happens.
"""

from __future__ import annotations

import math
import os
import pwd
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pacsnode import textfile, yamlfile
from pacsnode.yamlfile import Document

LOOK_EVERY_S: Final = 1.0
LOOKS_AT_START: Final = 5

Clock = Callable[[], float]
Status = tuple[int, ...]


@dataclass(frozen=True)
class Saved:
    """What lies in the file; `author` owns it."""

    document: Document
    text: str
    author: str


class WatchedFile:
    """Two looks, a second apart, must find the same before the file is read.

    File systems keep times by ticks: what was read at the moment of writing could change once more unseen. A second
    later that cannot be.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._looked_s = -math.inf
        self._seen: Status | None = None
        self._told: Status | None = None

    def has_settled(self) -> bool:
        """Look, at most once a second: whether something new lies there, and lies still. True once for each."""
        now_s = self._clock()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return False
        self._looked_s = now_s
        before, self._seen = self._seen, _status(_stat(self._path))
        if self._seen != before or self._seen == self._told:
            return False
        self._told = self._seen
        return True

    def wait(self) -> bool:
        """At a start: wait for what is being saved just now. False where somebody goes on writing."""
        for _ in range(LOOKS_AT_START):
            found = _stat(self._path)
            if found is None or time.time() - max(found.st_mtime, found.st_ctime) > LOOK_EVERY_S:
                return True
            time.sleep(LOOK_EVERY_S)
            if _status(_stat(self._path)) == _status(found):
                return True
        return False

    def read(self) -> Saved | None:
        """What lies there; None when it changed meanwhile: later looks see that. Raises ConfigError."""
        before = _stat(self._path)
        text = textfile.read(self._path)
        if before is None or _status(before) != _status(_stat(self._path)):
            return None
        return Saved(yamlfile.parse(text, str(self._path)), text, _owner(before.st_uid))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _status(found: os.stat_result | None) -> Status:
    """The same as long as nobody writes the file or puts another in its place; () for none."""
    if found is None:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
