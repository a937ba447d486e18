"""routing_rules.yaml: which images go to which service, and where the results go.

In: the file and what the installed services accept. Out: Rules, frozen, with the hash of the file; or one ConfigError
with every mistake by line, so that no rule fails first with a patient's images. `check_examples` runs the file's own
examples. Reads no image and no database.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from pacsnode import conditions, operands, peers, yamlfile
from pacsnode.conditions import Condition, evaluate
from pacsnode.handover import Clause, ResultKind
from pacsnode.peers import SENDER, Directory, Peer, Peers
from pacsnode.yamlfile import Document, Items, Loc, Problem, Record, nearest, validate, wrong

Priority = Literal["stat", "routine", "off-peak"]
CERTIFIED = "certified"
LONGEST_QUIET_S = 86400.0
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class ServiceSummary:
    """What rules need to know of an installed AI service."""

    name: str
    status: str
    accepts: Condition


def _seconds(raw: object) -> float:
    found = re.fullmatch(r"(\d{1,5}(?:\.\d)?) ?([smh])", raw, re.ASCII) if isinstance(raw, str) else None
    if found is None:
        raise wrong("duration", f"expected a time such as 20s, 2m or 1h, found {yamlfile.found_in_words(raw)}")
    seconds = float(found[1]) * SECONDS[found[2]]
    if seconds > LONGEST_QUIET_S:
        raise wrong("duration", f"{raw} is longer than a day")
    return seconds


def _one_or_more(raw: object) -> object:
    """One name stands for a list of one."""
    return [raw] if isinstance(raw, str) else raw


def _values(raw: object) -> tuple[str, ...]:
    """The values of an attribute as the index has them: text, in order."""
    values = raw if isinstance(raw, list) else [raw]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            found = yamlfile.found_in_words(value) if value != "" else "an empty text"
            raise wrong("wrong-type", f"expected a value or a list of values, found {found}; leave out what is absent")
    return tuple(map(str, values))


Seconds = Annotated[float, BeforeValidator(_seconds)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]


class Complete(Record):
    """When a case of the rule is whole: after so long without a new image of the case."""

    quiet: Seconds


class Rule(Record):
    """One rule as the file has it."""

    name: Name
    when: Condition
    complete: Complete
    run: Annotated[Items[Name], BeforeValidator(_one_or_more), Field(min_length=1)]
    results: Annotated[Items[ResultKind], Field(min_length=1)]
    send_to: Annotated[Items[Name], Field(min_length=1)]
    priority: Priority = "routine"
    enabled: bool = True
    note: str = ""
    owner: str = ""


class Example(Record):
    """A made-up image and the rules that must act on it."""

    study: dict[str, Annotated[tuple[str, ...], BeforeValidator(_values)]]
    expect: Items[Name]


class RulesFile(Record):
    """The whole file."""

    version: Literal[1]
    peers: Peers
    rules: Items[Rule]
    unmatched: Literal["keep", "alarm"]
    examples: Items[Example] = ()


@dataclass(frozen=True)
class Rules:
    """Checked rules. `hash` is the SHA-256 of the file's bytes: it stands in every decision and result."""

    file: str
    hash: str
    peers: Directory
    rules: tuple[Rule, ...]
    services: Mapping[str, ServiceSummary]
    unmatched: Literal["keep", "alarm"]
    examples: tuple[tuple[str, Example], ...]
    """With `file:line:column` of each."""


def load_rules(path: Path, services: Mapping[str, ServiceSummary]) -> Rules:
    """Read and check the file. Raises ConfigError with all mistakes."""
    document = yamlfile.load(path)
    content = validate(document, RulesFile)
    directory = Directory(content.peers)
    problems = peers.mistakes(content.peers)
    names: dict[str, int] = {}
    for index, rule in enumerate(content.rules):
        first = names.setdefault(rule.name, index)
        if first != index:
            line, _ = document.line_column(("rules", first, "name"))
            text = f"a rule called {rule.name!r} is already on line {line}"
            problems.append(Problem(("rules", index, "name"), text, "duplicate-rule"))
        problems += _rule_problems(("rules", index), rule, directory, services)
    problems += _example_problems(content)
    if problems:
        raise document.error(problems)
    return Rules(
        document.name,
        document.sha256,
        directory,
        content.rules,
        dict(services),
        content.unmatched,
        tuple(_placed(document, content.examples)),
    )


def _placed(document: Document, examples: tuple[Example, ...]) -> Iterator[tuple[str, Example]]:
    for index, example in enumerate(examples):
        yield document.position(("examples", index)), example


def _rule_problems(
    loc: Loc, rule: Rule, directory: Directory, services: Mapping[str, ServiceSummary]
) -> Iterator[Problem]:
    yield from _unknown_peers_in_conditions(loc, rule, directory)
    uncertified = ""
    for index, name in enumerate(rule.run):
        # `run: name` and `run: [name]` are the same; the place of the first is nearest to that of both
        if name not in services and rule.enabled:
            text = f"there is no service {name} installed{nearest(name, services)}"
            yield Problem((*loc, "run", index), text, "unknown-service")
        elif name in services and services[name].status != CERTIFIED:
            uncertified = f"{name} is not certified (status: {services[name].status})"
    for index, word in enumerate(rule.send_to):
        at = (*loc, "send_to", index)
        if word == SENDER:
            for sender in _senders(rule, directory):
                yield from _sender_problems(at, rule, sender, directory, uncertified)
            continue
        peer = directory.by_name(word)
        if peer is None:
            near = nearest(word, (*directory.peers, SENDER))
            yield Problem(at, f"there is no peer {word}{near}", "unknown-peer")
        elif peer.obstacle:
            yield Problem(at, f"nothing can be sent to {word}: {peer.obstacle}", "no-destination")
        else:
            yield from _destination_problems(at, rule, peer, uncertified)


def _senders(rule: Rule, directory: Directory) -> list[Peer]:
    """Peers whose images can come to the rule: they may store, and no `peer:` line of the rule excludes them."""
    tests = [
        part for part in rule.when.parts if isinstance(part, conditions.Test) and part.attribute == conditions.PEER
    ]
    return [
        peer
        for peer in directory.peers.values()
        if "store" in peer.may and all(test.clause({conditions.PEER: (peer.name,)}).satisfied for test in tests)
    ]


def _sender_problems(at: Loc, rule: Rule, sender: Peer, directory: Directory, uncertified: str) -> Iterator[Problem]:
    target = directory.destination(SENDER, sender.name)
    if target is None or (sender.reply_to and target.obstacle):
        return  # a reply_to that leads nowhere is told where it stands
    if target.obstacle:
        text = f"the sender may be {sender.name}, and nothing can be sent to it: {sender.obstacle}"
        remedy = f"Give it a port and one address, or a reply_to, {_without(sender)}"
        yield Problem(at, f"{text}. {remedy}", "sender-unreachable")
        return
    yield from _destination_problems(at, rule, target, uncertified, sender)


def _destination_problems(
    at: Loc, rule: Rule, peer: Peer, uncertified: str, sender: Peer | None = None
) -> Iterator[Problem]:
    """What this peer may not get; `sender` is whose results go there, where `send_to` says so."""
    who = peer.name if sender in (None, peer) else f"{peer.name}, where results for {sender.name} go,"
    remedy = f" Change that, {_without(sender)}" if sender else ""
    refused = [kind for kind in rule.results if kind not in peer.accepts]
    if refused:
        accepted = ", ".join(peer.accepts) or "nothing"
        text = f"{who} does not accept {', '.join(refused)}; its `accepts` has {accepted}.{remedy}"
        yield Problem(at, text, "not-accepted")
    if uncertified and not peer.investigational:
        text = f"{who} is not marked `investigational: true`, but {uncertified}.{remedy}"
        yield Problem(at, text, "not-investigational")


def _without(sender: Peer) -> str:
    return f"or leave {sender.name} out of the rule by the condition `peer: {{not: {sender.name}}}`"


def _unknown_peers_in_conditions(loc: Loc, rule: Rule, directory: Directory) -> Iterator[Problem]:
    known = {operands.key_of(conditions.PEER, name) for name in directory.peers}
    for test in rule.when.tests():
        if test.attribute == conditions.PEER and isinstance(test.matcher, conditions.OneOf):
            for key in sorted(map(str, test.matcher.keys - known)):
                text = f"there is no peer {key}{nearest(key, directory.peers)}"
                yield Problem((*loc, "when", conditions.PEER), text, "unknown-peer")


def _example_problems(content: RulesFile) -> Iterator[Problem]:
    names = [rule.name for rule in content.rules]
    for index, example in enumerate(content.examples):
        for keyword in example.study:
            if keyword not in conditions.NAMES:
                text = f"there is no attribute {keyword}{nearest(keyword, conditions.NAMES)}"
                yield Problem(("examples", index, "study", keyword), text, "unknown-attribute", at="key")
        for place, name in enumerate(example.expect):
            if name not in names:
                text = f"there is no rule called {name}{nearest(name, names)}"
                yield Problem(("examples", index, "expect", place), text, "unknown-rule")


def check_examples(rules: Rules) -> list[str]:
    """One sentence for each example of the file to which the rules act otherwise than it expects."""
    failures: list[str] = []
    for where, example in rules.examples:
        for rule in rules.rules:
            held, clauses = evaluate(rule.when, example.study)
            acts, expected = held and rule.enabled, rule.name in example.expect
            if acts and not expected:
                failures.append(f"{where} example: rule {rule.name!r} acts, but is not expected to")
            elif expected and not acts:
                why = "it is switched off" if held else in_words(unsatisfied(clauses))
                failures.append(f"{where} example: rule {rule.name!r} is expected to act, but {why}")
    return failures


def unsatisfied(clauses: tuple[Clause, ...]) -> list[Clause]:
    """The clauses that stand in the way."""
    return [clause for clause in clauses if not clause.satisfied]


def in_words(clauses: list[Clause]) -> str:
    """`ViewPosition is LL, expected not LL or RL; Modality is absent, expected CR or DX`, three at most."""
    told = [
        f"{clause.attribute} is {'absent' if clause.absent else clause.actual}, expected {clause.expected}"
        for clause in clauses
    ]
    return "; ".join(told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else "")
