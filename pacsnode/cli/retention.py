"""Commands about retention: what may go and why the rest stays; do it now."""

from __future__ import annotations

import json
from typing import Any

import typer

from pacsnode.cli.looking import JSON_OPTION, ready


def register(app: typer.Typer) -> None:
    """Add these commands."""
    retention = typer.Typer(help="What may go because the archive has it, and why the rest stays.")
    retention.callback(invoke_without_command=True)(retention_show)
    retention.command("run")(retention_run)
    app.add_typer(retention, name="retention")


def retention_show(context: typer.Context, as_json: bool = JSON_OPTION) -> None:
    """Show what may go because the archive has it, and why the rest stays. Changes nothing."""
    if context.invoked_subcommand is not None:
        return
    from contextlib import closing

    from pacsnode import peers
    from pacsnode.archive.confirmations import Confirmations
    from pacsnode.archive.files import free_mb
    from pacsnode.retaining import archive_peer, is_low, retention
    from pacsnode.settings import load

    settings = ready(load())
    archive_peer(settings, peers.load(settings.rules))
    with closing(retention(settings)) as kept, closing(Confirmations(settings.index_db)) as confirmations:
        survey, asked = kept.survey(), confirmations.waiting(settings.retention_archive)
    told = {
        "on": bool(settings.retention_keep_days),
        "keep_days": settings.retention_keep_days,
        "archive": settings.retention_archive,
        "may_go": {"studies": survey.studies, "instances": survey.instances, "bytes": survey.dataset_bytes},
        "stays": [
            {
                "reason": reason,
                "studies": survey.staying_studies[reason],
                "instances": survey.staying_instances[reason],
            }
            for reason in survey.staying_studies
        ],
        "asked_and_not_answered": len(asked),
        "younger_studies": survey.younger_studies,
        "removed_instances": survey.tombstones,
        "files_to_unlink": survey.unlinking,
        "free_mb": free_mb(settings.files),
        "images_are_refused": is_low(settings),
    }
    typer.echo(json.dumps(told, indent=1) if as_json else "\n".join(_told(told)))


def _told(told: dict[str, Any]) -> list[str]:
    from pacsnode.archive.retention import OBSTACLES

    goes, low = told["may_go"], ": images are refused (A700)" if told["images_are_refused"] else ""
    lines = [f"retention  off: nothing is removed; {told['younger_studies']} studies are held"]
    if told["on"]:
        days = f"{told['keep_days']:g} days"
        lines = [
            f"retention  on: after {days}, once peer {told['archive']} has confirmed",
            f"may go     {goes['studies']} studies, {goes['instances']} images, {goes['bytes'] >> 20} MB",
        ]
        for stays in told["stays"]:
            counts = f"{stays['studies']} studies, {stays['instances']} images"
            lines.append(f"stays      {counts}: {OBSTACLES[stays['reason']]}")
        lines.append(f"stays      {told['younger_studies']} studies: younger than {days}")
        lines.append(f"asked      {told['asked_and_not_answered']} images wait for the answer of {told['archive']}")
    lines.append(f"removed    {told['removed_instances']} images so far; {told['files_to_unlink']} files to unlink")
    lines.append(f"disk       {told['free_mb']} MB free{low}")
    return lines


def retention_run() -> None:
    """Ask the archive and remove what it confirms, now; `pacsnode work` does it every hour."""
    from pacsnode import peers
    from pacsnode.errors import ConfigError, Transient
    from pacsnode.retaining import sweep
    from pacsnode.settings import load

    settings = ready(load())
    if not settings.retention_keep_days:
        raise ConfigError(
            "retention is off: set it, and PACSNODE_RETENTION_ARCHIVE", where="PACSNODE_RETENTION_KEEP_DAYS"
        )
    swept = sweep(settings, peers.load(settings.rules), lambda: False)
    typer.echo(f"asked about {swept.asked} images, removed {swept.removed}, unlinked {swept.unlinked} left before")
    if swept.problem:
        raise Transient(f"the archive cannot be asked: {swept.problem}")
    if swept.alarm:
        raise Transient(f"the disk is nearly full, and nothing more may go: {swept.alarm}")
