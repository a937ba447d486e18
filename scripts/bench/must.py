"""What the project promises of its receiver, measured: each promise with its ratio, its must and its aim.

In: rounds and objects. Out: the series behind the table, and the table. Sets no number but musts and aims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.receive_report import one_line
from bench.receivers import DISK
from bench.rounds import Outcome, Series, run


@dataclass(frozen=True)
class Promise:
    """`ours` is to be so many times as fast as `against` in the series of that name."""

    against: str
    series: str
    must: float
    aim: float
    ours: str = "pacsnode"


PROMISES: Final = (
    Promise("storescp-best", "storescu ct 4", 1.0, 1.5),
    Promise("storescp-best", "lean ct 4", 0.4, 1.0),
    Promise("storescp-best", "storescu ct 1", 1.2, 2.0),
    Promise("storescp-best", "lean ct 1", 0.4, 0.8),
    Promise("storescp", "storescu ct 4", 4.0, 8.0),
    Promise("orthanc-nodelay", "storescu ct 4", 2.5, 4.0),
    Promise("orthanc-nodelay", "lean ct 4", 2.5, 5.0),
    Promise("storescp-best", "lean mixed 4, one object an association", 1.7, 4.0),
    Promise("storescp-best", "storescu ct 4", 1.3, 2.0, "pacsnode-none"),
    Promise("storescp-best", "lean ct 4", 0.85, 1.1, "pacsnode-none"),
    Promise(DISK, "lean ct 4", 0.35, 0.85),
    Promise(DISK, "lean ct 8", 0.35, 0.85),
)


def _series(rounds: int, objects: int) -> dict[str, Series]:
    four = ("pacsnode", "pacsnode-none", "storescp-best", "orthanc-nodelay")
    two = ("pacsnode", "storescp-best")
    return {
        "storescu ct 4": Series((*four, "storescp"), "storescu", "ct", 4, objects, rounds),
        "lean ct 4": Series((*four, DISK), "lean", "ct", 4, objects, rounds),
        "storescu ct 1": Series(two, "storescu", "ct", 1, objects, rounds),
        "lean ct 1": Series(two, "lean", "ct", 1, objects, rounds),
        "lean mixed 4, one object an association": Series(two, "lean", "mixed", 4, objects, rounds, True),
        "lean ct 8": Series(("pacsnode", DISK), "lean", "ct", 8, objects, rounds),
    }


def measure(rounds: int, objects: int, folder: Path) -> dict[str, Outcome]:
    """Run every series that a promise needs."""
    return {name: run(series, folder) for name, series in _series(rounds, objects).items()}


def table(outcomes: Mapping[str, Outcome]) -> str:
    """One line a promise: the median of the rounds' own ratios, objects/s of both, and whether must and aim hold."""
    lines = [
        "| ours | against | sender, objects, associations | measured | objects/s, ours / theirs | must | aim | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += (_line(promise, outcomes[promise.series]) for promise in PROMISES)
    missing = sum(r.missing for outcome in outcomes.values() for r in outcome.rounds)
    altered = sum(r.altered or 0 for outcome in outcomes.values() for r in outcome.rounds)
    unhashed = sum(r.unhashed for outcome in outcomes.values() for r in outcome.rounds)
    lines += [
        "",
        f"Objects missing: {missing}; in pacsnode, compared bit for bit, altered: {altered}; not hashed: {unhashed}.",
    ]
    lines += (f"{receiver} failed: {one_line(why)}" for o in outcomes.values() for receiver, why in o.failed.items())
    return "\n".join(lines)


def _line(promise: Promise, outcome: Outcome) -> str:
    head = f"| {promise.ours} | {promise.against} | {promise.series} |"
    tail = f"{promise.must:g}x | {promise.aim:g}x |"
    ratio = outcome.ratio(promise.ours, promise.against)
    if ratio is None:
        return f"{head} - | - | {tail} not measured |"
    verdict = "aim" if ratio >= promise.aim else "must" if ratio >= promise.must else "MISSED"
    speeds = f"{outcome.objects_per_s(promise.ours):.0f} / {outcome.objects_per_s(promise.against):.0f}"
    return f"{head} {ratio:.2f}x | {speeds} | {tail} {verdict} |"
