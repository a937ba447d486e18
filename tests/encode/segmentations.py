"""Sources without pixels of interest, findings on them, and two readers of a SEG: highdicom, and one of plain bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from pacsnode.encode.build import encode
from pacsnode.findings import Findings, Group, Segment
from pacsnode.handover import Form, ResultKind, ResultObject, SegmentationForm
from tests.encode.cases import ANATOMY, CHEST, LUNG, request
from tests.infer.bundles import CT, image, saved

ULTRASOUND_CLIP = "1.2.840.10008.5.1.4.1.1.3.1"
Masks = NDArray[np.bool_]
"""(segments, planes, rows, columns)"""


def segments(count: int, *, may_be_absent: bool = False) -> tuple[Segment, ...]:
    """Numbered from 1."""
    return tuple(
        Segment(n, f"Lesion {n}", ANATOMY, LUNG, may_be_absent=may_be_absent, color_rgb=(20 * n, 255 - 20 * n, 0))
        for n in range(1, count + 1)
    )


def ct_series(folder: Path, planes: int, rows: int, columns: int, **attributes: Any) -> list[Path]:
    """Axial slices 2 mm apart, in the order of the planes."""
    folder.mkdir(parents=True, exist_ok=True)
    fixed = {
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.5],
        "SliceThickness": 2,
        "FrameOfReferenceUID": "2.25.5",
        "PositionReferenceIndicator": "",
        "PatientPosition": "HFS",
    }
    pixels = np.zeros((rows, columns), dtype=np.uint16)
    return [
        saved(
            image(
                pixels, CT, **(fixed | {"ImagePositionPatient": [0, 0, 2 * n], "InstanceNumber": n + 1} | attributes)
            ),
            folder / f"{n}.dcm",
        )
        for n in range(planes)
    ]


def clip(folder: Path, frames: int, rows: int, columns: int, **attributes: Any) -> Path:
    """An ultrasound multi-frame object: no frame of reference, no position."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = image(np.zeros((rows, columns), dtype=np.uint8), ULTRASOUND_CLIP, **({"Modality": "US"} | attributes))
    dataset.NumberOfFrames = frames
    dataset.PixelData = bytes(rows * columns * frames + rows * columns * frames % 2)
    dataset.FrameTime = 40
    dataset.FrameIncrementPointer = 0x00181063
    return saved(dataset, folder / f"{generate_uid()}.dcm")


def group_of(files: Sequence[Path], masks: Masks, **changes: Any) -> Group:
    """One label map where no pixel has two segments, else one a segment."""
    if (masks.sum(axis=0) <= 1).all():
        numbers = np.arange(1, len(masks) + 1, dtype=np.uint8)[:, None, None, None]
        maps = [(masks * numbers).sum(axis=0, dtype=np.uint8)]
    else:
        maps = [(one * n).astype(np.uint8) for n, one in enumerate(masks, 1)]
    uids = tuple(str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files)
    made = Group(source=uids, segments=segments(len(masks)), label_map=maps[0], overlaid=tuple(maps[1:]))
    return replace(made, **changes)


def encoded(
    folder: Path,
    files: Sequence[Path],
    group: Group,
    form: SegmentationForm = "binary",
    results: tuple[ResultKind, ...] = ("seg", "sr"),
) -> tuple[ResultObject, ...]:
    """These objects of the case in this form."""
    asked = replace(request(folder, *files, results=results), form=Form(seg=form))
    return encode(Findings(CHEST, (group,)), asked)


def by_highdicom(path: Path, files: Sequence[Path], shape: tuple[int, ...]) -> NDArray[Any]:
    """The pixels of each segment on each plane, fractions from 0 to 1; `shape`: as Masks."""
    read = hd.seg.segread(path)
    uids = [str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files]
    numbers = [n for n in read.segment_numbers if n > 0]
    if len(files) == 1 and shape[1] > 1:
        given = read.get_pixels_by_source_frame(
            uids[0], list(range(1, shape[1] + 1)), numbers, assert_missing_frames_are_empty=True
        )
    else:
        given = read.get_pixels_by_source_instance(uids, numbers, assert_missing_frames_are_empty=True)
    return _placed(np.moveaxis(given, 3, 0), [read.get_segment_description(n).segment_label for n in numbers], shape)


def by_bits(path: Path, files: Sequence[Path], shape: tuple[int, ...]) -> NDArray[Any]:
    """The same, from nothing but the bytes of Pixel Data and the attributes of PS3.3 C.7.6.16 and C.8.20."""
    dataset = pydicom.dcmread(path)
    size = int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns)
    stored = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    if dataset.SegmentationType == "BINARY":
        stored = np.unpackbits(stored, bitorder="little")
    else:
        assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (8, 8, 7)
    frames = stored[: np.prod(size)].reshape(size)
    uids = [str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files]
    labels = {int(s.SegmentNumber): str(s.SegmentLabel) for s in dataset.SegmentSequence if s.SegmentNumber}
    found = np.zeros((len(labels), *shape[1:]), dtype=np.float64)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for pixels, own in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        (source,) = own.DerivationImageSequence[0].SourceImageSequence
        one = uids.index(str(source.ReferencedSOPInstanceUID))
        plane = int(source.ReferencedFrameNumber) - 1 if "ReferencedFrameNumber" in source else one
        assert pixels.any()  # frames without a segment are left out
        if dataset.SegmentationType == "LABELMAP":
            for number in labels:
                found[number - 1, plane] = pixels == number
            continue
        holder = own if "SegmentIdentificationSequence" in own else shared
        number = int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        found[number - 1, plane] = pixels / int(dataset.get("MaximumFractionalValue", 1))
    return _placed(found, list(labels.values()), shape)


def _placed(given: NDArray[Any], labels: Sequence[str], shape: tuple[int, ...]) -> NDArray[Any]:
    """By the number in the label of each segment, since segments without a pixel are not in the SEG."""
    found = np.zeros(shape, dtype=np.float64)
    for pixels, label in zip(given, labels, strict=True):
        found[int(label.rpartition(" ")[2]) - 1] = pixels
    return found


READERS = (by_highdicom, by_bits)
