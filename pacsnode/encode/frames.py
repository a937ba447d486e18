"""The frames of an enhanced multi-frame object that were analysed, as highdicom takes a source, and back.

In: the normalised header of the object and the numbers (from 1) of the frames in the order of the label map. Out: a
header that holds just these frames, each with one place; then, in the finished object, the frames' own numbers. Never
keeps a frame that was not analysed: two phases lie at the same places, which highdicom refuses.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from pacsnode.errors import Permanent

_SHARED = ("PlaneOrientationSequence", "PixelMeasuresSequence")


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
    copy.NumberOfFrames = len(frames)
    copy.SharedFunctionalGroupsSequence = [common]
    copy.PerFrameFunctionalGroupsSequence = kept
    return copy


def name_frames(segmentation: Dataset, frames: Sequence[int]) -> None:
    """Put the numbers that the source's frames really have into the references of `segmentation`, in place."""
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence", []):
            for source in derivation.SourceImageSequence:
                source.ReferencedFrameNumber = frames[int(source.ReferencedFrameNumber) - 1]
