"""What is wrong with a rules file whose every part is right by itself: names that lead nowhere, results that nobody
may get, rules that cannot act.

In: the records of the file, its rules, the installed services. Out: problems with their places. An error keeps the file
from going live; a warning is told and the rest of the file acts. docs/rules.md explains each code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any

from pacsnode import peers
from pacsnode.conditions import Condition, Test
from pacsnode.operands import PEER, key_of
from pacsnode.operators import unknown_name
from pacsnode.peers import SENDER, Directory, Peer
from pacsnode.route.contradictions import contradiction, implies, sure_parts
from pacsnode.route.language import RulesFile
from pacsnode.route.rule import Rule, ServiceSummary
from pacsnode.yamlfile import Document, Loc, Problem, nearest

CERTIFIED = "certified"


def problems(
    content: RulesFile, document: Document, rules: Sequence[Rule], services: Mapping[str, ServiceSummary]
) -> list[Problem]:
    """Everything that is wrong between the parts of the file."""
    directory = Directory(content.peers)
    found = peers.mistakes(content.peers)
    names: dict[str, int] = {}
    for index, rule in enumerate(rules):
        loc: Loc = ("rules", index)
        first = names.setdefault(rule.name, index)
        if first != index:
            line, _ = document.line_column(("rules", first, "name"))
            text = f"a rule called {rule.name!r} is already on line {line}"
            found.append(Problem((*loc, "name"), text, "duplicate-rule"))
        found += _of_deeds(loc, rule, content)
        found += _of_conditions(loc, rule)
        found += _of_services(loc, rule, services)
        found += _of_vendors(loc, rule, directory, services)
        found += _of_destinations(loc, rule, directory, services)
        found += _of_forwarding(loc, rule, directory)
        found += _of_order(loc, rule, rules[:index])
    return [*found, *_of_peers_in_conditions(document, directory), *_of_examples(content, document)]


def _of_deeds(loc: Loc, rule: Rule, content: RulesFile) -> Iterator[Problem]:
    """A rule has to do something, and to say all that its doing needs."""
    entry, defaults = content.rules[loc[1]], content.defaults  # type: ignore[index]
    if not (rule.run or rule.forward or rule.stop):
        text = "the rule does nothing: give it `run` (a service), `forward` (peers) or `stop: true`"
        yield Problem(loc, text, "does-nothing")
    for key in ("complete", "results", "send_to"):
        given = getattr(entry, key)
        is_needed = rule.run and (key == "complete" or not rule.shadow)
        if is_needed and given is None and getattr(defaults, key) is None:
            yield Problem((*loc, key), "this key is missing, here and in `defaults`", "missing", at="key")
        if not rule.run and given is not None:
            yield Problem((*loc, key), "this says what a service does, and the rule has no `run`", "no-run", at="key")
    if not rule.run and entry.on_failure is not None:
        text = "this says what becomes of a case of a service, and the rule has no `run`"
        yield Problem((*loc, "on_failure"), text, "no-run", at="key")
    elif entry.on_failure == "tell" and rule.results and not {"sr", "sc"} & set(rule.results):
        text = "what is told is a short report (sr) and a page (sc), and `results` has neither; add one of them"
        yield Problem((*loc, "on_failure"), text, "tells-nothing", at="key")
    if rule.shadow:
        yield from _of_shadow(loc, rule, entry.send_to is not None)


def _of_shadow(loc: Loc, rule: Rule, names_destinations: bool) -> Iterator[Problem]:
    """A rule in shadow runs a service beside the others, and changes nothing for anybody."""
    if not rule.run:
        text = "this says how a service runs, and the rule has no `run`"
        yield Problem((*loc, "shadow"), text, "no-run", at="key")
    for key, does in (("forward", "sends images"), ("stop", "keeps images from the rules below")):
        if getattr(rule, key):
            text = f"a rule with `shadow: true` changes nothing for others, and this {does}; put it into a live rule"
            yield Problem((*loc, key), text, "shadow-acts", at="key")
    if names_destinations:
        text = "nothing is sent, since the rule has `shadow: true`"
        yield Problem((*loc, "send_to"), text, "shadow-send-to", at="key", is_warning=True)


def _of_peers_in_conditions(document: Document, directory: Directory) -> Iterator[Problem]:
    """Peers in conditions, each where it is written: `peer: name`, `peer: {in: [names]}`, under `not` too."""
    known = {key_of(PEER, name) for name in directory.peers}
    written: Any = document.data
    for loc in document.values:
        if PEER not in loc or loc[0] not in ("rules", "defaults", "examples"):
            continue
        behind = loc[loc.index(PEER) + 1 :]
        if any(isinstance(part, str) and part not in ("equals", "in", "not") for part in behind):
            continue
        name = reduce(getitem, loc, written)
        if isinstance(name, str) and key_of(PEER, name) not in known:
            yield Problem(loc, f"there is no peer {name}{nearest(name, directory.peers)}", "unknown-peer")


def _of_conditions(loc: Loc, rule: Rule) -> Iterator[Problem]:
    if reason := contradiction(_joined(rule.when)):
        yield Problem((*loc, "when"), f"no image can satisfy this: {reason}", "never-matches")


def _joined(*conditions: Condition) -> Condition:
    """Conditions that must all hold as one, with what lies in `all` blocks beside the rest."""
    return Condition("all", tuple(part for condition in conditions for part in sure_parts(condition)))


def _of_services(loc: Loc, rule: Rule, services: Mapping[str, ServiceSummary]) -> Iterator[Problem]:
    for index, name in enumerate(rule.run):
        # `run: name` and `run: [name]` are the same; the place of the first is nearest to that of both
        at = (*loc, "run", index)
        service = services.get(name)
        if service is None or service.obstacle:
            if rule.enabled:
                near = nearest(name, services)
                what = (
                    f"{name} cannot be used ({service.obstacle})"
                    if service
                    else f"there is no service {name} installed{near}"
                )
                yield Problem(at, f"{what}; the rule is skipped for it", "unknown-service", is_warning=True)
        elif not contradiction(_joined(rule.when)) and (reason := contradiction(_joined(rule.when, service.accepts))):
            text = f"{name} accepts no image that this rule takes: {reason}"
            yield Problem(at, text, "service-never", is_warning=True)


def _of_vendors(
    loc: Loc, rule: Rule, directory: Directory, services: Mapping[str, ServiceSummary]
) -> Iterator[Problem]:
    """Services whose work a peer does: it must be one that can be asked, by this service alone, and may answer."""
    for index, name in enumerate(rule.run):
        service = services.get(name)
        if service is None or service.obstacle or not service.asks or not rule.enabled:
            continue
        asks, at = f"{name} asks peer {service.asks}", (*loc, "run", index)
        peer = directory.by_name(service.asks)
        twins = sorted(s.name for s in services.values() if s.asks == service.asks and not s.obstacle)
        if peer is None:
            yield Problem(
                at, f"{asks}, and there is no such peer{nearest(service.asks, directory.peers)}", "remote-peer"
            )
        elif peer.type != "dimse":
            yield Problem(at, f"{asks}, which has type: {peer.type}; a vendor's node has type: dimse", "remote-peer")
        elif peer.obstacle:
            yield Problem(at, f"{asks}, and nothing can be sent to it: {peer.obstacle}", "remote-peer")
        elif "answer" not in peer.may:
            yield Problem(at, f"{asks}, which may not answer; give it `may: [answer]`", "remote-peer")
        elif len(twins) > 1:
            text = f"{' and '.join(twins)} ask one peer, {service.asks}: nobody could tell whose answer is whose"
            yield Problem(at, f"{text}; enter the vendor's node as a peer for each", "remote-peer")
        if missing := [kind for kind in rule.results if kind not in service.makes]:
            text = f"{name} makes no {', '.join(missing)}; its node answers with {', '.join(service.makes)}"
            yield Problem(at, f"{text}, and only that is sent", "remote-results", is_warning=True)


def _of_destinations(
    loc: Loc, rule: Rule, directory: Directory, services: Mapping[str, ServiceSummary]
) -> Iterator[Problem]:
    if not rule.run:
        return
    uncertified = ""
    for name in rule.run:
        if name in services and not services[name].obstacle and services[name].status != CERTIFIED:
            uncertified = f"{name} is not certified (status: {services[name].status})"
    for index, word in enumerate(rule.send_to):
        at = (*loc, "send_to", index)
        if word == SENDER:
            for sender in _senders(rule, directory):
                yield from _of_sender(at, rule, sender, directory, uncertified)
        elif (peer := directory.by_name(word)) is None:
            near = nearest(word, (*directory.peers, SENDER))
            yield Problem(at, f"there is no peer {word}{near}", "unknown-peer")
        elif peer.obstacle:
            yield Problem(at, f"nothing can be sent to {word}: {peer.obstacle}", "no-destination")
        else:
            yield from _of_destination(at, rule, peer, uncertified)


def _senders(rule: Rule, directory: Directory) -> list[Peer]:
    """Peers whose images can come to the rule: they may store, and no `peer:` line of the rule excludes them."""
    tests = [test for test in sure_parts(rule.when) if isinstance(test, Test) and test.attribute == PEER]
    return [
        peer
        for peer in directory.peers.values()
        if "store" in peer.may and all(test.clause({PEER: (peer.name,)}).satisfied for test in tests)
    ]


def _of_sender(at: Loc, rule: Rule, sender: Peer, directory: Directory, uncertified: str) -> Iterator[Problem]:
    target = directory.destination(SENDER, sender.name)
    if target is None or (sender.reply_to and target.obstacle):
        return  # a reply_to that leads nowhere is told where it stands
    if target.obstacle:
        text = f"the sender may be {sender.name}, and nothing can be sent to it: {sender.obstacle}"
        remedy = f"Give it a port and one address, or a reply_to, {_without(sender)}"
        yield Problem(at, f"{text}. {remedy}", "sender-unreachable")
        return
    yield from _of_destination(at, rule, target, uncertified, sender)


def _of_destination(at: Loc, rule: Rule, peer: Peer, uncertified: str, sender: Peer | None = None) -> Iterator[Problem]:
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


def _of_forwarding(loc: Loc, rule: Rule, directory: Directory) -> Iterator[Problem]:
    for index, word in enumerate(rule.forward):
        at = (*loc, "forward", index)
        peer = directory.by_name(word)
        if word == SENDER:
            yield Problem(at, "images do not go back to their sender; name a peer", "forward-to-sender")
        elif peer is None:
            yield Problem(at, f"there is no peer {word}{nearest(word, directory.peers)}", "unknown-peer")
        elif peer.obstacle:
            yield Problem(at, f"nothing can be sent to {word}: {peer.obstacle}", "no-destination")


def _of_order(loc: Loc, rule: Rule, before: Sequence[Rule]) -> Iterator[Problem]:
    if not rule.enabled:
        return
    for earlier in before:
        takes_all = earlier.enabled and earlier.stop and earlier.series is None
        if takes_all and implies(rule.when, earlier.when):
            text = f"{earlier.name!r} above has `stop: true` and takes every image that this rule could take"
            yield Problem(loc, text, "unreachable", is_warning=True)
            return


def _of_examples(content: RulesFile, document: Document) -> Iterator[Problem]:
    names = [rule.name for rule in content.rules]
    for index, example in enumerate(content.examples):
        for number, image in enumerate(example.study):
            for keyword in image:
                if mistake := unknown_name(keyword):
                    at: Loc = ("examples", index, "study", number, keyword)
                    yield Problem(document.known(at), mistake, "unknown-attribute", at="key")
        for place, name in enumerate(example.expect):
            if name not in names:
                text = f"there is no rule called {name}{nearest(name, names)}"
                yield Problem(("examples", index, "expect", place), text, "unknown-rule")
