"""What another rules file would have done: two decisions on one study, compared.

In: the decision under the live rules and the one under the others. Out: cases gained, lost and moved, with the clause
that made the difference. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pacsnode.handover import Candidate, Decision, Forward, Study
from pacsnode.route.decide import SHADOW_AFTER, decide
from pacsnode.route.rules import Rules
from pacsnode.route.view import View

Kind = Literal["gained", "lost", "moved"]
Side = Literal["before", "after"]
SHOWN = {1: "stat", 10: "routine", 20: "off-peak"}
"""Priorities as the file has them."""


@dataclass(frozen=True)
class Difference:
    """One case or forwarding that changes. `what`: the service, or `forward to` a peer; `rule`: the one that did it, or
    would do it.
    """

    kind: Kind
    what: str
    rule: str
    detail: str


Why = Callable[[str, Side, Collection[str]], str]
"""Why a rule, by its name, does not take these images before or after: asked for what is gained or lost alone."""


def unexplained(rule: str, side: Side, images: Collection[str]) -> str:
    """For who only counts."""
    return ""


def differences(before: Decision, after: Decision, why: Why = unexplained) -> list[Difference]:
    """What changes for the study. The decisions may be unexplained; `why` gives the reasons that are told."""
    return [*_of_cases(before, after, why), *_of_forwards(before, after, why)]


def _of_cases(before: Decision, after: Decision, why: Why) -> Iterator[Difference]:
    old = {(candidate.service, candidate.instances): candidate for candidate in before.candidates}
    new = {(candidate.service, candidate.instances): candidate for candidate in after.candidates}
    for key, candidate in old.items():
        if key in new and (changes := _changes(candidate, new[key])):
            yield Difference("moved", key[0], " and ".join(new[key].rules), "; ".join(changes))
    lost = [old[key] for key in old if key not in new]
    gained = [new[key] for key in new if key not in old]
    for candidate, twin in _paired(lost, gained):
        lost.remove(candidate)
        gained.remove(twin)
        yield Difference("moved", twin.service, " and ".join(twin.rules), "; ".join(_moved(candidate, twin, why)))
    for candidate in lost:
        reason = why(candidate.rules[0], "after", candidate.instances)
        yield Difference("lost", candidate.service, candidate.rules[0], reason)
    for candidate in gained:
        reason = why(candidate.rules[0], "before", candidate.instances)
        yield Difference("gained", candidate.service, candidate.rules[0], reason)


def _paired(lost: Sequence[Candidate], gained: Sequence[Candidate]) -> list[tuple[Candidate, Candidate]]:
    """Which case of a service comes in the place of which: first those with the most images in common."""
    pairs = [(old, new) for old in lost for new in gained if old.service == new.service]
    pairs.sort(key=lambda pair: -len(set(pair[0].instances).intersection(pair[1].instances)))
    taken: set[int] = set()
    found = []
    for old, new in pairs:
        if not taken & {id(old), id(new)}:
            taken |= {id(old), id(new)}
            found.append((old, new))
    return found


def _moved(old: Candidate, new: Candidate, why: Why) -> list[str]:
    """What is otherwise where the same service gets other images."""
    changes = [f"reads {len(new.instances)} images instead of {len(old.instances)}"]
    sides: tuple[tuple[str, Candidate, Candidate, Side], ...] = (
        ("not any more", old, new, "after"),
        ("now", new, old, "before"),
    )
    for word, more, less, side in sides:
        images = sorted(set(more.instances).difference(less.instances))
        if images and (reason := why(more.rules[0], side, images)):
            changes.append(f"{len(images)} {word}: {reason}")
    return changes + _changes(replace(old, completion=replace(old.completion, missing=new.completion.missing)), new)


def _changes(old: Candidate, new: Candidate) -> list[str]:
    """What is otherwise with the same service, in words."""
    changes = []
    if old.shadow != new.shadow:
        changes.append("in shadow: nothing is sent any more" if new.shadow else "live, not in shadow any more")
    for name, one, other in (
        ("results", old.results, new.results),
        ("send_to", old.send_to, new.send_to),
    ):
        if set(one) != set(other) and not new.shadow:
            changes.append(f"{name} {', '.join(other)} instead of {', '.join(one) or 'none'}")
    one_priority, other_priority = (SHOWN[of.priority % SHADOW_AFTER] for of in (old, new))
    if one_priority != other_priority:
        changes.append(f"priority {other_priority} instead of {one_priority}")
    if old.completion != new.completion:
        changes.append("another `complete`")
    if old.late != new.late:
        changes.append("another `late_images`")
    if old.on_failure != new.on_failure:
        changes.append(f"on_failure {new.on_failure} instead of {old.on_failure}")
    return changes


def _of_forwards(before: Decision, after: Decision, why: Why) -> Iterator[Difference]:
    old, new = _forwarded(before.forwards), _forwarded(after.forwards)
    for peer in sorted({*old, *new}):
        of_old, of_new = old.get(peer, {}), new.get(peer, {})
        sides: tuple[tuple[Kind, dict[str, str], dict[str, str], Side], ...] = (
            ("gained", of_new, of_old, "before"),
            ("lost", of_old, of_new, "after"),
        )
        for kind, more, less, other in sides:
            images = [uid for uid in more if uid not in less]
            if images:
                rule = more[images[0]]
                detail = f"{len(images)} images; {why(rule, other, images)}".removesuffix("; ")
                yield Difference(kind, f"forward to {peer}", rule, detail)


def _forwarded(forwards: Sequence[Forward]) -> dict[str, dict[str, str]]:
    """By peer: which images, and by which rule."""
    found: dict[str, dict[str, str]] = {}
    for forward in forwards:
        for peer in forward.peers:
            found.setdefault(peer, {}).update(dict.fromkeys(forward.instances, forward.rule))
    return found


def why_not(study: Study, rules: Rules, name: str, images: Collection[str]) -> str:
    """Why a rule does not take these images of the study, or has nothing done with them."""
    rule = next((one for one in rules.rules if one.name == name), None)
    if rule is None:
        return f"there is no rule {name!r}"
    if rule.enabled:
        view = View(study, rules)
        wanted = view.images_of(one for one in study.instances if one.sop_instance_uid in images)
        nearest = view.nearest(rule.when, wanted)
        if nearest.blocking:
            return nearest.why_not
    verdict = next(one for one in decide(study, rules).verdicts if one.rule == name)
    return verdict.reason
