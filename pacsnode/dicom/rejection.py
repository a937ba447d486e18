"""Rejection notes of IHE IOCM (RAD TF-2, RAD-66): Key Object Selections whose title says that instances do not count.

In: nothing. Out: the codes and the words for them. No I/O.
"""

from __future__ import annotations

from typing import Final, Literal

from pacsnode.dicom.codes import Concept

KEY_OBJECT_SELECTION: Final = "1.2.840.10008.5.1.4.1.1.88.59"

Reason = Literal["quality", "safety", "worklist", "retention"]

TITLES: Final[dict[Reason, Concept]] = {
    "quality": Concept("113001", "DCM", "Rejected for Quality Reasons"),
    "safety": Concept("113037", "DCM", "Rejected for Patient Safety Reasons"),
    "worklist": Concept("113038", "DCM", "Incorrect Modality Worklist Entry"),
    "retention": Concept("113039", "DCM", "Data Retention Policy Expired"),
}
"""The document titles that reject (PS3.16 CID 7011), by the words of the command line."""
BY_CODE: Final = {title.value: title for title in TITLES.values()}


def in_words(code: str) -> str:
    """`Rejected for Quality Reasons (113001)`."""
    return f"{BY_CODE[code].meaning} ({code})"
