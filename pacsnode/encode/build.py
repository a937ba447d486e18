"""The stage encode: findings in, DICOM objects out.

In: the findings of a case and the Part 10 files they came from. Out: result objects, durable in the request's folder,
SEG before SR, since the SR refers to it. The same findings and request give the same bytes on every run. Never touches
a source, never names a file after anything from the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from pydicom.dataset import Dataset

from pacsnode.encode import conformance, fonts
from pacsnode.encode.finishing import built, origin_of, written
from pacsnode.encode.key_objects import key_objects
from pacsnode.encode.presentation import presentations
from pacsnode.encode.provenance import Origin
from pacsnode.encode.report_pdf import report_pdf
from pacsnode.encode.secondary_capture import is_drawable, secondary_capture
from pacsnode.encode.seg import is_segmented, segmentation
from pacsnode.encode.sr import report
from pacsnode.errors import Permanent
from pacsnode.findings import Findings
from pacsnode.handover import SHIPPED, EncodeRequest, ResultKind, ResultObject
from pacsnode.telemetry import Log

log = Log(__name__)

_COMPANIONS: Mapping[ResultKind, Callable[[Origin], Sequence[Dataset]]] = {
    "pdf": lambda origin: [report_pdf(origin)],
    "ko": key_objects,
    "pr": presentations,
}
"""What makes the objects of each of these kinds, in the order of their numbers."""


def encode(findings: Findings, request: EncodeRequest) -> tuple[ResultObject, ...]:
    """Write the objects that the case's rules ask for. Raises Permanent where one would not be right."""
    origin = _origin(findings, request)
    wanted = request.case.results
    results: list[ResultObject] = []
    segmentations: dict[int, Dataset] = {}
    if "seg" in wanted:
        for index, group in enumerate(findings.groups, start=1):
            if is_segmented(group):
                dataset = built("SEG", partial(segmentation, group, index, origin))
                segmentations[index] = dataset
                if _is_due(origin, "seg"):
                    results.append(written(dataset, origin, "seg", index))
    if "sr" in wanted and _is_due(origin, "sr"):
        dataset = built("SR", partial(report, origin, segmentations))
        results.append(written(dataset, origin, "sr", 1))
    if "sc" in wanted and _is_due(origin, "sc"):
        for index, group in enumerate(findings.groups, start=1):
            if is_drawable(group):
                dataset = built("SC", partial(secondary_capture, group, index, origin))
                results.append(written(dataset, origin, "sc", index))
    return (*results, *_companions(origin))


def _companions(origin: Origin) -> Iterator[ResultObject]:
    """What says the same once more in other forms: a document, key images, lines over the images."""
    for kind, build in _COMPANIONS.items():
        if kind in origin.request.case.results and _is_due(origin, kind):
            try:
                made = built(kind.upper(), partial(build, origin))
                yield from [written(dataset, origin, kind, index) for index, dataset in enumerate(made, start=1)]
            except Permanent as error:
                if kind not in origin.request.unasked:
                    raise
                log.warning("result left out, nobody asks for it", kind=kind, reason=str(error))


def _is_due(origin: Origin, kind: ResultKind) -> bool:
    """Whether this form has an object of its own of this kind; else it is the shipped one, which is made by itself."""
    return origin.request.form == SHIPPED or origin.request.form.tag(kind) != ""


def warm() -> None:
    """Load highdicom's tables of PS3.3 and the font's letters, which takes the first case half a second each else."""
    conformance.load_tables()
    fonts.glyphs()


def _origin(findings: Findings, request: EncodeRequest) -> Origin:
    origin = origin_of(findings, request)
    strange = {uid for group in findings.groups for uid in group.source} - origin.sources.keys()
    if strange or not all(group.source for group in findings.groups):
        raise Permanent("the findings name an input that is not among the sources of the case")
    return origin
