"""Puts a bundle into the folder of services: a folder or a zip in, a whole service there or nothing changed.

What is in a zip is hostile: names that lead elsewhere, links, bombs, too many files are refused before anything is
written outside of a temporary folder, and bytes are counted as they come, not as the zip says. Never runs what it
copies.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pacsnode.errors import ConfigError
from pacsnode.infer import card
from pacsnode.infer.catalogue import NOT_COUNTED, PIPELINE_FILE, Service, load_service

OLDER = "_older"
"""In the folder of services: what was replaced, until somebody removes it."""
MOST_FILES = 5000
MOST_BYTES = 20 << 30
MOST_EXPANSION = 200
"""Times; weights hardly shrink, and text by ten. Asked of files above `SMALL`."""
SMALL = 1 << 20
MOST_LEVELS = 12
LONGEST_NAME = 200
PIECE = 1 << 20
BAD_NAME = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
FOLDER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}[a-z0-9]")


@dataclass(frozen=True)
class Installed:
    """What became of it. `older`: where the version lies that was there before, None where none was."""

    service: Service
    older: Path | None
    is_new: bool


def install(source: Path, models: Path) -> Installed:
    """Copy a bundle into `models`, checked. Raises ConfigError, and then nothing is changed."""
    if not models.is_dir():
        raise ConfigError(f"there is no folder {models}; set PACSNODE_MODELS to the folder of AI services")
    with _room(models) as room:
        copied = room / ".copied"
        if not source.exists():
            raise ConfigError("there is no such file or folder", where=str(source))
        if source.is_dir():
            _copy_folder(source, copied)
        elif zipfile.is_zipfile(source):
            copied = _unpacked(source, copied)
        else:
            raise ConfigError("is neither a folder nor a zip", where=str(source))
        name = _name_of(copied, source)
        ready = copied.rename(room / name)
        if problems := card.check(ready):
            told = [line.replace(str(ready), str(source / "") if source.is_dir() else name) for line in problems]
            raise ConfigError("\n".join([*told, f"{source}: not installed; correct the lines above"]))
        return _put(ready, load_service(ready), models)


def _put(ready: Path, service: Service, models: Path) -> Installed:
    """The two renames; what was there before is kept, and comes back where the second one fails."""
    target, older = models / service.name, None
    if target.exists():
        try:
            present = load_service(target)
        except ConfigError:
            present = None
        if present is not None and present.bundle_hash == service.bundle_hash:
            return Installed(present, None, is_new=False)
        older = _free_name(models / OLDER, f"{service.name}-{present.version if present else 'broken'}")
        older.parent.mkdir(exist_ok=True)
        target.rename(older)
    try:
        ready.rename(target)
    except OSError:
        if older is not None:
            older.rename(target)
        raise
    _sync(models)
    return Installed(load_service(target), older, is_new=True)


def _free_name(folder: Path, name: str) -> Path:
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return next(p for n in range(1, 10_000) if not (p := folder / (plain if n == 1 else f"{plain}-{n}")).exists())


@contextmanager
def _room(models: Path) -> Iterator[Path]:
    """A temporary folder beside the services, on the same disk: what a kill leaves of it is no service."""
    try:
        room = Path(tempfile.mkdtemp(prefix=".installing-", dir=models))
    except OSError as error:
        raise ConfigError(
            f"cannot be written ({error.strerror}); run this as the node's user", where=str(models)
        ) from None
    try:
        yield room
    except OSError as error:
        raise ConfigError(
            f"cannot be installed ({error.strerror or error})", where=str(error.filename or models)
        ) from None
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _name_of(copied: Path, source: Path) -> str:
    """The `name:` of pipeline.yaml, by which the folder is called; the rest of the file is judged later."""
    path = copied / PIPELINE_FILE
    if not path.is_file():
        raise ConfigError(f"a service needs a {PIPELINE_FILE}; there is none", where=str(source))
    text = path.read_bytes()[:PIECE].decode("utf-8", "replace")
    found = re.search(r"^name:\s*[\"']?([^\"'#\s]*)", text, re.MULTILINE)
    if found is None or not FOLDER_NAME.fullmatch(found[1]):
        raise ConfigError(f"{PIPELINE_FILE} has no `name:` of small letters, digits and -", where=str(source))
    return found[1]


class _Budget:
    """How much may still be written."""

    def __init__(self, folder: Path, source: Path) -> None:
        self._files = MOST_FILES
        self._bytes = min(MOST_BYTES, shutil.disk_usage(folder).free)
        self._source = source

    def file(self) -> None:
        self._files -= 1
        if self._files < 0:
            raise ConfigError(f"has more than {MOST_FILES} files: this is no bundle", where=str(self._source))

    def bytes(self, count: int) -> None:
        self._bytes -= count
        if self._bytes < 0:
            raise ConfigError("is larger than the room on the disk, or than 20 GB", where=str(self._source))


def _copy_folder(source: Path, target: Path) -> None:
    budget = _Budget(target.parent, source)
    for folder, names, files in os.walk(source):
        names[:] = sorted(name for name in names if name != NOT_COUNTED)
        inside = Path(folder).relative_to(source)
        (target / inside).mkdir(parents=True, exist_ok=True)
        for name in (*names, *sorted(files)):
            path = Path(folder) / name
            _refuse_name((inside / name).as_posix(), source)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise ConfigError(
                    "is a link or no plain file; a bundle is copied whole, put the file there", where=str(path)
                )
            if stat.S_ISREG(mode):
                budget.file()
                with path.open("rb") as reading:
                    _write(reading, target / inside / name, budget.bytes)


def _unpacked(source: Path, target: Path) -> Path:
    """The folder of the bundle: the zip's root, or its only folder."""
    budget = _Budget(target.parent, source)
    target.mkdir()
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            if len(members) > 2 * MOST_FILES:
                raise ConfigError(f"has more than {MOST_FILES} files: this is no bundle", where=str(source))
            _refuse_members(members, source)
            for member in members:
                if not member.is_dir() and NOT_COUNTED not in PurePosixPath(member.filename).parts:
                    budget.file()
                    _unpack(archive, member, target, budget)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        raise ConfigError(f"this zip cannot be read: {error}", where=str(source)) from None
    inside = sorted(target.iterdir())
    is_wrapped = len(inside) == 1 and inside[0].is_dir() and not (target / PIPELINE_FILE).exists()
    return inside[0] if is_wrapped else target


def _refuse_members(members: list[zipfile.ZipInfo], source: Path) -> None:
    """What can be told without unpacking anything."""
    seen: set[str] = set()
    for member in members:
        _refuse_name(member.orig_filename.rstrip("/"), source)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ConfigError(f"{_shown(member.filename)} in the zip is a link or no plain file", where=str(source))
        if member.flag_bits & 1:
            raise ConfigError("the zip has a password; unpack it, and install the folder", where=str(source))
        folded = unicodedata.normalize("NFC", member.filename).casefold()
        if folded in seen:
            raise ConfigError(f"{_shown(member.filename)} is in the zip twice", where=str(source))
        seen.add(folded)
        if member.file_size > SMALL and member.file_size > MOST_EXPANSION * max(1, member.compress_size):
            text = f"{_shown(member.filename)} would grow by more than {MOST_EXPANSION} times: this is no model"
            raise ConfigError(text, where=str(source))
    if sum(member.file_size for member in members) > MOST_BYTES:
        raise ConfigError("is larger than 20 GB", where=str(source))


def _refuse_name(name: str, source: Path) -> None:
    parts = name.split("/")
    if BAD_NAME.search(name) or not all(parts) or {".", ".."} & set(parts):
        raise ConfigError(f"{_shown(name)} is a name that no file of a bundle may have", where=str(source))
    if len(parts) > MOST_LEVELS or any(len(part.encode("utf-8", "replace")) > LONGEST_NAME for part in parts):
        raise ConfigError(f"{_shown(name)} is too deep or too long a name", where=str(source))


def _shown(name: str) -> str:
    return repr(name[:80])


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, budget: _Budget) -> None:
    path = target.joinpath(*PurePosixPath(member.filename).parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as reading:
        _write(reading, path, budget.bytes)  # type: ignore[arg-type]  # IO[bytes], and only `read` is asked of it


def _write(reading: BinaryIO, path: Path, count: Callable[[int], None]) -> None:
    """As a new file, on the disk when it returns; every byte is counted."""
    with path.open("xb") as writing:
        while piece := reading.read(PIECE):
            count(len(piece))
            writing.write(piece)
        writing.flush()
        os.fsync(writing.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
