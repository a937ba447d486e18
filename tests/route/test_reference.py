"""Matching agrees with a slow, obvious reading of the same conditions, on random rules and headers."""

from __future__ import annotations

import re
from datetime import UTC
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pacsnode import yamlfile
from pacsnode.conditions import evaluate
from pacsnode.errors import ConfigError
from pacsnode.handover import Instance, Study
from pacsnode.operators import parse
from pacsnode.route.decide import decide
from pacsnode.route.rules import Rules, rules_of
from tests.route.reference import KINDS, Image, takes

WORDS = [
    "CHEST PA",
    "chest-pa",
    "Chest P-A(Erect)",
    "흉부 정면",
    "흉부(정면)",
    "흉부 측면",
    "ABDOMEN",
    "LAT",
    "L-SPINE",
    "ß",
    "CT",
    "CR",
]
VALUES: dict[str, list[str]] = {
    "text": WORDS,
    "number": ["0", "1", "1.0", "5", "512", "-3", "7.25", "x"],
    "date": ["20260101", "20260331", "20261231", "2026"],
    "age": ["005D", "018M", "017Y", "018Y", "060Y", "old"],
    "time": ["08", "0830", "083000", "2359", "noon"],
}
OPERANDS: dict[str, list[Any]] = {
    "text": WORDS,
    "number": [0, 1, 5, 512, 7.25, -3],
    "date": ["2026-01-01", "2026-03-31", "2026-12-31"],
    "age": ["5D", "18M", "17Y", "18Y", "60Y"],
    "time": ["08:00", "08:30", "23:59"],
}
PATTERNS = ["chest", "흉부|thorax", r"\bpa\b", "p ?a", "lat$", "^l spine", "측면"]
ORDERED = {"number", "date", "age", "time"}
ORDER: dict[str, Any] = {"age": lambda text: {"D": 1, "M": 30, "Y": 365}[text[-1]] * int(text[:-1])}


def operators(name: str) -> st.SearchStrategy[Any]:
    """What may stand behind a name."""
    kind = KINDS[name]
    one = st.sampled_from(OPERANDS[kind])
    simple: list[st.SearchStrategy[Any]] = [
        one,
        st.fixed_dictionaries({"equals": one}),
        st.fixed_dictionaries({"in": st.lists(one, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"exists": st.booleans()}),
    ]
    if kind == "text":
        simple.append(st.fixed_dictionaries({"matches": st.sampled_from(PATTERNS)}))
        simple.append(st.fixed_dictionaries({"contains": st.one_of(one, st.lists(one, min_size=1, max_size=2))}))
    if kind in ORDERED:
        key = ORDER.get(kind, lambda value: value)
        pairs = st.tuples(one, one).map(list if kind == "time" else lambda pair: sorted(pair, key=key))
        simple.append(st.fixed_dictionaries({"between": pairs}))
    plain = st.one_of(simple)
    return st.one_of(plain, st.fixed_dictionaries({"not": plain}))


def lines() -> st.SearchStrategy[tuple[str, Any]]:
    return st.sampled_from(sorted(KINDS)).flatmap(lambda name: st.tuples(st.just(name), operators(name)))


def maps(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    several = st.lists(inner, min_size=1, max_size=3)
    block = st.one_of(
        st.tuples(st.sampled_from(["any", "all"]), several), st.tuples(st.sampled_from(["not", "study_has"]), inner)
    )
    return st.lists(st.one_of(lines(), block), min_size=1, max_size=4).map(dict)


CONDITIONS = st.recursive(st.lists(lines(), min_size=1, max_size=3).map(dict), maps, max_leaves=12)
IMAGES: st.SearchStrategy[dict[str, tuple[str, ...]]] = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(st.sampled_from(VALUES[kind]), min_size=1, max_size=3).map(tuple)
        for name, kind in KINDS.items()
        if "[" not in name
    },
)


@given(CONDITIONS, st.lists(IMAGES, min_size=1, max_size=4))
@settings(max_examples=250, deadline=None)
def test_a_condition_says_to_an_image_what_the_reference_says(condition: dict[str, Any], study: list[Image]) -> None:
    parsed = parse(condition)
    for image in study:
        held, clauses = evaluate(parsed, image, lambda inner: any(evaluate(inner, other, no)[0] for other in study))
        if not has_study(condition):
            assert held == takes(condition, image, study)
            assert held == all(clause.satisfied for clause in clauses) or not held


def no(inner: object) -> bool:
    return False


def has_study(condition: Any) -> bool:
    """Whether `study_has` stands in it: what it asks is for `decide` to answer, below."""
    if isinstance(condition, dict):
        return "study_has" in condition or any(map(has_study, condition.values()))
    return isinstance(condition, list) and any(map(has_study, condition))


def rules(conditions: list[dict[str, Any]]) -> Rules:
    """Rules that forward what these conditions take: which images they are, stands in the decision."""
    peers = {"pacs": {"ae_title": "PACS", "host": "192.0.2.5", "port": 104}}
    data = {
        "version": 1,
        "unmatched": "keep",
        "peers": peers,
        "rules": [
            {"name": f"rule {number}", "when": condition, "forward": "pacs", "stop": number == 1}
            for number, condition in enumerate(conditions)
        ],
    }
    places: dict[yamlfile.Loc, tuple[int, int]] = {(): (1, 1)}
    return rules_of(yamlfile.Document("made", "0" * 64, data, {}, places), {}, UTC)


@given(st.lists(CONDITIONS, min_size=3, max_size=3), st.lists(IMAGES, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None)
def test_rules_take_the_images_that_the_reference_takes_in_order_and_until_a_stop(
    conditions: list[dict[str, Any]], study: list[Image]
) -> None:
    try:
        made = rules(conditions)
    except ConfigError as error:  # a contradiction by chance is a mistake of the file, and has to be one
        impossible = re.findall(r"rules\.(\d)\.when: no image can satisfy", str(error))
        assert impossible
        assert not any(takes(conditions[int(number)], image, study) for number in impossible for image in study)
        return
    instances = tuple(
        Instance(f"1.{number}", "1.2", "1.3", "1.4", "", "", "", "ct", 0, 0, "", image)
        for number, image in enumerate(study)
    )
    decision = decide(Study("1.4", "", "", "", 0, instances), made)
    forwarded = {forward.rule: list(forward.instances) for forward in decision.forwards}
    left = list(range(len(study)))
    for number, condition in enumerate(conditions):
        expected = [place for place in left if takes(condition, study[place], study)]
        assert forwarded.get(f"rule {number}", []) == [f"1.{place}" for place in expected], condition
        if number == 1:
            left = [place for place in left if place not in expected]
