"""What the rules make of a study: candidate cases, images to forward, and the reason of every clause of every rule.

In: a Study and the Rules. Out: a Decision. Pure and deterministic: the same study and file give the same decision, in
whatever order the images came. Rules act in the order of the file: each that is enabled and matches, until one with
`stop: true` takes an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pacsnode.handover import (
    RESULT_KINDS,
    Candidate,
    Clause,
    Completion,
    Decision,
    Forward,
    Instance,
    Late,
    RuleVerdict,
    Study,
)
from pacsnode.operands import NUMBER
from pacsnode.route.language import Priority
from pacsnode.route.rule import Rule
from pacsnode.route.rules import Rules, in_words, unsatisfied
from pacsnode.route.series import choose
from pacsnode.route.view import View

PRIORITIES: dict[Priority, int] = {"stat": 1, "routine": 10, "off-peak": 20}
"""Smaller is sooner."""
LATE_ORDER = ("ignore", "amend", "rerun")


@dataclass
class _Deciding:
    """One study on its way through the rules. `stopped`: which rule took an image for itself, by SOP Instance UID."""

    view: View
    rules: Rules
    study_instance_uid: str
    explained: bool
    stopped: dict[str, str] = field(default_factory=dict)
    candidates: dict[tuple[str, tuple[str, ...]], Candidate] = field(default_factory=dict)
    forwards: list[Forward] = field(default_factory=list)
    verdicts: list[RuleVerdict] = field(default_factory=list)


def decide(study: Study, rules: Rules, *, explained: bool = True) -> Decision:
    """Apply every rule to every instance of the study. Not `explained`: verdicts without reasons, quicker."""
    deciding = _Deciding(View(study, rules), rules, study.study_instance_uid, explained)
    for rule in rules.rules:
        if study.conflict:
            reason = f"the study's identity is in conflict and waits for a person: {study.conflict}"
            deciding.verdicts.append(RuleVerdict(rule.name, False, reason))
        elif not rule.enabled:
            deciding.verdicts.append(RuleVerdict(rule.name, False, "the rule is switched off (enabled: false)"))
        else:
            deciding.verdicts.append(_apply(rule, deciding))
    return Decision(
        study.study_instance_uid,
        study.revision,
        rules.hash,
        tuple(deciding.candidates.values()),
        tuple(deciding.verdicts),
        tuple(deciding.forwards),
    )


def _apply(rule: Rule, deciding: _Deciding) -> RuleVerdict:
    view, stopped = deciding.view, deciding.stopped
    left = None if not stopped else [i.sop_instance_uid for i in view.instances if i.sop_instance_uid not in stopped]
    matching = view.select(rule.when, left, explained=deciding.explained)
    if not matching.instances:
        reason = _why_none(rule, deciding) if deciding.explained else ""
        return RuleVerdict(rule.name, False, reason or in_words(unsatisfied(matching.nearest)), matching.nearest)
    instances, told = matching.instances, []
    if rule.series is not None:
        condition = rule.series.when
        chosen = choose(instances, rule.series, lambda series: condition is None or view.is_met(condition, series))
        if not chosen.instances:
            return RuleVerdict(rule.name, False, chosen.reason, matching.nearest)
        instances = chosen.instances
        told.append(f"its series have {len(instances)} of {_images(len(matching.instances))}")
    clauses = matching.nearest
    for name in rule.run:
        sentence, blocking = _run(rule, name, instances, deciding)
        told.append(sentence)
        clauses = (*clauses, *blocking)
    if rule.forward:
        uids = tuple(instance.sop_instance_uid for instance in instances)
        deciding.forwards.append(Forward(rule.name, uids, rule.forward, PRIORITIES[rule.priority]))
        told.append(f"{_images(len(uids))} forwarded to {' and '.join(rule.forward)}")
    if rule.stop:
        stopped.update((instance.sop_instance_uid, rule.name) for instance in instances)
        told.append("no rule below looks at them")
    return RuleVerdict(rule.name, True, f"matched, {', '.join(told)}", clauses)


def _why_none(rule: Rule, deciding: _Deciding) -> str:
    """Why a rule gets no image, where it is not its condition."""
    if not deciding.view.instances:
        return "the study has no images yet"
    taken = deciding.view.select(rule.when, deciding.stopped, explained=False).instances if deciding.stopped else ()
    if not taken:
        return ""
    by = dict.fromkeys(deciding.stopped[instance.sop_instance_uid] for instance in taken)
    return f"its images are taken by {' and '.join(map(repr, by))} above, which has stop: true"


def _run(rule: Rule, name: str, instances: Sequence[Instance], deciding: _Deciding) -> tuple[str, tuple[Clause, ...]]:
    """Make the candidate for one service; what became of it in words, and the clauses that were in its way."""
    count = _images(len(instances))
    service = deciding.rules.services.get(name)
    if service is None:
        return f"but {name} is not installed", ()
    uids = {instance.sop_instance_uid for instance in instances}
    accepted = deciding.view.select(service.accepts, uids, explained=deciding.explained)
    if not accepted.instances:
        blocking = unsatisfied(accepted.nearest)
        return f"but {name} accepts none of its {count}: {in_words(blocking)}", tuple(blocking)
    candidate = _candidate(rule, name, accepted.instances, deciding)
    key = (candidate.service, candidate.instances)
    held = deciding.candidates.get(key)
    deciding.candidates[key] = _united(held, candidate) if held else candidate
    return f"{name} gets {len(accepted.instances)} of {count}", ()


def _candidate(rule: Rule, service: str, instances: tuple[Instance, ...], deciding: _Deciding) -> Candidate:
    complete = rule.complete
    return Candidate(
        deciding.study_instance_uid,
        service,
        (rule.name,),
        tuple(instance.sop_instance_uid for instance in instances),
        tuple(kind for kind in RESULT_KINDS if kind in rule.results),
        tuple(dict.fromkeys(rule.send_to)),
        PRIORITIES[rule.priority],
        Completion(
            complete.quiet,
            complete.after_release,
            complete.ask_sender,
            complete.at_most,
            complete.then,
            tuple(_missing(rule, instances, deciding.view)),
        ),
        Late(rule.late.do, rule.late.within),
    )


def _missing(rule: Rule, instances: Sequence[Instance], view: View) -> list[str]:
    """What the rule expects and the study does not have yet."""
    complete = rule.complete
    missing = [f"no image with {wanted.in_words}" for wanted in complete.expect if not view.is_met(wanted)]
    if len(instances) < complete.images:
        missing.append(f"{_images(len(instances))} of at least {complete.images}")
    if complete.contiguous:
        missing += _gaps(instances)
    return missing


def _gaps(instances: Sequence[Instance]) -> list[str]:
    """Image numbers that are not there, of each series."""
    numbers: dict[str, set[int]] = {}
    for instance in instances:
        value = next(iter(instance.attributes.get("InstanceNumber", ())), "").strip()
        if NUMBER.fullmatch(value) and float(value).is_integer() and abs(float(value)) < 1e9:
            numbers.setdefault(instance.series_instance_uid, set()).add(int(float(value)))
    gaps = []
    for uid, held in sorted(numbers.items()):
        span = max(held) - min(held) + 1
        if span > len(held):
            gaps.append(f"{span - len(held)} images between {min(held)} and {max(held)} of series {uid}")
    return gaps


def _united(first: Candidate, second: Candidate) -> Candidate:
    """Two rules that ask one service for the same images share one run, which waits for what both expect."""
    one, other = first.completion, second.completion
    releases = (one.after_release_s, other.after_release_s)
    completion = Completion(
        max(one.quiet_s, other.quiet_s),
        None if None in releases else max(releases),  # type: ignore[type-var]
        one.ask_sender or other.ask_sender,
        max(one.at_most_s, other.at_most_s),
        "run" if (one.then, other.then) == ("run", "run") else "keep",
        tuple(dict.fromkeys((*one.missing, *other.missing))),
    )
    late = max(first.late, second.late, key=lambda late: (LATE_ORDER.index(late.action), late.within_s))
    return replace(
        first,
        rules=tuple(dict.fromkeys((*first.rules, *second.rules))),
        results=tuple(kind for kind in RESULT_KINDS if kind in (*first.results, *second.results)),
        send_to=tuple(dict.fromkeys((*first.send_to, *second.send_to))),
        priority=min(first.priority, second.priority),
        completion=completion,
        late=late,
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
