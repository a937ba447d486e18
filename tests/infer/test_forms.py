"""Every form of input and of weights, with networks whose right answer is known."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset

from pacsnode.errors import Permanent
from pacsnode.findings import Group
from pacsnode.infer.bundle import NetworkBundle, load_bundle
from pacsnode.infer.catalogue import hash_file, load_service
from pacsnode.infer.run import infer
from tests.infer.bundles import (
    READING,
    gradient,
    image,
    network_bundle,
    saved,
    saved_image,
    segment,
    workflow_bundle,
)
from tests.infer.series import MARKED, write_series
from tests.infer.test_zoo import coloured, contract, scene
from tests.infer.zoo import classes_bundle, outline


def found_in(folder: Path, *files: Path) -> tuple[Group, ...]:
    service = load_service(folder)
    return infer(service, load_bundle(service, "cpu"), "cpu", files).groups


def with_weights(folder: Path, name: str, kind: str) -> Path:
    """The bundle with another file of weights."""
    text = (folder / "pipeline.yaml").read_text()
    old = hash_file(folder / "models" / "model.pt")
    text = text.replace("models/model.pt", f"models/{name}").replace(old, hash_file(folder / "models" / name))
    (folder / "pipeline.yaml").write_text(text.replace("  sha256:", f"  format: {kind}\n  sha256:"))
    (folder / "models" / "model.pt").unlink()
    return folder


# --- weights


def test_a_torchscript_program_marks_what_the_state_dict_marks(tmp_path: Path) -> None:
    import torch

    plain = network_bundle(tmp_path / "plain")
    folder = network_bundle(tmp_path / "script")
    bundle = load_bundle(load_service(folder), "cpu")
    assert isinstance(bundle, NetworkBundle)
    network = torch.nn.Conv2d(1, 2, 1)
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated; vendors' files are there
        torch.jit.trace(network, torch.zeros(1, 1, 8, 8)).save(folder / "models" / "model.ts")
    film = saved_image(tmp_path, gradient())
    (one,), (other,) = found_in(plain, film), found_in(with_weights(folder, "model.ts", "torchscript"), film)
    assert one.label_map is not None and other.label_map is not None
    assert np.array_equal(one.label_map, other.label_map)


@pytest.mark.parametrize("batch", ["n", 1], ids=["any batch", "a batch of one"])
def test_an_onnx_model_marks_what_the_state_dict_marks(tmp_path: Path, batch: Any) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'pacsnode[test]'")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'pacsnode[ai]'")
    from onnx import TensorProto, helper

    folder = network_bundle(tmp_path / "onnx", limits={"time_s": 60, "memory_mb": 3000, "batch": 3})
    shape = [batch, None, "h", "w"]
    values = [
        helper.make_tensor("w", TensorProto.FLOAT, [2, 1, 1, 1], [0.0, 1.0]),
        helper.make_tensor("b", TensorProto.FLOAT, [2], [0.49, 0.0]),
    ]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        "threshold",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "models" / "model.onnx")
    films = [saved_image(tmp_path, gradient()) for _ in range(4)]
    for group in found_in(with_weights(folder, "model.onnx", "onnx"), *films):
        assert group.label_map is not None
        assert np.array_equal(group.label_map[0], np.tile(np.arange(60) >= 30, (40, 1)))


@pytest.mark.parametrize(("kind", "what"), [("torchscript", "TorchScript program"), ("onnx", "ONNX model")])
def test_a_file_of_another_format_is_a_sentence(tmp_path: Path, kind: str, what: str) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'pacsnode[ai]'")
    folder = network_bundle(tmp_path)
    (folder / "models" / "model.bin").write_bytes(b"nothing of that kind" * 100)
    with_weights(folder, "model.bin", kind)
    with pytest.raises(Permanent, match=f"the file of weights is no {what}"):
        load_bundle(load_service(folder), "cpu")


# --- what the channels of an answer mean


@pytest.mark.parametrize(
    ("step", "marked"),
    [
        ("pred.softmax(0)", 30),  # background and one segment: the larger counts
        ("(pred[1:] > pred[:1]).float()", 30),
        ("pred[1:].clip(0, 1)", 29),  # a sigmoid's probability above a half
    ],
)
def test_one_hot_and_sigmoid_channels_become_labels(tmp_path: Path, step: str, marked: int) -> None:
    folder = network_bundle(tmp_path / "models")
    end_with(folder, step)
    (group,) = found_in(folder, saved_image(tmp_path, gradient()))
    assert group.label_map is not None
    assert int(group.label_map[0, 0].sum()) == pytest.approx(marked, abs=1)


def end_with(folder: Path, expression: str) -> None:
    """Another last step than the argmax."""
    config = folder / "configs" / "inference.yaml"
    head, _, _ = config.read_text().rpartition("  - _target_: AsDiscreted")
    config.write_text(f'{head}  - _target_: Lambdad\n    keys: pred\n    func: "$lambda pred: {expression}"\n')


def test_a_turned_answer_of_the_same_shape_is_refused_by_its_place(tmp_path: Path) -> None:
    """Preprocessing flips a cube, and nothing turns it back."""
    flip = {"_target_": "Flipd", "keys": "image", "spatial_axis": 0}
    folder = network_bundle(
        tmp_path / "models",
        dimensions=3,
        threshold=0.0,
        before=[flip],
        input="volume",
        accepts={"Modality": "CT"},
        measurements=None,
    )
    with pytest.raises(Permanent, match=r"lies on another grid than the images .* lack Invertd\?"):
        found_in(folder, *write_series(tmp_path / "in"))


# --- clips


def clip_of(folder: Path, frames: int) -> Path:
    """A grey clip of 40 x 60 pixels; each frame is brighter to the right, frame 1 darkest."""
    base = gradient(40, 60, "uint8", 200)
    dataset: FileDataset = image(base, Modality="US")
    dataset.NumberOfFrames = frames
    dataset.PixelData = b"".join((base // frames * (n + 1)).astype("uint8").tobytes() for n in range(frames))
    return saved(dataset, folder / "clip.dcm")


@pytest.mark.parametrize(("most", "analysed"), [(None, range(10)), (4, [0, 3, 6, 9])])
def test_each_frame_of_a_clip_is_marked_by_itself(tmp_path: Path, most: int | None, analysed: Any) -> None:
    folder = network_bundle(
        tmp_path / "models", input="multi-frame", accepts={"Modality": "US"}, most_frames=most, threshold=0.35
    )
    (group,) = found_in(folder, clip_of(tmp_path, 10))
    assert group.label_map is not None
    assert group.label_map.shape == (10, 40, 60)
    marked = group.label_map.sum(axis=(1, 2))
    assert [n for n in range(10) if marked[n]] == [n for n in analysed if n >= 3]
    assert list(np.diff(marked[list(analysed)]) >= 0) == [True] * (len(analysed) - 1)
    assert ("Analysed: 4 of 10 frames, evenly spaced." in group.notes) == (most is not None)
    (area,) = group.measurements
    assert area.derivation == "On frame 10, which shows the largest area."
    assert area.value == marked[9] / 2400


def test_a_class_of_a_clip_is_that_of_its_most_probable_frame(tmp_path: Path) -> None:
    folder = classes_bundle(tmp_path / "models", input="multi-frame", **contract(0.0))
    frames = np.stack([scene(n) for n in range(5)])
    (group,) = found_in(folder, saved(coloured(frames), tmp_path / "clip.dcm"))
    (evaluation,) = group.evaluations
    single = []
    for n in range(5):
        one = classes_bundle(tmp_path / f"models{n}", **contract(0.0))
        (alone,) = found_in(one, saved(coloured(frames[n]), tmp_path / f"{n}.dcm"))
        single.append(alone.evaluations[0].probability)
    assert evaluation.probability == max(p for p in single if p is not None)
    assert evaluation.comment == f"Highest on frame {single.index(evaluation.probability) + 1}."


# --- several series


ROLES = [
    {"role": "t2", "when": {"SeriesDescription": "t2"}},
    {"role": "adc", "when": {"SeriesDescription": "adc"}},
]


def two_series(folder: Path, **of_second: Any) -> list[Path]:
    first = write_series(folder / "t2", SeriesDescription="t2")
    return first + write_series(
        folder / "adc", SeriesDescription="adc", SeriesInstanceUID="2.25.77", RescaleIntercept=-500, **of_second
    )


def series_bundle(folder: Path, before: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    """The mean of two series, marked above 700: only the marked voxel is (1000 and 1500)."""
    import torch

    made = network_bundle(
        folder,
        dimensions=3,
        before=before,
        **({"input": "series", "series": ROLES, "accepts": {"Modality": "CT"}, "measurements": None} | changes),
    )
    text = (made / "configs" / "inference.yaml").read_text()
    (made / "configs" / "inference.yaml").write_text(text.replace("in_channels: 1", "in_channels: 2"))
    weights = made / "models" / "model.pt"
    old = hash_file(weights)
    torch.save(
        {"weight": torch.tensor([[0.0, 0.0], [0.5, 0.5]]).reshape(2, 2, 1, 1, 1), "bias": torch.tensor([700.0, 0.0])},
        weights,
    )
    contract_text = (made / "pipeline.yaml").read_text().replace(old, hash_file(weights))
    (made / "pipeline.yaml").write_text(contract_text)
    return made


@pytest.mark.parametrize("named", [False, True], ids=["as channels", "by their names"])
def test_several_series_go_in_by_their_roles(tmp_path: Path, named: bool) -> None:
    folder = series_bundle(tmp_path / "models")
    config = folder / "configs" / "inference.yaml"
    if named:
        loads = READING[0] | {"keys": ["adc", "t2"]}
        joined = {"_target_": "ConcatItemsd", "keys": ["t2", "adc"], "name": "image"}
        _with_preprocessing(config, [loads, joined])
    (group,) = found_in(folder, *two_series(tmp_path / "in"))
    assert group.label_map is not None
    assert [tuple(map(int, where)) for where in np.argwhere(group.label_map)] == [MARKED]
    assert "Read together: t2, adc; places are those of t2." in group.notes


def _with_preprocessing(config: Path, transforms: list[dict[str, Any]]) -> None:
    from ruamel.yaml import YAML

    plain = YAML(typ="safe").load(config.read_text())
    plain["preprocessing"]["transforms"] = transforms
    with config.open("w") as file:
        YAML().dump(plain, file)


def test_series_on_other_grids_are_refused_unless_the_config_resamples_them(tmp_path: Path) -> None:
    folder = series_bundle(tmp_path / "models", segments=[outline()])
    files = two_series(tmp_path / "in", PixelSpacing=[0.8, 0.5])
    with pytest.raises(Permanent, match="adc lies at another place than t2; the service needs one grid for both"):
        found_in(folder, *files)
    resampling: list[dict[str, Any]] = [
        READING[0] | {"keys": ["t2", "adc"]},
        {"_target_": "ResampleToMatchd", "keys": "adc", "key_dst": "t2", "mode": "nearest"},
        {"_target_": "ConcatItemsd", "keys": ["t2", "adc"], "name": "image"},
    ]
    _with_preprocessing(folder / "configs" / "inference.yaml", resampling)
    (group,) = found_in(folder, *files)
    assert group.label_map is not None and group.label_map.shape == (12, 64, 64)


def test_a_missing_series_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="the study has no series for adc"):
        found_in(series_bundle(tmp_path / "models"), *write_series(tmp_path / "in", SeriesDescription="t2"))


# --- workflows


def test_a_workflow_reads_an_image_and_gives_a_label_map(tmp_path: Path) -> None:
    folder = workflow_bundle(
        tmp_path / "models",
        "{}",
        "OUTPUTS.update(label_map=inputs['intensity'] > 0.49, notes=[str(inputs['spacing_mm'])])",
        input="image",
        segments=[segment()],
        measurements=[{"method": "area", "of": [1], "name": {"value": "1", "scheme": "99X", "meaning": "Area"}}],
        evaluations=None,
    )
    (group,) = found_in(folder, saved_image(tmp_path, gradient(), PixelSpacing=[0.5, 0.25]))
    assert group.label_map is not None and group.label_map.shape == (1, 40, 60)
    assert group.measurements[0].value == 40 * 30 * 0.125
    assert group.notes[-1] == "(0.5, 0.25)"


def test_a_workflow_reads_a_volume_with_its_place(tmp_path: Path) -> None:
    folder = workflow_bundle(
        tmp_path / "models",
        "{}",
        "OUTPUTS.update(label_map=inputs['intensity'] > 0, notes=[str(inputs['affine'].shape)])",
        input="volume",
        segments=[segment()],
        measurements=[{"method": "volume", "of": [1], "name": {"value": "1", "scheme": "99X", "meaning": "Volume"}}],
        evaluations=None,
    )
    (group,) = found_in(folder, *write_series(tmp_path / "in"))
    assert group.label_map is not None
    assert [tuple(map(int, where)) for where in np.argwhere(group.label_map)] == [MARKED]
    assert group.measurements[0].value == pytest.approx(2.5 * 0.75 * 0.5 / 1000)
    assert group.notes[-1] == "(4, 4)"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("inputs['intensity'][:20] > 0.5", "label map has the shape 20 x 60; the image needs 1 x 40 x 60"),
        ("inputs['intensity']", "does not hold labels"),
        ("None", "the method gave no label map, but pipeline.yaml has segments"),
    ],
)
def test_a_label_map_of_a_workflow_that_does_not_fit_is_refused(tmp_path: Path, given: str, sentence: str) -> None:
    folder = workflow_bundle(
        tmp_path / "models",
        "{}",
        f"OUTPUTS.update(label_map={given})",
        input="image",
        segments=[segment()],
        measurements=None,
        evaluations=None,
    )
    with pytest.raises(Permanent, match=sentence):
        found_in(folder, saved_image(tmp_path, gradient()))
