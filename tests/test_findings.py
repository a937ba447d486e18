"""Findings on disk, and regions as lines to draw."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pacsnode import findings_files
from pacsnode.dicom.codes import Concept
from pacsnode.findings import Algorithm, Findings, Group, Measurement, Presence, Region, Shape, outline

NODULE = Concept("27925004", "SCT", "Nodule")
LESION = Concept("49755003", "SCT", "Morphologically Abnormal Structure")
DIAMETER = Concept("81827009", "SCT", "Diameter")
MILLIMETER = Concept("mm", "UCUM", "millimeter")
ALGORITHM = Algorithm(
    service="cxr",
    title="",
    status="slot",
    version="1",
    bundle_hash="ab",
    weights_hash="",
    method="",
    training_data="",
    quality="",
    intended_use="",
    licence="",
    device="cpu",
    procedure=Concept("399208008", "SCT", "Plain chest X-ray"),
    machine_learning=True,
)


def region(shape: Shape, *points: tuple[float, float]) -> Region:
    """A nodule of that shape."""
    return Region("nodule-1", "Nodule", LESION, NODULE, "1.2.3", shape, points)


def test_regions_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    diameter = Measurement(DIAMETER, 12.5, MILLIMETER, regions=("nodule-1",))
    found = replace(
        region(Shape.BOX, (1.5, 2.25), (10.0, 20.0)),
        frame=3,
        presence=Presence.PRESENT,
        probability=0.75,
        measurements=(diameter,),
        also=(("1.2.3", 4), ("1.2.3", 2)),
    )
    saved = Findings(ALGORITHM, (Group(("1.2.3",), measurements=(diameter,), regions=(found,)),))
    findings_files.save(saved, tmp_path)
    assert findings_files.load(tmp_path) == saved


def test_a_record_from_before_there_were_regions_is_read(tmp_path: Path) -> None:
    number = Measurement(DIAMETER, 12.5, MILLIMETER)
    findings_files.save(Findings(ALGORITHM, (Group(("1.2.3",), measurements=(number,)),)), tmp_path)
    record = tmp_path / findings_files.RECORD
    plain = json.loads(record.read_text())
    del plain["groups"][0]["regions"], plain["groups"][0]["measurements"][0]["regions"]
    record.write_text(json.dumps(plain))
    assert findings_files.load(tmp_path).groups == (Group(("1.2.3",), measurements=(number,)),)


def test_a_region_from_before_it_could_pass_through_several_images_is_read(tmp_path: Path) -> None:
    saved = Findings(ALGORITHM, (Group(("1.2.3",), regions=(region(Shape.POINT, (3, 4)),)),))
    findings_files.save(saved, tmp_path)
    record = tmp_path / findings_files.RECORD
    plain = json.loads(record.read_text())
    del plain["groups"][0]["regions"][0]["also"]
    record.write_text(json.dumps(plain))
    assert findings_files.load(tmp_path) == saved


def test_the_planes_of_a_region_are_those_that_it_passes_through() -> None:
    box = replace(region(Shape.BOX, (1, 2), (5, 9)), image="1.3", also=(("1.2", None), ("1.4", None)))
    assert Group(("1.2", "1.3", "1.4", "1.5")).planes_of(box) == (1, 0, 2)
    framed = replace(box, image="1.2", frame=5, also=(("1.2", 4), ("1.2", 6)))
    assert Group(("1.2",)).planes_of(framed) == (4, 3, 5)
    assert Group(("1.2",), frames=(6, 5, 4)).planes_of(framed) == (1, 2, 0)


@pytest.mark.parametrize(
    ("found", "drawn"),
    [
        (region(Shape.POINT, (3, 4)), ((3, 4),)),
        (region(Shape.POLYLINE, (0, 0), (3, 4)), ((0, 0), (3, 4))),
        (region(Shape.POLYGON, (0, 0), (3, 4), (0, 4)), ((0, 0), (3, 4), (0, 4), (0, 0))),
        (region(Shape.BOX, (1, 2), (5, 9)), ((1, 2), (5, 2), (5, 9), (1, 9), (1, 2))),
    ],
)
def test_straight_shapes_are_drawn_through_their_points(found: Region, drawn: tuple[tuple[float, float], ...]) -> None:
    assert outline(found) == drawn


def test_round_shapes_are_drawn_in_chords() -> None:
    circle = outline(region(Shape.CIRCLE, (10, 20), (13, 24)))
    assert len(circle) == 73 and circle[0] == circle[-1]
    assert all(math.isclose(math.dist((10, 20), point), 5) for point in circle)
    ellipse = outline(region(Shape.ELLIPSE, (0, 5), (20, 5), (10, 0), (10, 10)))
    assert (min(x for x, _ in ellipse), max(x for x, _ in ellipse)) == pytest.approx((0, 20))
    assert (min(y for _, y in ellipse), max(y for _, y in ellipse)) == pytest.approx((0, 10))


@pytest.mark.parametrize("highest", [0, 1, 2])
def test_label_maps_of_one_segment_and_of_several_come_back_as_they_were(highest: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(highest)
    maps = [rng.integers(0, highest, (3, 5, 7), dtype=np.uint8, endpoint=True) for _ in range(2)]
    group = Group(source=("1.2.3",), label_map=maps[0], overlaid=(maps[1],))
    findings_files.save(Findings(ALGORITHM, (group,)), tmp_path)
    (loaded,) = findings_files.load(tmp_path).groups
    assert loaded.label_map is not None and loaded.label_map.dtype == np.uint8
    assert np.array_equal(loaded.label_map, maps[0]) and np.array_equal(loaded.overlaid[0], maps[1])
