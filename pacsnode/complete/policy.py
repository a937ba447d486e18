"""Is this case whole? In: what a candidate waits for, and what was seen. Out: yes or no, why, and when to ask again.

Pure: the times are arguments. They are microseconds of the boot clock (CLOCK_BOOTTIME), so that a step of the wall
clock neither completes nor stalls a case; after a restart of the machine that clock starts anew, which `boot_id` tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pacsnode.handover import Completion

US_PER_S = 1_000_000
ANSWER_WITHIN_US = 60 * US_PER_S
"""How much longer than its quiet time a case waits for what its sender says."""


@dataclass(frozen=True)
class Said:
    """What came of asking the senders of a case how many images of the study they have.

    `asked_boot_us`: since when they are asked, None before the first time. `told_count`: the largest of their newest
    answers. `is_awaited`: one of them may still answer.
    """

    asked_boot_us: int | None = None
    told_count: int | None = None
    is_awaited: bool = False


@dataclass(frozen=True)
class Seen:
    """What is known of a case's images. `last_received_boot_us` is on the clock of `boot_id`.

    `released_boot_us`: when the last association of their senders ended, in this boot; None where it is not known.
    `announced`: the sentence of an announcement that lists all of the case's images, each of which is here ("" for
    none); `awaited`: how many that are listed have not come. `said`: None where no sender can be asked, or none is to
    be; else the last image is that of the whole study, of which `study_images` are here.
    """

    last_received_boot_us: int
    boot_id: str
    study_images: int = 0
    released_boot_us: int | None = None
    announced: str = ""
    awaited: int = 0
    said: Said | None = None


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
    `ask_after_boot_us`: the senders are to be asked; what they were asked before this time does not count. None: not.
    """

    whole: bool
    because: str
    check_again_boot_us: int
    overdue: bool = False
    ask_after_boot_us: int | None = None


@dataclass(frozen=True)
class _Quiet:
    """A quiet time that is over: since when it ran, when it ended, in words; and what time it is."""

    since_us: int
    over_us: int
    because: str
    now_us: int


def policy(completion: Completion, seen: Seen, now: Now) -> Wholeness:
    """Whole after its quiet time, with nothing missing; at once where an announcement says that all is here.

    When the machine was restarted since the last image, nobody knows for how long it was off or what was sent
    meanwhile: the times then run from when this process first saw the candidate in this boot. A sender is asked only
    once the quiet time is over: what it has while it still acquires is too little.
    """
    restarted = seen.boot_id != now.boot_id
    since_us = now.seen_since_boot_us if restarted else seen.last_received_boot_us
    missing = list(completion.missing)
    if seen.awaited:
        missing.append(f"{seen.awaited} images that were announced")
    if missing:
        return _incomplete(completion, missing, since_us, now.boot_us)
    if seen.announced:
        return Wholeness(True, seen.announced, now.boot_us)
    quiet_s, since = completion.quiet_s, f"since the last image of the {'study' if seen.said else 'case'}"
    if restarted:
        since = "since the node took the case up again after a restart of the machine"
    released_us = seen.released_boot_us
    if completion.after_release_s is not None and released_us is not None and released_us >= since_us:
        quiet_s, since = completion.after_release_s, f"{since}, and its sender has ended its associations"
    whole_at_us = since_us + round(quiet_s * US_PER_S)
    quiet = f"{max(0, now.boot_us - since_us) // 100_000 / 10:.1f} s"  # cut: never says 20.0 s of 20.0 s and waits
    if now.boot_us < whole_at_us:
        return Wholeness(False, f"quiet for only {quiet} of {quiet_s:.1f} s {since}", whole_at_us)
    because = f"quiet for {quiet} {since}"
    if seen.said is None:
        return Wholeness(True, because, whole_at_us)
    return _as_said(completion, seen.said, seen.study_images, _Quiet(since_us, whole_at_us, because, now.boot_us))


def _as_said(completion: Completion, said: Said, study_images: int, quiet: _Quiet) -> Wholeness:
    """What the senders say decides, as far as they say anything."""
    because, ask = quiet.because, quiet.over_us
    if said.asked_boot_us is None or said.asked_boot_us < ask:
        again_us = quiet.now_us + ANSWER_WITHIN_US
        return Wholeness(False, f"{because}; now the sender is asked", again_us, ask_after_boot_us=ask)
    told = said.told_count
    if told is not None and told > study_images:
        missing = f"{_images(study_images)} of the {told} that the sender says it has"
        waits = _incomplete(completion, [missing], quiet.since_us, quiet.now_us)
        return replace(waits, ask_after_boot_us=None if waits.whole else ask)
    answered_by_us = said.asked_boot_us + ANSWER_WITHIN_US
    if said.is_awaited and quiet.now_us < answered_by_us:
        return Wholeness(False, f"{because}; the sender was asked", answered_by_us, ask_after_boot_us=ask)
    if told is None:
        return Wholeness(True, f"{because}; the sender was asked and did not answer", quiet.now_us)
    because = f"the sender says that it has {_images(told)} of the study, and all are here"
    return Wholeness(True, because, quiet.now_us)


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


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
