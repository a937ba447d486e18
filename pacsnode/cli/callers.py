"""Commands about who may call: peers refused, allow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from pacsnode.cli.looking import JSON_OPTION, local_time, ready, ring
from pacsnode.cli.peers_test import peers_show, peers_test
from pacsnode.errors import ConfigError

if TYPE_CHECKING:
    from pacsnode.peers import Directory, Peer
    from pacsnode.settings import Settings

RELOAD = "a running node takes it over by itself within seconds"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    told = "Who may call this node, who was turned away, and what destinations take."
    peers = typer.Typer(help=told, no_args_is_help=True)
    peers.command("refused")(peers_refused)
    peers.command("allow")(peers_allow)
    peers.command("show")(peers_show)
    peers.command("test")(peers_test)
    app.add_typer(peers, name="peers")


def peers_refused(as_json: bool = JSON_OPTION) -> None:
    """List callers who got no association, or whose images are in quarantine: newest first, with why and how often."""
    from pacsnode.archive import quarantine, refusals
    from pacsnode.settings import load

    settings = ready(load())
    rows = [
        {
            "last": local_time(settings, line.last_utc_us),
            "count": line.count,
            "outcome": line.refusal.outcome,
            "calling_ae_title": line.refusal.calling_ae_title,
            "address": line.refusal.address,
            "called_ae_title": line.refusal.called_ae_title,
            "certificate": line.refusal.certificate,
            "reason": line.refusal.reason,
            "first": local_time(settings, line.first_utc_us),
        }
        for line in refusals.listing(settings.index_db)
    ]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for row in rows:
        called = (
            f"{row['calling_ae_title'] or '(no AE title)'} at {row['address']} calling {row['called_ae_title'] or '-'}"
        )
        typer.echo(f"{row['last']}  {row['count']:5}x  {row['outcome']:11}  {called}: {row['reason']}")
    if not rows:
        typer.echo("nobody was refused")
    if kept := quarantine.count(settings.index_db):
        typer.echo(f"{kept} objects are in quarantine")


def peers_allow(
    name: str = typer.Argument(help="The peer's name in the rules file; a new one, or one that is there."),
    ae_title: str = typer.Option("", "--ae-title", help="Its AE title."),
    host: str = typer.Option("", "--host", help="Its address, network or name."),
    port: int = typer.Option(0, help="Where it listens for results; 0: it only sends."),
    may: str = typer.Option("store", help="What it may: store,answer,query,retrieve,commit."),
    issuer: str = typer.Option("", help="Whose patient numbers it sends."),
    tls: bool = typer.Option(False, "--tls", help="It must call over TLS."),
    certificate: str = typer.Option("", help="Common name or SHA-256 fingerprint of its certificate; implies --tls."),
    write: bool = typer.Option(False, "--write", help="Put the lines into the rules file; else they are only shown."),
) -> None:
    """Allow a caller: show the lines for the rules file, or write them; take its images out of quarantine.

    Without --write, add the lines yourself, then run `pacsnode peers allow NAME` again.
    """
    from pacsnode import peers
    from pacsnode.cli.peers_file import append, lines_of
    from pacsnode.settings import load

    settings = ready(load())
    directory = peers.load(settings.rules)
    given: dict[str, Any] = {
        "ae_title": ae_title,
        "host": host,
        "port": port,
        "issuer": issuer,
        "certificate": certificate,
    }
    wanted = {key: value for key, value in given.items() if value}
    if directory.by_name(name) is None:
        wanted |= {"tls": True} if tls or certificate else {}
        peer = _peer(directory, name, wanted | {"may": [word.strip() for word in may.split(",") if word.strip()]})
        if not write:
            typer.echo(f"Add below `peers:` in {settings.rules} (or give --write):\n\n{lines_of(peer)}")
            return
        append(settings.rules, peer)
        typer.echo(f"{name} added to {settings.rules}; {RELOAD}")
    elif wanted:
        raise ConfigError(
            f"peer {name} is in {settings.rules} already; correct it there, then `pacsnode peers allow {name}`"
        )
    _take_in(settings, peers.load(settings.rules), name)


def _peer(directory: Directory, name: str, entry: dict[str, Any]) -> Peer:
    """The entry as the rules file would be read with it. Raises ConfigError."""
    from pydantic import ValidationError

    from pacsnode.peers import PeersFile, mistakes

    if not {"ae_title", "host"} <= entry.keys():
        raise ConfigError(f"there is no peer {name} yet; say --ae-title and --host (see `pacsnode peers refused`)")
    try:
        peer = PeersFile.model_validate({"version": 1, "peers": {name: entry}}).peers[name]
    except ValidationError as error:
        told = [f"{'.'.join(map(str, e['loc'][2:]))}: {e.get('ctx', {}).get('text', e['msg'])}" for e in error.errors()]
        raise ConfigError("\n".join(told)) from None
    if problems := mistakes({**directory.peers, name: peer}):
        raise ConfigError("\n".join(problem.text for problem in problems))
    return peer


def _take_in(settings: Settings, directory: Directory, name: str) -> None:
    """Its images out of quarantine, its lines off the list."""
    from pacsnode.archive import quarantine, refusals

    def is_it(calling_ae_title: str, address: str) -> Peer | None:
        return next((p for p in directory.matching(calling_ae_title, address) if p.name == name), None)

    taken = quarantine.release(settings.index_db, settings.files, is_it)
    refusals.forget(settings.index_db, lambda r: is_it(r.calling_ae_title, r.address) is not None)
    if taken:
        ring(settings)
        typer.echo(f"{taken} of its objects taken out of quarantine; they are routed now")
