"""pacsnode: a DICOM node with AI routing. Not a medical device; results are not for diagnosis."""

__version__ = "0.1.0"
