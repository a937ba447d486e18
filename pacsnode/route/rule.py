"""One rule as the node uses it: an entry of the file with what `defaults:` adds.

In: records of `language`. Out: frozen rules. Finds no mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pacsnode.conditions import Condition
from pacsnode.handover import RESULT_KINDS, OnFailure, ResultKind
from pacsnode.operators import parse
from pacsnode.route.language import Complete, Defaults, LateImages, Priority, RuleEntry, Schedule, SeriesChoice

AT_ONCE = Complete.model_validate({"quiet": "0s"})
"""Of rules that run no service."""


@dataclass(frozen=True)
class ServiceSummary:
    """What rules need to know of an installed AI service. `obstacle`: why it cannot be used, "" when it can.

    `asks`: the peer that does its work, "" where this node does. `makes`: the results that it can have.
    """

    name: str
    status: str
    accepts: Condition
    obstacle: str = ""
    asks: str = ""
    makes: tuple[ResultKind, ...] = RESULT_KINDS


@dataclass(frozen=True)
class Rule:
    """One rule with what `defaults:` adds to it. `schedule` is part of `when`; one in `shadow` has no `send_to`."""

    name: str
    when: Condition
    series: SeriesChoice | None
    run: tuple[str, ...]
    results: tuple[ResultKind, ...]
    send_to: tuple[str, ...]
    forward: tuple[str, ...]
    complete: Complete
    late: LateImages
    priority: Priority
    stop: bool
    shadow: bool
    enabled: bool
    note: str
    owner: str
    on_failure: OnFailure = "keep"

    def conditions(self) -> Iterator[Condition]:
        """Every condition in it."""
        yield self.when
        if self.series is not None and self.series.when is not None:
            yield self.series.when
        yield from self.complete.expect


def rule_of(entry: RuleEntry, defaults: Defaults) -> Rule:
    """An entry whose gaps the defaults fill; what neither says is a mistake that `mistakes` finds."""
    when = entry.when if entry.schedule is None else Condition("all", (entry.when, _hours(entry.schedule)))
    return Rule(
        entry.name,
        when,
        entry.series,
        entry.run or (),
        entry.results or defaults.results or (),
        () if entry.shadow else entry.send_to or defaults.send_to or (),
        entry.forward or (),
        entry.complete or defaults.complete or AT_ONCE,
        entry.late_images or defaults.late_images,
        entry.priority or defaults.priority,
        entry.stop,
        entry.shadow,
        entry.enabled,
        entry.note,
        defaults.owner if entry.owner is None else entry.owner,
        entry.on_failure or defaults.on_failure,
    )


def _hours(schedule: Schedule) -> Condition:
    """A schedule as conditions on the facts of an image's arrival."""
    lines: dict[str, object] = {"weekday": {"in": list(schedule.days)}}
    if schedule.time is not None:
        lines["time"] = {"between": list(schedule.time)}
    return parse(lines)
