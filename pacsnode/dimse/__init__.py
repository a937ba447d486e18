"""What both sides of a DICOM association need (PS3.8, PS3.7), and the side that asks for one (SCU)."""
