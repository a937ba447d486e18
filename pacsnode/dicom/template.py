"""The layout of a header that was scanned, so that the next one like it need not be: a series has hundreds of them.

In: the beginning of a data set and the scan of it. Out: of another beginning the values of the same elements, but only
where every byte that the scan looked at is the same again, so that a scan would find them there too. The scan looks at
no values; their lengths may differ where nothing around them depends on those. Never decodes a value.
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple

from pacsnode.dicom.attributes import PIXEL_DATA
from pacsnode.dicom.elements import Scan
from pacsnode.dicom.forms import UNDEFINED, Syntax

LONGEST_VARYING_BYTES = 16_384
"""A longer value of another length than before is left to the scan; in implicit VR no such length looks like a VR."""


class _Value(NamedTuple):
    """A value that the scan did not look into; `length_bytes` is the size of its length, 0 where that must not vary."""

    start: int
    end: int
    length_bytes: int
    wanted: bool


class _Run(NamedTuple):
    """What lies between two values of varying length: its `structure` must be as expected, `values` are the wanted.

    It ends with the length of the value behind it, `length_bytes` long; the last one ends where the pixels begin.
    """

    structure: struct.Struct
    expected: tuple[bytes, ...]
    values: struct.Struct
    length_bytes: int
    wanted: bool


class Found(NamedTuple):
    """The values of the wanted elements before the pixel data, in their order, and where those begin."""

    values: tuple[bytes, ...]
    pixels_start: int


class Layout:
    """Where the values lie in one beginning that is cut off inside its pixel data. Immutable."""

    def __init__(self, head: bytes, values: tuple[_Value, ...], pixels: tuple[int, int], syntax: Syntax) -> None:
        self.pixels_start, self.pixels_length = pixels
        self.head = head[: self.pixels_start]
        self.values = values
        self.order: Literal["big", "little"] = "big" if syntax.big_endian else "little"

    @classmethod
    def of(cls, head: bytes, scan: Scan, syntax: Syntax) -> Layout | None:
        """The layout of a beginning; None where a scan of another one could depend on more than its structure."""
        *wanted, pixels = scan.elements
        goes_on = pixels.length == UNDEFINED or pixels.start + pixels.length > len(head)
        if scan.skipped is None or not goes_on or any(element.tag in PIXEL_DATA for element in wanted):
            return None
        starts = {element.start for element in wanted}
        values = tuple(
            _Value(start, start + length, _length_bytes(start - at, syntax) if at_top else 0, start in starts)
            for at, start, length, at_top in scan.skipped
        )
        return cls(head, values, (pixels.start, pixels.length), syntax)

    def varying(self, head: bytes | bytearray) -> frozenset[int] | None:
        """The numbers of the values whose lengths differ in `head`; None where it has another layout."""
        differing: set[int] = set()
        at = here = 0  # behind the same value in our own head and in the other
        for number, (start, end, length_bytes, _) in enumerate(self.values):
            size, length = start - at, end - start
            structure = head[here : here + size]
            if structure != self.head[at:start]:
                fixed = size - length_bytes
                if not length_bytes or len(structure) < size or structure[:fixed] != self.head[at : at + fixed]:
                    return None
                length = int.from_bytes(structure[fixed:], self.order)
                if length > LONGEST_VARYING_BYTES:
                    return None
                differing.add(number)
            at, here = end, here + size + length
        return frozenset(differing) if head[here : here + self.pixels_start - at] == self.head[at:] else None


class Template:
    """A layout, made ready for comparing: `varying` are the numbers of values that may have any length. Immutable."""

    def __init__(self, layout: Layout, varying: frozenset[int]) -> None:
        self.layout = layout
        self.varying = varying
        self._runs: list[_Run] = []
        begun, at, structure, values = 0, 0, "<", "<"
        for number, value in enumerate(layout.values):
            header = value.start - at
            if number in varying:
                structure += f"{header - value.length_bytes}s{value.length_bytes}x"
                self._add_run(begun, structure, f"{values}{header}x", value)
                begun, structure, values = value.end, "<", "<"
            else:
                size = value.end - value.start
                structure += f"{header}s{size}x"
                values += f"{header}x{size}{'s' if value.wanted else 'x'}"
            at = value.end
        header = layout.pixels_start - at
        self._add_run(begun, f"{structure}{header}s", f"{values}{header}x", _Value(0, 0, 0, wanted=False))

    def _add_run(self, at: int, structure: str, values: str, behind: _Value) -> None:
        fields = struct.Struct(structure)
        expected = fields.unpack_from(self.layout.head, at)
        self._runs.append(_Run(fields, expected, struct.Struct(values), behind.length_bytes, behind.wanted))

    def find(self, head: bytes | bytearray) -> Found | None:
        """The values in `head`; None where it is another layout, as far as we know until now."""
        at = 0
        found: list[bytes] = []
        for structure, expected, values, length_bytes, wanted in self._runs:
            end = at + structure.size
            if end > len(head) or structure.unpack_from(head, at) != expected:
                return None
            found += values.unpack_from(head, at)
            at = end
            if length_bytes:
                length = int.from_bytes(head[at - length_bytes : at], self.layout.order)
                if length > LONGEST_VARYING_BYTES:
                    return None
                at += length
                if wanted:
                    found.append(bytes(head[at - length : at]))
        goes_on = self.layout.pixels_length == UNDEFINED or at + self.layout.pixels_length > len(head)
        return Found(tuple(found), at) if goes_on else None


def _length_bytes(header: int, syntax: Syntax) -> int:
    """The size of the length in an orderly header, which ends with it (PS3.5 7.1.2)."""
    return 2 if syntax.explicit and header == 8 else 4
