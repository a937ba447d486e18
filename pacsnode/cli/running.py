"""Commands that run the node and look after it: serve, scp, work, migrate, settings, doctor."""

from __future__ import annotations

import json

import typer


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (serve, scp, work, migrate, settings, doctor):
        app.command()(command)


def serve() -> None:
    """Run the whole node on this machine: migrate, then keep `scp` and `work` running."""
    from pacsnode import node, telemetry
    from pacsnode.settings import load

    given = load()
    telemetry.configure("serve", given.log_level)
    node.run_serve(given)


def scp() -> None:
    """Receive images (C-ECHO, C-STORE) until stopped."""
    from pacsnode import node, telemetry
    from pacsnode.settings import load

    given = load()
    telemetry.configure("scp", given.log_level)
    node.run_scp(given)


def work() -> None:
    """Decide, run AI services and deliver results until stopped."""
    from pacsnode import node, telemetry
    from pacsnode.settings import load

    given = load()
    telemetry.configure("work", given.log_level)
    node.run_work(given)


def migrate() -> None:
    """Make the databases, or bring them to this version (after a copy)."""
    from pacsnode import schema
    from pacsnode.settings import load

    applied = schema.migrate(load())
    typer.echo("\n".join(f"applied {name}" for name in applied) or "nothing to do: the databases are of this version")


def settings() -> None:
    """List every setting: its variable, its value now, what it means."""
    from pacsnode.settings import SECRET, Settings, config_file, load

    given = load()
    typer.echo(f"Settings file: {config_file()} ({'read' if config_file().is_file() else 'not there'})\n")
    for name, field in Settings.model_fields.items():
        value = "(secret)" if name in SECRET and getattr(given, name) else getattr(given, name)
        typer.echo(f"PACSNODE_{name.upper()}={value}\n    {field.description}")


def doctor(as_json: bool = typer.Option(False, "--json", help="One JSON list instead of lines.")) -> None:
    """Check disk, databases, models, rules, peers, torch, codecs and clock, and say what to do."""
    from pacsnode.checks import examine
    from pacsnode.settings import load

    checks = []
    for check in examine(load()):
        checks.append(vars(check))
        if not as_json:
            mark, color = {"ok": ("ok", "green"), "warning": ("!!", "yellow"), "wrong": ("XX", "red")}[check.level]
            typer.echo(f"{typer.style(mark, fg=color)}  {check.subject}: {check.found}")
            if check.todo:
                typer.echo(f"      → {check.todo}")
    if as_json:
        typer.echo(json.dumps(checks, ensure_ascii=False, indent=1))
    if any(check["level"] == "wrong" for check in checks):
        raise typer.Exit(1)
