"""`pacsnode models compare`: what two services said of the same studies, for a person and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from pacsnode.cli.looking import JSON_OPTION, ready, seconds_since
from pacsnode.errors import ConfigError

if TYPE_CHECKING:
    from pacsnode.comparing import Comparison, Figure, MadeBy, Table

LIVE_ARGUMENT = typer.Argument(help="The service that others are measured against.")
SHADOW_ARGUMENT = typer.Argument(help="The other one; differences are its value minus that of the first.")
SINCE_OPTION = typer.Option("7d", "--since", help="Studies read since: 12h, 7d.")
LIMIT_OPTION = typer.Option(1000, "--limit", min=1, help="How many of the newest studies.")
MOST_PARKED = 20
WORDS = ("present", "absent", "undetermined")


def models_compare(
    live: str = LIVE_ARGUMENT,
    shadow: str = SHADOW_ARGUMENT,
    since: str = SINCE_OPTION,
    limit: int = LIMIT_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Compare what two services said of the studies that both read, such as one live and one in shadow."""
    from pacsnode.comparing import compare
    from pacsnode.settings import load

    if live == shadow:
        raise ConfigError("name two services; one and the same has nothing to differ from")
    made = compare(ready(load()), (live, shadow), seconds_since(since), limit)
    if not (made.studies or made.left_out or made.parked):
        silent = [service for service, count in zip(made.services, made.by_one, strict=True) if not count]
        if silent:
            raise ConfigError(f"no case of {' or of '.join(silent)} has ended since {since}")
    typer.echo(json.dumps(_plain(made), ensure_ascii=False, indent=1) if as_json else "\n".join(_told(made, since)))


def _by_one(made: Comparison) -> str:
    counts = zip(made.services, made.by_one, strict=True)
    told = ", ".join(f"{count} by {service}" for service, count in counts if count)
    return f"; read by one alone: {told}" if told else ""


def _told(made: Comparison, since: str) -> Iterator[str]:
    first, second = made.services
    yield f"{first}{_maker(made.made_by[0])}  and  {second}{_maker(made.made_by[1])}, since {since}"
    yield f"compared        {_studies(made.studies)}, inputs: {made.said.inputs}{_by_one(made)}"
    for reason, count in made.left_out.items():
        yield f"left out        {_studies(count)}: {reason}"
    if made.said.numbers:
        yield f"numbers, {second} minus {first}"
        yield from (f"  {line}" for figure in made.said.numbers for line in _number_told(figure))
    if made.said.findings:
        yield f"findings, rows {first}, columns {second}"
        yield from (f"  {line}" for table in made.said.findings for line in _table_told(table))
    yield from _outlines_told(made)
    for service, alone in zip(made.services, made.said.only, strict=True):
        yield from (f"only {service} says  {words}, of {count} inputs" for words, count in sorted(alone.items()))
    for words, count in sorted(made.said.repeated.items()):
        yield f"not compared    {words}: said more than once of {count} inputs"
    yield from _parked_told(made)


def _studies(count: int) -> str:
    return "1 study" if count == 1 else f"{count} studies"


def _maker(made_by: MadeBy | None) -> str:
    if made_by is None:
        return ""
    return f" {made_by.version} (hash {made_by.bundle_hash[:12]}, {', '.join(made_by.devices)})"


def _number_told(figure: Figure) -> Iterator[str]:
    found = figure.spread
    yield f"{figure.words}: n {found.count}, mean {found.mean:+.4g}{_sd(found.sd)}"
    if found.limits is not None:
        yield f"    limits of agreement {found.limits[0]:+.4g} to {found.limits[1]:+.4g}"
    yield f"    largest {figure.extreme:+.4g} in {figure.study}"


def _sd(sd: float | None) -> str:
    return "" if sd is None else f", SD {sd:.4g}"


def _table_told(table: Table) -> Iterator[str]:
    words = sorted({word for pair in table.counts for word in pair}, key=WORDS.index)
    agreed = "kappa not defined: both said one and the same" if table.kappa is None else f"kappa {table.kappa:.3f}"
    yield f"{table.words}: n {sum(table.counts.values())}, {agreed}"
    yield "    " + " " * 13 + "".join(f"{word:>14}" for word in words)
    for row in words:
        yield f"    {row:13}" + "".join(f"{table.counts.get((row, column), 0):14}" for column in words)


def _outlines_told(made: Comparison) -> Iterator[str]:
    found = made.outlines
    if not (found.studies or found.freed):
        return
    freed = f"; the label maps of {found.freed} more are freed already" if found.freed else ""
    yield f"outlines (Dice) of {_studies(found.studies)}{freed}"
    for figure in found.labels:
        mean, count = figure.spread.mean, figure.spread.count
        yield f"  {figure.words}: n {count}, mean {mean:.4f}{_sd(figure.spread.sd)}"
        yield f"    lowest {figure.extreme:.4f} in {figure.study}"
    if found.off_grid:
        yield f"  not compared: {found.off_grid} inputs whose label maps do not lie on the same pixels"


def _parked_told(made: Comparison) -> Iterator[str]:
    for service in made.services:
        count = sum(one.service == service for one in made.parked)
        if count:
            yield f"parked          {count} of {service}"
    for one in made.parked[:MOST_PARKED]:
        yield f"  {one.study}  {one.service}: {one.reason} (the other: {one.other})"
    if len(made.parked) > MOST_PARKED:
        yield f"  and {len(made.parked) - MOST_PARKED} more; --json has all"


def _plain(made: Comparison) -> dict[str, Any]:
    first, second = made.services
    return {
        "services": made.services,
        "made_by": {name: vars(by) for name, by in zip(made.services, made.made_by, strict=True) if by},
        "studies": made.studies,
        "inputs": made.said.inputs,
        "read_by_one": dict(zip(made.services, made.by_one, strict=True)),
        "left_out": made.left_out,
        "numbers": [
            _plain_figure(figure)
            | {"limits_of_agreement": figure.spread.limits, "largest": figure.extreme, "largest_study": figure.study}
            for figure in made.said.numbers
        ],
        "findings": [
            {
                "name": table.words,
                "kappa": table.kappa,
                "counts": [{first: one, second: other, "count": n} for (one, other), n in sorted(table.counts.items())],
            }
            for table in made.said.findings
        ],
        "outlines": {
            "studies": made.outlines.studies,
            "freed": made.outlines.freed,
            "off_grid": made.outlines.off_grid,
            "labels": [
                _plain_figure(figure) | {"lowest": figure.extreme, "lowest_study": figure.study}
                for figure in made.outlines.labels
            ],
        },
        "only": dict(zip(made.services, map(_counts, made.said.only), strict=True)),
        "repeated": made.said.repeated,
        "parked": [vars(one) for one in made.parked],
    }


def _plain_figure(figure: Figure) -> dict[str, Any]:
    return {"name": figure.words, "n": figure.spread.count, "mean": figure.spread.mean, "sd": figure.spread.sd}


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))
