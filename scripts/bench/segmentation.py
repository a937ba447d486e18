"""How fast the segmentation of a CT is encoded and in how much memory, beside highdicom alone on the same label map.

In: nothing; series and label map are made. Out: a Markdown table. Every run is a process of its own, as the encoding
child is, with highdicom's tables read. highdicom alone reads the headers, makes a BINARY segmentation of the label map
and saves it; the node also loads the findings, normalises the headers, derives UIDs, checks what it wrote, and syncs it
to the disk. The overlapping case has an eleventh segment over half of the others: highdicom takes no label map of it.
Run: scripts/bench/run segmentation
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from pacsnode import findings_files
from pacsnode.findings import Findings, Group
from tests.encode.cases import CHEST
from tests.encode.segmentations import ct_series, segments

SLICES, SIDE, SEGMENTS = 300, 512, 10
EACH = 100
"""Slices on which a segment is: a thousand frames in all."""
MUST, MUST_MB = 1.5, 700
FORMS = ("binary", "labelmap", "fractional")

PEAK = """
def told():
    status = Path("/proc/self/status").read_text()
    print(seconds, cpu_s, int(status.split("VmHWM:")[1].split()[0]) // 1024, made.stat().st_size)
"""

OURS = f"""
import sys, time
from dataclasses import replace
from pathlib import Path
from pacsnode import findings_files
from pacsnode.encode.build import encode, warm
from pacsnode.handover import Form
from tests.encode.cases import request
{PEAK}
folder, sources = Path(sys.argv[1]), sorted(Path(sys.argv[2]).glob("*.dcm"), key=lambda path: int(path.stem))
asked = replace(request(folder / "ours", *sources, results=("seg",)), form=Form(seg=sys.argv[3]))
warm()
begun, before = time.perf_counter(), time.process_time()
(result,) = encode(findings_files.load(folder), asked)
seconds, cpu_s, made = time.perf_counter() - begun, time.process_time() - before, result.path
told()
"""

BARE = f"""
import sys, time
from pathlib import Path
import highdicom as hd
import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pacsnode.encode.build import warm
{PEAK}
folder, sources = Path(sys.argv[1]), sorted(Path(sys.argv[2]).glob("*.dcm"), key=lambda path: int(path.stem))
algorithm = hd.AlgorithmIdentificationSequence("x", codes.cid7162.ArtificialIntelligence, "1")
described = [
    hd.seg.SegmentDescription(n, str(n), codes.SCT.Organ, codes.SCT.Lung, "AUTOMATIC", algorithm)
    for n in range(1, int(sys.argv[3]) + 1)
]
warm()
begun, before = time.perf_counter(), time.process_time()
label_map = np.load(folder / "arrays.npz")["0.label_map"]
headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sources]
segmentation = hd.seg.Segmentation(
    headers, label_map, "BINARY", described, hd.UID(), 1, hd.UID(), 1, "x", "x", "1", "1",
)
made = folder / "bare.dcm"
segmentation.save_as(made)
seconds, cpu_s = time.perf_counter() - begun, time.process_time() - before
told()
"""


@dataclass(frozen=True)
class Run:
    """One process: how long it took, how much of that it ran, its peak memory, the size of the file."""

    seconds: float
    cpu_s: float
    peak_mb: int
    size_bytes: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    bare: list[Run] = []
    ours: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory(prefix="pacsnode-bench-") as name:
        folder = Path(name)
        ct_series(folder / "ct", SLICES, SIDE, SIDE)
        write_findings(folder)
        for _ in range(rounds):
            bare.append(run(BARE, folder / "exclusive", folder / "ct", str(SEGMENTS)))
            for form in FORMS:
                ours.setdefault(form, []).append(run(OURS, folder / "exclusive", folder / "ct", form))
            ours.setdefault("overlapping", []).append(run(OURS, folder / "overlapping", folder / "ct", "binary"))
    print(table(bare, ours))


def write_findings(folder: Path) -> None:
    """Ten balls, none of which touches another; and the same with an eleventh segment over half of each."""
    label_map = np.zeros((SLICES, SIDE, SIDE), dtype=np.uint8)
    y, x = np.mgrid[:SIDE, :SIDE]
    for number in range(SEGMENTS):
        first, row, column = number % 3 * EACH, 80 + number // 3 * 110, 80 + number // 2 * 80
        for plane in range(EACH):
            radius = 35 * np.sin(np.pi * (plane + 1) / (EACH + 1)) + 5
            label_map[first + plane][(y - row) ** 2 + (x - column) ** 2 < radius**2] = number + 1
    above = np.zeros_like(label_map)
    above[:, : SIDE // 2][label_map[:, : SIDE // 2] > 0] = SEGMENTS + 1
    files = sorted((folder / "ct").glob("*.dcm"), key=lambda path: int(path.stem))
    source = tuple(str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files)
    exclusive = Group(source, segments=segments(SEGMENTS), label_map=label_map)
    overlapping = Group(source, segments=segments(SEGMENTS + 1), label_map=label_map, overlaid=(above,))
    findings_files.save(Findings(CHEST, (exclusive,)), folder / "exclusive")
    findings_files.save(Findings(CHEST, (overlapping,)), folder / "overlapping")


def run(script: str, *arguments: object) -> Run:
    """What one process says of itself."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, cpu_s, peak_mb, size_bytes = done.stdout.split()
    return Run(float(seconds), float(cpu_s), int(peak_mb), int(size_bytes))


def table(bare: list[Run], ours: dict[str, list[Run]]) -> str:
    """Markdown."""
    lines = [
        f"A CT of {SLICES} slices of {SIDE} x {SIDE} with {SEGMENTS} segments, each on {EACH} slices; median of",
        f"{len(bare)} rounds, each run a process of its own. From headers and findings on the disk to a checked file",
        "",
        "| measure | seconds | CPU seconds | against highdicom, CPU | peak memory | file | must |",
        "|---|---|---|---|---|---|---|",
        f"| highdicom alone, label map | {_seconds(bare)} | {_cpu(bare)} | | {_peak(bare)} MB | {_size(bare)} | |",
    ]
    for form, runs in ours.items():
        # One thread, and little to wait for: on a busy machine CPU seconds say more than the clock.
        ratio = statistics.median(one.cpu_s / other.cpu_s for one, other in zip(runs, bare, strict=True))
        is_judged = form == "binary"
        told = f"{ratio:.2f}x" if ratio < MUST or not is_judged else f"**{ratio:.2f}x**"
        peak = f"{_peak(runs)} MB" if _peak(runs) < MUST_MB else f"**{_peak(runs)} MB**"
        must = f"under {MUST}x, under {MUST_MB} MB" if is_judged else f"under {MUST_MB} MB"
        lines.append(
            f"| the node, {form} | {_seconds(runs)} | {_cpu(runs)} | {told} | {peak} | {_size(runs)} | {must} |"
        )
    return "\n".join(lines)


def _seconds(runs: list[Run]) -> str:
    each = [one.seconds for one in runs]
    return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


def _cpu(runs: list[Run]) -> str:
    return f"{statistics.median(one.cpu_s for one in runs):.2f}"


def _peak(runs: list[Run]) -> int:
    return max(one.peak_mb for one in runs)


def _size(runs: list[Run]) -> str:
    return f"{runs[0].size_bytes / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
