"""The formats of the wire read a second time, slowly and plainly, to hold the node's own readers against.

In: bytes. Out: what a reader that is right must find. Written from PS3.5 and PS3.8, with no line of the readers under
test; a data set that is not in perfect order is None here, since what to make of it is the reader's own choice.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Literal

from pacsnode.dimse import pdus

End = Literal["closed", "violation", "release", "abort"]
Message = tuple[int, bool, bytes]
"""Context id, whether it is a command, and the whole of it."""


@dataclass
class Heard:
    """What a peer has said: its whole messages, what came of one more, and how it ended."""

    messages: list[Message] = field(default_factory=list)
    rest: bytearray = field(default_factory=bytearray)
    end: End = "closed"


class _Ended(Exception):
    def __init__(self, end: End) -> None:
        super().__init__(end)
        self.end: End = end


class PeerStream:
    """PDUs inside an association (PS3.8 9.3.5 to 9.3.8, annex E), one byte after the other."""

    def __init__(self, stream: bytes) -> None:
        self._stream = stream
        self._at = 0
        self._message: tuple[int, int] | None = None
        self.heard = Heard()

    def read(self) -> Heard:
        """All of it."""
        try:
            while True:
                self._pdu()
        except _Ended as ended:
            self.heard.end = ended.end
            return self.heard

    def _take(self, count: int) -> bytes:
        taken = self._stream[self._at : self._at + count]
        if len(taken) < count:
            raise _Ended("closed")
        self._at += count
        return taken

    def _pdu(self) -> None:
        kind, length = struct.unpack(">BxI", self._take(6))
        if kind == pdus.P_DATA_TF and 6 <= length <= pdus.LONGEST_PDU_BYTES:
            left = length
            while left:
                left -= self._value(left)
            return
        if kind not in (pdus.RELEASE_RQ, pdus.ABORT) or length != 4:
            raise _Ended("violation")
        self._take(4)
        raise _Ended("release" if kind == pdus.RELEASE_RQ else "abort")

    def _value(self, left: int) -> int:
        """One presentation data value; its bytes with its header."""
        if left < 6:
            raise _Ended("violation")
        length, context_id, control = struct.unpack(">IBB", self._take(6))
        message = context_id, control & pdus.COMMAND
        if length < 2 or length + 4 > left or self._message not in (None, message):
            raise _Ended("violation")
        self._message = message
        came = self._stream[self._at : self._at + length - 2]
        self.heard.rest += came
        self._take(length - 2)
        if control & pdus.LAST:
            self.heard.messages.append((context_id, bool(message[1]), bytes(self.heard.rest)))
            self.heard.rest.clear()
            self._message = None
        return int(length) + 4


# ------------------------------------------------------------------------------------------------------ data sets

Items = list["Elements"]
Elements = list[tuple[int, bytes, "bytes | Items | None"]]
"""Tag, VR (b"" in Implicit VR) and value: bytes, the items of a sequence, or None for encapsulated pixels."""

SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG = frozenset(b"OB OD OF OL OV OW SV UC UN UR UT UV SQ".split())
_UNDEFINED = 0xFFFF_FFFF
_DEEPEST = 16
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFE_E000, 0xFFFE_E00D, 0xFFFE_E0DD
_PIXEL_DATA = 0x7FE0_0010


class _Disorder(Exception):
    pass


@dataclass(frozen=True)
class Encoding:
    """How a data set is written; `sequences` are the tags that are sequences where no VR says so."""

    explicit: bool
    big_endian: bool = False
    sequences: frozenset[int] = frozenset()


def well_formed(data: bytes, encoding: Encoding) -> Elements | None:
    """The elements of a data set in perfect order: known VRs, rising tags, all lengths exact; else None."""
    reader = _DataSet(data, encoding)
    try:
        elements, at = reader.elements(0, len(data), undefined=False, depth=0)
    except (_Disorder, struct.error):
        return None
    return elements if at == len(data) else None


class _DataSet:
    def __init__(self, data: bytes, encoding: Encoding) -> None:
        self._data = data
        self._encoding = encoding
        self._order = ">" if encoding.big_endian else "<"

    def elements(self, at: int, end: int, *, undefined: bool, depth: int) -> tuple[Elements, int]:
        """The elements up to `end`, or up to the item's delimiter where its length is undefined."""
        if depth > _DEEPEST:
            raise _Disorder
        found: Elements = []
        last = -1
        while at < end:
            tag, vr, length, at = self._header(at, end)
            if tag == _ITEM_END and undefined and length == 0:
                return found, at
            if tag <= last or tag >> 16 in (0, 0xFFFE):
                raise _Disorder
            last = tag
            value, at = self._value(tag, vr, length, at, end, depth)
            found.append((tag, vr, value))
        if undefined or at != end:
            raise _Disorder
        return found, at

    def _header(self, at: int, end: int) -> tuple[int, bytes, int, int]:
        """Tag, VR, length and where the value begins."""
        if at + 8 > end:
            raise _Disorder
        group, element, vr, short = struct.unpack_from(self._order + "HH2sH", self._data, at)
        (length,) = struct.unpack_from(self._order + "I", self._data, at + 4)
        tag = group << 16 | element
        if group == 0xFFFE:
            return tag, b"", length, at + 8
        if not self._encoding.explicit:
            if vr in SHORT or vr in LONG:  # may be explicit VR after all
                raise _Disorder
            return tag, b"", length, at + 8
        if vr in SHORT:
            return tag, vr, short, at + 8
        if vr not in LONG or short or at + 12 > end:
            raise _Disorder
        return tag, vr, struct.unpack_from(self._order + "I", self._data, at + 8)[0], at + 12

    def _value(
        self, tag: int, vr: bytes, length: int, at: int, end: int, depth: int
    ) -> tuple[bytes | Items | None, int]:
        undefined = length == _UNDEFINED
        if not undefined and at + length > end:
            raise _Disorder
        if tag == _PIXEL_DATA and depth == 0 and undefined:
            return None, self._fragments(at, end)
        if tag in self._encoding.sequences and vr not in (b"SQ", b""):
            raise _Disorder
        if vr == b"SQ" or (vr == b"" and (undefined or tag in self._encoding.sequences)):
            return self._items(at, end if undefined else at + length, undefined=undefined, depth=depth)
        if undefined or vr == b"UN":  # UN may hide a sequence
            raise _Disorder
        return self._data[at : at + length], at + length

    def _items(self, at: int, end: int, *, undefined: bool, depth: int) -> tuple[Items, int]:
        items: Items = []
        while at < end:
            tag, _, length, at = self._header(at, end)
            if tag == _SEQUENCE_END and undefined and length == 0:
                return items, at
            if tag != _ITEM:
                raise _Disorder
            open_ended = length == _UNDEFINED
            if not open_ended and at + length > end:
                raise _Disorder
            item, at = self.elements(at, end if open_ended else at + length, undefined=open_ended, depth=depth + 1)
            items.append(item)
        if undefined or at != end:
            raise _Disorder
        return items, at

    def _fragments(self, at: int, end: int) -> int:
        while True:
            tag, _, length, at = self._header(at, end)
            if tag == _SEQUENCE_END and length == 0:
                return at
            if tag != _ITEM or at + length > end:
                raise _Disorder
            at += length
