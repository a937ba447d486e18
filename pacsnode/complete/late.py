"""What becomes of images that come after their service has started: by the rule's `late_images`.

In: a candidate, and the cases of its study and service. Out: the candidate that is to run, or why there is none. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pacsnode.handover import Candidate, Case

US_PER_S = 1_000_000


def _told(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds:g} s"


@dataclass(frozen=True)
class Admittance:
    """The candidate that may wait to be whole; None with the reason why its images start nothing."""

    candidate: Candidate | None
    reason: str = ""


def admit(candidate: Candidate, earlier: Sequence[Case], now_utc_us: int) -> Admittance:
    """What a candidate may become beside the cases of the same service that have started already."""
    if not earlier:
        return Admittance(candidate)
    read = {uid for case in earlier for uid in case.instances}
    new = tuple(uid for uid in candidate.instances if uid not in read)
    first_us = min(case.started_utc_us for case in earlier)
    if not new:
        return Admittance(candidate if candidate.late.action == "rerun" else None, "all of its images were read")
    came = f"{len(new)} images of {candidate.service} came after it had started"
    if candidate.late.action == "ignore":
        return Admittance(None, f"{came}: archived, and not read (late_images: ignore)")
    if now_utc_us > first_us + round(candidate.late.within_s * US_PER_S):
        return Admittance(None, f"{came}, and more than {_told(candidate.late.within_s)} after: archived, and not read")
    if candidate.late.action == "amend":
        completion = replace(candidate.completion, missing=())
        return Admittance(replace(candidate, instances=new, completion=completion))
    return Admittance(candidate)
