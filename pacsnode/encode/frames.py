"""The frames of a multi-frame source as highdicom takes them, and the frames of a segmentation with their sources.

In: the normalised header of an enhanced object or a clip, the numbers (from 1) of the frames that were analysed, and a
segmentation that highdicom made of a source of one pixel a frame. Out: the source with just these frames, each with one
place; and one item a frame of the segmentation. Never keeps a frame that was not analysed: two phases lie at the same
places, which highdicom refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from highdicom._standard_utils import is_attribute_in_iod
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from pacsnode.encode.masks import Frame
from pacsnode.errors import Permanent

_SHARED = ("PlaneOrientationSequence", "PixelMeasuresSequence")
_ROOT_PLACE = ("ImagePositionPatient", "ImageOrientationPatient")
"""Where they stand in an object of many frames, they are at most true of one."""
_OWN = {tag_for_keyword(keyword) for keyword in ("FrameContentSequence", "SegmentIdentificationSequence")}


def put(dataset: Dataset, keyword: str, value: object) -> None:
    """Set an attribute of a copy: pydicom's own assignment changes the element, which the original has too."""
    dataset.add_new(keyword, dictionary_VR(keyword), value)


def count(header: Dataset) -> int:
    """How many frames the object has."""
    return int(header.get("NumberOfFrames") or 1)


def is_clip(header: Dataset) -> bool:
    """Whether the object may have several frames and does not say where each lies in the patient."""
    if count(header) == 1 and not is_attribute_in_iod("NumberOfFrames", header.SOPClassUID):
        return False
    return not any(
        "PlanePositionSequence" in item
        for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
        for item in (header.get(keyword) or [])[:1]
    )


def only_frames(header: Dataset, frames: Sequence[int]) -> Dataset:
    """A copy of `header` as if the object had `frames` only, in this order. Raises Permanent where it lacks one."""
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    if not groups or not frames or min(frames) < 1 or max(frames) > len(groups):
        raise Permanent("the findings name a frame that the multi-frame source does not describe")
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    common = Dataset()
    for keyword in _SHARED:
        first = groups[frames[0] - 1]
        setattr(common, keyword, (first if keyword in first else shared)[keyword].value)
    kept = []
    for number in frames:
        item = Dataset()
        group = groups[number - 1]
        holder = group if "PlanePositionSequence" in group else shared
        item.PlanePositionSequence = holder.PlanePositionSequence
        kept.append(item)
    copy = Dataset()
    copy.update(header)
    put(copy, "NumberOfFrames", len(frames))
    put(copy, "SharedFunctionalGroupsSequence", [common])
    put(copy, "PerFrameFunctionalGroupsSequence", kept)
    return copy


def as_still(clip: Dataset) -> Dataset:
    """A copy of a clip's header as if it had one frame: highdicom takes several only where they have places."""
    common, copy = Dataset(), Dataset()
    common.PixelMeasuresSequence = [Dataset()]  # of which highdicom asks
    copy.update(clip)
    for keyword in _ROOT_PLACE:
        copy.pop(keyword, None)
    put(copy, "NumberOfFrames", 1)
    put(copy, "SharedFunctionalGroupsSequence", [common])
    put(copy, "PerFrameFunctionalGroupsSequence", [Dataset()])
    return copy


def by_plane(segmentation: Dataset, source: Sequence[str]) -> dict[int, Dataset]:
    """The item that highdicom made for each plane (from 0), in its order; `source` as in Group."""
    place = {uid: plane for plane, uid in enumerate(source)}
    found = {}
    for item in segmentation.PerFrameFunctionalGroupsSequence:
        named = _source(item)
        number = named.get("ReferencedFrameNumber")
        found[int(number) - 1 if number else place[str(named.ReferencedSOPInstanceUID)]] = item
    return found


def number_frames(planes: Mapping[int, Dataset], frames: Sequence[int]) -> None:
    """Put the numbers that the source's frames really have into the items, in place."""
    for plane, item in planes.items():
        _source(item).ReferencedFrameNumber = frames[plane]


def clip_planes(still: Dataset, planes: Sequence[int], frames: Sequence[int]) -> dict[int, Dataset]:
    """Items for these planes of a clip, by time: that of the `still`, each with the number of its frame."""
    found = {}
    of_segment = [1] if "FrameLabel" not in still.FrameContentSequence[0] else []  # a label map has none
    for ordinal, plane in enumerate(planes, start=1):
        derivation, named, content, item = Dataset(), Dataset(), Dataset(), Dataset()
        named.update(_source(still))
        put(named, "ReferencedFrameNumber", frames[plane])
        derivation.update(still.DerivationImageSequence[0])
        put(derivation, "SourceImageSequence", [named])
        content.TemporalPositionIndex = ordinal
        content.DimensionIndexValues = [*of_segment, ordinal]
        item.update(still)
        put(item, "DerivationImageSequence", [derivation])
        put(item, "FrameContentSequence", [content])
        found[plane] = item
    return found


def count_frames_of_clip(segmentation: Dataset) -> None:
    """The frames of a clip differ in time: say so where highdicom, which knew of one frame, names no such dimension."""
    organization = segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID
    dimension = Dataset()
    dimension.DimensionOrganizationUID = organization
    dimension.DimensionIndexPointer = tag_for_keyword("TemporalPositionIndex")
    dimension.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
    dimension.DimensionDescriptionLabel = "Position in time"
    segments = [
        one
        for one in segmentation.DimensionIndexSequence
        if one.DimensionIndexPointer == tag_for_keyword("ReferencedSegmentNumber")
    ]
    segmentation.DimensionIndexSequence = [*segments, dimension]


def items(planes: Mapping[int, Dataset], frames: Sequence[Frame]) -> Iterator[Dataset]:
    """Per-frame Functional Groups: of each frame the item of its plane, with the number of its segment."""
    for number, plane in frames:
        common, item, content = planes[plane], Dataset(), Dataset()
        if not number:
            yield common
            continue
        for element in common:
            if element.tag not in _OWN:
                item.add(element)
        content.update(common.FrameContentSequence[0])
        values = content.DimensionIndexValues
        put(content, "DimensionIndexValues", number if isinstance(values, int) else [number, *list(values)[1:]])
        item.FrameContentSequence = [content]
        if "SegmentIdentificationSequence" in common:
            named = Dataset()
            named.ReferencedSegmentNumber = number
            item.SegmentIdentificationSequence = [named]
        yield item


def _source(item: Dataset) -> Dataset:
    found: Dataset = item.DerivationImageSequence[0].SourceImageSequence[0]
    return found
