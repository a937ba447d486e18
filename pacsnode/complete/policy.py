"""Is this case whole? In: a candidate and when its last image came. Out: yes or no, why, and when to ask again.

Pure: the times are arguments. They are microseconds of the boot clock (CLOCK_BOOTTIME), so that a step of the wall
clock neither completes nor stalls a case; after a restart of the machine that clock starts anew, which `boot_id` tells.
"""

from __future__ import annotations

from dataclasses import dataclass

from pacsnode.handover import Candidate

US_PER_S = 1_000_000


@dataclass(frozen=True)
class Wholeness:
    """The answer; `check_again_boot_us` is when the case will be whole if no more images of it come."""

    whole: bool
    because: str
    check_again_boot_us: int


def policy(
    candidate: Candidate,
    last_received_boot_us: int,
    boot_id: str,
    now_boot_us: int,
    now_boot_id: str,
    seen_since_boot_us: int,
) -> Wholeness:
    """Whole after `quiet_s` without a new image of the case.

    `last_received_boot_us` is of the candidate's own images, on the clock of `boot_id`. When the machine was restarted
    since, nobody knows for how long it was off or what was sent meanwhile: the quiet time then runs from
    `seen_since_boot_us`, when this process first saw the candidate in this boot.
    """
    restarted = boot_id != now_boot_id
    since_boot_us = seen_since_boot_us if restarted else last_received_boot_us
    since = (
        "the node took the case up again after a restart of the machine" if restarted else "the last image of the case"
    )
    whole_at_boot_us = since_boot_us + round(candidate.quiet_s * US_PER_S)
    quiet_us = max(0, now_boot_us - since_boot_us)
    quiet = f"{quiet_us // 100_000 / 10:.1f} s"  # cut, not rounded: never says 20.0 s of 20.0 s and waits
    if now_boot_us >= whole_at_boot_us:
        return Wholeness(True, f"quiet for {quiet} since {since}", whole_at_boot_us)
    return Wholeness(False, f"quiet for only {quiet} of {candidate.quiet_s:.1f} s since {since}", whole_at_boot_us)
