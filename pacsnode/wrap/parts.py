"""What pictures and recordings have in common on their way into an object.

In and out: see `Content`. Says of each object that it was wrapped and not acquired as DICOM.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from pacsnode import __version__


@dataclass(frozen=True)
class Content:
    """One object without patient, study and UIDs. `notes`: what was changed on the way."""

    dataset: Dataset
    transfer_syntax_uid: str
    format: str
    notes: tuple[str, ...]


def origin(format_name: str) -> str:
    """What an object says of where it comes from."""
    return f"wrapped by pacsnode {__version__} from {format_name}, not acquired as DICOM"
