"""Conditions: what they mean, what they say, and what they refuse."""

from __future__ import annotations

import pickle
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacsnode.conditions import evaluate
from pacsnode.errors import ConfigError
from pacsnode.operators import OPERATORS, parse


def holds(condition: dict[str, Any], attributes: Mapping[str, str | tuple[str, ...]]) -> bool:
    values = {keyword: value if isinstance(value, tuple) else (value,) for keyword, value in attributes.items()}
    return evaluate(parse(condition), values)[0]


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ({"Modality": "DX"}, {"Modality": "DX"}, {"Modality": "CR"}),
        ({"StudyDescription": "chest pa"}, {"StudyDescription": "CHEST-PA"}, {"StudyDescription": "CHEST"}),
        ({"StudyDescription": "흉부 정면"}, {"StudyDescription": "흉부(정면)"}, {"StudyDescription": "흉부 측면"}),
        ({"StudyID": 12}, {"StudyID": "12"}, {"StudyID": "012"}),
        ({"SeriesNumber": 1}, {"SeriesNumber": " 01 "}, {"SeriesNumber": "11"}),
        ({"SeriesNumber": "1"}, {"SeriesNumber": "1"}, {"SeriesNumber": "one"}),
        ({"SliceThickness": 0.5}, {"SliceThickness": "5.0e-1"}, {"SliceThickness": "5"}),
        ({"SOPClassUID": "1.2.3"}, {"SOPClassUID": "1.2.3\0"}, {"SOPClassUID": "1.23"}),
        ({"StudyDate": "2026-03-31"}, {"StudyDate": "20260331"}, {"StudyDate": "20260330"}),
        ({"PatientAge": "12Y"}, {"PatientAge": "012Y"}, {"PatientAge": "012M"}),
        ({"HasPixelData": "YES"}, {"HasPixelData": "YES"}, {"HasPixelData": "NO"}),
        ({"peer": "xray-1"}, {"peer": "xray-1"}, {"peer": "xray-2"}),
        ({"Modality": {"equals": "DX"}}, {"Modality": "DX"}, {"Modality": "CR"}),
        ({"Modality": {"in": ["CR", "DX"]}}, {"Modality": "dx "}, {"Modality": "MG"}),
        (
            {"StudyDescription": {"matches": "chest|흉부"}},
            {"StudyDescription": "소아흉부PA"},
            {"StudyDescription": "흉추"},
        ),
        (
            {"StudyDescription": {"matches": "CHEST p ?a"}},
            {"StudyDescription": "Chest P-A(Erect)"},
            {"StudyDescription": "PA"},
        ),
        (
            {"StudyDescription": {"matches": r"\blat\b"}},
            {"StudyDescription": "L_SPINE.LAT"},
            {"StudyDescription": "plate"},
        ),
        ({"Rows": {"between": [512, 4096]}}, {"Rows": "4096"}, {"Rows": "4097"}),
        ({"Rows": {"between": ["512", 4096]}}, {"Rows": "512"}, {"Rows": "511.9"}),
        (
            {"StudyDate": {"between": ["2026-01-01", "2026-12-31"]}},
            {"StudyDate": "2026.06.01"},
            {"StudyDate": "20270101"},
        ),
        (
            {"AcquisitionDateTime": {"between": ["2026-01-01", "2026-01-01"]}},
            {"AcquisitionDateTime": "20260101235959.99+0900"},
            {"AcquisitionDateTime": "20260102"},
        ),
        ({"PatientAge": {"between": [18, 120]}}, {"PatientAge": "018Y"}, {"PatientAge": "017Y"}),
        ({"PatientAge": {"between": ["0", "12Y"]}}, {"PatientAge": "150M"}, {"PatientAge": "160M"}),
        ({"PatientAge": {"between": ["1M", "6M"]}}, {"PatientAge": "005W"}, {"PatientAge": "010D"}),
        ({"ViewPosition": {"exists": True}}, {"ViewPosition": "PA"}, {}),
        ({"ViewPosition": {"exists": False}}, {}, {"ViewPosition": "PA"}),
        ({"ViewPosition": {"not": {"in": ["LL", "RL"]}}}, {"ViewPosition": "PA"}, {"ViewPosition": "LL"}),
        ({"ViewPosition": {"not": "LL"}}, {"ViewPosition": "PA"}, {"ViewPosition": "LL"}),
        ({"ViewPosition": {"not": {"not": "LL"}}}, {"ViewPosition": "LL"}, {"ViewPosition": "PA"}),
        ({"Rows": {"between": [1, 9], "not": 5}}, {"Rows": "6"}, {"Rows": "5"}),
        ({"Rows": {"not": {"between": [1, 9], "in": [5, 50]}}}, {"Rows": "50"}, {"Rows": "5"}),
        ({"Modality": "CR", "ViewPosition": "PA"}, {"Modality": "CR", "ViewPosition": "PA"}, {"Modality": "CR"}),
        ({"any": [{"Modality": "CR"}, {"ViewPosition": "PA"}]}, {"ViewPosition": "PA"}, {"ViewPosition": "AP"}),
        (
            {"all": [{"Modality": "CR"}, {"ViewPosition": "PA"}]},
            {"Modality": "CR", "ViewPosition": "PA"},
            {"Modality": "CR"},
        ),
        (
            {"not": {"Modality": "CR", "ViewPosition": "LL"}},
            {"Modality": "CR"},
            {"Modality": "CR", "ViewPosition": "LL"},
        ),
        ({"not": {"any": [{"Modality": "CR"}, {"Modality": "DX"}]}}, {"Modality": "MG"}, {"Modality": "DX"}),
    ],
)
def test_a_condition_holds_and_does_not_hold(
    condition: dict[str, Any], yes: dict[str, str], no: dict[str, str]
) -> None:
    assert holds(condition, yes)
    assert not holds(condition, no)


def test_one_of_several_values_is_enough_and_not_means_none_of_them() -> None:
    image_type = {"ImageType": ("DERIVED", "SECONDARY", "MIP")}
    assert holds({"ImageType": "secondary"}, image_type)
    assert holds({"ImageType": {"matches": "^mip$"}}, image_type)
    assert not holds({"ImageType": {"not": {"in": ["MIP", "LOCALIZER"]}}}, image_type)
    assert holds({"ImageType": {"not": "LOCALIZER"}}, image_type)


@pytest.mark.parametrize("test", ["LL", {"in": ["LL"]}, {"matches": "l"}, {"exists": True}])
def test_an_absent_attribute_is_false_with_the_reason_and_true_under_not(test: object) -> None:
    for attributes in ({}, {"ViewPosition": ()}):
        held, (clause,) = evaluate(parse({"ViewPosition": test}), attributes)
        assert (held, clause.satisfied, clause.absent, clause.actual) == (False, False, True, "")
        assert evaluate(parse({"ViewPosition": {"not": test}}), attributes)[0]
        held, (clause,) = evaluate(parse({"not": {"ViewPosition": test}}), attributes)
        assert (held, clause.satisfied, clause.absent) == (True, True, True)


def test_between_of_an_absent_or_unreadable_value_is_false() -> None:
    for rows in ({}, {"Rows": ("many",)}, {"Rows": ("NaN",)}, {"Rows": ("",)}, {"Rows": ("1_0",)}, {"Rows": ("１",)}):
        assert not evaluate(parse({"Rows": {"between": [0, 9999]}}), rows)[0]
        assert evaluate(parse({"Rows": {"not": {"between": [0, 9999]}}}), rows)[0]


def test_clauses_say_what_was_expected_and_what_is_there() -> None:
    condition = parse(
        {"Modality": {"in": ["CR", "DX"]}, "ViewPosition": {"not": {"in": ["LL", "RL"]}}, "Rows": {"between": [1, 9]}}
    )
    held, clauses = evaluate(condition, {"Modality": ("MG",), "ViewPosition": ("LL", "X")})
    assert not held
    assert [(c.attribute, c.expected, c.actual, c.satisfied, c.absent) for c in clauses] == [
        ("Modality", "CR or DX", "MG", False, False),
        ("ViewPosition", "not LL or RL", "LL\\X", False, False),
        ("Rows", "from 1 to 9", "", False, True),
    ]


def test_an_any_that_holds_tells_only_the_alternative_that_holds() -> None:
    condition = parse({"any": [{"Modality": "CR"}, {"Modality": "DX"}, {"Modality": {"exists": True}}]})
    assert [clause.expected for clause in evaluate(condition, {"Modality": ("DX",)})[1]] == ["DX"]
    assert len(evaluate(condition, {})[1]) == 3


def test_a_very_long_value_is_looked_at_and_told_up_to_a_limit() -> None:
    held, (clause,) = evaluate(
        parse({"StudyDescription": {"matches": "end$"}}), {"StudyDescription": ("x " * 50000 + "end",)}
    )
    assert not held
    assert len(clause.actual) == 200


def test_parsed_conditions_are_frozen_equal_and_can_be_sent_to_another_process() -> None:
    raw = {"Modality": {"in": ["CR", "DX"]}, "StudyDescription": {"matches": "chest"}, "Rows": {"between": [1, 9]}}
    condition = parse(raw)
    assert condition == parse(raw)
    assert pickle.loads(pickle.dumps(condition)) == condition
    with pytest.raises(AttributeError):
        condition.mode = "any"  # type: ignore[misc]  # that is the test


def test_every_operator_has_its_help() -> None:
    assert all((function.__doc__ or "").startswith("`") for function in OPERATORS.values())


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ({}, "found an empty map"),
        (None, "found nothing"),
        ([], "found an empty list"),
        ({"Modalty": "CR"}, "Modalty is neither a DICOM keyword nor a tag such as 0018,1030; did you mean Modality?"),
        ({"modality": "CR"}, "did you mean Modality?"),
        ({"in": ["CR"]}, "operators stand under an attribute"),
        (
            {"Modality": {"one_of": ["CR"]}},
            "there is no such operator; expected: equals, in, contains, matches, between, exists, not",
        ),
        ({"Modality": {}}, "expected a value or an operator"),
        ({"Modality": ["CR", "DX"]}, "write {in: [...]} for one of several"),
        ({"Modality": {"not": ["CR"]}}, "write {in: [...]} for one of several"),
        ({"Modality": None}, "write {exists: false}"),
        ({"Modality": True}, "found true"),
        ({"Modality": "--"}, "expected a value with a letter or digit in it"),
        ({"Modality": ""}, "expected a value with a letter or digit in it"),
        ({"SoftwareVersions": 1.1}, "put it in quotes"),
        ({"Rows": "many"}, "expected a number"),
        ({"Modality": {"in": "CR"}}, "`in` takes a list"),
        ({"Modality": {"in": []}}, "found an empty list"),
        ({"Modality": {"matches": 5}}, "`matches` takes a regular expression"),
        ({"Modality": {"matches": "("}}, "no regular expression"),
        ({"Rows": {"matches": "5"}}, "use `between`"),
        ({"SOPClassUID": {"matches": "5"}}, "use `in`"),
        ({"Modality": {"between": [1, 2]}}, "has no order"),
        ({"Rows": {"between": [2, 1]}}, "write the smaller one first"),
        ({"Rows": {"between": [2]}}, "list of two values"),
        ({"PatientAge": {"between": ["old", "older"]}}, "expected an age such as 18Y"),
        ({"StudyDate": {"between": ["2026-13-01", "2026-14-01"]}}, "expected a date such as"),
        ({"Modality": {"exists": "yes"}}, "takes true or false"),
        ({"any": {"Modality": "CR"}}, "`any` takes a list"),
        ({"all": []}, "`all` takes a list"),
        ({"any": ["CR"]}, "any.0: expected conditions"),
        ({"not": "CR"}, "not: expected conditions"),
    ],
)
def test_a_wrong_condition_is_refused_with_what_to_write(condition: object, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)) as caught:
        parse(condition, "rules.yaml:7:3")
    assert str(caught.value).startswith("rules.yaml:7:3: ")


def test_all_mistakes_of_a_condition_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"Modalty": "CR", "any": [{"Rows": "x"}, {"not": {"Columns": {"inn": [1]}}}]})
    told = str(caught.value)
    assert all(place in told for place in ("Modalty: ", "any.0.Rows: ", "any.1.not.Columns.inn: "))


# --- against a slow and obvious reference -----------------------------------------------------------------------------

WORDS = ["CHEST", "chest pa", "Chest-PA", "흉부", unicodedata.normalize("NFD", "흉부"), "LL", "ll ", "abdomen"]
TEXTS = ["Modality", "ViewPosition", "StudyDescription", "peer"]


def plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).lower()
    return " ".join(re.sub(r"[^\w]|_", " ", text).split())


def reference_test(operator: str, operand: Any, values: tuple[str, ...], number: bool) -> bool:
    def same(value: str, wanted: Any) -> bool:
        return float(value) == float(wanted) if number else plain(value) == plain(wanted)

    match operator:
        case "equals":
            return any(same(value, operand) for value in values)
        case "in":
            return any(same(value, wanted) for value in values for wanted in operand)
        case "matches":
            return any(operand in plain(value) for value in values)
        case "between":
            return any(operand[0] <= float(value) <= operand[1] for value in values)
        case "exists":
            return bool(values) is operand
    assert operator == "not"
    return not reference_line(operand, values, number)


def reference_line(raw: Any, values: tuple[str, ...], number: bool) -> bool:
    if not isinstance(raw, dict):
        return reference_test("equals", raw, values, number)
    return all(reference_test(operator, operand, values, number) for operator, operand in raw.items())


def reference(raw: dict[str, Any], attributes: Mapping[str, tuple[str, ...]]) -> bool:
    answers = []
    for key, value in raw.items():
        if key == "any":
            answers.append(any(reference(part, attributes) for part in value))
        elif key == "all":
            answers.append(all(reference(part, attributes) for part in value))
        elif key == "not":
            answers.append(not reference(value, attributes))
        else:
            answers.append(reference_line(value, attributes.get(key, ()), key == "Rows"))
    return all(answers)


OPERANDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "text": {
        "equals": st.sampled_from(WORDS),
        "in": st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
        "matches": st.sampled_from(["chest", "흉부", "l", "t p"]),
        "exists": st.booleans(),
    },
    "number": {
        "equals": st.integers(0, 9),
        "in": st.lists(st.integers(0, 9), min_size=1, max_size=3),
        "between": st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted),
        "exists": st.booleans(),
    },
}


@st.composite
def lines(draw: st.DrawFn, kind: str, depth: int = 2) -> Any:
    """What may stand after a keyword."""
    operators = OPERANDS[kind]
    if draw(st.booleans()):
        return draw(operators["equals"])
    chosen = draw(st.lists(st.sampled_from(sorted(operators)), min_size=1, max_size=2, unique=True))
    made = {operator: draw(operators[operator]) for operator in chosen}
    if depth and draw(st.booleans()):
        made["not"] = draw(lines(kind, depth - 1))
    return made


@st.composite
def condition_maps(draw: st.DrawFn, depth: int = 2) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from([*TEXTS, "Rows"]), min_size=0 if depth else 1, max_size=2, unique=True))
    made = {name: draw(lines("number" if name == "Rows" else "text")) for name in names}
    blocks = draw(st.lists(st.sampled_from(["any", "all", "not"]), min_size=0 if made else 1, max_size=2, unique=True))
    for block in blocks if depth else ():
        inner = condition_maps(depth - 1)
        made[block] = draw(inner if block == "not" else st.lists(inner, min_size=1, max_size=3))
    return made


ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.lists(st.sampled_from(WORDS), min_size=1, max_size=2).map(tuple) for name in TEXTS},
        "Rows": st.integers(0, 9).map(lambda number: (f"{number}.0",)),
    },
)


@settings(max_examples=300, deadline=None)
@given(condition_maps(), ATTRIBUTES)
def test_evaluation_agrees_with_a_slow_reference_and_explains_itself(
    raw: dict[str, Any], attributes: dict[str, tuple[str, ...]]
) -> None:
    held, clauses = evaluate(parse(raw), attributes)
    assert held == reference(raw, attributes)
    assert held == all(clause.satisfied for clause in clauses)
    assert clauses


def test_any_attribute_by_keyword_tag_creator_or_path_may_stand_in_a_condition() -> None:
    names = ("Modality", "peer", "AcquisitionNumber", "0019,100C", "0019,xx0C SIEMENS MR HEADER", "ImageType[3]")
    for name in (*names, "RequestAttributesSequence.ScheduledProcedureStepDescription", "called_ae_title"):
        condition = parse({name: {"exists": True}})
        assert [found.text for found in condition.names()] == [name]


def test_a_double_negation_of_several_operators_stays_one_group() -> None:
    raw = {"not": {"Modality": {"exists": False, "not": {"equals": "CHEST", "exists": False}}}}
    assert evaluate(parse(raw), {})[0] is reference(raw, {}) is False
