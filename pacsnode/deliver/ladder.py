"""Which form of a result to try next at a destination that does not take the one that is owed. Pure, no I/O.

In: what is known of the destination (`learned`), the SOP class that is owed, the kinds that it may have. Out: the next
rung, or None where none is left. `encode` makes the forms; who wires them owes the next one in place of a refused row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pacsnode.handover import Form, ResultKind

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"


@dataclass(frozen=True)
class Fact:
    """What a destination said to one SOP class in one transfer syntax ("": to the class as such).

    `reason`: why it does not take it, "" where it does.
    """

    sop_class_uid: str
    transfer_syntax_uid: str
    reason: str
    learned_utc_us: int


@dataclass(frozen=True)
class Rung:
    """A form in which a result may go out, and the SOP class that it has then."""

    kind: ResultKind
    sop_class_uid: str
    form: Form = field(default_factory=Form)


_PICTURE = Rung("sc", SECONDARY_CAPTURE)
_REPORT = Rung("pdf", ENCAPSULATED_PDF)
LADDERS: tuple[tuple[Rung, ...], ...] = (
    (
        Rung("sr", COMPREHENSIVE_3D_SR),
        Rung("sr", COMPREHENSIVE_SR, Form(sr="comprehensive")),
        Rung("sr", ENHANCED_SR, Form(sr="enhanced")),
        _PICTURE,
        _REPORT,
    ),
    (Rung("seg", LABEL_MAP_SEGMENTATION, Form(seg="labelmap")), Rung("seg", SEGMENTATION), _PICTURE),
)
"""From what says most to what most can show. Of a picture or a PDF there is no other form."""


def next_rung(sop_class_uid: str, facts: Collection[Fact], kinds: Collection[ResultKind]) -> Rung | None:
    """The next form to try after the one of this SOP class was refused; None: none is left.

    `kinds`: what the destination may have (`accepts:` of the peer). What it is known to refuse is left out.
    """
    for ladder in LADDERS:
        names = [rung.sop_class_uid for rung in ladder]
        if sop_class_uid in names[: names.index(SECONDARY_CAPTURE)]:
            rest = ladder[names.index(sop_class_uid) + 1 :]
            return next((r for r in rest if r.kind in kinds and is_refused(r.sop_class_uid, facts) is not True), None)
    return None


def is_refused(sop_class_uid: str, facts: Iterable[Fact]) -> bool | None:
    """Whether a destination is known to refuse a SOP class in every form; None where nothing is known of it.

    A class that was refused as such is refused until it is taken later on.
    """
    said = [fact for fact in facts if fact.sop_class_uid == sop_class_uid]
    if not said:
        return None
    as_such = max((f.learned_utc_us for f in said if not f.transfer_syntax_uid and f.reason), default=None)
    taken = [f.learned_utc_us for f in said if not f.reason]
    if as_such is not None:
        return not any(at > as_such for at in taken)
    return not taken
