"""What another rules file would have done: two decisions on one study, compared.

In: the decision under the live rules and the one under the others. Out: cases gained, lost and moved, with the clause
that made the difference. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pacsnode.handover import Candidate, Decision, Forward, RuleVerdict
from pacsnode.route.rules import in_words, unsatisfied


@dataclass(frozen=True)
class Difference:
    """One case or forwarding that changes. `kind`: gained, lost or moved; `what`: the service, or the peer's name."""

    kind: str
    what: str
    rule: str
    detail: str


Side = Literal["before", "after"]
Why = Callable[[str, Side], str]
"""Why a rule, by its name, does not take the study before or after: asked for what is gained or lost alone."""


def differences(before: Decision, after: Decision, why: Why) -> list[Difference]:
    """What changes for the study. The decisions may be unexplained; `why` gives the reasons that are told."""
    return [*_of_cases(before, after, why), *_of_forwards(before, after, why)]


def _of_cases(before: Decision, after: Decision, why: Why) -> Iterator[Difference]:
    old = {(candidate.service, candidate.instances): candidate for candidate in before.candidates}
    new = {(candidate.service, candidate.instances): candidate for candidate in after.candidates}
    for key in old.keys() & new.keys():
        if changes := _changes(old[key], new[key]):
            yield Difference("moved", key[0], " and ".join(new[key].rules), "; ".join(changes))
    lost = [old[key] for key in old.keys() - new.keys()]
    gained = [new[key] for key in new.keys() - old.keys()]
    for candidate in sorted(lost, key=_order):
        twin = next((other for other in sorted(gained, key=_order) if other.service == candidate.service), None)
        if twin is None:
            yield Difference("lost", candidate.service, candidate.rules[0], why(candidate.rules[0], "after"))
            continue
        gained.remove(twin)
        changes = _changes(candidate, twin)
        counts = f"reads {len(twin.instances)} images instead of {len(candidate.instances)}"
        yield Difference("moved", twin.service, " and ".join(twin.rules), "; ".join([counts, *changes]))
    for candidate in sorted(gained, key=_order):
        yield Difference("gained", candidate.service, candidate.rules[0], why(candidate.rules[0], "before"))


def _order(candidate: Candidate) -> tuple[str, tuple[str, ...]]:
    return candidate.service, candidate.instances


def _changes(old: Candidate, new: Candidate) -> list[str]:
    """What is otherwise with the same service, in words."""
    changes = []
    for name, one, other in (
        ("results", old.results, new.results),
        ("send_to", old.send_to, new.send_to),
        ("rules", old.rules, new.rules),
    ):
        if set(one) != set(other):
            changes.append(f"{name} {', '.join(other)} instead of {', '.join(one)}")
    if old.priority != new.priority:
        changes.append(f"priority {new.priority} instead of {old.priority}")
    if replace(old.completion, missing=()) != replace(new.completion, missing=()):
        changes.append("another `complete`")
    if old.late != new.late:
        changes.append("another `late_images`")
    return changes


def _of_forwards(before: Decision, after: Decision, why: Why) -> Iterator[Difference]:
    old, new = _forwarded(before.forwards), _forwarded(after.forwards)
    for peer in sorted({*old, *new}):
        of_old, of_new = old.get(peer, {}), new.get(peer, {})
        sides: tuple[tuple[str, dict[str, str], dict[str, str], Side], ...] = (
            ("gained", of_new, of_old, "before"),
            ("lost", of_old, of_new, "after"),
        )
        for kind, more, less, other in sides:
            images = [uid for uid in more if uid not in less]
            if images:
                rule = more[images[0]]
                yield Difference(
                    kind, f"forward to {peer}", rule, f"{len(images)} images; {why(rule, other)}".removesuffix("; ")
                )


def _forwarded(forwards: Sequence[Forward]) -> dict[str, dict[str, str]]:
    """By peer: which images, and by which rule."""
    found: dict[str, dict[str, str]] = {}
    for forward in forwards:
        for peer in forward.peers:
            found.setdefault(peer, {}).update(dict.fromkeys(forward.instances, forward.rule))
    return found


def why_not(rule: str, decision: Decision) -> str:
    """Why a rule does not take the study under a decision, by the clauses in its way."""
    verdict: RuleVerdict | None = next((one for one in decision.verdicts if one.rule == rule), None)
    if verdict is None:
        return "there is no such rule"
    blocking = unsatisfied(verdict.clauses)
    return in_words(blocking) if blocking else verdict.reason
