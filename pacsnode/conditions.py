"""The conditions of rules and services, for example `BodyPartExamined: {in: [CHEST, THORAX]}`.

In: attributes of one image, and of the others of its study. Out: whether they satisfy a condition, and the clauses that
decided it. Pure; nothing is evaluated as code. Text is compared after `fold`, numbers as numbers, dates as dates: the
attribute's VR decides, never how a value happens to be written in YAML (`operators` reads that).

An attribute with several values satisfies an operator when one of the values does. An absent attribute satisfies only
`exists: false` and what is under `not`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pacsnode.dicom.names import Name
from pacsnode.handover import Clause
from pacsnode.operands import Key, key_of, named, values_of
from pacsnode.patterns import MAX_SUBJECT, fold

STUDY_HAS = "study_has"
"""`study_has: {conditions}`: some image of the study meets them, whichever image is looked at."""
Mode = Literal["all", "any"]
Values = Mapping[str, tuple[str, ...]]
"""By `Name.base`: attributes of the index, facts, and what was read from the file besides."""


@dataclass(frozen=True)
class OneOf:
    """One of the values, compared by key."""

    keys: frozenset[Key]

    def holds(self, name: str, value: str) -> bool:
        return key_of(name, value) in self.keys


@dataclass(frozen=True)
class Pattern:
    """The folded value has a match of the regular expression somewhere."""

    pattern: re.Pattern[str]

    def holds(self, name: str, value: str) -> bool:
        return self.pattern.search(fold(value)[:MAX_SUBJECT]) is not None


@dataclass(frozen=True)
class Contains:
    """The folded value has one of the folded texts in it."""

    texts: tuple[str, ...]

    def holds(self, name: str, value: str) -> bool:
        folded = fold(value)
        return any(text in folded for text in self.texts)


@dataclass(frozen=True)
class Range:
    """From `low` up to `high`, both included; for ages up to the end of the unit of `high`.

    A time of day may go over midnight: from 22:00 to 06:00.
    """

    low: Key
    high: Key

    def holds(self, name: str, value: str) -> bool:
        key = key_of(name, value)
        if key is None:
            return False
        # a key and the bounds come from one function and one name: both text (dates, times) or both Decimal
        if self.low > self.high:  # type: ignore[operator]
            return key >= self.low or key <= self.high  # type: ignore[operator]
        return self.low <= key <= self.high  # type: ignore[operator]


@dataclass(frozen=True)
class Anything:
    """Any value: the attribute is there."""

    def holds(self, name: str, value: str) -> bool:
        return True


Matcher = OneOf | Pattern | Contains | Range | Anything


@dataclass(frozen=True)
class Test:
    """One operator on one attribute; `negated` turns its answer round, for an absent attribute too."""

    __test__ = False  # not a test of pytest

    attribute: str
    matcher: Matcher
    expected: str
    negated: bool = False

    @cached_property
    def name(self) -> Name:
        """Which attribute it is."""
        return named(self.attribute)

    def clause(self, attributes: Values) -> Clause:
        """This test, looked at."""
        values = values_of(self.name, attributes)
        held = any(self.matcher.holds(self.attribute, value) for value in values)
        actual = "\\".join(values)[:200]
        return Clause(self.attribute, self.wanted, actual, held != self.negated, absent=not values)

    @property
    def wanted(self) -> str:
        """What it wants, in words."""
        if isinstance(self.matcher, Anything):
            return "absent" if self.negated else "present"
        return f"not {self.expected}" if self.negated else self.expected


@dataclass(frozen=True)
class StudyHas:
    """Some image of the study satisfies the condition; `negated`: none does."""

    condition: Condition
    negated: bool = False


@dataclass(frozen=True)
class Condition:
    """Parts that all must hold, or of which one must. `not` is moved into the tests when it is parsed."""

    mode: Mode
    parts: tuple[Test | StudyHas | Condition, ...]

    def tests(self) -> Iterator[Test]:
        """Every test in it."""
        for part in self.parts:
            if isinstance(part, Test):
                yield part
            else:
                yield from (part.condition if isinstance(part, StudyHas) else part).tests()

    def names(self) -> Iterator[Name]:
        """The name of every attribute in it."""
        return (test.name for test in self.tests())

    @property
    def in_words(self) -> str:
        """For people: `Modality CR or DX and ViewPosition not LL`."""
        return f" {'and' if self.mode == 'all' else 'or'} ".join(map(_part_in_words, self.parts))


ALWAYS = Condition("all", ())


def _part_in_words(part: Test | StudyHas | Condition) -> str:
    if isinstance(part, Test):
        return f"{part.attribute} {part.wanted}"
    if isinstance(part, StudyHas):
        return f"{'no' if part.negated else 'an'} image with {part.condition.in_words}"
    return f"({part.in_words})"


Look = Callable[[Test], Clause]
Meets = Callable[[Condition], bool]
"""Whether some image of the study satisfies a condition: what `study_has` asks."""


def no_study(condition: Condition) -> bool:
    """There are no images."""
    return False


def evaluate(condition: Condition, attributes: Values, study: Meets = no_study) -> tuple[bool, tuple[Clause, ...]]:
    """Whether the attributes satisfy the condition, and why.

    Of an `any` that holds only its first alternative that holds is told; so all clauses of a satisfied condition are
    satisfied, and an unsatisfied one has at least one unsatisfied clause.
    """
    return explain(condition, lambda test: test.clause(attributes), study)


def explain(condition: Condition, look: Look, study: Meets) -> tuple[bool, tuple[Clause, ...]]:
    """As `evaluate`, where `look` gives the clause of a test."""
    told: list[Clause] = []
    all_held, is_any = True, condition.mode == "any"
    for part in condition.parts:
        if isinstance(part, Condition):
            held, clauses = explain(part, look, study)
            if held and is_any:
                return True, clauses
            told.extend(clauses)
        else:
            clause = look(part) if isinstance(part, Test) else _of_study(part, study)
            held = clause.satisfied
            if held and is_any:
                return True, (clause,)
            told.append(clause)
        all_held = all_held and held
    return all_held and not is_any, tuple(told)


def _of_study(part: StudyHas, study: Meets) -> Clause:
    found = study(part.condition)
    expected = f"{'no' if part.negated else 'an'} image with {part.condition.in_words}"
    return Clause(STUDY_HAS, expected, "there is one" if found else "there is none", found != part.negated)
