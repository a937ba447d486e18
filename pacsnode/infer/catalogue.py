"""The AI services of `models/`: one folder each, read from its pipeline.yaml and checked. Never loads a network.

A bundle is code: its hash (every file) is in each result, and weights that do not match their hash are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pacsnode import yamlfile
from pacsnode.conditions import Condition
from pacsnode.errors import ConfigError
from pacsnode.infer import mistakes
from pacsnode.infer.pipeline import PipelineFile
from pacsnode.yamlfile import Problem

PIPELINE_FILE = "pipeline.yaml"
METADATA_FILE = "configs/metadata.json"
NOT_COUNTED = "__pycache__"
"""Python's own caches: in no hash, and never read or written by the node."""
NOT_ALLOWED = "not allowed to run"
"""With this begins the reason of a case that waits until an operator allows a bundle."""


@dataclass(frozen=True)
class Service:
    """One service. `bundle_hash` covers every file of the folder; pipeline.yaml has a hash of its own too.

    `obstacle`: why it cannot be used (a slot without weights), "" when it can. `config`: by which a network runs, from
    the folder on. `looks`: what `fingerprint` said before the files were hashed.
    """

    folder: Path
    pipeline: PipelineFile
    version: str
    bundle_hash: str
    pipeline_hash: str
    looks: str
    config: str = ""
    obstacle: str = ""

    @property
    def name(self) -> str:
        """The name that rules use."""
        return self.pipeline.name

    @property
    def accepts(self) -> Condition:
        """Which instances the model can read."""
        return self.pipeline.accepts


def folders(models: Path) -> list[Path]:
    """The folders of services; what begins with . or _ is none. Raises ConfigError."""
    if not models.is_dir():
        raise ConfigError(f"there is no folder {models}; set PACSNODE_MODELS to the folder of AI services")
    return sorted(p for p in models.iterdir() if p.is_dir() and not p.name.startswith((".", "_")))


def load_catalogue(models: Path) -> dict[str, Service]:
    """Every service of the folder by name, slots too. Raises ConfigError with all that is wrong in all of them."""
    services: dict[str, Service] = {}
    problems: list[str] = []
    for folder in folders(models):
        try:
            service = load_service(folder)
        except ConfigError as error:
            problems.append(str(error))
            continue
        services[service.name] = service
    if problems:
        raise ConfigError("\n".join(problems))
    return services


def usable(services: Mapping[str, Service]) -> dict[str, Service]:
    """Those without an obstacle."""
    return {name: service for name, service in services.items() if not service.obstacle}


def load_service(folder: Path) -> Service:
    """One service. Raises ConfigError: file, line, column, key; missing weights or weights of another hash."""
    path = folder / PIPELINE_FILE
    if not path.is_file():
        raise ConfigError(f"a service needs a {PIPELINE_FILE}; there is none", where=str(folder))
    version, told = "", []
    try:
        version = str(read_metadata(folder)["version"])
    except ConfigError as error:
        told.append(str(error))
    try:
        looks, files = fingerprint(folder), hash_files(folder)
        document = yamlfile.load(path)
        pipeline = yamlfile.validate(document, PipelineFile)
        if found := [*mistakes.problems(folder, pipeline, files), *_links(folder)]:
            raise document.error(found)
    except ConfigError as error:
        raise ConfigError("\n".join([*told, str(error)])) from None
    if told:
        raise ConfigError("\n".join(told))
    runs = pipeline.network or pipeline.http
    config = mistakes.config_of(runs, files) if runs else ""
    obstacle = mistakes.slot_obstacle(pipeline, files) if pipeline.status == "slot" else ""
    return Service(folder, pipeline, version, hash_of(files), document.sha256, looks, config, obstacle)


def read_metadata(folder: Path) -> dict[str, object]:
    """configs/metadata.json, in which `version` is a short text. Raises ConfigError."""
    path = folder / METADATA_FILE
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        version = metadata["version"]
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg}", where=f"{path}:{error.lineno}:{error.colno}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"cannot read the bundle's version ({type(error).__name__}: {error})", where=str(path)
        ) from None
    if not isinstance(version, str) or not 0 < len(version) <= 64:
        raise ConfigError('the bundle\'s `version` must be a text like "0.1.0"', where=str(path))
    return dict(metadata)


def _links(folder: Path) -> list[Problem]:
    links = [p for p in folder.rglob("*") if p.is_symlink() and not p.resolve().is_relative_to(folder.resolve())]
    if not links:
        return []
    text = f"{links[0]} links to a place outside of the folder, which the hash does not cover; copy it there"
    return [Problem((), text, "link")]


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but Python's own caches, by its path from the folder on."""
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in _files(folder)}


def hash_of(files: Mapping[str, str]) -> str:
    """SHA-256 over names and contents of all files: what the allow list and every result have."""
    digest = hashlib.sha256()
    for name in sorted(files, key=lambda name: Path(name)):
        digest.update(f"{name}\0{files[name]}\n".encode())
    return digest.hexdigest()


def bundle_hash(folder: Path) -> str:
    """The hash of a folder as it is now."""
    return hash_of(hash_files(folder))


def fingerprint(folder: Path) -> str:
    """Another text as soon as a file of the folder was written, added, removed or replaced: quick, reads no content."""
    digest = hashlib.sha256()
    for path in _files(folder):
        stat = path.stat()
        looks = (os.fspath(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        digest.update(repr(looks).encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.is_file() and NOT_COUNTED not in p.parts)
