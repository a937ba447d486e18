"""From a study and rules to cases, with reasons."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest

from pacsnode.handover import Instance, Study
from pacsnode.operators import parse
from pacsnode.route.decide import PRIORITIES, decide
from pacsnode.route.rule import ServiceSummary
from pacsnode.route.rules import Rules, load_rules

SHIPPED = Path(__file__).resolve().parents[2] / "routing_rules.yaml"
SERVICES = {
    "chest-xray": ServiceSummary(
        "chest-xray",
        "trained",
        parse({"Modality": {"in": ["CR", "DX"]}, "ViewPosition": {"not": {"in": ["LL", "RL"]}}}),
    ),
    "ecg-arrhythmia": ServiceSummary("ecg-arrhythmia", "classical", parse({"Modality": "ECG"})),
    "bone-age": ServiceSummary("bone-age", "certified", parse({"BodyPartExamined": "HAND"})),
}
HEAD = """\
version: 1
unmatched: keep
peers:
  xray-1: {ae_title: XR1, host: 192.0.2.21, port: 104, may: [store], investigational: true}
  pacs: {ae_title: PACS, host: 192.0.2.5, port: 104, investigational: true}
  web: {ae_title: WEB, host: 192.0.2.6, port: 104, investigational: true}
rules:
"""


def rule(name: str, when: str, quiet: str, run: str, results: str, send_to: str, more: str = "") -> str:
    return (
        f"  - {{name: {name}, when: {when}, complete: {{quiet: {quiet}}}, run: {run}, results: {results}, "
        f"send_to: {send_to}{more}}}\n"
    )


CHEST = rule("chest", "{Modality: DX}", "20s", "chest-xray", "[sc, sr]", "[pacs]")
ALL_DX = rule(
    "all dx",
    "{Modality: {in: [DX]}}",
    "2m",
    "[chest-xray, bone-age]",
    "[seg]",
    "[sender, pacs, web]",
    ", priority: stat",
)
FRONTAL = rule(
    "frontal", "{Modality: DX, ViewPosition: PA}", "5s", "chest-xray", "[sr]", "[web]", ", priority: off-peak"
)
OFF = rule("off", "{Modality: DX}", "1s", "chest-xray", "[sr]", "[web]", ", enabled: false")


def rules_of(folder: Path, *rules: str) -> Rules:
    path = folder / "rules.yaml"
    path.write_text(HEAD + "".join(rules), encoding="utf-8")
    return load_rules(path, SERVICES, UTC)


def instance(uid: str, *, peer: str = "xray-1", **attributes: str) -> Instance:
    return Instance(
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        series_instance_uid="1.2.3.4",
        study_instance_uid="1.2.3",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path=f"1/00/{uid}.dcm",
        dataset_sha256="0" * 64,
        peer=peer,
        received_utc_us=1,
        received_boot_us=1,
        boot_id="a",
        attributes={keyword: (value,) for keyword, value in attributes.items()},
    )


def study(instances: Iterable[Instance], conflict: str = "") -> Study:
    return Study("1.2.3", "NORTH", "1", conflict, 7, tuple(instances))


PA = instance("1.2.3.9", Modality="DX", ViewPosition="PA")
AP = instance("1.2.3.10", Modality="DX", ViewPosition="AP")
LATERAL = instance("1.2.3.8", Modality="DX", ViewPosition="LL")


def test_a_candidate_has_the_instances_that_rule_and_service_take_in_the_order_of_their_uids(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, CHEST)
    decision = decide(study([PA, LATERAL, AP]), rules)
    (candidate,) = decision.candidates
    assert candidate.instances == ("1.2.3.10", "1.2.3.9")
    assert (candidate.service, candidate.rules, candidate.results) == ("chest-xray", ("chest",), ("sr", "sc"))
    assert (candidate.priority, candidate.completion.quiet_s, candidate.send_to) == (10, 20.0, ("pacs",))
    assert (decision.study_instance_uid, decision.revision, decision.rules_hash) == ("1.2.3", 7, rules.hash)
    (verdict,) = decision.verdicts
    assert verdict.matched
    assert verdict.reason == "matched, chest-xray gets 2 of 3 images"


def test_rules_that_ask_a_service_for_the_same_images_share_one_candidate(tmp_path: Path) -> None:
    decision = decide(study([PA, LATERAL]), rules_of(tmp_path, CHEST, ALL_DX, FRONTAL))
    (candidate,) = decision.candidates
    assert candidate.rules == ("chest", "all dx", "frontal")
    assert candidate.results == ("sr", "seg", "sc")
    assert candidate.send_to == ("pacs", "sender", "web")
    assert (candidate.priority, candidate.completion.quiet_s) == (1, 120.0)


def test_rules_that_ask_for_different_images_make_different_candidates(tmp_path: Path) -> None:
    decision = decide(study([PA, AP]), rules_of(tmp_path, FRONTAL, CHEST))
    assert [(c.rules, c.instances, c.priority) for c in decision.candidates] == [
        (("frontal",), ("1.2.3.9",), 20),
        (("chest",), ("1.2.3.10", "1.2.3.9"), 10),
    ]


def test_one_rule_may_run_several_services(tmp_path: Path) -> None:
    hand = instance("1.2.3.11", Modality="DX", BodyPartExamined="HAND")
    decision = decide(study([PA, hand]), rules_of(tmp_path, ALL_DX))
    assert [(c.service, c.instances) for c in decision.candidates] == [
        ("chest-xray", ("1.2.3.11", "1.2.3.9")),
        ("bone-age", ("1.2.3.11",)),
    ]


def test_a_match_that_the_service_cannot_use_says_why(tmp_path: Path) -> None:
    other = replace(LATERAL, sop_instance_uid="1.2.3.7")
    decision = decide(study([LATERAL, other]), rules_of(tmp_path, CHEST))
    assert decision.candidates == ()
    (verdict,) = decision.verdicts
    assert verdict.matched
    assert verdict.reason == (
        "matched, but chest-xray accepts none of its 2 images: ViewPosition is LL, expected not LL or RL"
    )
    assert [(c.attribute, c.satisfied) for c in verdict.clauses] == [("Modality", True), ("ViewPosition", False)]


def test_a_rule_that_does_not_match_tells_the_clauses_of_the_image_that_came_nearest(tmp_path: Path) -> None:
    near, far = instance("1.2.9", Modality="DX", ViewPosition="AP"), instance("1.2.1", Modality="MG")
    (verdict,) = decide(study([far, near]), rules_of(tmp_path, FRONTAL)).verdicts
    assert not verdict.matched
    assert verdict.reason == "ViewPosition is AP, expected PA"
    assert [(c.attribute, c.actual, c.satisfied) for c in verdict.clauses] == [
        ("Modality", "DX", True),
        ("ViewPosition", "AP", False),
    ]


def test_an_absent_attribute_is_the_reason(tmp_path: Path) -> None:
    (verdict,) = decide(study([instance("1.2.1", Modality="DX")]), rules_of(tmp_path, FRONTAL)).verdicts
    assert verdict.reason == "ViewPosition is absent, expected PA"
    assert verdict.clauses[1].absent


def test_a_study_in_conflict_becomes_no_case_and_every_rule_says_so(tmp_path: Path) -> None:
    decision = decide(study([PA], "two patient names"), rules_of(tmp_path, CHEST, ALL_DX))
    assert decision.candidates == ()
    assert [verdict.matched for verdict in decision.verdicts] == [False, False]
    assert all(verdict.reason.endswith("waits for a person: two patient names") for verdict in decision.verdicts)


def test_a_rule_that_is_switched_off_does_not_act_and_says_so(tmp_path: Path) -> None:
    decision = decide(study([PA]), rules_of(tmp_path, OFF))
    assert decision.candidates == ()
    assert decision.verdicts[0].reason == "the rule is switched off (enabled: false)"


def test_a_study_without_images_is_no_mistake(tmp_path: Path) -> None:
    decision = decide(study([]), rules_of(tmp_path, CHEST))
    assert decision.candidates == ()
    assert decision.verdicts[0].reason == "the study has no images yet"


def test_a_rule_may_ask_who_sent_the_image(tmp_path: Path) -> None:
    mine = CHEST.replace("{Modality: DX}", "{peer: xray-1}")
    (candidate,) = decide(study([PA, replace(AP, peer="web")]), rules_of(tmp_path, mine)).candidates
    assert candidate.instances == (PA.sop_instance_uid,)


def test_the_order_in_which_images_came_changes_nothing(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, CHEST, ALL_DX, FRONTAL, OFF)
    images = [PA, AP, LATERAL, *(instance(f"1.2.{n}", Modality="DX", ViewPosition="PA") for n in range(9))]
    first = decide(study(images), rules)
    for seed in range(5):
        random.Random(seed).shuffle(images)
        assert decide(study(images), rules) == first


@pytest.mark.parametrize(
    ("attributes", "service"),
    [
        ({"Modality": "DX", "StudyDescription": "흉부 PA"}, "chest-xray"),
        ({"Modality": "CR", "ProtocolName": "Chest P-A(Erect)", "BodyPartExamined": "ABDOMEN"}, "chest-xray"),
        ({"Modality": "ECG", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.9.1.1"}, "ecg-arrhythmia"),
        ({"Modality": "CR", "BodyPartExamined": "CHEST", "SeriesDescription": "RIB SERIES"}, None),
        ({"Modality": "CR", "StudyDescription": "CHEST LAT", "SeriesDescription": "LAT"}, None),
    ],
)
def test_the_shipped_rules_route_what_sites_send_once_they_are_switched_on(
    attributes: dict[str, str], service: str | None
) -> None:
    shipped = load_rules(SHIPPED, SERVICES, UTC)
    on = replace(shipped, rules=tuple(replace(rule, enabled=True) for rule in shipped.rules))
    assert decide(study([instance("1.2.1", **attributes)]), shipped).candidates == ()
    decision = decide(study([instance("1.2.1", **attributes)]), on)
    assert [candidate.service for candidate in decision.candidates] == ([service] if service else [])


def shadow(name: str, run: str, quiet: str = "9s", more: str = "") -> str:
    return (
        f"  - {{name: {name}, when: {{Modality: DX}}, complete: {{quiet: {quiet}}}, run: {run}, shadow: true{more}}}\n"
    )


def test_a_rule_in_shadow_makes_a_case_of_which_nothing_is_sent(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, shadow("next", "chest-xray", more=", priority: stat"))
    decision = decide(study([PA]), rules)
    (candidate,) = decision.candidates
    assert (candidate.shadow, candidate.send_to, candidate.results) == (True, (), ())
    assert candidate.priority > PRIORITIES["off-peak"]
    assert decision.verdicts[0].reason == "matched, chest-xray gets 1 of 1 image, in shadow"


def test_what_the_defaults_send_to_is_not_sent_from_the_shadow(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, shadow("next", "chest-xray"), "defaults: {send_to: [pacs], results: [sr]}\n")
    (candidate,) = decide(study([PA]), rules).candidates
    assert candidate.send_to == ()
    assert rules.warnings == ()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_where_a_live_rule_asks_for_the_same_it_alone_counts(order: tuple[int, int], tmp_path: Path) -> None:
    both = (CHEST, shadow("next", "chest-xray", quiet="10m"))
    rules = rules_of(tmp_path, *(both[number] for number in order))
    alone = rules_of(tmp_path, CHEST)
    given = study([PA])
    assert decide(given, rules).candidates == decide(given, alone).candidates


def test_a_study_that_only_a_rule_in_shadow_takes_counts_as_taken_by_none(tmp_path: Path) -> None:
    given = study([PA])
    assert not decide(given, rules_of(tmp_path, shadow("next", "chest-xray"))).is_matched
    assert decide(given, rules_of(tmp_path, CHEST, shadow("next", "chest-xray"))).is_matched


def test_a_case_is_told_of_that_cannot_be_analysed_when_one_of_its_rules_says_so(tmp_path: Path) -> None:
    telling = rule("telling", "{Modality: DX}", "20s", "chest-xray", "[sr]", "[web]", ", on_failure: tell")
    (candidate,) = decide(study([PA]), rules_of(tmp_path, CHEST)).candidates
    assert candidate.on_failure == "keep"
    (candidate,) = decide(study([PA]), rules_of(tmp_path, CHEST, telling)).candidates
    assert candidate.on_failure == "tell"
    (candidate,) = decide(study([PA]), rules_of(tmp_path, CHEST, "defaults: {on_failure: tell}\n")).candidates
    assert candidate.on_failure == "tell"
