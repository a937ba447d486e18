"""The way of every object of ours, whatever it says: its sources let in, the object built, stamped, gated, written.

In: a request and a builder. Out: a result object, durable in the request's folder. Never decides what an object says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydicom.dataset import Dataset

from pacsnode.encode import charset, conformance
from pacsnode.encode.header import part_10, stamp
from pacsnode.encode.normalise import read_header
from pacsnode.encode.provenance import DerivedUIDs, Origin
from pacsnode.errors import Permanent
from pacsnode.findings import Findings
from pacsnode.findings_files import write_durably
from pacsnode.handover import EncodeRequest, ResultKind, ResultObject

Built = TypeVar("Built")


def origin_of(findings: Findings, request: EncodeRequest) -> Origin:
    """What the objects have in common with their sources, once the gate let these pass. Raises Permanent."""
    sources = {str(header.SOPInstanceUID): header for header in map(read_header, request.sources)}
    conformance.check_sources(sources, request.case.study_instance_uid)
    predecessors = tuple(read_header(path) for path in request.predecessors)
    return Origin(findings, request, sources, predecessors, DerivedUIDs(request.case.key, request.form))


def built(what: str, build: Callable[[], Built]) -> Built:
    """What `build` makes; highdicom refuses what it cannot encode by these errors, and would again."""
    try:
        return build()
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise Permanent(f"the {what} cannot be built: {error}") from error


def written(
    dataset: Dataset,
    origin: Origin,
    kind: ResultKind,
    index: int = 1,
    finish: Callable[[Dataset], None] = lambda dataset: None,
) -> ResultObject:
    """Stamp an object, `finish` it, let it through the gate, and write it durably. Raises Permanent."""
    stamp(dataset, origin, kind, index)
    finish(dataset)
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
