"""`pacsnode rules new`: a commented rules file to start from, made of what this node received so far.

In: the index, the live peers, the installed services. Out: the text of a file, every rule of it switched off, with what
devices really sent as comments. Never a patient's name; never overwrites a file.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pacsnode.errors import ConfigError

if TYPE_CHECKING:
    from pacsnode.peers import Peer

OUT_OPTION = typer.Option(None, "--out", help="Write into this file, which must not exist; left out: print it.")
TEXTS = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName", "ViewPosition")
"""What rules mostly go by; shown with the values that devices sent."""
MOST_VALUES = 6
LONGEST_SHOWN = 48
LOOKED_AT = 20_000
"""So many of the newest images are looked at."""


@dataclass
class _Modality:
    """What was received of one modality."""

    images: int = 0
    peers: Counter[str] = field(default_factory=Counter)
    values: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    samples: list[Mapping[str, tuple[str, ...]]] = field(default_factory=list)


def rules_new(out: Path | None = OUT_OPTION) -> None:
    """Print a commented rules file to start from: the peers, and a rule for each modality that was received."""
    from pacsnode.cli.looking import ready
    from pacsnode.infer.catalogue import load_catalogue, usable
    from pacsnode.live import load_site
    from pacsnode.settings import load

    settings = ready(load())
    try:
        known = dict(load_site(settings).rules.peers.peers)
    except ConfigError:  # there is no good file yet: that is why somebody asks for one
        known = {}
    text = "\n".join(_lines(_received(settings.index_db), known, usable(load_catalogue(settings.models)))) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError("is there already; name another file", where=str(out)) from None
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", where=str(out)) from None
    typer.echo(f"{out} written; `pacsnode rules check {out}` checks it")


def _received(index_db: Path) -> dict[str, _Modality]:
    """By modality, of the newest images."""
    connection = sqlite3.connect(f"file:{index_db}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT i.peer, c.attributes FROM instances i JOIN common c ON c.id = i.common WHERE i.origin = 'received' "
            "ORDER BY i.received_utc_us DESC LIMIT ?",
            (LOOKED_AT,),
        ).fetchall()
    finally:
        connection.close()
    found: dict[str, _Modality] = defaultdict(_Modality)
    for peer, text in rows:
        attributes = {keyword: tuple(values) for keyword, values in json.loads(text).items()}
        modality = found[next(iter(attributes.get("Modality", ())), "")]
        modality.images += 1
        modality.peers[peer] += 1
        if len(modality.samples) < LOOKED_AT // 100:
            modality.samples.append(attributes)
        for keyword in TEXTS:
            modality.values[keyword].update(attributes.get(keyword, ())[:1])
    return {name: found[name] for name in sorted(found) if name}


def _lines(received: Mapping[str, _Modality], peers: Mapping[str, Peer], services: Mapping[str, Any]) -> Iterator[str]:
    yield "# A start, made by `pacsnode rules new` of what this node received. Every rule is off until `enabled: false`"
    yield "# is taken out. docs/rules.md explains the language, `pacsnode rules check` finds mistakes."
    yield "version: 1"
    yield "unmatched: keep"
    yield ""
    yield from _peer_lines(peers)
    yield ""
    if not received:
        yield "# Nothing was received yet: send some studies, then run this command again."
        yield "rules: []"
        return
    yield "rules:"
    for name, modality in received.items():
        yield from _rule_lines(name, modality, [peer for peer in peers.values() if not peer.obstacle], services)


def _peer_lines(peers: Mapping[str, Peer]) -> Iterator[str]:
    from pacsnode.cli.peers_file import lines_of

    if not peers:
        yield "# No peer is known: `pacsnode peers refused` lists who called. An entry looks like this:"
        yield "#   xray-1: {ae_title: XR1, host: 192.0.2.21, port: 104, may: [store], issuer: CLINIC}"
        yield "peers: {}"
        return
    yield "peers:"
    for peer in peers.values():
        yield lines_of(peer).rstrip("\n")


def _rule_lines(name: str, modality: _Modality, destinations: list[Peer], services: Mapping[str, Any]) -> Iterator[str]:
    senders = ", ".join(f"{peer} ({count})" for peer, count in modality.peers.most_common())
    yield f"  # {_shown(name)}: {modality.images} images lately, from {senders}"
    for keyword in TEXTS:
        told = [f"{_shown(value)} ({count})" for value, count in modality.values[keyword].most_common(MOST_VALUES)]
        if told:
            yield f"  #   {keyword}: {', '.join(told)}"
    readers = list(_readers(modality, services))
    takers = [peer.name for peer in destinations if readers and _may_get_results(peer, services[readers[0]])]
    yield f"  - name: {json.dumps(_shown(name) + ' images', ensure_ascii=False)}"
    yield "    enabled: false"
    yield "    when:"
    yield f"      Modality: {json.dumps(name, ensure_ascii=False)}"
    common = modality.values["BodyPartExamined"].most_common(1)
    if common and _has_a_letter(common[0][0]):
        yield f"      # BodyPartExamined: {json.dumps(common[0][0], ensure_ascii=False)}"
    if readers and takers:
        yield "    complete: {quiet: 60s}"
        yield f"    run: {readers[0]}" + (f"  # or {', '.join(readers[1:])}" if readers[1:] else "")
        yield "    results: [sr]"
        yield f"    send_to: [{json.dumps(takers[0], ensure_ascii=False)}]"
    elif destinations:
        why = (
            "no peer may get results of a service yet (`investigational: true`)"
            if readers
            else "no service reads these"
        )
        yield f"    # {why}; forwarded, images go to a peer as they came"
        yield f"    forward: {json.dumps(destinations[0].name, ensure_ascii=False)}"
    else:
        yield "    # nothing can be sent to any peer yet: give one a `port:`, then write `run:` or `forward:` here"
        yield "    stop: true"


def _readers(modality: _Modality, services: Mapping[str, Any]) -> Iterable[str]:
    """Services that accept some of the images."""
    from pacsnode.conditions import evaluate

    for name, service in services.items():
        if any(evaluate(service.accepts, sample)[0] for sample in modality.samples):
            yield name


def _may_get_results(peer: Peer, service: Any) -> bool:
    return "sr" in peer.accepts and (peer.investigational or service.pipeline.status == "certified")


def _shown(value: str) -> str:
    """A value as a comment may hold it: on one line, and not for ever long."""
    plain = " ".join("".join(mark if mark.isprintable() else " " for mark in value).split())
    return plain[:LONGEST_SHOWN]


def _has_a_letter(value: str) -> bool:
    return any(mark.isalnum() for mark in value)
