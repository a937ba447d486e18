"""Pictures as DICOM images: DX (also with Modality PX), MG, Ophthalmic Photography 8 Bit, VL Endoscopic.

In: a picture and what a person said of it. Out: the Series, Image and Equipment attributes of one object, without
patient, study and UIDs. What a picture does not tell and nobody said stays empty; never changes a pixel, but for
leaving out the equal colours of a grey one. PS3.3 A.26, A.27, A.41, A.32.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit
from pydicom.valuerep import format_number_as_ds

from pacsnode.errors import Permanent
from pacsnode.wrap.anatomy import (
    BODY_PARTS,
    MAMMOGRAPHIC_VIEWS,
    OPHTHALMIC_DEVICES,
    RADIOGRAPHIC_VIEWS,
    coded,
    scheme_of_ours,
)
from pacsnode.wrap.jpeg import Baseline
from pacsnode.wrap.parts import Content, origin
from pacsnode.wrap.pictures import Picture, is_colourless, luma
from pacsnode.wrap.wanted import RADIOGRAPHS, Wanted

DX_IMAGE = "1.2.840.10008.5.1.4.1.1.1.1"
MG_IMAGE = "1.2.840.10008.5.1.4.1.1.1.2"
OP_8_BIT_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
VL_ENDOSCOPIC_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.1"
_POSITIONERS = {"dx": "", "mg": "MAMMOGRAPHIC", "px": "PANORAMIC"}
_FRAME_TIME = 0x00181063


def image_of(picture: Picture, wanted: Wanted) -> Content:
    """The image of `picture`. Raises Permanent where the kind of object cannot hold it."""
    pixels, jpeg, notes = picture.pixels, picture.jpeg, list(picture.notes)
    if wanted.kind in RADIOGRAPHS:
        if not picture.is_grey:
            pixels, jpeg = _grey(picture, wanted, notes), None
    elif pixels.dtype != np.uint8:
        raise Permanent(f"it has 16 bits, an object of this kind ({wanted.kind}) holds 8; save it with 8 bits")
    dataset = Dataset()
    # A picture of a radiograph was rendered for the eye; a photograph is what the camera made of the light.
    dataset.ImageType = ["DERIVED" if wanted.kind in RADIOGRAPHS else "ORIGINAL", "PRIMARY"]
    dataset.DerivationDescription = "; ".join([origin(picture.format), *notes])
    dataset.InstanceNumber = None
    dataset.PatientOrientation = list(wanted.orientation) or None
    dataset.Manufacturer = ""
    dataset.AcquisitionContextSequence = []
    if wanted.body_part:
        dataset.BodyPartExamined = wanted.body_part
    _put_pixels(dataset, pixels, jpeg)
    _put_loss(dataset, picture)
    if wanted.burned_in:
        dataset.BurnedInAnnotation = wanted.burned_in.upper()
    _KINDS[wanted.kind](dataset, pixels, wanted)
    return Content(dataset, JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian, picture.format, tuple(notes))


def _grey(picture: Picture, wanted: Wanted, notes: list[str]) -> NDArray[np.uint8]:
    """One value a pixel. Raises Permanent where the picture has colours and nobody said to leave them out."""
    if is_colourless(picture.pixels):
        notes.append("grey picture saved in colour: one value a pixel kept")
        return np.ascontiguousarray(picture.pixels[..., 0]).astype(np.uint8, copy=False)
    if not wanted.to_grey:
        raise Permanent(f"it is a coloured picture, {wanted.kind} is grey; --to-grey takes its brightness")
    notes.append("colours left out: brightness (ITU-R BT.601) kept")
    return luma(picture.pixels.astype(np.uint8, copy=False))


def _put_pixels(dataset: Dataset, pixels: NDArray[np.generic], jpeg: Baseline | None) -> None:
    """Image Pixel Module (PS3.3 C.7.6.3)."""
    bits = pixels.dtype.itemsize * 8
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, 0
    if jpeg is not None:
        dataset.PhotometricInterpretation = jpeg.photometric_interpretation
        dataset.PixelData = encapsulate([jpeg.stream])
        dataset["PixelData"].is_undefined_length = True
    else:
        values = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
        dataset.PixelData = values + b"\0" * (len(values) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"


def _put_loss(dataset: Dataset, picture: Picture) -> None:
    """Once lossy, always lossy (PS3.3 C.7.6.1.1.5), however it is stored now."""
    dataset.LossyImageCompression = "01" if picture.lossy_bytes else "00"
    if picture.lossy_bytes:
        ratio = picture.pixels.nbytes / picture.lossy_bytes
        dataset.LossyImageCompressionRatio = format_number_as_ds(round(ratio, 3) or 0.001)
        dataset.LossyImageCompressionMethod = "ISO_10918_1"


def _put_radiograph(dataset: Dataset, pixels: NDArray[np.generic], wanted: Wanted) -> None:
    """DX Series, Anatomy Imaged, Image, Detector, Positioning; Mammography Image (PS3.3 C.8.11)."""
    dataset.SOPClassUID = MG_IMAGE if wanted.kind == "mg" else DX_IMAGE
    dataset.Modality = wanted.kind.upper()
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageLaterality = wanted.laterality
    dataset.AnatomicRegionSequence = _region(wanted)
    dataset.setdefault("BurnedInAnnotation", "YES")  # type 1: as long as nobody said no, there may be a name in it
    # Made for the eye: brighter where less radiation came through. The curve itself is not known.
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    dataset.PresentationLUTShape = "IDENTITY"
    low, high = (0, 255) if pixels.dtype == np.uint8 else (int(np.min(pixels)), int(np.max(pixels)))
    dataset.WindowCenter, dataset.WindowWidth = format_number_as_ds((low + high + 1) / 2), str(high - low + 1)
    dataset.DetectorType = ""
    dataset.ImagerPixelSpacing = [format_number_as_ds(side) for side in wanted.pixel_spacing_mm or ()]
    dataset.PositionerType = _POSITIONERS[wanted.kind]
    if wanted.view:
        dataset.ViewPosition = wanted.view
    if wanted.kind == "mg":
        view = coded(MAMMOGRAPHIC_VIEWS[wanted.view])
        view.ViewModifierCodeSequence = []
        dataset.ViewCodeSequence = [view]
        dataset.OrganExposed = "BREAST"
    elif wanted.view in RADIOGRAPHIC_VIEWS:
        dataset.ViewCodeSequence = [coded(RADIOGRAPHIC_VIEWS[wanted.view])]


def _put_ophthalmic(dataset: Dataset, pixels: NDArray[np.generic], wanted: Wanted) -> None:
    """Ophthalmic Photography Image, Ocular Region Imaged and parameters (PS3.3 C.8.17)."""
    dataset.SOPClassUID, dataset.Modality = OP_8_BIT_IMAGE, "OP"
    dataset.setdefault("BurnedInAnnotation", "YES")  # as for a radiograph
    dataset.ImageLaterality = wanted.laterality
    dataset.AnatomicRegionSequence = _region(wanted) or [coded(BODY_PARTS["EYE"].region)]
    dataset.NumberOfFrames, dataset.FrameIncrementPointer, dataset.FrameTime = 1, _FRAME_TIME, "0"
    dataset.SynchronizationTrigger, dataset.AcquisitionTimeSynchronized = "NO TRIGGER", "N"
    for keyword in ("PatientEyeMovementCommanded", "EmmetropicMagnification", "IntraOcularPressure"):
        setattr(dataset, keyword, None)
    for keyword in ("HorizontalFieldOfView", "PupilDilated", "DetectorType"):
        setattr(dataset, keyword, None)
    for what in ("IlluminationType", "LightPathFilterTypeStack", "ImagePathFilterTypeStack", "Lenses"):
        setattr(dataset, f"{what}CodeSequence", [])
    dataset.RefractiveStateSequence = []
    dataset.AcquisitionDeviceTypeCodeSequence = [coded(OPHTHALMIC_DEVICES[wanted.device])]
    if wanted.device == "not-stated":
        dataset.CodingSchemeIdentificationSequence = [scheme_of_ours()]
    if wanted.pixel_spacing_mm:
        dataset.PixelSpacing = [format_number_as_ds(side) for side in wanted.pixel_spacing_mm]
    if pixels.ndim == 2:
        dataset.PresentationLUTShape = "IDENTITY"


def _put_endoscopic(dataset: Dataset, _pixels: NDArray[np.generic], wanted: Wanted) -> None:
    """VL Image Module (PS3.3 C.8.12.1). Burned In Annotation is type 3: absent says that nobody knows."""
    dataset.SOPClassUID, dataset.Modality = VL_ENDOSCOPIC_IMAGE, "ES"
    if region := _region(wanted):
        dataset.AnatomicRegionSequence = region


def _region(wanted: Wanted) -> list[Dataset]:
    return [coded(BODY_PARTS[wanted.body_part].region)] if wanted.body_part in BODY_PARTS else []


_KINDS: Mapping[str, Callable[[Dataset, NDArray[np.generic], Wanted], None]] = {
    **dict.fromkeys(RADIOGRAPHS, _put_radiograph),
    "op": _put_ophthalmic,
    "endoscopy": _put_endoscopic,
}
