"""Studies from DICOM files that lie somewhere, as the index would hold them, for commands that try rules on them.

In: a file or a folder. Out: studies, and the files that are none with the reason. Writes nothing; decodes no pixel.
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pacsnode.dicom.header import read_header
from pacsnode.dimse.part10 import read_meta
from pacsnode.errors import PacsnodeError
from pacsnode.handover import Instance, Study

MOST_FILES = 20_000


@dataclass
class Found:
    """What a folder holds. `skipped`: files that are no DICOM objects, with why."""

    studies: list[Study] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)


def studies_of(path: Path, peer: str = "") -> Found:
    """Every study of a file or folder, as if `peer` had sent it. The path of an instance is that of its file."""
    found = Found()
    by_study: dict[str, dict[str, Instance]] = defaultdict(dict)
    for file in _files(path):
        try:
            instance = _instance(file, peer)
        except (PacsnodeError, OSError, ValueError) as error:
            found.skipped[file] = str(error)
            continue
        by_study[instance.study_instance_uid].setdefault(instance.sop_instance_uid, instance)
    for uid, instances in sorted(by_study.items()):
        found.studies.append(Study(uid, "", "", "", 0, tuple(instances.values())))
    return found


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for count, file in enumerate(sorted(file for file in path.rglob("*") if file.is_file())):
        if count >= MOST_FILES:
            return
        yield file


def _instance(path: Path, peer: str) -> Instance:
    with path.open("rb") as opened:
        meta = read_meta(opened)
        with (
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
            whole[meta.dataset_offset :] as data_set,
        ):
            attributes = read_header(data_set, meta.transfer_syntax_uid).attributes
    first = {keyword: values[0] for keyword, values in attributes.items() if values}
    return Instance(
        meta.sop_instance_uid,
        meta.sop_class_uid,
        first.get("SeriesInstanceUID", ""),
        first.get("StudyInstanceUID", ""),
        meta.transfer_syntax_uid,
        str(path.absolute()),
        "",
        peer,
        int(path.stat().st_mtime * 1_000_000),
        0,
        "",
        attributes,
    )
