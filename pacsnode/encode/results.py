"""The record of a case's encoded objects in `runs/<key>/`: written last, so that its presence means all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pacsnode.findings import write_durably
from pacsnode.handover import ResultKind, ResultObject


def write_objects(folder: Path, kinds: Sequence[ResultKind], objects: Sequence[ResultObject]) -> None:
    """Enter what `encode` made of these kinds, durably."""
    plain = [vars(made) | {"path": made.path.name} for made in objects]
    write_durably(_record(folder, kinds), json.dumps(plain).encode())


def is_recorded(folder: Path, kinds: Sequence[ResultKind]) -> bool:
    """Whether `encode` has made all of these kinds."""
    return _record(folder, kinds).exists()


def read_objects(folder: Path, kinds: Sequence[ResultKind]) -> list[ResultObject]:
    """What `encode` made of these kinds. Raises FileNotFoundError where it did not end."""
    plain = json.loads(_record(folder, kinds).read_text())
    return [ResultObject(**(made | {"path": folder / made["path"]})) for made in plain]


def _record(folder: Path, kinds: Sequence[ResultKind]) -> Path:
    return folder / f"objects-{'-'.join(kinds)}.json"
