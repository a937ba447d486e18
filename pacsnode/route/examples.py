"""The examples of a rules file: made-up studies, decided like real ones, and the rules that must take them.

In: Rules. Out: one sentence for each example to which the rules act otherwise than it expects. A rule that is switched
off is tried too, so that what waits to be switched on is known to be right; it stops no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pacsnode.handover import Instance, RuleVerdict, Study
from pacsnode.operands import PEER
from pacsnode.route.decide import decide
from pacsnode.route.language import Example
from pacsnode.route.rules import Rules, in_words, unsatisfied


def check_examples(rules: Rules) -> list[str]:
    """What does not hold, with its place in the file."""
    tried = replace(
        rules, rules=tuple(replace(rule, enabled=True, stop=rule.stop and rule.enabled) for rule in rules.rules)
    )
    return [failure for where, example in rules.examples for failure in _failures(where, example, tried)]


def _failures(where: str, example: Example, rules: Rules) -> Iterator[str]:
    for verdict in decide(example_study(example), rules).verdicts:
        expected = verdict.rule in example.expect
        if verdict.matched and not expected:
            yield f"{where} example: rule {verdict.rule!r} takes it, but is not expected to"
        elif expected and not verdict.matched:
            yield f"{where} example: rule {verdict.rule!r} is expected to take it, but {_why_not(verdict)}"


def _why_not(verdict: RuleVerdict) -> str:
    blocking = unsatisfied(verdict.clauses)
    return in_words(blocking) if blocking else verdict.reason


def example_study(example: Example) -> Study:
    """The study that an example describes. Each of its maps is a series of its own, unless it says otherwise."""
    instances: list[Instance] = []
    for number, image in enumerate(example.study, start=1):
        for copy in range(1, example.images + 1):
            uid = f"2.25.{number}.{copy}"
            attributes = {"InstanceNumber": (str(copy),), **image}
            series = next(iter(image.get("SeriesInstanceUID", ())), f"2.25.{number}")
            sop_class = next(iter(image.get("SOPClassUID", ())), "")
            peer = next(iter(image.get(PEER, ())), "")
            instances.append(
                Instance(uid, sop_class, series, "2.25", "", "", "", peer, 0, 0, "", attributes)  # came in 1970
            )
    return Study("2.25", "", "", "", 0, tuple(instances))
