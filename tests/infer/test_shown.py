"""Which planes are drawn, in which window, and that a coloured picture stays coloured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from pacsnode import findings_files as stored
from pacsnode.findings import Findings, Group, Region, Shape
from pacsnode.infer import shown
from pacsnode.infer.looks import Look, drawn, read_look
from pacsnode.infer.shown import MOST_PICTURES, chosen, of_clip, of_volume
from pacsnode.infer.volume import read_volume
from tests.encode.cases import ANATOMY, CHEST, LUNG
from tests.infer.bundles import saved
from tests.infer.phantoms import IDENTITY, classic, enhanced
from tests.infer.test_forms import clip_of, found_in
from tests.infer.test_zoo import coloured, contract, scene
from tests.infer.zoo import classes_bundle

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def labelled(planes: int, marks: dict[int, dict[int, int]]) -> Group:
    """A label map of so many planes; `marks`: pixels by plane and label."""
    label_map = np.zeros((planes, 20, 30), dtype=np.uint8)
    for plane, by_label in marks.items():
        start = 0
        for label, count in by_label.items():
            label_map[plane].flat[start : start + count] = label
            start += count
    return Group(source=tuple(f"1.2.{n}" for n in range(planes)), label_map=label_map)


def region(image: str, probability: float | None, frame: int | None = None) -> Region:
    points = ((1.0, 1.0), (4.0, 4.0))
    return Region(f"{image}-{frame}", "Nodule", ANATOMY, LUNG, image, Shape.BOX, points, frame, probability=probability)


# --- which planes


def test_only_planes_with_a_mark_are_drawn_and_the_smallest_thing_comes_first() -> None:
    marks = {n: {1: 50} for n in range(10, 16)} | {12: {1: 40, 2: 3}, 13: {1: 90, 2: 5}, 14: {1: 60, 2: 1}}
    assert chosen(labelled(30, marks), 30) == (13, 10, 11, 12, 14, 15)


def test_many_marked_planes_are_drawn_evenly_and_the_small_lesion_is_among_them() -> None:
    marks: dict[int, dict[int, int]] = {n: {1: 20 + n} for n in range(20, 380)}
    marks[201] = {1: 20, 2: 4}
    planes = chosen(labelled(400, marks), 400)
    assert len(planes) == MOST_PICTURES == len(set(planes))
    assert planes[0] == 201
    others = list(planes[1:])
    assert others == sorted(others) and min(planes) == 20 and max(planes) >= 378
    assert max(np.diff(sorted(planes))) <= 12


def test_the_most_probable_region_comes_first_and_every_region_is_drawn() -> None:
    group = replace(labelled(30, {5: {1: 9}}), regions=(region("1.2.7", 0.4), region("1.2.21", 0.9)))
    assert chosen(group, 30) == (21, 5, 7)
    enhanced_group = replace(group, source=("1.2",), frames=(3, 2, 1), label_map=None, regions=(region("1.2", 0.5, 3),))
    assert chosen(enhanced_group, 3) == (0,)
    clip = replace(enhanced_group, frames=())
    assert chosen(clip, 3) == (2,)


def test_a_region_is_drawn_on_every_slice_that_it_passes_through_the_middle_one_first() -> None:
    box = replace(region("1.2.7", 0.9), also=(("1.2.6", None), ("1.2.8", None)))
    assert chosen(replace(labelled(30, {}), regions=(box,)), 30) == (7, 6, 8)
    through = tuple((f"1.2.{n}", None) for n in range(100) if n != 50)
    planes = chosen(replace(labelled(100, {}), regions=(replace(region("1.2.50", 0.9), also=through),)), 100)
    assert planes[0] == 50 and len(planes) == MOST_PICTURES == len(set(planes))


def test_where_nothing_is_marked_it_is_the_middle_or_what_was_asked_for() -> None:
    nothing = labelled(31, {})
    assert chosen(nothing, 31) == (15,)
    assert chosen(nothing, 31, (7, 3, 7)) == (7, 3)


# --- how they look


def test_the_window_of_the_source_is_that_of_the_picture(tmp_path: Path) -> None:
    real = np.linspace(-1000, 1000, 64 * 64, dtype=np.float32).reshape(64, 64)
    assert drawn(real, Look("CT", "CHEST", (50.0, 400.0))) == (-150.0, 250.0)
    assert drawn(real, Look("CT", "CHEST")) == (-1250.0, 250.0)
    assert drawn(real, Look("CT", "HEAD", None)) == (0.0, 80.0)
    assert drawn(real, Look("CT", "KIDNEY")) == (-160.0, 240.0)
    low, high = drawn(real, Look("MR", "HEAD"))
    assert (low, high) == pytest.approx((-990, 990), abs=5)
    assert drawn(real, Look("CT", "HEAD", (9000.0, 10.0))) == (0.0, 80.0)  # nothing to be seen in that one
    assert drawn(np.zeros((32, 32), np.float32), Look("CT", "HEAD", (40.0, 80.0))) == (0.0, 1.0)
    folder = classic(tmp_path, IDENTITY, WindowCenter=[40, 300], WindowWidth=[400, 2000])
    assert read_volume(folder).looks[0] == Look("CT", "", (40.0, 400.0))


@pytest.mark.parametrize("bad", [{"WindowWidth": 0}, {"WindowCenter": "x"}, {"WindowWidth": []}, {}])
def test_a_window_that_is_none_is_left_out(bad: dict[str, Any]) -> None:
    attributes = {"WindowCenter": 40, "Modality": "CT"} | bad
    assert read_look(attributes.get).window is None


def test_an_enhanced_object_keeps_the_window_of_its_frames(tmp_path: Path) -> None:
    path = enhanced(tmp_path / "one.dcm", IDENTITY)
    dataset = pydicom.dcmread(path)
    for number, item in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        voi = pydicom.Dataset()
        voi.WindowCenter, voi.WindowWidth = 40 + number, 400
        item.FrameVOILUTSequence = [voi]
    saved(dataset, path)
    volume = read_volume([path])
    assert [look.window for look in volume.looks] == [(40.0 + n, 400.0) for n in range(8)]
    group = of_volume(Group(source=volume.source, frames=volume.frames), volume)
    assert group.pictures is not None and group.pictures.planes == (4,)


def test_pictures_of_a_volume_are_the_marked_slices_on_their_grid(tmp_path: Path) -> None:
    volume = read_volume(classic(tmp_path, IDENTITY))
    label_map = np.zeros(volume.intensity.shape, np.uint8)
    label_map[2:5, 10:20, 10:20] = 1
    group = of_volume(Group(source=volume.source, label_map=label_map), volume)
    assert group.pictures is not None
    assert group.pictures.planes == (2, 3, 4) and group.pictures.pixels.shape == (3, 32, 40)
    assert group.spacing_mm == (0.75, 0.5)
    bright = np.argwhere(group.pictures.pixels == 255)
    assert [tuple(one) for one in bright] == [(1, 17, 22)]  # slice 3 of the volume


def test_a_large_picture_is_reduced_and_remembers_its_size() -> None:
    wide = np.zeros((1000, 4096), np.uint8)
    assert shown.reduced(wide).shape == (250, 1024)
    assert shown.reduced(np.zeros((50, 60, 3), np.uint8)).shape == (50, 60, 3)


def test_pictures_survive_the_folder_between_inference_and_encoding(tmp_path: Path) -> None:
    volume = read_volume(classic(tmp_path / "in", IDENTITY))
    group = of_volume(Group(source=volume.source), volume)
    stored.save(Findings(CHEST, (group, Group(source=("1.2",)))), tmp_path / "run")
    back, empty = stored.load(tmp_path / "run").groups
    assert back.pictures is not None and group.pictures is not None
    assert np.array_equal(back.pictures.pixels, group.pictures.pixels)
    assert (back.pictures.planes, back.pictures.size, back.spacing_mm) == ((4,), (32, 40), (0.75, 0.5))
    assert (empty.pictures, empty.spacing_mm) == (None, None)
    assert stored.load(tmp_path / "run", with_arrays=False).groups[0].pictures is None


# --- colour and clips


def test_a_coloured_picture_stays_coloured(tmp_path: Path) -> None:
    pixels = scene(3)
    (group,) = found_in(classes_bundle(tmp_path / "models", **contract(0.0)), saved(coloured(pixels), tmp_path / "a"))
    assert group.picture is not None and np.array_equal(group.picture, pixels)


def test_a_clip_is_drawn_where_its_class_is_most_probable(tmp_path: Path) -> None:
    folder = classes_bundle(tmp_path / "models", input="multi-frame", **contract(0.0))
    frames = np.stack([scene(n) for n in range(5)])
    (group,) = found_in(folder, saved(coloured(frames), tmp_path / "clip.dcm"))
    assert group.pictures is not None
    (plane,) = group.pictures.planes
    assert group.evaluations[0].comment == f"Highest on frame {plane + 1}."
    assert np.array_equal(group.pictures.pixels[0], frames[plane])


def test_marked_frames_of_a_clip_are_drawn_however_few_are_held_at_once(tmp_path: Path) -> None:
    path = clip_of(tmp_path, 10)
    group = replace(labelled(10, {2: {1: 3}, 7: {1: 9}, 8: {1: 4}}), source=("1.2",))
    group = replace(group, label_map=np.zeros((10, 40, 60), np.uint8))
    assert group.label_map is not None
    group.label_map[[2, 7, 8], 5, 5] = 1
    group.label_map[7, 6:9, 5] = 1
    whole = of_clip(group, path).pictures
    single = of_clip(group, path, held_bytes=1).pictures
    assert whole is not None and single is not None
    assert whole.planes == single.planes == (7, 2, 8)
    assert np.array_equal(whole.pixels, single.pixels)
    assert whole.pixels[1].mean() < whole.pixels[0].mean() < whole.pixels[2].mean()
    assert np.abs(whole.pixels[0][20].astype(int) - np.linspace(0, 204, 60)).max() < 12  # the clip has 20 grey values


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data of ../shared, which is not here")
def test_a_real_mr_is_drawn_in_its_own_window() -> None:
    files = list((SHARED / "prostate" / "prostatex_dicom").rglob("*.dcm"))
    series = [f for f in files if pydicom.dcmread(f, stop_before_pixels=True).SeriesDescription == "t2_tse_tra"]
    study = pydicom.dcmread(series[0], stop_before_pixels=True).StudyInstanceUID
    volume = read_volume([f for f in series if pydicom.dcmread(f, stop_before_pixels=True).StudyInstanceUID == study])
    group = of_volume(Group(source=volume.source), volume)
    assert group.pictures is not None
    (plane,) = group.pictures.planes
    window = volume.looks[plane].window
    assert window is not None
    expected = np.clip((volume.intensity[plane] - window[0]) / window[1] + 0.5, 0, 1) * 255
    assert np.abs(group.pictures.pixels[0] - expected).max() <= 1
