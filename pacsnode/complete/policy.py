"""Is this case whole? In: what a candidate waits for, and what was seen. Out: yes or no, why, and when to ask again.

Pure: the times are arguments. They are microseconds of the boot clock (CLOCK_BOOTTIME), so that a step of the wall
clock neither completes nor stalls a case; after a restart of the machine that clock starts anew, which `boot_id` tells.
"""

from __future__ import annotations

from dataclasses import dataclass

from pacsnode.handover import Completion

US_PER_S = 1_000_000


@dataclass(frozen=True)
class Seen:
    """What is known of a case's images. `last_received_boot_us` is on the clock of `boot_id`.

    `released_boot_us`: when the last association of their senders ended, in this boot; None where it is not known.
    `announced`: the sentence of an announcement that lists all of the case's images, each of which is here ("" for
    none); `awaited`: how many that are listed have not come. `told_count`: how many the sender says that it has.
    """

    last_received_boot_us: int
    boot_id: str
    study_images: int = 0
    released_boot_us: int | None = None
    announced: str = ""
    awaited: int = 0
    told_count: int | None = None


@dataclass(frozen=True)
class Now:
    """The clock of this process. `seen_since_boot_us`: when it first saw the candidate in this boot."""

    boot_us: int
    boot_id: str
    seen_since_boot_us: int


@dataclass(frozen=True)
class Wholeness:
    """The answer. `check_again_boot_us`: when it will be another if nothing comes meanwhile.

    `overdue`: it is incomplete, the longest wait is over, and the rule keeps such cases for a person.
    """

    whole: bool
    because: str
    check_again_boot_us: int
    overdue: bool = False


def policy(completion: Completion, seen: Seen, now: Now) -> Wholeness:
    """Whole after its quiet time, with nothing missing; at once where an announcement says that all is here.

    When the machine was restarted since the last image, nobody knows for how long it was off or what was sent
    meanwhile: the times then run from when this process first saw the candidate in this boot.
    """
    restarted = seen.boot_id != now.boot_id
    since_us = now.seen_since_boot_us if restarted else seen.last_received_boot_us
    missing = _missing(completion, seen)
    if missing:
        return _incomplete(completion, missing, since_us, now.boot_us)
    if seen.announced:
        return Wholeness(True, seen.announced, now.boot_us)
    quiet_s, since = completion.quiet_s, "since the last image of the case"
    if restarted:
        since = "since the node took the case up again after a restart of the machine"
    released_us = seen.released_boot_us
    if completion.after_release_s is not None and released_us is not None and released_us >= since_us:
        quiet_s, since = completion.after_release_s, f"{since}, and its sender has ended its associations"
    whole_at_us = since_us + round(quiet_s * US_PER_S)
    quiet = f"{max(0, now.boot_us - since_us) // 100_000 / 10:.1f} s"  # cut: never says 20.0 s of 20.0 s and waits
    if now.boot_us >= whole_at_us:
        return Wholeness(True, f"quiet for {quiet} {since}", whole_at_us)
    return Wholeness(False, f"quiet for only {quiet} of {quiet_s:.1f} s {since}", whole_at_us)


def _missing(completion: Completion, seen: Seen) -> list[str]:
    missing = list(completion.missing)
    if seen.awaited:
        missing.append(f"{seen.awaited} images that were announced")
    if seen.told_count is not None and seen.told_count > seen.study_images:
        missing.append(f"{seen.study_images} images of the {seen.told_count} that the sender says it has")
    return missing


def _incomplete(completion: Completion, missing: list[str], since_us: int, now_us: int) -> Wholeness:
    told = "; ".join(missing)
    waited = f"{max(0, now_us - since_us) // US_PER_S} s after the last image"
    ends_us = since_us + round(completion.at_most_s * US_PER_S)
    if now_us < ends_us:
        return Wholeness(False, f"not complete {waited}: {told}", ends_us)
    if completion.then == "run":
        return Wholeness(True, f"not complete, but the longest wait is over {waited}: {told}", ends_us)
    never_us = now_us + round(completion.at_most_s * US_PER_S) + US_PER_S
    return Wholeness(False, f"not complete {waited}, and kept so: {told}", never_us, overdue=True)
