"""Long tests that CI runs only a few rounds of. Prints each round, then the outcome; exit code 1 when it is bad."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from kills import run_kills


def main() -> None:
    """Run one soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["kills"])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="leave databases, files and logs in this folder")
    given = parser.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="soak"))
    folder.mkdir(parents=True, exist_ok=True)
    outcome = run_kills(folder, given.rounds, given.seed, lambda line: print(line, flush=True))
    print(outcome)
    for line in (*outcome.lost, *outcome.unfinished, *outcome.second_uids):
        print("BAD", line)
    bad = bool(outcome.lost or outcome.unfinished or outcome.second_uids)
    if not given.keep and not bad:
        shutil.rmtree(folder)
    sys.exit(bad)


if __name__ == "__main__":
    main()
