"""Every form of a SEG, read back by two readers; overlaps; clips; what is refused; what is no object."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from pacsnode import findings_files as stored
from pacsnode.encode.seg import DESCRIPTION, OVERLAP_DESCRIPTION
from pacsnode.errors import Permanent
from pacsnode.findings import Findings
from pacsnode.handover import SegmentationForm
from tests.encode.cases import CHEST, CR, errors_of_dciodvfy, read
from tests.encode.segmentations import (
    READERS,
    Masks,
    by_bits,
    by_highdicom,
    clip,
    ct_series,
    encoded,
    group_of,
    segments,
)
from tests.infer.bundles import saved_image
from tests.infer.phantoms import IDENTITY, enhanced

FORMS: tuple[SegmentationForm, ...] = ("binary", "labelmap", "fractional")
SOP_CLASSES = {
    "binary": "1.2.840.10008.5.1.4.1.1.66.4",
    "labelmap": "1.2.840.10008.5.1.4.1.1.66.7",
    "fractional": "1.2.840.10008.5.1.4.1.1.66.4",
}


def masks_of(shape: tuple[int, int, int], *, overlapping: bool = False) -> Masks:
    """Three segments: one on every plane but the second, one on the third plane, one nowhere."""
    _, rows, columns = shape
    found = np.zeros((3, *shape), dtype=np.bool_)
    found[0, :, 1 : rows // 2, 2:] = True
    found[0, 1:2] = False
    found[1, 2:3, rows // 2 :, : columns // 2] = True
    if overlapping:
        found[1, 2:3, 2:, : columns // 2 + 2] = True
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("overlapping", [False, True], ids=["exclusive", "overlapping"])
def test_every_form_of_a_series_reads_back_as_it_was_found(
    form: SegmentationForm, overlapping: bool, tmp_path: Path
) -> None:
    masks = masks_of((5, 13, 11), overlapping=overlapping)  # 143 pixels: frames do not end with a byte
    files = ct_series(tmp_path / "in", *masks.shape[1:])
    results = encoded(tmp_path / "out", files, group_of(files, masks), form)
    for reader in READERS:
        np.testing.assert_array_equal(reader(results[0].path, files, masks.shape), masks)
    dataset = read(results, "seg")
    is_binary_instead = form == "labelmap" and overlapping
    assert results[0].sop_class_uid == dataset.SOPClassUID == SOP_CLASSES["binary" if is_binary_instead else form]
    assert dataset.SegmentationType == ("BINARY" if is_binary_instead else form.upper())
    assert dataset.SegmentsOverlap == ("YES" if overlapping else "NO")
    assert dataset.ContentDescription == (OVERLAP_DESCRIPTION if is_binary_instead else DESCRIPTION)
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert (dataset.Rows, dataset.Columns, dataset.NumberOfFrames) == (
        13,
        11,
        4 if dataset.SOPClassUID[-1] == "7" else 5,
    )
    if dataset.SOPClassUID[-1] == "4":  # dciodvfy of 2022 does not know a LABELMAP
        assert errors_of_dciodvfy(results[0].path) == []


def test_a_fractional_seg_says_that_all_or_nothing_is_occupancy(tmp_path: Path) -> None:
    masks = masks_of((5, 13, 11))
    files = ct_series(tmp_path / "in", *masks.shape[1:])
    dataset = read(encoded(tmp_path / "out", files, group_of(files, masks), "fractional"), "seg")
    assert (dataset.SegmentationFractionalType, dataset.MaximumFractionalValue) == ("OCCUPANCY", 255)
    assert set(np.unique(np.frombuffer(dataset.PixelData, dtype=np.uint8))) == {0, 255}


def test_a_fractional_seg_has_the_probabilities_where_they_are_kept(tmp_path: Path) -> None:
    masks = masks_of((5, 13, 11))
    rng = np.random.default_rng(2)
    sure = np.where(masks, rng.integers(128, 256, masks.shape), rng.integers(0, 128, masks.shape)).astype(np.uint8)
    sure[0, 1] = 0
    files = ct_series(tmp_path / "in", *masks.shape[1:])
    group = group_of(files, masks, probabilities=sure)
    (result, _) = encoded(tmp_path / "out", files, group, "fractional")
    expected = sure / 255
    expected[2] = 0  # of the third segment no pixel reached a half: it is none that was found
    for reader in READERS:
        np.testing.assert_allclose(reader(result.path, files, masks.shape), expected, atol=1e-6)
    dataset = pydicom.dcmread(result.path)
    assert (dataset.SegmentationFractionalType, dataset.SegmentsOverlap) == ("PROBABILITY", "UNDEFINED")
    assert errors_of_dciodvfy(result.path) == []
    (plain, _) = encoded(tmp_path / "binary", files, group)
    for reader in READERS:
        np.testing.assert_array_equal(reader(plain.path, files, masks.shape), masks)


def test_each_form_has_a_name_and_uids_of_its_own(tmp_path: Path) -> None:
    masks = masks_of((5, 13, 11))
    files = ct_series(tmp_path / "in", *masks.shape[1:])
    made = [encoded(tmp_path / "out", files, group_of(files, masks), form)[0] for form in FORMS]
    assert [one.path.name for one in made] == ["seg-1.dcm", "seg-1-labelmap.dcm", "seg-1-fractional.dcm"]
    assert len({one.sop_instance_uid for one in made}) == len({one.series_instance_uid for one in made}) == 3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("overlapping", [False, True], ids=["exclusive", "overlapping"])
def test_a_seg_of_a_clip_names_the_frames_that_it_was_found_on(
    form: SegmentationForm, overlapping: bool, tmp_path: Path
) -> None:
    masks = masks_of((6, 9, 7), overlapping=overlapping)
    file = clip(tmp_path / "in", *masks.shape[1:])
    results = encoded(tmp_path / "out", [file], group_of([file], masks), form)
    for reader in READERS:
        np.testing.assert_array_equal(reader(results[0].path, [file], masks.shape), masks)
    times = {}
    for own in read(results, "seg").PerFrameFunctionalGroupsSequence:
        (source,) = own.DerivationImageSequence[0].SourceImageSequence
        times[int(source.ReferencedFrameNumber)] = int(own.FrameContentSequence[0].TemporalPositionIndex)
    assert times == {1: 1, 3: 2, 4: 3, 5: 4, 6: 5}
    if read(results, "seg").SOPClassUID[-1] == "4":
        assert errors_of_dciodvfy(results[0].path) == []


def test_a_clip_or_radiograph_with_a_spacing_can_be_read_back(tmp_path: Path) -> None:
    """highdicom writes a spacing without a slice thickness, and then does not read it: the spacing is the source's."""
    masks = masks_of((4, 9, 7))
    spaced = clip(tmp_path / "in", 4, 9, 7, PixelSpacing=[0.2, 0.3])
    film = saved_image(tmp_path, np.zeros((9, 7), dtype=np.uint16), PixelSpacing=[0.14, 0.14])
    for file, found in ((spaced, masks), (film, masks[:, :1])):
        results = encoded(tmp_path / "out", [file], group_of([file], found))
        for reader in READERS:
            np.testing.assert_array_equal(reader(results[0].path, [file], found.shape), found)
        assert "PixelMeasuresSequence" not in read(results, "seg").SharedFunctionalGroupsSequence[0]
        assert errors_of_dciodvfy(results[0].path) == []


def test_some_frames_of_a_clip_in_another_order_are_the_right_ones(tmp_path: Path) -> None:
    file = clip(tmp_path / "in", 9, 9, 7)
    masks = masks_of((3, 9, 7))
    masks[0, 1, 3, 3] = True
    (result, _) = encoded(tmp_path / "out", [file], group_of([file], masks, frames=(7, 2, 4)))
    expected = np.zeros((3, 9, 9, 7))
    expected[:, [6, 1, 3]] = masks
    for reader in READERS:
        np.testing.assert_array_equal(reader(result.path, [file], expected.shape), expected)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_enhanced_object_reads_back(form: SegmentationForm, tmp_path: Path) -> None:
    planes, rows, columns = IDENTITY.shape
    file = enhanced(tmp_path / "in.dcm", IDENTITY, [5, 0, 7, 3, 1, 6, 2, 4])
    masks = masks_of((planes, rows, columns))
    for group in (group_of([file], masks), group_of([file], masks, frames=tuple(range(1, planes + 1)))):
        (result, _) = encoded(tmp_path / f"out-{len(group.frames)}", [file], group, form)
        for reader in READERS:
            np.testing.assert_array_equal(reader(result.path, [file], masks.shape), masks)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_single_image_reads_back(form: SegmentationForm, tmp_path: Path) -> None:
    header = pydicom.dcmread(CR, stop_before_pixels=True)
    shape = (1, int(header.Rows), int(header.Columns))
    masks = np.zeros((2, *shape), dtype=np.bool_)
    masks[0, 0, 100:900, 50:700], masks[1, 0, 500:1200, 900:1500] = True, True
    (result, _) = encoded(tmp_path, [CR], group_of([CR], masks), form)
    for reader in READERS:
        np.testing.assert_array_equal(reader(result.path, [CR], masks.shape), masks)
    if form != "labelmap":
        assert errors_of_dciodvfy(result.path) == []


@pytest.mark.parametrize("planes", [1, 5])
def test_slices_without_a_thickness_have_their_seg(planes: int, tmp_path: Path) -> None:
    masks = masks_of((planes, 13, 11))
    for thickness in (3, "", None):
        files = ct_series(tmp_path / f"{thickness}", planes, 13, 11, SliceThickness=thickness)
        (result, _) = encoded(tmp_path / f"{thickness}-out", files, group_of(files, masks))
        for reader in READERS:
            np.testing.assert_array_equal(reader(result.path, files, masks.shape), masks)
        measures = pydicom.dcmread(result.path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert measures.SliceThickness == (thickness or measures.SpacingBetweenSlices)
        assert errors_of_dciodvfy(result.path) == []


def test_the_headers_of_the_sources_stay_as_they_are(tmp_path: Path) -> None:
    """The report, which is made after the SEG, still finds the true size of the image."""
    masks = masks_of((5, 13, 11))
    files = ct_series(tmp_path / "in", *masks.shape[1:])
    report = read(encoded(tmp_path / "out", files, group_of(files, masks)), "sr")
    sizes = {
        str(item.ConceptNameCodeSequence[0].CodeMeaning): int(item.MeasuredValueSequence[0].NumericValue)
        for item in _items(report)
        if item.ValueType == "NUM"
    }
    assert sizes == {"Pixel Data Rows": 13, "Pixel Data Columns": 11}


def _items(dataset: pydicom.Dataset) -> list[pydicom.Dataset]:
    below = list(dataset.get("ContentSequence", []))
    return below + [one for item in below for one in _items(item)]


# --- nothing found


def test_nothing_found_where_that_is_an_answer_is_said_in_the_report_and_is_no_seg(tmp_path: Path) -> None:
    masks = np.zeros((2, 5, 13, 11), dtype=np.bool_)
    files = ct_series(tmp_path / "in", *masks.shape[1:])
    group = group_of(files, masks, segments=segments(2, may_be_absent=True))
    results = encoded(tmp_path / "out", files, group)
    assert [one.kind for one in results] == ["sr"]
    texts = [str(item.TextValue) for item in _items(read(results, "sr")) if item.ValueType == "TEXT"]
    assert {"Nothing found of: Lesion 1", "Nothing found of: Lesion 2"} <= set(texts)
    assert errors_of_dciodvfy(results[0].path) == []


def test_nothing_found_where_something_must_be_is_refused(tmp_path: Path) -> None:
    masks = np.zeros((2, 5, 13, 11), dtype=np.bool_)
    files = ct_series(tmp_path / "in", *masks.shape[1:])
    one, other = segments(2, may_be_absent=True)
    group = group_of(files, masks, segments=(one, replace(other, may_be_absent=False)))
    with pytest.raises(Permanent, match="empty: the analysis marked nothing"):
        encoded(tmp_path / "out", files, group)


# --- refused


def floats(label_map: NDArray[np.uint8]) -> Any:
    """Whole numbers, but no integers."""
    return label_map.astype(np.float32)


def test_maps_that_are_no_label_maps_of_this_source_are_refused(tmp_path: Path) -> None:
    masks = masks_of((5, 13, 11), overlapping=True)
    files = ct_series(tmp_path / "in", *masks.shape[1:])
    group = group_of(files, masks)
    assert group.label_map is not None
    first, second, third = group.maps
    refusals = {
        "has shape (4, 13, 11), its source (5, 13, 11)": replace(group, overlaid=(second[:4], third)),
        "has type float32": replace(group, overlaid=(second, floats(third))),
        "has type int64": replace(group, label_map=first.astype(np.int64)),
        "values without a segment: [9]": replace(group, overlaid=(np.where(second, 9, 0).astype(np.uint8),)),
        "the probabilities have shape (2, 5, 13, 11)": replace(group, probabilities=np.zeros((2, 5, 13, 11), np.uint8)),
    }
    for reason, wrong in refusals.items():
        with pytest.raises(Permanent) as caught:
            encoded(tmp_path / "out", files, wrong)
        assert reason in str(caught.value)
    assert not list((tmp_path / "out").glob("*.dcm"))


def test_a_frame_that_a_clip_does_not_have_is_refused(tmp_path: Path) -> None:
    file = clip(tmp_path / "in", 4, 9, 7)
    for frames in ((1, 2, 5), (0, 1, 2)):
        with pytest.raises(Permanent, match="name a frame"):
            encoded(tmp_path / "out", [file], group_of([file], masks_of((3, 9, 7)), frames=frames))


# --- the record on disk


def test_overlaps_and_probabilities_survive_the_disk(tmp_path: Path) -> None:
    masks = masks_of((5, 13, 11), overlapping=True)
    files = ct_series(tmp_path / "in", *masks.shape[1:])
    group = group_of(files, masks, probabilities=(masks * np.uint8(200)).astype(np.uint8))
    stored.save(Findings(CHEST, (group,)), tmp_path / "findings")
    (back,) = stored.load(tmp_path / "findings").groups
    assert len(back.maps) == 3
    assert all(np.array_equal(one, other) for one, other in zip(back.maps, group.maps, strict=True))
    assert back.probabilities is not None and np.array_equal(back.probabilities, masks * 200)
    assert np.array_equal(back.mask(1, 2), masks[0] | masks[1])
    (bare,) = stored.load(tmp_path / "findings", with_arrays=False).groups
    assert bare.maps == () and bare.probabilities is None


def test_the_two_readers_of_these_tests_see_a_moved_pixel(tmp_path: Path) -> None:
    masks = masks_of((5, 13, 11))
    files = ct_series(tmp_path / "in", *masks.shape[1:])
    (result, _) = encoded(tmp_path / "out", files, group_of(files, np.roll(masks, 1, axis=3)))
    assert not any(np.array_equal(reader(result.path, files, masks.shape), masks) for reader in (by_bits, by_highdicom))
