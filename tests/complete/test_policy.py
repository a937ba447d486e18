"""When a case is whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pacsnode.complete.policy import US_PER_S, policy
from pacsnode.handover import Candidate

CASE = Candidate("1.2.3", "chest-xray", ("chest",), ("1.2.3.4",), ("sr",), ("sender",), 10, 20.0)
TIMES = st.integers(0, 10**15)


def test_a_case_is_whole_after_its_quiet_time() -> None:
    answer = policy(CASE, 100 * US_PER_S, "a", 120 * US_PER_S, "a", 0)
    assert answer.whole
    assert answer.because == "quiet for 20.0 s since the last image of the case"


def test_a_microsecond_earlier_it_is_not_whole_and_says_when_to_ask_again() -> None:
    answer = policy(CASE, 100 * US_PER_S, "a", 120 * US_PER_S - 1, "a", 0)
    assert not answer.whole
    assert answer.because == "quiet for only 19.9 s of 20.0 s since the last image of the case"
    assert answer.check_again_boot_us == 120 * US_PER_S


def test_a_restarted_process_does_not_start_the_quiet_time_anew() -> None:
    assert policy(CASE, 100 * US_PER_S, "a", 120 * US_PER_S, "a", seen_since_boot_us=119 * US_PER_S).whole


def test_after_a_restart_of_the_machine_the_quiet_time_runs_from_when_the_case_was_seen() -> None:
    waiting = policy(CASE, 9_000 * US_PER_S, "a", 40 * US_PER_S, "b", seen_since_boot_us=30 * US_PER_S)
    assert not waiting.whole
    assert waiting.check_again_boot_us == 50 * US_PER_S
    done = policy(CASE, 9_000 * US_PER_S, "a", 50 * US_PER_S, "b", seen_since_boot_us=30 * US_PER_S)
    assert done.whole
    assert done.because == "quiet for 20.0 s since the node took the case up again after a restart of the machine"


@given(TIMES, TIMES, TIMES, st.booleans())
def test_asked_again_at_the_time_it_says_a_case_is_whole(last: int, now: int, seen: int, restarted: bool) -> None:
    boot_id = "b" if restarted else "a"
    first = policy(CASE, last, "a", now, boot_id, seen)
    assert first.whole == (now >= first.check_again_boot_us)
    assert policy(CASE, last, "a", first.check_again_boot_us, boot_id, seen).whole
