"""Files of devices that do not speak DICOM, made into DICOM objects of one study.

In: files, whose they are, and what they become. Out: Part 10 files named by their own UIDs, and for each file that
could not be wrapped the reason; the others go on. The same call gives the same bytes. Never writes to an input, never
names a file after one, never copies a text out of one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
import pydicom.config
from pydicom.dataset import Dataset

from pacsnode import __version__
from pacsnode.dicom import uids
from pacsnode.dicom.codes import PROCESSING_EQUIPMENT
from pacsnode.encode.conformance import check_modules
from pacsnode.encode.header import part_10
from pacsnode.errors import ConfigError, Permanent
from pacsnode.findings_files import write_durably
from pacsnode.wrap.anatomy import coded
from pacsnode.wrap.images import image_of
from pacsnode.wrap.parts import Content, origin
from pacsnode.wrap.pictures import read_picture
from pacsnode.wrap.recordings import waveforms_of
from pacsnode.wrap.wanted import KINDS, Wanted, settled
from pacsnode.wrap.wfdb import read_record

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
RECORDS = frozenset({".hea"})


@dataclass(frozen=True)
class Wrapped:
    """One object that was made. `notes`: what a person must know of it."""

    source: Path
    path: Path
    sop_instance_uid: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of each file. `failed`: file and reason."""

    made: tuple[Wrapped, ...]
    failed: tuple[tuple[Path, str], ...]


def files_of(paths: Sequence[Path], kind: str) -> list[Path]:
    """The files to wrap: those that were named, and those of named folders that look like it, sorted."""
    suffixes = RECORDS if kind == "ecg" else PICTURES
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inner = (one for one in path.rglob("*") if one.suffix.lower() in suffixes and one.is_file())
            found += sorted(inner)
        else:
            found.append(path)
    if not found:
        raise ConfigError(f"there is no file with one of {', '.join(sorted(suffixes))} in it", where=str(paths[0]))
    return list(dict.fromkeys(found))


def wrap(files: Sequence[Path], examination: Dataset, wanted: Wanted, out: Path, first_number: int = 1) -> Outcome:
    """Write the objects of `files` to the folder `out`. Raises ConfigError, before the first, for wrong options."""
    wanted = settled(wanted, examination)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"no folder can be made there: {error.strerror}", where="--out") from error
    made: list[Wrapped] = []
    failed: list[tuple[Path, str]] = []
    number = first_number
    for file in files:
        try:
            contents = list(_contents(file, wanted, examination))
            for content in contents:
                made.append(_written(content, file, examination, wanted, (out, number)))
                number += 1
        except Permanent as error:
            failed.append((file, str(error)))
            number += 1  # its place, so that the others keep theirs when it is mended
        except OSError as error:
            failed.append((file, error.strerror or "it cannot be read"))
            number += 1
    return Outcome(tuple(made), tuple(failed))


def _contents(file: Path, wanted: Wanted, examination: Dataset) -> Iterator[Content]:
    if wanted.kind != "ecg":
        yield image_of(read_picture(file), wanted)
        return
    if file.suffix.lower() not in RECORDS:
        raise Permanent("give the header of the record (.hea); the signals beside it are found by it")
    yield from waveforms_of(read_record(file), wanted, examination)


def _written(content: Content, file: Path, examination: Dataset, wanted: Wanted, place: tuple[Path, int]) -> Wrapped:
    """One object in the folder of `place`, under its number. Its UID depends on all that is in it."""
    folder, number = place
    dataset = content.dataset
    for element in examination:
        dataset.add(element)
    if wanted.kind == "op":
        dataset.ContentDate, dataset.ContentTime = examination.StudyDate, examination.StudyTime
        dataset.AcquisitionDateTime = f"{examination.StudyDate}{examination.StudyTime}"
        dataset.SynchronizationFrameOfReferenceUID = uids.derive("wrapped time", examination.StudyInstanceUID)
    dataset.SeriesInstanceUID = uids.derive(
        "wrapped series", examination.StudyInstanceUID, wanted.kind, wanted.body_part
    )
    dataset.SeriesNumber = KINDS.index(wanted.kind) + 1
    dataset.InstanceNumber = number
    dataset.ContributingEquipmentSequence = [_equipment(content.format)]
    dataset.SOPInstanceUID = uids.derive("wrapped object")
    digest = hashlib.sha256(part_10(dataset, content.transfer_syntax_uid)).hexdigest()
    dataset.SOPInstanceUID = uids.derive("wrapped object", digest)
    whole = part_10(dataset, content.transfer_syntax_uid)
    with pydicom.config.disable_value_validation():  # what came with --like may break its VR's rules
        check_modules(pydicom.dcmread(BytesIO(whole), stop_before_pixels=True))
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    write_durably(path, whole)
    return Wrapped(file, path, dataset.SOPInstanceUID, content.notes)


def _equipment(format_name: str) -> Dataset:
    """Our item of Contributing Equipment Sequence (PS3.3 C.12.1)."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [coded(PROCESSING_EQUIPMENT)]
    item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions = "pacsnode", "pacsnode wrap", __version__
    item.ContributionDescription = origin(format_name)
    return item
