"""Content items of structured reports (PS3.3 C.17.3), as plain data sets.

In: concepts, values, references. Out: one item each, with its relationship to its parent. highdicom's templates build
the same, but check and copy each item several times: a report of 300 images takes them half a second. What is built
here is read back by the gate (`sr_rules`), and in the tests by highdicom, dciodvfy and dsrdump.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag

from pacsnode.dicom.codes import COMMENT, Concept
from pacsnode.encode.provenance import coded
from pacsnode.errors import Permanent

Relationship = Literal[
    "CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS PROPERTIES", "INFERRED FROM",
    "SELECTED FROM",
]  # fmt: skip
GraphicType = Literal["POINT", "POLYLINE", "CIRCLE", "ELLIPSE"]


_SIGNIFICANT_DIGITS = 6
"""No measure of an image is truer; and DS takes 16 characters."""
_CONTENT = 0x0040A730
_RELATIONSHIP, _VALUE_TYPE, _NAME = 0x0040A010, 0x0040A040, 0x0040A043
_CONCEPT, _UNIT = 0x0040A168, 0x004008EA
_REFERENCE = 0x00081199
_SOP_CLASS, _SOP_INSTANCE = BaseTag(0x00080016), BaseTag(0x00080018)


def code(relationship: Relationship, name: Concept, value: Concept, children: Sequence[Dataset] = ()) -> Dataset:
    """CODE."""
    return _item(relationship, "CODE", name, _codes(_CONCEPT, value), children)


def text(relationship: Relationship, name: Concept, value: str) -> Dataset:
    """TEXT; `value` is not empty."""
    return _item(relationship, "TEXT", name, DataElement(0x0040A160, "UT", value))


def comment(relationship: Relationship, value: str) -> Dataset:
    """TEXT under the name Comment."""
    return text(relationship, COMMENT, value)


def uid(relationship: Relationship, name: Concept, value: str) -> Dataset:
    """UIDREF."""
    return _item(relationship, "UIDREF", name, DataElement(0x0040A124, "UI", value))


def number(
    relationship: Relationship, name: Concept, value: float, unit: Concept, children: Sequence[Dataset] = ()
) -> Dataset:
    """NUM, to six significant digits. Raises Permanent for what is no finite number."""
    if not math.isfinite(value):
        raise Permanent(f"the measurement {name.meaning} is no finite number")
    measured = Dataset()
    measured.add(_codes(_UNIT, unit))
    measured.add(DataElement(0x0040A30A, "DS", f"{value:.{_SIGNIFICANT_DIGITS}g}"))
    return _item(relationship, "NUM", name, DataElement(0x0040A300, "SQ", DicomSequence([measured])), children)


def container(
    relationship: Relationship, name: Concept, children: Iterable[Dataset], template: str | None = None
) -> Dataset:
    """CONTAINER; `template`: its TID in PS3.16."""
    made = _item(relationship, "CONTAINER", name, DataElement(0x0040A050, "CS", "SEPARATE"), list(children))
    if template is not None:
        made.add(template_of(template))
    return made


def template_of(identifier: str) -> DataElement:
    """Content Template Sequence."""
    template = Dataset()
    template.add(DataElement(0x00080105, "CS", "DCMR"))
    template.add(DataElement(0x0040DB00, "CS", identifier))
    return DataElement(0x0040A504, "SQ", DicomSequence([template]))


def image(relationship: Relationship, name: Concept | None, reference: Dataset) -> Dataset:
    """IMAGE: what `reference_to` gives."""
    return _item(relationship, "IMAGE", name, DataElement(_REFERENCE, "SQ", DicomSequence([reference])))


def waveform(relationship: Relationship, name: Concept, reference: Dataset) -> Dataset:
    """WAVEFORM: all channels of the first multiplex group (PS3.3 C.18.5.1.1)."""
    reference.add(DataElement(0x0040A0B0, "US", [1, 0]))
    return _item(relationship, "WAVEFORM", name, DataElement(_REFERENCE, "SQ", DicomSequence([reference])))


def coordinates(
    relationship: Relationship, name: Concept, graphic: tuple[GraphicType, Sequence[float]], source: Dataset
) -> Dataset:
    """SCOORD: graphic type with its (column, row, column, row …), SELECTED FROM the IMAGE `source`."""
    made = _item(relationship, "SCOORD", name, DataElement(0x00700023, "CS", graphic[0]), [source])
    made.add(DataElement(0x00700022, "FL", list(graphic[1])))
    return made


def reference_to(instance: Dataset, *, frame: int | None = None, segment: int | None = None) -> Dataset:
    """Item of Referenced SOP Sequence: an instance, or one frame or segment of it (numbers from 1)."""
    reference = Dataset()
    reference.add(_text_element(0x00081150, "UI", str(instance[_SOP_CLASS].value)))
    reference.add(DataElement(0x00081155, "UI", instance[_SOP_INSTANCE].value, already_converted=True))
    if frame is not None:
        reference.add(DataElement(0x00081160, "IS", frame))
    if segment is not None:
        reference.add(DataElement(0x0062000B, "US", segment))
    return reference


def _item(
    relationship: Relationship,
    value_type: str,
    name: Concept | None,
    value: DataElement,
    children: Sequence[Dataset] = (),
) -> Dataset:
    made = Dataset()
    made.add(_text_element(_RELATIONSHIP, "CS", relationship))
    made.add(_text_element(_VALUE_TYPE, "CS", value_type))
    if name is not None:
        made.add(_codes(_NAME, name))
    made.add(value)
    if children:
        made.add(DataElement(_CONTENT, "SQ", DicomSequence(children)))
    return made


@lru_cache(256)
def _text_element(tag: int, vr: str, value: str) -> DataElement:
    return DataElement(tag, vr, value)


@lru_cache(1024)
def _codes(tag: int, concept: Concept) -> DataElement:
    """One element for all items that say it: nobody changes a code afterwards."""
    return DataElement(tag, "SQ", DicomSequence([coded(concept)]))
