"""The line before the child, with real children: order, batches, and bundles that do what bundles may do."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from pacsnode import findings_files
from pacsnode.errors import PacsnodeError, Permanent
from pacsnode.infer.catalogue import load_service
from pacsnode.infer.compute import ComputeKeeper, Message
from pacsnode.infer.pipeline import Limits
from pacsnode.infer.waiting import ComputeQueue, Kind, Turn
from tests.infer.bundles import gradient, network_bundle, saved, saved_image, workflow_bundle, write_said
from tests.infer.test_forms import end_with
from tests.infer.test_zoo import coloured, contract, scene
from tests.infer.zoo import classes_bundle, rgb_bundle

ROOT = Path(__file__).resolve().parents[2]
ECG = Path(str(get_testdata_file("waveform_ecg.dcm")))
SAID = "{'values': {'heart_rate': 61.0}, 'findings': {}}"

RECORDER = """
import time
from pathlib import Path
from pacsnode.errors import Permanent
from pacsnode.infer import compute

def note(path, text):
    with Path(path).open("a") as file:
        file.write(text + " ")

def slow(request):
    note(request["log"], request["name"])
    Path(request["log"] + ".begun").touch()
    time.sleep(1.0)
    return {}

def encode(request):
    note(request["log"], request["name"])
    return {}

def infer(request):
    note(request["log"], request["files"][0])
    return {"network_s": 0.0}

def infer_many(request):
    names = [item["files"][0] for item in request["items"]]
    note(request["log"], "+".join(names))
    if "bad" in names:
        raise Permanent("all of them fail")
    return {"answers": [{"network_s": 0.0, "reason": None} for _ in names]}

compute.serve({"slow": slow, "encode": encode, "infer": infer, "infer_many": infer_many})
"""


@pytest.fixture
def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ComputeKeeper]:
    """Before the real child, or before one that only notes what it is asked (`indirect`)."""
    command = ["-m", "pacsnode.child"]
    if getattr(request, "param", "") == "recorder":
        (tmp_path / "recorder.py").write_text(RECORDER)
        command = [str(tmp_path / "recorder.py")]
    made = ComputeKeeper([sys.executable, *command], dict(os.environ) | {"PYTHONPATH": str(ROOT)})
    yield made
    made.close()


@pytest.fixture
def queue(keeper: ComputeKeeper) -> ComputeQueue:
    return ComputeQueue(keeper)


def waiting(queue: ComputeQueue, count: int) -> None:
    """Until so many wait; without a bound of its own (the test run has one)."""
    while queue.length < count:
        threading.Event().wait(0.01)


def recorded(queue: ComputeQueue, log: Path, jobs: Sequence[Callable[[], Message]]) -> list[str]:
    """What the child was asked, in its order, when all `jobs` came while it was busy with something else."""
    limits = Limits(time_s=30, memory_mb=2000)
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(
            lambda: queue.call("slow", {"log": str(log), "name": "first"}, limits, Turn(10, Kind.INFER))
        )
        while not Path(f"{log}.begun").exists():
            threading.Event().wait(0.01)
        running = []
        for number, job in enumerate(jobs):
            running.append(pool.submit(job))
            waiting(queue, number + 1)
        for one in (first, *running):
            one.result()
    return log.read_text().split()


@pytest.mark.parametrize("keeper", ["recorder"], indirect=True)
def test_what_is_urgent_goes_first_and_reports_before_models_before_pictures(
    queue: ComputeQueue, tmp_path: Path
) -> None:
    log, limits = tmp_path / "log", Limits(time_s=30, memory_mb=2000)
    turns = {
        "night": Turn(20, Kind.REPORT),
        "picture": Turn(10, Kind.PICTURE),
        "model": Turn(10, Kind.INFER),
        "report": Turn(10, Kind.REPORT),
        "stat": Turn(1, Kind.PICTURE),
    }
    jobs = [
        partial(queue.call, "encode", {"log": str(log), "name": name}, limits, turn) for name, turn in turns.items()
    ]
    assert recorded(queue, log, jobs) == ["first", "stat", "report", "model", "picture", "night"]


def asking(queue: ComputeQueue, log: Path, name: str, service: str, priority: int = 10) -> Callable[[], Message]:
    request = {"service": service, "bundle_hash": "1", "device": "cpu", "files": [name], "folder": "", "log": str(log)}
    limits = Limits(time_s=30, memory_mb=2000, batch=3)
    return lambda: queue.infer(request, limits, priority, is_batchable=service != "volume")


@pytest.mark.parametrize("keeper", ["recorder"], indirect=True)
def test_waiting_images_of_one_service_are_one_batch_of_the_cards_size(queue: ComputeQueue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    asked = [
        ("a", "film"),
        ("v", "volume"),
        ("b", "film"),
        ("x", "hand"),
        ("c", "film"),
        ("d", "film"),
        ("w", "volume"),
    ]
    jobs = [asking(queue, log, name, service) for name, service in asked]
    jobs.append(asking(queue, log, "u", "film", priority=1))
    assert recorded(queue, log, jobs) == ["first", "u", "a+b+c", "v", "x", "d", "w"]


@pytest.mark.parametrize("keeper", ["recorder"], indirect=True)
def test_a_batch_that_fails_is_run_one_by_one(queue: ComputeQueue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [asking(queue, log, name, "film") for name in ("good", "bad", "fine")]
    assert recorded(queue, log, jobs) == ["first", "good+bad+fine", "good", "bad", "fine"]


# --- real models


def request(folder: Path, files: list[Path], out: Path) -> dict[str, Any]:
    return {
        "service": str(folder),
        "bundle_hash": load_service(folder).bundle_hash,
        "files": [str(f) for f in files],
        "folder": str(out),
        "device": "cpu",
    }


def run(queue: ComputeQueue, folder: Path, files: list[Path], out: Path) -> str:
    """The reason why there are no findings, "" where there are."""
    pipeline = load_service(folder).pipeline
    batchable = pipeline.input == "image" and pipeline.network is not None
    try:
        queue.infer(request(folder, files, out), pipeline.limits, 10, is_batchable=batchable)
    except PacsnodeError as error:
        assert isinstance(error, Permanent), error
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ["classes", "labels", "threshold"])
def test_a_batch_says_what_single_runs_say(queue: ComputeQueue, tmp_path: Path, kind: str) -> None:
    """Sizes are mixed, so that some images go together and some do not."""
    models = tmp_path / "models"
    folder = {
        "classes": lambda: classes_bundle(models, **contract(0.5)),
        "labels": lambda: rgb_bundle(models),
        "threshold": lambda: network_bundle(models),
    }[kind]()
    rng = np.random.default_rng(0)
    if kind == "threshold":
        films = [saved_image(tmp_path, rng.integers(0, 4000, (60 + n // 6, 50)).astype("uint16")) for n in range(12)]
    else:
        films = [saved(coloured(scene(n, 80 + n // 6)), tmp_path / f"{n}.dcm") for n in range(12)]
    alone = [run(queue, folder, [film], tmp_path / f"alone-{n}") for n, film in enumerate(films)]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda n: run(queue, folder, [films[n]], tmp_path / f"many-{n}"), range(12)))
    assert together == alone
    assert not any(alone)
    for n in range(12):
        (one,), (other,) = (findings_files.load(tmp_path / f"{name}-{n}").groups for name in ("alone", "many"))
        assert one.evaluations == other.evaluations
        assert one.source == other.source
        assert (one.label_map is None) == (kind == "classes")
        if one.label_map is not None and other.label_map is not None:
            assert np.array_equal(one.label_map, other.label_map)


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "hangs": (
        lambda models: workflow_bundle(
            models, SAID, "import time; time.sleep(600)", name="hangs", limits={"time_s": 2.0, "memory_mb": 3000}
        ),
        "the model was stopped: it took longer than its limit of 2 s",
    ),
    "eats-memory": (
        lambda models: workflow_bundle(
            models,
            SAID,
            "held = [bytearray(b'x' * (8 << 20)) for _ in range(10000)]",
            name="eats-memory",
            limits={"time_s": 60, "memory_mb": 1500},
        ),
        "MB, more than its limit of 1500 MB",
    ),
    "allocates": (
        lambda models: workflow_bundle(models, SAID, "import torch; torch.empty(1 << 50)", name="allocates"),
        "can't allocate memory: you tried to allocate",
    ),
    "raises": (
        lambda models: workflow_bundle(models, SAID, "raise ZeroDivisionError('nothing there')", name="raises"),
        "the model failed: ZeroDivisionError: nothing there",
    ),
    "gives-nan": (
        lambda models: network_bundle(models, name="gives-nan", threshold=float("nan")),
        "the model's output is not a number (NaN or infinity)",
    ),
    "wrong-grid": (
        lambda models: network_bundle(
            models,
            name="wrong-grid",
            after=[{"_target_": "Resized", "keys": "pred", "spatial_size": [16, 16]}],
        ),
        "the model's mask has the shape 1 x 16 x 16; the image needs 1 x 60 x 40",
    ),
    "exits": (
        lambda models: workflow_bundle(models, SAID, "import os; os._exit(7)", name="exits"),
        "the compute process died (exit code 7) while it ran infer; it was tried 2 times and is not tried again",
    ),
    "changed": (
        lambda models: workflow_bundle(models, SAID, name="changed"),
        "not allowed to run: the files of changed were changed while the node runs",
    ),
}


def test_each_hostile_bundle_is_parked_with_its_reason_while_other_cases_go_on(
    queue: ComputeQueue, tmp_path: Path
) -> None:
    models, film = tmp_path / "models", saved_image(tmp_path, gradient())
    made = {name: make(models) for name, (make, _) in HOSTILE.items()}
    good = network_bundle(models, name="good")
    stale = request(made["changed"], [ECG], tmp_path / "changed")
    write_said(made["changed"], "{'values': {'heart_rate': 99.0}, 'findings': {}}")
    assert run(queue, good, [film], tmp_path / "good-first") == ""

    def parked(name: str) -> str:
        if name == "changed":
            with pytest.raises(Permanent) as refused:
                queue.infer(stale, Limits(time_s=60, memory_mb=3000), 10, is_batchable=False)
            return str(refused.value)
        is_network = load_service(made[name]).pipeline.network is not None
        return run(queue, made[name], [film if is_network else ECG], tmp_path / name)

    with ThreadPoolExecutor(30) as pool:
        bad = {name: pool.submit(parked, name) for name in HOSTILE}
        fine = [pool.submit(run, queue, good, [film], tmp_path / f"good-{n}") for n in range(12)]
        assert [one.result() for one in fine] == [""] * 12
        reasons = {name: one.result() for name, one in bad.items()}
    for name, (_, sentence) in HOSTILE.items():
        assert sentence in reasons[name], (name, reasons[name])
        assert not (tmp_path / name / findings_files.RECORD).exists()
    assert run(queue, good, [film], tmp_path / "good-last") == ""


def test_one_unsuitable_image_of_a_batch_is_parked_alone(queue: ComputeQueue, tmp_path: Path) -> None:
    folder = network_bundle(tmp_path / "models")
    films = [saved_image(tmp_path, gradient()) for _ in range(5)]
    films.insert(2, saved_image(tmp_path, np.zeros((40, 60), dtype="uint16")))
    with ThreadPoolExecutor(6) as pool:
        reasons = list(pool.map(lambda n: run(queue, folder, [films[n]], tmp_path / str(n)), range(6)))
    assert [bool(reason) for reason in reasons] == [False, False, True, False, False, False]
    assert reasons[2] == "the image is empty: all pixels have the same value"


def test_a_wrong_grid_is_a_wrong_grid_in_a_batch_too(queue: ComputeQueue, tmp_path: Path) -> None:
    folder = network_bundle(tmp_path / "models")
    end_with(folder, "pred[:1, :20] * 0")
    films = [saved_image(tmp_path, gradient()) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        reasons = set(pool.map(lambda n: run(queue, folder, [films[n]], tmp_path / str(n)), range(3)))
    assert reasons == {"the model's mask has the shape 1 x 20 x 40; the image needs 1 x 60 x 40"}


def test_models_leave_when_another_job_needs_the_memory_and_come_back(
    keeper: ComputeKeeper, queue: ComputeQueue, tmp_path: Path
) -> None:
    """A model that keeps 700 MB, then one whose limit leaves no room for it."""
    hold = "OUTPUTS.setdefault('held', bytearray(b'x' * (700 << 20)))"
    large = workflow_bundle(tmp_path / "models", SAID, hold, name="large")
    small = network_bundle(tmp_path / "models", name="small", limits={"time_s": 60, "memory_mb": 1700})
    film = saved_image(tmp_path, gradient())
    assert run(queue, large, [ECG], tmp_path / "1") == ""
    pid = keeper.pid
    assert run(queue, small, [film], tmp_path / "2") == ""
    assert keeper.pid == pid
    assert run(queue, large, [ECG], tmp_path / "3") == ""
