"""The presentation states: lines where the findings are, an image shown as it says itself, and bounds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pacsnode.encode import marks
from pacsnode.encode.build import encode
from pacsnode.encode.marks import plan
from pacsnode.encode.outlines import borders, outlines
from pacsnode.errors import Permanent
from pacsnode.findings import Findings, Group, Shape
from tests.encode.cases import (
    CHEST,
    CR,
    ECG,
    LUNGS_AND_HEART,
    chest_findings,
    chest_group,
    ecg_findings,
    ellipses,
    errors_of_dciodvfy,
    read,
    request,
    run_tool,
)
from tests.encode.marked import ct, korean_film, marked_film, one_object, regions


def graphics(dataset: pydicom.Dataset) -> list[tuple[str, str, NDArray[np.float64]]]:
    """(layer description, type, points) of all graphic objects."""
    names = {layer.GraphicLayer: layer.get("GraphicLayerDescription", "") for layer in dataset.GraphicLayerSequence}
    return [
        (names[item.GraphicLayer], one.GraphicType, np.array(one.GraphicData).reshape(-1, 2))
        for item in dataset.GraphicAnnotationSequence
        for one in item.get("GraphicObjectSequence", [])
    ]


def texts(dataset: pydicom.Dataset) -> list[str]:
    return [
        str(one.UnformattedTextValue)
        for item in dataset.GraphicAnnotationSequence
        for one in item.get("TextObjectSequence", [])
    ]


def complaints(path: Path) -> list[str]:
    """Of DCMTK's checker of presentation states."""
    return [line for line in run_tool("/usr/bin/dcmpschk", str(path)) if line.startswith("E:")]


def filled(points: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels inside a closed line, whose points lie on the corners of pixels."""
    scale = 4
    image = Image.new("1", (shape[1] * scale, shape[0] * scale))
    ImageDraw.Draw(image).polygon([(x * scale, y * scale) for x, y in points], fill=1)
    return np.asarray(image)[scale // 2 :: scale, scale // 2 :: scale]


def test_each_segment_is_outlined_where_it_is_and_named(tmp_path: Path) -> None:
    (result,) = encode(chest_findings(), request(tmp_path, CR, results=("pr",)))
    assert errors_of_dciodvfy(result.path) == []
    assert complaints(result.path) == []
    dataset = pydicom.dcmread(result.path)
    label_map = chest_group().label_map
    assert label_map is not None
    drawn = {name: points for name, _, points in graphics(dataset)}
    assert set(drawn) == {"Right lung", "Left lung", "Heart"}
    for segment in LUNGS_AND_HEART:
        inside, true = filled(drawn[segment.label], label_map.shape[1:]), label_map[0] == segment.value
        assert 2 * (inside & true).sum() / (inside.sum() + true.sum()) > 0.995
        assert len(drawn[segment.label]) < 400
    assert set(texts(dataset)) == {"Right lung", "Left lung", "Heart", "AI result, unverified. Not for diagnosis."}


def test_the_image_is_shown_as_its_header_says(tmp_path: Path) -> None:
    dataset = read(encode(chest_findings(), request(tmp_path, CR, results=("pr",))), "pr")
    source = pydicom.dcmread(CR, stop_before_pixels=True)
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.11.1"
    assert dataset.PresentationLUTShape == "INVERSE"  # MONOCHROME1
    (window,) = dataset.SoftcopyVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth) == (source.WindowCenter, source.WindowWidth)
    (area,) = dataset.DisplayedAreaSelectionSequence
    assert area.DisplayedAreaBottomRightHandCorner == [source.Columns, source.Rows]
    assert area.PresentationPixelAspectRatio == [1, 1]
    assert (dataset.PresentationCreationDate, dataset.ContentLabel) == ("20261122", "AI")
    assert dataset.ContentDescription == "AI outlines, unverified, not for diagnosis"
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert series.ReferencedImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_dcmtk_renders_the_film_by_the_state(tmp_path: Path) -> None:
    if not Path("/usr/bin/dcmp2pgm").exists():
        pytest.skip("/usr/bin/dcmp2pgm is not installed (package dcmtk)")
    (result,) = encode(chest_findings(), request(tmp_path, CR, results=("pr",)))
    run_tool("/usr/bin/dcmp2pgm", "-q", "-p", str(result.path), str(CR), str(tmp_path / "out.pgm"))
    shown = np.asarray(Image.open(tmp_path / "out.pgm")).astype(float)
    picture = chest_group().picture
    assert picture is not None and shown.shape == picture.shape
    assert np.corrcoef(shown[::20, ::20].ravel(), picture[::20, ::20].ravel())[0, 1] > 0.9


def test_regions_of_every_shape_are_drawn_with_label_probability_and_number(tmp_path: Path) -> None:
    source = korean_film(tmp_path)
    (result,) = encode(marked_film(source), request(tmp_path, source, results=("pr",)))
    assert errors_of_dciodvfy(result.path) == []
    dataset = pydicom.dcmread(result.path)
    shapes = {name: (kind, points) for name, kind, points in graphics(dataset)}
    kind, points = shapes["Nodule 결절"]
    assert (kind, points.tolist()) == ("CIRCLE", [[300, 300], [340, 300]])
    assert shapes["ellipse"][0] == "ELLIPSE" and shapes["point"][0] == "POINT"
    assert shapes["box"][1].tolist() == [[1600, 10], [1700, 10], [1700, 100], [1600, 100], [1600, 10]]
    assert shapes["polygon"][1].tolist() == [[10, 10], [60, 10], [60, 60], [10, 10]]
    kind, points = shapes["over the edge"]
    assert kind == "POLYLINE" and points.min() >= 0
    assert points[:, 0].max() == pytest.approx(55, abs=1) and len(points) == 65
    assert {"Nodule 결절 (91 %)", "Heart width\r\nLength: 123 mm"} <= set(texts(dataset))


def test_a_volume_has_one_state_for_the_images_with_marks_and_their_windows(tmp_path: Path) -> None:
    findings, paths = ct(tmp_path)
    (result,) = encode(findings, request(tmp_path / "out", *paths, results=("pr",)))
    assert errors_of_dciodvfy(result.path) == [] and complaints(result.path) == []
    dataset = pydicom.dcmread(result.path)
    (series,) = dataset.ReferencedSeriesSequence
    shown = [image.ReferencedSOPInstanceUID for image in series.ReferencedImageSequence]
    assert shown == ["1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4"]
    windows = {
        float(item.WindowCenter): [image.ReferencedSOPInstanceUID for image in item.ReferencedImageSequence]
        for item in dataset.SoftcopyVOILUTSequence
    }
    assert windows == {40.0: shown[:3], 300.0: shown[3:]}
    assert (dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType) == (-1024, 1, "HU")
    lesion = [points for name, _, points in graphics(dataset) if name == "Lesion"]
    assert [points.min(axis=0).tolist() for points in lesion] == [[120, 120], [120, 120]]
    assert [points.max(axis=0).tolist() for points in lesion] == [[122, 122], [124, 124]]


def test_images_that_differ_in_their_grey_values_have_states_of_their_own(tmp_path: Path) -> None:
    findings, paths = ct(tmp_path)
    dataset = pydicom.dcmread(paths[2])
    dataset.RescaleSlope = 2
    dataset.save_as(paths[2])
    results = encode(findings, request(tmp_path / "out", *paths, results=("pr",)))
    assert [errors_of_dciodvfy(result.path) for result in results] == [[], []]
    counts = [len(read(results, "pr", n).ReferencedSeriesSequence[0].ReferencedImageSequence) for n in (1, 2)]
    assert counts == [3, 1]
    assert [read(results, "pr", n).InstanceNumber for n in (1, 2)] == [1, 2]


@pytest.mark.parametrize(
    ("name", "sop_class"),
    [
        ("emri_small.dcm", "11.1"),
        ("MR_small.dcm", "11.1"),
        ("examples_rgb_color.dcm", "11.2"),
        ("examples_ybr_color.dcm", "11.2"),
        ("examples_palette.dcm", "11.2"),
    ],
)
def test_frames_and_colours_have_the_state_that_is_meant_for_them(name: str, sop_class: str, tmp_path: Path) -> None:
    findings, path = one_object(name)
    (result,) = encode(findings, request(tmp_path, path, results=("pr",)))
    assert errors_of_dciodvfy(result.path) == []
    dataset = pydicom.dcmread(result.path)
    assert dataset.SOPClassUID == f"1.2.840.10008.5.1.4.1.1.{sop_class}"
    assert ("ICCProfile" in dataset) == (sop_class == "11.2")
    numbers = [
        item.ReferencedImageSequence[0].get("ReferencedFrameNumber") for item in dataset.GraphicAnnotationSequence
    ]
    label_map = findings.groups[0].label_map
    assert label_map is not None
    if len(label_map) > 3:
        assert {int(n) for n in numbers if n is not None} == set(range(2, len(label_map)))
    else:
        assert set(numbers[:-1]) <= {None, 1}


def test_pixels_that_are_not_square_are_shown_so(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(CR)
    dataset.PixelSpacing = [0.3, 0.2]
    dataset.save_as(tmp_path / "film.dcm")
    state = read(encode(chest_findings(), request(tmp_path, tmp_path / "film.dcm", results=("pr",))), "pr")
    assert state.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio == [3, 2]


def test_an_image_without_a_window_is_shown_in_all_its_grey_values(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(CR)
    del dataset.WindowCenter, dataset.WindowWidth
    dataset.save_as(tmp_path / "film.dcm")
    state = read(encode(chest_findings(), request(tmp_path, tmp_path / "film.dcm", results=("pr",))), "pr")
    (window,) = state.SoftcopyVOILUTSequence
    values = 2**dataset.BitsStored
    assert (window.WindowCenter, window.WindowWidth) == (values / 2, values)


def test_where_nothing_can_be_drawn_there_is_no_state(tmp_path: Path) -> None:
    assert encode(ecg_findings(), request(tmp_path, ECG, results=("pr",))) == ()
    plain = Findings(CHEST, (Group(source=chest_group().source),))
    assert encode(plain, request(tmp_path, CR, results=("pr",))) == ()


def test_the_same_key_gives_the_same_bytes(tmp_path: Path) -> None:
    both = [encode(marked_film(), request(tmp_path / run, CR, results=("pr", "ko"))) for run in "ab"]
    assert [one.path.name for one in both[0]] == ["ko-1.dcm", "pr-1.dcm"]
    for one, other in zip(*both, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()


def test_a_point_that_is_no_number_is_refused(tmp_path: Path) -> None:
    (group,) = chest_findings().groups
    strange = replace(regions(group.source[0])[0], points=((float("nan"), 1.0), (2.0, 2.0)))
    with pytest.raises(Permanent, match="no number"):
        encode(Findings(CHEST, (replace(group, regions=(strange,)),)), request(tmp_path, CR, results=("pr",)))


# --- outlines


def mask_of(*rows: str) -> NDArray[np.bool_]:
    return np.array([[character == "#" for character in row] for row in rows])


def lines_of(mask: NDArray[np.bool_]) -> list[list[tuple[Any, ...]]]:
    return [[tuple(point) for point in line.tolist()] for line in outlines(mask, 10)]


def test_outlines_run_on_the_borders_of_pixels_around_parts_and_holes() -> None:
    assert lines_of(mask_of("#")) == [[(0, 0), (1, 0), (1, 1), (0, 1)]]
    assert lines_of(mask_of("...", "...")) == []
    ring = lines_of(mask_of("###", "#.#", "###"))
    assert ring[0] == [(0, 0), (3, 0), (3, 3), (0, 3)]
    assert sorted(ring[1]) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    corners = lines_of(mask_of("#.", ".#"))
    assert sorted(map(sorted, corners)) == [[(0, 0), (0, 1), (1, 0), (1, 1)], [(1, 1), (1, 2), (2, 1), (2, 2)]]


@pytest.mark.parametrize("seed", range(5))
def test_the_outlines_of_small_parts_enclose_exactly_their_pixels(seed: int) -> None:
    mask = np.random.default_rng(seed).random((12, 12)) < 0.4
    count = np.zeros(mask.shape, dtype=int)
    for line in outlines(mask, 1000):
        count += filled_exactly(line, mask.shape)
    assert (count % 2 == mask).all()
    assert borders(mask) >= 4 * mask.any()


def filled_exactly(points: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """1 where the centre of a pixel is inside, by counting the lines left of it."""
    closed = np.concatenate([points, points[:1]])
    inside = np.zeros(shape, dtype=int)
    for row, column in np.ndindex(*shape):
        x, y = column + 0.5, row + 0.5
        crossings = 0
        for (x0, y0), (x1, y1) in pairwise(closed):
            if (y0 > y) != (y1 > y) and x > x0 + (y - y0) / (y1 - y0) * (x1 - x0):
                crossings += 1
        inside[row, column] = crossings % 2
    return inside


def test_a_large_outline_needs_few_points() -> None:
    (lung,) = outlines(ellipses(2000, 2000)[0] == 1, 1)
    assert len(lung) < 200


def test_noise_is_not_traced_and_many_slices_are_bounded() -> None:
    slices = 200
    label_map = np.zeros((slices, 256, 256), dtype=np.uint8)
    label_map[:, 20:60, 20:60] = 1
    label_map[190:] = np.random.default_rng(1).integers(0, 4, (10, 256, 256), dtype=np.uint8)
    source = tuple(f"1.2.{number}" for number in range(slices))
    group = Group(source=source, segments=LUNGS_AND_HEART, label_map=label_map)
    planned = plan(group, dict.fromkeys(source, (256, 256)))
    assert not planned.is_whole
    assert len(planned.sheets) <= marks.MOST_IMAGES
    assert sum(len(mark.points) for sheet in planned.sheets for mark in sheet.marks) <= marks.MOST_POINTS
    nodule = regions(source[0])[0]
    many = tuple(replace(nodule, key=str(n), shape=Shape.POINT, points=((1.0, 1.0),)) for n in range(20_000))
    crowded = plan(replace(group, label_map=None, regions=many), dict.fromkeys(source, (256, 256)))
    assert not crowded.is_whole and sum(len(sheet.marks) for sheet in crowded.sheets) == marks.MOST_REGIONS
