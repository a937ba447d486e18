"""Recorded studies decided by rules, in shares: one for each core.

In: settings, rules, which studies. Out: how many each rule takes, or what is otherwise under other rules. Starts no
case, sends nothing, writes nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from pacsnode.archive.attributes import with_files
from pacsnode.archive.recorded import Recorded
from pacsnode.errors import PacsnodeError
from pacsnode.handover import Decision, Study
from pacsnode.route.decide import decide
from pacsnode.route.replay import differences
from pacsnode.route.rules import Rules
from pacsnode.settings import Settings

LEAST_OF_A_SHARE = 500
"""For fewer studies another process is not worth its start."""
MOST_SHARES = 8
NEIGHBOURS = 100
"""Neighbours in the index are neighbours on the disk; but those of one maker, with most images, are neighbours too."""

T = TypeVar("T")


def newest(settings: Settings, most: int, since_s: int) -> list[str]:
    """The UIDs of the studies of which something came last, within `since_s` seconds unless that is 0."""
    since_us = int((time.time() - since_s) * 1e6) if since_s else 0
    with closing(Recorded(settings.index_db)) as recorded:
        return recorded.newest(most, since_us)


def studies(settings: Settings, rules: Sequence[Rules], uids: Sequence[str]) -> Iterator[Study]:
    """These recorded studies, with what the rules look at, in the order of their UIDs."""
    beyond = tuple({name.base: name for one in rules for name in one.beyond_index}.values())
    with closing(Recorded(settings.index_db)) as recorded:
        for study in recorded.studies(uids):
            yield with_files(study, settings.files, beyond)


@dataclass
class Counted:
    """What one file makes of the studies."""

    totals: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    services: Counter[str] = field(default_factory=Counter)


def count(settings: Settings, rules: Rules, uids: Sequence[str], shares: int | None = None) -> Counted:
    """How many studies each rule takes. `shares`: so many processes; None: as many as are worth it."""

    def work(share: Sequence[str]) -> Counted:
        counted = Counted()
        for study in studies(settings, [rules], share):
            decision = decide(study, rules, explained=False)
            counted.totals["studies"] += 1
            counted.totals["taken by no rule"] += not decision.is_matched
            counted.rules.update(verdict.rule for verdict in decision.verdicts if verdict.matched)
            counted.services.update(candidate.service for candidate in decision.candidates)
        return counted

    whole = Counted()
    for one in _in_shares(work, uids, shares):
        whole.totals.update(one.totals)
        whole.rules.update(one.rules)
        whole.services.update(one.services)
    return whole


@dataclass
class Compared:
    """What is otherwise under the other file. `by_what`: how many cases of a service, or forwardings to a peer, are
    gained, lost or moved; `changed`: UIDs of the studies.
    """

    totals: Counter[str] = field(default_factory=Counter)
    by_what: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    changed: set[str] = field(default_factory=set)


def compare(settings: Settings, ours: Rules, other: Rules, uids: Sequence[str], shares: int | None = None) -> Compared:
    """What changes, without reasons: to explain takes several times as long as to decide. `shares`: as of `count`."""

    def work(share: Sequence[str]) -> Compared:
        compared = Compared()
        for study in studies(settings, [ours, other], share):
            compared.totals["studies"] += 1
            _compare(compared, decide(study, ours, explained=False), decide(study, other, explained=False))
        compared.by_what = dict(compared.by_what)
        return compared

    whole = Compared()
    for one in _in_shares(work, uids, shares):
        whole.totals.update(one.totals)
        whole.changed |= one.changed
        for what, counts in one.by_what.items():
            whole.by_what[what].update(counts)
    return whole


def _compare(compared: Compared, before: Decision, after: Decision) -> None:
    taken = before.is_matched, after.is_matched
    if (before.candidates, before.forwards) != (after.candidates, after.forwards):
        for one in differences(before, after):
            compared.by_what[one.what][one.kind] += 1
            compared.changed.add(before.study_instance_uid)
    if taken[0] != taken[1]:
        compared.totals["taken by no rule any more" if taken[0] else "taken by a rule now"] += 1
        compared.changed.add(before.study_instance_uid)


def _in_shares(work: Callable[[Sequence[str]], T], uids: Sequence[str], given: int | None) -> list[T]:
    """What `work` gives for each share of the studies; the first share is done here, the others by forks of this
    process, which have all that `work` needs.
    """
    ordered = sorted(uids)
    count = given or max(1, min(len(os.sched_getaffinity(0)), MOST_SHARES, len(ordered) // LEAST_OF_A_SHARE))
    pieces = [ordered[at : at + NEIGHBOURS] for at in range(0, len(ordered), NEIGHBOURS)]
    shares = [[uid for piece in pieces[n::count] for uid in piece] for n in range(count)]
    context = multiprocessing.get_context("fork")
    answers: list[Connection] = []
    for share in shares[1:]:
        receiver, sender = context.Pipe(duplex=False)
        context.Process(target=_work, args=(work, share, sender), daemon=True).start()
        sender.close()
        answers.append(receiver)
    return [work(shares[0]), *map(_answer, answers)]


def _answer(receiver: Connection) -> Any:
    try:
        return receiver.recv()
    except EOFError:
        raise PacsnodeError("a process that replayed a share of the studies ended before its end") from None


def _work(work: Callable[[Sequence[str]], object], share: Sequence[str], sender: Connection) -> None:
    sender.send(work(share))
    sender.close()
