"""A rules file made ready to be asked often: what its conditions said to the same values before, and which rules cannot
take an image at all.

In: Rules. Out: answers to values, in the words of `conditions`, whose meaning this only remembers. Pure but for that
memory, which is bounded: the images of a site say the same again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import cast

from pacsnode.conditions import Condition, Meets, StudyHas, Test, Values, evaluate
from pacsnode.handover import Clause, RuleVerdict
from pacsnode.operands import FACTS
from pacsnode.route.contradictions import sure_parts
from pacsnode.route.rules import Rules, in_words

REMEMBERED = 512
"""Answers of one condition, by values; each takes about half a kilobyte."""
REMEMBERED_VALUES = 4096
"""Values of one attribute."""
OFF = "the rule is switched off (enabled: false)"

Key = tuple[object, ...]
"""What an answer depends on: values of an image, then what the study says to `Asked.of_study`."""


class Told:
    """What a condition says to values. `rank`: the greater, the nearer to being satisfied."""

    __slots__ = ("_refusal", "blocking", "clauses", "held", "rank")

    def __init__(self, held: bool, clauses: tuple[Clause, ...]) -> None:
        self.held = held
        self.clauses = clauses
        self.blocking = () if held else tuple([clause for clause in clauses if not clause.satisfied])
        self.rank = len(clauses) - len(self.blocking), -len(self.blocking)
        self._refusal: RuleVerdict | None = None

    @property
    def why_not(self) -> str:
        """The clauses that are not satisfied, in words."""
        return in_words(list(self.blocking))

    def refusal(self, rule: str) -> RuleVerdict:
        """What the rule whose condition this is says then."""
        if self._refusal is None:
            self._refusal = RuleVerdict(rule, False, self.why_not, self.clauses)
        return self._refusal


class Asked:
    """One condition. `names`: the attributes of one image that it looks at, a bit each in the order of `Prepared.names`.

    `of_study`: what it asks of the study besides. `key_of`: picks what its answer depends on, of all values of an image.
    """

    def __init__(self, condition: Condition, names: Sequence[str]) -> None:
        parts = list(_flat(condition))
        bases = tuple(dict.fromkeys(part.name.base for part in parts if isinstance(part, Test)))
        self.names = sum(1 << names.index(base) for base in bases)
        self.of_study = tuple(part.condition for part in parts if isinstance(part, StudyHas))
        self.key_of = _picking(bases)
        self.remembered: dict[Key, Told] = {}
        self._condition = condition

    def look(self, key: Key, image: Values, study: Meets) -> Told:
        """What it says to an image, which is remembered under this key."""
        if len(self.remembered) >= REMEMBERED:
            self.remembered.clear()
        told = self.remembered[key] = Told(*evaluate(self._condition, image, study))
        return told


class Prepared:
    """The conditions of one file. `names`: what they look at, by `Name.base`; `facts`: which of these are no attributes.

    `untouched`: what each rule says that was not looked at.
    """

    def __init__(self, rules: Rules) -> None:
        self.names = rules.names
        self.facts = tuple(name for name in rules.names if name in FACTS)
        self.untouched = tuple(RuleVerdict(rule.name, False, "" if rule.enabled else OFF) for rule in rules.rules)
        self._asked: dict[int, Asked] = {}
        self._tests = _by_base(test for condition in _conditions(rules) for test in condition.tests())
        self._known: dict[str, dict[tuple[str, ...], int]] = {base: {} for base in self._tests}
        self._all = (1 << len(rules.rules)) - 1
        self._needed = [(base, needs, cast("dict[tuple[str, ...], int]", {})) for base, needs in _needed(rules).items()]

    def asked(self, condition: Condition) -> Asked:
        """A condition of the file, with what is remembered of it."""
        known = self._asked.get(id(condition))  # `Asked` keeps the condition, and so the number its own
        if known is None:
            known = self._asked[id(condition)] = Asked(condition, self.names)
        return known

    def alike(self, base: str, values: tuple[str, ...]) -> int:
        """The same number for values to which all tests of the file answer the same."""
        known = self._known[base]
        answers = known.get(values)
        if answers is None:
            if len(known) >= REMEMBERED_VALUES:
                known.clear()
            image = {base: values}
            answers = known[values] = sum(
                1 << number for number, test in enumerate(self._tests[base]) if test.clause(image).satisfied
            )
        return answers

    def may_take(self, image: Values) -> int:
        """The rules, a bit each, whose tests that must hold in any case hold for an image: no other can take it."""
        may = self._all
        for base, needs, known in self._needed:
            values = image.get(base, ())
            passed = known.get(values)
            if passed is None:
                if len(known) >= REMEMBERED_VALUES:
                    known.clear()
                passed = known[values] = self._all & ~_failed(needs, {base: values})
            may &= passed
        return may


def prepared(rules: Rules) -> Prepared:
    """What is prepared for these rules; it lives as long as they do."""
    held = vars(rules)  # as `functools.cached_property` keeps its values, beside the frozen fields
    if "prepared" not in held:
        held["prepared"] = Prepared(rules)
    return cast("Prepared", held["prepared"])


def _conditions(rules: Rules) -> Iterator[Condition]:
    enabled = [rule for rule in rules.rules if rule.enabled]
    for rule in enabled:
        yield from rule.conditions()
    for name in {name for rule in enabled for name in rule.run} & rules.services.keys():
        yield rules.services[name].accepts


def _flat(condition: Condition) -> Iterator[Test | StudyHas]:
    """The parts of a condition and of those in it."""
    for part in condition.parts:
        if isinstance(part, Condition):
            yield from _flat(part)
        else:
            yield part


def _picking(bases: tuple[str, ...]) -> Callable[[Mapping[str, object]], Key]:
    """What picks the values of these names, in their order."""
    if len(bases) > 1:
        return itemgetter(*bases)
    return lambda values: tuple([values[base] for base in bases])


def _by_base(tests: Iterable[Test]) -> dict[str, tuple[Test, ...]]:
    found: dict[str, dict[Test, None]] = {}
    for test in tests:
        found.setdefault(test.name.base, {})[test] = None
    return {base: tuple(same) for base, same in found.items()}


def _needed(rules: Rules) -> dict[str, dict[Test, int]]:
    """By attribute: each test without which a rule takes no image, and which rules those are, a bit each."""
    needed: dict[str, dict[Test, int]] = {}
    for number, rule in enumerate(rules.rules):
        for part in sure_parts(rule.when) if rule.enabled else ():
            if isinstance(part, Test):
                of_base = needed.setdefault(part.name.base, {})
                of_base[part] = of_base.get(part, 0) | 1 << number
    return needed


def _failed(needs: Mapping[Test, int], image: Values) -> int:
    failed = 0
    for test, rules in needs.items():
        if not test.clause(image).satisfied:
            failed |= rules
    return failed
