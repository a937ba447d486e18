"""Storage commitment as the asking side: pydicom reads our request, and we bear any result."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from pacsnode.dimse import commands
from pacsnode.dimse.association import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacsnode.dimse.commitment import COMMITMENT, COMMITMENT_INSTANCE, Reference, Report, encode_request, parse_report
from pacsnode.errors import Rejected
from tests.dimse.test_nested import encoded

SYNTAXES = [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]
CT, ONE, TWO, THREE = "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.34", "1.2.345"


def event(type_id: int = 1, sop_class: str = COMMITMENT, instance: str = COMMITMENT_INSTANCE) -> commands.CommandSet:
    return commands.parse(commands.event_report_request(1, sop_class, instance, type_id))


def item(uid: str, failure: int | None = None) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = CT, uid
    if failure is not None:
        made.FailureReason = failure
    return made


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_pydicom_reads_our_request(syntax: str) -> None:
    data = encode_request("1.2.99", [Reference(CT, ONE), Reference(CT, TWO)], syntax)
    read = read_dataset(io.BytesIO(data), syntax == IMPLICIT_VR_LITTLE_ENDIAN, True)
    assert read.TransactionUID == "1.2.99"
    asked = [(i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID) for i in read.ReferencedSOPSequence]
    assert asked == [(CT, ONE), (CT, TWO)]


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_result_that_pydicom_wrote_is_read(syntax: str, undefined: bool) -> None:
    made = Dataset()
    made.TransactionUID = "1.2.99"
    made.ReferencedSOPSequence = [item(ONE), item(TWO)]
    made.FailedSOPSequence = [item(TWO, 0x0112), item(THREE), item("1.2.3456", 0)]
    report = parse_report(event(2), encoded(made, syntax, undefined=undefined), syntax)
    failed = {Reference(CT, TWO): 0x0112, Reference(CT, THREE): 0x0110, Reference(CT, "1.2.3456"): 0x0110}
    assert report == Report("1.2.99", frozenset({Reference(CT, ONE)}), failed)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (event(3), commands.NO_SUCH_EVENT_TYPE),
        (event(sop_class=CT), commands.NO_SUCH_SOP_CLASS),
        (event(instance="1.2.3"), commands.NO_SUCH_OBJECT_INSTANCE),
        (event(), commands.INVALID_ARGUMENT_VALUE),
    ],
)
def test_what_is_no_result_is_refused_with_its_status(command: commands.CommandSet, status: int) -> None:
    with pytest.raises(Rejected) as refused:
        parse_report(command, b"", EXPLICIT_VR_LITTLE_ENDIAN)
    assert refused.value.status == status


@given(st.binary(max_size=200), st.sampled_from(SYNTAXES))
def test_rubbish_is_read_or_refused(data: bytes, syntax: str) -> None:
    try:
        parse_report(event(), data, syntax)
    except Rejected:
        return
