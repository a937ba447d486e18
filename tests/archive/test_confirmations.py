"""Questions and what the archive answers: taken only from who was asked, and only for what was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pacsnode.archive.confirmations import Asked, Confirmations
from pacsnode.dimse import commands
from pacsnode.errors import Rejected
from pacsnode.receive.commitment import Reference, Result
from tests.archive import homes
from tests.archive.retained import PACS, told

ONE, TWO = Asked(homes.CT, "1.2.1", "a1"), Asked(homes.CT, "1.2.2", "a2")


class Kept(Confirmations):
    """With a look at what is kept."""

    def __init__(self, folder: Path) -> None:
        self.settings = homes.home(folder)
        super().__init__(self.settings.index_db)

    @property
    def said(self) -> list[tuple[object, ...]]:
        return homes.rows(
            self.settings,
            "SELECT sop_instance_uid, archive, dataset_sha256, failure FROM confirmations ORDER BY sop_instance_uid",
        )


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with closing(Kept(tmp_path)) as made:
        yield made


def results(*failures: int) -> list[Result]:
    return [Result(one.reference, failure) for one, failure in zip((ONE, TWO), failures, strict=False)]


def test_an_answer_is_kept_with_the_hash_of_the_question(kept: Kept) -> None:
    uid = kept.ask(PACS, [ONE, TWO])
    assert kept.is_open(uid)
    assert kept.waiting(PACS) == {"1.2.1", "1.2.2"}
    assert kept.waiting("another") == set()
    kept.take(PACS, *told(uid, results(0, 0x0112)))
    assert kept.said == [("1.2.1", PACS, "a1", 0), ("1.2.2", PACS, "a2", 0x0112)]
    assert not kept.is_open(uid)
    assert kept.waiting(PACS) == set()
    kept.take(PACS, *told(uid, results(0, 0)))  # it tells again, and has it now
    assert [row[3] for row in kept.said] == [0, 0]


def test_only_who_was_asked_may_answer(kept: Kept) -> None:
    uid = kept.ask(PACS, [ONE])
    for peer, transaction_uid in (("another", uid), (PACS, "1.2.3"), ("quarantine", uid)):
        with pytest.raises(Rejected, match="you were not asked") as refused:
            kept.take(peer, *told(transaction_uid, results(0)))
        assert refused.value.status == commands.INVALID_ARGUMENT_VALUE
    assert kept.said == []
    assert kept.is_open(uid)


def test_what_was_not_asked_or_has_another_class_is_left_out(kept: Kept) -> None:
    uid = kept.ask(PACS, [ONE, TWO])
    other_class = Result(Reference("1.2.840.10008.5.1.4.1.1.4", "1.2.1"), 0)
    kept.take(PACS, *told(uid, [other_class, Result(Reference(homes.CT, "1.2.99"), 0), *results(0, 0)[1:]]))
    assert [row[0] for row in kept.said] == ["1.2.2"]


def test_an_instance_told_as_safe_and_as_failed_has_failed(kept: Kept) -> None:
    uid = kept.ask(PACS, [ONE])
    kept.take(PACS, *told(uid, [Result(ONE.reference, 0), Result(ONE.reference, 0x0110)]))
    assert kept.said == [("1.2.1", PACS, "a1", 0x0110)]


def test_a_question_that_was_not_taken_waits_for_nothing(kept: Kept) -> None:
    uid = kept.ask(PACS, [ONE])
    kept.withdraw(uid)
    assert kept.waiting(PACS) == set()
    assert not kept.is_open(uid)


def test_no_two_questions_have_one_uid(kept: Kept) -> None:
    assert len({kept.ask(PACS, [ONE]) for _ in range(20)}) == 20
    homes.rows(kept.settings, "UPDATE questions SET asked_utc_us = 1")
    kept.ask(PACS, [TWO])
    assert homes.rows(kept.settings, "SELECT count(*) FROM questions") == [(1,)]
