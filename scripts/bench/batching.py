"""How fast a hundred waiting radiographs get their findings, beside a bare batched loop over the same files.

In: nothing; films and bundle (a 2-D UNet with random weights) are made. Out: a Markdown table. The bare loop is what
one would write without a node: read with pydicom, resize, forward pass in batches, back to the film's size, argmax.
Run: scripts/bench/run batching
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pacsnode import findings_files
from pacsnode.infer.catalogue import load_service
from pacsnode.infer.compute import ComputeKeeper
from pacsnode.infer.waiting import ComputeQueue
from pacsnode.work import CASES_AT_ONCE
from tests.infer.bundles import network_bundle, saved_image

FILMS, ROWS, COLUMNS, SIDE = 100, 1400, 1200, 512
CHANNELS = [16, 32, 64, 128, 256]
MUST = 0.8

BARE = """
import os, sys, time
from pathlib import Path
import pydicom, torch
from torch.nn.functional import interpolate
from pacsnode.infer.bundle import load_bundle
from pacsnode.infer.catalogue import load_service
service = load_service(Path(sys.argv[1]))
network = load_bundle(service, "cpu")._network
size = service.pipeline.limits.batch
files = sorted(Path(sys.argv[2]).glob("*.dcm"))
os.nice(10)  # as the compute child is
begun = time.perf_counter()
with torch.inference_mode():
    for start in range(0, len(files), size):
        some = files[start : start + size]
        films = [torch.from_numpy(pydicom.dcmread(f).pixel_array.astype("float32")) for f in some]
        films = [(film - film.min()) / (film.max() - film.min()) for film in films]
        batch = torch.cat([interpolate(f[None, None], (int(sys.argv[3]),) * 2, mode="bilinear") for f in films])
        logits = network(batch)
        for film, one in zip(films, logits):
            interpolate(one[None], film.shape, mode="bilinear")[0].argmax(0).to(torch.uint8).numpy()
print(time.perf_counter() - begun)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    threads = os.cpu_count() or 2
    environment = dict(os.environ) | {"OMP_NUM_THREADS": str(threads), "PACSNODE_LOG_LEVEL": "error"}
    ours, singles, bare = [], [], []
    with tempfile.TemporaryDirectory(prefix="pacsnode-bench-") as name:
        folder = Path(name)
        made, alone = bundle(folder / "models", batch=8), bundle(folder / "single", batch=1)
        (folder / "films").mkdir()
        rng = np.random.default_rng(0)
        for _ in range(FILMS):
            saved_image(folder / "films", rng.integers(0, 4000, (ROWS, COLUMNS)).astype("uint16"))
        for n in range(rounds):
            ours.append(by_the_node(made, folder / "films", folder / f"batched-{n}", environment))
            bare.append(by_itself(made, folder / "films", environment))
            singles.append(by_the_node(alone, folder / "films", folder / f"single-{n}", environment))
    print(
        table([FILMS / one for one in ours], [FILMS / one for one in singles], [FILMS / one for one in bare], threads)
    )


def bundle(models: Path, batch: int) -> Path:
    """A segmentation of films with a network of a usual size, on 512 x 512 pixels."""
    import torch
    from monai.networks.nets import UNet
    from ruamel.yaml import YAML

    from pacsnode.infer.catalogue import hash_file

    arguments: dict[str, Any] = {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 2,
        "channels": CHANNELS,
        "strides": [2, 2, 2, 2],
        "num_res_units": 2,
    }
    torch.manual_seed(1)
    network: Any = UNet(**arguments)
    folder = network_bundle(
        models,
        before=[{"_target_": "Resized", "keys": "image", "spatial_size": [SIDE, SIDE]}],
        after=[
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": False,
            }
        ],
        limits={"time_s": 300, "memory_mb": 6000, "batch": batch},
        segments=[_outline()],
    )
    weights = folder / "models" / "model.pt"
    old = hash_file(weights)
    torch.save(network.state_dict(), weights)
    contract = (folder / "pipeline.yaml").read_text()
    (folder / "pipeline.yaml").write_text(contract.replace(old, hash_file(weights)))
    config = folder / "configs" / "inference.yaml"
    plain = YAML(typ="safe").load(config.read_text())
    plain["network_def"] = {"_target_": "UNet", **arguments}
    with config.open("w") as file:
        YAML().dump(plain, file)
    return folder


def _outline() -> dict[str, Any]:
    from tests.infer.zoo import outline

    return outline()


def by_the_node(made: Path, films: Path, out: Path, environment: dict[str, str]) -> float:
    """Seconds from the first to the last of the waiting films, as many at once as the node takes up; model warm."""
    service = load_service(made)
    keeper = ComputeKeeper([sys.executable, "-m", "pacsnode.child"], environment)
    queue = ComputeQueue(keeper)
    limits = service.pipeline.limits

    def run(film: Path) -> None:
        asked = {
            "service": str(made),
            "bundle_hash": service.bundle_hash,
            "files": [str(film)],
            "folder": str(out / film.stem),
            "device": "cpu",
        }
        queue.infer(asked, limits, 10, is_batchable=True)

    waiting = sorted(films.glob("*.dcm"))
    try:
        run(waiting[0])
        (out / waiting[0].stem / findings_files.RECORD).unlink()
        with ThreadPoolExecutor(CASES_AT_ONCE) as pool:
            begun = time.perf_counter()
            list(pool.map(run, waiting))
            seconds = time.perf_counter() - begun
    finally:
        keeper.close()
    assert all((out / film.stem / findings_files.RECORD).exists() for film in waiting)
    return seconds


def by_itself(made: Path, films: Path, environment: dict[str, str]) -> float:
    """Seconds of the bare loop."""
    command = [sys.executable, "-c", BARE, str(made), str(films), str(SIDE)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def table(ours: list[float], singles: list[float], bare: list[float], threads: int) -> str:
    """Markdown, of films a second."""
    ratio = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
    told = f"{ratio:.2f}x" if ratio >= MUST else f"**{ratio:.2f}x**"
    lines = [
        f"{FILMS} films of {COLUMNS} x {ROWS} (uncompressed) that wait for one service: UNet of 16 to 256 channels on",
        f"{SIDE} x {SIDE} pixels, batches of 8, {threads} threads, model warm, {CASES_AT_ONCE} cases at once, median",
        f"of {len(ours)}. The node also scales by percentiles, checks the mask, measures, and writes findings to disk.",
        "",
        "| measure | films a second | must |",
        "|---|---|---|",
        f"| the node | {statistics.median(ours):.2f} ({min(ours):.2f} to {max(ours):.2f}) | |",
        f"| a bare batched loop | {statistics.median(bare):.2f} ({min(bare):.2f} to {max(bare):.2f}) | |",
        f"| ratio, median of the rounds | {told} | 0.8x |",
        f"| the node with batches of 1 | {statistics.median(singles):.2f} | |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
