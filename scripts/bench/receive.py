"""How fast receivers take objects, side by side on this machine, in turn within each round.

    scripts/bench/receive [--receivers pacsnode,storescp-best] [--sender lean] [--corpus ct] [--associations 1,4,8]
    scripts/bench/receive must       what the project promises, as a table of measured, must and aim
    scripts/bench/receive figures    C-ECHO, idle and many associations, C-STORE while results are written

Options of the first: `scripts/bench/receive compare --help`. Tables in Markdown go to stdout, progress to stderr. The
exit code is 1 when a receiver failed or an object was missing, altered, or not hashed in time.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, get_args

from bench import figures, must, receive_report
from bench.corpus import Kind
from bench.receivers import DISK, STARTS
from bench.rounds import Outcome, Series, run
from bench.senders import Sender

OBJECTS: Final = {"ct": 300, "cr": 40, "mixed": 600}


@dataclass(frozen=True)
class Measured:
    """What `--json` keeps of a run, and whether all of it went well."""

    raw: list[dict[str, Any]]
    is_good: bool


def main() -> None:
    """Measure and print."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no receiver is left behind
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-receive-", dir=given.folder) as folder:
        load = receive_report.load_line()
        print(f"{load}\n{receive_report.where_line(Path(folder))}\n", flush=True)
        measure: Callable[[argparse.Namespace, Path], Measured] = given.measure
        measured = measure(given, Path(folder))
    if given.json:
        receive_report.write_json(given.json, measured.raw, load)
    sys.exit(not measured.is_good)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--rounds", type=_positive, default=5)
    common.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where receivers write")
    common.add_argument("--json", type=Path, help="write the raw rounds into this file")
    commands = parser.add_subparsers(required=True, metavar="compare | must | figures")
    compare = commands.add_parser("compare", parents=[common], help="any receivers, sender and objects (the default)")
    compare.add_argument("--receivers", type=_receivers, default=("storescp", "storescp-best", "pacsnode"))
    compare.add_argument("--sender", choices=get_args(Sender), default="storescu")
    compare.add_argument("--corpus", choices=get_args(Kind), default="ct")
    compare.add_argument("--associations", type=_numbers, default=(1, 4, 8))
    compare.add_argument("--objects", type=_positive, help="how many to send; 300 ct, 40 cr, 600 mixed")
    compare.add_argument("--one-per-association", action="store_true")
    compare.add_argument("--baseline", default="storescp-best", help="else the first receiver")
    compare.set_defaults(measure=_compare)
    musts = commands.add_parser("must", parents=[common], help="what the project promises")
    musts.add_argument("--objects", type=_positive, default=OBJECTS["ct"])
    musts.set_defaults(measure=_must)
    others = commands.add_parser("figures", parents=[common], help="C-ECHO, idle and many associations, p99")
    others.add_argument("--idle-s", type=float, default=20)
    others.set_defaults(measure=_figures)
    words = sys.argv[1:]
    if not words or (words[0].startswith("--") and words[0] != "--help"):
        words = ["compare", *words]
    return parser.parse_args(words)


def _compare(given: argparse.Namespace, folder: Path) -> Measured:
    outcomes = []
    baseline = given.baseline if given.baseline in given.receivers else given.receivers[0]
    for associations in given.associations:
        series = Series(
            given.receivers,
            given.sender,
            given.corpus,
            associations,
            given.objects or OBJECTS[given.corpus],
            given.rounds,
            given.one_per_association,
        )
        outcomes.append(run(series, folder))
        print(receive_report.table(outcomes[-1], baseline), end="\n\n", flush=True)
    return _measured(outcomes)


def _must(given: argparse.Namespace, folder: Path) -> Measured:
    outcomes = must.measure(given.rounds, given.objects, folder)
    print(must.table(outcomes))
    return _measured(list(outcomes.values()))


def _figures(given: argparse.Namespace, folder: Path) -> Measured:
    found, writing = figures.measure(given.rounds, given.idle_s, folder)
    print(figures.table(found))
    return Measured([asdict(one) for one in writing], True)


def _measured(outcomes: Sequence[Outcome]) -> Measured:
    return Measured([asdict(one) for one in outcomes], all(outcome.is_good for outcome in outcomes))


def _receivers(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = sorted(set(names) - {*STARTS, DISK})
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no such receiver: {', '.join(unknown)}; there are {', '.join(STARTS)}, {DISK}"
        )
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


if __name__ == "__main__":
    main()
