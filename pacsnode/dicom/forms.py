"""How one element is written: its tag, VR and length, in the forms of PS3.5 7.1 and in those that devices get wrong.

In: the bytes of a data set and a place in them. Out: where the value lies; nothing is believed that was not checked
against the end of the data. Never reads a value, but to find out which odd form the data goes on behind.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from pacsnode.errors import Rejected

UNDEFINED = 0xFFFF_FFFF
SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_UNKNOWN = (b"??", b"  ", b"OX")
ELEMENT = (struct.Struct("<HH2sH"), struct.Struct(">HH2sH"))
LENGTH = (struct.Struct("<L"), struct.Struct(">L"))


class Syntax(NamedTuple):
    """How elements are encoded (PS3.5 7.1, 7.3)."""

    explicit: bool
    big_endian: bool


IMPLICIT_LITTLE = Syntax(explicit=False, big_endian=False)
EXPLICIT_LITTLE = Syntax(explicit=True, big_endian=False)
EXPLICIT_BIG = Syntax(explicit=True, big_endian=True)


Form = tuple[int, str, int, int]
"""Tag, VR ("" if not given), start of the value and length of an element."""


def read_element(data: memoryview, at: int, end: int, syntax: Syntax) -> Form | None:
    """The element at `at`, None where it is odd; 8 bytes must be there."""
    group, number, vr, short = ELEMENT[syntax.big_endian].unpack_from(data, at)
    tag = group << 16 | number
    if syntax.explicit:
        if vr in SHORT:
            return tag, vr.decode("ascii"), at + 8, short
        if vr in LONG and short == 0:
            if at + 12 > end:
                raise truncated()
            return tag, vr.decode("ascii"), at + 12, LENGTH[syntax.big_endian].unpack_from(data, at + 8)[0]
    elif vr not in SHORT and vr not in LONG:
        return tag, "", at + 8, LENGTH[syntax.big_endian].unpack_from(data, at + 4)[0]
    return None


def odd_element(data: memoryview, at: int, end: int, syntax: Syntax) -> Form:
    """An element that does not follow `syntax`: the first form behind which the data goes on.

    There are devices that mix implicit elements into explicit data sets or the reverse, write `??` or spaces for a
    VR that they do not know, or write OB and UN with a length of 16 bits.
    """
    group, number, vr, short = ELEMENT[syntax.big_endian].unpack_from(data, at)
    length = LENGTH[syntax.big_endian]
    tag, name = group << 16 | number, vr.decode("ascii") if vr in SHORT or vr in LONG else ""
    implicit = (tag, "", at + 8, length.unpack_from(data, at + 4)[0])
    forms = [(tag, name, at + 8, short)]
    if vr not in SHORT and at + 12 <= end:
        forms.insert(0 if short == 0 else 1, (tag, name, at + 12, length.unpack_from(data, at + 8)[0]))
    if name or vr.isalpha() or vr in _UNKNOWN:
        forms.append(implicit)
    else:
        forms.insert(0, implicit)
    fallback = forms[0] if syntax.explicit else implicit
    return next((form for form in forms if _goes_on(data, form, form is implicit, end, syntax)), fallback)


def _goes_on(data: memoryview, form: Form, implicit: bool, end: int, syntax: Syntax) -> bool:
    """Whether a value read as `form` is followed by the end, a delimiter or an element with a higher tag."""
    tag, vr, start, length = form
    if length == UNDEFINED:
        return vr in ("", "SQ", "UN", "OB", "OW")
    after = start + length
    if after + 8 > end:
        return after == end
    group, number, next_vr, _ = ELEMENT[syntax.big_endian].unpack_from(data, after)
    if group == 0xFFFE:
        return True
    named = next_vr in SHORT or next_vr in LONG or next_vr in _UNKNOWN
    return bool((group << 16 | number) > tag) and (implicit or named)


def truncated() -> Rejected:
    """The refusal of data that end too early."""
    return Rejected(Rejected.CANNOT_UNDERSTAND, "data set is truncated")
