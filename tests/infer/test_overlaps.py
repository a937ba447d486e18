"""Segments that overlap, and segments that are not there: from the network's answer to the SEG and the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from pacsnode import findings_files as stored
from pacsnode.encode.build import encode
from pacsnode.errors import Permanent
from pacsnode.findings import Findings, Group
from pacsnode.handover import Form, ResultObject
from pacsnode.infer.answers import overlaid
from pacsnode.infer.bundle import load_bundle
from pacsnode.infer.catalogue import load_service
from pacsnode.infer.groups import Layers
from pacsnode.infer.run import infer
from tests.encode.cases import CHEST, request
from tests.encode.segmentations import READERS
from tests.infer.bundles import AREA, VOLUME, gradient, network_bundle, saved_image, segment, workflow_bundle
from tests.infer.series import MARKED, SLICES, write_series
from tests.infer.test_forms import clip_of, end_with

WITHIN = "torch.cat([(pred[1:] > 0.2).float(), (pred[1:] > 0.6).float()])"
"""Two channels of yes and no: what is bright, and what is brighter within it."""
HEART = {"value": "80891009", "scheme": "SCT", "meaning": "Heart"}


def of_two(method: str = "area", name: dict[str, str] = AREA) -> list[dict[str, Any]]:
    """A number of each segment and one of both."""
    return [{"method": method, "of": of, "name": name, "derivation": str(of)} for of in ([1], [2], [1, 2])]


def through(folder: Path, out: Path, *files: Path) -> tuple[Group, tuple[ResultObject, ...]]:
    """The real way of a case: infer, the record on the disk, encode."""
    service = load_service(folder)
    found = infer(service, load_bundle(service, "cpu"), "cpu", files)
    stored.save(found, out / "findings")
    back = stored.load(out / "findings")
    (group,) = back.groups
    return group, encode(back, request(out, *files, results=("seg", "sr")))


def told(group: Group) -> dict[str, float]:
    return {one.derivation.partition(" On")[0]: one.value for one in group.measurements}


def test_a_segment_within_another_is_measured_and_encoded_whole(tmp_path: Path) -> None:
    folder = network_bundle(tmp_path / "models", segments=[segment(), segment(2, "Heart")], measurements=of_two())
    end_with(folder, WITHIN)
    film = saved_image(tmp_path, gradient())
    group, results = through(folder, tmp_path / "out", film)
    assert len(group.maps) == 2
    outer, inner = group.mask(1), group.mask(2)
    assert (outer & inner).sum() == inner.sum() > 0
    fractions = [float(one.mean()) for one in (outer, inner)]
    assert told(group) == {"[1]": fractions[0], "[2]": fractions[1], "[1, 2]": fractions[0]}
    assert fractions == pytest.approx([0.8, 0.4], abs=0.02)
    seg = pydicom.dcmread(results[0].path)
    assert (seg.SegmentsOverlap, [s.SegmentLabel for s in seg.SegmentSequence]) == ("YES", ["Lung", "Heart"])
    size = (2, int(seg.Rows), int(seg.Columns))
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")[: np.prod(size)].reshape(size)
    assert np.array_equal(bits, np.concatenate([outer, inner]))


def test_segments_of_a_volume_may_overlap(tmp_path: Path) -> None:
    folder = network_bundle(
        tmp_path / "models",
        dimensions=3,
        threshold=0.0,
        input="volume",
        accepts={"Modality": "CT"},
        segments=[segment(), segment(2, "Heart")],
        measurements=of_two("volume", VOLUME),
    )
    end_with(folder, "torch.cat([(pred[1:] > -2000).float(), (pred[1:] > 0).float()])")
    group, results = through(folder, tmp_path / "out", *write_series(tmp_path / "in"))
    voxel_ml = 2.5 * 0.75 * 0.5 / 1000
    whole = SLICES * 64 * 64 * voxel_ml
    assert told(group) == {
        "[1]": pytest.approx(whole, rel=1e-4),
        "[2]": pytest.approx(voxel_ml, rel=1e-4),
        "[1, 2]": pytest.approx(whole, rel=1e-4),
    }
    seg = pydicom.dcmread(results[0].path)
    assert (seg.SegmentsOverlap, seg.NumberOfFrames) == ("YES", SLICES + 1)


def test_segments_of_a_clip_may_overlap_on_some_frames(tmp_path: Path) -> None:
    """Two segments stand side by side on dark frames; on bright ones they lie above each other."""
    folder = network_bundle(
        tmp_path / "models",
        input="multi-frame",
        accepts={"Modality": "US"},
        segments=[segment() | {"may_be_absent": True}, segment(2, "Heart") | {"may_be_absent": True}],
        measurements=of_two(),
    )
    end_with(folder, "torch.cat([(pred[1:] > 0.3).float(), (pred[1:] > 0.6).float()])")
    file = clip_of(tmp_path, 10)
    group, results = through(folder, tmp_path / "out", file)
    masks = np.stack([group.mask(1), group.mask(2)])
    assert masks.any(axis=(2, 3)).sum(axis=1).tolist() == [8, 5]
    assert (group.maps[1] > 0).any(axis=(1, 2)).tolist() == [n >= 5 for n in range(10)]
    assert told(group)["[1]"] == masks[0, 9].mean() == told(group)["[1, 2]"]
    assert told(group)["[2]"] == masks[1, 9].mean()
    for reader in READERS:
        labelled = [s.SegmentLabel for s in pydicom.dcmread(results[0].path).SegmentSequence]
        assert labelled == ["Lung", "Heart"]
        seg = _numbered(results[0].path)
        np.testing.assert_array_equal(reader(seg, [file], masks.shape), masks)


def _numbered(path: Path) -> Path:
    """The same with a number at the end of each label, as the readers want it."""
    dataset = pydicom.dcmread(path)
    for one in dataset.SegmentSequence:
        one.SegmentLabel = f"Segment {one.SegmentNumber}"
    dataset.save_as(path.with_name("numbered.dcm"))
    return path.with_name("numbered.dcm")


def test_a_segment_lies_in_the_first_map_in_which_it_meets_none() -> None:
    masks = np.zeros((4, 2, 4), dtype=np.bool_)
    masks[0, 0], masks[1, :, 0], masks[2, 1, 1:], masks[3] = True, True, True, True
    first, second, third = overlaid(masks)
    assert np.array_equal(first, masks[0] * 1 + masks[2] * 3)
    assert np.array_equal(second, masks[1] * 2)
    assert np.array_equal(third, masks[3] * 4)


def test_a_clip_whose_maps_would_be_too_many_is_refused() -> None:
    layers = Layers((20, 10_000, 7_000))
    with pytest.raises(Permanent, match="a clip of 20 frames of 7000 x 10000 pixels is too large"):
        layers.need(2)


# --- nothing found


def lesions(**changes: Any) -> list[dict[str, Any]]:
    return [segment() | {"may_be_absent": True}, segment(2, "Heart") | {"may_be_absent": True} | changes]


RATIO = {
    "method": "width_ratio",
    "of": [2],
    "over": [1],
    "name": {"value": "CTR", "scheme": "99PACSNODE", "meaning": "Cardiothoracic ratio"},
}


def test_a_film_without_a_lesion_has_a_report_and_no_seg(tmp_path: Path) -> None:
    """The area of nothing is none; a ratio of nothing is no number."""
    folder = network_bundle(tmp_path / "models", segments=lesions(), measurements=[*of_two(), RATIO])
    end_with(folder, "(pred[1:] > 5).float().repeat(2, 1, 1)")
    group, results = through(folder, tmp_path / "out", saved_image(tmp_path, gradient()))
    assert told(group) == {"[1]": 0, "[2]": 0, "[1, 2]": 0}
    assert [one.kind for one in results] == ["sr"]
    texts = {str(e.value) for e in pydicom.dcmread(results[0].path).iterall() if e.keyword == "TextValue"}
    assert {"Nothing found of: Lung", "Nothing found of: Heart"} <= texts


def test_a_workflow_that_finds_no_lesion_has_a_report_and_no_seg(tmp_path: Path) -> None:
    folder = workflow_bundle(
        tmp_path / "models",
        "{}",
        "OUTPUTS.update(label_map=inputs['intensity'] > 5)",
        input="image",
        segments=lesions(),
        measurements=[RATIO],
        evaluations=None,
    )
    group, results = through(folder, tmp_path / "out", saved_image(tmp_path, gradient()))
    assert group.measurements == ()
    assert [one.kind for one in results] == ["sr"]


def test_a_film_without_what_must_be_there_is_parked(tmp_path: Path) -> None:
    folder = network_bundle(tmp_path / "models", segments=lesions(may_be_absent=False), measurements=[RATIO])
    end_with(folder, "(pred[1:] > 5).float().repeat(2, 1, 1)")
    film = saved_image(tmp_path, gradient())
    with pytest.raises(Permanent, match="the model found no usable heart"):
        through(folder, tmp_path / "out", film)


def test_labels_that_were_lost_on_the_way_are_no_answer(tmp_path: Path) -> None:
    """What infer lets through has the structures that must be there; encode looks once more."""
    folder = network_bundle(tmp_path / "models", segments=lesions(may_be_absent=False), measurements=None)
    end_with(folder, WITHIN)
    film = saved_image(tmp_path, gradient())
    service = load_service(folder)
    found = infer(service, load_bundle(service, "cpu"), "cpu", [film])
    (group,) = found.groups
    emptied = replace(group, label_map=np.zeros((1, 40, 60), dtype=np.uint8), overlaid=())
    with pytest.raises(Permanent, match="empty: the analysis marked nothing"):
        encode(Findings(found.algorithm, (emptied,)), request(tmp_path / "out", film, results=("seg",)))


# --- probabilities


SURE = "torch.sigmoid(6 * (pred[1:] - 0.5))"


def fractional(group: Group, out: Path, *files: Path) -> pydicom.Dataset:
    asked = replace(request(out, *files, results=("seg",)), form=Form(seg="fractional"))
    (result,) = encode(Findings(CHEST, (group,)), asked)
    return pydicom.dcmread(result.path)


def test_probabilities_of_a_film_are_kept_where_pipeline_yaml_says_so(tmp_path: Path) -> None:
    folder = network_bundle(tmp_path / "models", keep_probabilities=True, longest_side=None)
    end_with(folder, SURE)
    film = saved_image(tmp_path, gradient())
    group, results = through(folder, tmp_path / "out", film)
    assert group.probabilities is not None and group.probabilities.shape == (1, 1, 40, 60)
    row = group.probabilities[0, 0, 0].astype(int)
    assert (np.diff(row) >= 0).all() and row[0] < 20 and row[-1] > 230
    is_sure = abs(group.probabilities[0] - 127.5) > 1
    assert np.array_equal(group.mask(1)[is_sure], group.probabilities[0][is_sure] > 127)
    assert pydicom.dcmread(results[0].path).SegmentationType == "BINARY"
    seg = fractional(group, tmp_path / "fractional", film)
    assert seg.SegmentationFractionalType == "PROBABILITY"
    assert np.array_equal(np.frombuffer(seg.PixelData, np.uint8), group.probabilities.ravel())


def test_probabilities_of_a_volume_lie_on_the_grid_of_the_source(tmp_path: Path) -> None:
    folder = network_bundle(
        tmp_path / "models",
        dimensions=3,
        threshold=0.0,
        input="volume",
        accepts={"Modality": "CT"},
        measurements=None,
        keep_probabilities=True,
    )
    end_with(folder, "torch.sigmoid(pred[1:] / 1000)")
    group, _ = through(folder, tmp_path / "out", *write_series(tmp_path / "in"))
    assert group.probabilities is not None and group.label_map is not None
    assert group.probabilities.shape == (1, *group.label_map.shape)
    assert np.argwhere(group.label_map).tolist() == np.argwhere(group.probabilities[0] == 186).tolist() == [[*MARKED]]


def test_labels_in_place_of_the_probabilities_that_should_be_kept_are_refused(tmp_path: Path) -> None:
    folder = network_bundle(
        tmp_path / "models", keep_probabilities=True, segments=[segment(), segment(2, "Heart")], measurements=None
    )
    end_with(folder, "(pred[1:] > 0.2).float() * 2 + (pred[1:] > 0.9).float() * -1")
    with pytest.raises(Permanent, match="gives no probabilities of its segments to keep"):
        through(folder, tmp_path / "out", saved_image(tmp_path, gradient()))
