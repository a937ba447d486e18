"""Measures on phantoms whose true values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pacsnode.dicom.codes import FRACTION_OF_IMAGE
from pacsnode.errors import Permanent
from pacsnode.findings import united
from pacsnode.infer import measure


def test_the_area_of_a_disc_is_that_of_the_disc() -> None:
    y, x = np.mgrid[:400, :400]
    disc = (x - 200) ** 2 + (y - 200) ** 2 < 150**2
    value, unit = measure.area(disc, (0.2, 0.1))
    assert value == pytest.approx(math.pi * 150**2 * 0.02, rel=1e-3)
    assert unit.value == "mm2"


def test_without_a_spacing_an_area_is_a_fraction_of_the_image() -> None:
    map_ = np.zeros((10, 20), dtype=np.uint8)
    map_[:5, :10] = 2
    assert measure.area(map_ == 2, None) == (0.25, FRACTION_OF_IMAGE)
    assert measure.area(map_ == 1, None)[0] == 0


def test_labels_are_united_and_counted_once() -> None:
    map_ = np.zeros((10, 10), dtype=np.uint8)
    map_[0], map_[1], map_[2] = 1, 2, 3
    assert measure.area(united([map_], [1, 3, 1]), (1, 1))[0] == 20


def test_what_lies_in_another_label_map_counts_too() -> None:
    below, above = np.zeros((2, 10, 10), dtype=np.uint8)
    below[0], above[0], above[1] = 1, 2, 1
    assert measure.area(united([below, above], [1]), (1, 1))[0] == 20
    assert measure.area(united([below, above], [1, 2]), (1, 1))[0] == 20
    assert measure.area(united([below, above], [2]), (1, 1))[0] == 10


def test_the_volume_of_a_ball_is_that_of_the_ball() -> None:
    z, y, x = np.mgrid[:40, :80, :160].astype(np.float64)
    ball = ((z - 20) * 2) ** 2 + (y - 40) ** 2 + ((x - 80) / 2) ** 2 < 30**2
    value, unit = measure.volume(int(np.count_nonzero(ball)), 2.0 * 1.0 * 0.5)
    assert value == pytest.approx(4 / 3 * math.pi * 30**3 / 1000, rel=5e-3)
    assert (unit.value, unit.scheme) == ("ml", "UCUM")


def test_the_cardiothoracic_ratio_of_a_drawn_chest() -> None:
    chest = np.zeros((100, 300), dtype=np.uint8)
    chest[10:60, 20:120] = 1  # right lung: columns 20 to 119
    chest[10:60, 180:280] = 2  # left lung: to 279, so 260 columns in all
    chest[50:90, 100:230] = 3  # heart: 130 columns
    assert measure.width_ratio(united([chest], [3]), united([chest], [1, 2])) == 0.5


def test_the_widest_extent_counts_and_not_the_number_of_columns() -> None:
    map_ = np.zeros((10, 100), dtype=np.uint8)
    map_[2, 10], map_[8, 89] = 1, 1
    map_[5, 40:60] = 2
    assert measure.width_ratio(map_ == 2, map_ == 1) == 0.25


@pytest.mark.parametrize(("of", "over"), [(1, 2), (2, 1)])
def test_a_ratio_of_nothing_is_refused(of: int, over: int) -> None:
    map_ = np.ones((4, 4), dtype=np.uint8)
    with pytest.raises(Permanent, match="nothing to measure"):
        measure.width_ratio(map_ == of, map_ == over)
