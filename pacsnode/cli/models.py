"""Commands about AI services: list, check, allow, install, card. `model_starter` makes one, `model_run` tries one,
`model_compare` compares two.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pacsnode.cli import model_compare, model_run, model_starter
from pacsnode.cli.looking import JSON_OPTION, local_time, ready, ring
from pacsnode.errors import ConfigError

if TYPE_CHECKING:
    from pacsnode.infer.catalogue import Service

NAMES_ARGUMENT = typer.Argument(None, help="Services; left out: all.")
NAME_ARGUMENT = typer.Argument(help="A service: the name of its folder.")
LOOKED_AT_ARGUMENT = typer.Argument(help="Services whose files you looked at.")
SOURCE_ARGUMENT = typer.Argument(help="The folder of a bundle, or a zip of it.")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    models = typer.Typer(help="The AI services: make, check, try, install, allow them.", no_args_is_help=True)
    models.command("list")(models_list)
    models.command("check")(models_check)
    models.command("new")(model_starter.models_new)
    models.command("run")(model_run.models_run)
    models.command("install")(models_install)
    models.command("allow")(models_allow)
    models.command("card")(models_card)
    models.command("compare")(model_compare.models_compare)
    app.add_typer(models, name="models")


def models_list(as_json: bool = JSON_OPTION) -> None:
    """List the AI services: what each is for, what it measured, whether it may run."""
    from pacsnode.infer.catalogue import folders, load_service
    from pacsnode.settings import load

    settings = load()
    rows, mistakes = [], []
    for folder in folders(settings.models):
        try:
            rows.append(_row(settings, load_service(folder)))
        except ConfigError as error:
            mistakes.append(str(error))
    typer.echo(json.dumps(rows, ensure_ascii=False, indent=1) if as_json else "\n".join(map(_told, rows)))
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _row(settings: Any, service: Service) -> dict[str, Any]:
    from pacsnode.allowing import allowed

    card, found = service.pipeline.card, allowed(settings, service)
    return {
        "name": service.name,
        "title": service.pipeline.title,
        "status": service.pipeline.status,
        "version": service.version,
        "licence": card.licence,
        "intended_use": card.intended_use,
        "quality": card.quality,
        "hash": service.bundle_hash,
        "obstacle": service.obstacle,
        "allowed_by": found.author if found else "",
        "allowed_at": local_time(settings, found.allowed_utc_us) if found else "",
        "allowed_how": found.source if found else "",
        "may_run": not service.obstacle and found is not None,
    }


def _told(row: dict[str, Any]) -> str:
    may = row["obstacle"] or f"not allowed yet; look at it, then `pacsnode models allow {row['name']}`"
    if row["may_run"]:
        may = f"allowed by {row['allowed_by']}, {row['allowed_at']} ({row['allowed_how']})"
    lines = [f"{row['name']}  {row['version']}  {row['status']}  hash {row['hash'][:12]}", f"    runs: {may}"]
    lines += [f"    {key.replace('_', ' ')}: {row[key]}" for key in ("intended_use", "quality", "licence")]
    return "\n".join(lines)


def models_check(names: list[str] | None = NAMES_ARGUMENT) -> None:
    """Check services: contract, files, model card; exit code 2 with file, line and column of every mistake."""
    from pacsnode.infer import card
    from pacsnode.infer.catalogue import folders, load_service
    from pacsnode.settings import load

    models = load().models
    mistakes: list[str] = []
    for folder in [_folder(models, name) for name in names] if names else folders(models):
        if found := card.check(folder):
            mistakes += found
            continue
        service = load_service(folder)
        told = f"in order, but cannot be used: {service.obstacle}" if service.obstacle else "in order"
        typer.echo(f"{service.name} {service.version} ({service.pipeline.status}): {told}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def models_install(source: Path = SOURCE_ARGUMENT) -> None:
    """Copy a bundle (a folder or a zip) into the folder of services, checked, and let it run. Runs nothing of it."""
    from pacsnode.infer.install import install
    from pacsnode.settings import load

    settings = ready(load())
    done = install(source, settings.models)
    service = done.service
    told = "installed" if done.is_new else "was installed already"
    typer.echo(f"{service.name} {service.version} {told}: {service.folder}, hash {service.bundle_hash[:12]}")
    if done.older is not None:
        typer.echo(f"the version before lies in {done.older}; back to it: `pacsnode models install {done.older}`")
    if service.obstacle:
        typer.echo(f"it cannot be used yet: {service.obstacle}")
    else:
        _allow(settings, service, "install")


def models_allow(names: list[str] = LOOKED_AT_ARGUMENT) -> None:
    """Let services run as their files are now; cases that waited for it go on. A later change needs this again."""
    from pacsnode.infer import card
    from pacsnode.infer.catalogue import load_service
    from pacsnode.settings import load

    settings = ready(load())
    services, mistakes = [], []
    for name in names:
        folder = _folder(settings.models, name)
        if found := card.check(folder):
            mistakes += found
            continue
        services.append(load_service(folder))
        if services[-1].obstacle:
            mistakes.append(f"{name} cannot be used: {services[-1].obstacle}")
    if mistakes:
        raise ConfigError("\n".join([*mistakes, "nothing was allowed"]))
    for service in services:
        _allow(settings, service, "allow")


def _allow(settings: Any, service: Service, source: Any) -> None:
    from pacsnode.allowing import Allowing

    allowing = Allowing(settings.node_db)
    try:
        allowing.allow(service, source)
    finally:
        allowing.close()
    ring(settings)
    typer.echo(f"{service.name} {service.version} may run: hash {service.bundle_hash}")


def models_card(name: str = NAME_ARGUMENT) -> None:
    """Print the model card, as Markdown."""
    from pacsnode.infer.card import model_card
    from pacsnode.infer.catalogue import load_service
    from pacsnode.settings import load

    typer.echo(model_card(load_service(_folder(load().models, name))), nl=False)


def _folder(models: Path, name: str) -> Path:
    """The folder of a service; what is no name leads nowhere. Raises ConfigError."""
    from pacsnode.infer.catalogue import folders
    from pacsnode.yamlfile import nearest

    by_name = {folder.name: folder for folder in folders(models)}
    if name not in by_name:
        raise ConfigError(f"there is no service {name} in {models}{nearest(name, by_name)}")
    return by_name[name]
