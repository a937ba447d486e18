"""The stage encode: findings in, DICOM objects out.

In: the findings of a case and the Part 10 files they came from. Out: result objects, durable in the request's folder,
SEG before SR, since the SR refers to it. The same findings and request give the same bytes on every run. Never touches
a source, never names a file after anything from the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from pydicom.dataset import Dataset

from pacsnode.encode import conformance, fonts
from pacsnode.encode.header import part_10, stamp
from pacsnode.encode.normalise import read_header
from pacsnode.encode.provenance import DerivedUIDs, Origin
from pacsnode.encode.secondary_capture import is_drawable, secondary_capture
from pacsnode.encode.seg import segmentation
from pacsnode.encode.sr import report
from pacsnode.errors import Permanent
from pacsnode.findings import Findings, write_durably
from pacsnode.handover import EncodeRequest, ResultKind, ResultObject

Built = TypeVar("Built")


def encode(findings: Findings, request: EncodeRequest) -> tuple[ResultObject, ...]:
    """Write the objects that the case's rules ask for. Raises Permanent where one would not be right."""
    origin = _origin(findings, request)
    wanted = request.case.results
    results: list[ResultObject] = []
    segmentations: dict[int, Dataset] = {}
    if "seg" in wanted:
        for index, group in enumerate(findings.groups, start=1):
            if group.label_map is not None:
                dataset = _built("seg", partial(segmentation, group, index, origin))
                segmentations[index] = dataset
                results.append(_written(dataset, origin, "seg", index))
    if "sr" in wanted:
        dataset = _built("sr", partial(report, origin, segmentations))
        results.append(_written(dataset, origin, "sr", 1))
    if "sc" in wanted:
        for index, group in enumerate(findings.groups, start=1):
            if is_drawable(group):
                dataset = _built("sc", partial(secondary_capture, group, index, origin))
                results.append(_written(dataset, origin, "sc", index))
    return tuple(results)


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
