"""Secondary captures: the result as a picture, for viewers that show neither SR nor SEG.

In: a group with a picture or a trace, and the header of its source. Out: a highdicom SC image in 8-bit RGB without
patient and study yet (see `header.stamp`). The pixels say that the result is unverified, and name no patient.
"""

from __future__ import annotations

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.dicom.codes import Concept
from pacsnode.encode.drawing import BANNER
from pacsnode.encode.ecg_page import ecg_page
from pacsnode.encode.header import evidence
from pacsnode.encode.overlay import image_page
from pacsnode.encode.provenance import Origin, coded
from pacsnode.errors import Permanent
from pacsnode.findings import Group

SOURCE_IMAGE = Concept("121322", "DCM", "Source image for image processing operation")
SOURCE_OF_MEASUREMENT = Concept("121112", "DCM", "Source of Measurement")


def is_drawable(group: Group) -> bool:
    """Whether there is something to draw."""
    return group.picture is not None or group.trace is not None


def page(group: Group, origin: Origin) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8: what the capture shows."""
    if group.trace is not None:
        return ecg_page(group, group.trace, origin.algorithm)
    if group.picture is None or group.picture.ndim != 2:
        raise Permanent("there is no plane picture to draw")
    return image_page(group, group.picture, origin.algorithm)


def secondary_capture(group: Group, index: int, origin: Origin) -> Dataset:
    """The SC image of `group`."""
    header = origin.sources[group.source[0]]
    dataset = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=evidence(header),
        pixel_array=page(group, origin),
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
    _refer(dataset, [origin.sources[uid] for uid in group.source])
    if "RequestAttributesSequence" in header:
        dataset.RequestAttributesSequence = header.RequestAttributesSequence
    return dataset


def _refer(dataset: Dataset, headers: list[Dataset]) -> None:
    """Source Image Sequence, or Source Instance Sequence for waveforms (PS3.3 C.12.4)."""
    for is_image, keyword in ((True, "SourceImageSequence"), (False, "SourceInstanceSequence")):
        items = []
        for header in headers:
            if ("Rows" in header) is is_image:
                item = Dataset()
                item.ReferencedSOPClassUID = header.SOPClassUID
                item.ReferencedSOPInstanceUID = header.SOPInstanceUID
                item.PurposeOfReferenceCodeSequence = [coded(SOURCE_IMAGE if is_image else SOURCE_OF_MEASUREMENT)]
                items.append(item)
        if items:
            setattr(dataset, keyword, items)
