"""Commands that talk to peers: echo, send."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pacsnode.errors import ConfigError, Permanent, Transient

if TYPE_CHECKING:
    from pacsnode.dimse.tls import Outgoing
    from pacsnode.peers import Peer

MOST_CONTEXTS = 128


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(echo)
    app.command()(send)


def echo(peer: str = typer.Argument(help="A peer of the rules file, or HOST:PORT[:AE_TITLE].")) -> None:
    """Ask a peer for a C-ECHO."""
    from pacsnode.dimse.association import ECHO_CONTEXT, Association
    from pacsnode.settings import load

    settings = load()
    host, port, ae_title, tls = _address(peer)
    with Association.request(host, port, settings.ae_title, ae_title, [ECHO_CONTEXT], tls=tls) as association:
        status = association.echo()
    typer.echo(f"{peer}: {status}")
    if not status.is_success:
        raise typer.Exit(1)


def send(
    folder: Annotated[Path, typer.Argument(help="A Part 10 file, or a folder of them.", exists=True)],
    to: str = typer.Option(..., "--to", help="A peer of the rules file, or HOST:PORT[:AE_TITLE]."),
    calling: str = typer.Option("", "--from", help="Calling AE title; that of this node when not given."),
) -> None:
    """Send DICOM files to a peer as they are; exit code 1 when the peer did not take them all."""
    from rich.progress import track

    from pacsnode.dimse.association import Association, contexts_for
    from pacsnode.dimse.part10 import FileMeta, read_meta
    from pacsnode.settings import load

    host, port, ae_title, tls = _address(to)
    paths = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else [folder]
    files: list[tuple[Path, FileMeta]] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                files.append((path, read_meta(file)))
        except Permanent as error:
            typer.echo(f"skipped {path}: {error}", err=True)
    if not files:
        raise ConfigError(f"no DICOM file in {folder}")
    contexts = contexts_for((meta.sop_class_uid, meta.transfer_syntax_uid) for _, meta in files)
    failed = 0
    with Association.request(host, port, calling or load().ae_title, ae_title, contexts, tls=tls) as association:
        for path, _ in track(files, f"Sending to {to}", transient=True):
            try:
                status = association.store_file(path)
                taken = status.is_success or status.is_warning
                answer = str(status)
            except Permanent as error:
                taken, answer = False, str(error)
            except Transient as error:
                raise ConfigError(f"{path}: {error}; the files before it were taken") from None
            if not taken:
                failed += 1
                typer.echo(f"not taken {path}: {answer}", err=True)
    typer.echo(f"{len(files) - failed} of {len(files)} sent to {to}")
    if failed:
        raise typer.Exit(1)


def _address(given: str) -> tuple[str, int, str, Outgoing | None]:
    """Host, port, AE title and TLS of a peer's name, or of HOST:PORT[:AE_TITLE]."""
    from pacsnode import peers
    from pacsnode.dimse.tls import credentials
    from pacsnode.settings import load

    parts = given.split(":")
    if len(parts) in (2, 3) and parts[1].isdigit():
        return parts[0], int(parts[1]), parts[2] if len(parts) == 3 else "ANY-SCP", None
    settings = load()
    found: Peer | None = peers.load(settings.rules).by_name(given)
    if found is None:
        raise ConfigError(f"no peer {given} in {settings.rules}, and it is not HOST:PORT[:AE_TITLE]")
    if found.type != "dimse":
        raise ConfigError(f"peer {given} has type: {found.type}; `pacsnode peers test {given}` tries it")
    if found.port is None:
        raise ConfigError(f"peer {given} has no `port:` in {settings.rules}")
    return found.host, found.port, found.ae_title, credentials(settings).toward(found)
