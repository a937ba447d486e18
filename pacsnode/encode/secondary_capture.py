"""Secondary captures: the result as a picture, for viewers that show neither SR nor SEG.

In: a group with pictures or a trace, and the headers of its sources. Out: an SC image in 8-bit RGB without patient and
study yet (see `header.stamp`). The pixels say that the result is unverified, and name no patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pacsnode.dicom.codes import SOURCE_IMAGE, SOURCE_OF_MEASUREMENT
from pacsnode.encode.captions import captions
from pacsnode.encode.drawing import BANNER
from pacsnode.encode.ecg_page import ecg_page
from pacsnode.encode.header import evidence
from pacsnode.encode.marking import View
from pacsnode.encode.overlay import heading, image_page, pages
from pacsnode.encode.provenance import Origin, coded
from pacsnode.errors import Permanent
from pacsnode.findings import Group

MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.4"


def is_drawable(group: Group) -> bool:
    """Whether there is something to draw."""
    return group.picture is not None or group.trace is not None or group.pictures is not None


def page(group: Group, origin: Origin) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8: what the capture shows first."""
    return next(every_page(group, origin))


def every_page(group: Group, origin: Origin) -> Iterator[NDArray[np.uint8]]:
    """(rows, columns, 3) uint8, all of one size: one of a recording or image, several of a volume or clip."""
    if group.trace is not None:
        yield ecg_page(group, group.trace, origin.algorithm)
    elif group.picture is not None:
        yield image_page(group, group.picture, origin.algorithm)
    elif group.pictures is not None:
        shown, texts = group.pictures, captions(group, group.pictures.planes, origin)
        views = [
            View(pixels, shown.size, plane, text)
            for pixels, plane, text in zip(shown.pixels, shown.planes, texts, strict=True)
        ]
        yield from pages(group, views, heading(origin.algorithm))
    else:
        raise Permanent("there is no picture to draw")


def secondary_capture(group: Group, index: int, origin: Origin) -> Dataset:
    """The SC image of `group`: of several pages, a Multi-frame True Color SC with the one to look at first.

    One object and not forty: it is kept, delivered and confirmed whole. Its frames are pages (Page Number Vector), so
    that no viewer plays them as a film.
    """
    header = origin.sources[group.source[0]]
    drawn = every_page(group, origin)
    first = next(drawn)
    dataset = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=evidence(header),
        pixel_array=first,
        photometric_interpretation=hd.PhotometricInterpretationValues.RGB,
        bits_allocated=8,
        coordinate_system=hd.CoordinateSystemNames.PATIENT,
        patient_orientation=("L", "F"),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **origin.constructor("sc", index),
    )
    # A page has no orientation and no side; both are type 2C, and highdicom takes no empty ones.
    dataset.PatientOrientation = None
    dataset.Laterality = None
    dataset.ConversionType = "WSD"
    dataset.DateOfSecondaryCapture = origin.request.started.strftime("%Y%m%d")
    dataset.TimeOfSecondaryCapture = origin.request.started.strftime("%H%M%S")
    dataset.DerivationDescription = BANNER
    # What the console burnt into its image is in ours too; where it does not say, it may have (PS3.3 C.7.6.1.1.4).
    is_clean = group.trace is not None or header.get("BurnedInAnnotation") == "NO"
    dataset.BurnedInAnnotation = "NO" if is_clean else "YES"
    if group.pictures is not None and len(group.pictures.planes) > 1:
        _add_pages(dataset, first, drawn)
    _refer(dataset, group, origin)
    if "RequestAttributesSequence" in header:
        dataset.RequestAttributesSequence = header.RequestAttributesSequence
    return dataset


def _add_pages(dataset: Dataset, first: NDArray[np.uint8], others: Iterable[NDArray[np.uint8]]) -> None:
    """Make a Multi-frame True Color SC (PS3.3 A.8.5) of a single-frame one, in place."""
    pixels = bytearray(first.tobytes())
    count = 1
    for other in others:
        pixels += other.tobytes()
        count += 1
    dataset.SOPClassUID = MULTI_FRAME
    dataset.NumberOfFrames = count
    dataset.FrameIncrementPointer = Tag("PageNumberVector")
    dataset.PageNumberVector = list(range(1, count + 1))
    dataset.PixelData = bytes(pixels) + b"\0" * (len(pixels) % 2)


def _refer(dataset: Dataset, group: Group, origin: Origin) -> None:
    """Source Image Sequence, or Source Instance Sequence for waveforms (PS3.3 C.12.4): of what is drawn."""
    planes = group.pictures.planes if group.pictures is not None else range(len(group.source))
    several = len(group.source) > 1
    headers = (
        [origin.sources[group.source[plane]] for plane in planes] if several else [origin.sources[group.source[0]]]
    )
    for is_image, keyword in ((True, "SourceImageSequence"), (False, "SourceInstanceSequence")):
        items = []
        for header in headers:
            if ("Rows" in header) is is_image:
                item = Dataset()
                item.ReferencedSOPClassUID = header.SOPClassUID
                item.ReferencedSOPInstanceUID = header.SOPInstanceUID
                if not several and group.pictures is not None and is_image:
                    item.ReferencedFrameNumber = [group.frames[n] if group.frames else n + 1 for n in planes]
                item.PurposeOfReferenceCodeSequence = [coded(SOURCE_IMAGE if is_image else SOURCE_OF_MEASUREMENT)]
                items.append(item)
        if items:
            setattr(dataset, keyword, items)
