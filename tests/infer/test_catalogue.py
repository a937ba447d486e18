"""A broken bundle is refused at the start, with the place of the mistake and what to do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pacsnode.errors import ConfigError
from pacsnode.infer.catalogue import hash_file, load_catalogue, load_service
from tests.infer.bundles import (
    AREA,
    HEART_RATE,
    network_bundle,
    pipeline,
    segment,
    workflow_bundle,
    write_pipeline,
)

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network_bundle(tmp_path_factory.mktemp("good"))


@pytest.fixture
def folder(tmp_path: Path, good: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(good, tmp_path / "threshold"))


def problem(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_service(folder)
    return str(caught.value)


def changed(folder: Path, **changes: Any) -> Path:
    network = {"weights": "models/model.pt", "sha256": hash_file(folder / "models" / "model.pt")}
    return write_pipeline(folder, pipeline(**({"network": network} | changes)))


def test_a_good_bundle_is_loaded(folder: Path) -> None:
    service = load_service(folder)
    assert (service.name, service.version) == ("threshold", "0.1.0")
    assert len(service.bundle_hash) == len(service.pipeline_hash) == 64
    assert list(load_catalogue(folder.parent)) == ["threshold"]


BROKEN: list[tuple[dict[str, Any], str, str]] = [
    ({"title": None}, "title", "this key is missing"),
    ({"titel": "x"}, "titel", "there is no such key; did you mean title?"),
    ({"version": 2}, "version", "the number 2 is not known; expected: 1"),
    ({"status": "certifed"}, "status", "did you mean certified?"),
    ({"input": "video"}, "input", "expected: 'image', 'multi-frame', 'volume', 'waveform' or 'series'"),
    ({"name": "Threshold"}, "name", "expected text like"),
    ({"name": "other"}, "name", "the folder is threshold; they must be equal"),
    ({"machine_learning": "yes"}, "machine_learning", "expected true or false"),
    ({"limits": {"time_s": 0}}, "limits.time_s", "a number above 0"),
    ({"limits": {"memory_mb": 8}}, "limits.memory_mb", "a number of at least 64"),
    ({"network": {"weights": "models/model.pt", "sha256": "abc"}}, "network.sha256", "expected text like"),
    ({"network": None}, "file", "exactly one of `network`, `http`, `workflow` and `remote`"),
    ({"workflow": {"class": "A"}}, "file", "exactly one of `network`, `http`, `workflow` and `remote`"),
    ({"segments": [segment(1), segment(3)]}, "segments", "values must be 1 to n without gaps"),
    ({"segments": [segment(1), segment(1)]}, "segments", "values must be 1 to n without gaps"),
    ({"segments": [segment(0)]}, "segments.0.value", "a number of at least 1"),
    ({"segments": [segment(1) | {"color_rgb": [1, 2]}]}, "segments.0.color_rgb", "at least 3 of them"),
    ({"segments": None, "measurements": None}, "network", "a network needs `segments`"),
    ({"input": "waveform"}, "input", "a `network` reads images, clips, volumes or series, not waveform"),
    ({"measurements": [{"name": AREA}]}, "measurements.0", "give either `method` or `key`"),
    ({"measurements": [HEART_RATE]}, "measurements.0", "`key` names a value of a workflow; give a `method`"),
    ({"measurements": [{"name": AREA, "method": "area"}]}, "measurements.0", "`of` is needed"),
    ({"measurements": [{"name": AREA, "method": "area", "of": [2]}]}, "measurements.0", "must name values of segments"),
    ({"measurements": [{"name": AREA, "method": "width_ratio", "of": [1]}]}, "measurements.0", "`over`"),
    ({"measurements": [{"name": AREA, "method": "volume", "of": [1]}]}, "measurements.0", "an image by `area`"),
    (
        {"measurements": [{"name": AREA, "method": "area", "of": [1], "unit": AREA}]},
        "measurements.0",
        "the node knows the unit of area",
    ),
    ({"input": "volume"}, "measurements.0", "a volume is measured by `volume`"),
    ({"accepts": {"Modallity": "CT"}}, "accepts", "Modality"),
]


@pytest.mark.parametrize(("changes", "key", "sentence"), BROKEN, ids=lambda value: None)
def test_a_mistake_is_named_by_place_and_in_words(
    folder: Path, changes: dict[str, Any], key: str, sentence: str
) -> None:
    path = changed(folder, **changes)
    text = problem(folder)
    (line,) = [part for part in text.splitlines() if sentence in part]
    assert re.match(rf"{re.escape(str(path))}:\d+:\d+ {re.escape(key)}", line)


def test_all_mistakes_of_all_bundles_are_told_at_once(tmp_path: Path, good: Path) -> None:
    for name in ("one", "two"):
        copy = Path(shutil.copytree(good, tmp_path / name))
        changed(copy, name="other")
    (tmp_path / "three").mkdir()
    with pytest.raises(ConfigError) as caught:
        load_catalogue(tmp_path)
    text = str(caught.value)
    assert "the folder is one" in text
    assert "the folder is two" in text
    assert f"{tmp_path / 'three'}: a service needs a pipeline.yaml; there is none" in text


def test_no_folder_of_models_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set PACSNODE_MODELS to the folder of AI services"):
        load_catalogue(tmp_path / "nowhere")


# --- weights and files


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "models" / "model.pt").unlink()
    assert "there is no file" in problem(folder)
    assert "copy the weights there" in problem(folder)
    assert re.search(r"pipeline\.yaml:\d+:\d+ network\.weights", problem(folder))


def test_weights_of_another_hash_are_refused(folder: Path) -> None:
    with (folder / "models" / "model.pt").open("ab") as file:
        file.write(b"!")
    assert re.search(r"has SHA-256 \w{12}…, expected \w{12}…; restore the weights", problem(folder))


@pytest.mark.parametrize("way", ["up", "absolute", "symlink", "folder symlink"])
def test_weights_outside_of_the_folder_are_refused(folder: Path, tmp_path: Path, way: str) -> None:
    outside = tmp_path / "outside" / "model.pt"
    outside.parent.mkdir()
    shutil.copy(folder / "models" / "model.pt", outside)
    weights = {"up": "../outside/model.pt", "absolute": str(outside)}.get(way, "linked/model.pt")
    if way == "symlink":
        (folder / "linked").mkdir()
        (folder / "linked" / "model.pt").symlink_to(outside)
    elif way == "folder symlink":
        (folder / "linked").symlink_to(outside.parent)
    changed(folder, network={"weights": weights, "sha256": hash_file(outside)})
    assert "weights must lie inside the service's folder" in problem(folder)


def test_code_that_the_hash_would_not_cover_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "scripts").symlink_to(tmp_path / "elsewhere")
    assert "links to a place outside of the folder, which the hash does not cover" in problem(folder)


@pytest.mark.parametrize("missing", ["configs/inference.yaml", "scripts/workflow.py"])
def test_a_bundle_without_its_model_is_refused(folder: Path, tmp_path: Path, missing: str) -> None:
    other = workflow_bundle(tmp_path / "other", "{}")
    here = folder if missing.startswith("configs") else other
    (here / missing).unlink()
    assert f"the folder has no {missing}" in problem(here)


NODULE = {
    "key": "nodule",
    "label": "Nodule",
    "name": {"value": "27925004", "scheme": "SCT", "meaning": "Nodule"},
    "shape": "box",
    "threshold": 0.5,
}


@pytest.mark.parametrize(
    ("regions", "changes", "reason"),
    [
        ([NODULE], {}, "a network has either `segments` or `regions`"),
        ([NODULE | {"shape": "circle"}], {"segments": None, "measurements": None}, "a network gives boxes"),
        ([NODULE | {"threshold": None}], {"segments": None, "measurements": None}, "`threshold` is missing"),
        (
            [NODULE, NODULE | {"key": "mass"}],
            {"segments": None, "measurements": None},
            "`index` 0 is here twice; each label of the network has its own",
        ),
        (
            [NODULE],
            {"segments": None, "measurements": None, "polarity_check": True},
            "`polarity_check` is for a network that segments or classifies",
        ),
    ],
)
def test_a_detector_says_what_its_boxes_are(
    regions: list[dict[str, Any]], changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    given = [{key: value for key, value in one.items() if value is not None} for one in regions]
    assert reason in problem(network_bundle(tmp_path, regions=given, **changes))


def test_a_recording_has_no_regions(tmp_path: Path) -> None:
    folder = workflow_bundle(tmp_path, "{}", regions=[NODULE])
    assert "a waveform has no `regions`" in problem(folder)


def test_a_network_has_segments_or_classes(tmp_path: Path) -> None:
    classes = {"activation": "softmax", "classes": [{"index": 0, "label": "normal"}]}
    folder = network_bundle(tmp_path, classification=classes)
    assert "a network has either `segments` or `classification`" in problem(folder)


BROKEN_METADATA: list[tuple[bytes | None, str]] = [
    (None, r"FileNotFoundError"),
    (b"", r"metadata\.json:1:1: not JSON"),
    (b'{"version": "1",\n  oops}', r"metadata\.json:2:3: not JSON"),
    (b"{}", r"KeyError: 'version'"),
    (b"[]", r"TypeError"),
    (b"\xff\xfe{", r"UnicodeDecodeError"),
    (b'{"version": 1}', r'must be a text like "0\.1\.0"'),
    (b'{"version": ""}', r'must be a text like "0\.1\.0"'),
    (b"[" * 200_000, r"RecursionError"),
]


@pytest.mark.parametrize(("content", "sentence"), BROKEN_METADATA, ids=lambda value: None)
def test_an_unreadable_version_is_named(folder: Path, content: bytes | None, sentence: str) -> None:
    path = folder / "configs" / "metadata.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert re.search(sentence, problem(folder))
    assert problem(folder).startswith(str(path))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda f: (f / "configs" / "extra.txt").write_text("x"), False),
        (lambda f: (f / "configs" / "metadata.json").write_text('{"version": "0.1.1"}'), False),
        (lambda f: (f / "configs" / "metadata.json").rename(f / "configs" / "meta.json"), None),
        (lambda f: ((f / "__pycache__").mkdir(), (f / "__pycache__" / "x.pyc").write_text("x")), True),
    ],
)
def test_the_hash_covers_every_file_but_pythons_caches(
    folder: Path, change: Callable[[Path], Any], same: bool | None
) -> None:
    before = load_service(folder).bundle_hash
    change(folder)
    if same is None:
        problem(folder)
    else:
        assert (load_service(folder).bundle_hash == before) is same


@pytest.mark.parametrize("name", ["chest-xray", "ecg-arrhythmia"])
def test_the_shipped_bundles_load(name: str) -> None:
    folder = MODELS / name
    if not (folder / "pipeline.yaml").is_file():
        pytest.skip(f"{name} is not here yet")
    weights = folder / "models" / "model.pt"
    if "network:" in (folder / "pipeline.yaml").read_text() and (
        not weights.is_file() or hash_file(weights) not in (folder / "pipeline.yaml").read_text()
    ):
        pytest.skip(f"the weights of {name} and its pipeline.yaml do not belong together yet")
    assert load_service(folder).name == name
