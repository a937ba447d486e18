"""Measurement groups of structured reports: what was seen in one input, by the templates of PS3.16.

In: a group of findings, and its SEG if there is one. Out: containers by TID 1501 (the whole input), TID 1411 (each
segment) and TID 1410 (each region). A number that was got from places has a group of its own, by TID 1501 with the
coordinates below the number. Viewers draw both (OHIF 3.12 does), and write the group's comments over the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from pacsnode.dicom.codes import (
    ABSENT,
    FINDING,
    FINDING_CATEGORY,
    FINDING_SITE,
    IMAGE_REGION,
    LATERALITY,
    MEASUREMENT_GROUP,
    PERCENT,
    PRESENT,
    PROBABILITY,
    REFERENCED_SEGMENT,
    SEGMENTED_IMAGE,
    SEGMENTED_SERIES,
    SERIES_INSTANCE_UID,
    SOURCE,
    SOURCE_OF_MEASUREMENT,
    TRACKING_IDENTIFIER,
    TRACKING_UID,
    UNDETERMINED,
    Concept,
)
from pacsnode.encode.provenance import Origin, algorithm_template
from pacsnode.encode.regions import check_regions, graphic
from pacsnode.encode.sr_items import (
    code,
    comment,
    container,
    coordinates,
    image,
    number,
    reference_to,
    text,
    uid,
    waveform,
)
from pacsnode.errors import Permanent
from pacsnode.findings import Evaluation, Group, Measurement, Presence, Region, Segment

_SERIES = BaseTag(0x0020000E)
_PRESENCE = {Presence.PRESENT: PRESENT, Presence.ABSENT: ABSENT, Presence.UNDETERMINED: UNDETERMINED}


@dataclass(frozen=True)
class _Seen:
    """A group of findings on its way. `segmented`: the segments that the SEG holds, in its order; `by`: TID 4019.

    `series`: of a volume, whose images all belong to it; else None.
    """

    group: Group
    origin: Origin
    by: Sequence[Dataset]
    segmentation: Dataset | None
    segmented: tuple[Segment, ...]
    regions: Mapping[str, Region]
    sources: Sequence[Dataset]
    series: str | None


def groups(findings: Group, origin: Origin, segmentation: Dataset | None) -> list[Dataset]:
    """The containers of one group of findings, one at least. Raises Permanent for what cannot be right."""
    check_regions(findings, origin.sources)
    by = algorithm_template(origin.algorithm, origin.request.case.rules_hash)
    segmented = _segmented(findings, origin, segmentation) if segmentation is not None else ()
    regions = {region.key: region for region in findings.regions}
    sources = [origin.sources[one] for one in findings.source]
    seen = _Seen(findings, origin, by, segmentation, segmented, regions, sources, _one_series(sources))
    made = [_region(seen, region) for region in findings.regions if not _is_only_a_place(region, findings)]
    made += [_segment(seen, n, segment) for n, segment in enumerate(segmented, start=1)]
    made += [_drawn(seen, region) for region in findings.regions if any(one.regions for one in region.measurements)]
    made += [_placed(seen, one) for one in findings.measurements if one.regions]
    whole = _whole(seen)
    return [whole, *made] if whole is not None else made


def _whole(seen: _Seen) -> Dataset | None:
    """TID 1501: what was found in the whole input, and what belongs to no segment; None where it would say nothing."""
    group = seen.group
    elsewhere = {(s.type, s.laterality) for s in seen.segmented}
    said = [_measurement(m) for m in group.measurements if not m.regions and (m.site, m.laterality) not in elsewhere]
    said += [_evaluation(one) for one in group.evaluations]
    notes = [*group.notes, *(f"Nothing found of: {segment.label}" for segment in _missing(seen))]
    if not said and not notes and (seen.segmented or group.regions):
        return None
    items = [*said, *(comment("CONTAINS", note) for note in notes if note)]
    if seen.series is not None:
        series = uid("HAS ACQ CONTEXT", SERIES_INSTANCE_UID, seen.series)
        return _group(seen, "1501", seen.origin.tracking(group), items, [series])
    for header in seen.sources:
        refer = image if "Rows" in header else waveform
        items.append(refer("CONTAINS", SOURCE_OF_MEASUREMENT, reference_to(header)))
    return _group(seen, "1501", seen.origin.tracking(group), items)


def _segmented(group: Group, origin: Origin, segmentation: Dataset) -> tuple[Segment, ...]:
    """The segments that the SEG holds, in its order: by their tracking UIDs, without a look at the label map."""
    tracked = {origin.tracking(group, segment)[1]: segment for segment in group.segments}
    # A label map has an item for its background too, number 0, which nobody tracks.
    return tuple(tracked[str(item.TrackingUID)] for item in segmentation.SegmentSequence if item.SegmentNumber)


def _missing(seen: _Seen) -> list[Segment]:
    """Segments of which the label maps have nothing."""
    others = [segment for segment in seen.group.segments if segment not in seen.segmented]
    if not others or not seen.group.maps:
        return []
    occupied = seen.group.occupied
    return [one for one in others if not occupied[:, one.value].any()]


def _one_series(sources: Sequence[Dataset]) -> str | None:
    """Of a volume, whose images would stand hundreds of times; the image library has them once."""
    series = {str(header[_SERIES].value) for header in sources} if len(sources) > 1 else set()
    return series.pop() if len(series) == 1 else None


def _segment(seen: _Seen, place: int, segment: Segment) -> Dataset:
    """TID 1411, also of a plane image: TID 1410 refers to frames of the SEG, which dciodvfy refuses."""
    assert seen.segmentation is not None
    if seen.series is not None:
        origins = [uid("CONTAINS", SEGMENTED_SERIES, seen.series)]
    else:
        origins = [image("CONTAINS", SEGMENTED_IMAGE, reference_to(header)) for header in seen.sources]
    here = [
        _measurement(one)
        for one in seen.group.measurements
        if not one.regions and (one.site, one.laterality) == (segment.type, segment.laterality)
    ]
    items = [*here, image("CONTAINS", REFERENCED_SEGMENT, reference_to(seen.segmentation, segment=place)), *origins]
    what = _finding(segment.category, segment.type, segment.type, segment.laterality)
    return _group(seen, "1411", seen.origin.tracking(seen.group, segment), items, what)


def _region(seen: _Seen, region: Region) -> Dataset:
    """TID 1410: the place, and what is said of it; TID 1411 where it goes through several images."""
    said = [_measurement(one) for one in _numbers(region)]
    if region.presence is not None:
        said.append(code("CONTAINS", region.type, _PRESENCE[region.presence]))
    if region.comment:
        said.append(comment("CONTAINS", region.comment))
    on = [(region.image, region.frame), *region.also]
    items = [*said, *(_coordinates(seen, region, place, is_number=False) for place in on)]
    what = _finding(region.category, region.type, region.site, region.laterality)
    return _group(seen, "1411" if region.also else "1410", seen.origin.tracking_of(region, region.key), items, what)


def _drawn(seen: _Seen, region: Region) -> Dataset:
    """TID 1501: numbers of a region that were got from another place, such as the line of its length, with that."""
    numbers = [_with_places(seen, one, one.regions) for one in region.measurements if one.regions]
    what = _finding(region.category, region.type, region.site, region.laterality)
    return _group(seen, "1501", seen.origin.tracking_of(region, f"{region.key} drawn"), numbers, what)


def _placed(seen: _Seen, measurement: Measurement) -> Dataset:
    """TID 1501: one number that was got from places; what else is to be said of it stands beside it."""
    items = [_with_places(seen, measurement, measurement.regions)]
    if measurement.derivation:
        items.append(comment("CONTAINS", measurement.derivation))
    places = [seen.regions[key] for key in measurement.regions]
    tracking = seen.origin.tracking_of(places[0], measurement.name.meaning, *(one.key for one in places[1:]))
    return _group(seen, "1501", tracking, items, _sites(measurement.site, measurement.laterality))


def _numbers(region: Region) -> list[Measurement]:
    """Those of a region, its probability among them."""
    if region.probability is None:
        return list(region.measurements)
    return [*region.measurements, Measurement(PROBABILITY, region.probability * 100, PERCENT)]


def _is_only_a_place(region: Region, group: Group) -> bool:
    """Whether a region says nothing of itself, and stands at the number that was got from it."""
    is_named = any(region.key in one.regions for one in group.measurements)
    return is_named and not _numbers(region) and region.presence is None and not region.comment


def _group(
    seen: _Seen, template: str, tracking: tuple[str, str], items: Sequence[Dataset], what: Sequence[Dataset] = ()
) -> Dataset:
    identifier, tracking_uid = tracking
    heading = [
        text("HAS OBS CONTEXT", TRACKING_IDENTIFIER, identifier),
        uid("HAS OBS CONTEXT", TRACKING_UID, tracking_uid),
    ]
    return container("CONTAINS", MEASUREMENT_GROUP, [*heading, *what, *seen.by, *items], template)


def _finding(category: Concept, finding: Concept, site: Concept | None, laterality: Concept | None) -> list[Dataset]:
    """What a segment or region is, and where in the body."""
    side = [] if site is not None or laterality is None else [code("HAS CONCEPT MOD", LATERALITY, laterality)]
    return [
        code("CONTAINS", FINDING_CATEGORY, category),
        code("CONTAINS", FINDING, finding, side),
        *(_sites(site, laterality) if site is not None else ()),
    ]


def _coordinates(seen: _Seen, region: Region, on: tuple[str, int | None], *, is_number: bool) -> Dataset:
    """The outline of a region on one image, or below a number the place from which it was got."""
    reference = reference_to(seen.origin.sources[on[0]], frame=on[1])
    source = image("SELECTED FROM", SOURCE, reference)
    if is_number:
        return coordinates("INFERRED FROM", SOURCE, graphic(region), source)
    return coordinates("CONTAINS", IMAGE_REGION, graphic(region), source)


def _with_places(seen: _Seen, measurement: Measurement, keys: Sequence[str]) -> Dataset:
    """NUM with nothing but coordinates below it: viewers take the first child for them."""
    regions = [seen.regions[key] for key in keys]
    places = [_coordinates(seen, one, (one.image, one.frame), is_number=True) for one in regions]
    return number("CONTAINS", measurement.name, measurement.value, measurement.unit, places)


def _measurement(measurement: Measurement) -> Dataset:
    children = _sites(measurement.site, measurement.laterality)
    if measurement.derivation:
        children.append(comment("HAS PROPERTIES", measurement.derivation))
    return number("CONTAINS", measurement.name, measurement.value, measurement.unit, children)


def _evaluation(evaluation: Evaluation) -> Dataset:
    children = _sites(evaluation.site, evaluation.laterality)
    if evaluation.probability is not None:
        if not 0 <= evaluation.probability <= 1:
            raise Permanent(f"the probability of {evaluation.name.meaning} is {evaluation.probability}")
        children.append(number("HAS PROPERTIES", PROBABILITY, float(f"{evaluation.probability * 100:.4g}"), PERCENT))
    if evaluation.comment:
        children.append(comment("HAS PROPERTIES", evaluation.comment))
    return code("CONTAINS", evaluation.name, _PRESENCE[evaluation.presence], children)


def _sites(site: Concept | None, laterality: Concept | None) -> list[Dataset]:
    """Where in the body, as modifiers; a side without a site stands alone."""
    side = [code("HAS CONCEPT MOD", LATERALITY, laterality)] if laterality is not None else []
    if site is None:
        return side
    return [code("HAS CONCEPT MOD", FINDING_SITE, site, side)]
