"""The attributes of one study's images as `instances.attributes` holds them, read so that what images have in common is
one object.

In: JSON of the rows. Out: attributes by keyword. Reads no database.
"""

from __future__ import annotations

import json
from collections.abc import Collection

PER_IMAGE = ("SOPInstanceUID", "AcquisitionDateTime", "AcquisitionTime", "ContentTime", "InstanceNumber")
"""What differs in nearly every image of a series, in the order of tags, which is that of the rows."""
_BEGINNINGS = tuple((keyword, f'"{keyword}": ["') for keyword in PER_IMAGE)


class Described(dict[str, tuple[str, ...]]):
    """Attributes of one image. `common` is one object for images that differ in nothing but `PER_IMAGE`."""

    __slots__ = ("common",)
    common: object


class Reading:
    """Reads the rows of one study. What the images of a series have in common is parsed once: to parse each row takes
    four times as long.
    """

    def __init__(self, per_image: Collection[str] = PER_IMAGE) -> None:
        self._wanted = frozenset(per_image)
        self._known: dict[str, dict[str, tuple[str, ...]]] = {}

    def attributes(self, text: str) -> Described:
        """The attributes of a row; of `PER_IMAGE` those that are wanted."""
        own: dict[str, tuple[str, ...]] = {}
        pieces, at = [], 0
        for keyword, beginning in _BEGINNINGS:
            start = text.find(beginning, at)  # a quote inside of a value has a backslash before it: this is a key
            if start < 0:
                continue
            start += len(beginning)
            end = text.find('"', start)
            value = text[start:end]
            if "\\" in value or text[end + 1] != "]":
                continue
            pieces.append(text[at:start])
            own[keyword] = (value,)
            at = end
        pieces.append(text[at:])
        common = "".join(pieces)
        shared = self._known.get(common)
        if shared is None:
            plain: dict[str, list[str]] = json.loads(common)
            shared = {keyword: tuple(values) for keyword, values in plain.items() if keyword not in own}
            self._known[common] = shared
        described = Described(shared)
        described.common = shared
        described.update({keyword: value for keyword, value in own.items() if keyword in self._wanted})
        return described
