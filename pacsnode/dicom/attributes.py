"""THE attribute table: one row makes a DICOM attribute readable from a header and usable in a rule.

In: nothing. Out: `ATTRIBUTES` and look-ups into it. Header reader, index columns, rule names and API fields follow
from the rows. The VRs stand here so that the receiving process need not load a data dictionary; a test compares
them with pydicom's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["patient", "study", "series", "instance"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute; `sequence` is the tag of the top-level sequence in whose items it stands, 0 for none.

    `keyword` is the keyword of PS3.6, except where an attribute lies in a sequence: there it is a name of its own,
    and the values of all items are joined. `tag` 0 marks what the header reader itself finds out.
    """

    keyword: str
    tag: int
    vr: str
    level: Level
    sequence: int = 0


SPECIFIC_CHARACTER_SET = 0x0008_0005
PIXEL_DATA = frozenset({0x7FE0_0008, 0x7FE0_0009, 0x7FE0_0010})
"""Float Pixel Data, Double Float Pixel Data, Pixel Data."""

HAS_PIXEL_DATA = Attribute("HasPixelData", 0, "CS", "instance")
"""YES or NO: whether one of `PIXEL_DATA` is in the data set."""

ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("PatientName", 0x0010_0010, "PN", "patient"),
    Attribute("PatientID", 0x0010_0020, "LO", "patient"),
    Attribute("IssuerOfPatientID", 0x0010_0021, "LO", "patient"),
    Attribute("PatientBirthDate", 0x0010_0030, "DA", "patient"),
    Attribute("PatientSex", 0x0010_0040, "CS", "patient"),
    Attribute("StudyDate", 0x0008_0020, "DA", "study"),
    Attribute("StudyTime", 0x0008_0030, "TM", "study"),
    Attribute("AccessionNumber", 0x0008_0050, "SH", "study"),
    Attribute("ReferringPhysicianName", 0x0008_0090, "PN", "study"),
    Attribute("StudyDescription", 0x0008_1030, "LO", "study"),
    Attribute("PatientAge", 0x0010_1010, "AS", "study"),
    Attribute("StudyInstanceUID", 0x0020_000D, "UI", "study"),
    Attribute("StudyID", 0x0020_0010, "SH", "study"),
    Attribute("RequestedProcedureDescription", 0x0032_1060, "LO", "study"),
    Attribute("SeriesDate", 0x0008_0021, "DA", "series"),
    Attribute("SeriesTime", 0x0008_0031, "TM", "series"),
    Attribute("Modality", 0x0008_0060, "CS", "series"),
    Attribute("Manufacturer", 0x0008_0070, "LO", "series"),
    Attribute("InstitutionName", 0x0008_0080, "LO", "series"),
    Attribute("StationName", 0x0008_1010, "SH", "series"),
    Attribute("SeriesDescription", 0x0008_103E, "LO", "series"),
    Attribute("ManufacturerModelName", 0x0008_1090, "LO", "series"),
    Attribute("BodyPartExamined", 0x0018_0015, "CS", "series"),
    Attribute("SoftwareVersions", 0x0018_1020, "LO", "series"),
    Attribute("ProtocolName", 0x0018_1030, "LO", "series"),
    Attribute("PatientPosition", 0x0018_5100, "CS", "series"),
    Attribute("SeriesInstanceUID", 0x0020_000E, "UI", "series"),
    Attribute("SeriesNumber", 0x0020_0011, "IS", "series"),
    Attribute("FrameOfReferenceUID", 0x0020_0052, "UI", "series"),
    Attribute("Laterality", 0x0020_0060, "CS", "series"),
    Attribute("PerformedProcedureStepDescription", 0x0040_0254, "LO", "series"),
    Attribute("ImageType", 0x0008_0008, "CS", "instance"),
    Attribute("SOPClassUID", 0x0008_0016, "UI", "instance"),
    Attribute("SOPInstanceUID", 0x0008_0018, "UI", "instance"),
    Attribute("AcquisitionDate", 0x0008_0022, "DA", "instance"),
    Attribute("ContentDate", 0x0008_0023, "DA", "instance"),
    Attribute("AcquisitionDateTime", 0x0008_002A, "DT", "instance"),
    Attribute("AcquisitionTime", 0x0008_0032, "TM", "instance"),
    Attribute("ContentTime", 0x0008_0033, "TM", "instance"),
    Attribute("PresentationIntentType", 0x0008_0068, "CS", "instance"),
    Attribute("AnatomicRegionCodeValue", 0x0008_0100, "SH", "instance", sequence=0x0008_2218),
    Attribute("AnatomicRegionCodeMeaning", 0x0008_0104, "LO", "instance", sequence=0x0008_2218),
    Attribute("ContrastBolusAgent", 0x0018_0010, "LO", "instance"),
    Attribute("ScanningSequence", 0x0018_0020, "CS", "instance"),
    Attribute("SequenceVariant", 0x0018_0021, "CS", "instance"),
    Attribute("AngioFlag", 0x0018_0025, "CS", "instance"),
    Attribute("SliceThickness", 0x0018_0050, "DS", "instance"),
    Attribute("KVP", 0x0018_0060, "DS", "instance"),
    Attribute("RepetitionTime", 0x0018_0080, "DS", "instance"),
    Attribute("EchoTime", 0x0018_0081, "DS", "instance"),
    Attribute("MagneticFieldStrength", 0x0018_0087, "DS", "instance"),
    Attribute("SpacingBetweenSlices", 0x0018_0088, "DS", "instance"),
    Attribute("ImagerPixelSpacing", 0x0018_1164, "DS", "instance"),
    Attribute("ViewPosition", 0x0018_5101, "CS", "instance"),
    Attribute("DiffusionBValue", 0x0018_9087, "FD", "instance"),
    Attribute("ContributingDeviceUID", 0x0018_1002, "UI", "instance", sequence=0x0018_A001),
    Attribute("InstanceNumber", 0x0020_0013, "IS", "instance"),
    Attribute("ImageOrientationPatient", 0x0020_0037, "DS", "instance"),
    Attribute("ImageLaterality", 0x0020_0062, "CS", "instance"),
    Attribute("PhotometricInterpretation", 0x0028_0004, "CS", "instance"),
    Attribute("NumberOfFrames", 0x0028_0008, "IS", "instance"),
    Attribute("Rows", 0x0028_0010, "US", "instance"),
    Attribute("Columns", 0x0028_0011, "US", "instance"),
    Attribute("PixelSpacing", 0x0028_0030, "DS", "instance"),
    Attribute("BitsAllocated", 0x0028_0100, "US", "instance"),
    Attribute("BitsStored", 0x0028_0101, "US", "instance"),
    Attribute("BurnedInAnnotation", 0x0028_0301, "CS", "instance"),
    Attribute("ViewCodeValue", 0x0008_0100, "SH", "instance", sequence=0x0054_0220),
    Attribute("ViewCodeMeaning", 0x0008_0104, "LO", "instance", sequence=0x0054_0220),
    HAS_PIXEL_DATA,
)

PER_IMAGE = frozenset({"SOPInstanceUID", "AcquisitionDateTime", "AcquisitionTime", "ContentTime", "InstanceNumber"})
"""What differs in nearly every image of a series; the images have most of the rest in common."""

BY_KEYWORD = {attribute.keyword: attribute for attribute in ATTRIBUTES}
BY_PLACE = {(attribute.sequence, attribute.tag): attribute for attribute in ATTRIBUTES if attribute.tag}
"""Attribute by (tag of the enclosing top-level sequence or 0, tag)."""
