"""The attributes of one study's images as `index.db` holds them, read so that what images have in common is one object.

In: an open connection to `index.db`, JSON of its rows. Out: attributes by keyword. Never writes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import TypeVar

from pacsnode.dicom.attributes import PER_IMAGE

_OF_STUDY = """
    SELECT id, attributes FROM common
    WHERE id IN (SELECT common FROM instances WHERE study_instance_uid = ? AND origin = 'received')
"""

Plain = Mapping[str, tuple[str, ...]]


T = TypeVar("T")


class Described(Mapping[str, tuple[str, ...]]):
    """Attributes of one image. `common` is one object for images that differ in nothing but `PER_IMAGE`.

    What the image has for itself is parsed when it is asked for: of a thousand slices that is rarely the case.
    """

    __slots__ = ("_own", "_text", "common")

    def __init__(self, common: Plain, own: str) -> None:
        self.common = common
        self._text = own
        self._own: Plain | None = None

    @property
    def own(self) -> Plain:
        """Those of `PER_IMAGE`."""
        if self._own is None:
            self._own = _attributes(self._text)
        return self._own

    def __getitem__(self, keyword: str) -> tuple[str, ...]:
        return self.own[keyword] if keyword in PER_IMAGE else self.common[keyword]

    def get(self, keyword: str, default: T = None) -> tuple[str, ...] | T:  # type: ignore[assignment]
        """As of every mapping; that of the base class raises and catches for each absent one."""
        return (self.own if keyword in PER_IMAGE else self.common).get(keyword, default)

    def __contains__(self, keyword: object) -> bool:
        return keyword in (self.own if keyword in PER_IMAGE else self.common)

    def __iter__(self) -> Iterator[str]:
        yield from self.common
        yield from self.own

    def __len__(self) -> int:
        return len(self.common) + len(self.own)

    def __repr__(self) -> str:
        return repr(dict(self))


class Reading:
    """Reads the rows of one study or image. What the images of a series have in common is parsed once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[int, Plain] = {}

    def begin(self, study_instance_uid: str) -> None:
        """Read what images of this study have in common."""
        self._known = {
            number: _attributes(text) for number, text in self._connection.execute(_OF_STUDY, (study_instance_uid,))
        }

    def attributes(self, common: int, own: str) -> Described:
        """The attributes of a row."""
        shared = self._known.get(common)
        if shared is None:
            (text,) = self._connection.execute("SELECT attributes FROM common WHERE id = ?", (common,)).fetchone()
            shared = self._known[common] = _attributes(text)
        return Described(shared, own)


def _attributes(text: str) -> Plain:
    plain: dict[str, list[str]] = json.loads(text)
    return {keyword: tuple(values) for keyword, values in plain.items()}
