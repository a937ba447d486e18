"""The header of a beginning, read after others of the same layout, is the one that a scan gives."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1

from pacsnode.dicom.beginning import MOST_MODELS, Beginning, Models, read_beginning
from pacsnode.dicom.header import DEFLATED, syntax_of
from pacsnode.dimse.part10 import read_meta
from pacsnode.errors import Permanent, Rejected
from tests.dicom.test_header import chest_x_ray, encoded, explicit, implicit, item
from tests.fuzz.mutations import mutate

HEAD_BYTES = 32_768
UNDEFINED = 0xFFFF_FFFF
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]
PIXELS = {
    ImplicitVRLittleEndian: struct.pack("<HHL", 0x7FE0, 0x0010, 524_288) + bytes(40),
    ExplicitVRLittleEndian: explicit(0x7FE0_0010, "OW", bytes(40), 524_288),
    ExplicitVRBigEndian: struct.pack(">HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 524_288) + bytes(40),
    JPEGLosslessSV1: explicit(0x7FE0_0010, "OB", item(b"") + item(bytes(40)), UNDEFINED),
}


def slice_of(number: int, syntax: str, *, undefined_length: bool = False) -> bytes:
    """A slice of a series, with values of other lengths from one to the next."""
    data_set = chest_x_ray()
    data_set.SOPInstanceUID, data_set.InstanceNumber = f"1.2.3.{7 ** (number % 30)}", number
    data_set.PixelSpacing = [str(0.5 * number), "0.15"]
    data_set.AcquisitionTime = "" if number == 5 else f"1011{number % 60:02d}"
    data_set.PatientName = f"Hong^Gildong=洪^吉洞=홍^길동{'A' * (number // 4)}"
    for keyword in ("ViewCodeSequence", "ContributingEquipmentSequence"):
        data_set[keyword].is_undefined_length = undefined_length
        for part in data_set[keyword].value:
            part.is_undefined_length_sequence_item = undefined_length
    data_set.add_new(0x0009_0010, "LO", "A MAKER")
    data_set.add_new(0x0009_1010, "UN", b"\1" * (2 * number))
    del data_set[0x7FE0_0010]
    return encoded(data_set, syntax) + PIXELS[syntax]


def by_scan(head: bytes, syntax: str) -> Beginning | None:
    return by_models(Models(syntax_of(syntax)), head)


def by_models(models: Models, head: bytes) -> Beginning | None:
    try:
        return models.read(bytearray(head))
    except Rejected:
        return None


def same(one: Beginning | None, other: Beginning | None) -> bool:
    """Whether two beginnings are the same, with the order of their attributes."""
    if one is None or other is None:
        return one is other
    orders = [[list(m) for m in (b.header.raw, b.header.attributes, b.header.members)] for b in (one, other)]
    return one == other and orders[0] == orders[1]


@pytest.mark.parametrize("undefined_length", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_slices_of_a_series_are_read_after_the_first(syntax: str, undefined_length: bool) -> None:
    models = Models(syntax_of(syntax))
    for number in (1, 2, 3, 12, 5, 4, 100, 9):
        head = slice_of(number, syntax, undefined_length=undefined_length)
        assert same(by_models(models, head), by_scan(head, syntax)), number
    assert len(models) == 1


def test_studies_that_come_side_by_side_share_a_layout_and_nothing_else() -> None:
    models = Models(syntax_of(ExplicitVRLittleEndian))
    patients = [
        (b"ISO_IR 100", b"M\xfcller^J ", b"P-1 "),
        (b"ISO_IR 192", "홍^길동".encode(), b"P-22"),
        (b"ISO_IR 101", b"M\xfcller^K ", b"P-1 "),
        (b"ISO_IR 192", b"M\xfcller^J ", b""),
    ]
    for number in range(24):
        charset, name, patient_id = patients[number % len(patients)]
        uids = [explicit(0x0020_000D + n, "UI", b"1.2.%d\0" % (10 + number % 4 * (2 + n))) for n in (0, 1)]
        head = b"".join(
            [
                explicit(0x0008_0005, "CS", charset),
                explicit(0x0008_0018, "UI", b"1.2.3.%d" % (100 + number)),
                explicit(0x0008_0060, "CS", b"CT" if number % 4 else b"MR"),
                *(explicit(0x0008_0020 + n, "DA", b"2024010%d" % (number % 4)) for n in (0, 1, 2, 3)),
                explicit(0x0010_0010, "PN", name),
                explicit(0x0010_0020, "LO", patient_id),
                *uids,
                PIXELS[ExplicitVRLittleEndian],
            ]
        )
        assert same(by_models(models, head), by_scan(head, ExplicitVRLittleEndian)), number
    assert len(models) == 1


def test_encapsulated_pixels_have_a_layout_too() -> None:
    models = Models(syntax_of(JPEGLosslessSV1))
    heads = [slice_of(number, ExplicitVRLittleEndian)[: -len(PIXELS[ExplicitVRLittleEndian])] for number in (1, 22)]
    for head in heads:
        assert same(by_models(models, head + PIXELS[JPEGLosslessSV1]), by_scan(head + PIXELS[JPEGLosslessSV1], ""))
    assert len(models) == 1


def test_pixels_that_end_in_the_beginning_leave_no_layout() -> None:
    """Something wanted may stand behind them."""
    models = Models(syntax_of(ExplicitVRLittleEndian))
    whole = encoded(chest_x_ray(), ExplicitVRLittleEndian)
    assert by_models(models, whole) is not None
    assert len(models) == 0
    cut = slice_of(1, ExplicitVRLittleEndian)
    by_models(models, cut)
    ended = cut[: -len(PIXELS[ExplicitVRLittleEndian])] + explicit(0x7FE0_0010, "OW", bytes(524_288))
    behind = ended + explicit(0x7FE1_0010, "LO", b"A") + explicit(0x0010_0020, "LO", b"other ")
    for head in (cut, ended, behind, behind[:-3]):
        assert same(by_models(models, head), by_scan(head, ExplicitVRLittleEndian))


def test_no_more_layouts_are_remembered_than_said() -> None:
    models = Models(syntax_of(ExplicitVRLittleEndian))
    plain = slice_of(1, ExplicitVRLittleEndian)
    for number in range(3 * MOST_MODELS):
        by_models(models, explicit(0x0007_0000 + number, "LO", b"A ") + plain)
    assert len(models) == MOST_MODELS


@pytest.mark.parametrize(
    "first",
    [
        explicit(0x0008_0005, "CS", b"ISO_IR 192"),
        explicit(0x0010_0020, "LO", b"P1") + explicit(0x0010_0020, "LO", b"P1"),
        explicit(0x0018_0050, "DS", b"1 ") + explicit(0x0018_0050, "DS", b"2 "),
        explicit(0x0010_0010, "PN", b"M\xc3\xbcller^J "),
        explicit(0x0008_0060, "??", b"CT"),
        explicit(0x0008_1140, "SQ", item(explicit(0x0008_1155, "UI", b"1.2.3.4\0")), UNDEFINED)[:-1],
        implicit(0x0010_0020, b"P1"),
        bytes(4),
    ],
)
def test_what_one_value_says_about_others_is_looked_at_again(first: bytes) -> None:
    rest = slice_of(1, ExplicitVRLittleEndian)
    others = [first, first.replace(b"P1", b"P2", 1), first.replace(b"ISO_IR 192", b"ISO_IR 100"), first[:-2] + b"\xc3 "]
    for one in others:
        models = Models(syntax_of(ExplicitVRLittleEndian))
        for other in (*others, one, first):
            for head in (one + rest, other + rest, other + rest):
                assert same(by_models(models, head), by_scan(head, ExplicitVRLittleEndian)), (one, other)


def test_a_longer_value_than_is_read_is_none_of_the_layout() -> None:
    models = Models(syntax_of(ExplicitVRLittleEndian))
    rest = slice_of(1, ExplicitVRLittleEndian)
    for size in (2, 4, 16_384, 16_386, 4):
        for tag in (0x0008_0070, 0x0009_1000):
            head = explicit(tag, "LO", b"A" * size) + rest
            assert same(by_models(models, head), by_scan(head, ExplicitVRLittleEndian)), size


# ---------------------------------------------------------------------------------------------------- damage


def heads_of(syntax: str) -> list[bytes]:
    return [slice_of(number, syntax, undefined_length=number % 2 == 0) for number in (1, 2, 3, 4, 22)]


@given(st.sampled_from(SYNTAXES), st.randoms(use_true_random=False), st.integers(0, 4))
def test_damaged_heads_are_read_as_a_scan_reads_them(syntax: str, dice: random.Random, damage: int) -> None:
    """Models learn from damaged and sound heads alike, in any order."""
    heads = heads_of(syntax)
    damaged = [mutate(dice.choice(heads), dice, heads) for _ in range(damage)]
    again = [mutate(head, dice, heads) for head in damaged]
    order = [*heads, *damaged, *again, *damaged]
    dice.shuffle(order)
    models = Models(syntax_of(syntax))
    for head in order:
        assert same(by_models(models, head), by_scan(head, syntax))


TAGS = (0x0008_0018, 0x0008_0070, 0x0010_0010, 0x0010_0020, 0x0018_0050, 0x0018_9087, 0x0020_0013, 0x0009_1010)
VRS = ("LO", "UN", "UI", "US", "FD", "PN", "SQ")
ELEMENTS = st.builds(explicit, st.sampled_from(TAGS), st.sampled_from(VRS), st.binary(max_size=10))
MADE_UP = st.lists(ELEMENTS, max_size=6)


@given(MADE_UP, st.data())
def test_inserted_removed_doubled_and_cut_elements_are_seen(elements: list[bytes], data: st.DataObject) -> None:
    models = Models(syntax_of(ExplicitVRLittleEndian))
    pixels = PIXELS[ExplicitVRLittleEndian]
    for _ in range(6):
        at = data.draw(st.integers(0, len(elements)))
        change = data.draw(st.sampled_from(["insert", "remove", "double", "value", "nothing"]))
        changed = list(elements)
        if change == "insert":
            changed.insert(at, data.draw(ELEMENTS))
        elif elements[at : at + 1] and change != "nothing":
            changed[at : at + 1] = {
                "remove": [],
                "double": [changed[at], changed[at]],
                "value": [changed[at][:-1] + data.draw(st.binary(min_size=1, max_size=1))],
            }[change]
        head = b"".join(changed) + pixels
        cut = head[: data.draw(st.sampled_from([len(head), len(head) - 40, len(head) - 41, len(head) // 2]))]
        for one in (head, cut, b"".join(elements) + pixels):
            assert same(by_models(models, one), by_scan(one, ExplicitVRLittleEndian))


def real_heads() -> Iterator[tuple[str, bytes]]:
    """Of the files that come with pydicom."""
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*")):
        if path.is_file() and path.read_bytes()[128:132] == b"DICM":
            with path.open("rb") as file:
                try:
                    meta = read_meta(file)
                except Permanent:
                    continue
                file.seek(meta.dataset_offset)
                yield meta.transfer_syntax_uid, file.read(HEAD_BYTES)


def test_heads_of_real_devices_are_read_as_a_scan_reads_them() -> None:
    dice = random.Random(5)
    heads = list(real_heads())
    assert len(heads) > 20
    models = {syntax: Models(syntax_of(syntax)) for syntax in {syntax for syntax, _ in heads}}
    for syntax, head in heads * 2:
        for one in (head, head[: len(head) // 2], *(mutate(head, dice, [head]) for _ in range(10)), head):
            expected = by_scan(one, syntax)
            assert same(by_models(models[syntax], one), expected)
            assert same(read_beginning(bytearray(one), syntax), None if syntax == DEFLATED else expected)
