"""UIDs from the wire and our own."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.config import IGNORE
from pydicom.uid import UID

from pacsnode.dicom import uids

PARTS = st.lists(st.text(max_size=20), min_size=1, max_size=4)


@given(PARTS)
def test_a_derived_uid_is_valid_and_always_the_same(parts: list[str]) -> None:
    uid = uids.derive(*parts)
    assert uid == uids.derive(*parts)
    assert uid.startswith("2.25.")
    assert uids.is_valid(uid)
    assert uids.is_safe(uid)
    assert UID(uid).is_valid


@given(PARTS, PARTS)
def test_different_parts_give_different_uids(one: list[str], other: list[str]) -> None:
    if "\x1f" not in "".join(one + other) and one != other:
        assert uids.derive(*one) != uids.derive(*other)


@given(st.text(st.sampled_from("0123456789."), max_size=70) | st.text(max_size=70))
def test_a_valid_uid_is_safe_and_what_pydicom_calls_valid(uid: str) -> None:
    assert uids.is_valid(uid) == UID(uid, validation_mode=IGNORE).is_valid
    if uids.is_valid(uid):
        assert uids.is_safe(uid)


@given(st.text(max_size=70))
def test_a_safe_uid_cannot_leave_a_folder(uid: str) -> None:
    if uids.is_safe(uid):
        assert set(uid) <= set(string.digits + ".")
        assert len(uid) <= 64


@pytest.mark.parametrize("uid", ["", "1.02", "1..2", ".1", "1.", "1.2\n", "1.1٢", "../1", "1." + "2" * 63])
def test_what_is_no_uid_is_not_valid(uid: str) -> None:
    assert not uids.is_valid(uid)


@pytest.mark.parametrize("uid", ["", "1.2\n", "1.1٢", "../1", "1/2", "1.2\0", "1." + "2" * 63])
def test_what_could_harm_is_not_safe(uid: str) -> None:
    assert not uids.is_safe(uid)


def test_our_own_implementation_class_uid_is_valid() -> None:
    assert uids.is_valid(uids.IMPLEMENTATION_CLASS_UID)
    assert len(uids.IMPLEMENTATION_VERSION_NAME) <= 16
