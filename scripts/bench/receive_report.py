"""What a benchmark of receivers has to say: Markdown for people, JSON with the raw rounds. Measures nothing."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.receivers import DESCRIPTIONS
from bench.rounds import Outcome, Round

NOT_MEASURED: Final = "-"
COLUMNS: Final = (
    "receiver",
    "objects/s",
    "min-max",
    "MB/s",
    "p50/p99 ms",
    "CPU s/GB",
    "RSS MB",
    "x baseline",
    "hashed after s",
    "missing",
    "altered",
)


def load_line() -> str:
    """How busy the machine is at this moment, and what machine it is."""
    load = Path("/proc/loadavg").read_text().split()
    return (
        f"load {' '.join(load[:3])} (/proc/loadavg at the start), {os.cpu_count()} cores, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def where_line(folder: Path) -> str:
    """On which file system the receivers write."""
    kind = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", str(folder)], check=True, capture_output=True, text=True)
    return f"receivers write below {folder} ({kind.stdout.strip()})"


def table(outcome: Outcome, baseline: str) -> str:
    """One series: medians over its rounds; `x baseline` is the median of the rounds' own ratios."""
    series = outcome.series
    one = ", one object an association" if series.one_per_association else ""
    lines = [
        f"{series.corpus}: {series.objects} objects, {outcome.megabytes:.0f} MB, {series.associations} association(s) "
        f"at a time{one}, sender {series.sender}, {series.rounds} round(s), baseline {baseline}",
        "",
        _row(COLUMNS),
        _row(["---"] * len(COLUMNS)),
        *(_row(_cells(outcome, name, baseline)) for name in series.receivers),
        "",
        *(f"- {name}: {DESCRIPTIONS[name]}" for name in series.receivers),
    ]
    return "\n".join(lines)


def _cells(outcome: Outcome, name: str, baseline: str) -> list[str]:
    if name in outcome.failed:
        return [name, f"failed: {one_line(outcome.failed[name])}", *[NOT_MEASURED] * (len(COLUMNS) - 2)]
    rounds = outcome.of(name)
    objects = outcome.series.objects
    seconds = [r.seconds for r in rounds]
    speeds = f"{objects / max(seconds):.0f}-{objects / min(seconds):.0f}"
    ratio = outcome.ratio(name, baseline)
    return [
        name,
        f"{outcome.objects_per_s(name):.0f}",
        speeds,
        f"{outcome.megabytes / statistics.median(seconds):.0f}",
        f"{_median(rounds, lambda r: r.p50_ms, '.1f')}/{_median(rounds, lambda r: r.p99_ms, '.1f')}",
        _median(rounds, lambda r: None if r.cpu_s is None else r.cpu_s / outcome.megabytes * 1000, ".2f"),
        _median(rounds, lambda r: r.peak_rss_mb, ".0f"),
        NOT_MEASURED if ratio is None else f"{ratio:.2f}",
        _hashed(rounds),
        str(sum(r.missing for r in rounds)),
        NOT_MEASURED if rounds[0].altered is None else str(sum(r.altered or 0 for r in rounds)),
    ]


def _median(rounds: Sequence[Round], value: Callable[[Round], float | None], form: str) -> str:
    values = [v for v in map(value, rounds) if v is not None]
    return format(statistics.median(values), form) if values else NOT_MEASURED


def _hashed(rounds: Sequence[Round]) -> str:
    unhashed = sum(r.unhashed for r in rounds)
    return f"{unhashed} NOT HASHED" if unhashed else _median(rounds, lambda r: r.hashed_after_s, ".2f")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def one_line(text: str) -> str:
    """A reason that fits a table's cell."""
    return " ".join(text.split()).replace("|", "/")[:160]


def write_json(path: Path, raw: Sequence[dict[str, Any]], load: str) -> None:
    """All rounds, as measured."""
    path.write_text(json.dumps({"machine": load, "raw": raw}, indent=1))
