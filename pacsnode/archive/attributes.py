"""Attributes of one archived object that the index does not hold, for rules that name them.

In: the path of a Part 10 file and `Name`s. Out: their values as text. Never decodes a pixel, never writes.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from pacsnode.archive.files import arrival_of
from pacsnode.dicom.names import Name
from pacsnode.dicom.paths import read_names
from pacsnode.dimse.part10 import FileMeta, read_meta
from pacsnode.errors import Permanent, Rejected
from pacsnode.handover import Instance, Study
from pacsnode.telemetry import Log

log = Log(__name__)

_META_OFFSET = 132
"""Behind the preamble and DICM; the meta information is explicit VR little endian in every file (PS3.10 7.1)."""
_META_SYNTAX = "1.2.840.10008.1.2.1"


def with_files(study: Study, files: Path, names: tuple[Name, ...]) -> Study:
    """The study with those attributes of its images that the index does not hold, read from their files."""
    if not names:
        return study
    return replace(study, instances=tuple(_with_file(instance, files, names) for instance in study.instances))


def _with_file(instance: Instance, files: Path, names: tuple[Name, ...]) -> Instance:
    try:
        more = _read(files / instance.path, names)
    except (Rejected, Permanent, OSError) as error:  # what cannot be read is absent; the image itself is indexed
        log.warning("attributes not read", path=instance.path, reason=error)
        return instance
    return replace(instance, attributes={**instance.attributes, **more})


@lru_cache(maxsize=16_384)
def _read(path: Path, names: tuple[Name, ...]) -> dict[str, tuple[str, ...]]:
    """Once for each image: its study is decided at each change, and no file ever changes under its name."""
    return read_attributes(path, names)


def read_attributes(path: Path, names: Collection[Name]) -> dict[str, tuple[str, ...]]:
    """All values by `base` of the names; what is absent or empty is left out.

    Raises Permanent for what is no Part 10 file, Rejected for a data set that cannot be parsed, OSError.
    """
    of_meta = [name for name in names if name.in_file_meta]
    of_data_set = [name for name in names if not name.in_file_meta]
    values: dict[str, tuple[str, ...]] = {}
    with path.open("rb") as opened:
        meta = read_meta(opened)
        with (
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
            whole[_META_OFFSET : meta.dataset_offset] as head,
            whole[meta.dataset_offset :] as data_set,
        ):
            if of_meta:
                values |= read_names(head, _META_SYNTAX, of_meta)
            if of_data_set:
                values |= read_names(data_set, meta.transfer_syntax_uid, of_data_set, _charset(meta))
    return values


def _charset(meta: FileMeta) -> str:
    """What the data set's character set is taken to be where it declares none; "" in a file of another maker."""
    try:
        return arrival_of(meta.information)[0].charset
    except ValueError:
        return ""
