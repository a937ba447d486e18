"""What conditions cannot mean: a rule that no image satisfies, a rule whose images another one takes before it.

In: conditions. Out: a sentence, or a yes. Pure. Finds what follows from single tests side by side; silent where it
is not sure, so that no rule that can act is called impossible.
"""

from __future__ import annotations

from collections.abc import Iterator

from pacsnode.conditions import Anything, Condition, OneOf, Range, StudyHas, Test
from pacsnode.dicom.names import Name


def contradiction(condition: Condition) -> str:
    """Why no image can satisfy the condition; "" where some may."""
    return _contradiction(condition, [])


def _contradiction(condition: Condition, outer: list[Test]) -> str:
    """`outer`: tests that must hold besides."""
    if condition.mode == "any" and len(condition.parts) > 1:
        reasons = [_contradiction(Condition("all", (part,)), outer) for part in condition.parts]
        return reasons[0] if all(reasons) else ""
    tests = [*outer, *(part for part in condition.parts if isinstance(part, Test))]
    for second, test in enumerate(tests):
        for first in tests[:second]:
            if first.name == test.name and _exclude_each_other(first, test):
                return f"{test.attribute} cannot be {first.wanted} and {test.wanted} at once"
    for part in condition.parts:
        inner = part.condition if isinstance(part, StudyHas) and not part.negated else part
        if isinstance(inner, Condition):
            reason = _contradiction(inner, [] if isinstance(part, StudyHas) else tests)
            if reason:
                return reason
    return ""


def _exclude_each_other(first: Test, second: Test) -> bool:
    if first.matcher == second.matcher:
        return first.negated != second.negated
    for absent, other in ((first, second), (second, first)):
        if isinstance(absent.matcher, Anything) and absent.negated:
            return not other.negated
    if first.negated and second.negated:
        return False
    if first.negated or second.negated:
        unwanted, wanted = (first, second) if first.negated else (second, first)
        return _is_within(wanted, unwanted)
    return _has_one_value(first.name) and _is_apart(first, second)


def _is_within(narrow: Test, wide: Test) -> bool:
    """Whether a value that the first takes is taken by the second too; of their matchers alone."""
    if isinstance(narrow.matcher, OneOf) and isinstance(wide.matcher, OneOf):
        return narrow.matcher.keys <= wide.matcher.keys
    if isinstance(narrow.matcher, OneOf) and isinstance(wide.matcher, Range):
        return all(_lies_in(key, wide.matcher) for key in narrow.matcher.keys)
    return isinstance(wide.matcher, Anything) or narrow.matcher == wide.matcher


def _is_apart(first: Test, second: Test) -> bool:
    match first.matcher, second.matcher:
        case OneOf() as one, OneOf() as other:
            return not one.keys & other.keys
        case (OneOf() as one, Range() as span) | (Range() as span, OneOf() as one):
            return not any(_lies_in(key, span) for key in one.keys)
        case Range() as one, Range() as other:
            wraps = one.low > one.high or other.low > other.high  # type: ignore[operator]
            return not wraps and (one.high < other.low or other.high < one.low)  # type: ignore[operator]
    return False


def _lies_in(key: object, span: Range) -> bool:
    if span.low > span.high:  # type: ignore[operator]
        return key >= span.low or key <= span.high  # type: ignore[operator]
    return bool(span.low <= key <= span.high)  # type: ignore[operator]


def _has_one_value(name: Name) -> bool:
    """Whether an attribute has one value at most: several values may satisfy what one cannot."""
    if name.index or (not name.steps and name.base[:1].islower()):
        return True
    if len(name.steps) > 1 or "." in name.base:
        return False
    from pydicom.datadict import dictionary_VM, tag_for_keyword

    tag = tag_for_keyword(name.base)
    return tag is not None and dictionary_VM(tag) == "1"


def implies(narrow: Condition, wide: Condition) -> bool:
    """Whether every image that satisfies `narrow` is sure to satisfy `wide`."""
    if wide.mode == "any" and len(wide.parts) > 1:
        return any(implies(narrow, Condition("all", (part,))) for part in wide.parts) or wide in narrow.parts
    given = list(sure_parts(narrow))
    return all(_follows(part, given) for part in wide.parts)


def sure_parts(condition: Condition) -> Iterator[Test | StudyHas | Condition]:
    """The parts that hold in any case, those of `all` blocks among them."""
    if condition.mode == "any" and len(condition.parts) > 1:
        yield condition
        return
    for part in condition.parts:
        if isinstance(part, Condition):
            yield from sure_parts(part)
        else:
            yield part


def _follows(part: Test | StudyHas | Condition, given: list[Test | StudyHas | Condition]) -> bool:
    if part in given:
        return True
    if isinstance(part, Condition):
        return implies(Condition("all", tuple(given)), part)
    if isinstance(part, StudyHas):
        return False
    return any(_entails(test, part) for test in given if isinstance(test, Test) and test.name == part.name)


def _entails(test: Test, wanted: Test) -> bool:
    if test.negated:
        return wanted.negated and _is_within(wanted, test)
    if wanted.negated:
        return _has_one_value(test.name) and _is_apart(test, wanted)
    return _is_within(test, wanted)
