"""Every coded concept that the program itself uses is in one table, and there as the standard has it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pydicom.sr import codedict
from pydicom.sr._concepts_dict import concepts

from pacsnode.dicom import codes
from pacsnode.dicom.codes import PRIVATE_SCHEME, Concept

PACKAGE = Path(codes.__file__).parents[1]
TABLE = {name: found for name, found in vars(codes).items() if isinstance(found, Concept)}
NOT_IN_PYDICOM = {
    ("en-US", "RFC5646"): "English (United States)",  # CID 5000
    ("260753009", "SCT"): "Source",  # TID 1600 row 4 and others
    ("276214006", "SCT"): "Finding category",  # TID 1410, 1411
    ("ml", "UCUM"): "Milliliter",  # UCUM 2.1 table 5: liter, with its prefix
    ("{fraction}", "UCUM"): "fraction of the image",  # UCUM 2.1 section 12: an annotation is dimensionless
}
"""What pydicom's tables of PS3.16 do not have, with the place where it was read."""
SAID_OTHERWISE = {
    ("1", "UCUM"): "no units",  # CID 42; pydicom has a longer one of CID 82
    ("{pixels}", "UCUM"): "Pixels",
    ("mV", "UCUM"): "millivolt",  # pydicom: "mV", the symbol again
}
OUTSIDE = {
    "wrap": "views, devices and leads by context group, tested there",
    "dicom/rejection.py": "the four titles of CID 7010 and 7011 that reject",
    "dicom/codes.py": "the table",
    "show/segments.py": "a place for none",
}


def meanings(concept: Concept) -> set[str]:
    """All that PS3.16 says for a value, by pydicom's tables."""
    found: set[str] = set()
    for of_value in concepts.get(concept.scheme, {}).values():
        found |= {meaning for value, (meaning, *_rest) in of_value.items() if value == concept.value}
    return found


@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_concept_is_as_the_standard_has_it(name: str) -> None:
    concept = TABLE[name]
    assert len(concept.meaning) <= 64 and len(concept.value) <= 16
    key = concept.value, concept.scheme
    if concept.scheme == PRIVATE_SCHEME:
        return  # declared in Coding Scheme Identification Sequence; see test_objects
    known = meanings(concept)
    if key in NOT_IN_PYDICOM or key in SAID_OTHERWISE:
        assert concept.meaning == (NOT_IN_PYDICOM | SAID_OTHERWISE)[key]
        return
    assert concept.meaning.casefold() in {one.casefold() for one in known}, known


def test_no_value_stands_there_twice() -> None:
    keys = [(found.value, found.scheme) for found in TABLE.values()]
    assert len(set(keys)) == len(keys)


def test_no_other_module_makes_concepts_of_its_own() -> None:
    strays = []
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if any(place == one or place.startswith(f"{one}/") for one in OUTSIDE):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_made = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Concept" and bool(node.args)
            if is_made and all(isinstance(one, ast.Constant) for one in node.args):  # type: ignore[attr-defined]
                strays.append(f"{place}:{node.lineno}")  # type: ignore[attr-defined]
    assert strays == []


def test_pydicom_has_the_tables() -> None:
    assert codedict.codes.DCM.Finding.value == "121071"
