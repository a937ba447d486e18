"""What a report refers to: Image Library (TID 1600) and Evidence (PS3.3 C.17.2).

In: headers of the sources, segmentations. Out: content items and items of sequences. What all images of a series have
in common stands there once (TID 1602 at the group), since a CT has hundreds of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import BaseTag

from pacsnode.dicom.codes import (
    FRAME_OF_REFERENCE_UID,
    IMAGE_LIBRARY,
    IMAGE_LIBRARY_GROUP,
    MODALITY,
    PIXEL_DATA_COLUMNS,
    PIXEL_DATA_ROWS,
    PIXELS,
    Concept,
)
from pacsnode.encode.sr_items import code, container, image, number, reference_to, uid

_LOOKED_UP = tuple(map(BaseTag, (0x0020000D, 0x0020000E, 0x00080060, 0x00200052, 0x00280010, 0x00280011)))
"""Study, series, modality, frame of reference, rows, columns."""


@dataclass(frozen=True)
class Listed:
    """What a report says of an instance that it refers to. `alike`: what the images of one library group agree in."""

    study: str
    series: str
    alike: tuple[str, ...]
    header: Dataset
    reference: Dataset


def listed(instance: Dataset) -> Listed:
    """Looked up once: a CT has hundreds of them."""
    study, series, *rest = (str(found.value) if (found := instance.get_item(tag)) else "" for tag in _LOOKED_UP)
    return Listed(study, series, (series, *rest), instance, reference_to(instance))


def library(images: Iterable[Listed]) -> Dataset:
    """TID 1600: one group for images that agree in series, modality, place and size."""
    alike: dict[tuple[str, ...], list[Listed]] = defaultdict(list)
    for one in images:
        alike[one.alike].append(one)
    groups = []
    for members in alike.values():
        items = [image("CONTAINS", None, one.reference) for one in members]
        groups.append(container("CONTAINS", IMAGE_LIBRARY_GROUP, [*_descriptors(members[0].header), *items]))
    return container("CONTAINS", IMAGE_LIBRARY, groups)


def _descriptors(header: Dataset) -> list[Dataset]:
    """TID 1602: the descriptors that every image has."""
    items: list[Dataset] = []
    modality = _modalities().get(str(header.get("Modality", "")))
    if modality:
        items.append(code("HAS ACQ CONTEXT", MODALITY, modality))
    if header.get("FrameOfReferenceUID"):
        items.append(uid("HAS ACQ CONTEXT", FRAME_OF_REFERENCE_UID, header.FrameOfReferenceUID))
    for name, size in ((PIXEL_DATA_ROWS, header.Rows), (PIXEL_DATA_COLUMNS, header.get("Columns", 0))):
        items.append(number("HAS ACQ CONTEXT", name, int(size), PIXELS))
    return items


@lru_cache(1)
def _modalities() -> dict[str, Concept]:
    """CID 29 Acquisition Modality by Modality (0008,0060)."""
    acquisition = codes.cid29
    found = [getattr(acquisition, keyword) for keyword in acquisition.dir()]
    return {one.value: Concept(one.value, one.scheme_designator, one.meaning) for one in found}


def evidence_items(instances: Iterable[Listed]) -> list[Dataset]:
    """Items of Current Requested Procedure Evidence Sequence: all that the tree refers to, by study and series."""
    studies: dict[str, dict[str, list[Dataset]]] = defaultdict(lambda: defaultdict(list))
    for one in instances:
        studies[one.study][one.series].append(one.reference)
    items = []
    for study, members in studies.items():
        item = Dataset()
        item.ReferencedSeriesSequence = [_series(name, references) for name, references in members.items()]
        item.StudyInstanceUID = study
        items.append(item)
    return items


def _series(name: str, references: list[Dataset]) -> Dataset:
    item = Dataset()
    item.ReferencedSOPSequence = references
    item.SeriesInstanceUID = name
    return item
