"""Our rejection note: a Key Object Selection that withdraws results of ours from those who have them (IHE RAD-66).

In: the Part 10 files of the results, and the code of the note that was received or that an operator gave. Out: one KOS
with that title, in a series of its own, through the gate of every result. Never names an object that is not ours.
"""

from __future__ import annotations

from collections.abc import Callable

import highdicom as hd
from pydicom.dataset import Dataset

from pacsnode.dicom.codes import IMAGING_PROCEDURE
from pacsnode.dicom.rejection import BY_CODE
from pacsnode.encode import conformance
from pacsnode.encode.header import evidence, part_10, requests, stamp
from pacsnode.encode.normalise import read_header
from pacsnode.encode.provenance import DerivedUIDs, Origin, coded
from pacsnode.errors import Permanent
from pacsnode.findings import Algorithm, Findings
from pacsnode.findings_files import write_durably
from pacsnode.handover import EncodeRequest, ResultKind, ResultObject

_REFUSALS = (ValueError, TypeError, AttributeError, KeyError, IndexError)
"""What highdicom raises for what it cannot encode; it would again."""


def rejection(code: str, reason: str, request: EncodeRequest) -> ResultObject:
    """Write the note. `request.sources` are the results that it lists, `case.key` its own key. Raises Permanent."""
    origin = origin_of(node_algorithm(request), request)
    try:
        dataset = _note(code, reason, origin)
    except _REFUSALS as error:
        raise Permanent(f"the rejection note cannot be built: {error}") from error
    return written(dataset, origin, "ko", _as_node)


def _note(code: str, reason: str, origin: Origin) -> Dataset:
    headers = list(origin.sources.values())
    node = origin.request.node
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=node.device_uid, name=f"pacsnode {node.ae_title}"[:64], manufacturer_name="pacsnode", model_name="pacsnode"
    )
    content = hd.ko.KeyObjectSelection(
        document_title=coded(BY_CODE[code]),
        referenced_objects=headers,
        observer_device_context=hd.sr.ObserverContext(hd.sr.CodedConcept("121007", "DCM", "Device"), device),
        description=f"AI results of {origin.request.case.service} are withdrawn: {reason}",
    )
    dataset = hd.ko.KeyObjectSelectionDocument(
        evidence=[*map(evidence, headers)],
        content=content,
        requested_procedures=requests(origin.first) or None,
        **origin.constructor("ko", 1),
    )
    dataset.SeriesDescription = f"AI {origin.request.case.service} rejected".encode("ascii", "replace").decode()[:64]
    return dataset


def _as_node(dataset: Dataset) -> None:
    """No algorithm has part in a note: General Equipment, which is the node, says it all."""
    del dataset.ContributingEquipmentSequence


def node_algorithm(request: EncodeRequest) -> Algorithm:
    """The node in place of an algorithm, for objects that none made: it gives the series its number."""
    return Algorithm(
        service=request.case.service,
        title=request.case.service,
        status="not run",
        version=request.node.version,
        bundle_hash=request.case.key,
        weights_hash="",
        method="",
        training_data="",
        quality="",
        intended_use="",
        licence="",
        device="",
        procedure=IMAGING_PROCEDURE,
        machine_learning=False,
    )


def origin_of(algorithm: Algorithm, request: EncodeRequest) -> Origin:
    """What the object has in common with its sources, once the gate let them pass. Raises Permanent."""
    sources = {str(header.SOPInstanceUID): header for header in map(read_header, request.sources)}
    conformance.check_sources(sources, request.case.study_instance_uid)
    predecessors = tuple(read_header(path) for path in request.predecessors)
    uids = DerivedUIDs(request.case.key, request.form)
    return Origin(Findings(algorithm), request, sources, predecessors, uids)


def written(dataset: Dataset, origin: Origin, kind: ResultKind, finish: Callable[[Dataset], None]) -> ResultObject:
    """Stamp an object, `finish` it, let it through the gate, and write it durably. Raises Permanent."""
    stamp(dataset, origin, kind, 1)
    finish(dataset)
    content = part_10(dataset)
    conformance.check(content, origin, kind, 1)
    path = origin.request.folder / f"{kind}-1.dcm"
    write_durably(path, content)
    return ResultObject(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        path=path,
    )
