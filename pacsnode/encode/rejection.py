"""Our rejection note: a Key Object Selection that withdraws results of ours from those who have them (IHE RAD-66).

In: the Part 10 files of the results, and the code of the note that was received or that an operator gave. Out: one KOS
with that title, in a series of its own, through the gate of every result. Never names an object that is not ours.
"""

from __future__ import annotations

from functools import partial

import highdicom as hd
from pydicom.dataset import Dataset

from pacsnode.dicom.codes import IMAGING_PROCEDURE
from pacsnode.dicom.rejection import BY_CODE
from pacsnode.encode.finishing import built, origin_of, written
from pacsnode.encode.header import evidence, requests
from pacsnode.encode.provenance import Origin, coded
from pacsnode.findings import Algorithm, Findings
from pacsnode.handover import EncodeRequest, ResultObject


def rejection(code: str, reason: str, request: EncodeRequest) -> ResultObject:
    """Write the note. `request.sources` are the results that it lists, `case.key` its own key. Raises Permanent."""
    origin = origin_of(Findings(node_algorithm(request)), request)
    dataset = built("rejection note", partial(_note, code, reason, origin))
    return written(dataset, origin, "ko", finish=_as_node)


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
