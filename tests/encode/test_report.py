"""Reports in every form: their tree, their places, and what independent readers make of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import highdicom as hd
import pydicom
import pytest
from pydicom.filewriter import dcmwrite

from pacsnode.encode import sr_rules
from pacsnode.encode.build import encode
from pacsnode.encode.read_back import Item, read_back
from pacsnode.errors import Permanent
from pacsnode.findings import Findings, Region, Shape
from pacsnode.handover import Form, ReportForm
from tests.encode.cases import (
    CHEST,
    CR,
    ECG,
    chest_findings,
    ecg_findings,
    errors_of_dciodvfy,
    request,
    run_tool,
)
from tests.encode.regions import NODULE, marked_findings, marked_group, nodule, volume

FORMS: tuple[ReportForm, ...] = get_args(ReportForm)
CLASSES = {
    "comprehensive-3d": "1.2.840.10008.5.1.4.1.1.88.34",
    "comprehensive": "1.2.840.10008.5.1.4.1.1.88.33",
    "enhanced": "1.2.840.10008.5.1.4.1.1.88.22",
}
CASES: dict[str, Callable[[Path], tuple[Findings, list[Path]]]] = {
    "segments": lambda _: (chest_findings(), [CR]),
    "regions": lambda _: (marked_findings(), [CR]),
    "recording": lambda _: (ecg_findings(), [ECG]),
    "volume": volume,
    "enhanced volume": partial(volume, is_enhanced=True),
}


def reported(folder: Path, case: str, form: ReportForm = "comprehensive-3d") -> Path:
    """The file of the report of a case in this form, with its SEG before it."""
    findings, sources = CASES[case](folder / "sources")
    asked = replace(request(folder / "out", *sources, results=("seg", "sr")), form=Form(sr=form))
    return next(one.path for one in encode(findings, asked) if one.kind == "sr")


def tree(dataset: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """All content items of a report."""
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from tree(item)


def named(items: Any, meaning: str) -> list[pydicom.Dataset]:
    """Those of a name."""
    return [i for i in items if "ConceptNameCodeSequence" in i and i.ConceptNameCodeSequence[0].CodeMeaning == meaning]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_every_form_of_every_group_is_without_error_and_can_be_read(
    case: str, form: ReportForm, tmp_path: Path
) -> None:
    path = reported(tmp_path, case, form)
    assert pydicom.dcmread(path).SOPClassUID == CLASSES[form]
    assert errors_of_dciodvfy(path) == []
    dumped = run_tool("/usr/bin/dsrdump", "+Pl", str(path))
    assert not [line for line in dumped if line.startswith(("E:", "F:"))]
    text = "\n".join(dumped)
    assert "AI result, unverified. Not for diagnosis; not evaluated clinically." in text
    assert '=(en-US,RFC5646,"English (United States)")' in text
    if case == "regions":
        assert 'SCOORD:(,,"Image Region")=(POLYLINE,10/20,30.5/20,30.5/40.25,10/40.25,10/20)' in text
        assert 'inferred from SCOORD:(,,"Source")=(POLYLINE,100/300,400/300)' in text


def test_the_forms_differ_in_their_class_and_uids_alone(tmp_path: Path) -> None:
    trees = [read_back(reported(tmp_path / form, "regions", form).read_bytes()).sequences[0x0040A730] for form in FORMS]
    without_seg = [[item for item in one if "1411" not in str(item)] for one in trees]
    assert len({len(one) for one in without_seg}) == 1
    numbers = [[item.text(0x0040A30A) for root in one for item in root.walk(())] for one in trees]
    assert numbers[0] == numbers[1] == numbers[2]


def test_highdicom_reads_regions_segments_and_numbers_as_they_were_found(tmp_path: Path) -> None:
    content = hd.sr.srread(reported(tmp_path, "regions")).content
    group = marked_group()
    drawn = {region.key: region for region in group.regions if region.key not in ("heart", "lungs")}
    planar = content.get_planar_roi_measurement_groups()
    assert {one.tracking_identifier for one in planar} == {f"chest-xray {key}" for key in drawn}
    for one in planar:
        region = drawn[one.tracking_identifier.removeprefix("chest-xray ")]
        assert one.finding_type.value == NODULE.value
        points = [tuple(point) for point in one.roi.value.tolist()]
        if region.shape in (Shape.CIRCLE, Shape.ELLIPSE, Shape.POINT, Shape.POLYLINE):
            assert points == list(region.points)
        else:
            assert points[0] == points[-1] and set(region.points) <= set(points)
        assert one.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == region.image
    (box,) = content.get_planar_roi_measurement_groups(tracking_uid=planar[0].tracking_uid)
    assert [(m.name.meaning, m.value, m.unit.value) for m in box.get_measurements()] == [
        ("Length", 12.3, "mm"),
        ("Probability", 87.3, "%"),
    ]
    said = {e.name.meaning: e.value.meaning for e in box.get_qualitative_evaluations()}
    assert said["Nodule"] == "Present"
    assert [site.value.meaning for site in box.finding_sites] == ["Lung"]
    segments = content.get_volumetric_roi_measurement_groups()
    assert [one.tracking_identifier for one in segments] == [
        "chest-xray Right lung",
        "chest-xray Left lung",
        "chest-xray Heart",
    ]


def test_a_number_that_was_got_from_places_has_a_group_of_its_own_with_nothing_else_below_it(tmp_path: Path) -> None:
    content = hd.sr.srread(reported(tmp_path, "regions")).content
    placed = {g.tracking_identifier: g for g in content.get_image_measurement_groups()}
    (ratio,) = placed["chest-xray Cardiothoracic ratio"].get_measurements()
    lines = [coordinates.value.tolist() for coordinates in ratio.referenced_coordinates]
    assert lines == [[[100, 300], [400, 300]], [[50, 310], [700, 310]]]
    assert all(child.ValueType == "SCOORD" for child in ratio[0].ContentSequence)
    # The whole film keeps what was measured without a place, and the lines are no findings of their own.
    assert [m.name.meaning for m in placed["chest-xray findings"].get_measurements()] == ["Cardiothoracic ratio"]


def test_a_region_is_said_again_only_for_numbers_that_were_got_from_another_place(tmp_path: Path) -> None:
    group = marked_group()
    box, *others = group.regions
    length, width = (replace(box.measurements[0], value=value) for value in (12.3, 4.5))
    box = replace(box, measurements=(replace(length, regions=("heart",)), width))
    findings = Findings(CHEST, (replace(group, regions=(box, *others)),))
    (result,) = encode(findings, request(tmp_path, CR, results=("sr",)))
    content = hd.sr.srread(result.path).content
    again = [
        one for one in content.get_image_measurement_groups() if one.tracking_identifier.endswith("nodule-box drawn")
    ]
    assert [[m.value for m in one.get_measurements()] for one in again] == [[12.3]]
    (line,) = again[0].get_measurements()[0].referenced_coordinates
    assert line.value.tolist() == [[100, 300], [400, 300]]
    # Viewers draw a region where it stands, and write each comment over the image: it stands there once.
    places = [item for item in tree(pydicom.dcmread(result.path)) if item.ValueType == "SCOORD"]
    assert [list(one.GraphicData)[:4] for one in places].count([10, 20, 30.5, 20]) == 1


def test_a_place_in_a_volume_stands_on_each_of_its_slices(tmp_path: Path) -> None:
    findings, _ = volume(tmp_path / "again")
    (group,) = findings.groups
    content = hd.sr.srread(reported(tmp_path, "volume")).content
    found = {g.tracking_identifier: g for g in content.get_volumetric_roi_measurement_groups()}
    regions = found["chest-xray nodule-box"].roi
    assert all(region.value.tolist() == [[3, 4], [9, 4], [9, 11], [3, 11], [3, 4]] for region in regions)
    assert len(regions) == len(
        {r.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID for r in regions}
    )
    assert len(regions) == 3 == 1 + len(group.regions[0].also)
    (point,) = content.get_planar_roi_measurement_groups()
    assert point.roi.value.tolist() == [[3.5, 4.5]]


def test_a_place_in_a_multi_frame_object_names_its_frame(tmp_path: Path) -> None:
    report = pydicom.dcmread(reported(tmp_path, "enhanced volume"))
    frames = [
        item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber
        for item in named(tree(report), "Image Region")
    ]
    assert frames == [3, 2, 4, 1]


def test_a_volume_is_named_as_a_series_and_its_images_stand_once(tmp_path: Path) -> None:
    report = pydicom.dcmread(reported(tmp_path, "volume"))
    series = [item.UID for item in named(tree(report), "Source series for segmentation")]
    assert len(series) == 2
    assert set(series) == {item.UID for item in named(tree(report), "Series Instance UID")}
    (library,) = named(tree(report), "Image Library")
    images = [item for item in tree(library) if item.ValueType == "IMAGE"]
    assert len(images) == 6
    assert len(named(tree(library), "Pixel Data Rows")) == 1


@pytest.mark.parametrize("case", CASES)
def test_every_reference_resolves(case: str, tmp_path: Path) -> None:
    report = pydicom.dcmread(reported(tmp_path, case))
    files = [CR, ECG, *(tmp_path / "sources").rglob("*.dcm"), *(tmp_path / "out").glob("seg-*.dcm")]
    known = {
        str(head.SOPInstanceUID): str(head.SeriesInstanceUID)
        for head in (pydicom.dcmread(path, stop_before_pixels=True) for path in files)
    }
    listed = {
        str(one.ReferencedSOPInstanceUID): str(series.SeriesInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    referred = {
        str(one.ReferencedSOPInstanceUID) for item in tree(report) for one in item.get("ReferencedSOPSequence", [])
    }
    assert referred == set(listed)
    assert all(known[uid] == series for uid, series in listed.items())


@pytest.mark.parametrize("case", CASES)
def test_the_writer_writes_what_pydicom_writes(case: str, tmp_path: Path) -> None:
    path = reported(tmp_path, case)
    dataset = pydicom.dcmread(path)
    list(dataset.iterall())
    buffer = io.BytesIO()
    with pydicom.config.disable_value_validation():
        dcmwrite(buffer, dataset, enforce_file_format=True)
    assert buffer.getvalue() == path.read_bytes()


def test_a_number_has_at_most_sixteen_characters(tmp_path: Path) -> None:
    group = marked_group()
    values = (1 / 3, -1.23456789e-17, 123456789.123, 0.0, -0.0000001, 5e300)
    numbers = tuple(replace(group.measurements[0], value=value) for value in values)
    (result,) = encode(
        Findings(CHEST, (replace(group, measurements=numbers, regions=()),)), request(tmp_path, CR, results=("sr",))
    )
    told = [item.MeasuredValueSequence[0].NumericValue for item in tree(pydicom.dcmread(result.path)) if
            item.ValueType == "NUM" and item.RelationshipType == "CONTAINS"]  # fmt: skip
    assert all(len(str(number.original_string)) <= 16 for number in told)
    assert [float(number) for number in told] == pytest.approx(values, rel=1e-5)


# --- what is refused


def on_film(**changes: Any) -> Region:
    """A point on the film, changed."""
    return replace(nodule(marked_group().source[0], Shape.POINT, (1, 1)), **changes)


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        (on_film(points=((1e4, 1.0),)), "outside of its image of 1841 x 1955"),
        (on_film(points=((-0.1, 1.0),)), "outside of its image"),
        (on_film(points=((float("nan"), 1.0),)), "outside of its image"),
        (on_film(points=()), "is a point of 0 points"),
        (on_film(shape=Shape.BOX), "is a box of 1 points"),
        (on_film(shape=Shape.ELLIPSE, points=((0, 5), (20, 5), (1, 0), (1, 10))), "do not halve each other"),
        (on_film(frame=2), "lies on frame 2 of 1"),
        (on_film(image="1.2.3"), "lies on an image that was not analysed"),
        (on_film(also=(("1.2.3", None),)), "lies on an image that was not analysed"),
        (on_film(probability=1.5), "the probability of the region"),
    ],
)
def test_a_region_that_cannot_be_right_is_refused(region: Region, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=reason):
        encode(Findings(CHEST, (replace(marked_group(), measurements=(), regions=(region,)),)), request(tmp_path, CR))


def test_a_measurement_of_a_region_that_there_is_not_is_refused(tmp_path: Path) -> None:
    lost = replace(marked_group(), regions=())
    with pytest.raises(Permanent, match="names the region heart, which there is not"):
        encode(Findings(CHEST, (lost,)), request(tmp_path, CR))
    twice = replace(marked_group(), regions=(*marked_group().regions, marked_group().regions[0]))
    with pytest.raises(Permanent, match="the same key"):
        encode(Findings(CHEST, (twice,)), request(tmp_path, CR))


def without(root: Item, code_value: str) -> None:
    """Take the items with this name out of the tree."""
    for item in root.walk(()):
        content = item.sequences.get(0x0040A730, [])
        content[:] = [
            one for one in content if all(c.text(0x00080100) != code_value for c in one.sequences.get(0x0040A043, []))
        ]


@pytest.mark.parametrize(
    ("code_value", "reason"),
    [
        ("121005", "which device observed"),
        ("121012", "which device observed"),
        ("121058", "which procedure"),
        ("121049", "its language"),
        ("126010", "no measurement group"),
        ("125007", "no measurement group"),
        ("112039", "lacks its tracking"),
        ("112040", "lacks its tracking"),
        ("111001", "which algorithm"),
        ("111003", "which algorithm"),
    ],
)
def test_the_gate_refuses_a_tree_that_lacks_a_part(code_value: str, reason: str, tmp_path: Path) -> None:
    root = read_back(reported(tmp_path, "regions").read_bytes())
    sr_rules.check(root)
    without(root, code_value)
    with pytest.raises(Permanent, match=reason):
        sr_rules.check(root)


def test_the_gate_refuses_a_unit_a_root_and_a_reference_that_are_not_right(tmp_path: Path) -> None:
    content = reported(tmp_path, "regions").read_bytes()
    root = read_back(content)
    del next(i for i in root.walk(()) if 0x004008EA in i.sequences).sequences[0x004008EA]
    with pytest.raises(Permanent, match="has no unit"):
        sr_rules.check(root)
    root = read_back(content)
    root.sequences[0x0040A043][0].values[0x00080100] = b"126001"
    with pytest.raises(Permanent, match="no Imaging Measurement Report"):
        sr_rules.check(root)
    root = read_back(content)
    del root.sequences[0x0040A375]
    with pytest.raises(Permanent, match="not among its evidence"):
        sr_rules.check(root)


def test_a_torn_result_is_refused(tmp_path: Path) -> None:
    content = reported(tmp_path, "segments").read_bytes()
    for end in (100, 400, len(content) - 3):
        with pytest.raises(Permanent, match="torn"):
            read_back(content[:end])
