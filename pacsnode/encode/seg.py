"""Segmentation objects: one BINARY SEG for each group that has a label map.

In: a group of findings and the header of its source. Out: a highdicom Segmentation without patient and study yet (see
`header.stamp`). Never writes an empty one: a mask with nothing in it is a failed analysis, not a finding.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.encode.frames import name_frames, only_frames
from pacsnode.encode.header import evidence
from pacsnode.encode.provenance import Origin, algorithm_macro, coded
from pacsnode.errors import Permanent
from pacsnode.findings import Group, Segment

_MOST_VALUES = 256
_SAME_ORIENTATION = 1e-3
"""Of a direction cosine: what a console rounds differently from slice to slice; highdicom wants them equal."""


def present_segments(group: Group) -> tuple[Segment, ...]:
    """The segments of which the label map has pixels; the SEG numbers them from 1 in this order."""
    if group.label_map is None:
        return ()
    values = _values(group.label_map)
    return tuple(s for s in sorted(group.segments, key=lambda s: s.value) if s.value in values)


def segmentation(group: Group, index: int, origin: Origin) -> Dataset:
    """The SEG of `group`. Raises Permanent where its label map is empty or does not fit its source."""
    headers = [origin.sources[uid] for uid in group.source]
    label_map = _checked(group, headers)
    segments = present_segments(group)
    numbers = np.zeros(_MOST_VALUES, dtype=np.uint8)
    for number, segment in enumerate(segments, start=1):
        numbers[segment.value] = number
    descriptions = [_description(s, n, group, origin) for n, s in enumerate(segments, start=1)]
    dataset = hd.seg.Segmentation(
        source_images=_evidence(group, headers),
        pixel_array=numbers[label_map],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        content_label="AI",
        content_description="AI segmentation, unverified, not for diagnosis",
        **origin.constructor("seg", index),
    )
    if group.frames:
        name_frames(dataset, group.frames)
    if "FrameOfReferenceUID" not in dataset and "PatientOrientation" not in dataset:
        # Type 2C without a position in space; highdicom leaves it out (dciodvfy: Error on CR and DX)
        dataset.PatientOrientation = headers[0].get("PatientOrientation") or None
    if "RequestAttributesSequence" in headers[0]:
        dataset.RequestAttributesSequence = headers[0].RequestAttributesSequence
    return dataset


def _evidence(group: Group, headers: Sequence[Dataset]) -> list[Dataset]:
    """The sources as highdicom takes them: one orientation to the last digit, only frames that were analysed."""
    if group.frames:
        return [evidence(only_frames(headers[0], group.frames))]
    emptied = [evidence(header) for header in headers]
    cosines = emptied[0].get("ImageOrientationPatient")
    for other in emptied[1:]:
        given = other.get("ImageOrientationPatient")
        if cosines and given and np.allclose(cosines, given, atol=_SAME_ORIENTATION):
            other.ImageOrientationPatient = cosines
    return emptied


def _checked(group: Group, headers: Sequence[Dataset]) -> NDArray[np.uint8]:
    label_map = group.label_map
    if label_map is None:
        raise Permanent("there is no label map to encode")
    if label_map.dtype.kind not in "bui":
        if not np.all(np.isfinite(label_map)):
            raise Permanent("the label map has values that are no numbers")
        raise Permanent(f"the label map has type {label_map.dtype}, not whole numbers")
    first = headers[0]
    frames = len(group.frames) or (int(first.get("NumberOfFrames") or 1) if len(headers) == 1 else len(headers))
    expected = (frames, int(first.get("Rows", 0)), int(first.get("Columns", 0)))
    if label_map.shape != expected:
        raise Permanent(f"the label map has shape {label_map.shape}, its source {expected}")
    if not label_map.any():
        raise Permanent("the label map is empty: the analysis marked nothing")
    unknown = _values(label_map) - {0} - {s.value for s in group.segments if 0 < s.value < _MOST_VALUES}
    if unknown:
        raise Permanent(f"the label map has values without a segment: {sorted(unknown)}")
    return label_map.astype(np.uint8, copy=False)


def _values(label_map: NDArray[np.uint8]) -> set[int]:
    if label_map.dtype == np.uint8:  # counting is five times as fast as np.unique here
        return set(np.flatnonzero(np.bincount(label_map.ravel(), minlength=_MOST_VALUES)).tolist())
    return {int(value) for value in np.unique(label_map)}


def _description(segment: Segment, number: int, group: Group, origin: Origin) -> hd.seg.SegmentDescription:
    tracking_id, tracking_uid = origin.tracking(group, segment)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label[:64],
        segmented_property_category=coded(segment.category),
        segmented_property_type=coded(segment.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm_macro(origin.algorithm, origin.request.case.rules_hash),
        tracking_uid=tracking_uid,
        tracking_id=tracking_id,
        display_color=hd.color.CIELabColor.from_rgb(*segment.color_rgb),
    )
    if segment.laterality is not None:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(segment.laterality)]
    return description
