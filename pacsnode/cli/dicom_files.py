"""Studies from DICOM files that lie somewhere, as the index would hold them, for commands that try rules on them.

In: a file or a folder. Out: studies, and the files that are none with the reason. Writes nothing; decodes no pixel.
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pacsnode.dicom.header import read_header
from pacsnode.dicom.identity import disagreement, identity
from pacsnode.dicom.uids import is_safe
from pacsnode.dimse.part10 import read_meta
from pacsnode.errors import PacsnodeError, Permanent
from pacsnode.handover import Attributes, Instance, Study

MOST_FILES = 20_000
IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"


@dataclass
class Found:
    """What a folder holds. `skipped`: files that are no DICOM objects, with why."""

    studies: list[Study] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)


def studies_of(path: Path, peer: str = "") -> Found:
    """Every study of a file or folder, as if `peer` had sent it. The path of an instance is that of its file."""
    found = Found()
    by_study: dict[str, dict[str, Instance]] = defaultdict(dict)
    for count, file in enumerate(_files(path)):
        if count >= MOST_FILES:
            found.skipped[file] = f"only the first {MOST_FILES} files of a folder are read"
            break
        try:
            instance = _instance(file, peer)
        except (PacsnodeError, OSError) as error:
            found.skipped[file] = str(error)
            continue
        held = by_study[instance.study_instance_uid].setdefault(instance.sop_instance_uid, instance)
        if held is not instance:
            found.skipped[file] = f"{held.path} has the same SOPInstanceUID"
    for uid, instances in sorted(by_study.items()):
        found.studies.append(Study(uid, "", "", _conflict(list(instances.values())), 0, tuple(instances.values())))
    return found


def _files(path: Path) -> Iterator[Path]:
    yield from [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _conflict(instances: Sequence[Instance]) -> str:
    """Why the images cannot be of one patient: the node would route none of them."""
    patients = [identity(instance.attributes) for instance in instances]
    return next((reason for other in patients if (reason := disagreement(patients[0], other))), "")


def _instance(path: Path, peer: str) -> Instance:
    transfer_syntax_uid, attributes = _header(path)
    first = {keyword: values[0] for keyword, values in attributes.items()}
    uids = [first.get(keyword, "") for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")]
    if not all(map(is_safe, uids)):
        raise Permanent("its SOPInstanceUID, SeriesInstanceUID or StudyInstanceUID is absent or no UID")
    return Instance(
        uids[0],
        first.get("SOPClassUID", ""),
        uids[1],
        uids[2],
        transfer_syntax_uid,
        str(path.absolute()),
        "",
        peer,
        int(path.stat().st_mtime * 1_000_000),
        0,
        "",
        attributes,
    )


def _header(path: Path) -> tuple[str, Attributes]:
    """Transfer syntax and attributes of a Part 10 file, or of a bare data set as old archives have them."""
    with path.open("rb") as opened:
        beginning = opened.read(132)
        transfer_syntax_uid, offset = _syntax_of(beginning), 0
        if not transfer_syntax_uid:
            meta = read_meta(opened)
            transfer_syntax_uid, offset = meta.transfer_syntax_uid, meta.dataset_offset
        with (
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
            whole[offset:] as data_set,
        ):
            return transfer_syntax_uid, read_header(data_set, transfer_syntax_uid).attributes


def _syntax_of(beginning: bytes) -> str:
    """The transfer syntax of a data set that begins so, with an element of group 0008; "" for anything else."""
    if beginning[128:] == b"DICM" or beginning[:2] not in (b"\x08\0", b"\0\x08"):
        return ""
    if beginning[:2] == b"\0\x08":
        return EXPLICIT_BIG
    return EXPLICIT_LITTLE if beginning[4:6].isalpha() and beginning[4:6].isupper() else IMPLICIT_LITTLE
