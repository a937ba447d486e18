"""How long a structured report takes, warm, in one process, as the compute child makes it: from findings to a file.

In: nothing; a chest film (three segments, ratio, two evaluations) and a CT of 300 slices (three segments) are made.
Out: a Markdown table, with the time of the processor beside that of the clock: on a machine with other work the clock
tells of that work. Reading the headers of the sources stands by itself, since all results of a case share it.
Run: scripts/bench/run results_sr [--rounds 30]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from pacsnode.encode import build
from pacsnode.encode.finishing import written
from pacsnode.encode.provenance import Origin
from pacsnode.encode.seg import segmentation
from pacsnode.encode.sr import report
from pacsnode.findings import Findings, Group
from pacsnode.handover import EncodeRequest
from tests.encode.cases import CHEST, CR, LUNGS_AND_HEART, chest_group, request
from tests.encode.regions import marked_group
from tests.infer.phantoms import Phantom, classic

T = TypeVar("T")
SLICES, SIDE = 300, 512
MUST_MS = 60.0


@dataclass(frozen=True)
class Taken:
    """Milliseconds of each round."""

    headers: list[float]
    tree: list[float]
    gate: list[float]
    processor: list[float]

    @property
    def whole(self) -> list[float]:
        """The report alone."""
        return [one + other for one, other in zip(self.tree, self.gate, strict=True)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    build.warm()
    with tempfile.TemporaryDirectory() as folder:
        print(
            "| report | whole | processor | of it: tree / written, checked, on disk | must | headers of the sources |"
        )
        print("|---|---|---|---|---|---|")
        for name, (findings, files) in _cases(Path(folder)).items():
            asked = request(Path(folder) / "out", *files, results=("sr",))
            print(_row(name, _measured(findings, asked, rounds)))


def _cases(folder: Path) -> dict[str, tuple[Findings, list[Path]]]:
    group = chest_group()
    twice = replace(group, evaluations=group.evaluations * 2)
    tomography = _tomography(folder / "ct", twice)
    return {
        "chest film, 3 segments, ratio, 2 evaluations": (Findings(CHEST, (twice,)), [CR]),
        "the same with 6 regions and 2 lines": (Findings(CHEST, (marked_group(),)), [CR]),
        f"CT of {SLICES} slices, 3 segments": tomography,
    }


def _tomography(folder: Path, like: Group) -> tuple[Findings, list[Path]]:
    files = classic(folder, Phantom(shape=(SLICES, SIDE, SIDE)))
    heads = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    heads.sort(key=lambda head: float(head.ImagePositionPatient[2]))
    label_map = np.zeros((SLICES, SIDE, SIDE), dtype=np.uint8)
    for value in (1, 2, 3):
        label_map[50 * value : 50 * value + 40, 100:200, 100 * value : 100 * value + 60] = value
    group = replace(
        like,
        source=tuple(str(head.SOPInstanceUID) for head in heads),
        segments=LUNGS_AND_HEART,
        label_map=label_map,
        picture=None,
    )
    return Findings(CHEST, (group,)), files


def _measured(findings: Findings, asked: EncodeRequest, rounds: int) -> Taken:
    taken = Taken([], [], [], [])
    origin = build._origin(findings, asked)
    segmentations = {1: segmentation(findings.groups[0], 1, origin)}
    for _ in range(rounds):
        origin = _timed(taken.headers, partial(_shared, findings, asked))
        origin.uids.known.update(_own(segmentations[1], origin))
        begun = time.process_time()
        made = _timed(taken.tree, partial(report, origin, segmentations))
        _timed(taken.gate, partial(written, made, origin, "sr", 1))
        taken.processor.append((time.process_time() - begun) * 1000)
    return taken


def _shared(findings: Findings, asked: EncodeRequest) -> Origin:
    """What all results of a case share: the sources' headers, and the UIDs in them that the gate knows."""
    origin = build._origin(findings, asked)
    assert origin.source_uids
    return origin


def _own(segmented: Dataset, origin: Origin) -> set[str]:
    """What building the SEG has told the origin of UIDs."""
    origin.uids.instance("seg", 1)
    origin.uids.series("seg")
    return {str(segmented.SOPInstanceUID), str(segmented.SeriesInstanceUID)}


def _timed(into: list[float], work: Callable[[], T]) -> T:
    begun = time.perf_counter()
    done = work()
    into.append((time.perf_counter() - begun) * 1000)
    return done


def _row(name: str, taken: Taken) -> str:
    told = (taken.whole, taken.tree, taken.gate, taken.headers, taken.processor)
    whole, tree, gate, headers, processor = map(statistics.median, told)
    span = f"{min(taken.whole):.0f} to {max(taken.whole):.0f}"
    cells = (f"**{whole:.0f} ms** ({span})", f"{processor:.0f} ms", f"{tree:.0f} / {gate:.0f} ms", f"{MUST_MS:.0f} ms")
    return f"| {' | '.join((name, *cells, f'{headers:.0f} ms'))} |"


if __name__ == "__main__":
    main()
