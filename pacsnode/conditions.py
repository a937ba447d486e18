"""The conditions of rules and services, for example `BodyPartExamined: {in: [CHEST, THORAX]}`.

In: what YAML holds, parsed once into frozen objects; then attributes of one instance. Out: whether they satisfy the
condition, and the clauses that decided it. Pure; nothing is evaluated as code. Text is compared after `fold`, numbers
as numbers, dates as dates: the attribute's VR decides, never how a value happens to be written in YAML.

A condition map holds when all of its lines hold. A line is `Keyword: value`, `Keyword: {operator: ...}` (several
operators: each holds), or a block `any: [maps]`, `all: [maps]`, `not: map`. An attribute with several values satisfies
an operator when one of the values does. An absent attribute satisfies only `exists: false` and what is under `not`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from pacsnode.dicom.attributes import BY_KEYWORD
from pacsnode.errors import ConfigError
from pacsnode.handover import Attributes, Clause
from pacsnode.operands import DAYS, NUMBER_VRS, Key, Wrong, key_of, operand_of, vr_of
from pacsnode.patterns import MAX_SUBJECT, fold, safe_pattern
from pacsnode.yamlfile import Loc, found_in_words, nearest, wrong

PEER = "peer"
"""The one condition name that is no DICOM attribute: the name of the peer that sent the image."""
NAMES = (*BY_KEYWORD, PEER)

Mode = Literal["all", "any"]


@dataclass(frozen=True)
class OneOf:
    """One of the values, compared by key."""

    keys: frozenset[Key]

    def holds(self, keyword: str, value: str) -> bool:
        return key_of(keyword, value) in self.keys


@dataclass(frozen=True)
class Pattern:
    """The folded value has a match of the regular expression somewhere."""

    pattern: re.Pattern[str]

    def holds(self, keyword: str, value: str) -> bool:
        return self.pattern.search(fold(value)[:MAX_SUBJECT]) is not None


@dataclass(frozen=True)
class Range:
    """From `low` up to `high`, both included; for ages up to the end of the unit of `high`."""

    low: Key
    high: Key

    def holds(self, keyword: str, value: str) -> bool:
        key = key_of(keyword, value)
        # a key and the bounds come from one function and one keyword: both text (dates) or both Decimal
        return key is not None and self.low <= key <= self.high  # type: ignore[operator]


@dataclass(frozen=True)
class Anything:
    """Any value: the attribute is there."""

    def holds(self, keyword: str, value: str) -> bool:
        return True


@dataclass(frozen=True)
class Test:
    """One operator on one attribute; `negated` turns its answer round, for an absent attribute too."""

    __test__ = False  # not a test of pytest

    attribute: str
    matcher: OneOf | Pattern | Range | Anything
    expected: str
    negated: bool = False

    def clause(self, attributes: Attributes) -> Clause:
        """This test, looked at."""
        values = attributes.get(self.attribute, ())
        held = any(self.matcher.holds(self.attribute, value) for value in values)
        expected = f"not {self.expected}" if self.negated else self.expected
        if isinstance(self.matcher, Anything):
            expected = "absent" if self.negated else "present"
        actual = "\\".join(values)[:200]
        return Clause(self.attribute, expected, actual, held != self.negated, absent=not values)


@dataclass(frozen=True)
class Condition:
    """Parts that all must hold, or of which one must. `not` is moved into the tests when it is parsed."""

    mode: Mode
    parts: tuple[Test | Condition, ...]

    def tests(self) -> Iterator[Test]:
        """Every test in it."""
        for part in self.parts:
            yield from (part,) if isinstance(part, Test) else part.tests()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_for_pydantic)


def evaluate(condition: Condition, attributes: Attributes) -> tuple[bool, tuple[Clause, ...]]:
    """Whether the attributes satisfy the condition, and why.

    Of an `any` that holds only its first alternative that holds is told; so all clauses of a satisfied condition are
    satisfied, and an unsatisfied one has at least one unsatisfied clause.
    """
    told: list[Clause] = []
    all_held = True
    clauses: tuple[Clause, ...]
    for part in condition.parts:
        if isinstance(part, Test):
            clause = part.clause(attributes)
            held, clauses = clause.satisfied, (clause,)
        else:
            held, clauses = evaluate(part, attributes)
        if held and condition.mode == "any":
            return True, clauses
        all_held = all_held and held
        told.extend(clauses)
    return all_held and condition.mode == "all", tuple(told)


def parse(raw: object, where: str = "") -> Condition:
    """Parse a condition map outside of a model. Raises ConfigError with all its mistakes."""
    reading = _Reading()
    condition = reading.map(raw, (), False)
    if reading.mistakes:
        told = [f"{'.'.join(map(str, loc))}: {text}".removeprefix(": ") for loc, _, text in reading.mistakes]
        raise ConfigError("; ".join(told), where=where)
    return condition


def _for_pydantic(raw: object) -> Condition:
    """The same as a field of a model: the mistakes become pydantic's, each at its own place."""
    if isinstance(raw, Condition):
        return raw
    reading = _Reading()
    condition = reading.map(raw, (), False)
    if reading.mistakes:
        raise ValidationError.from_exception_data(
            "Condition",
            [InitErrorDetails(type=wrong(code, text), loc=loc, input=raw) for loc, code, text in reading.mistakes],
        )
    return condition


# --- operators: a new one is a function here; its docstring is its help ----------------------------------------------


def equals(keyword: str, raw: object) -> Test:
    """`Keyword: value`: the value is equal. Case, white space and punctuation do not count: CHEST-PA is "chest pa"."""
    text, key = operand_of(keyword, raw)
    return Test(keyword, OneOf(frozenset({key})), text)


def one_of(keyword: str, raw: object) -> Test:
    """`{in: [CR, DX]}`: the value is equal to one of these."""
    if not isinstance(raw, list) or not raw:
        raise Wrong(f"`in` takes a list such as [CR, DX], found {found_in_words(raw)}")
    operands = [operand_of(keyword, value) for value in raw]
    return Test(keyword, OneOf(frozenset(key for _, key in operands)), " or ".join(text for text, _ in operands))


def matches(keyword: str, raw: object) -> Test:
    r"""`{matches: "chest|흉부"}`: the regular expression (Python's `re`) is found in the text.

    The text is lower case, and one space stands for each run of punctuation and white space: "Chest P-A(Erect)" is
    looked at as "chest p a erect". `\b` is the edge of a word. 128 characters of a value are looked at.
    """
    if not isinstance(raw, str) or not raw:
        raise Wrong(f"`matches` takes a regular expression in quotes, found {found_in_words(raw)}")
    vr = vr_of(keyword)
    if vr in NUMBER_VRS | {"UI"}:
        raise Wrong(f"{keyword} is no text (VR {vr}); use {'`in`' if vr == 'UI' else '`between`'}")
    try:
        return Test(keyword, Pattern(safe_pattern(raw)), f"text with {raw}")
    except ValueError as error:
        raise Wrong(str(error)) from None


def between(keyword: str, raw: object) -> Test:
    """`{between: [a, b]}`: from a to b, both included. Numbers; dates (2026-03-31); ages (18Y, 6M, 3W, 10D).

    A plain number for an age is years. An age lies below `to 12Y` until the 13th birthday. Text attributes have no
    order.
    """
    vr = vr_of(keyword)
    if vr not in NUMBER_VRS | {"DA", "DT", "AS"}:
        raise Wrong(f"{keyword} is text (VR {vr}) and has no order; use `in` or `matches`")
    if not isinstance(raw, list) or len(raw) != 2:
        raise Wrong("`between` takes a list of two values, [from, to]")
    (low_text, low), (high_text, high) = (operand_of(keyword, value) for value in raw)
    if low > high:  # type: ignore[operator]  # of one VR: both text or both Decimal
        raise Wrong(f"{low_text} is greater than {high_text}; write the smaller one first")
    if vr == "AS" and isinstance(high, Decimal):
        high += DAYS[high_text.strip()[-1].upper()] - Decimal("0.0001")
    return Test(keyword, Range(low, high), f"from {low_text} to {high_text}")


def exists(keyword: str, raw: object) -> Test:
    """`{exists: true}`: the attribute is there and not empty; `{exists: false}`: it is absent or empty."""
    if not isinstance(raw, bool):
        raise Wrong(f"`exists` takes true or false, found {found_in_words(raw)}")
    return Test(keyword, Anything(), "present", negated=not raw)


OPERATORS: dict[str, Callable[[str, object], Test]] = {
    "equals": equals,
    "in": one_of,
    "matches": matches,
    "between": between,
    "exists": exists,
}


# --- parsing ----------------------------------------------------------------------------------------------------------


class _Reading:
    """Reads condition maps and collects the mistakes as (location, code, sentence)."""

    def __init__(self) -> None:
        self.mistakes: list[tuple[Loc, str, str]] = []

    def map(self, raw: object, loc: Loc, negated: bool) -> Condition:
        """A whole map: all its lines, or under `not` (De Morgan) one of the negated lines."""
        parts: list[Test | Condition] = []
        if not isinstance(raw, dict) or not raw:
            found = "an empty map" if raw == {} else found_in_words(raw)
            self.wrong(loc, "wrong-type", f"expected conditions such as `Modality: CR`, found {found}")
        else:
            for key, value in raw.items():
                parts += self.line(str(key), value, (*loc, str(key)), negated)
        return Condition("any" if negated else "all", tuple(parts))

    def line(self, key: str, raw: object, loc: Loc, negated: bool) -> list[Test | Condition]:
        if key == "not":
            return [self.map(raw, loc, not negated)]
        if key in ("any", "all"):
            return self.block(key, raw, loc, negated)
        if key not in NAMES:
            operator = "; operators stand under an attribute" if key in OPERATORS else ""
            near = operator or nearest(key, NAMES)
            self.wrong(loc, "unknown-attribute", f"there is no attribute {key} to route on{near}")
            return []
        return self.attribute(key, raw, loc, negated)

    def block(self, key: str, raw: object, loc: Loc, negated: bool) -> list[Test | Condition]:
        if not isinstance(raw, list) or not raw:
            self.wrong(loc, "wrong-type", f"`{key}` takes a list of condition maps, found {found_in_words(raw)}")
            return []
        parts = tuple(self.map(item, (*loc, index), negated) for index, item in enumerate(raw))
        return [Condition("any" if (key == "any") != negated else "all", parts)]

    def attribute(self, keyword: str, raw: object, loc: Loc, negated: bool) -> list[Test | Condition]:
        """What stands after a keyword: a value, or a map of operators that all hold."""
        if not isinstance(raw, dict):
            return self.test(equals, keyword, raw, loc, negated)
        parts: list[Test | Condition] = []
        if not raw:
            self.wrong(loc, "wrong-type", "expected a value or an operator, found an empty map")
        for operator, operand in raw.items():
            at = (*loc, str(operator))
            if operator == "not":
                parts += self.attribute(keyword, operand, at, not negated)
            elif operator in OPERATORS:
                parts += self.test(OPERATORS[operator], keyword, operand, at, negated)
            else:
                near = nearest(str(operator), (*OPERATORS, "not")) or ";"
                self.wrong(
                    at, "unknown-operator", f"there is no such operator{near} expected: {', '.join(OPERATORS)}, not"
                )
        return parts if len(parts) < 2 else [Condition("any" if negated else "all", tuple(parts))]

    def test(
        self, operator: Callable[[str, object], Test], keyword: str, raw: object, loc: Loc, negated: bool
    ) -> list[Test | Condition]:
        try:
            made = operator(keyword, raw)
        except Wrong as mistake:
            self.wrong(loc, "wrong-value", str(mistake))
            return []
        return [replace(made, negated=made.negated != negated)]

    def wrong(self, loc: Loc, code: str, text: str) -> None:
        self.mistakes.append((loc, code, text))
