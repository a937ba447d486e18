"""The record of a case's encoded objects in `runs/<key>/`: written last, so that its presence means all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pacsnode.findings import write_durably
from pacsnode.handover import ResultObject

RECORD = "objects.json"


def write_objects(folder: Path, objects: Sequence[ResultObject]) -> None:
    """Enter what `encode` made, durably."""
    plain = [vars(made) | {"path": made.path.name} for made in objects]
    write_durably(folder / RECORD, json.dumps(plain).encode())


def read_objects(folder: Path) -> list[ResultObject]:
    """What `encode` made. Raises FileNotFoundError where it did not end."""
    plain = json.loads((folder / RECORD).read_text())
    return [ResultObject(**(made | {"path": folder / made["path"]})) for made in plain]
