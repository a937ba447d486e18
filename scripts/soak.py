"""Long tests that CI runs only a little of. Prints as it goes, then the outcome; exit code 1 when it is bad."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from kills import run_kills
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


def main() -> None:
    """Run one soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    soaks = parser.add_subparsers(required=True)
    for name, soak, rounds in (("kills", kills, 50), ("receive-kills", receive_kills, 200), ("mixed", mixed, 0)):
        one = soaks.add_parser(name, help=soak.__doc__)
        if rounds:
            one.add_argument("--rounds", type=int, default=rounds)
        else:
            one.add_argument("--minutes", type=float, default=10)
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
