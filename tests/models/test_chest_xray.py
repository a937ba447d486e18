"""The chest X-ray bundle as it is shipped: parts that load, weights that are the named ones, masks that fit."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from ruamel.yaml import YAML

pytest.importorskip("monai", reason="the bundle needs the `ai` extra")

from pacsnode.infer.bundle import Answer, NetworkBundle, load_bundle
from pacsnode.infer.catalogue import load_service
from pacsnode.infer.measure import width_ratio
from pacsnode.infer.run import READ_AS_NEGATIVE, infer

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "models" / "chest-xray"
WEIGHTS = BUNDLE / "models" / "model.pt"
DATA = ROOT.parent / "shared" / "data" / "chest_seg"


@pytest.fixture(scope="module")
def trainer() -> ModuleType:
    """scripts/train/chest_xray.py; it reads the bundle's own configuration, as the node does."""
    spec = importlib.util.spec_from_file_location("chest_xray", ROOT / "scripts" / "train" / "chest_xray.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chest_xray"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data() -> Path:
    if not DATA.is_dir():
        pytest.skip(f"the films are not at {DATA}")
    return DATA


def drawn_chest(rows: int, columns: int) -> np.ndarray:
    """A crude chest, bright is dense: a body, two dark lungs, a bright heart mostly on the image's right."""
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    y, x = y / rows, x / columns
    picture = np.where(np.abs(x - 0.5) < 0.46, 0.6, 0.0)
    for middle in (0.29, 0.71):
        picture[((x - middle) / 0.15) ** 2 + ((y - 0.42) / 0.30) ** 2 < 1] = 0.2
    picture[np.abs(x - 0.5) < 0.06] = 0.75
    picture[((x - 0.55) / 0.19) ** 2 + ((y - 0.60) / 0.15) ** 2 < 1] = 0.8
    return (picture * 4095).astype(np.float32)


def test_the_weights_are_the_ones_that_the_pipeline_names() -> None:
    pipeline = YAML(typ="safe").load((BUNDLE / "pipeline.yaml").read_text())
    assert pipeline["network"]["weights"] == "models/model.pt"
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == pipeline["network"]["sha256"]
    assert WEIGHTS.stat().st_size < 8_000_000


def test_segments_of_the_pipeline_are_the_classes_of_the_network(trainer: ModuleType) -> None:
    pipeline = YAML(typ="safe").load((BUNDLE / "pipeline.yaml").read_text())
    assert [s["label"].lower() for s in pipeline["segments"]] == list(trainer.CLASSES)
    assert [s["value"] for s in pipeline["segments"]] == [1, 2, 3]
    assert [s.get("laterality") for s in pipeline["segments"]] == ["right", "left", None]


@pytest.mark.parametrize("shape", [(256, 256), (487, 400), (900, 1100)])
def test_a_drawn_chest_gets_a_label_map_on_its_own_grid(trainer: ModuleType, shape: tuple[int, int]) -> None:
    labels = trainer.load_bundle(WEIGHTS).segment(drawn_chest(*shape))
    assert labels.shape == shape
    right, left, heart = (np.argwhere(labels == value).mean(axis=0) / shape for value in (1, 2, 3))
    assert right[1] < 0.5 < left[1], "the patient's right lung is on the left of the picture"
    assert right[1] < heart[1] < left[1]
    assert heart[0] > right[0]


def test_each_structure_is_one_piece_without_holes(trainer: ModuleType) -> None:
    from scipy import ndimage

    labels = trainer.load_bundle(WEIGHTS).segment(drawn_chest(300, 300))
    for value in (1, 2, 3):
        assert ndimage.label(labels == value)[1] == 1
        assert (ndimage.binary_fill_holes(labels == value) == (labels == value)).all()


def test_a_picture_of_noise_gives_labels_and_no_error(trainer: ModuleType) -> None:
    noise = np.random.default_rng(0).random((200, 220), np.float32)
    labels = trainer.load_bundle(WEIGHTS).segment(noise)
    assert labels.shape == (200, 220)
    assert set(np.unique(labels)) <= {0, 1, 2, 3}


def test_the_node_gets_the_masks_that_were_evaluated(trainer: ModuleType) -> None:
    node = load_bundle(load_service(BUNDLE), "cpu")
    assert isinstance(node, NetworkBundle)
    picture = drawn_chest(700, 600)
    evaluated = trainer.load_bundle(WEIGHTS).segment(picture)
    (answer,) = node.pictures([trainer.scale_by_percentiles(picture)])
    assert isinstance(answer, Answer) and answer.labels is not None
    assert not answer.is_negative
    assert (answer.labels == evaluated).all()
    assert width_ratio(answer.labels == 3, np.isin(answer.labels, [1, 2])) == pytest.approx(
        trainer.width_ratio(evaluated)
    )


def test_a_real_film_of_another_vendor_has_its_right_lung_on_the_left_of_the_picture() -> None:
    film = get_testdata_file("RG1_UNCR.dcm", download=False)
    if film is None:
        pytest.skip("the film is in the package pydicom-data, which is not installed")
    service = load_service(BUNDLE)
    group = infer(service, load_bundle(service, "cpu"), "cpu", [Path(str(film))]).groups[0]
    assert group.label_map is not None
    labels = group.label_map.reshape(group.label_map.shape[-2:])
    right, left, heart = (np.argwhere(labels == value).mean(axis=0) / labels.shape for value in (1, 2, 3))
    assert right[1] < heart[1] < left[1]
    assert all((labels == value).mean() > 0.1 for value in (1, 2, 3))
    ratio = next(m.value for m in group.measurements if m.name.value == "CTR")
    assert 0.48 < ratio < 0.58


def test_no_held_out_film_is_trained_on_or_tuned_on(trainer: ModuleType, data: Path) -> None:
    held_out = set(trainer.held_out_films(data))
    training, validation = trainer.split_films(data)
    assert len(held_out) == 59 and len(training) == 170 and len(validation) == 30
    assert not held_out & set(training)
    assert not held_out & set(validation)
    assert not set(training) & set(validation)


def test_held_out_films_are_outlined_as_the_radiologists_did(trainer: ModuleType, data: Path) -> None:
    bundle = trainer.load_bundle(WEIGHTS)
    dice = []
    for film in trainer.held_out_films(data)[:6]:
        picture, truth = trainer.read_film(data, film)
        found = bundle.segment(picture)
        dice.append(trainer.dice_of_classes(found, truth))
        assert abs(trainer.width_ratio(found) - trainer.width_ratio(truth)) < 0.15
    right, left, heart = np.mean(dice, axis=0)
    assert right > 0.9 and left > 0.9 and heart > 0.85


def test_the_same_seed_gives_the_same_samples_and_they_are_never_mirrored(trainer: ModuleType, data: Path) -> None:
    films = trainer.split_films(data)[0][:4]
    once, again = (trainer.Lesson(data, films, epochs=2, seed=5) for _ in range(2))
    assert len(once) == 8
    for number in range(len(once)):
        image, truth = once[number]
        assert (image == again[number][0]).all() and (truth == again[number][1]).all()
        columns = np.arange(truth.shape[2])
        right, left = ((truth[c].sum(0).numpy() * columns).sum() / truth[c].sum().item() for c in (1, 2))
        assert right < left


def test_a_film_whose_header_names_the_wrong_polarity_is_read_as_its_negative_and_says_so(tmp_path: Path) -> None:
    service = load_service(BUNDLE)
    right = Path(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    wrong = tmp_path / "wrong.dcm"
    dataset = pydicom.dcmread(right)
    dataset.PhotometricInterpretation = "MONOCHROME2"  # the pixels are MONOCHROME1
    dataset.save_as(wrong)
    bundle = NetworkBundle(service, "cpu")
    group, same = (infer(service, bundle, "cpu", [path]).groups[0] for path in (right, wrong))
    assert READ_AS_NEGATIVE not in group.notes
    assert READ_AS_NEGATIVE in same.notes
    assert group.label_map is not None
    assert same.label_map is not None
    assert (group.label_map == same.label_map).mean() > 0.99
