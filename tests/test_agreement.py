"""Agreement of two methods: against figures worked out by hand, and what holds for any."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacsnode.agreement import dice, kappa, spread

NUMBERS = st.lists(st.floats(-1e6, 1e6).map(lambda number: round(number, 3)), min_size=2, max_size=40)
WORDS = ("present", "absent", "undetermined")
TABLES = st.dictionaries(
    st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)), st.integers(0, 50), min_size=1, max_size=9
)


def test_mean_sd_and_limits_of_agreement_are_those_worked_out_by_hand() -> None:
    found = spread([-2.0, 1.0, 3.0, 6.0])  # mean 2, squares 16 + 1 + 1 + 16 = 34, 34 / 3
    assert (found.count, found.mean) == (4, 2.0)
    assert found.sd == pytest.approx(3.366502)
    assert found.limits == pytest.approx((2 - 1.96 * 3.366502, 2 + 1.96 * 3.366502))


def test_one_number_has_no_sd_and_no_limits() -> None:
    found = spread([3.5])
    assert (found.mean, found.sd, found.limits) == (3.5, None, None)


def test_kappa_is_that_of_the_textbook_table() -> None:
    table = {("yes", "yes"): 20, ("yes", "no"): 5, ("no", "yes"): 10, ("no", "no"): 15}
    assert kappa(table) == pytest.approx(0.4)  # observed 0.7, by chance 0.5


def test_kappa_is_not_defined_where_chance_alone_agrees() -> None:
    assert kappa({}) is None
    assert kappa({("absent", "absent"): 7}) is None
    assert kappa({("absent", "absent"): 7, ("present", "absent"): 0}) is None


def test_dice_of_masks_that_share_half() -> None:
    one = np.array([[True, True, False, False]])
    other = np.array([[False, True, True, False]])
    assert dice(one, other) == 0.5
    assert dice(one, ~one) == 0.0
    assert dice(one, np.zeros_like(one)) == 0.0
    assert dice(np.zeros_like(one), np.zeros_like(one)) is None


@given(NUMBERS)
def test_mean_and_sd_are_those_of_the_standard_library(numbers: list[float]) -> None:
    found = spread(numbers)
    assert found.sd is not None
    assert math.isclose(found.mean, statistics.fmean(numbers), rel_tol=1e-9, abs_tol=1e-9)
    assert math.isclose(found.sd, statistics.stdev(numbers), rel_tol=1e-6, abs_tol=1e-6)


@given(NUMBERS)
def test_swapping_both_sides_turns_the_limits_around(numbers: list[float]) -> None:
    found, swapped = spread(numbers), spread([-number for number in numbers])
    assert found.limits is not None
    assert swapped.limits is not None
    assert swapped.limits == pytest.approx((-found.limits[1], -found.limits[0]))
    assert found.limits[0] <= found.mean <= found.limits[1]


@given(TABLES)
def test_kappa_is_the_same_from_both_sides_and_never_above_one(table: dict[tuple[str, str], int]) -> None:
    found = kappa(table)
    turned = kappa({(other, one): count for (one, other), count in table.items()})
    if found is None:
        assert turned is None
        return
    assert turned == pytest.approx(found)
    assert -1 - 1e-9 <= found <= 1 + 1e-9
    agrees = all(one == other for (one, other), count in table.items() if count)
    assert (found == pytest.approx(1)) == agrees


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_dice_lies_between_nothing_and_all_and_is_one_of_equal_masks(pixels: list[tuple[bool, bool]]) -> None:
    one, other = (np.array(side) for side in zip(*pixels, strict=True))
    found = dice(one, other)
    assert found == dice(other, one)
    if found is not None:
        assert 0 <= found <= 1
        assert (found == 1) == np.array_equal(one, other)
    assert dice(one, one) in (1, None)
