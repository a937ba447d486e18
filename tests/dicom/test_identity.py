"""Who is the same patient, and why not."""

from __future__ import annotations

from dataclasses import astuple, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacsnode.dicom.identity import Identity, disagreement, identity

HONG = Identity("BUKGU", "P-1", ("Hong^Gildong", "洪^吉洞", "홍^길동"), "19700101", "M")


def test_the_issuer_of_the_data_set_goes_before_that_of_the_peer() -> None:
    assert identity({"PatientID": ("P-1",)}, "BUKGU").issuer == "BUKGU"
    assert identity({"PatientID": ("P-1",), "IssuerOfPatientID": ("SEOUL",)}, "BUKGU").issuer == "SEOUL"


def test_an_identity_is_read_from_a_headers_attributes() -> None:
    attributes = {
        "PatientID": ("A", "B"),  # a backslash is not allowed in it, yet some sites have one
        "PatientName": ("Hong^Gildong^^=洪^吉洞=홍^길동",),
        "PatientBirthDate": ("19700101",),
        "PatientSex": ("M",),
    }
    assert identity(attributes, "BUKGU") == replace(HONG, patient_id="A\\B")
    assert identity({}) == Identity("", "", ("", "", ""), "", "")


@pytest.mark.parametrize(
    "other",
    [
        HONG,
        replace(HONG, name=("HONG^GILDONG ", "", "")),
        replace(HONG, name=("Ｈｏｎｇ^Gildong", "", "홍^길동")),
        replace(HONG, name=("", "", "")),
        replace(HONG, name=("", "", "홍^길\ufffd")),
        replace(HONG, birth_date="1970.01.01"),
        replace(HONG, birth_date="", sex=""),
        replace(HONG, sex="m"),
        replace(HONG, patient_id="P-1 "),
    ],
)
def test_a_patient_whose_data_agree_as_far_as_given_is_the_same(other: Identity) -> None:
    assert disagreement(HONG, other) == ""


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (replace(HONG, issuer="SEOUL"), "IssuerOfPatientID differs"),
        (replace(HONG, issuer=""), "IssuerOfPatientID differs"),
        (replace(HONG, patient_id="p-1"), "PatientID differs"),
        (replace(HONG, patient_id="P-01"), "PatientID differs"),
        (replace(HONG, name=("Kim^Gildong", "", "")), "PatientName differs"),
        (replace(HONG, name=("Hong^Gildong", "", "홍^길순")), "PatientName differs"),
        (replace(HONG, name=("", "", "김^길\ufffd")), "PatientName differs"),
        (replace(HONG, birth_date="19700102"), "PatientBirthDate differs"),
        (replace(HONG, sex="F"), "PatientSex differs"),
    ],
)
def test_a_difference_is_named_without_its_value(other: Identity, reason: str) -> None:
    assert disagreement(HONG, other) == disagreement(other, HONG) == reason


WORD = st.text(st.sampled_from("aAßſéÉＡㄱ홍길洪 ^\ufffd1"), max_size=4)
IDENTITIES = st.builds(Identity, WORD, WORD, st.tuples(WORD, WORD, WORD), WORD, WORD)


@given(IDENTITIES | st.builds(Identity, *(st.text(),) * 2, st.tuples(*(st.text(),) * 3), *(st.text(),) * 2))
def test_everybody_is_the_same_person_as_themselves(one: Identity) -> None:
    assert disagreement(one, one) == ""


@given(IDENTITIES, IDENTITIES)
def test_disagreement_does_not_depend_on_the_order(one: Identity, other: Identity) -> None:
    assert disagreement(one, other) == disagreement(other, one)


@given(IDENTITIES, IDENTITIES)
def test_only_equal_ids_agree(one: Identity, other: Identity) -> None:
    if disagreement(one, other) == "":
        assert [text.strip(" \0") for text in astuple(one)[:2]] == [text.strip(" \0") for text in astuple(other)[:2]]
