"""The rules file: each mistake by line, before any image meets it."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC
from pathlib import Path

import pytest

from pacsnode.errors import ConfigError
from pacsnode.operators import parse
from pacsnode.route.examples import check_examples
from pacsnode.route.rule import ServiceSummary
from pacsnode.route.rules import Rules, load_rules

SHIPPED = Path(__file__).resolve().parents[2] / "routing_rules.yaml"
SERVICES = {
    "chest-xray": ServiceSummary("chest-xray", "trained", parse({"Modality": {"in": ["CR", "DX"]}})),
    "ecg-arrhythmia": ServiceSummary("ecg-arrhythmia", "classical", parse({"Modality": "ECG"})),
    "bone-age": ServiceSummary("bone-age", "certified", parse({"Modality": "DX"})),
}
GOOD = """\
version: 1
peers:
  xray-1: {ae_title: XR1, host: 192.0.2.21, port: 104, may: [store], investigational: true}
  ward-b: {ae_title: "*", host: 198.51.100.0/24, may: [store], reply_to: main-pacs}
  main-pacs: {ae_title: PACS, host: 192.0.2.5, port: 104, may: [query], accepts: [sr, sc], investigational: true}
  old-pacs: {ae_title: OLD, host: 192.0.2.6, port: 104}
rules:
  - name: chest
    when:
      Modality: {in: [CR, DX]}
    complete: {quiet: 20s}
    run: chest-xray
    results: [sr, sc]
    send_to: [sender, main-pacs]
  - name: bone age
    enabled: true
    when: {BodyPartExamined: HAND}
    complete: {quiet: 2m}
    run: [bone-age]
    results: [sr]
    send_to: [old-pacs]
    priority: off-peak
unmatched: keep
examples:
  - {study: {Modality: DX, BodyPartExamined: CHEST}, expect: [chest]}
"""


def load(folder: Path, content: str = GOOD) -> Rules:
    path = folder / "routing_rules.yaml"
    path.write_text(content, encoding="utf-8")
    return load_rules(path, SERVICES, UTC)


def test_a_good_file_is_read_with_its_hash(tmp_path: Path) -> None:
    rules = load(tmp_path)
    assert rules.hash == hashlib.sha256(GOOD.encode()).hexdigest()
    chest, bone_age = rules.rules
    assert (chest.run, chest.results, chest.send_to) == (("chest-xray",), ("sr", "sc"), ("sender", "main-pacs"))
    assert (chest.priority, chest.enabled, chest.complete.quiet) == ("routine", True, 20.0)
    assert (bone_age.priority, bone_age.complete.quiet) == ("off-peak", 120.0)
    assert check_examples(rules) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("unmatched: keep\n", "", "unmatched: this key is missing"),
        (
            "unmatched: keep",
            "unmatched: kep",
            "23:12 unmatched: the text 'kep' is not known; expected: 'keep' or 'alarm'",
        ),
        (
            "    send_to: [sender",
            "    sent_to: [sender",
            "14:5 rules.0.sent_to: there is no such key; did you mean send_to?",
        ),
        (
            "Modality: {in",
            "Modalty: {in",
            "10:7 rules.0.when.Modalty: Modalty is neither a DICOM keyword nor a tag such as 0018,1030; did you mean",
        ),
        (
            "{in: [CR, DX]}",
            "{inn: [CR, DX]}",
            "10:18 rules.0.when.Modality.inn: there is no such operator; did you mean in?",
        ),
        (
            "{in: [CR, DX]}",
            "[CR, DX]",
            "10:17 rules.0.when.Modality: expected text or a number, found a list; write {in:",
        ),
        ("{in: [CR, DX]}", "{matches: '(a+)+'}", "10:27 rules.0.when.Modality.matches: a repeat inside a repeat"),
        ("{in: [CR, DX]}", '{matches: "\\bcr"}', "put patterns with a \\ in single quotes"),
        (
            "Modality: {in: [CR, DX]}",
            "peer: xray1",
            "10:13 rules.0.when.peer: there is no peer xray1; did you mean xray-1?",
        ),
        ("Modality: {in: [CR, DX]}", "", "9:5 rules.0.when: expected conditions"),
        (
            "quiet: 20s",
            "quiet: 20",
            "11:23 rules.0.complete.quiet: expected a time such as 20s, 2m, 1h or 7d, found the number",
        ),
        ("quiet: 20s", "quiet: 2d", "2d is longer than a day"),
        ("quiet: 20s", "quiet: 25h", "longer than a day"),
        ("run: chest-xray", "run: []", "12:10 rules.0.run: expected at least 1 of them, found an empty list"),
        ("results: [sr, sc]", "results: [sr, dvd]", "13:19 rules.0.results.1: the text 'dvd' is not known"),
        ("results: [sr, sc]", "results: []", "13:14 rules.0.results: expected at least 1"),
        ("results: [sr, sc]", "results: [sr, seg]", "14:23 rules.0.send_to.1: main-pacs does not accept seg"),
        (
            "results: [sr, sc]",
            "results: [sr, seg]",
            "14:15 rules.0.send_to.0: main-pacs, where results for ward-b go, does",
        ),
        (
            "send_to: [sender, main-pacs]",
            "send_to: [sender, main-pac]",
            "there is no peer main-pac; did you mean main-pacs?",
        ),
        ("send_to: [sender, main-pacs]", "send_to: [ward-b]", "nothing can be sent to ward-b: its ae_title is"),
        (
            "port: 104, may: [query]",
            "may: [query]",
            "14:23 rules.0.send_to.1: nothing can be sent to main-pacs: it has no port",
        ),
        ("192.0.2.5,", "203.0.113.0/24,", "nothing can be sent to main-pacs: its host 203.0.113.0/24 is a network"),
        (
            "port: 104, may: [store]",
            "may: [store]",
            "14:15 rules.0.send_to.0: the sender may be xray-1, and nothing can be",
        ),
        (
            "reply_to: main-pacs",
            "issuer: B",
            "14:15 rules.0.send_to.0: the sender may be ward-b, and nothing can be sent",
        ),
        (
            "reply_to: main-pacs",
            "reply_to: main-pax",
            "4:74 peers.ward-b.reply_to: there is no peer main-pax; did you mean",
        ),
        (
            ", investigational: true}",
            "}",
            "14:15 rules.0.send_to.0: xray-1 is not marked `investigational: true`, but chest-xray",
        ),
        (
            "[sender, main-pacs]",
            "[old-pacs]",
            "14:15 rules.0.send_to.0: old-pacs is not marked `investigational: true`",
        ),
        ("name: bone age", "name: chest", "15:11 rules.1.name: a rule called 'chest' is already on line 8"),
        ("enabled: true", "enabled: yes", "16:14 rules.1.enabled: expected true or false, found the text 'yes'"),
        (
            "priority: off-peak",
            "priority: of-peak",
            "22:15 rules.1.priority: the text 'of-peak' is not known; expected: 'stat'",
        ),
        (
            "study: {Modality",
            "study: {Modalty",
            "25:14 examples.0.study.Modalty: Modalty is neither a DICOM keyword nor a tag such as 0018,1030; did you",
        ),
        (
            "study: {Modality: DX",
            "study: {Modality: true",
            "25:24 examples.0.study.Modality: expected a value or a list of",
        ),
        (
            "expect: [chest]",
            "expect: [chests]",
            "25:63 examples.0.expect.0: there is no rule called chests; did you mean",
        ),
        ("rules:\n", "rules:\n  - {}\n", "8:5 rules.0.name: this key is missing"),
        (
            "unmatched: keep",
            "unmatched: keep\nunmatched: keep",
            "24:1 unmatched: this key is here twice, first on line 23",
        ),
        ("    when:", "\twhen:", "9:1 file: a tab at the start of a line"),
    ],
)
def test_a_broken_file_is_told_by_line_with_a_sentence_and_a_code(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert told in str(caught.value)
    for line in str(caught.value).split("\n"):
        assert re.match(r".+/routing_rules\.yaml:\d+:\d+ \S+: .+ \[[a-z-]+\]$", line), line


def test_all_mistakes_between_rules_and_peers_are_told_at_once(tmp_path: Path) -> None:
    content = (
        GOOD.replace("run: chest-xray", "run: chest")
        .replace("[old-pacs]", "[older-pacs]")
        .replace("[chest]", "[chist]")
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, content)
    assert [line[-20:].split("[")[-1] for line in str(caught.value).split("\n")] == [
        "unknown-service]",
        "unknown-peer]",
        "unknown-rule]",
    ]


def test_a_rule_that_is_switched_off_may_name_a_service_that_is_not_installed(tmp_path: Path) -> None:
    content = GOOD.replace("enabled: true", "enabled: false").replace("run: [bone-age]", "run: leg-length")
    assert not load(tmp_path, content).rules[1].enabled


def test_a_certified_service_may_send_to_a_peer_that_is_not_investigational(tmp_path: Path) -> None:
    assert load(tmp_path).rules[1].send_to == ("old-pacs",)


def test_a_peer_condition_frees_the_rule_of_senders_that_cannot_be_reached(tmp_path: Path) -> None:
    unreachable = GOOD.replace("reply_to: main-pacs", "issuer: B")
    for peer in ("peer: xray-1", "peer: {not: ward-b}"):
        narrowed = unreachable.replace("Modality: {in: [CR, DX]}", f"{{Modality: DX, {peer}}}")
        assert load(tmp_path, narrowed.replace("    when:\n      {", "    when: {")).rules[0].name == "chest"


def test_examples_that_the_rules_answer_otherwise_are_told_with_the_reason(tmp_path: Path) -> None:
    more = "  - {study: {Modality: MG}, expect: [chest]}\n  - {study: {BodyPartExamined: [HAND, WRIST]}, expect: []}\n"
    rules = load(tmp_path, GOOD + more)
    first, second = check_examples(rules)
    assert first.endswith(
        "yaml:26:5 example: rule 'chest' is expected to take it, but Modality is MG, expected CR or DX"
    )
    assert second.endswith("yaml:27:5 example: rule 'bone age' takes it, but is not expected to")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "run: chest-xray",
            "run: chest-xry",
            "12:5 rules.0.run.0: warning: there is no service chest-xry installed; did",
        ),
        ("run: [bone-age]", "run: [bone-age, leg]", "19:21 rules.1.run.1: warning: there is no service leg installed"),
    ],
)
def test_a_service_that_is_not_installed_is_told_and_the_rest_of_the_file_acts(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    assert old in GOOD
    (warning,) = load(tmp_path, GOOD.replace(old, new)).warnings
    assert told in warning
    assert warning.endswith("[unknown-service]")


def test_a_slot_is_told_and_the_rest_of_the_file_acts(tmp_path: Path) -> None:
    """Not even its status is held against its destinations: nothing of it can reach them."""
    path = tmp_path / "rules.yaml"
    path.write_text(GOOD, encoding="utf-8")
    slot = ServiceSummary("bone-age", "slot", parse({"Modality": "DX"}), "slot: copy the vendor's weights to m.pt")
    rules = load_rules(path, SERVICES | {"bone-age": slot}, UTC)
    (warning,) = rules.warnings
    assert "bone-age cannot be used (slot: copy the vendor's weights to m.pt); the rule is skipped for it" in warning
    assert warning.endswith("[unknown-service]")
    assert "bone-age" not in rules.services


def test_the_shipped_file_is_right_and_its_examples_hold() -> None:
    rules = load_rules(SHIPPED, SERVICES, UTC)
    assert check_examples(rules) == []
    assert {rule.name for rule in rules.rules if any(rule.name in example.expect for _, example in rules.examples)} == {
        rule.name for rule in rules.rules
    }
    assert all(peer.host.startswith("192.0.2.") for peer in rules.peers.peers.values())  # RFC 5737


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "priority: off-peak",
            "on_failure: shout",
            "22:17 rules.1.on_failure: the text 'shout' is not known; expected",
        ),
        (
            "results: [sr]\n",
            "results: [seg]\n    on_failure: tell\n",
            "21:5 rules.1.on_failure: what is told is a short report (sr) and a page (sc), and `results` has neither",
        ),
        (
            "unmatched: keep",
            "  - {name: kept, when: {Modality: OT}, forward: main-pacs, on_failure: tell}\nunmatched: keep",
            "rules.2.on_failure: this says what becomes of a case of a service, and the rule has no `run`",
        ),
    ],
)
def test_on_failure_is_refused_where_nothing_can_be_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert told in str(caught.value)
