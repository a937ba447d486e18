"""Captures of volumes and clips, read back: which frames, where the marks lie, the scale, and what the pixels say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from pacsnode.encode.build import encode
from pacsnode.encode.drawing import AMBER, BANNER_HEIGHT
from pacsnode.encode.marking import View, drawn_size, marked, regions_in
from pacsnode.encode.overlay import STACKED, heading, image_page, pages
from pacsnode.findings import Findings, Group, Presence, Region, Segment, Shape
from pacsnode.infer.shown import of_clip, of_volume
from pacsnode.infer.volume import read_volume
from tests.encode.cases import ANATOMY, CHEST, LUNG, errors_of_dciodvfy, read, request
from tests.infer.bundles import saved
from tests.infer.phantoms import IDENTITY, PHANTOMS, Phantom, classic, enhanced
from tests.infer.test_forms import clip_of
from tests.infer.test_zoo import coloured, scene

MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.4"
SINGLE = "1.2.840.10008.5.1.4.1.1.7"
GREEN = (90, 220, 120)
SEGMENT = Segment(1, "Lung 폐", ANATOMY, LUNG, None, GREEN)
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def volume_group(files: list[Path], *planes: int) -> Group:
    """A square of one segment around the marked voxel, in these slices."""
    volume = read_volume(files)
    label_map = np.zeros(volume.intensity.shape, np.uint8)
    for n, plane in enumerate(planes):
        label_map[plane, 17 - n : 21, 22:26] = 1
    group = Group(volume.source, segments=(SEGMENT,), label_map=label_map, notes=volume.notes, frames=volume.frames)
    return of_volume(group, volume)


def is_green(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((pixels == np.array(GREEN, np.uint8)).all(axis=-1))


def picture_of(page: NDArray[np.uint8], group: Group) -> NDArray[np.uint8]:
    """The part of a page that shows the image."""
    assert group.pictures is not None
    width, height = drawn_size(group, View(group.pictures.pixels[0], group.pictures.size), STACKED.box)
    room, rest = page.shape[1] - STACKED.panel_width, page.shape[0] - BANNER_HEIGHT
    left, top = (room - width) // 2, 30 + (rest - 60 - height) // 2
    return page[top : top + height, left : left + width]


def test_the_capture_of_a_volume_has_a_frame_for_each_marked_slice(tmp_path: Path) -> None:
    files = classic(tmp_path / "in", IDENTITY)
    group = volume_group(files, 2, 3, 5)
    results = encode(Findings(CHEST, (group,)), request(tmp_path / "out", *files, results=("sc",)))
    dataset = read(results, "sc")
    assert (dataset.SOPClassUID, dataset.NumberOfFrames) == (MULTI_FRAME, 3)
    assert results[0].sop_class_uid == dataset.file_meta.MediaStorageSOPClassUID == MULTI_FRAME
    assert (dataset.FrameIncrementPointer, list(dataset.PageNumberVector)) == (0x00182001, [1, 2, 3])
    assert (dataset.BurnedInAnnotation, dataset.ConversionType) == ("YES", "WSD")
    assert "unverified" in dataset.DerivationDescription and "PixelSpacing" not in dataset
    assert errors_of_dciodvfy(results[0].path) == []
    frames = dataset.pixel_array
    assert all(tuple(frame[-3, 3]) == AMBER for frame in frames)
    referred = [item.ReferencedSOPInstanceUID for item in dataset.SourceImageSequence]
    assert referred == [group.source[plane] for plane in (5, 2, 3)]  # most is marked in slice 5


def test_the_key_slice_comes_first(tmp_path: Path) -> None:
    group = volume_group(classic(tmp_path, IDENTITY), 6, 2, 4)
    assert group.pictures is not None and group.pictures.planes == (4, 2, 6)


@pytest.mark.parametrize("name", ["axial", "sagittal", "tilted"])
def test_a_mark_lies_on_its_pixel_in_its_frame(name: str, tmp_path: Path) -> None:
    files = classic(tmp_path / "in", PHANTOMS[name])
    group = volume_group(files, 3)
    assert group.label_map is not None
    group.label_map[:] = 0
    group.label_map[PHANTOMS[name].marked] = 1
    group.label_map[6, 1, 1] = 1
    group = of_volume(group, read_volume(files))
    frames = read(encode(Findings(CHEST, (group,)), request(tmp_path / "out", *files, results=("sc",))), "sc")
    assert group.pictures is not None
    for plane, (row, column) in ((3, (17, 22)), (6, (1, 1))):
        picture = picture_of(frames.pixel_array[group.pictures.planes.index(plane)], group)
        rows, columns = np.nonzero(is_green(picture))
        height, width = picture.shape[0] / 32, picture.shape[1] / 40
        assert width / height == pytest.approx(0.5 / 0.75, rel=0.02)  # as in the patient, not as in the matrix
        assert rows.min() >= row * height - 1 and rows.max() <= (row + 1) * height + 1
        assert columns.min() >= column * width - 1 and columns.max() <= (column + 1) * width + 1


def test_nothing_is_changed_outside_of_the_marks(tmp_path: Path) -> None:
    group = volume_group(classic(tmp_path, IDENTITY), 3)
    assert group.pictures is not None and group.label_map is not None
    view = View(group.pictures.pixels[0], (32, 40), 3)
    size = drawn_size(group, view, (400, 400))
    with_marks = np.asarray(marked(group, view, size))
    without = np.asarray(marked(replace(group, label_map=None), view, size))
    changed = (with_marks != without).any(axis=2)
    rows, columns = np.nonzero(changed)
    found = [float(n) for n in (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)]
    scales = [size[1] / 32] * 2 + [size[0] / 40] * 2
    assert found == pytest.approx([n * scale for n, scale in zip((17, 21, 22, 26), scales, strict=True)], abs=1)
    assert (without.max(axis=2) == without.min(axis=2)).all()


def test_a_lesion_in_an_organ_has_one_outline_and_it_is_its_own() -> None:
    label_map = np.zeros((1, 60, 60), np.uint8)
    label_map[0, 10:50, 10:50] = 1
    label_map[0, 25:35, 25:35] = 2
    red = (255, 90, 80)
    segments = (SEGMENT, Segment(2, "Lesion", ANATOMY, LUNG, None, red))
    group = Group(("1.2",), segments=segments, label_map=label_map)
    drawn = np.asarray(marked(group, View(np.full((60, 60), 80, np.uint8), (60, 60)), (60, 60)))
    rows, _ = np.nonzero(is_green(drawn))
    assert set(rows[(rows > 15) & (rows < 45)]) and not is_green(drawn[20:40, 20:40]).any()
    assert tuple(drawn[25, 30]) == red and tuple(drawn[30, 25]) == red


def scale_bar(page: NDArray[np.uint8]) -> int:
    """Pixels of the longest white line below the picture; 0 where there is none."""
    strip = page[-BANNER_HEIGHT - 60 : -BANNER_HEIGHT, : page.shape[1] - STACKED.panel_width]
    runs = "".join("x" if white else " " for row in (strip == 255).all(axis=2) for white in (*row, False)).split()
    return max(map(len, runs), default=0)


def test_the_scale_bar_has_the_length_that_it_says() -> None:
    picture = np.zeros((100, 200), np.uint8)
    group = Group(("1.2",), spacing_mm=(1.0, 0.5))
    view = View(picture, (100, 200), 0, "Image 1")
    (page,) = pages(group, [view], heading(CHEST))
    width, _ = drawn_size(group, view, STACKED.box)
    # 200 pixels of 0.5 mm are 100 mm; at most 30 of them are the bar: 20 mm
    assert scale_bar(page) == pytest.approx(width * 20 / 100, abs=3)
    (without,) = pages(replace(group, spacing_mm=None), [view], heading(CHEST))
    assert scale_bar(without) < 20


@pytest.mark.parametrize("name", ["axial", "sagittal", "coronal"])
def test_a_frame_says_which_image_it_shows_and_where_it_lies(name: str, tmp_path: Path) -> None:
    from pacsnode.encode.build import _origin
    from pacsnode.encode.captions import captions

    phantom: Phantom = replace(PHANTOMS[name], origin_mm=(-12.5, -33.25, 83.5))
    files = classic(tmp_path / "in", phantom)
    group = volume_group(files, 3)
    origin = _origin(Findings(CHEST, (group,)), request(tmp_path / "out", *files))
    (marked_one, empty) = captions(group, (3, 0), origin)
    number = pydicom.dcmread(
        next(f for f in files if pydicom.dcmread(f).SOPInstanceUID == group.source[3]), stop_before_pixels=True
    ).InstanceNumber
    middle = phantom.position_mm(3, 15.5, 19.5)
    axis = {"axial": 2, "sagittal": 0, "coronal": 1}[name]
    letter = (("R", "L"), ("A", "P"), ("I", "S"))[axis][int(middle[axis] >= 0)]
    assert marked_one == f"Image {number}, {letter} {abs(middle[axis]):.1f} mm: Lung 폐"
    assert empty.endswith(": nothing marked")


def test_an_enhanced_object_is_named_by_its_frames(tmp_path: Path) -> None:
    path = enhanced(tmp_path / "in" / "one.dcm", IDENTITY, (5, 0, 7, 3, 1, 6, 2, 4))
    group = volume_group([path], 2, 3)
    results = encode(Findings(CHEST, (group,)), request(tmp_path / "out", path, results=("sc",)))
    dataset = read(results, "sc")
    assert errors_of_dciodvfy(results[0].path) == []
    (item,) = dataset.SourceImageSequence
    assert item.ReferencedSOPInstanceUID == group.source[0]
    assert list(item.ReferencedFrameNumber) == [4, 7]  # slice 3 is frame 4, slice 2 is frame 7


def test_a_volume_without_a_mark_is_a_single_frame_of_its_middle(tmp_path: Path) -> None:
    files = classic(tmp_path / "in", IDENTITY)
    volume = read_volume(files)
    group = of_volume(Group(volume.source), volume)
    results = encode(Findings(CHEST, (group,)), request(tmp_path / "out", *files, results=("sc",)))
    dataset = read(results, "sc")
    assert dataset.SOPClassUID == SINGLE and "NumberOfFrames" not in dataset
    assert [i.ReferencedSOPInstanceUID for i in dataset.SourceImageSequence] == [volume.source[4]]
    assert errors_of_dciodvfy(results[0].path) == []


def test_a_clip_is_captured_with_its_marked_frames(tmp_path: Path) -> None:
    path = clip_of(tmp_path, 10)
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    saved(dataset, path)
    label_map = np.zeros((10, 40, 60), np.uint8)
    label_map[[2, 7], 20:30, 30:40] = 1
    label_map[7, 30, 30:40] = 1
    uid = str(pydicom.dcmread(path).SOPInstanceUID)
    group = of_clip(Group((uid,), segments=(SEGMENT,), label_map=label_map), path)
    results = encode(Findings(CHEST, (group,)), request(tmp_path / "out", path, results=("sc",)))
    dataset = read(results, "sc")
    assert dataset.NumberOfFrames == 2
    assert list(dataset.SourceImageSequence[0].ReferencedFrameNumber) == [8, 3]
    assert all(is_green(picture_of(frame, group)).any() for frame in dataset.pixel_array)
    assert errors_of_dciodvfy(results[0].path) == []


def test_a_coloured_clip_is_captured_in_colour(tmp_path: Path) -> None:
    frames = np.stack([scene(n) for n in range(3)])
    path = saved(coloured(frames), tmp_path / "clip.dcm")
    uid = str(pydicom.dcmread(path).SOPInstanceUID)
    label_map = np.zeros((3, 80, 120), np.uint8)
    label_map[:2, 5:9, 5:9] = 1
    group = of_clip(Group((uid,), segments=(SEGMENT,), label_map=label_map), path)
    results = encode(Findings(CHEST, (group,)), request(tmp_path / "out", path, results=("sc",)))
    pixels = read(results, "sc").pixel_array
    shown = picture_of(pixels[1], group)
    height, width = shown.shape[:2]
    there = shown[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2].mean(axis=(0, 1))
    assert np.abs(there - frames[1][39:41, 59:61].mean(axis=(0, 1))).max() < 12


def test_forty_large_pictures_stay_below_a_hundred_megabytes(tmp_path: Path) -> None:
    from pacsnode.pictured import Pictures

    label_map = np.ones((40, 512, 512), np.uint8)
    group = Group(("1.2",), segments=(SEGMENT,), label_map=label_map, spacing_mm=(0.7, 0.7))
    shown = Pictures(tuple(range(40)), np.zeros((40, 512, 512), np.uint8), (512, 512))
    views = [View(p, shown.size, n, f"Image {n}") for n, p in enumerate(shown.pixels)]
    sizes = {page.shape for page in pages(group, views, heading(CHEST))}
    assert len(sizes) == 1
    rows, columns, _ = next(iter(sizes))
    assert 40 * rows * columns * 3 < 100e6


# --- regions


def region(key: str, shape: Shape, *points: tuple[float, float], probability: float | None = None) -> Region:
    return Region(key, "Polyp 용종", ANATOMY, LUNG, "1.2", shape, points, probability=probability)


SHAPES = {
    Shape.BOX: ((20.0, 30.0), (60.0, 50.0)),
    Shape.POLYGON: ((20.0, 30.0), (60.0, 30.0), (60.0, 50.0)),
    Shape.POLYLINE: ((20.0, 30.0), (60.0, 50.0)),
    Shape.CIRCLE: ((40.0, 40.0), (50.0, 40.0)),
    Shape.ELLIPSE: ((20.0, 40.0), (60.0, 40.0), (40.0, 30.0), (40.0, 50.0)),
    Shape.POINT: ((40.0, 40.0),),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_region_is_drawn_where_it_lies(shape: Shape) -> None:
    one = region("a", shape, *SHAPES[shape], probability=0.93)
    group = Group(("1.2",), regions=(one,))
    drawn = np.asarray(marked(group, View(np.full((100, 120), 90, np.uint8), (100, 120)), (480, 400)))
    yellow = (drawn == np.array(one.color_rgb, np.uint8)).all(axis=2)
    yellow[: 30 * 4 - 8] = False  # the label above it
    rows, columns = np.nonzero(yellow)
    if shape == Shape.POINT:
        assert yellow[160, 168] and yellow[160, 152] and yellow[172, 160] and not yellow[158:163, 158:163].any()
        return
    left, right = (30, 50) if shape == Shape.CIRCLE else (20, 60)
    assert abs(columns.min() - left * 4) <= 3 and abs(columns.max() - right * 4) <= 3
    assert abs(rows.min() - 30 * 4) <= 3 and abs(rows.max() - 50 * 4) <= 3


def test_a_region_of_another_slice_is_not_drawn() -> None:
    there = replace(region("a", Shape.BOX, (2.0, 2.0), (9.0, 9.0)), image="1.3")
    group = Group(("1.2", "1.3"), regions=(there,))
    pictures = [np.asarray(marked(group, View(np.zeros((40, 40), np.uint8), (40, 40), n), (400, 400))) for n in (0, 1)]
    assert not pictures[0].any() and pictures[1].any()


def test_a_region_that_passes_through_several_slices_is_drawn_on_each_with_one_number(tmp_path: Path) -> None:
    files = classic(tmp_path / "in", IDENTITY)
    volume = read_volume(files)
    box = replace(region("a", Shape.BOX, (2.0, 2.0), (9.0, 9.0)), image=volume.source[3])
    box = replace(box, also=((volume.source[2], None), (volume.source[4], None)))
    group = of_volume(Group(volume.source, regions=(box,)), volume)
    assert group.pictures is not None and group.pictures.planes == (3, 2, 4)
    assert [[number for number, _ in regions_in(group, plane)] for plane in range(1, 6)] == [[], [1], [1], [1], []]
    results = encode(Findings(CHEST, (group,)), request(tmp_path / "out", *files, results=("sr", "sc", "pr")))
    assert read(results, "sc").NumberOfFrames == 3
    shown = {
        item.ReferencedImageSequence[0].ReferencedSOPInstanceUID
        for item in read(results, "pr").GraphicAnnotationSequence
        if "GraphicObjectSequence" in item
    }
    assert shown == {volume.source[n] for n in (2, 3, 4)}


def test_a_region_beyond_the_border_and_many_regions_stay_inside_the_picture() -> None:
    far = region("far", Shape.BOX, (-50.0, -50.0), (500.0, 500.0), probability=0.5)
    many = tuple(region(str(n), Shape.BOX, (n, n), (n + 9.0, n + 9.0), probability=n / 99) for n in range(90))
    picture = np.zeros((100, 120, 3), np.uint8)
    absent = replace(far, presence=Presence.ABSENT)
    page = image_page(Group(("1.2",), regions=(absent, *many)), picture, CHEST)
    assert page.shape[1] <= 1600 and page.shape[0] < 1400


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data of ../shared, which is not here")
def test_a_real_polyp_is_outlined_in_a_coloured_picture() -> None:
    from PIL import Image

    folder = SHARED / "colonoscopy" / "kvasir_seg"
    picture = np.asarray(Image.open(folder / "images" / "cju0qkwl35piu0993l0dewei2.jpg").convert("RGB"))
    mask = next((folder / "masks").glob("cju0qkwl35piu0993l0dewei2*"))
    label_map = (np.asarray(Image.open(mask).convert("L")) > 127).astype(np.uint8)[None]
    group = Group(("1.2",), segments=(SEGMENT,), label_map=label_map, picture=picture)
    page = image_page(group, picture, CHEST)
    shown = page[: page.shape[0] - BANNER_HEIGHT, : page.shape[1] - 460]
    rows, columns = np.nonzero(is_green(shown))
    expected_rows, expected_columns = np.nonzero(label_map[0])
    scale = shown.shape[1] / picture.shape[1]
    assert abs(rows.min() / scale - expected_rows.min()) < 2 and abs(rows.max() / scale - expected_rows.max()) < 2
    assert abs(columns.max() / scale - expected_columns.max()) < 2
    assert (shown.max(axis=2).astype(int) - shown.min(axis=2)).mean() > 20  # it is coloured
