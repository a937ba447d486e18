"""MPPS and instance availability notification by a pynetdicom SCU: kept as they came, answered as the standard says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import InstanceAvailabilityNotification, ModalityPerformedProcedureStep

from pacsnode.dimse import commands, pdus
from tests.archive import homes
from tests.dimse.test_nested import deep, encoded
from tests.receive.commitments import Site
from tests.receive.doubles import RawClient, p_data, pdv

MPPS = str(ModalityPerformedProcedureStep)
STEP = "1.7.1"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(homes.home(tmp_path))
    with site.running(may=frozenset({"store"})):
        yield site
    site.close()


@pytest.fixture
def association(site: Site) -> Iterator[Any]:
    made = associate(site)
    yield made
    made.release()


def associate(site: Site) -> Any:
    ae = AE("MODALITY")
    ae.add_requested_context(ModalityPerformedProcedureStep, ExplicitVRLittleEndian)
    ae.add_requested_context(InstanceAvailabilityNotification, ExplicitVRLittleEndian)
    made = ae.associate("127.0.0.1", site.port, ae_title="PACSNODE")
    assert made.is_established
    site.sockets.append(made.dul.socket.socket)
    return made


def created(state: str = "IN PROGRESS", *studies: str) -> Dataset:
    said = Dataset()
    said.PerformedProcedureStepStatus = state
    said.ScheduledStepAttributesSequence = []
    for study in studies or ("1.2.3",):
        item = Dataset()
        item.StudyInstanceUID = study
        said.ScheduledStepAttributesSequence.append(item)
    said.PerformedSeriesSequence = []
    return said


def completed(*uids: str, state: str = "COMPLETED") -> Dataset:
    said = Dataset()
    said.PerformedProcedureStepStatus = state
    series = Dataset()
    series.ReferencedImageSequence = []
    for uid in uids:
        image = Dataset()
        image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
        series.ReferencedImageSequence.append(image)
    said.PerformedSeriesSequence = [series]
    return said


def create(association: Any, said: Dataset, uid: str | None = STEP) -> int:
    status, _ = association.send_n_create(said, ModalityPerformedProcedureStep, uid)
    return int(status.Status)


def change(association: Any, said: Dataset, uid: str = STEP) -> int:
    status, _ = association.send_n_set(said, ModalityPerformedProcedureStep, uid)
    return int(status.Status)


def test_a_procedure_step_is_kept_from_its_begin_to_its_end(site: Site, association: Any) -> None:
    assert create(association, created("IN PROGRESS", "1.2.3", "1.2.4")) == 0x0000
    assert change(association, completed("1.9.1", "1.9.2")) == 0x0000
    kept = site.rows("SELECT kind, operation, sop_instance_uid, state, referenced, peer FROM evidence ORDER BY id")
    assert kept == [
        ("mpps", "create", STEP, "IN PROGRESS", "[]", "modality"),
        ("mpps", "set", STEP, "COMPLETED", json.dumps(["1.9.1", "1.9.2"]), "modality"),
    ]
    studies = site.rows("SELECT study_instance_uid, count(*) FROM evidence_studies GROUP BY 1 ORDER BY 1")
    assert studies == [("1.2.3", 2), ("1.2.4", 2)]
    data, syntax = site.rows("SELECT data_set, transfer_syntax_uid FROM evidence WHERE operation = 'set'")[0]
    buffer = DicomBytesIO(data)
    read = dcmread(buffer, force=True)
    assert syntax == ExplicitVRLittleEndian
    assert read.PerformedSeriesSequence[0].ReferencedImageSequence[1].ReferencedSOPInstanceUID == "1.9.2"


def test_what_is_repeated_is_taken_and_kept_once(site: Site, association: Any) -> None:
    for _ in range(2):
        assert create(association, created()) == 0x0000
    for _ in range(2):
        assert change(association, completed("1.9.1")) == 0x0000
    assert site.rows("SELECT count(*) FROM evidence") == [(2,)]


def test_another_step_under_a_known_uid_is_a_duplicate(association: Any) -> None:
    assert create(association, created()) == 0x0000
    assert create(association, created("IN PROGRESS", "1.2.99")) == 0x0111


def test_a_step_that_was_never_created_cannot_be_changed(site: Site, association: Any) -> None:
    assert change(association, completed("1.9.1")) == 0x0112
    assert site.rows("SELECT count(*) FROM evidence") == [(0,)]


@pytest.mark.parametrize("end", ["COMPLETED", "DISCONTINUED"])
def test_a_step_that_has_ended_stays_as_it_is(association: Any, end: str) -> None:
    assert create(association, created()) == 0x0000
    assert change(association, completed("1.9.1", state="IN PROGRESS")) == 0x0000
    assert change(association, completed("1.9.1", state=end)) == 0x0000
    assert change(association, completed("1.9.1", "1.9.2", state=end)) == 0x0110


def test_a_step_must_begin_in_progress(association: Any) -> None:
    assert create(association, created("COMPLETED")) == 0x0106
    assert create(association, created("DONE")) == 0x0106


def test_a_step_without_a_uid_gets_one(site: Site, association: Any) -> None:
    status, _ = association.send_n_create(created(), ModalityPerformedProcedureStep, None)
    assert status.Status == 0x0000
    ((uid,),) = site.rows("SELECT sop_instance_uid FROM evidence")
    assert change(association, completed("1.9.1"), uid) == 0x0000


def test_an_availability_notice_is_kept_with_its_study(site: Site, association: Any) -> None:
    said = Dataset()
    said.StudyInstanceUID = "1.2.3"
    said.ReferencedPerformedProcedureStepSequence = []
    series = Dataset()
    series.SeriesInstanceUID = "1.2.3.1"
    series.ReferencedSOPSequence = []
    for uid, availability in (("1.9.1", "ONLINE"), ("1.9.2", "NEARLINE")):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
        item.InstanceAvailability, item.RetrieveAETitle = availability, "CT1"
        series.ReferencedSOPSequence.append(item)
    said.ReferencedSeriesSequence = [series]
    status, _ = association.send_n_create(said, InstanceAvailabilityNotification, "1.7.9")
    assert status.Status == 0x0000
    assert site.rows(
        "SELECT kind, state, referenced, study_instance_uid FROM evidence JOIN evidence_studies ON evidence = id"
    ) == [("ian", "NEARLINE\\ONLINE", json.dumps(["1.9.1", "1.9.2"]), "1.2.3")]
    del said.StudyInstanceUID
    status, _ = association.send_n_create(said, InstanceAvailabilityNotification, "1.7.10")
    assert status.Status == 0x0120


def n_create(data_set: bytes, sop_class: str = MPPS) -> bytes:
    """An N-CREATE-RQ with whatever bytes as its data set."""
    command = bytearray(commands.event_report_request(7, sop_class, STEP, 1))
    field = command.index(b"\0\0\0\1\2\0\0\0") + 8
    command[field : field + 2] = commands.N_CREATE_RQ.to_bytes(2, "little")
    message = p_data(pdv(1, 3, bytes(command)))
    for at in range(0, len(data_set), 100_000):
        last = at + 100_000 >= len(data_set)
        message += p_data(pdv(1, pdus.LAST if last else 0, data_set[at : at + 100_000]))
    return message


@pytest.mark.parametrize(
    ("data_set", "status"),
    [
        (deep(40_000, ExplicitVRLittleEndian), 0x0110),
        (b"rubbish!" * 10, 0x0110),
        (bytes(2 << 20), 0x0213),
        (bytes(9 << 20), 0x0213),
    ],
)
def test_a_hostile_data_set_is_refused_and_the_association_goes_on(site: Site, data_set: bytes, status: int) -> None:
    with RawClient(site.port).associate(((MPPS, (ExplicitVRLittleEndian,)),)) as client:
        client.send(n_create(data_set))
        assert client.read_status().status.code == status
        client.send(n_create(encoded(created(), ExplicitVRLittleEndian), sop_class="1.2.3"))
        assert client.read_status().status.code == 0x0118
        client.send(n_create(encoded(created(), ExplicitVRLittleEndian)))
        assert client.read_status().status.is_success
        client.release()
    assert site.rows("SELECT count(*) FROM evidence") == [(1,)]


def test_an_operation_that_is_not_served_says_so(association: Any) -> None:
    status, _ = association.send_n_get([0x00400252], ModalityPerformedProcedureStep, STEP)
    assert status.Status == 0x0211


def test_a_full_disk_refuses_evidence(tmp_path: Path) -> None:
    site = Site(homes.home(tmp_path / "full").model_copy(update={"minimum_free_mb": 1 << 40}))
    with site.running():
        made = associate(site)
        assert create(made, created()) == 0x0213
        made.release()
    site.close()
