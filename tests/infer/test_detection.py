"""Models that find places: boxes of a network, and what a workflow tells, back on the pixels of the source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import torch

from pacsnode import findings_files as stored
from pacsnode.encode.build import encode
from pacsnode.errors import Permanent
from pacsnode.findings import Findings, Presence, Region, Shape
from pacsnode.infer.bundle import load_bundle
from pacsnode.infer.catalogue import load_service
from pacsnode.infer.detection import boxes_of
from pacsnode.infer.run import infer
from tests.encode.cases import request
from tests.infer.bundles import saved_image, workflow_bundle
from tests.infer.detectors import NODULE, detector
from tests.infer.phantoms import PHANTOMS, Phantom, classic, enhanced

FLIPPED = {"_target_": "Flipd", "keys": "image", "spatial_axis": [0, 1]}
DOUBLED = {"_target_": "Resized", "keys": "image", "spatial_size": [120, 80], "mode": "nearest"}
PADDED = {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [100, 90]}
ROWS_FIRST = {"_target_": "LoadImaged", "keys": "image", "reverse_indexing": False}


def found(folder: Path, *files: Path) -> Findings:
    """What the service in `folder` says of these files."""
    service = load_service(folder)
    return infer(service, load_bundle(service, "cpu"), "cpu", list(files))


def with_blob(folder: Path, rows: slice = slice(8, 15), columns: slice = slice(21, 40)) -> Path:
    """A film of 60 columns and 40 rows, dark but for a blob."""
    pixels = np.zeros((40, 60), dtype=np.uint16)
    pixels[rows, columns] = 4000
    return saved_image(folder, pixels)


@pytest.mark.parametrize(
    "before",
    [[], [FLIPPED], [DOUBLED], [PADDED], [FLIPPED, DOUBLED, PADDED]],
    ids=["as it is", "flipped", "doubled", "padded", "all"],
)
def test_the_box_of_an_image_lies_on_its_blob_to_the_pixel(before: list[dict[str, Any]], tmp_path: Path) -> None:
    path = with_blob(tmp_path)
    (group,) = found(detector(tmp_path / "models", before=before), path).groups
    (region,) = group.regions
    assert region.points == ((21.0, 8.0), (40.0, 15.0))
    assert (region.key, region.label, region.shape) == ("nodule-1", "Nodule 1", Shape.BOX)
    assert (region.image, region.frame, region.also) == (group.source[0], None, ())
    assert (region.presence, region.probability) == (Presence.PRESENT, 0.9)
    (said,) = group.evaluations
    assert (said.presence, said.probability, said.comment) == (Presence.PRESENT, 0.9, "1 found.")


def test_the_report_has_the_coordinates_that_were_found(tmp_path: Path) -> None:
    path = with_blob(tmp_path)
    says = found(detector(tmp_path / "models", before=[FLIPPED, DOUBLED]), path)
    stored.save(says, tmp_path / "run")
    (result,) = encode(stored.load(tmp_path / "run"), request(tmp_path / "out", path, results=("sr",)))
    (group,) = hd.sr.srread(result.path).content.get_planar_roi_measurement_groups()
    assert group.roi.value.tolist() == [[21, 8], [40, 8], [40, 15], [21, 15], [21, 8]]
    assert [(number.name.meaning, number.value) for number in group.get_measurements()] == [("Probability", 90)]
    column, row = (int(value) for value in group.roi.value[0])
    pixels = pydicom.dcmread(path).pixel_array
    assert pixels[row, column] == 4000 and pixels[row - 1, column] == pixels[row, column - 1] == 0


def test_rows_first_and_a_reduced_film_change_nothing(tmp_path: Path) -> None:
    pixels = np.zeros((160, 240), dtype=np.uint16)
    pixels[32:60, 84:160] = 4000
    path = saved_image(tmp_path, pixels)
    folder = detector(tmp_path / "models", before=[ROWS_FIRST], longest_side=64)
    text = (folder / "configs" / "inference.yaml").read_text()
    assert text.count("LoadImaged") == 2
    config = text.replace("- _target_: LoadImaged\n", "- _target_: Identityd\n", 1)
    (folder / "configs" / "inference.yaml").write_text(config)
    (group,) = found(folder, path).groups
    assert [region.points for region in group.regions] == [((84.0, 32.0), (160.0, 60.0))]


@pytest.mark.parametrize("name", PHANTOMS)
@pytest.mark.parametrize("form", ["classic", "enhanced"])
def test_the_box_of_a_volume_lies_on_its_voxel_in_every_orientation(name: str, form: str, tmp_path: Path) -> None:
    phantom: Phantom = PHANTOMS[name]
    slice_, row, column = phantom.marked
    order = np.random.default_rng(1).permutation(phantom.shape[0]).tolist()
    files = classic(tmp_path / "ct", phantom) if form == "classic" else [enhanced(tmp_path / "e.dcm", phantom, order)]
    turned = {"_target_": "Orientationd", "keys": "image", "axcodes": "PIL"}
    folder = detector(
        tmp_path / "models", level=0.0, before=[turned], input="volume", accepts={"Modality": "CT"}, name="ct"
    )
    (group,) = found(folder, *files).groups
    (region,) = group.regions
    assert list(region.points) == [(column, row), (column + 1, row + 1)]
    assert len(region.also) == 0
    if form == "enhanced":
        assert (region.image, region.frame) == (group.source[0], order.index(slice_) + 1)
    else:
        header = pydicom.dcmread(next(f for f in files if pydicom.dcmread(f).SOPInstanceUID == region.image))
        assert np.allclose(header.ImagePositionPatient, phantom.position_mm(slice_, 0, 0), atol=1e-4)
        assert header.pixel_array[row, column] == 2000


def test_a_box_through_several_slices_is_one_region_on_all_of_them(tmp_path: Path) -> None:
    phantom = replace(PHANTOMS["axial"], marked=(3, 17, 22))
    files = classic(tmp_path / "ct", phantom)
    heads = {str(pydicom.dcmread(f).SOPInstanceUID): f for f in files}
    for path in files:
        dataset = pydicom.dcmread(path)
        height = round((float(dataset.ImagePositionPatient[2]) - phantom.origin_mm[2]) / phantom.spacing_mm[0])
        if 2 <= height <= 5:
            pixels = np.zeros(phantom.shape[1:], dtype=np.int16)
            pixels[10:14, 5:9] = 2000
            dataset.PixelData = pixels.tobytes()
        else:
            dataset.PixelData = bytes(len(dataset.PixelData))
        dataset.save_as(path)
    folder = detector(tmp_path / "models", level=0.0, input="volume", accepts={"Modality": "CT"}, name="ct")
    (group,) = found(folder, *files).groups
    (region,) = group.regions
    assert region.points == ((5.0, 10.0), (9.0, 14.0))
    assert [region.image, *(image for image, _ in region.also)] == [group.source[n] for n in (3, 2, 4, 5)]
    assert set(group.source) == set(heads)


def test_no_box_is_no_proof_of_absence(tmp_path: Path) -> None:
    folder = detector(tmp_path / "models", level=2.0)
    (group,) = found(folder, with_blob(tmp_path)).groups
    assert group.regions == ()
    (said,) = group.evaluations
    assert (said.presence, said.probability) == (Presence.UNDETERMINED, None)
    assert said.comment == "No candidate found; sensitivity not measured."


def test_only_the_most_probable_are_reported_and_the_rest_is_counted(tmp_path: Path) -> None:
    folder = detector(tmp_path / "models", scores=(0.2, 0.6, 0.8, 0.7), region={"most": 2})
    (group,) = found(folder, with_blob(tmp_path)).groups
    assert [(one.key, one.probability) for one in group.regions] == [("nodule-1", 0.8), ("nodule-2", 0.7)]
    assert group.evaluations[0].comment == "3 found; the 2 most probable are reported."


def test_a_label_that_pipeline_yaml_does_not_know_is_told_to_nobody(tmp_path: Path) -> None:
    folder = detector(tmp_path / "models", region={"index": 1})
    (group,) = found(folder, with_blob(tmp_path)).groups
    assert group.regions == () and group.evaluations[0].presence is Presence.UNDETERMINED


def test_a_network_that_gives_no_boxes_is_refused_with_a_sentence(tmp_path: Path) -> None:
    folder = detector(tmp_path / "models")
    service = load_service(folder)
    bundle = load_bundle(service, "cpu")
    bundle._network = torch.nn.Identity()  # type: ignore[union-attr]  # what any other network answers
    with pytest.raises(Permanent, match="the model gave no boxes"):
        infer(service, bundle, "cpu", [with_blob(tmp_path)])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"boxes": torch.zeros(1, 4), "scores": torch.zeros(2), "labels": torch.zeros(1)}, "1 boxes, 2 scores"),
        ({"boxes": torch.full((1, 4), torch.nan), "scores": torch.zeros(1)}, "not numbers"),
        ({"boxes": torch.zeros(1, 4), "scores": torch.ones(1) * 7}, "scores from 7 to 7"),
        ({"boxes": torch.tensor([[5.0, 5, 1, 1]]), "scores": torch.ones(1)}, "first corner lies beyond"),
        ({"boxes": torch.zeros(1, 4)}, "no label_scores or scores"),
        ({"masks": torch.zeros(1, 4)}, "no box or boxes"),
    ],
)
def test_boxes_that_are_none_are_refused(given: dict[str, torch.Tensor], reason: str) -> None:
    with pytest.raises(Permanent, match=reason):
        boxes_of([given], 1, 2)


# --- what a workflow tells


def workflow(models: Path, regions: str, shape: str = "polygon") -> Path:
    """A workflow on images that tells these regions (Python text)."""
    kind = {key: value for key, value in NODULE.items() if key != "threshold"} | {"shape": shape}
    return workflow_bundle(
        models, f"{{'regions': {regions}}}", input="image", measurements=None, evaluations=None, regions=[kind]
    )


def test_a_workflow_tells_outlines_as_they_are(tmp_path: Path) -> None:
    told = "[{'key': 'nodule', 'points': [(1, 2.25), (30.5, 4), (9, 39)], 'comment': 'Spiculated.'}]"
    (group,) = found(workflow(tmp_path / "models", told), with_blob(tmp_path)).groups
    (region,) = group.regions
    assert isinstance(region, Region)
    assert (region.shape, region.points) == (Shape.POLYGON, ((1.0, 2.25), (30.5, 4.0), (9.0, 39.0)))
    assert (region.probability, region.comment) == (None, "Spiculated.")
    assert group.evaluations[0].presence is Presence.PRESENT


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("None", "no list of regions"),
        ("[{'key': 'mass', 'points': [(1, 2)]}]", "whose key pipeline.yaml does not know"),
        ("[{'key': 'nodule', 'points': [(1, 200)]}]", "outside of its image of 60 x 40 pixels"),
        ("[{'key': 'nodule', 'points': [(1, nan)]}]", "outside of its image"),
        ("[{'key': 'nodule', 'points': []}]", "outside of its image"),
        ("[{'key': 'nodule', 'points': [(1, 2, 3)]}]", "a region that is none"),
        ("[{'key': 'nodule', 'points': [(1, 2)], 'plane': 1}]", "outside of its image"),
        ("[{'key': 'nodule', 'points': [(1, 2)], 'score': 2}]", "score of a region is 2"),
    ],
)
def test_what_a_workflow_tells_wrong_is_refused_with_a_sentence(told: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=reason):
        found(workflow(tmp_path / "models", told), with_blob(tmp_path))
