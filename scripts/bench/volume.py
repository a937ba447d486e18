"""What the node adds to the bare forward pass of a CT of 300 slices, and the memory that the compute child takes.

In: nothing; series and bundle (the zoo's CT style, random weights) are made. Out: a Markdown table. The bare pass is
the same inferer on the same preprocessed tensor, in a process of its own with the same threads.
Run: scripts/bench/run volume
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import generate_uid

from pacsnode import findings_files, settings
from pacsnode.infer.catalogue import load_service
from pacsnode.infer.compute import ComputeKeeper
from pacsnode.work import child_environment
from tests.infer.bundles import CT, image, pipeline, saved, write_pipeline
from tests.infer.zoo import CT_UNET, ct_bundle, ct_config

SLICES, SIDE = 300, 512
SPACING_MM = (1.0, 0.7, 0.7)
NETWORK = CT_UNET | {"channels": [16, 32, 64, 128, 256], "strides": [2, 2, 2, 2], "num_res_units": 2}
WINDOW = {"_target_": "SlidingWindowInferer", "roi_size": [96, 96, 96], "sw_batch_size": 4, "overlap": 0.5}
PIXDIM = [1.5, 1.5, 2.0]
MUST = 0.25

BARE = """
import os, sys, time
from pathlib import Path
import torch
from pacsnode.infer.bundle import load_bundle, _volume_input
from pacsnode.infer.catalogue import load_service
from pacsnode.infer.volume import read_volume
os.nice(10)  # as the compute child is
bundle = load_bundle(load_service(Path(sys.argv[1])), "cpu")
volume = read_volume(sorted(Path(sys.argv[2]).glob("*.dcm")))
with torch.inference_mode():
    data = bundle._parts.before({"image": _volume_input([volume.intensity], volume.affine)})
    batch = data["image"].as_subclass(torch.Tensor)[None]
    bundle._parts.inferer(batch, bundle._network)
    print(" x ".join(map(str, batch.shape[2:])), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        bundle._parts.inferer(batch, bundle._network)
        print(time.perf_counter() - begun, flush=True)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    threads = os.cpu_count() or 2
    with tempfile.TemporaryDirectory(prefix="pacsnode-bench-") as name:
        folder = Path(name)
        environment = as_the_node_starts_it(folder, threads)
        made = bundle(folder / "models")
        write_series(folder / "ct")
        with bare_pass(made, folder / "ct", environment) as (shape, run_bare):
            rows, peak_mb = measured(made, folder, environment, rounds, run_bare)
    print(table(rows, (shape, str(peak_mb), str(threads), str(rounds))))


def as_the_node_starts_it(home: Path, threads: int) -> dict[str, str]:
    """The environment of a compute child."""
    os.environ |= {"PACSNODE_HOME": str(home), "PACSNODE_COMPUTE_THREADS": str(threads), "PACSNODE_LOG_LEVEL": "error"}
    return child_environment(settings.load())


def bundle(models: Path) -> Path:
    """The zoo-style bundle of the tests with a network and a window of the usual size."""
    import json

    import torch
    from monai.networks.nets import UNet

    from pacsnode.infer.catalogue import hash_file

    folder = ct_bundle(models)
    config = ct_config() | {"network_def": NETWORK, "inferer": WINDOW}
    config["preprocessing"]["transforms"][3]["pixdim"] = PIXDIM
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    network: Any = UNet(**{key: value for key, value in NETWORK.items() if key != "_target_"})
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    weights = {"weights": "models/model.pt", "sha256": hash_file(folder / "models" / "model.pt")}
    outlined = {
        "value": 1,
        "label": "Spleen",
        "category": {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"},
        "type": {"value": "78961009", "scheme": "SCT", "meaning": "Spleen"},
        "color_rgb": [255, 0, 0],
        "may_be_absent": True,
    }
    volume = {"method": "volume", "of": [1], "name": {"value": "118565006", "scheme": "SCT", "meaning": "Volume"}}
    limits = {"time_s": 900, "memory_mb": 12000}
    contract = pipeline(
        name=folder.name, network=weights, input="volume", segments=[outlined], measurements=[volume], limits=limits
    )
    write_pipeline(folder, contract)
    return folder


def write_series(folder: Path) -> None:
    """Noise with a bright ball in it, uncompressed."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    fixed = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    for n in range(SLICES):
        inside = (y - SIDE / 2) ** 2 + (x - SIDE / 2) ** 2 + (1.4 * (n - SLICES / 2)) ** 2 < (SIDE / 4) ** 2
        stored = (rng.normal(0, 40, (SIDE, SIDE)) + 1000 + 90 * inside).astype(np.int16)
        dataset = image(
            stored,
            sop_class_uid=CT,
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[-180, -180, float(n) * SPACING_MM[0]],
            PixelSpacing=list(SPACING_MM[1:]),
            FrameOfReferenceUID="2.25.5",
            RescaleSlope=1,
            RescaleIntercept=-1000,
            **fixed,
        )
        saved(dataset, folder / f"{n:04d}.dcm")


Row = tuple[float, float, float]
"""Seconds of one round: files to mask, the network within it, the bare pass right after it."""


def measured(
    made: Path, folder: Path, environment: dict[str, str], rounds: int, run_bare: Callable[[], float]
) -> tuple[list[Row], int]:
    """The rounds, and the child's peak memory in MB; a first run, unmeasured, loads."""
    service = load_service(made)
    keeper = ComputeKeeper([sys.executable, "-m", "pacsnode.child"], environment)
    rows: list[Row] = []
    limits = service.pipeline.limits
    try:
        for n in range(rounds + 1):
            asked = {
                "service": str(made),
                "bundle_hash": service.bundle_hash,
                "files": [str(path) for path in sorted((folder / "ct").glob("*.dcm"))],
                "folder": str(folder / f"run-{n}"),
                "device": "cpu",
            }
            begun = time.perf_counter()
            reply = keeper.call("infer", asked, time_limit_s=limits.time_s, memory_limit_mb=limits.memory_mb)
            rows.append((time.perf_counter() - begun, float(reply["network_s"]), run_bare()))
            (group,) = findings_files.load(folder / f"run-{n}").groups
            assert group.label_map is not None and group.label_map.shape == (SLICES, SIDE, SIDE)
        status = Path(f"/proc/{keeper.pid}/status").read_text()
    finally:
        keeper.close()
    return rows[1:], int(status.split("VmHWM:")[1].split()[0]) // 1024


@contextmanager
def bare_pass(made: Path, series: Path, environment: dict[str, str]) -> Iterator[tuple[str, Callable[[], float]]]:
    """The size of what the network reads, and a function that runs it once in a process of its own: seconds."""
    command = [sys.executable, "-c", BARE, str(made), str(series)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        asking, answers = running.stdin, running.stdout
        assert asking is not None and answers is not None

        def run_once() -> float:
            asking.write("again\n")
            asking.flush()
            return float(answers.readline())

        yield answers.readline().strip(), run_once
        asking.close()


def table(rows: list[Row], facts: tuple[str, str, str, str]) -> str:
    """Markdown."""
    shape, peak_mb, threads, rounds = facts
    totals, networks, bare = zip(*rows, strict=True)
    total, network, alone = (statistics.median(one) for one in (totals, networks, bare))
    overheads = [ours / theirs - 1 for ours, _, theirs in rows]
    overhead = statistics.median(overheads)
    told = f"{overhead:.0%}" if overhead < MUST else f"**{overhead:.0%}**"
    lines = [
        f"A CT of {SLICES} slices of {SIDE} x {SIDE} (uncompressed, 158 MB) through a zoo-style bundle: UNet of 16 to",
        f"256 channels, resampled to {shape} voxels, windows of 96 x 96 x 96, overlap a half, {threads} threads,",
        f"model warm, {rounds} rounds, in each the node, then the bare pass. From the files to findings on disk,",
        "the mask on the source grid.",
        "",
        "| measure | value | must |",
        "|---|---|---|",
        f"| files to mask | {total:.1f} s ({min(totals):.1f} to {max(totals):.1f}) | |",
        f"| the bare forward pass in a process of its own | {alone:.1f} s ({min(bare):.1f} to {max(bare):.1f}) | |",
        f"| the same inside the child | {network:.1f} s | |",
        f"| overhead, median of the rounds | {told} ({min(overheads):.0%} to {max(overheads):.0%}) | under 25 % |",
        f"| peak memory of the child | {peak_mb} MB | |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
