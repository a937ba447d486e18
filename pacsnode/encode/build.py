"""The stage encode: findings in, DICOM objects out.

In: the findings of a case and the Part 10 files they came from. Out: result objects, durable in the request's folder,
SEG before SR, since the SR refers to it. The same findings and request give the same bytes on every run. Never touches
a source, never names a file after anything from the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pydicom.dataset import Dataset

from pacsnode.encode import charset, conformance, fonts
from pacsnode.encode.header import part_10, stamp
from pacsnode.encode.key_objects import key_objects
from pacsnode.encode.normalise import read_header
from pacsnode.encode.presentation import presentations
from pacsnode.encode.provenance import DerivedUIDs, Origin
from pacsnode.encode.report_pdf import report_pdf
from pacsnode.encode.secondary_capture import is_drawable, secondary_capture
from pacsnode.encode.seg import is_segmented, segmentation
from pacsnode.encode.sr import report
from pacsnode.errors import Permanent
from pacsnode.findings import Findings
from pacsnode.findings_files import write_durably
from pacsnode.handover import SHIPPED, EncodeRequest, ResultKind, ResultObject
from pacsnode.telemetry import Log

Built = TypeVar("Built")

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
                dataset = _built("seg", partial(segmentation, group, index, origin))
                segmentations[index] = dataset
                if _is_due(origin, "seg"):
                    results.append(_written(dataset, origin, "seg", index))
    if "sr" in wanted and _is_due(origin, "sr"):
        dataset = _built("sr", partial(report, origin, segmentations))
        results.append(_written(dataset, origin, "sr", 1))
    if "sc" in wanted and _is_due(origin, "sc"):
        for index, group in enumerate(findings.groups, start=1):
            if is_drawable(group):
                dataset = _built("sc", partial(secondary_capture, group, index, origin))
                results.append(_written(dataset, origin, "sc", index))
    return (*results, *_companions(origin))


def _companions(origin: Origin) -> Iterator[ResultObject]:
    """What says the same once more in other forms: a document, key images, lines over the images."""
    for kind, build in _COMPANIONS.items():
        if kind in origin.request.case.results and _is_due(origin, kind):
            try:
                made = _built(kind, partial(build, origin))
                yield from [_written(dataset, origin, kind, index) for index, dataset in enumerate(made, start=1)]
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
    headers = [read_header(path) for path in request.sources]
    sources = {str(header.SOPInstanceUID): header for header in headers}
    conformance.check_sources(sources, request.case.study_instance_uid)
    strange = {uid for group in findings.groups for uid in group.source} - sources.keys()
    if strange or not all(group.source for group in findings.groups):
        raise Permanent("the findings name an input that is not among the sources of the case")
    predecessors = tuple(read_header(path) for path in request.predecessors)
    return Origin(findings, request, sources, predecessors, DerivedUIDs(request.case.key, request.form))


def _built(kind: ResultKind, build: Callable[[], Built]) -> Built:
    """What `build` makes; highdicom refuses what it cannot encode by these errors, and would again."""
    try:
        return build()
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise Permanent(f"the {kind.upper()} cannot be built: {error}") from error


def _written(dataset: Dataset, origin: Origin, kind: ResultKind, index: int) -> ResultObject:
    stamp(dataset, origin, kind, index)
    charset.settle(dataset, origin)
    content = part_10(dataset)
    conformance.check(content, origin, kind, index)
    form = origin.request.form.tag(kind)
    path = origin.request.folder / f"{kind}-{index}{form and '-'}{form}.dcm"
    write_durably(path, content)
    return ResultObject(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        path=path,
        form=form,
    )
