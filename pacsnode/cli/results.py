"""`pacsnode results`: what became of a study, to look at: reports as text or a page, outlines on their images, PDFs.

In: the UID of a result, of a study, the key of a case, or a file. Out: text on the screen, and files where a person
named them. The object is read and drawn in the compute process; nothing is changed, sent or kept.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pacsnode.cli.looking import JSON_OPTION, local_time, ready
from pacsnode.errors import ConfigError

if TYPE_CHECKING:
    from pacsnode.settings import Settings

WHAT_ARGUMENT = typer.Argument(help="SOPInstanceUID of a result, or its file; of a study or case: its results.")
STUDY_OPTION = typer.Option("", "--study", help="Only those of one StudyInstanceUID.")
LIMIT_OPTION = typer.Option(50, help="How many of the newest.")
OPEN_OPTION = typer.Option(False, "--open", help="Show it in the browser, or a PDF in its viewer.")
HTML_OPTION = typer.Option(None, "--html", help="Write it as a page that loads nothing from elsewhere.")
PNG_OPTION = typer.Option(None, "--png", help="Write its pictures: FILE, FILE-2 …; outlines lie on their images.")
OUT_OPTION = typer.Option(None, "--out", help="Write the PDF inside, or else the DICOM object itself.")
IMAGES_OPTION = typer.Option(None, "--images", help="Where a segmentation's images lie, if not in the node.")
TREE_OPTION = typer.Option(False, "--tree", help="A report as it stands, with UIDs and parameters.")

TIME_LIMIT_S = 120.0
MEMORY_LIMIT_MB = 3000


def register(app: typer.Typer) -> None:
    """Add these commands."""
    results = typer.Typer(help="Results, to look at.", no_args_is_help=True)
    results.command("list")(results_list)
    results.command("show")(results_show)
    app.add_typer(results, name="results")


def results_list(study: str = STUDY_OPTION, limit: int = LIMIT_OPTION, as_json: bool = JSON_OPTION) -> None:
    """List results, the newest first."""
    from pacsnode.settings import load

    _print(_rows(ready(load()), study, limit), as_json)


def results_show(
    what: str = WHAT_ARGUMENT,
    in_browser: bool = OPEN_OPTION,
    html: Path | None = HTML_OPTION,
    png: Path | None = PNG_OPTION,
    out: Path | None = OUT_OPTION,
    images: Path | None = IMAGES_OPTION,
    tree: bool = TREE_OPTION,
) -> None:
    """Show one result: a report as text, outlines on their images, a picture, a PDF. Not for diagnosis."""
    from pacsnode.settings import load

    settings = load()
    found = _found(settings, what, images)
    if found is None:
        rows = _rows(ready(settings), what, 1000)
        if not rows:
            raise ConfigError(f"there is no result, study or case {what!r}, and no such file")
        _print(rows, as_json=False)
        return
    with tempfile.TemporaryDirectory(prefix="pacsnode-result-") as folder:
        shown = _shown(settings, found, Path(folder), tree=tree)
        typer.echo("\n".join(shown["lines"]))
        for target in _written(shown, Path(folder), found.path, _Wanted(html, png, out)):
            typer.echo(f"written: {target}")
        if in_browser:
            _open(Path(folder) / (shown["document"] or "page.html"))


@dataclass(frozen=True)
class _Found:
    """A result's file, and the files of its study by SOP Instance UID."""

    path: Path
    images: dict[str, Path]


@dataclass(frozen=True)
class _Wanted:
    """Files that a person named."""

    html: Path | None
    png: Path | None
    out: Path | None


def _found(settings: Settings, what: str, images: Path | None) -> _Found | None:
    """The result; None where it is none that is named."""
    from pacsnode.archive.index import Index
    from pacsnode.dicom.uids import is_safe

    beside = _images_in(images)
    if Path(what).is_file():
        return _Found(Path(what).absolute(), beside or _of_study(settings, Path(what)))
    if not is_safe(what):
        return None
    index = Index(ready(settings).index_db)
    try:
        instance = index.instance(what)
        if instance is None:
            return None
        study = index.study(instance.study_instance_uid)
    finally:
        index.close()
    held = {one.sop_instance_uid: settings.files / one.path for one in study.instances} if study else {}
    return _Found(settings.files / instance.path, held | beside)


def _images_in(folder: Path | None) -> dict[str, Path]:
    from pacsnode.cli.dicom_files import studies_of

    if folder is None:
        return {}
    if not folder.exists():
        raise ConfigError("there is no such file or folder", where=str(folder))
    studies = studies_of(folder).studies
    return {one.sop_instance_uid: Path(one.path) for study in studies for one in study.instances}


def _of_study(settings: Settings, file: Path) -> dict[str, Path]:
    """What the node, if there is one, holds of the study of a file."""
    from pacsnode.archive.index import Index
    from pacsnode.cli.dicom_files import studies_of

    studies = studies_of(file).studies
    if not studies or not settings.index_db.exists():
        return {}
    index = Index(ready(settings).index_db)
    try:
        study = index.study(studies[0].study_instance_uid)
    finally:
        index.close()
    return {one.sop_instance_uid: settings.files / one.path for one in study.instances} if study else {}


def _shown(settings: Settings, found: _Found, folder: Path, *, tree: bool) -> dict[str, Any]:
    """What the compute process made of the object. Raises Permanent where it cannot be shown."""
    from pacsnode.infer.compute import ComputeKeeper
    from pacsnode.work import child_environment

    if not found.path.exists():
        raise ConfigError("the file of the result is not here any more", where=str(found.path))
    keeper = ComputeKeeper(
        [sys.executable, "-m", "pacsnode.child"], child_environment(settings) | {"PACSNODE_LOG_LEVEL": "error"}
    )
    request = {
        "path": str(found.path),
        "sources": {uid: str(path) for uid, path in found.images.items()},
        "folder": str(folder),
        "whole_tree": tree,
    }
    try:
        return keeper.call("show", request, time_limit_s=TIME_LIMIT_S, memory_limit_mb=MEMORY_LIMIT_MB)
    finally:
        keeper.close()


def _written(shown: dict[str, Any], folder: Path, result: Path, wanted: _Wanted) -> Iterator[Path]:
    """Each file that a person named, mode 0600: it is about a patient."""
    if wanted.png is not None and not shown["pictures"]:
        raise ConfigError("this result has no picture", where="--png")
    copies = [(folder / "page.html", wanted.html)] if wanted.html else []
    if wanted.png is not None:
        suffix = wanted.png.suffix or ".png"
        for number, name in enumerate(shown["pictures"], start=1):
            more = f"-{number}" if number > 1 else ""
            copies.append((folder / name, wanted.png.with_name(f"{wanted.png.stem}{more}{suffix}")))
    if wanted.out is not None:
        copies.append((folder / shown["document"] if shown["document"] else result, wanted.out))
    for source, target in copies:
        assert target is not None
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with source.open("rb") as read, os.fdopen(descriptor, "wb") as written:
                shutil.copyfileobj(read, written)
        except FileExistsError:
            raise ConfigError("exists already; name a new file", where=str(target)) from None
        except OSError as error:
            raise ConfigError(f"cannot be written ({error.strerror})", where=str(target)) from None
        yield target


def _open(file: Path) -> None:
    """In the viewer of the desktop, from a folder of its own that only this user can read."""
    folder = Path(tempfile.mkdtemp(prefix="pacsnode-open-"))
    target = folder / file.name
    shutil.copyfile(file, target)
    target.chmod(0o600)
    if not webbrowser.open(target.as_uri()):
        typer.echo("there is no browser here; open the file yourself", err=True)
    typer.echo(f"{target}: delete {folder} when you have read it")


def _rows(settings: Settings, what: str, limit: int) -> list[dict[str, Any]]:
    """Results of a study or of a case (its key, or the beginning of it); of all where `what` is empty."""
    from pacsnode.archive.cases import Cases

    which, values = "1", tuple[str, ...]()
    if "." in what:
        which, values = "c.study_instance_uid = ?", (what,)
    elif what:
        which, values = "c.key BETWEEN ? AND ?", (what, f"{what}g")  # keys are hexadecimal: g comes after all of them
    cases = Cases(settings.node_db)
    try:
        found = cases.rows(
            f"""SELECT r.*, c.service, c.study_instance_uid FROM cases c JOIN results r ON r.case_key = c.key
                WHERE {which} ORDER BY r.created_utc_us DESC, r.sop_instance_uid LIMIT ?""",  # noqa: S608  # our words
            (*values, limit),
        )
    finally:
        cases.close()
    return [
        {
            "made": local_time(settings, r["created_utc_us"]),
            "kind": r["kind"],
            "service": r["service"],
            "case": r["case_key"][:12],
            "sop_instance_uid": r["sop_instance_uid"],
            "study_instance_uid": r["study_instance_uid"],
        }
        for r in found
    ]


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for row in rows:
        typer.echo("  ".join(map(str, row.values())))
    if not rows:
        typer.echo("no results")
