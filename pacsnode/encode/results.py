"""The record of a case's encoded objects in `runs/<key>/`: written last, so that its presence means all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pacsnode.findings_files import write_durably
from pacsnode.handover import SHIPPED, Form, ResultKind, ResultObject


def write_objects(
    folder: Path, kinds: Sequence[ResultKind], objects: Sequence[ResultObject], form: Form = SHIPPED
) -> None:
    """Enter what `encode` made of these kinds in this form, durably."""
    plain = [vars(made) | {"path": made.path.name} for made in objects]
    write_durably(_record(folder, kinds, form), json.dumps(plain).encode())


def is_recorded(folder: Path, kinds: Sequence[ResultKind], form: Form = SHIPPED) -> bool:
    """Whether `encode` has made all of these kinds in this form."""
    return _record(folder, kinds, form).exists()


def read_objects(folder: Path, kinds: Sequence[ResultKind], form: Form = SHIPPED) -> list[ResultObject]:
    """What `encode` made of these kinds in this form. Raises FileNotFoundError where it did not end."""
    plain = json.loads(_record(folder, kinds, form).read_text())
    return [ResultObject(**(made | {"path": folder / made["path"]})) for made in plain]


def _record(folder: Path, kinds: Sequence[ResultKind], form: Form) -> Path:
    return folder / f"objects-{'-'.join(kinds)}{form.name and '.'}{form.name}.json"
