"""Whatever valid findings there are, their report passes our gate and independent validators."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import pydicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacsnode.dicom.codes import LEFT, NO_UNITS, PERCENT, PRIVATE_SCHEME, RIGHT, SQUARE_MILLIMETER, Concept
from pacsnode.encode.build import encode
from pacsnode.findings import Evaluation, Findings, Group, Measurement, Presence, Region, Shape
from pacsnode.handover import Form, ReportForm
from tests.encode.cases import ANATOMY, AREA, CARDIOMEGALY, CHEST, CR, HEART, LUNG, RATIO, errors_of_dciodvfy, request
from tests.encode.regions import LENGTH, LESION, MILLIMETER, NODULE
from tests.encode.test_report import FORMS, tree

ROWS, COLUMNS = 1955, 1841
IMAGE = str(pydicom.dcmread(CR, stop_before_pixels=True).SOPInstanceUID)

words = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1, max_size=40).map(
    lambda text: text.strip() or "x"
)
meanings = words.filter(lambda text: len(text.encode()) <= 64)  # dciodvfy counts bytes, the standard characters
concepts = st.sampled_from([AREA, RATIO, LENGTH, CARDIOMEGALY, NODULE]) | st.builds(
    Concept, st.from_regex(r"[A-Z]{1,16}", fullmatch=True), st.just(PRIVATE_SCHEME), meanings
)
sites = st.none() | st.sampled_from([LUNG, HEART])
sides = st.none() | st.sampled_from([LEFT, RIGHT])
units = st.sampled_from([NO_UNITS, PERCENT, SQUARE_MILLIMETER, MILLIMETER])
numbers = st.floats(allow_nan=False, allow_infinity=False)
probabilities = st.none() | st.floats(0, 1)
measurements = st.builds(Measurement, concepts, numbers, units, sites, sides, st.just("") | words)
evaluations = st.builds(
    Evaluation, concepts, st.sampled_from(Presence), probabilities, st.just("") | words, sites, sides
)
points = st.tuples(st.floats(0, COLUMNS, width=32), st.floats(0, ROWS, width=32))


@st.composite
def places(draw: st.DrawFn) -> tuple[Shape, tuple[tuple[float, float], ...]]:
    """A shape with as many points as it has."""
    shape = draw(st.sampled_from(Shape))
    if shape is Shape.ELLIPSE:
        x, y = draw(st.tuples(st.integers(200, 1600), st.integers(200, 1600)))
        a, b = draw(st.tuples(st.integers(1, 200), st.integers(1, 200)))
        return shape, ((x - a, y), (x + a, y), (x, y - b), (x, y + b))
    count = {Shape.POINT: 1, Shape.CIRCLE: 2, Shape.BOX: 2, Shape.POLYLINE: 3, Shape.POLYGON: 5}[shape]
    return shape, tuple(draw(st.lists(points, min_size=count, max_size=count)))


@st.composite
def regions(draw: st.DrawFn, key: str) -> Region:
    """A region on the film."""
    shape, where = draw(places())
    return Region(
        key=key,
        label=draw(words),
        category=draw(st.sampled_from([LESION, ANATOMY])),
        type=draw(concepts),
        image=IMAGE,
        shape=shape,
        points=where,
        site=draw(sites),
        laterality=draw(sides),
        presence=draw(st.none() | st.sampled_from(Presence)),
        probability=draw(probabilities),
        comment=draw(st.just("") | words),
        measurements=tuple(draw(st.lists(measurements, max_size=2))),
    )


@st.composite
def groups(draw: st.DrawFn) -> Group:
    """Anything that can be said of the film; some numbers come from some of the regions."""
    found = tuple(draw(regions(f"place-{n}")) for n in range(draw(st.integers(0, 3))))
    keys = st.lists(st.sampled_from([one.key for one in found]), max_size=2, unique=True) if found else st.just([])
    measured = tuple(replace(one, regions=tuple(draw(keys))) for one in draw(st.lists(measurements, max_size=3)))
    return Group(
        source=(IMAGE,),
        measurements=measured,
        evaluations=tuple(draw(st.lists(evaluations, max_size=3))),
        notes=tuple(draw(st.lists(words, max_size=2))),
        regions=found,
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(found=groups(), form=st.sampled_from(FORMS))
def test_any_findings_give_a_report_that_everybody_reads(found: Group, form: ReportForm) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asked = replace(request(Path(folder), CR, results=("sr",)), form=Form(sr=form))
        (result,) = encode(Findings(CHEST, (found,)), asked)
        assert errors_of_dciodvfy(result.path) == []
        report = pydicom.dcmread(result.path)
        told = [item for item in tree(report) if item.ValueType == "NUM" and item.RelationshipType == "CONTAINS"]
        assert all(len(str(item.MeasuredValueSequence[0].NumericValue.original_string)) <= 16 for item in told)
        assert len(told) >= len(found.measurements)
        drawn = [item for item in tree(report) if item.ValueType == "SCOORD"]
        for item in drawn:
            data = [float(value) for value in item.GraphicData]
            assert all(0 <= x <= COLUMNS for x in data[::2]) and all(0 <= y <= ROWS for y in data[1::2])
        hd.sr.srread(result.path)
