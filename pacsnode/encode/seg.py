"""Segmentation objects: one for each group with a label map, BINARY, LABELMAP or FRACTIONAL as the destination wants.

In: a group of findings and the header of its source. Out: a highdicom Segmentation without patient and study yet (see
`header.stamp`). highdicom makes it of a source of one pixel a plane: modules, geometry and references; the frames and
their pixels are put in here, so that no array of all segments is ever held. Frames without a segment are left out.
Never writes an empty one: a mask with nothing in it is a failed analysis, or no object at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from highdicom.seg import SegmentationTypeValues as Kind
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.encode import frames, masks
from pacsnode.encode.header import evidence
from pacsnode.encode.masks import Frame
from pacsnode.encode.provenance import Origin, algorithm_macro, coded
from pacsnode.errors import Permanent
from pacsnode.findings import Group, Segment
from pacsnode.handover import SegmentationForm

DESCRIPTION = "AI segmentation, unverified, not for diagnosis"
OVERLAP_DESCRIPTION = "AI, unverified, not for diagnosis. Overlaps: no LABELMAP"
"""Where a LABELMAP was asked for that cannot hold what was found. Content Description has at most 64 characters."""
_KINDS: dict[SegmentationForm, Kind] = {
    "binary": Kind.BINARY,
    "labelmap": Kind.LABELMAP,
    "fractional": Kind.FRACTIONAL,
}
_PLACED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "Rows",
    "Columns",
)
_SAME_ORIENTATION = 1e-3
"""Of a direction cosine: what a console rounds differently from slice to slice; highdicom wants them equal."""


def present_segments(group: Group) -> tuple[Segment, ...]:
    """The segments of which the label maps have pixels; the SEG numbers them from 1 in this order."""
    if group.label_map is None:
        return ()
    values = np.flatnonzero(group.occupied.any(axis=0)).tolist()
    return tuple(s for s in sorted(group.segments, key=lambda s: s.value) if s.value and s.value in values)


def is_segmented(group: Group) -> bool:
    """Whether `group` has a SEG: none where nothing at all was found and each segment may be absent; the SR says it."""
    if group.label_map is None:
        return False
    return not all(s.may_be_absent for s in group.segments) or any(one.any() for one in group.maps)


def segmentation(group: Group, index: int, origin: Origin) -> Dataset:
    """The SEG of `group`. Raises Permanent where its label map is empty or does not fit its source."""
    headers = [origin.sources[uid] for uid in group.source]
    _check(group, headers)
    overlapping = masks.overlap(group)
    kind = _KINDS[origin.request.form.seg]
    description = DESCRIPTION
    if kind is Kind.LABELMAP and overlapping:
        kind, description = Kind.BINARY, OVERLAP_DESCRIPTION
    segments = present_segments(group)
    presence = masks.presence(group, segments, as_probabilities=kind is Kind.FRACTIONAL)
    dataset = hd.seg.Segmentation(
        source_images=_pixels_of(_evidence(group, headers)),
        pixel_array=_planes_of_a_pixel(presence, headers[0]),
        segmentation_type=kind,
        fractional_type="OCCUPANCY" if group.probabilities is None else "PROBABILITY",
        max_fractional_value=masks.FULL,
        segment_descriptions=[_description(s, n, group, origin) for n, s in enumerate(segments, start=1)],
        content_label="AI",
        content_description=description,
        **origin.constructor("seg", index),
    )
    _fill(dataset, group, segments, presence, headers[0])
    is_probable = dataset.get("SegmentationFractionalType") == "PROBABILITY"
    dataset.SegmentsOverlap = "UNDEFINED" if is_probable else "YES" if overlapping else "NO"
    if "PlaneOrientationSequence" not in dataset.SharedFunctionalGroupsSequence[0]:
        # Type 2C without a position in space; highdicom leaves it out (dciodvfy: Error on CR and DX)
        dataset.PatientOrientation = headers[0].get("PatientOrientation") or None
    if "RequestAttributesSequence" in headers[0]:
        dataset.RequestAttributesSequence = headers[0].RequestAttributesSequence
    return dataset


def _evidence(group: Group, headers: Sequence[Dataset]) -> list[Dataset]:
    """The sources as highdicom takes them: one orientation to the last digit, only frames that were analysed."""
    first = headers[0]
    if frames.is_clip(first):
        return [evidence(frames.as_still(first))]
    if group.frames or "PerFrameFunctionalGroupsSequence" in first:
        return [evidence(frames.only_frames(first, _numbers(group)))]
    whole, others = evidence(first), [_placed(header) for header in headers[1:]]
    if "SliceThickness" not in whole:
        whole.SliceThickness = None  # of which highdicom asks
    cosines = whole.get("ImageOrientationPatient")
    for other in others:
        given = other.get("ImageOrientationPatient")
        if cosines and given and max(abs(a - b) for a, b in zip(cosines, given, strict=True)) < _SAME_ORIENTATION:
            frames.put(other, "ImageOrientationPatient", cosines)
    return [whole, *others]


def _placed(header: Dataset) -> Dataset:
    """What highdicom looks at in all images of a series but the first."""
    copy = Dataset()
    for keyword in _PLACED:
        if keyword in header:
            copy.add(header[keyword])
    return copy


def _pixels_of(sources: list[Dataset]) -> list[Dataset]:
    """The same with one pixel each, in place: all that highdicom is given to look at."""
    for source in sources:
        if not source.get("Rows") or not source.get("Columns"):
            raise Permanent("the source of the label map has no rows and columns")
        frames.put(source, "Rows", 1)
        frames.put(source, "Columns", 1)
    return sources


def _planes_of_a_pixel(presence: NDArray[np.bool_], first: Dataset) -> NDArray[np.uint8]:
    """(planes, 1, 1) for highdicom: 1 where there is any segment."""
    planes = np.asarray(presence.any(axis=0), dtype=np.uint8)
    if frames.is_clip(first):
        planes = np.ones(1, dtype=np.uint8)
    return planes[:, None, None]


def _numbers(group: Group) -> Sequence[int]:
    """Of the source's frames, by plane of the label map."""
    assert group.label_map is not None
    return group.frames or range(1, len(group.label_map) + 1)


def _fill(
    dataset: Dataset, group: Group, segments: Sequence[Segment], presence: NDArray[np.bool_], first: Dataset
) -> None:
    """Put the frames and their pixels in place of those of one pixel."""
    planes = frames.by_plane(dataset, group.source)
    if frames.is_clip(first):
        numbers = _numbers(group)
        shown = sorted(np.flatnonzero(presence.any(axis=0)).tolist(), key=lambda plane: numbers[plane])
        planes = frames.clip_planes(planes[0], shown, numbers)
        frames.count_frames_of_clip(dataset)
    elif "PerFrameFunctionalGroupsSequence" in first:
        frames.number_frames(planes, _numbers(group))
    _settle_measures(dataset)
    wanted = [Frame(0, plane) for plane in planes]
    if dataset.SegmentationType == Kind.LABELMAP.value:
        pixels = masks.label_map(group, segments, list(planes))
    else:
        wanted = [Frame(n, plane) for n in range(1, len(segments) + 1) for plane in planes if presence[n - 1, plane]]
        pack = masks.binary if dataset.SegmentationType == Kind.BINARY.value else masks.fractional
        pixels = pack(group, segments, wanted)
    dataset.PerFrameFunctionalGroupsSequence = list(frames.items(planes, wanted))
    dataset.NumberOfFrames = len(wanted)
    dataset.Rows, dataset.Columns = first.Rows, first.Columns
    dataset.add_new("PixelData", "OB", pixels)


def _settle_measures(dataset: Dataset) -> None:
    """highdicom, and what stands on it, read no SEG whose pixel measures lack a slice thickness.

    A slice whose console left it out gets that of the gaps between slices. A projection has none: its spacing stands in
    the source, to which each frame refers (PS3.3 A.51.5: the pixel measures may then be left out).
    """
    shared = dataset.SharedFunctionalGroupsSequence[0]
    measures = shared.get("PixelMeasuresSequence")
    if not measures or measures[0].get("SliceThickness") is not None:
        return
    if "PlaneOrientationSequence" not in shared:
        del shared.PixelMeasuresSequence
    elif between_mm := measures[0].get("SpacingBetweenSlices"):
        measures[0].SliceThickness = between_mm


def _check(group: Group, headers: Sequence[Dataset]) -> None:
    """Raise Permanent unless the label maps are whole and fit their source."""
    if group.label_map is None:
        raise Permanent("there is no label map to encode")
    first = headers[0]
    planes = len(group.frames) or (frames.count(first) if len(headers) == 1 else len(headers))
    expected = (planes, int(first.get("Rows", 0)), int(first.get("Columns", 0)))
    for label_map in group.maps:
        _check_map(label_map, expected)
    if group.frames and (min(group.frames) < 1 or max(group.frames) > frames.count(first)):
        raise Permanent("the findings name a frame that the multi-frame source does not have")
    known = {s.value for s in group.segments}
    seen = set(np.flatnonzero(group.occupied.any(axis=0)).tolist()) - {0}
    if unknown := seen - known:
        raise Permanent(f"the label map has values without a segment: {sorted(unknown)}")
    if not seen:
        raise Permanent("the label map is empty: the analysis marked nothing")
    if group.probabilities is not None and group.probabilities.shape != (len(group.segments), *expected):
        raise Permanent(f"the probabilities have shape {group.probabilities.shape}, the label map {expected}")


def _check_map(label_map: NDArray[np.uint8], expected: tuple[int, ...]) -> None:
    if label_map.dtype != np.uint8:
        if label_map.dtype.kind == "f" and not np.all(np.isfinite(label_map)):
            raise Permanent("the label map has values that are no numbers")
        raise Permanent(f"the label map has type {label_map.dtype}, not whole numbers from 0 to 255 (uint8)")
    if label_map.shape != expected:
        raise Permanent(f"the label map has shape {label_map.shape}, its source {expected}")


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
