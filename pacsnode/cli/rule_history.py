"""Commands about the versions of the rules file: which were live, what changed, back to an earlier one."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pacsnode.cli.looking import JSON_OPTION, local_time, ready
from pacsnode.errors import ConfigError

if TYPE_CHECKING:
    from pacsnode.archive.rule_versions import RuleVersion

VERSION_ARGUMENT = typer.Argument(help="The beginning of a version's hash, as `rules history` lists it.")
FROM_ARGUMENT = typer.Argument("", help="A version; left out: the one before the last.")
TO_ARGUMENT = typer.Argument("", help="Another version; left out: the one that is live.")


def register(rules: typer.Typer) -> None:
    """Add these commands to `pacsnode rules`."""
    history = typer.Typer(help="Every version of the rules that was live: when, by whom, what changed.")
    history.callback(invoke_without_command=True)(history_list)
    history.command("show")(history_show)
    history.command("diff")(history_diff)
    rules.add_typer(history, name="history")
    rules.command("roll-back")(roll_back)


def history_list(context: typer.Context, as_json: bool = JSON_OPTION) -> None:
    """List every version that was live, the newest first."""
    if context.invoked_subcommand is not None:
        return
    settings, versions = _versions()
    rows = [
        {
            "version": version.short,
            "hash": version.hash,
            "live": local_time(settings, version.live_utc_us),
            "until": local_time(settings, version.retired_utc_us) if version.retired_utc_us else "",
            "author": version.author,
            "changed": _changed(before, version),
        }
        for before, version in zip((None, *versions), versions, strict=False)
    ][::-1]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for row in rows:
        until = f"until {row['until']}" if row["until"] else "live now" + " " * 22
        typer.echo(f"{row['version']}  {row['live']}  {until}  {row['author']}  {row['changed']}")
    if not rows:
        typer.echo("no version was live yet: the node has not run")


def history_show(version: str = VERSION_ARGUMENT) -> None:
    """Print the file as it was."""
    _, versions = _versions()
    typer.echo(_named(versions, version).text, nl=False)


def history_diff(first: str = FROM_ARGUMENT, second: str = TO_ARGUMENT) -> None:
    """Show what changed between two versions; without arguments, what the last change was."""
    _, versions = _versions()
    if len(versions) < 2 and not first:
        raise ConfigError("there is one version or none: nothing has changed")
    before = _named(versions, first) if first else versions[-2]
    after = _named(versions, second) if second else versions[-1]
    typer.echo("\n".join(_difference(before, after)) or "the two are the same")


def roll_back(version: str = VERSION_ARGUMENT) -> None:
    """Put an earlier version back into the rules file; a running node takes it over within seconds."""
    settings, versions = _versions()
    chosen = _named(versions, version)
    _check(settings, chosen)
    _write(settings.rules, chosen.text)
    typer.echo(f"{settings.rules} is again as version {chosen.short}; a running node takes it over within seconds")


def _versions() -> tuple[Any, list[RuleVersion]]:
    """The settings, and every version, the oldest first."""
    from contextlib import closing

    from pacsnode.archive.rule_versions import RuleVersions
    from pacsnode.settings import load

    settings = ready(load())
    with closing(RuleVersions(settings.node_db)) as versions:
        return settings, versions.all()


def _named(versions: list[RuleVersion], beginning: str) -> RuleVersion:
    """The one version whose hash begins so, in its latest life. Raises ConfigError for none, or several."""
    found = {version.hash: version for version in versions if version.hash.startswith(beginning.lower())}
    if not found:
        raise ConfigError(f"no version was live whose hash begins with {beginning!r}; see `pacsnode rules history`")
    if len(found) > 1:
        raise ConfigError(f"{len(found)} versions begin with {beginning!r}; write more of the hash")
    return next(iter(found.values()))


def _difference(before: RuleVersion, after: RuleVersion) -> list[str]:
    lines = before.text.splitlines(), after.text.splitlines()
    return list(difflib.unified_diff(*lines, f"version {before.short}", f"version {after.short}", lineterm="", n=2))


def _changed(before: RuleVersion | None, after: RuleVersion) -> str:
    if before is None:
        return f"{len(after.text.splitlines())} lines"
    lines = _difference(before, after)[2:]
    return f"+{sum(line[:1] == '+' for line in lines)} -{sum(line[:1] == '-' for line in lines)} lines"


def _check(settings: Any, version: RuleVersion) -> None:
    """Raises ConfigError where the version is no good any more: its services may be gone, the program another."""
    from pacsnode.infer.catalogue import load_catalogue
    from pacsnode.live import judged

    judged(settings, version.document(), load_catalogue(settings.models))


def _write(path: Path, text: str) -> None:
    """Another content for a file, whole or not at all, with the owner and mode of the one before."""
    path = path.resolve()  # a link stays one
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".rules-") as folder:
            new = Path(folder) / path.name
            new.write_text(text, encoding="utf-8", newline="")
            shutil.copystat(path, new)
            os.utime(new)
            status = path.stat()
            os.chown(new, status.st_uid, status.st_gid)
            with new.open("rb") as written:
                os.fsync(written.fileno())
            new.replace(path)
    except OSError as error:  # read-only, or a single file mounted into a container
        shown = f"`pacsnode rules history show` prints the version; cannot be changed ({error.strerror})"
        raise ConfigError(shown, where=str(path)) from None
