"""Reads conditions: a condition map as YAML holds it becomes a frozen Condition, or a list of mistakes by place.

A map holds when all of its lines hold. A line is `Name: value`, `Name: {operator: ...}` (several operators: each
holds), a block `any: [maps]`, `all: [maps]`, `not: map`, or `study_has: map`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Annotated

from pydantic import PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails

from pacsnode.conditions import STUDY_HAS, Anything, Condition, Contains, OneOf, Pattern, Range, StudyHas, Test
from pacsnode.dicom.attributes import BY_KEYWORD
from pacsnode.dicom.names import UnknownWordError, keywords
from pacsnode.errors import ConfigError
from pacsnode.operands import DAYS, FACTS, NUMBER_VRS, ORDERED_VRS, Key, Wrong, named, operand_of
from pacsnode.patterns import fold, safe_pattern
from pacsnode.yamlfile import Loc, found_in_words, nearest, wrong

Part = Test | StudyHas | Condition


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


def equals(name: str, raw: object) -> Test:
    """`Name: value`: the value is equal. Case, white space and punctuation do not count: CHEST-PA is "chest pa"."""
    text, key = _operand(name, raw)
    return Test(name, OneOf(frozenset({key})), text)


def one_of(name: str, raw: object) -> Test:
    """`{in: [CR, DX]}`: the value is equal to one of these."""
    if not isinstance(raw, list) or not raw:
        raise Wrong(f"`in` takes a list such as [CR, DX], found {found_in_words(raw)}")
    operands = [_operand(name, value) for value in raw]
    return Test(name, OneOf(frozenset(key for _, key in operands)), " or ".join(text for text, _ in operands))


def contains(name: str, raw: object) -> Test:
    """`{contains: chest}`, `{contains: [chest, 흉부]}`: the text has this, or one of these, somewhere in it.

    Compared as `equals` compares; CHEST-PA contains "chest p".
    """
    given = [text for text in (raw if isinstance(raw, list) else [raw]) if isinstance(text, str)]
    if not given or (isinstance(raw, list) and len(given) < len(raw)):
        raise Wrong(f"`contains` takes a text or a list of texts, found {found_in_words(raw)}")
    _refuse_no_text(name, "contains")
    texts = tuple(map(fold, given))
    if not all(texts):
        raise Wrong("`contains` takes texts with a letter or digit in them")
    return Test(name, Contains(texts), "text with " + " or ".join(given))


def matches(name: str, raw: object) -> Test:
    r"""`{matches: "chest|흉부"}`: the regular expression (Python's `re`) is found in the text.

    The text is lower case, and one space stands for each run of punctuation and white space: "Chest P-A(Erect)" is
    looked at as "chest p a erect". `\b` is the edge of a word. 128 characters of a value are looked at.
    """
    if not isinstance(raw, str) or not raw:
        raise Wrong(f"`matches` takes a regular expression in quotes, found {found_in_words(raw)}")
    _refuse_no_text(name, "matches")
    try:
        return Test(name, Pattern(safe_pattern(raw)), f"text with {raw}")
    except ValueError as error:
        raise Wrong(str(error)) from None


def _refuse_no_text(name: str, operator: str) -> None:
    vr = named(name).vr
    if vr in NUMBER_VRS | {"UI"}:
        raise Wrong(f"`{operator}` is for text, {name} is none (VR {vr}); use {'`in`' if vr == 'UI' else '`between`'}")


def between(name: str, raw: object) -> Test:
    """`{between: [a, b]}`: from a to b, both included. Numbers; dates (2026-03-31); times ("08:00"); ages (18Y, 6M).

    A plain number for an age is years. An age lies below `to 12Y` until the 13th birthday. Times may go over midnight:
    ["22:00", "06:00"]. Text attributes have no order.
    """
    vr = named(name).vr
    if vr not in ORDERED_VRS:
        raise Wrong(f"{name} is text (VR {vr}) and has no order; use `in` or `matches`")
    if not isinstance(raw, list) or len(raw) != 2:
        found = f"{len(raw)} values" if isinstance(raw, list) else found_in_words(raw)
        raise Wrong(f"`between` takes a list of two values, [from, to], found {found}")
    (low_text, low), (high_text, high) = (_operand(name, value) for value in raw)
    if low > high and vr != "TM":  # type: ignore[operator]  # of one VR: both text or both Decimal
        raise Wrong(f"{low_text} is greater than {high_text}; write the smaller one first")
    if vr == "AS" and isinstance(high, Decimal):
        high += DAYS[high_text.strip()[-1].upper()] - Decimal("0.0001")
    return Test(name, Range(low, high), f"from {low_text} to {high_text}")


def exists(name: str, raw: object) -> Test:
    """`{exists: true}`: the attribute is there and not empty; `{exists: false}`: it is absent or empty."""
    if not isinstance(raw, bool):
        raise Wrong(f"`exists` takes true or false, found {found_in_words(raw)}")
    return Test(name, Anything(), "present", negated=not raw)


def _operand(name: str, raw: object) -> tuple[str, Key]:
    """One value as written, and its key; a date has to be in the calendar."""
    text, key = operand_of(name, raw)
    if named(name).vr in ("DA", "DT"):
        try:
            date.fromisoformat(str(key))
        except ValueError:
            raise Wrong(f"{text} is not in the calendar") from None
    return text, key


OPERATORS: dict[str, Callable[[str, object], Test]] = {
    "equals": equals,
    "in": one_of,
    "contains": contains,
    "matches": matches,
    "between": between,
    "exists": exists,
}
BLOCKS = ("any", "all", "not", STUDY_HAS)


def _json_schema() -> dict[str, object]:
    """For editors: the shape of a condition map; which names there are, only the node knows."""
    conditions: dict[str, object] = {"type": "object", "minProperties": 1}
    operand: dict[str, object] = {
        "anyOf": [
            {"type": ["string", "number"]},
            {"type": "object", "properties": dict.fromkeys((*OPERATORS, "not"), True), "additionalProperties": False},
        ]
    }
    lists = {"type": "array", "items": conditions, "minItems": 1}
    blocks = {"any": lists, "all": lists, "not": conditions, STUDY_HAS: conditions}
    known = dict.fromkeys((*FACTS, *BY_KEYWORD), operand)
    return {**conditions, "properties": {**known, **blocks}, "additionalProperties": operand}


ConditionMap = Annotated[Condition, PlainValidator(_for_pydantic), WithJsonSchema(_json_schema())]
"""A field of a model that holds conditions."""


# --- parsing ----------------------------------------------------------------------------------------------------------


class _Reading:
    """Reads condition maps and collects the mistakes as (location, code, sentence)."""

    def __init__(self) -> None:
        self.mistakes: list[tuple[Loc, str, str]] = []

    def map(self, raw: object, loc: Loc, negated: bool) -> Condition:
        """A whole map: all its lines, or under `not` (De Morgan) one of the negated lines."""
        parts: list[Part] = []
        if not isinstance(raw, dict) or not raw:
            found = "an empty map" if raw == {} else found_in_words(raw)
            hint = "; leave the dashes out, or put the list under `any:` or `all:`" if isinstance(raw, list) else ""
            self.wrong(loc, "wrong-type", f"expected conditions such as `Modality: CR`, found {found}{hint}")
        else:
            for key, value in raw.items():
                parts += self.line(str(key), value, (*loc, str(key)), negated)
        return Condition("any" if negated else "all", tuple(parts))

    def line(self, key: str, raw: object, loc: Loc, negated: bool) -> list[Part]:
        if key == "not":
            return [self.map(raw, loc, not negated)]
        if key in ("any", "all"):
            return self.block(key, raw, loc, negated)
        if key == STUDY_HAS:
            return [StudyHas(self.map(raw, loc, False), negated)]
        if mistake := unknown_name(key):
            self.wrong(loc, "unknown-attribute", mistake)
            return []
        return self.attribute(key, raw, loc, negated)

    def block(self, key: str, raw: object, loc: Loc, negated: bool) -> list[Part]:
        if not isinstance(raw, list) or not raw:
            hint = "; put a dash in front of each" if isinstance(raw, dict) else ""
            self.wrong(loc, "wrong-type", f"`{key}` takes a list of condition maps, found {found_in_words(raw)}{hint}")
            return []
        parts = tuple(self.map(item, (*loc, index), negated) for index, item in enumerate(raw))
        return [Condition("any" if (key == "any") != negated else "all", parts)]

    def attribute(self, name: str, raw: object, loc: Loc, negated: bool) -> list[Part]:
        """What stands after a name: a value, or a map of operators that all hold."""
        if not isinstance(raw, dict):
            return self.test(equals, name, raw, loc, negated)
        parts: list[Part] = []
        if not raw:
            self.wrong(loc, "wrong-type", "expected a value or an operator, found an empty map")
        for operator, operand in raw.items():
            at = (*loc, str(operator))
            if operator == "not":
                parts += self.attribute(name, operand, at, not negated)
            elif operator in OPERATORS:
                parts += self.test(OPERATORS[operator], name, operand, at, negated)
            else:
                near = nearest(str(operator), (*OPERATORS, "not")) or ";"
                self.wrong(
                    at, "unknown-operator", f"there is no such operator{near} expected: {', '.join(OPERATORS)}, not"
                )
        return parts if len(parts) < 2 else [Condition("any" if negated else "all", tuple(parts))]

    def test(
        self, operator: Callable[[str, object], Test], name: str, raw: object, loc: Loc, negated: bool
    ) -> list[Part]:
        try:
            made = operator(name, raw)
        except Wrong as mistake:
            self.wrong(loc, "wrong-value", str(mistake))
            return []
        return [replace(made, negated=made.negated != negated)]

    def wrong(self, loc: Loc, code: str, text: str) -> None:
        self.mistakes.append((loc, code, text))


def unknown_name(key: str) -> str:
    """Why a word is the name of nothing, and which one was meant; "" where it is a name."""
    try:
        named(key)
    except UnknownWordError as error:
        hint = "; operators stand under an attribute" if key in OPERATORS else nearest(error.word, _names())
        return f"{error}{hint}"
    except ValueError as error:
        return str(error)
    return ""


def _names() -> Iterator[str]:
    """Every name there is, those of the index first."""
    yield from (*FACTS, *BLOCKS, *BY_KEYWORD)
    yield from keywords()
