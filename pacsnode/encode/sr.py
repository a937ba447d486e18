"""Structured reports: one SR by TID 1500 Measurement Report for all groups of a case.

In: the findings, the headers of their sources and the SEGs already made. Out: an SR without patient and study yet (see
`header.stamp`), Comprehensive 3D, Comprehensive or Enhanced as the destination wants it; the tree is the same, since it
holds planar coordinates only. Never verified, never final: a person signs, not this program.

highdicom makes the document around the tree, `sr_items` the tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import highdicom as hd
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from pacsnode.dicom.codes import (
    ENGLISH_US,
    IMAGING_MEASUREMENTS,
    LANGUAGE,
    MEASUREMENT_REPORT,
    PROCEDURE_REPORTED,
)
from pacsnode.encode.header import evidence, requests
from pacsnode.encode.provenance import Origin, comments, observer
from pacsnode.encode.sr_groups import groups
from pacsnode.encode.sr_items import code, comment, container, template_of
from pacsnode.encode.sr_library import Listed, evidence_items, library, listed
from pacsnode.errors import Permanent
from pacsnode.handover import ReportForm

_DOCUMENTS: Mapping[ReportForm, type[Dataset]] = {
    "comprehensive-3d": hd.sr.Comprehensive3DSR,
    "comprehensive": hd.sr.ComprehensiveSR,
    "enhanced": hd.sr.EnhancedSR,
}


def report(origin: Origin, segmentations: Mapping[int, Dataset]) -> Dataset:
    """The SR of the case; `segmentations` by group number (from 1)."""
    if not origin.findings.groups:
        raise Permanent("there are no findings to report")
    sources = [listed(header) for header in origin.sources.values()]
    dataset = _document(origin)
    dataset.ContentSequence = DicomSequence(_content(origin, segmentations, sources))
    dataset.CurrentRequestedProcedureEvidenceSequence = evidence_items([*sources, *map(listed, segmentations.values())])
    return dataset


def _document(origin: Origin) -> Dataset:
    """The document with an empty tree: highdicom checks and copies a full one several times."""
    root = container("CONTAINS", MEASUREMENT_REPORT, ())
    del root.RelationshipType
    root.add(template_of("1500"))
    root.add(DataElement(0x0040A730, "SQ", DicomSequence()))
    return _DOCUMENTS[origin.request.form.sr](
        evidence=[evidence(origin.first)],
        content=root,
        is_complete=True,
        is_final=False,
        is_verified=False,
        requested_procedures=requests(origin.first) or None,
        previous_versions=list(origin.predecessors) or None,
        **origin.constructor("sr", 1),
    )


def _content(origin: Origin, segmentations: Mapping[int, Dataset], sources: Sequence[Listed]) -> list[Dataset]:
    measured = [
        item
        for place, group in enumerate(origin.findings.groups, start=1)
        for item in groups(group, origin, segmentations.get(place))
    ]
    images = [one for one in sources if "Rows" in one.header]
    return [
        code("HAS CONCEPT MOD", LANGUAGE, ENGLISH_US),
        *observer(origin.algorithm, origin.request.node.ae_title),
        code("HAS CONCEPT MOD", PROCEDURE_REPORTED, origin.algorithm.procedure),
        *([library(images)] if images else []),
        container("CONTAINS", IMAGING_MEASUREMENTS, measured),
        *(comment("CONTAINS", text) for text in comments(origin.algorithm)),
    ]
