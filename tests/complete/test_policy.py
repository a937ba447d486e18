"""When a case is whole."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pacsnode.complete.policy import US_PER_S, Now, Seen, policy
from pacsnode.handover import Completion

QUIET = Completion(20.0)
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
    assert "2 images of the 5" in policy(QUIET, replace(SEEN, told_count=5), at(130)).because
    assert policy(QUIET, replace(SEEN, told_count=2), at(130)).whole


def test_at_the_end_of_the_longest_wait_an_incomplete_case_is_run_or_kept_as_the_rule_says() -> None:
    kept = Completion(20.0, at_most_s=600.0, missing=("1 image of at least 4",))
    answer = policy(kept, SEEN, at(700))
    assert (answer.whole, answer.overdue) == (False, True)
    assert answer.because == "not complete 600 s after the last image, and kept so: 1 image of at least 4"
    run = policy(replace(kept, then="run"), SEEN, at(700))
    assert (run.whole, run.overdue) == (True, False)
    assert run.because.startswith("not complete, but the longest wait is over")


@given(TIMES, TIMES, TIMES, st.booleans())
def test_asked_again_at_the_time_it_says_a_case_is_whole(last: int, now: int, seen: int, restarted: bool) -> None:
    boot_id = "b" if restarted else "a"
    came = Seen(last, "a")
    first = policy(QUIET, came, Now(now, boot_id, seen))
    assert first.whole == (now >= first.check_again_boot_us)
    assert policy(QUIET, came, Now(first.check_again_boot_us, boot_id, seen)).whole
