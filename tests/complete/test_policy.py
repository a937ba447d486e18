"""When a case is whole."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pacsnode.complete.policy import US_PER_S, Now, Said, Seen, policy
from pacsnode.handover import Completion

QUIET = Completion(20.0)
ASKING = Completion(20.0, ask_sender=True, at_most_s=600.0)
SEEN = Seen(100 * US_PER_S, "a", study_images=2)
TIMES = st.integers(0, 10**15)


def at(second: float, boot: str = "a", seen_since_s: float = 0.0) -> Now:
    return Now(round(second * US_PER_S), boot, round(seen_since_s * US_PER_S))


def test_a_case_is_whole_after_its_quiet_time() -> None:
    answer = policy(QUIET, SEEN, at(120))
    assert answer.whole
    assert answer.because == "quiet for 20.0 s since the last image of the case"


def test_a_microsecond_earlier_it_is_not_whole_and_says_when_to_ask_again() -> None:
    answer = policy(QUIET, SEEN, at(120 - 1e-6))
    assert not answer.whole
    assert answer.because == "quiet for only 19.9 s of 20.0 s since the last image of the case"
    assert answer.check_again_boot_us == 120 * US_PER_S


def test_a_restarted_process_does_not_start_the_quiet_time_anew() -> None:
    assert policy(QUIET, SEEN, at(120, seen_since_s=119)).whole


def test_after_a_restart_of_the_machine_the_quiet_time_runs_from_when_the_case_was_seen() -> None:
    before = replace(SEEN, last_received_boot_us=9_000 * US_PER_S)
    waiting = policy(QUIET, before, at(40, "b", seen_since_s=30))
    assert not waiting.whole
    assert waiting.check_again_boot_us == 50 * US_PER_S
    done = policy(QUIET, before, at(50, "b", seen_since_s=30))
    assert done.whole
    assert done.because == "quiet for 20.0 s since the node took the case up again after a restart of the machine"


def test_once_its_sender_has_ended_its_associations_a_case_may_need_less_quiet() -> None:
    quick = replace(QUIET, after_release_s=3.0)
    released = replace(SEEN, released_boot_us=101 * US_PER_S)
    answer = policy(quick, released, at(103))
    assert answer.whole
    assert (
        answer.because == "quiet for 3.0 s since the last image of the case, and its sender has ended its associations"
    )
    assert policy(quick, released, at(102.9)).check_again_boot_us == 103 * US_PER_S
    assert not policy(quick, replace(SEEN, released_boot_us=99 * US_PER_S), at(103)).whole, "ended before the image"
    assert not policy(quick, SEEN, at(103)).whole
    assert not policy(QUIET, released, at(103)).whole, "the rule does not ask for it"


def test_an_announcement_that_lists_all_that_is_here_ends_the_wait_at_once() -> None:
    answer = policy(QUIET, replace(SEEN, announced="a notice lists 2 images, and all of them are here"), at(100))
    assert answer.whole
    assert answer.because == "a notice lists 2 images, and all of them are here"


def test_what_is_missing_makes_a_case_wait_longer_than_its_quiet_time() -> None:
    two_views = Completion(20.0, at_most_s=600.0, missing=("no image with ViewPosition LL",))
    answer = policy(two_views, replace(SEEN, announced="said"), at(130))
    assert not answer.whole
    assert answer.because == "not complete 30 s after the last image: no image with ViewPosition LL"
    assert answer.check_again_boot_us == 700 * US_PER_S
    assert not answer.overdue
    assert "3 images that were announced" in policy(QUIET, replace(SEEN, awaited=3), at(130)).because


def test_at_the_end_of_the_longest_wait_an_incomplete_case_is_run_or_kept_as_the_rule_says() -> None:
    kept = Completion(20.0, at_most_s=600.0, missing=("1 image of at least 4",))
    answer = policy(kept, SEEN, at(700))
    assert (answer.whole, answer.overdue) == (False, True)
    assert answer.because == "not complete 600 s after the last image, and kept so: 1 image of at least 4"
    run = policy(replace(kept, then="run"), SEEN, at(700))
    assert (run.whole, run.overdue) == (True, False)
    assert run.because.startswith("not complete, but the longest wait is over")


def asked(second: float | None, told: int | None = None, *, awaited: bool = False) -> Seen:
    """Two images, the last at 100 s, and what the sender said since it was asked."""
    return replace(SEEN, said=Said(None if second is None else round(second * US_PER_S), told, awaited))


def test_the_sender_is_asked_once_the_quiet_time_is_over_and_not_before() -> None:
    before = policy(ASKING, asked(None), at(119.9))
    assert (before.whole, before.ask_after_boot_us) == (False, None)
    assert before.because == "quiet for only 19.9 s of 20.0 s since the last image of the study"
    now = policy(ASKING, asked(None), at(120))
    assert (now.whole, now.ask_after_boot_us) == (False, 120 * US_PER_S)
    assert now.because == "quiet for 20.0 s since the last image of the study; now the sender is asked"


def test_what_the_sender_said_before_the_quiet_time_was_over_does_not_count() -> None:
    answer = policy(ASKING, asked(119, 2), at(125))
    assert (answer.whole, answer.ask_after_boot_us) == (False, 120 * US_PER_S)


def test_a_case_waits_a_minute_for_what_its_sender_says() -> None:
    waiting = policy(ASKING, asked(121, awaited=True), at(122))
    assert not waiting.whole
    assert waiting.because == "quiet for 22.0 s since the last image of the study; the sender was asked"
    assert waiting.check_again_boot_us == 181 * US_PER_S
    assert waiting.ask_after_boot_us == 120 * US_PER_S, "it may be time to ask once more"
    over = policy(ASKING, asked(121, awaited=True), at(181))
    assert over.whole
    assert over.because == (
        "quiet for 81.0 s since the last image of the study; the sender was asked and did not answer"
    )


def test_without_an_answer_the_quiet_time_decides_alone() -> None:
    refused = policy(ASKING, asked(121), at(122))
    assert refused.whole
    assert refused.because.endswith("; the sender was asked and did not answer")
    unasked = policy(ASKING, SEEN, at(120))
    assert unasked.whole, "nobody can be asked: as if the rule did not ask"
    assert unasked.because == "quiet for 20.0 s since the last image of the case"


def test_what_the_sender_still_has_makes_the_case_wait() -> None:
    answer = policy(ASKING, replace(asked(121, 120), study_images=118), at(130))
    assert not answer.whole
    assert answer.because == (
        "not complete 30 s after the last image: 118 images of the 120 that the sender says it has"
    )
    assert (answer.check_again_boot_us, answer.ask_after_boot_us) == (700 * US_PER_S, 120 * US_PER_S)
    assert policy(ASKING, asked(121, 3), at(700)).overdue
    run = policy(replace(ASKING, then="run"), asked(121, 3), at(700))
    assert (run.whole, run.ask_after_boot_us) == (True, None)


def test_once_all_is_here_that_the_sender_has_the_case_is_whole_and_says_so() -> None:
    answer = policy(ASKING, asked(121, 2), at(122))
    assert answer.whole
    assert answer.because == "the sender says that it has 2 images of the study, and all are here"
    assert policy(ASKING, asked(121, 1), at(122)).because.startswith("the sender says that it has 1 image of the study")
    assert not policy(ASKING, asked(121, 2, awaited=True), at(122)).whole, "another sender may have more"
    assert policy(ASKING, asked(121, 2, awaited=True), at(181)).whole


def test_an_announcement_needs_no_word_of_the_sender_and_what_the_rule_expects_goes_before_it() -> None:
    assert policy(ASKING, replace(asked(None), announced="all is here"), at(100)).because == "all is here"
    missing = policy(replace(ASKING, missing=("no image with ViewPosition LL",)), asked(121, 2), at(130))
    assert (missing.whole, missing.ask_after_boot_us) == (False, None)


@given(TIMES, TIMES, TIMES, st.booleans())
def test_asked_again_at_the_time_it_says_a_case_is_whole(last: int, now: int, seen: int, restarted: bool) -> None:
    boot_id = "b" if restarted else "a"
    came = Seen(last, "a")
    first = policy(QUIET, came, Now(now, boot_id, seen))
    assert first.whole == (now >= first.check_again_boot_us)
    assert policy(QUIET, came, Now(first.check_again_boot_us, boot_id, seen)).whole


@given(st.integers(0, 10**9), st.integers(-(10**9), 10**9), st.integers(0, 10**9), st.integers(0, 4), st.booleans())
def test_looked_at_when_it_says_a_case_that_asks_in_vain_is_whole_after_three_looks(
    last: int, asked_later: int, now_later: int, told: int, awaited: bool
) -> None:
    running, now = replace(ASKING, then="run"), last + now_later
    came = Seen(last, "a", 2, said=Said(last + asked_later, told or None, awaited))
    for _ in range(3):
        answer = policy(running, came, Now(now, "a", 0))
        if answer.whole:
            break
        assert answer.check_again_boot_us > now
        if answer.ask_after_boot_us is not None and last + asked_later < answer.ask_after_boot_us:
            came = replace(came, said=Said(now, None, is_awaited=True))
        now = answer.check_again_boot_us
    assert policy(running, came, Now(now, "a", 0)).whole
