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
from pacsnode.route.prepared import prepared
from pacsnode.route.rule import Rule
from pacsnode.route.rules import Rules
from pacsnode.route.series import choose
from pacsnode.route.view import Images, View

PRIORITIES: dict[Priority, int] = {"stat": 1, "routine": 10, "off-peak": 20}
"""Smaller is sooner."""
SHADOW_AFTER = 100
"""Added to the priority of what runs in shadow: behind everything that somebody waits for."""
LATE_ORDER = ("ignore", "amend", "rerun")


@dataclass
class _Deciding:
    """One study on its way through the rules. `stopped`: images that a rule took for itself, by the rule's name."""

    view: View
    rules: Rules
    study_instance_uid: str
    explained: bool
    left: Images
    stopped: list[tuple[str, Images]] = field(default_factory=list)
    candidates: dict[tuple[str, tuple[str, ...]], Candidate] = field(default_factory=dict)
    forwards: list[Forward] = field(default_factory=list)


def decide(study: Study, rules: Rules, *, explained: bool = True) -> Decision:
    """Apply every rule to every image of the study.

    Not `explained`: rules that cannot match say no more than that, which is several times as quick.
    """
    ready = prepared(rules)
    view = View(study, rules)
    deciding = _Deciding(view, rules, study.study_instance_uid, explained, view.everything)
    if study.conflict:
        reason = f"the study's identity is in conflict and waits for a person: {study.conflict}"
        verdicts = [RuleVerdict(rule.name, False, reason) for rule in rules.rules]
    else:
        verdicts = list(ready.untouched)
        may_take = -1 if explained else view.may_be_taken_by()
        for number, (rule, when) in enumerate(zip(rules.rules, ready.whens, strict=True)):
            if when is None or not may_take >> number & 1:
                continue
            refusal = None if deciding.stopped else view.refusal(rule.name, when)
            verdicts[number] = refusal or _apply(rule, deciding)
    return Decision(
        study.study_instance_uid,
        study.revision,
        rules.hash,
        tuple(deciding.candidates.values()),
        tuple(verdicts),
        tuple(deciding.forwards),
    )


def _apply(rule: Rule, deciding: _Deciding) -> RuleVerdict:
    view = deciding.view
    matching = view.select(rule.when, deciding.left)
    nearest = matching.nearest
    if not matching.images:
        reason = _why_none(rule, deciding) if deciding.explained else ""
        return RuleVerdict(rule.name, False, reason, nearest.clauses) if reason else nearest.refusal(rule.name)
    images, told = matching.images, []
    if rule.series is not None:
        condition = rule.series.when
        chosen = choose(
            view.of(images),
            rule.series,
            lambda series: condition is None or view.is_met(condition, view.images_of(series)),
        )
        if not chosen.instances:
            return RuleVerdict(rule.name, False, chosen.reason, nearest.clauses)
        images = view.images_of(chosen.instances)
        told.append(f"its series have {images.bit_count()} of {_images(matching.images.bit_count())}")
    clauses = nearest.clauses
    for name in rule.run:
        sentence, blocking = _run(rule, name, images, deciding)
        told.append(sentence)
        clauses = (*clauses, *blocking)
    if rule.forward:
        deciding.forwards.append(Forward(rule.name, view.uids(images), rule.forward, PRIORITIES[rule.priority]))
        told.append(f"{_images(images.bit_count())} forwarded to {' and '.join(rule.forward)}")
    if rule.stop:
        deciding.stopped.append((rule.name, images))
        deciding.left &= ~images
        told.append("no rule below looks at them")
    return RuleVerdict(rule.name, True, f"matched, {', '.join(told)}", clauses, rule.shadow)


def _why_none(rule: Rule, deciding: _Deciding) -> str:
    """Why a rule gets no image, where it is not its condition."""
    view = deciding.view
    if not view.instances:
        return "the study has no images yet"
    if not deciding.stopped:
        return ""
    taken = view.select(rule.when, view.everything).images
    by = [name for name, images in deciding.stopped if images & taken]
    return f"its images are taken by {' and '.join(map(repr, by))} above, which has stop: true" if taken else ""


def _run(rule: Rule, name: str, images: Images, deciding: _Deciding) -> tuple[str, tuple[Clause, ...]]:
    """Make the candidate for one service; what became of it in words, and the clauses that were in its way."""
    count = _images(images.bit_count())
    service = deciding.rules.services.get(name)
    if service is None:
        return f"but {name} is not installed", ()
    accepted = deciding.view.select(service.accepts, images)
    if not accepted.images:
        return f"but {name} accepts none of its {count}: {accepted.nearest.why_not}", accepted.nearest.blocking
    candidate = _candidate(rule, name, accepted.images, deciding)
    key = (candidate.service, candidate.instances)
    held = deciding.candidates.get(key)
    deciding.candidates[key] = _united(held, candidate) if held else candidate
    return f"{name} gets {accepted.images.bit_count()} of {count}{', in shadow' if rule.shadow else ''}", ()


def _candidate(rule: Rule, service: str, images: Images, deciding: _Deciding) -> Candidate:
    complete = rule.complete
    return Candidate(
        deciding.study_instance_uid,
        service,
        (rule.name,),
        deciding.view.uids(images),
        tuple(kind for kind in RESULT_KINDS if kind in rule.results),
        tuple(dict.fromkeys(rule.send_to)),
        PRIORITIES[rule.priority] + (SHADOW_AFTER if rule.shadow else 0),
        Completion(
            complete.quiet,
            complete.after_release,
            complete.ask_sender,
            complete.at_most,
            complete.then,
            tuple(_missing(rule, images, deciding.view)),
        ),
        Late(rule.late.do, rule.late.within),
        rule.shadow,
        rule.on_failure,
    )


def _missing(rule: Rule, images: Images, view: View) -> list[str]:
    """What the rule expects and the study does not have yet."""
    complete = rule.complete
    missing = [
        f"no image with {wanted.in_words}" for wanted in complete.expect if not view.is_met(wanted, view.everything)
    ]
    if images.bit_count() < complete.images:
        missing.append(f"{_images(images.bit_count())} of at least {complete.images}")
    if complete.contiguous:
        missing += _gaps(view.of(images))
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
            gaps.append(f"{_images(span - len(held))} between {min(held)} and {max(held)} of series {uid}")
    return gaps


def _united(first: Candidate, second: Candidate) -> Candidate:
    """Two rules that ask one service for the same images share one run, which waits for what both expect.

    A rule in shadow adds nothing to a live one: neither a destination nor a time to wait.
    """
    if first.shadow != second.shadow:
        return second if first.shadow else first
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
        on_failure="tell" if "tell" in (first.on_failure, second.on_failure) else "keep",
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
