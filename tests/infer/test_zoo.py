"""Bundles in the style of the MONAI Model Zoo run as they are, in the real child, and give what MONAI itself gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from pacsnode import findings_files
from pacsnode.errors import Permanent
from pacsnode.findings import Group, Presence
from pacsnode.infer.bundle import NetworkBundle, load_bundle
from pacsnode.infer.catalogue import bundle_hash, load_service
from pacsnode.infer.compute import ComputeKeeper
from pacsnode.infer.run import infer
from pacsnode.infer.volume import read_volume
from tests.infer.bundles import gradient, image, saved, saved_image
from tests.infer.series import write_series
from tests.infer.zoo import classes_bundle, ct_bundle, rgb_bundle

ROOT = Path(__file__).resolve().parents[2]
ENDOSCOPY = "1.2.840.10008.5.1.4.1.1.77.1.1"


def coloured(pixels: NDArray[np.uint8], **attributes: Any) -> FileDataset:
    """A picture of an endoscope: (rows, columns, 3) RGB, or (frames, rows, columns, 3)."""
    plane = pixels if pixels.ndim == 3 else pixels[0]
    dataset = image(np.ascontiguousarray(plane[..., 0]), sop_class_uid=ENDOSCOPY, Modality="ES")
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.PixelData = pixels.tobytes()
    if pixels.ndim == 4:
        dataset.NumberOfFrames = len(pixels)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def scene(seed: int, rows: int = 80, columns: int = 120) -> NDArray[np.uint8]:
    """A picture with soft patches, no two alike, 0 and 255 in it."""
    from scipy import ndimage

    noise = np.random.default_rng(seed).random((rows, columns, 3))
    soft = ndimage.gaussian_filter(noise, (6, 6, 0))
    scaled = (soft - soft.min()) / (soft.max() - soft.min())
    return np.asarray((scaled * 255).round().astype(np.uint8))


def found_in(folder: Path, *files: Path) -> tuple[Group, ...]:
    service = load_service(folder)
    return infer(service, load_bundle(service, "cpu"), "cpu", files).groups


MONAI = """
import json, sys
from monai.bundle import ConfigWorkflow
workflow = ConfigWorkflow(workflow_type="inference", logging_file=False, **json.loads(sys.argv[1]))
workflow.initialize()
workflow.run()
workflow.finalize()
"""


def by_monai(folder: Path, source: Path, out: Path, **overrides: Any) -> Path:
    """The mask that MONAI's own engine writes, with the overrides that its people would have to give."""
    (config,) = (folder / "configs").glob("inference.*")
    given = {
        "config_file": str(config),
        "bundle_root": str(folder),
        "datalist": [str(source)],
        "output_dir": str(out),
        "dataloader#num_workers": 0,
        "evaluator#amp": False,
        **overrides,
    }
    subprocess.run([sys.executable, "-W", "ignore", "-c", MONAI, json.dumps(given)], check=True, capture_output=True)
    (written,) = [path for path in out.rglob("*") if path.is_file()]
    return written


@pytest.fixture
def keeper() -> Iterator[ComputeKeeper]:
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    made = ComputeKeeper([sys.executable, "-m", "pacsnode.child"], environment)
    yield made
    made.close()


def test_three_bundles_of_the_zoos_style_run_in_one_child_without_an_edit(
    tmp_path: Path, keeper: ComputeKeeper
) -> None:
    models = tmp_path / "models"
    picture = saved(coloured(scene(0)), tmp_path / "picture.dcm")
    cases = [
        (ct_bundle(models), write_series(tmp_path / "ct")),
        (rgb_bundle(models), [picture]),
        (classes_bundle(models), [picture]),
    ]
    hashes = [bundle_hash(folder) for folder, _ in cases]
    for number, (folder, files) in enumerate(cases * 2):  # each twice: another bundle ran in between
        out = tmp_path / f"run-{number}"
        asked = {
            "service": str(folder),
            "bundle_hash": load_service(folder).bundle_hash,
            "files": [str(f) for f in files],
            "folder": str(out),
            "device": "cpu",
        }
        assert keeper.call("infer", asked, time_limit_s=120, memory_limit_mb=4000)["network_s"] > 0
        found = findings_files.load(out)
        assert found.algorithm.device == "cpu"
        (group,) = found.groups
        if folder.name == "zoo-classes":
            (evaluation,) = group.evaluations
            assert evaluation.probability is not None and 0 < evaluation.probability < 1
        else:
            assert group.label_map is not None
            assert group.label_map.shape == ((12, 64, 64) if folder.name == "zoo-ct" else (1, 80, 120))
            assert set(np.unique(group.label_map)) <= {0, 1}
    assert [bundle_hash(folder) for folder, _ in cases] == hashes  # nothing was written beside the config


def test_the_mask_of_a_ct_is_the_one_that_monai_writes(tmp_path: Path) -> None:
    nibabel: Any = pytest.importorskip("nibabel")

    folder, files = ct_bundle(tmp_path / "models"), write_series(tmp_path / "ct")
    volume = read_volume(files)
    noisy = np.random.default_rng(4).normal(0, 300, volume.intensity.shape).astype(np.float32)
    nifti = tmp_path / "ct.nii.gz"
    nibabel.save(nibabel.Nifti1Image(noisy.transpose(2, 1, 0), volume.affine), nifti)
    written = nibabel.load(by_monai(folder, nifti, tmp_path / "out"))
    bundle = load_bundle(load_service(folder), "cpu")
    assert isinstance(bundle, NetworkBundle)
    answer = bundle.volume({"image": (noisy, nibabel.load(nifti).affine)})
    assert answer.labels is not None
    theirs = np.asarray(written.dataobj).squeeze().transpose(2, 1, 0)
    assert np.allclose(written.affine, volume.affine, atol=1e-3)
    assert 0.01 < answer.labels.mean() < 0.99
    assert np.array_equal(answer.labels, theirs)


def test_the_mask_of_a_colour_picture_is_the_one_that_monai_writes(tmp_path: Path) -> None:
    """Wider than high, through a size of [96, 64], by which the zoo means width and height."""
    from PIL import Image

    folder, pixels = rgb_bundle(tmp_path / "models"), scene(1)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    written = by_monai(folder, tmp_path / "picture.png", tmp_path / "out", **{"net#pretrained": False})
    theirs = np.asarray(Image.open(written)) > 0
    (group,) = found_in(folder, saved(coloured(pixels), tmp_path / "a.dcm"))
    assert group.label_map is not None
    assert 0.1 < group.label_map.mean() < 0.9
    assert np.array_equal(group.label_map[0], theirs)


# --- classes


def probability(folder: Path, *files: Path) -> float:
    (group,) = found_in(folder, *files)
    (evaluation,) = group.evaluations
    assert evaluation.probability is not None
    return evaluation.probability


def contract(threshold: float, activation: str = "softmax", **card: Any) -> dict[str, Any]:
    from tests.infer.bundles import card as card_of
    from tests.infer.zoo import PNEUMONIA

    yes = {"index": 1, "label": "yes", "name": PNEUMONIA, "threshold": threshold, "laterality": "left"}
    return {
        "classification": {"activation": activation, "classes": [{"index": 0, "label": "no"}, yes]},
        "card": card_of(**card),
    }


MEASURED = {"metric": "sensitivity", "of": "yes", "value": 0.9, "data": "Made up.", "cases": 10, "real_data": True}


@pytest.mark.parametrize(
    ("changes", "presence", "comment"),
    [
        (contract(0.0), Presence.PRESENT, ""),
        (contract(1.0), Presence.UNDETERMINED, "No candidate found; sensitivity not measured."),
        (contract(1.0, measured=[MEASURED]), Presence.ABSENT, ""),
        (contract(1.0, measured=[MEASURED | {"real_data": False}]), Presence.UNDETERMINED, "No candidate found"),
    ],
)
def test_a_class_is_present_from_its_threshold_and_absent_only_by_the_card(
    tmp_path: Path, changes: dict[str, Any], presence: Presence, comment: str
) -> None:
    folder = classes_bundle(tmp_path / "models", **changes)
    (group,) = found_in(folder, saved(coloured(scene(2)), tmp_path / "a.dcm"))
    (evaluation,) = group.evaluations
    assert evaluation.presence is presence
    assert evaluation.comment.startswith(comment)
    assert evaluation.laterality is not None and evaluation.laterality.meaning == "Left"
    assert group.label_map is None and group.picture is not None


def test_softmax_and_sigmoid_are_taken_of_the_networks_output(tmp_path: Path) -> None:
    """The bundle's own last step keeps only the winner, which is no probability."""
    picture = saved(coloured(scene(2)), tmp_path / "a.dcm")
    soft = probability(classes_bundle(tmp_path / "soft", **contract(0.5)), picture)
    folder = classes_bundle(tmp_path / "sigmoid", **contract(0.5, "sigmoid"))
    hard = probability(folder, picture)
    assert 0 < soft < 1 and 0 < hard < 1 and soft != hard
    with pytest.raises(Permanent, match="as probabilities; they must lie between 0 and 1"):
        probability(classes_bundle(tmp_path / "none", **contract(0.5, "none")), picture)


def test_more_classes_than_the_network_has_are_refused(tmp_path: Path) -> None:
    classes = {"activation": "softmax", "classes": [{"index": n, "label": f"c{n}"} for n in range(3)]}
    folder = classes_bundle(tmp_path / "models", classification=classes)
    with pytest.raises(Permanent, match=r"the model gave 2 numbers; pipeline.yaml has 3 classes"):
        found_in(folder, saved(coloured(scene(2)), tmp_path / "a.dcm"))


# --- colour and grey


def test_a_network_of_three_channels_reads_a_grey_film_as_grey_rgb(tmp_path: Path) -> None:
    folder = classes_bundle(tmp_path / "models")
    ramp = gradient(80, 120, "uint8", 255)
    assert probability(folder, saved_image(tmp_path, ramp)) == pytest.approx(
        probability(folder, saved(coloured(np.repeat(ramp[..., None], 3, axis=2)), tmp_path / "rgb.dcm")), abs=0.02
    )


def test_a_network_of_one_channel_refuses_colour(tmp_path: Path) -> None:
    from tests.infer.bundles import network_bundle

    folder = network_bundle(tmp_path / "models")
    metadata = folder / "configs" / "metadata.json"
    metadata.write_text('{"version": "1", "network_data_format": {"inputs": {"image": {"num_channels": 1}}}}')
    with pytest.raises(Permanent, match="the service reads grey images, this one is coloured"):
        found_in(folder, saved(coloured(scene(2)), tmp_path / "a.dcm"))


def test_weights_of_another_network_are_a_sentence(tmp_path: Path) -> None:
    import torch

    from pacsnode.infer.catalogue import hash_file

    folder = classes_bundle(tmp_path / "models")
    weights = folder / "models" / "model.pt"
    old = hash_file(weights)
    torch.save({"state_dict": {"layers.0.weight": torch.zeros(1)}}, weights)
    text = (folder / "pipeline.yaml").read_text()
    (folder / "pipeline.yaml").write_text(text.replace(old, hash_file(weights)))
    with pytest.raises(Permanent, match="the weights do not belong to the network of the config"):
        load_bundle(load_service(folder), "cpu")
