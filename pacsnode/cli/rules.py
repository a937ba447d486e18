"""Commands about the rules file: check it, its schema; `rule_history` has its versions."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from pacsnode.cli import rule_explain, rule_history, rule_replay, rule_starter
from pacsnode.errors import ConfigError

FILES_ARGUMENT = typer.Argument(None, help="Other files; left out: the rules file of this site.")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    rules = typer.Typer(help="The rules file: check it, try it, see what it did.", no_args_is_help=True)
    rules.command("check")(rules_check)
    rules.command("explain")(rule_explain.rules_explain)
    rules.command("replay")(rule_replay.rules_replay)
    rules.command("test")(rule_replay.rules_test)
    rules.command("new")(rule_starter.rules_new)
    rules.command("schema")(rules_schema)
    rule_history.register(rules)
    app.add_typer(rules, name="rules")


def rules_check(files: list[Path] | None = FILES_ARGUMENT) -> None:
    """Check the rules file and run its examples; exit code 2 with file, line and column of every mistake."""
    from pacsnode.infer.catalogue import load_catalogue
    from pacsnode.live import judged
    from pacsnode.settings import load
    from pacsnode.yamlfile import load as read

    settings = load()
    services = load_catalogue(settings.models)
    mistakes = []
    for file in files or [settings.rules]:
        try:
            rules = judged(settings, read(file), services).rules
        except ConfigError as error:
            mistakes.append(str(error))
            continue
        for warning in rules.warnings:
            typer.echo(warning, err=True)
        enabled = sum(rule.enabled for rule in rules.rules)
        counts = f"{enabled} of {len(rules.rules)} rules are on, {len(rules.peers.peers)} peers"
        typer.echo(f"{rules.file}: {counts}, {len(rules.examples)} examples hold")
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def rules_schema() -> None:
    """Print the JSON Schema of the rules file: with it an editor completes and checks while one types."""
    from pacsnode.route.language import json_schema

    typer.echo(json.dumps(json_schema(), ensure_ascii=False, indent=1))
