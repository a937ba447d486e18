"""Who and what made a result: the algorithm, the node and their codes, in the forms that SR, SEG and SC ask for.

In: the algorithm's record, the request and the sources' headers. Out: highdicom and pydicom parts for the objects, and
the derived UIDs of the case. Never reads a file, never looks at pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pacsnode.dicom import uids
from pacsnode.dicom.codes import ARTIFICIAL_INTELLIGENCE, PRIVATE_SCHEME, PROCESSING_EQUIPMENT, SIGNAL_ANALYSIS, Concept
from pacsnode.findings import NOT_FOR_DIAGNOSIS, Algorithm, Findings, Group, Region, Segment
from pacsnode.handover import SHIPPED, EncodeRequest, Form, ResultKind

MANUFACTURER = "pacsnode"
NO_WEIGHTS = "none"
"""In place of their hash, where nothing was learnt: left out, it could as well have been forgotten."""

_FIRST_SERIES_NUMBER = 9000
_KIND_NUMBER: Mapping[ResultKind, int] = {"sr": 1, "seg": 2, "sc": 3, "pdf": 4, "ko": 5, "pr": 6}


class DerivedUIDs:
    """The UIDs that the objects of one case get: derived, never random, and remembered as ours."""

    def __init__(self, key: str, form: Form = SHIPPED) -> None:
        self.key = key
        self._form = form
        self.known: set[str] = set()
        self.instances: set[str] = set()

    def instance(self, kind: ResultKind, index: int) -> str:
        """SOP Instance UID of the object number `index` (from 1) of its kind."""
        uid = self.derive(self.key, kind, str(index), *self._tag(kind))
        self.instances.add(uid)
        return uid

    def series(self, kind: ResultKind) -> str:
        """Series Instance UID of all objects of `kind`: SR, SEG and SC may not share a series."""
        return self.derive(self.key, kind, "series", *self._tag(kind))

    def _tag(self, kind: ResultKind) -> tuple[str, ...]:
        tag = self._form.tag(kind)
        return (tag,) if tag else ()

    def derive(self, *parts: str) -> str:
        """The UID of `parts`, remembered."""
        uid = uids.derive(*parts)
        self.known.add(uid)
        return uid


@dataclass(frozen=True)
class Origin:
    """All that every object of one case has in common. `sources`: normalised headers by SOP Instance UID."""

    findings: Findings
    request: EncodeRequest
    sources: Mapping[str, Dataset]
    predecessors: tuple[Dataset, ...]
    uids: DerivedUIDs = field(compare=False)

    @property
    def algorithm(self) -> Algorithm:
        """Who says so."""
        return self.findings.algorithm

    @property
    def first(self) -> Dataset:
        """The header from which patient and study are taken; the gate has seen that all sources agree."""
        return next(iter(self.sources.values()))

    @cached_property
    def source_uids(self) -> frozenset[str]:
        """Every UID that the sources and predecessors hold, also those of others that they refer to."""
        return frozenset(uid for h in (*self.sources.values(), *self.predecessors) for uid in uid_values(h))

    @property
    def own_uids(self) -> set[str]:
        """The UIDs that are ours: derived for this case, and those of the node and of the algorithm."""
        return self.uids.known | {self.request.node.device_uid, device_uid(self.algorithm)}

    def tracking(self, group: Group, segment: Segment | None = None) -> tuple[str, str]:
        """Tracking Identifier and UID: the same in SR and SEG, and again when the study is analysed once more."""
        what = segment.label if segment else "findings"
        study = self.request.case.study_instance_uid
        uid = self.uids.derive(study, self.algorithm.service, "tracking", *group.source, what)
        return f"{self.algorithm.service} {what}"[:64], uid

    def tracking_of(self, region: Region, what: str, *beside: str) -> tuple[str, str]:
        """The same for a region, or for what was got from it: another place is another lesion, whatever its key."""
        points = (f"{column:.1f},{row:.1f}" for column, row in region.points)
        place = (region.image, str(region.frame or ""), region.shape.value, *points)
        parts = (self.request.case.study_instance_uid, self.algorithm.service, "tracking", *place, what, *beside)
        return f"{self.algorithm.service} {what}"[:64], self.uids.derive(*parts)

    def constructor(self, kind: ResultKind, index: int) -> dict[str, object]:
        """What each highdicom constructor wants of us: identity, General Series and General Equipment."""
        return {
            "series_instance_uid": self.uids.series(kind),
            "series_number": series_number(self.algorithm.service, kind),
            "sop_instance_uid": self.uids.instance(kind, index),
            "instance_number": index,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": MANUFACTURER,
            "software_versions": self.request.node.version,
            "device_serial_number": self.request.node.ae_title,
            "series_description": series_description(self.algorithm),
            "specific_character_set": "ISO_IR 192",
            "coding_schemes": [
                CodingSchemeIdentificationItem(
                    designator=PRIVATE_SCHEME, name="pacsnode private codes", responsible_organization="pacsnode"
                )
            ],
        }


def uid_values(dataset: Dataset) -> Iterator[str]:
    """All UIDs of `dataset`, also inside sequences."""
    for element in dataset.iterall():
        if element.VR == "UI" and not element.is_empty:
            yield from map(str, element.value if isinstance(element.value, MultiValue) else [element.value])


def coded(concept: Concept) -> hd.sr.CodedConcept:
    """`concept` as an item of a code sequence; a meaning has at most 64 characters and no backslash (LO)."""
    return hd.sr.CodedConcept(concept.value, concept.scheme, concept.meaning[:64].replace("\\", "/"))


def series_number(service: str, kind: ResultKind) -> int:
    """9001 to 9993: above what modalities use, one block of ten a service, the kind in the last digit."""
    return _FIRST_SERIES_NUMBER + zlib.crc32(service.encode()) % 100 * 10 + _KIND_NUMBER[kind]


def series_description(algorithm: Algorithm) -> str:
    """Series Description: ASCII, at most 64 characters, since lists of old viewers show nothing else."""
    named = f"AI {algorithm.service} {algorithm.version}".encode("ascii", "replace").decode().replace("\\", "/")
    return f"{named[:50]} - UNVERIFIED"


def device_uid(algorithm: Algorithm) -> str:
    """Device UID (0018,1002) of the algorithm: another one as soon as its bundle changes (IHE AIR 6.5.3.1)."""
    return uids.derive("device", algorithm.bundle_hash)


def algorithm_macro(algorithm: Algorithm, rules_hash: str) -> hd.AlgorithmIdentificationSequence:
    """Algorithm Identification Macro (PS3.3 10.16), for SEG."""
    return hd.AlgorithmIdentificationSequence(
        name=algorithm.service[:64],
        family=coded(_family(algorithm)),
        version=algorithm.version[:64],
        source=MANUFACTURER,
        parameters=dict(p.split("=", 1) for p in _parameters(algorithm, rules_hash)),
    )


def algorithm_template(algorithm: Algorithm, rules_hash: str) -> hd.sr.AlgorithmIdentification:
    """TID 4019 Algorithm Identification, for SR."""
    return hd.sr.AlgorithmIdentification(
        name=algorithm.service,
        version=algorithm.version,
        family=coded(_family(algorithm)),
        manufacturer=MANUFACTURER,
        parameters=_parameters(algorithm, rules_hash),
    )


def observer(algorithm: Algorithm, station: str) -> hd.sr.ObservationContext:
    """TID 1001: the observer is the algorithm, a device, and no person."""
    return hd.sr.ObservationContext(observer_device_context=device_observer(algorithm, station))


def device_observer(algorithm: Algorithm, station: str) -> hd.sr.ObserverContext:
    """TID 1002: the algorithm as the device that observed."""
    return hd.sr.ObserverContext(
        observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=device_uid(algorithm),
            name=f"{algorithm.title} (AI)" if algorithm.machine_learning else algorithm.title,
            manufacturer_name=MANUFACTURER,
            model_name=f"{algorithm.service} {algorithm.version}",
            physical_location=station,
        ),
    )


def processing_equipment(algorithm: Algorithm, started: datetime) -> Dataset:
    """The algorithm's item of Contributing Equipment Sequence (IHE AIR 6.5.3.1); highdicom has no Device UID."""
    item = hd.ContributingEquipment(
        manufacturer=MANUFACTURER,
        manufacturer_model_name=algorithm.service[:64],
        software_versions=algorithm.version[:64],
        purpose_of_reference=coded(PROCESSING_EQUIPMENT),
        contribution_datetime=started,
        contribution_description=_contribution(algorithm),
    )
    item.DeviceUID = device_uid(algorithm)
    return item


def described(algorithm: Algorithm) -> dict[str, str]:
    """What stands on the card of the algorithm, and what ran; empty where the card says nothing."""
    return {
        "Method": algorithm.method,
        "Training data": algorithm.training_data,
        "Quality": algorithm.quality,
        "Intended use": algorithm.intended_use,
        "Licence": algorithm.licence,
        "Computed on": algorithm.device,
        "Bundle SHA-256": algorithm.bundle_hash,
        "Weights SHA-256": algorithm.weights_hash or NO_WEIGHTS,
    }


def comments(algorithm: Algorithm) -> tuple[str, ...]:
    """What a reader must know of the algorithm, as sentences: nothing is left to a web page that may be gone."""
    status = f"{algorithm.status}; service {algorithm.service}, version {algorithm.version}"
    labelled = {"Status": status} | described(algorithm)
    lines = (f"{label}: {text}" for label, text in labelled.items() if text)
    return (f"AI result, unverified. {NOT_FOR_DIAGNOSIS}", *lines)


def _family(algorithm: Algorithm) -> Concept:
    return ARTIFICIAL_INTELLIGENCE if algorithm.machine_learning else SIGNAL_ANALYSIS


def _parameters(algorithm: Algorithm, rules_hash: str) -> list[str]:
    told = {
        "bundle": algorithm.bundle_hash,
        "weights": algorithm.weights_hash or NO_WEIGHTS,
        "rules": rules_hash,
        "device": algorithm.device,
    }
    return [f"{name}={value}" for name, value in told.items() if value]


def _contribution(algorithm: Algorithm) -> str:
    """Contribution Description (ST, 1024 characters): in every object, also a picture, which has no other place."""
    return (
        f"Analysis, unverified. Bundle SHA-256 {algorithm.bundle_hash}. "
        f"Weights SHA-256 {algorithm.weights_hash or NO_WEIGHTS}. Computed on {algorithm.device}"
    )[:1024]
