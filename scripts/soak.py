"""Long tests that CI runs only a little of. Prints as it goes, then the outcome; exit code 1 when it is bad."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from kills import run_kills
from live_edits import run_live_edits
from mixed_peers import run_mixed
from receive_kills import run_receive_kills

Soak = Callable[[Path, argparse.Namespace], tuple[str, list[str]]]
"""Runs in a folder; gives the outcome as a line, and each fault as another."""


def tell(line: str) -> None:
    """What is going on."""
    print(line, flush=True)


def kills(folder: Path, given: argparse.Namespace) -> tuple[str, list[str]]:
    """Scp, work and compute child are killed while studies arrive: every case ends, nothing is made twice."""
    outcome = run_kills(folder, given.rounds, given.seed, tell)
    return str(outcome), [*outcome.lost, *outcome.unfinished, *outcome.second_uids]


def receive_kills(folder: Path, given: argparse.Namespace) -> tuple[str, list[str]]:
    """Scp alone is killed while four devices send: every object that was answered is there, bit for bit."""
    outcome = run_receive_kills(folder, given.rounds, given.seed, tell)
    return str(outcome), outcome.faults()


def mixed(folder: Path, given: argparse.Namespace) -> tuple[str, list[str]]:
    """Mixed peers at a whole node, one of them misbehaving: nothing is lost, memory, threads, descriptors are flat."""
    outcome = run_mixed(folder, given.minutes * 60, given.seed, tell)
    return str(outcome), outcome.faults()


def rules(folder: Path, given: argparse.Namespace) -> tuple[str, list[str]]:
    """The rules file is saved again and again, a third of the saves broken: no study stays without a whole decision."""
    outcome = run_live_edits(folder, given.studies, given.saves, given.seed, tell)
    return str(outcome), outcome.faults()


def main() -> None:
    """Run one soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    soaks = parser.add_subparsers(required=True)
    counts: dict[Soak, dict[str, float]] = {
        kills: {"rounds": 50},
        receive_kills: {"rounds": 200},
        rules: {"studies": 500, "saves": 200},
        mixed: {"minutes": 10.0},
    }
    for soak, defaults in counts.items():
        one = soaks.add_parser(soak.__name__.replace("_", "-"), help=soak.__doc__)
        for name, default in defaults.items():
            one.add_argument(f"--{name}", type=type(default), default=default)
        one.add_argument("--seed", type=int, default=1)
        one.add_argument("--keep", type=Path, help="leave databases, files and logs in this folder")
        one.set_defaults(soak=soak)
    given = parser.parse_args()
    folder = given.keep.absolute() if given.keep else Path(tempfile.mkdtemp(prefix="soak"))
    folder.mkdir(parents=True, exist_ok=True)
    soak_of: Soak = given.soak
    outcome, faults = soak_of(folder, given)
    print(outcome)
    for fault in faults:
        print("BAD", fault)
    if not given.keep and not faults:
        shutil.rmtree(folder)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
