"""Rules that run a service of a vendor's node: the peer that is asked must be one that can answer, and its alone."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import pytest

from pacsnode.errors import ConfigError
from pacsnode.operators import parse
from pacsnode.route.rule import ServiceSummary
from pacsnode.route.rules import Rules, load_rules

CR = parse({"Modality": "CR"})
VENDOR = ServiceSummary("vendor-chest", "certified", CR, "", "vendor-ai", ("sr",))
RULES = """\
version: 1
peers:
  xray-1: {ae_title: XR1, host: 192.0.2.21, may: [store]}
  pacs: {ae_title: PACS, host: 192.0.2.5, port: 104}
  vendor-ai: {ae_title: VENDOR, host: 192.0.2.40, port: 104, may: [answer]}
rules:
  - name: chest
    when: {Modality: CR}
    complete: {quiet: 20s}
    run: vendor-chest
    results: [sr]
    send_to: [pacs]
unmatched: keep
"""


def load(folder: Path, text: str, *more: ServiceSummary) -> Rules:
    path = folder / "rules.yaml"
    path.write_text(text)
    return load_rules(path, {service.name: service for service in (VENDOR, *more)}, UTC)


def test_a_vendors_node_that_may_answer_and_can_be_called_is_right(tmp_path: Path) -> None:
    assert load(tmp_path, RULES).warnings == ()


@pytest.mark.parametrize(
    ("old", "new", "place", "code", "fragment"),
    [
        ("vendor-ai: {", "vendor-a: {", "10:5", "remote-peer", "there is no such peer; did you mean vendor-a?"),
        ("may: [answer]", "may: [store]", "10:5", "remote-peer", "which may not answer; give it `may: [answer]`"),
        (
            "port: 104, may: [answer]",
            "may: [answer]",
            "10:5",
            "remote-peer",
            "nothing can be sent to it: it has no port",
        ),
        ("may: [answer]", "may: [store, answer]", "5:67", "store-and-answer", "exclude each other"),
    ],
)
def test_a_peer_that_cannot_be_the_vendors_node_is_told_at_its_place(
    tmp_path: Path, old: str, new: str, place: str, code: str, fragment: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, RULES.replace(old, new))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path / 'rules.yaml'}:{place} ")
    assert fragment in line
    assert line.endswith(f"[{code}]")


def test_two_services_cannot_ask_one_peer_since_nobody_could_tell_the_answers_apart(tmp_path: Path) -> None:
    twin = ServiceSummary("vendor-bone", "certified", CR, "", "vendor-ai", ("sr",))
    with pytest.raises(ConfigError, match=r"vendor-bone and vendor-chest ask one peer, vendor-ai.*\[remote-peer\]"):
        load(tmp_path, RULES, twin)


def test_results_that_the_vendor_does_not_make_are_a_warning(tmp_path: Path) -> None:
    (warning,) = load(tmp_path, RULES.replace("results: [sr]", "results: [sr, seg]")).warnings
    assert "vendor-chest makes no seg; its node answers with sr, and only that is sent" in warning
