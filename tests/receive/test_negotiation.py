"""Which contexts are accepted, and in which transfer syntax."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID
from pynetdicom import ALL_TRANSFER_SYNTAXES, sop_class

from pacsnode.dimse import associate
from pacsnode.dimse.associate import Role
from pacsnode.dimse.commitment import COMMITMENT
from pacsnode.dimse.pdus import ProtocolViolation
from pacsnode.receive.negotiation import TRANSFER_SYNTAXES, VERIFICATION, is_storage, negotiate
from tests.receive.doubles import CT, EXPLICIT

IMPLICIT = "1.2.840.10008.1.2"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


def items(*contexts: tuple[str, tuple[str, ...]]) -> bytes:
    return associate.encode_request("A", "B", contexts)[associate.ITEMS_OFFSET :]


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ((IMPLICIT, EXPLICIT), EXPLICIT),
        ((IMPLICIT, "1.2.840.10008.1.2.2"), IMPLICIT),
        ((IMPLICIT, JPEG_LOSSLESS), JPEG_LOSSLESS),
        ((JPEG_BASELINE, IMPLICIT), IMPLICIT),
        ((JPEG_BASELINE, JPEG_LOSSLESS, EXPLICIT), EXPLICIT),
        ((JPEG_BASELINE,), JPEG_BASELINE),
        (("1.2.840.10008.1.2.4.94", JPEG_BASELINE), JPEG_BASELINE),
    ],
)
def test_of_several_transfer_syntaxes_the_least_harmful_is_chosen(offered: tuple[str, ...], chosen: str) -> None:
    assert negotiate(items((CT, offered))).contexts == {1: (CT, chosen)}


def test_all_transfer_syntaxes_but_jpip_and_smpte_are_taken() -> None:
    refused = {str(uid) for uid in ALL_TRANSFER_SYNTAXES} - set(TRANSFER_SYNTAXES)
    assert all("JPIP" in UID(uid).name or "SMPTE" in UID(uid).name for uid in refused), refused
    assert all(UID(uid).is_transfer_syntax for uid in TRANSFER_SYNTAXES)
    assert len(set(TRANSFER_SYNTAXES)) == len(TRANSFER_SYNTAXES)


def test_a_context_that_is_refused_says_why_and_the_others_stand() -> None:
    find = "1.2.840.10008.5.1.4.1.2.2.1"
    answer = negotiate(items((find, (IMPLICIT,)), (CT, ("1.2.840.10008.1.2.4.94",)), (CT, (IMPLICIT,))))
    assert answer.contexts == {5: (CT, IMPLICIT)}
    ac = answer.accept_pdu[associate.ITEMS_OFFSET :]
    assert associate.decode_items(ac).accepted == {5: IMPLICIT}
    assert [ac[at + 6] for at in range(len(ac)) if ac[at : at + 2] == b"\x21\x00"] == [3, 4, 0]


def test_services_other_than_storage_are_told_apart() -> None:
    storage = {str(uid) for name, uid in vars(sop_class).items() if isinstance(uid, UID) and name.endswith("Storage")}
    others = {str(uid) for uid in vars(sop_class).values() if isinstance(uid, UID)} - storage
    assert [uid for uid in storage if not is_storage(uid)] == ["1.2.840.10008.1.3.10"]  # DICOMDIR
    stored_others = {UID(uid).name for uid in others if is_storage(uid)}
    assert all("Storage" in name for name in stored_others), stored_others
    assert {"1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.31", "1.2.840.10008.3.1.2.3.3"} <= others
    assert not is_storage("1.2.840.10008.1.20.1")
    assert not is_storage(VERIFICATION)
    assert not is_storage("")


def test_an_archive_gets_the_role_of_scp_for_commitment_and_nobody_for_storage() -> None:
    contexts = ((COMMITMENT, (EXPLICIT,)), (CT, (EXPLICIT,)))
    asked = associate.encode_request("A", "B", contexts, (COMMITMENT, CT))[associate.ITEMS_OFFSET :]
    assert dict(associate.decode_items(asked).roles) == dict.fromkeys((COMMITMENT, CT), Role(False, True))
    answer = negotiate(asked)
    assert answer.contexts == {1: (COMMITMENT, EXPLICIT), 3: (CT, EXPLICIT)}
    answered = associate.decode_items(answer.accept_pdu[associate.ITEMS_OFFSET :])
    assert answered.roles == {COMMITMENT: Role(False, True)}
    unsaid = negotiate(items(*contexts))
    assert associate.decode_items(unsaid.accept_pdu[associate.ITEMS_OFFSET :]).roles == {}


@given(
    st.lists(
        st.tuples(st.sampled_from([0x10, 0x20, 0x21, 0x30, 0x40, 0x50, 0x51, 0x54, 0x58]), st.binary(max_size=40)),
        max_size=6,
    )
)
def test_made_up_items_give_an_answer_or_a_protocol_violation(made_up: list[tuple[int, bytes]]) -> None:
    data = b"".join(bytes([kind, 0]) + len(body).to_bytes(2, "big") + body for kind, body in made_up)
    try:
        negotiate(data)
    except ProtocolViolation:
        return


@given(st.data())
def test_a_damaged_request_gives_an_answer_or_a_protocol_violation(data: st.DataObject) -> None:
    whole = bytearray(items((CT, (EXPLICIT, IMPLICIT)), (VERIFICATION, (IMPLICIT,))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        negotiate(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except ProtocolViolation:
        return
