"""Coded concepts: (value, scheme designator, meaning) as PS3.16 and its context groups pin them. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

PRIVATE_SCHEME = "99PACSNODE"
"""Coding scheme of concepts for which no standard code was verified; declared in (0008,0110)."""


@dataclass(frozen=True)
class Concept:
    """One coded concept (PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str


PRESENT = Concept("52101004", "SCT", "Present")
ABSENT = Concept("272519000", "SCT", "Absent")
UNDETERMINED = Concept("373068000", "SCT", "Undetermined")

RIGHT = Concept("24028007", "SCT", "Right")
LEFT = Concept("7771000", "SCT", "Left")

NO_UNITS = Concept("1", "UCUM", "no units")
PERCENT = Concept("%", "UCUM", "Percent")
SQUARE_MILLIMETER = Concept("mm2", "UCUM", "square millimeter")
PROCESSING_EQUIPMENT = Concept("109102", "DCM", "Processing Equipment")
PIXEL_DATA_ROWS = Concept("110910", "DCM", "Pixel Data Rows")
PIXEL_DATA_COLUMNS = Concept("110911", "DCM", "Pixel Data Columns")
IMAGE_LIBRARY = Concept("111028", "DCM", "Image Library")
IMAGE_REGION = Concept("111030", "DCM", "Image Region")
SUMMARY_OF_ANALYSES = Concept("111065", "DCM", "Summary of Analyses")
ANALYSIS_FAILED = Concept("111224", "DCM", "Failed")
SERIES_INSTANCE_UID = Concept("112002", "DCM", "Series Instance UID")
TRACKING_IDENTIFIER = Concept("112039", "DCM", "Tracking Identifier")
TRACKING_UID = Concept("112040", "DCM", "Tracking Unique Identifier")
FRAME_OF_REFERENCE_UID = Concept("112227", "DCM", "Frame of Reference UID")
OF_INTEREST = Concept("113000", "DCM", "Of Interest")
LANGUAGE = Concept("121049", "DCM", "Language of Content Item and Descendants")
PROCEDURE_REPORTED = Concept("121058", "DCM", "Procedure reported")
FINDING = Concept("121071", "DCM", "Finding")
COMMENT = Concept("121106", "DCM", "Comment")
SOURCE_OF_MEASUREMENT = Concept("121112", "DCM", "Source of Measurement")
MODALITY = Concept("121139", "DCM", "Modality")
REFERENCED_SEGMENT = Concept("121191", "DCM", "Referenced Segment")
SEGMENTED_SERIES = Concept("121232", "DCM", "Source series for segmentation")
SEGMENTED_IMAGE = Concept("121233", "DCM", "Source image for segmentation")
SOURCE_IMAGE = Concept("121322", "DCM", "Source image for image processing operation")
PROBABILITY = Concept("122157", "DCM", "Probability")
ARTIFICIAL_INTELLIGENCE = Concept("123110", "DCM", "Artificial Intelligence")
MEASUREMENT_GROUP = Concept("125007", "DCM", "Measurement Group")
MEASUREMENT_REPORT = Concept("126000", "DCM", "Imaging Measurement Report")
IMAGING_MEASUREMENTS = Concept("126010", "DCM", "Imaging Measurements")
IMAGE_LIBRARY_GROUP = Concept("126200", "DCM", "Image Library Group")
ENGLISH_US = Concept("en-US", "RFC5646", "English (United States)")
SOURCE = Concept("260753009", "SCT", "Source")
LATERALITY = Concept("272741003", "SCT", "Laterality")
FINDING_CATEGORY = Concept("276214006", "SCT", "Finding category")
IMAGING_PROCEDURE = Concept("363679005", "SCT", "Imaging procedure")
FINDING_SITE = Concept("363698007", "SCT", "Finding Site")
MILLIVOLT = Concept("mV", "UCUM", "millivolt")
MILLILITER = Concept("ml", "UCUM", "Milliliter")
FRACTION_OF_IMAGE = Concept("{fraction}", "UCUM", "fraction of the image")
PIXELS = Concept("{pixels}", "UCUM", "Pixels")
SIGNAL_ANALYSIS = Concept("CLASSICAL", PRIVATE_SCHEME, "Classical signal or image analysis")
"""Algorithm family where nothing was learnt: CID 7162 has only single techniques for it."""
