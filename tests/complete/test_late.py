"""Images that come after their service has started."""

from __future__ import annotations

from dataclasses import replace

from pacsnode.complete.late import US_PER_S, admit
from pacsnode.handover import Candidate, Case, Completion, Late

ALL = Candidate(
    "1.2.3", "chest-xray", ("chest",), ("1.1", "1.2", "1.3"), ("sr",), ("pacs",), 10, Completion(20.0, missing=("x",))
)
HOUR_US = 3600 * US_PER_S
FIRST = Case("k1", "1.2.3", "chest-xray", ("chest",), "hash", ("1.1", "1.2"), ("sr",), 100 * HOUR_US)


def test_before_the_first_case_every_candidate_may_wait() -> None:
    assert admit(ALL, [], 0).candidate == ALL


def test_rerun_reads_everything_again() -> None:
    assert admit(ALL, [FIRST], 101 * HOUR_US).candidate == ALL


def test_amend_reads_the_new_images_alone_and_expects_nothing_more() -> None:
    amending = replace(ALL, late=Late("amend"))
    found = admit(amending, [FIRST], 101 * HOUR_US).candidate
    assert found == replace(amending, instances=("1.3",), completion=Completion(20.0))
    assert admit(amending, [FIRST, replace(FIRST, key="k2", instances=("1.3",))], 101 * HOUR_US).candidate is None


def test_ignore_says_how_many_images_were_not_read() -> None:
    answer = admit(replace(ALL, late=Late("ignore")), [FIRST], 101 * HOUR_US)
    assert answer.candidate is None
    assert answer.reason == (
        "1 images of chest-xray came after it had started: archived, and not read (late_images: ignore)"
    )


def test_after_the_cut_off_nothing_starts() -> None:
    late = replace(ALL, late=Late("rerun", 3600.0))
    assert admit(late, [FIRST], 101 * HOUR_US).candidate == late
    answer = admit(late, [FIRST], 101 * HOUR_US + 1)
    assert answer.candidate is None
    assert "more than 1 h after" in answer.reason
