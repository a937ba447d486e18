"""A case through its model: what is found, and every way in which a model's answer is no result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from ruamel.yaml import YAML

from pacsnode import findings_files
from pacsnode.errors import Permanent
from pacsnode.findings import Findings, Presence
from pacsnode.infer.bundle import NetworkBundle, WorkflowBundle, load_bundle, pick_device
from pacsnode.infer.catalogue import hash_file, load_service
from pacsnode.infer.compute import ComputeKeeper
from pacsnode.infer.run import infer
from tests.infer.bundles import (
    SENSITIVITY,
    card,
    gradient,
    network_bundle,
    saved_image,
    segment,
    workflow_bundle,
    write_said,
)

ROOT = Path(__file__).resolve().parents[2]
ECG = Path(str(get_testdata_file("waveform_ecg.dcm")))


def found_in(folder: Path, *files: Path) -> Findings:
    service = load_service(folder)
    return infer(service, load_bundle(service, "cpu"), "cpu", files)


def lambda_(function: str) -> list[dict[str, Any]]:
    """A step of postprocessing that turns the prediction into something else."""
    return [{"_target_": "Lambdad", "keys": "pred", "func": f"$lambda pred: {function}"}]


def test_a_threshold_marks_the_bright_half(tmp_path: Path) -> None:
    path = saved_image(tmp_path, gradient(), PixelSpacing=[0.5, 0.25], Modality="CR")
    (group,) = found_in(network_bundle(tmp_path / "models"), path).groups
    assert group.label_map is not None and group.picture is not None
    assert group.label_map.shape == (1, 40, 60)
    assert np.array_equal(group.label_map[0], np.tile(np.arange(60) >= 30, (40, 1)))
    assert group.picture.shape == (40, 60)
    (area,) = group.measurements
    assert (area.value, area.unit.value) == (40 * 30 * 0.125, "mm2")
    assert group.notes == ("Pixel spacing as the device stated it, not corrected for projection magnification.",)


def test_a_zero_spacing_never_reaches_millimetres(tmp_path: Path) -> None:
    path = saved_image(tmp_path, gradient(), PixelSpacing=[0, 0])
    (group,) = found_in(network_bundle(tmp_path / "models"), path).groups
    (area,) = group.measurements
    assert (area.value, area.unit.value) == (0.5, "{fraction}")


def test_labels_come_back_to_the_grid_of_the_image(tmp_path: Path) -> None:
    folder = network_bundle(
        tmp_path / "models",
        before=[{"_target_": "Resized", "keys": "image", "spatial_size": [16, 16]}],
        after=[{"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}],
    )
    (group,) = found_in(folder, saved_image(tmp_path, gradient(64, 128))).groups
    assert group.label_map is not None
    assert group.label_map.shape == (1, 64, 128)
    assert abs(int(np.flatnonzero(group.label_map[0, 32])[0]) - 64) <= 4


def test_each_image_of_a_case_is_a_group(tmp_path: Path) -> None:
    files = [saved_image(tmp_path, gradient()) for _ in range(3)]
    groups = found_in(network_bundle(tmp_path / "models"), *files).groups
    assert [g.source for g in groups] == [(str(pydicom.dcmread(f).SOPInstanceUID),) for f in files]


BAD_ANSWERS: list[tuple[dict[str, Any], str]] = [
    (
        {"segments": [segment(minimum_fraction=0.6)]},
        r"no usable lung \(50.00% of the image, more than 60.00% expected\): not the kind of image",
    ),
    ({"segments": [segment(), segment(2, "Heart")]}, r"no usable heart \(0.00% of the image"),
    ({"threshold": 2.0}, r"no usable lung \(0.00%"),
    ({"threshold": float("nan")}, r"output is not a number \(NaN or infinity\)"),
    ({"threshold": float("inf")}, r"output is not a number \(NaN or infinity\)"),
    ({"after": lambda_("pred[:, :20]")}, r"mask has the shape 1 x 20 x 40; the image needs 1 x 60 x 40"),
    ({"after": lambda_("pred.repeat(2, 1, 1)[:2, :, :30]")}, r"mask has the shape 1 x 60 x 30"),
    ({"late": lambda_("pred + 4")}, r"labels that pipeline.yaml does not know: \[4, 5\]"),
    ({"late": lambda_("pred * 256")}, r"does not hold labels \(whole numbers from 0 to 255\)"),
    ({"late": lambda_("pred * 257")}, r"does not hold labels"),
    ({"late": lambda_("-pred")}, r"does not hold labels"),
    ({"late": lambda_("pred * 1.5")}, r"does not hold labels"),
    ({"late": lambda_("pred * float('nan')")}, r"does not hold labels"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_ANSWERS, ids=lambda value: None)
def test_an_answer_that_is_no_result_is_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    late = changes.pop("late", None)
    if late:
        changes = changes | {"after": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}, *late]}
    folder = network_bundle(tmp_path / "models", **changes)
    if late:  # what follows a label map must not be discretised again
        path = folder / "configs" / "inference.yaml"
        head, _, tail = path.read_text().rpartition("  - _target_: AsDiscreted")
        path.write_text(head + tail[tail.index("  - _target_: SaveImaged") :])
    with pytest.raises(Permanent, match=sentence):
        found_in(folder, saved_image(tmp_path, gradient()))


def test_weights_that_run_code_are_not_loaded(tmp_path: Path) -> None:
    import torch

    folder = network_bundle(tmp_path / "models")
    weights = folder / "models" / "model.pt"
    old = hash_file(weights)
    torch.save({"weight": Path("code")}, weights)
    text = (folder / "pipeline.yaml").read_text()
    (folder / "pipeline.yaml").write_text(text.replace(old, hash_file(weights)))
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        load_bundle(load_service(folder), "cpu")


def test_the_time_of_the_network_is_counted(tmp_path: Path) -> None:
    service = load_service(network_bundle(tmp_path / "models"))
    bundle = NetworkBundle(service, "cpu")
    assert bundle.network_s == 0
    bundle.pictures([np.zeros((20, 20), dtype=np.float32)])
    once = bundle.network_s
    bundle.pictures([np.zeros((20, 20), dtype=np.float32)])
    assert 0 < once < bundle.network_s


# --- workflows


SAID = {
    "values": {"heart_rate": 61.0},
    "findings": {"af": {"presence": "absent", "probability": 0.1, "comment": "regular"}},
    "beats": [100, 1080],
    "notes": ["Made up."],
}


def said(**changes: Any) -> str:
    return repr(SAID | changes)


def test_a_workflows_answer_becomes_findings(tmp_path: Path) -> None:
    (group,) = found_in(workflow_bundle(tmp_path, said(), card=card(measured=[SENSITIVITY])), ECG).groups
    assert [m.value for m in group.measurements] == [61.0]
    (evaluation,) = group.evaluations
    assert (evaluation.presence, evaluation.probability) == (Presence.ABSENT, 0.1)
    assert group.trace is not None
    assert group.trace.beats == (100, 1080)
    assert group.notes == ("Recorded through a filter: from 0.05 Hz to 300 Hz.", "Made up.")


@pytest.mark.parametrize(
    "measured",
    [[], [SENSITIVITY | {"real_data": False}], [SENSITIVITY | {"metric": "specificity"}]],
    ids=["nothing", "on made-up data", "something else"],
)
def test_absent_is_not_said_where_the_sensitivity_was_not_measured(
    tmp_path: Path, measured: list[dict[str, Any]]
) -> None:
    (group,) = found_in(workflow_bundle(tmp_path, said(), card=card(measured=measured)), ECG).groups
    (evaluation,) = group.evaluations
    assert evaluation.presence is Presence.UNDETERMINED
    assert evaluation.comment == "No candidate found; sensitivity not measured. regular"


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        (said(values={}), "could measure nothing"),
        (said(values={"heart_rate": float("nan")}), "Heart rate is not a number"),
        (said(values={"heart_rate": float("inf")}).replace("inf", "1e999"), "Heart rate is not a number"),
        (said(findings={"af": {"presence": "absent", "probability": 1.2}}), "1.2, not between 0 and 1"),
        (said(findings={"af": {"presence": "absent", "probability": float("nan")}}), "nan, not between 0 and 1"),
    ],
)
def test_a_workflows_answer_that_is_no_result_is_refused(tmp_path: Path, outputs: str, sentence: str) -> None:
    with pytest.raises(Permanent, match=sentence):
        found_in(workflow_bundle(tmp_path, outputs), ECG)


def test_a_workflows_refusal_is_the_reason(tmp_path: Path) -> None:
    folder = workflow_bundle(tmp_path, said(), "raise ValueError('the recording is too short')")
    with pytest.raises(Permanent, match=r"^the recording is too short$"):
        found_in(folder, ECG)


def test_a_class_that_is_no_workflow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="has no BundleWorkflow OUTPUTS"):
        found_in(workflow_bundle(tmp_path, said(), workflow={"class": "OUTPUTS"}), ECG)


def test_a_changed_script_is_loaded_anew(tmp_path: Path) -> None:
    """The results say the new hash, so the new code must have run; and __pycache__, in no hash, must not."""
    folder = workflow_bundle(tmp_path, said())
    assert found_in(folder, ECG).groups[0].measurements[0].value == 61.0
    write_said(folder, said(values={"heart_rate": 62.0}))  # of the same length, within the same second
    assert found_in(folder, ECG).groups[0].measurements[0].value == 62.0
    assert not (folder / "scripts" / "__pycache__").exists()


def test_two_bundles_may_use_the_same_names(tmp_path: Path) -> None:
    one = load_service(workflow_bundle(tmp_path, said(), name="one"))
    two = load_service(workflow_bundle(tmp_path, said(values={"heart_rate": 70.0}), name="two"))
    first, second = WorkflowBundle(one), WorkflowBundle(two)
    assert infer(one, first, "cpu", [ECG]).groups[0].measurements[0].value == 61.0
    assert infer(two, second, "cpu", [ECG]).groups[0].measurements[0].value == 70.0


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(Permanent, match="torch finds no CUDA device; set it to auto or cpu"):
        pick_device("cuda")
    assert pick_device("auto") == "cpu"


# --- the real child


def child(**changes: str) -> ComputeKeeper:
    return ComputeKeeper(
        [sys.executable, "-m", "pacsnode.child"], dict(os.environ) | {"PYTHONPATH": str(ROOT)} | changes
    )


def request(folder: Path, path: Path, out: Path) -> dict[str, Any]:
    service = load_service(folder)
    return {
        "service": str(folder),
        "bundle_hash": service.bundle_hash,
        "files": [str(path)],
        "folder": str(out),
        "device": "cpu",
    }


def test_the_child_runs_a_large_film_within_its_memory_and_tells_its_reasons(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """3000 x 3000 pixels through a network of four channels and back: far below the limit of the chest bundle."""
    invert = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
    resize = {"_target_": "Resized", "keys": "image", "spatial_size": [128, 128]}
    folder = network_bundle(tmp_path / "models", before=[resize], after=[invert])
    rows = np.random.default_rng(0).integers(0, 300, (3000, 3000)).astype("uint16")
    film = saved_image(tmp_path, rows + gradient(3000, 3000))
    keeper = child()
    try:
        services = [(str(folder), load_service(folder).bundle_hash)]
        warm = {"device": "cpu", "services": services}
        assert keeper.call("warm", warm, time_limit_s=120, memory_limit_mb=3000) == {"device": "cpu"}
        asked = request(folder, film, tmp_path / "run")
        reply = keeper.call("infer", asked, time_limit_s=120, memory_limit_mb=3000)
        assert reply["network_s"] > 0
        (group,) = findings_files.load(tmp_path / "run").groups
        assert group.label_map is not None and group.label_map.shape == (1, 3000, 3000)
        status = Path(f"/proc/{keeper.pid}/status").read_text()
        peak_mb = int(status.split("VmHWM:")[1].split()[0]) // 1024
        assert peak_mb < 2000
        with pytest.raises(Permanent, match="files of threshold were changed while the node runs"):
            keeper.call("infer", asked | {"bundle_hash": "0" * 64}, time_limit_s=60, memory_limit_mb=3000)
        (folder / "pipeline.yaml").write_text("version: 1\nnome: x\n")
        with pytest.raises(Permanent, match=r"pipeline.yaml:2:1 nome: there is no such key; did you mean name\?"):
            keeper.call("infer", asked | {"bundle_hash": "0" * 64}, time_limit_s=60, memory_limit_mb=3000)
        with pytest.raises(Permanent, match=r"threshold: .*pipeline.yaml"):
            keeper.call("warm", warm | {"services": [(str(folder), "0" * 64)]}, time_limit_s=60, memory_limit_mb=3000)
    finally:
        keeper.close()
    for line in capfd.readouterr().err.splitlines():
        assert json.loads(line)["level"] not in ("warning", "error"), line


def test_a_bundle_that_changes_its_own_files_as_it_loads_is_refused(tmp_path: Path) -> None:
    """What runs is what was hashed: the hash is taken before and after."""
    folder = workflow_bundle(tmp_path / "models", said())
    with (folder / "scripts" / "workflow.py").open("a") as file:
        file.write("from pathlib import Path\nPath(__file__).with_name('more.py').write_text('')\n")
    keeper = child()
    try:
        with pytest.raises(Permanent, match=r"^not allowed to run: the files of says were changed while the node runs"):
            keeper.call("infer", request(folder, ECG, tmp_path / "run"), time_limit_s=120, memory_limit_mb=3000)
    finally:
        keeper.close()
    assert not (tmp_path / "run").exists()


def test_what_the_service_needs_is_asked_of_every_input(tmp_path: Path) -> None:
    film = saved_image(tmp_path, gradient(), PixelSpacing=[0, 0])
    folder = network_bundle(tmp_path / "a", needs={"pixel_spacing_mm": [0.1, 0.3]})
    with pytest.raises(Permanent, match="does not say how large its pixels are"):
        found_in(folder, film)
    folder = network_bundle(tmp_path / "b", needs={"views": [{"ViewPosition": "PA"}]})
    with pytest.raises(Permanent, match="needs an image with ViewPosition PA"):
        found_in(folder, film)
    with pytest.raises(Permanent, match="needs the leads V9"):
        found_in(workflow_bundle(tmp_path / "c", said(), needs={"leads": ["V9"]}), ECG)


def test_a_config_in_json_is_as_good_as_one_in_yaml(tmp_path: Path) -> None:
    folder = network_bundle(tmp_path / "models")
    path = folder / "configs" / "inference.yaml"
    path.with_suffix(".json").write_text(json.dumps(YAML(typ="safe").load(path.read_text())))
    path.unlink()
    (group,) = found_in(folder, saved_image(tmp_path, gradient())).groups
    assert group.label_map is not None and group.label_map.any()


def test_without_torch_the_reason_says_what_to_install(tmp_path: Path) -> None:
    folder = network_bundle(tmp_path / "models")
    film = saved_image(tmp_path, gradient())
    (tmp_path / "shadow" / "torch").mkdir(parents=True)
    (tmp_path / "shadow" / "torch" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')"
    )
    keeper = child(PYTHONPATH=f"{tmp_path / 'shadow'}:{ROOT}")
    try:
        for operation, asked in (
            ("infer", request(folder, film, tmp_path / "run")),
            ("warm", {"device": "auto", "services": []}),
        ):
            with pytest.raises(Permanent, match=r"need torch and MONAI.*run: pip install 'pacsnode\[ai\]'"):
                keeper.call(operation, asked, time_limit_s=60, memory_limit_mb=3000)
    finally:
        keeper.close()


def test_reading_the_catalogue_needs_no_torch() -> None:
    program = (
        "import sys, pacsnode.infer.catalogue, pacsnode.infer.compute, pacsnode.child; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


# --- the shipped bundles


def shipped(name: str) -> Path:
    folder = ROOT / "models" / name
    if not (folder / "pipeline.yaml").is_file():
        pytest.skip(f"{name} is not here yet")
    weights = folder / "models" / "model.pt"
    text = (folder / "pipeline.yaml").read_text()
    if "network:" in text and (not weights.is_file() or hash_file(weights) not in text):
        pytest.skip(f"the weights of {name} and its pipeline.yaml do not belong together yet")
    return folder


def test_the_shipped_chest_bundle_reads_a_film() -> None:
    (group,) = found_in(shipped("chest-xray"), Path(str(get_testdata_file("RG1_UNCR.dcm")))).groups
    assert group.label_map is not None
    assert set(np.unique(group.label_map)) == {0, 1, 2, 3}
    assert 0.2 < group.measurements[0].value < 0.9


def test_the_shipped_ecg_bundle_reads_an_ecg() -> None:
    (group,) = found_in(shipped("ecg-arrhythmia"), ECG).groups
    assert group.measurements
    assert group.trace is not None
