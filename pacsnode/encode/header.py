"""The attributes that every result shares with its source, and nothing random or of now left in it.

In: a highdicom object and the normalised headers of the case. Out: the same object with the source's patient and
study, our times and UIDs; and its Part 10 bytes. Never decides what is clinically said.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO

import pydicom.config
from highdicom._standard_utils import get_module_attribute_map
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite, write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import validate_value

from pacsnode.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacsnode.encode.normalise import UTF_8
from pacsnode.encode.provenance import Origin, processing_equipment
from pacsnode.encode.writing import Writer
from pacsnode.handover import ResultKind

STANDARD_ROOT = "1.2.840.10008."
_HIGHDICOM_ROOT = "1.2.826.0.1.3680043.10.511.3."

_IDENTITY_MODULES = (
    "patient",
    "general-study",
    "patient-study",
    "clinical-trial-subject",
    "clinical-trial-study",
)
_FORMAL_VRS = frozenset({"AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"})
_WANTED_BY_HIGHDICOM = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


@lru_cache(1)
def identity_keywords() -> frozenset[str]:
    """Keywords of the Patient and Study modules (PS3.3 C.7.1, C.7.2): equal in all objects of a study."""
    modules = get_module_attribute_map()
    return frozenset(str(a["keyword"]) for m in _IDENTITY_MODULES for a in modules[m] if not a["path"])


@lru_cache(1)
def _optional_keywords() -> frozenset[str]:
    modules = get_module_attribute_map()
    return frozenset(
        str(a["keyword"]) for m in _IDENTITY_MODULES for a in modules[m] if not a["path"] and a["type"] == "3"
    )


def is_left_out(element: DataElement) -> bool:
    """Whether an optional attribute of patient or study is no value of its VR (a PatientAge of "62"): PACS refuse it.

    What identifies the patient and the study goes out as it came, whatever it looks like.
    """
    if element.keyword not in _optional_keywords() or element.VR not in _FORMAL_VRS or element.is_empty:
        return False
    values = element.value if element.VM > 1 else [element.value]
    try:
        for value in values:
            validate_value(element.VR, str(value), pydicom.config.RAISE)
    except ValueError:
        return True
    return False


def evidence(header: Dataset) -> Dataset:
    """`header` with patient and study emptied, for highdicom, which refuses what real consoles write there.

    `stamp` puts the true values into the finished object.
    """
    emptied = Dataset()
    for element in header:
        if element.keyword not in identity_keywords() or element.keyword == "StudyInstanceUID":
            emptied.add(element)
    for keyword in _WANTED_BY_HIGHDICOM:
        setattr(emptied, keyword, "")
    return emptied


def stamp(dataset: Dataset, origin: Origin, kind: ResultKind, index: int) -> None:
    """Give `dataset` its source's patient and study, our equipment and times, and only derived UIDs."""
    header = origin.first
    for keyword in identity_keywords():
        if keyword in header and not is_left_out(header[keyword]):
            dataset[keyword] = header[keyword]
        elif keyword in dataset and keyword not in _WANTED_BY_HIGHDICOM:
            del dataset[keyword]
    started = origin.request.started
    date, time = started.strftime("%Y%m%d"), started.strftime("%H%M%S.%f")
    for prefix in ("InstanceCreation", "Content", "Series"):
        setattr(dataset, f"{prefix}Date", date)
        setattr(dataset, f"{prefix}Time", time)
    dataset.StationName = origin.request.node.ae_title[:16]
    dataset.DeviceUID = origin.request.node.device_uid
    equipment = [
        item for item in dataset.ContributingEquipmentSequence if item.get("ManufacturerModelName") != "highdicom"
    ]
    dataset.ContributingEquipmentSequence = [*equipment, processing_equipment(origin.algorithm, started)]
    settle_uids(dataset, origin, (kind, str(index)))


def settle_uids(dataset: Dataset, origin: Origin, place: tuple[str, ...]) -> None:
    """Replace the random UIDs of highdicom, in the order in which they stand; any other stranger stops at the gate."""
    replaced: dict[str, str] = {}
    for element in _uid_elements(dataset):
        value = str(element.value)
        if not value.startswith(_HIGHDICOM_ROOT):
            continue
        if value not in origin.source_uids and value not in replaced:
            replaced[value] = origin.uids.derive(origin.uids.key, *place, "uid", str(len(replaced) + 1))
        element.value = replaced.get(value, value)


def _uid_elements(dataset: Dataset) -> Iterator[DataElement]:
    """Those of `dataset` and all items in it, in their order."""
    for tag in sorted(dataset.keys()):
        element = dataset[tag]
        if element.VR == "UI":
            yield element
        elif element.VR == "SQ":
            for item in element.value or ():
                yield from _uid_elements(item)


def requests(header: Dataset) -> list[Dataset]:
    """Items of Referenced Request Sequence (0040,A370) from the source's request, for the RIS to match."""
    items = []
    for request in header.get("RequestAttributesSequence", []):
        item = Dataset()
        item.StudyInstanceUID = header.StudyInstanceUID
        item.ReferencedStudySequence = []
        item.RequestedProcedureCodeSequence = request.get("RequestedProcedureCodeSequence", [])
        item.AccessionNumber = request.get("AccessionNumber") or header.get("AccessionNumber", "")
        item.PlacerOrderNumberImagingServiceRequest = ""
        item.FillerOrderNumberImagingServiceRequest = ""
        for keyword in ("RequestedProcedureID", "RequestedProcedureDescription"):
            setattr(item, keyword, request.get(keyword, ""))
        items.append(item)
    return items


def part_10(dataset: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> bytes:
    """`dataset`, whose pixels are in that transfer syntax, as a Part 10 file with our file meta information."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax_uid
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    dataset.preamble = b"\0" * 128
    buffer = BytesIO()
    # The source's patient and study go out as they came in, also where a value breaks its VR's rules.
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        if dataset.get("SpecificCharacterSet") != UTF_8:  # the source's own, however it calls it
            warnings.simplefilter("ignore")
        if "PixelData" in dataset or not _is_unicode(dataset):
            dcmwrite(buffer, dataset, enforce_file_format=True)
        else:
            buffer.write(dataset.preamble + b"DICM")
            write_file_meta_info(buffer, meta)
            buffer.write(Writer(UTF_8).data_set(dataset))
    return buffer.getvalue()


def _is_unicode(dataset: Dataset) -> bool:
    """Whether all text is to be written in UTF-8, and none of it is bytes that `charset` took from the source."""
    is_raw = (isinstance(dataset.get_item(tag), RawDataElement) for tag in dataset.keys())  # noqa: SIM118
    return dataset.get("SpecificCharacterSet") == UTF_8 and not any(is_raw)
