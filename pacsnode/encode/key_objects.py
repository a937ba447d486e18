"""Key objects: which images somebody should look at first, for viewers that show a selection (PS3.3 A.35.4, TID 2010).

In: the findings and the headers of their sources. Out: a Key Object Selection without patient and study yet (see
`header.stamp`). An organ that is merely outlined flags nothing: a study without findings has no key images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from pacsnode.dicom.codes import OF_INTEREST
from pacsnode.encode import korean
from pacsnode.encode.header import evidence, requests
from pacsnode.encode.provenance import Origin, coded, device_observer
from pacsnode.encode.seg import present_segments
from pacsnode.findings import NOT_FOR_DIAGNOSIS, Evaluation, Group, Presence, Region, Segment

ANATOMICAL_STRUCTURE: Final = ("SCT", "91723000")
MOST_IMAGES: Final = 30
"""Of one selection; with more, nobody would look at them one by one."""
_MOST_WHOLE: Final = 8
"""Images of one input that are all flagged where a finding has no place in them; a volume is not."""
_MOST_LINES: Final = 40


@dataclass(frozen=True)
class Place:
    """One image, or one frame (from 1) of it."""

    image: str
    frame: int | None = None


def key_objects(origin: Origin) -> list[Dataset]:
    """The selection of the case; none where nothing is flagged."""
    places = list(dict.fromkeys(place for group in origin.findings.groups for place in flagged(group)))[:MOST_IMAGES]
    if not places:
        return []
    uids = list(dict.fromkeys(place.image for place in places))
    chosen = [evidence(origin.sources[uid]) for uid in uids]
    content = hd.ko.KeyObjectSelection(
        document_title=coded(OF_INTEREST),
        referenced_objects=chosen,
        observer_device_context=device_observer(origin.algorithm, origin.request.node.ae_title),
        description="\r\n".join(_description(origin)),
    )
    dataset = hd.ko.KeyObjectSelectionDocument(
        evidence=chosen,
        content=content,
        requested_procedures=requests(origin.first) or None,
        **origin.constructor("ko", 1),
    )
    for item in dataset.ContentSequence:
        if "ReferencedSOPSequence" in item:
            (reference,) = item.ReferencedSOPSequence
            frames = [p.frame for p in places if p.image == reference.ReferencedSOPInstanceUID and p.frame]
            if frames:
                reference.ReferencedFrameNumber = frames
            if item.ValueType == "COMPOSITE":  # what is no image here is a waveform; highdicom does not tell it apart
                item.ValueType = "WAVEFORM"
    return [dataset]


def flagged(group: Group) -> Iterator[Place]:
    """Where a finding is: marked regions, the largest plane of each marked segment, else a whole small input."""
    places = [Place(region.image, region.frame) for region in group.regions if is_finding(region)]
    for segment in present_segments(group):
        if is_finding(segment):
            places.append(_largest(group, segment))
    yield from places
    if not places and any(e.presence is Presence.PRESENT for e in group.evaluations):
        frames = group.label_map.shape[0] if group.label_map is not None else len(group.source)
        if max(frames, len(group.source)) <= _MOST_WHOLE:
            yield from map(Place, group.source)


def is_finding(marked: Region | Segment) -> bool:
    """Whether what is marked is one: said to be present, or nothing said of it and no normal anatomy."""
    said = marked.presence if isinstance(marked, Region) else None
    anatomy = (marked.category.scheme, marked.category.value) == ANATOMICAL_STRUCTURE
    return said is Presence.PRESENT or (said is None and not anatomy)


def place_of(group: Group, plane: int) -> Place:
    """The image, or frame, that a plane (from 0) of the label map lies on."""
    assert group.label_map is not None
    if len(group.source) == 1 and (group.frames or group.label_map.shape[0] > 1):
        return Place(group.source[0], group.frames[plane] if group.frames else plane + 1)
    return Place(group.source[plane])


def _largest(group: Group, segment: Segment) -> Place:
    assert group.label_map is not None
    planes = range(len(group.label_map))
    areas = [int(np.count_nonzero(group.on_plane(plane, segment.value))) for plane in planes]
    return place_of(group, int(np.argmax(areas)))


def _description(origin: Origin) -> Iterator[str]:
    yield korean.WARNING
    yield f"{origin.algorithm.service} {origin.algorithm.version}. {NOT_FOR_DIAGNOSIS}"
    said = [line for group in origin.findings.groups for line in _said(group)]
    yield from said[:_MOST_LINES]


def _said(group: Group) -> Iterator[str]:
    for evaluation in group.evaluations:
        if evaluation.presence is Presence.PRESENT:
            yield _line(korean.named(evaluation.name), evaluation)
    for region in group.regions:
        if is_finding(region):
            yield _line(region.label, region)
    for segment in present_segments(group):
        if is_finding(segment):
            yield f"{korean.label('Outlined')}: {segment.label}"


def _line(name: str, told: Evaluation | Region) -> str:
    where = korean.place(told.laterality, told.site)
    presence = f": {korean.presence(told.presence)}" if told.presence else ""
    sure = "" if told.probability is None else f" ({told.probability * 100:.0f} %)"
    return f"{name}{', ' if where else ''}{where}{presence}{sure}"[:400]
