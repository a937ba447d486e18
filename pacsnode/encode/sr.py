"""Structured reports: one Comprehensive 3D SR (TID 1500 Measurement Report) for all groups of a case.

In: the findings, the headers of their sources and the SEGs already made. Out: a highdicom SR without patient and study
yet (see `header.stamp`). Never verified, never final: a person signs, not this program.

For each group there is one measurement group by TID 1501 with all that belongs to the whole image, and one by TID 1411
for each segment, with its reference into the SEG and the measurements of the same site and side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import highdicom as hd
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes

from pacsnode.dicom.codes import ABSENT, PERCENT, PRESENT, UNDETERMINED, Concept
from pacsnode.encode.header import evidence, requests
from pacsnode.encode.provenance import Origin, algorithm_template, coded, comments, observer
from pacsnode.encode.seg import present_segments
from pacsnode.errors import Permanent
from pacsnode.findings import Evaluation, Group, Measurement, Presence, Segment

COMMENT = Concept("121106", "DCM", "Comment")
PROBABILITY = Concept("122157", "DCM", "Probability")
LATERALITY = Concept("272741003", "SCT", "Laterality")
SOURCE_OF_MEASUREMENT = Concept("121112", "DCM", "Source of Measurement")
SOURCE = Concept("260753009", "SCT", "Source")
PIXELS = Concept("{pixels}", "UCUM", "Pixels")

_CONTENT_SEQUENCE = 0x0040A730
_PRESENCE = {Presence.PRESENT: PRESENT, Presence.ABSENT: ABSENT, Presence.UNDETERMINED: UNDETERMINED}
_Relationship = hd.sr.RelationshipTypeValues


def report(origin: Origin, segmentations: Mapping[int, Dataset]) -> Dataset:
    """The SR of the case; `segmentations` by group number (from 1)."""
    groups = origin.findings.groups
    if not groups:
        raise Permanent("there are no findings to report")
    items: list[object] = []
    for number, group in enumerate(groups, start=1):
        present = present_segments(group)
        segmented = present if number in segmentations else ()
        items.append(_whole(group, origin, segmented, [s for s in group.segments if s not in present]))
        if segmented:
            items += _regions(group, origin, segmented, segmentations[number])
    content = hd.sr.MeasurementReport(
        observation_context=observer(origin.algorithm, origin.request.node.ae_title),
        procedure_reported=coded(origin.algorithm.procedure),
        imaging_measurements=items,
    )
    root = content[0]
    images = [header for header in origin.sources.values() if "Rows" in header]
    if images:
        _insert_library(root, images)
    root.ContentSequence.extend(_comment(text, _Relationship.CONTAINS) for text in comments(origin.algorithm))
    dataset = hd.sr.Comprehensive3DSR(
        evidence=[*map(evidence, origin.sources.values()), *segmentations.values()],
        content=content,
        is_complete=True,
        is_final=False,
        is_verified=False,
        requested_procedures=requests(origin.first) or None,
        previous_versions=list(origin.predecessors) or None,
        **origin.constructor("sr", 1),
    )
    _append_waveforms(dataset, origin)
    return dataset


def _whole(
    group: Group, origin: Origin, segmented: Sequence[Segment], missing: Sequence[Segment]
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501: what was found in the whole input, and what belongs to none of the `segmented`."""
    elsewhere = {(s.type, s.laterality) for s in segmented}
    identifier, uid = origin.tracking(group)
    headers = [origin.sources[uid] for uid in group.source]
    item = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=uid, identifier=identifier),
        algorithm_id=algorithm_template(origin.algorithm, origin.request.case.rules_hash),
        measurements=[_measurement(m) for m in group.measurements if (m.site, m.laterality) not in elsewhere],
        qualitative_evaluations=[_evaluation(e) for e in group.evaluations],
        source_images=[
            hd.sr.SourceImageForMeasurementGroup(h.SOPClassUID, h.SOPInstanceUID) for h in headers if "Rows" in h
        ],
    )
    notes = [*group.notes, *(f"Nothing found of: {s.label}" for s in missing if group.label_map is not None)]
    item[0].ContentSequence.extend(_comment(note, _Relationship.CONTAINS) for note in notes)
    return item


def _regions(
    group: Group, origin: Origin, segments: Sequence[Segment], segmentation: Dataset
) -> list[hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    """TID 1411: one group a segment, also of a plane image: TID 1410 refers to frames, which dciodvfy refuses."""
    regions = []
    for number, segment in enumerate(segments, start=1):
        identifier, uid = origin.tracking(group, segment)
        here = [m for m in group.measurements if (m.site, m.laterality) == (segment.type, segment.laterality)]
        regions.append(
            hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=hd.sr.TrackingIdentifier(uid=uid, identifier=identifier),
                referenced_segment=hd.sr.ReferencedSegment(
                    sop_class_uid=segmentation.SOPClassUID,
                    sop_instance_uid=segmentation.SOPInstanceUID,
                    segment_number=number,
                    source_images=[
                        hd.sr.SourceImageForSegmentation(origin.sources[u].SOPClassUID, u) for u in group.source
                    ],
                ),
                finding_category=coded(segment.category),
                finding_type=coded(segment.type),
                finding_sites=_sites(segment.type, segment.laterality),
                algorithm_id=algorithm_template(origin.algorithm, origin.request.case.rules_hash),
                measurements=[_measurement(m) for m in here],
            )
        )
    return regions


def _measurement(measurement: Measurement) -> hd.sr.Measurement:
    if not math.isfinite(measurement.value):
        raise Permanent(f"the measurement {measurement.name.meaning} is no finite number")
    item = hd.sr.Measurement(
        name=coded(measurement.name),
        value=float(f"{measurement.value:.6g}"),  # no measure of an image is truer; DS takes 16 characters
        unit=coded(measurement.unit),
        finding_sites=_sites(measurement.site, measurement.laterality),
    )
    children = []
    if measurement.site is None and measurement.laterality is not None:
        children.append(
            hd.sr.CodeContentItem(coded(LATERALITY), coded(measurement.laterality), _Relationship.HAS_CONCEPT_MOD)
        )
    if measurement.derivation:
        children.append(_comment(measurement.derivation, _Relationship.HAS_PROPERTIES))
    _add_children(item[0], children)
    return item


def _sites(site: Concept | None, laterality: Concept | None) -> list[hd.sr.FindingSite] | None:
    if site is None:
        return None
    return [hd.sr.FindingSite(coded(site), coded(laterality) if laterality else None)]


def _evaluation(evaluation: Evaluation) -> hd.sr.QualitativeEvaluation:
    item = hd.sr.QualitativeEvaluation(coded(evaluation.name), coded(_PRESENCE[evaluation.presence]))
    children: list[Dataset] = []
    for site in _sites(evaluation.site, evaluation.laterality) or ():
        site.RelationshipType = _Relationship.HAS_CONCEPT_MOD.value
        children.append(site)
    if evaluation.site is None and evaluation.laterality is not None:
        children.append(
            hd.sr.CodeContentItem(coded(LATERALITY), coded(evaluation.laterality), _Relationship.HAS_CONCEPT_MOD)
        )
    if evaluation.probability is not None:
        if not 0 <= evaluation.probability <= 1:
            raise Permanent(f"the probability of {evaluation.name.meaning} is {evaluation.probability}")
        children.append(
            hd.sr.NumContentItem(
                coded(PROBABILITY),
                float(f"{evaluation.probability * 100:.4g}"),
                coded(PERCENT),
                relationship_type=_Relationship.HAS_PROPERTIES,
            )
        )
    if evaluation.comment:
        children.append(_comment(evaluation.comment, _Relationship.HAS_PROPERTIES))
    _add_children(item[0], children)
    return item


def _comment(text: str, relationship: hd.sr.RelationshipTypeValues) -> hd.sr.TextContentItem:
    return hd.sr.TextContentItem(coded(COMMENT), text, relationship)


def _add_children(item: Dataset, children: Sequence[Dataset]) -> None:
    if children and "ContentSequence" not in item:
        item.ContentSequence = hd.sr.ContentSequence()
    if children:
        item.ContentSequence.extend(children)


def _insert_library(root: Dataset, images: Sequence[Dataset]) -> None:
    """TID 1600 Image Library, before the measurements; highdicom's own one wants attributes that CR lack."""
    group = hd.sr.ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=_Relationship.CONTAINS)
    group.ContentSequence = hd.sr.ContentSequence()
    for header in images:
        image = hd.sr.ImageContentItem(
            coded(SOURCE), header.SOPClassUID, header.SOPInstanceUID, relationship_type=_Relationship.CONTAINS
        )
        image.ContentSequence = hd.sr.ContentSequence(_descriptors(header))
        group.ContentSequence.append(image)
    library = hd.sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=_Relationship.CONTAINS)
    library.ContentSequence = hd.sr.ContentSequence([group])
    root.ContentSequence.insert(len(root.ContentSequence) - 1, library)


def _descriptors(header: Dataset) -> list[Dataset]:
    """TID 1602: the descriptors that every image has."""
    acquisition = _Relationship.HAS_ACQ_CONTEXT
    items: list[Dataset] = []
    modality = _modalities().get(str(header.get("Modality", "")))
    if modality:
        items.append(hd.sr.CodeContentItem(codes.DCM.Modality, coded(modality), acquisition))
    if header.get("FrameOfReferenceUID"):
        items.append(hd.sr.UIDRefContentItem(codes.DCM.FrameOfReferenceUID, header.FrameOfReferenceUID, acquisition))
    for name, size in (
        (codes.DCM.PixelDataRows, header.Rows),
        (codes.DCM.PixelDataColumns, header.get("Columns", 0)),
    ):
        items.append(hd.sr.NumContentItem(name, int(size), coded(PIXELS), relationship_type=acquisition))
    return items


@lru_cache(1)
def _modalities() -> dict[str, Concept]:
    """CID 29 Acquisition Modality by Modality (0008,0060)."""
    acquisition = codes.cid29
    found = [getattr(acquisition, keyword) for keyword in acquisition.dir()]
    return {code.value: Concept(code.value, code.scheme_designator, code.meaning) for code in found}


def _append_waveforms(dataset: Dataset, origin: Origin) -> None:
    """Name the source of each group that is a waveform.

    highdicom has no WAVEFORM content item and refuses one in the tree (KeyError), so it comes in afterwards.
    """
    tracked = {origin.tracking(group)[1]: group for group in origin.findings.groups}
    measurements = next(i for i in dataset.ContentSequence if i.name == codes.DCM.ImagingMeasurements)
    for container in measurements.ContentSequence:
        uid = next(i.UID for i in container.ContentSequence if i.ValueType == "UIDREF")
        group = tracked.get(uid)
        if group is None:
            continue
        waveforms = [_waveform(origin.sources[u]) for u in group.source if "Rows" not in origin.sources[u]]
        if waveforms:
            items = DicomSequence([*container.ContentSequence, *waveforms])
            container.add(DataElement(_CONTENT_SEQUENCE, "SQ", items))


def _waveform(header: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    reference.ReferencedWaveformChannels = [1, 0]  # all channels of the first multiplex group (PS3.3 C.18.5.1.1)
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "WAVEFORM"
    item.ConceptNameCodeSequence = [coded(SOURCE_OF_MEASUREMENT)]
    item.ReferencedSOPSequence = [reference]
    return item
