"""Two decisions on one study, compared."""

from __future__ import annotations

from pathlib import Path

from pacsnode.handover import Study
from pacsnode.route.decide import decide
from pacsnode.route.replay import differences, why_not
from tests.route.test_decide import instance, rule, rules_of

WHENS = {"first": "{SeriesDescription: A}", "second": "{SeriesDescription: {in: [B]}}"}


def study() -> Study:
    descriptions = "AABBBC"
    made = (instance(f"1.9.{n}", SeriesDescription=text, Modality="DX") for n, text in enumerate(descriptions))
    return Study("1.2.3", "", "", "", 1, tuple(made))


def rule_for(name: str, when: str) -> str:
    return rule(name, when, "5s", "chest-xray", "[sr]", "[pacs]")


def test_a_case_with_other_images_is_told_beside_the_one_whose_images_it_shares(tmp_path: Path) -> None:
    """By the order in the file alone, the first would be told to read the images of the second."""
    before = rules_of(tmp_path, *(rule_for(name, when) for name, when in WHENS.items()))
    wider = rule_for("second", "{SeriesDescription: {in: [B, C]}}")
    after = rules_of(tmp_path, rule_for("first", "{SeriesDescription: X}"), wider)

    def why(name: str, side: str, images: object) -> str:
        assert not isinstance(images, str)
        return why_not(study(), before if side == "before" else after, name, list(images))  # type: ignore[call-overload]

    found = differences(decide(study(), before, explained=False), decide(study(), after, explained=False), why)
    assert [(one.kind, one.rule, one.detail) for one in found] == [
        ("moved", "second", "reads 4 images instead of 3; 1 now: SeriesDescription is C, expected B"),
        ("lost", "first", "SeriesDescription is A, expected X"),
    ]


def test_why_not_names_a_rule_that_is_gone_or_off(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, rule("off", "{Modality: DX}", "1s", "chest-xray", "[sr]", "[web]", ", enabled: false"))
    assert why_not(study(), rules, "gone", ["1.9.0"]) == "there is no rule 'gone'"
    assert "enabled: false" in why_not(study(), rules, "off", ["1.9.0"])
