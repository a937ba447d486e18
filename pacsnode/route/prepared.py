"""A rules file made ready to be asked often: what its conditions said to the same values before, and which rules cannot
take an image at all.

In: Rules. Out: answers to values, in the words of `conditions`, whose meaning this only remembers. Pure but for that
memory, which is bounded: the images of a site say the same again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple, cast

from pacsnode.conditions import Condition, Meets, StudyHas, Test, explain
from pacsnode.handover import Clause, RuleVerdict
from pacsnode.operands import FACTS
from pacsnode.route.contradictions import sure_parts
from pacsnode.route.rules import Rules, in_words

MOST_REMEMBERED = 50_000
"""Clauses and answers; each takes about half a kilobyte."""
OFF = "the rule is switched off (enabled: false)"

Key = tuple[int, ...]
"""What an answer depends on: `Known.number` of values, then whether the study meets what is asked of it."""


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
    """One condition. `names`: the attributes of one image that it looks at, a bit each as `Prepared.names` has them.

    `key_of` picks what its answer depends on of the numbers of an image; `of_study` is what it asks of the study.
    """

    def __init__(self, condition: Condition, names: Sequence[str]) -> None:
        parts = list(_flat(condition))
        bases = tuple(dict.fromkeys(part.name.base for part in parts if isinstance(part, Test)))
        self.condition = condition
        self.names = sum(1 << names.index(base) for base in bases)
        self.of_study = tuple(part.condition for part in parts if isinstance(part, StudyHas))
        self.key_of = _picking(bases)
        self.remembered: dict[Key, Told] = {}


class Known(NamedTuple):
    """Values of one attribute. `number` is theirs alone; `clauses`: what each test of the file says to them; `answers`
    is the same where all of these come out the same; `may`: the rules, a bit each, that may take an image with them.
    """

    number: int
    clauses: tuple[Clause, ...]
    answers: int
    may: int


class Prepared:
    """The conditions of one file. `names`: what they look at, by `Name.base`; `facts`: those that are no attributes.

    `whens`: the conditions of the rules that are switched on; `untouched`: what each rule says that was not looked at.
    """

    def __init__(self, rules: Rules) -> None:
        self.names = rules.names
        self.facts = tuple(name for name in rules.names if name in FACTS)
        self._asked: dict[int, Asked] = {}
        self.whens = tuple(self.asked(rule.when) if rule.enabled else None for rule in rules.rules)
        self.untouched = tuple(RuleVerdict(rule.name, False, "" if rule.enabled else OFF) for rule in rules.rules)
        tests = [test for condition in _conditions(rules) for test in condition.tests()]
        self._tests = _by_base(tests)
        places = {test: n for same in self._tests.values() for n, test in enumerate(same)}
        self._needed = _needed(rules, places)
        self._places = {id(test): (test.name.base, places[test]) for test in tests}  # the rules keep them
        self._all = (1 << len(rules.rules)) - 1
        self._known: dict[str, dict[tuple[str, ...], Known]] = {base: {} for base in self._tests}
        self._remembered = 0

    def begin(self) -> None:
        """Before a study: forget what is too much."""
        if self._remembered > MOST_REMEMBERED:
            self._remembered = 0
            for known in self._known.values():
                known.clear()
            for asked in self._asked.values():
                asked.remembered.clear()

    def asked(self, condition: Condition) -> Asked:
        """A condition of the file, with what is remembered of it."""
        known = self._asked.get(id(condition))  # `Asked` keeps the condition, and so the number its own
        if known is None:
            known = self._asked[id(condition)] = Asked(condition, self.names)
        return known

    def look(self, asked: Asked, key: Key, image: Mapping[str, Known], study: Meets) -> Told:
        """What a condition says to an image; it is remembered under this key."""
        self._remembered += 1
        places = self._places

        def clause(test: Test) -> Clause:
            base, place = places[id(test)]
            return image[base].clauses[place]

        told = asked.remembered[key] = Told(*explain(asked.condition, clause, study))
        return told

    def known(self, base: str, values: tuple[str, ...]) -> Known:
        """What is known of these values of an attribute."""
        known = self._known[base]
        found = known.get(values)
        if found is None:
            clauses = tuple([test.clause({base: values}) for test in self._tests[base]])
            self._remembered += len(clauses)
            may = self._all
            for place, rules in self._needed.get(base, ()):
                if not clauses[place].satisfied:
                    may &= ~rules
            answers = sum([1 << place for place, clause in enumerate(clauses) if clause.satisfied])
            found = known[values] = Known(len(known), clauses, answers, may)
        return found


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


def _picking(bases: tuple[str, ...]) -> Callable[[Mapping[str, int]], Key]:
    """What picks the numbers of these names, in their order."""
    if len(bases) > 1:
        return itemgetter(*bases)
    return lambda numbers: tuple([numbers[base] for base in bases])


def _by_base(tests: Iterable[Test]) -> dict[str, tuple[Test, ...]]:
    found: dict[str, dict[Test, None]] = {}
    for test in tests:
        found.setdefault(test.name.base, {})[test] = None
    return {base: tuple(same) for base, same in found.items()}


def _needed(rules: Rules, places: Mapping[Test, int]) -> dict[str, list[tuple[int, int]]]:
    """By attribute: each test without which a rule takes no image, and which rules those are, a bit each."""
    needed: dict[str, dict[int, int]] = {}
    for number, rule in enumerate(rules.rules):
        for part in sure_parts(rule.when) if rule.enabled else ():
            if isinstance(part, Test):
                of_base = needed.setdefault(part.name.base, {})
                of_base[places[part]] = of_base.get(places[part], 0) | 1 << number
    return {base: list(of_base.items()) for base, of_base in needed.items()}
