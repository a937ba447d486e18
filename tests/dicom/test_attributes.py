"""The attribute table agrees with the data dictionary."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydicom.datadict import dictionary_keyword, dictionary_VR

from pacsnode.dicom.attributes import ATTRIBUTES, BY_KEYWORD, BY_PLACE, PIXEL_DATA, Attribute

IN_SEQUENCES = {
    "AnatomicRegionCodeValue": ("AnatomicRegionSequence", "CodeValue"),
    "AnatomicRegionCodeMeaning": ("AnatomicRegionSequence", "CodeMeaning"),
    "ViewCodeValue": ("ViewCodeSequence", "CodeValue"),
    "ViewCodeMeaning": ("ViewCodeSequence", "CodeMeaning"),
    "ContributingDeviceUID": ("ContributingEquipmentSequence", "DeviceUID"),
}


@pytest.mark.parametrize("attribute", [a for a in ATTRIBUTES if a.tag], ids=lambda attribute: attribute.keyword)
def test_a_row_has_the_tag_and_vr_of_the_dictionary(attribute: Attribute) -> None:
    if attribute.sequence:
        sequence, inside = IN_SEQUENCES[attribute.keyword]
        assert dictionary_VR(attribute.sequence) == "SQ"
        assert dictionary_keyword(attribute.sequence) == sequence
        assert dictionary_keyword(attribute.tag) == inside
    else:
        assert dictionary_keyword(attribute.tag) == attribute.keyword
    assert dictionary_VR(attribute.tag) == attribute.vr


def test_no_attribute_stands_in_the_table_twice_or_behind_pixel_data() -> None:
    assert len(BY_KEYWORD) == len(ATTRIBUTES)
    assert len(BY_PLACE) == len(ATTRIBUTES) - 1
    assert all(max(a.tag, a.sequence) < min(PIXEL_DATA) for a in ATTRIBUTES)


def test_the_receiving_process_gets_the_table_without_loading_pydicom() -> None:
    program = (
        "import sys, pacsnode.dicom.header, pacsnode.dicom.identity;"
        "sys.exit(any(name.split('.')[0] in ('pydicom', 'numpy') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
