"""What the rules make of a study: candidate cases, and the reason of every clause of every rule.

In: a Study and the Rules. Out: a Decision. Pure and deterministic: the same study and file give the same decision, in
whatever order the images came. Every enabled rule that matches acts; there is no first match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pacsnode.conditions import PEER, Condition, evaluate
from pacsnode.handover import RESULT_KINDS, Attributes, Candidate, Clause, Decision, Instance, RuleVerdict, Study
from pacsnode.route.rules import Priority, Rule, Rules, in_words, unsatisfied

PRIORITIES: dict[Priority, int] = {"stat": 1, "routine": 10, "off-peak": 20}
"""Smaller is sooner."""

Answer = tuple[bool, tuple[Clause, ...]]


@dataclass(frozen=True)
class _Selected:
    """The instances that a condition holds for, and the clauses of the one that came nearest to it."""

    instances: tuple[Instance, ...]
    nearest: tuple[Clause, ...]


def decide(study: Study, rules: Rules) -> Decision:
    """Apply every rule to every instance of the study."""
    instances = sorted(study.instances, key=lambda instance: instance.sop_instance_uid)
    candidates: dict[tuple[str, tuple[str, ...]], Candidate] = {}
    verdicts: list[RuleVerdict] = []
    for rule in rules.rules:
        if study.conflict:
            reason = f"the study's identity is in conflict and waits for a person: {study.conflict}"
            verdicts.append(RuleVerdict(rule.name, False, reason))
        elif not rule.enabled:
            verdicts.append(RuleVerdict(rule.name, False, "the rule is switched off (enabled: false)"))
        else:
            found, verdict = _apply(rule, rules, study.study_instance_uid, instances)
            verdicts.append(verdict)
            for candidate in found:
                key = (candidate.service, candidate.instances)
                candidates[key] = _united(candidates[key], candidate) if key in candidates else candidate
    return Decision(study.study_instance_uid, study.revision, rules.hash, tuple(candidates.values()), tuple(verdicts))


def _apply(
    rule: Rule, rules: Rules, study_instance_uid: str, instances: Sequence[Instance]
) -> tuple[list[Candidate], RuleVerdict]:
    matching = _select(rule.when, instances)
    if not matching.instances:
        reason = in_words(unsatisfied(matching.nearest)) if instances else "the study has no images yet"
        return [], RuleVerdict(rule.name, False, reason, matching.nearest)
    candidates: list[Candidate] = []
    told: list[str] = []
    clauses = matching.nearest
    for name in rule.run:
        accepted = _select(rules.services[name].accepts, matching.instances)
        count = _images(len(matching.instances))
        if accepted.instances:
            candidates.append(_candidate(rule, name, study_instance_uid, accepted.instances))
            told.append(f"{name} gets {len(accepted.instances)} of {count}")
        else:
            blocking = unsatisfied(accepted.nearest)
            told.append(f"but {name} accepts none of its {count}: {in_words(blocking)}")
            clauses = (*clauses, *blocking)
    return candidates, RuleVerdict(rule.name, True, f"matched, {', '.join(told)}", clauses)


def _select(condition: Condition, instances: Sequence[Instance]) -> _Selected:
    """Look at each instance; instances that do not differ in what the condition looks at are looked at once."""
    names = sorted({test.attribute for test in condition.tests()})
    answers: dict[tuple[tuple[str, ...], ...], Answer] = {}
    chosen: list[Instance] = []
    nearest: tuple[tuple[bool, int, int], tuple[Clause, ...]] | None = None
    for instance in instances:
        attributes = _attributes(instance)
        seen = tuple(attributes.get(name, ()) for name in names)
        if seen not in answers:
            held, clauses = answers[seen] = evaluate(condition, attributes)
            blocking = len(unsatisfied(clauses))
            rank = (held, len(clauses) - blocking, -blocking)
            if nearest is None or rank > nearest[0]:
                nearest = rank, clauses
        if answers[seen][0]:
            chosen.append(instance)
    return _Selected(tuple(chosen), nearest[1] if nearest else ())


def _attributes(instance: Instance) -> Attributes:
    return {**instance.attributes, PEER: (instance.peer,)}


def _candidate(rule: Rule, service: str, study_instance_uid: str, instances: tuple[Instance, ...]) -> Candidate:
    return Candidate(
        study_instance_uid,
        service,
        (rule.name,),
        tuple(instance.sop_instance_uid for instance in instances),
        tuple(kind for kind in RESULT_KINDS if kind in rule.results),
        tuple(dict.fromkeys(rule.send_to)),
        PRIORITIES[rule.priority],
        rule.complete.quiet,
    )


def _united(first: Candidate, second: Candidate) -> Candidate:
    """Two rules that ask one service for the same images share one run."""
    return Candidate(
        first.study_instance_uid,
        first.service,
        tuple(dict.fromkeys((*first.rules, *second.rules))),
        first.instances,
        tuple(kind for kind in RESULT_KINDS if kind in (*first.results, *second.results)),
        tuple(dict.fromkeys((*first.send_to, *second.send_to))),
        min(first.priority, second.priority),
        max(first.quiet_s, second.quiet_s),
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
