"""The command `pacsnode`. Commands import what they need when they run: `--help` stays quick."""

from __future__ import annotations

import sys

import typer

from pacsnode.cli import (
    callers,
    deliveries,
    looking,
    models,
    rejecting,
    results,
    retention,
    rules,
    running,
    sending,
    wrapping,
)
from pacsnode.errors import PacsnodeError

app = typer.Typer(
    help="DICOM node with AI routing. Not a medical device; results are not for diagnosis.\n\n"
    "Settings are environment variables PACSNODE_* or lines of pacsnode.toml; `pacsnode settings` lists them, "
    "`pacsnode doctor` checks them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
running.register(app)
models.register(app)
rules.register(app)
sending.register(app)
rejecting.register(looking.register(app))
results.register(app)
deliveries.register(app)
callers.register(app)
retention.register(app)
wrapping.register(app)


def main() -> None:
    """Run a command; an error of ours is its sentence and its exit code, never a traceback."""
    if sys.argv[1:] in ([], ["--help"]):
        app.info.epilog = _settings_explained()
    try:
        app()
    except PacsnodeError as error:
        print(error, file=sys.stderr)  # noqa: T201  # the command's answer
        sys.exit(error.exit_code)


def _settings_explained() -> str:
    from pacsnode.settings import Settings  # 0.3 s to import: not for every command

    fields = Settings.model_fields.items()
    return "Settings:\n\n" + "\n\n".join(f"PACSNODE_{name.upper()}: {field.description}" for name, field in fields)
