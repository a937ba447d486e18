"""Storage commitment by a pynetdicom SCU, against real files: what is told is what lies on the disk."""

from __future__ import annotations

import io
import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from pacsnode.dimse import commands, nested, pdus
from pacsnode.dimse.association import Association, contexts_for
from pacsnode.dimse.tls import Credentials, Incoming, credentials
from pacsnode.peers import Peer
from pacsnode.receive.commitment import COMMITMENT_INSTANCE
from pacsnode.receive.negotiation import COMMITMENT
from pacsnode.receive.server import TlsPort
from tests.archive import homes
from tests.dimse.test_nested import encoded
from tests.receive.certificates import Authority
from tests.receive.commitments import MAY, Modality, Site, request
from tests.receive.doubles import CT, EXPLICIT, RawClient, await_listener, free_port, p_data, pdv, store_command

MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(homes.home(tmp_path))
    yield site
    site.close()


def wait_until(what: Callable[[], bool], patience_s: float = 30.0) -> None:
    until = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def state_of(site: Site, transaction_uid: str) -> str:
    rows = site.rows("SELECT state FROM commitments WHERE transaction_uid = ?", transaction_uid)
    return ",".join(state for (state,) in rows)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, "1.2.840.10008.1.2.1"])
def test_what_is_on_the_disk_is_committed_in_the_storage_association(site: Site, syntax: str) -> None:
    with site.running():
        modality = Modality(site, syntax=syntax)
        association = modality.associate(store=True)
        for uid in ("1.9.1", "1.9.2"):
            modality.store(association, uid)
        asked = modality.ask(association, ["1.9.1", "1.9.2"])
        told = modality.result()
        assert (told.where, told.event_type, told.transaction_uid) == ("same", 1, asked)
        assert (told.safe, told.failed) == (["1.9.1", "1.9.2"], {})
        modality.store(association, "1.9.3")
        modality.ask(association, ["1.9.3"])
        assert modality.result().safe == ["1.9.3"]
        wait_until(lambda: state_of(site, asked) == "reported")
        association.release()


def test_a_second_association_may_ask_for_what_the_first_stored(site: Site) -> None:
    with site.running():
        modality = Modality(site)
        association = modality.associate(store=True)
        modality.store(association, "1.9.1")
        association.release()
        association = modality.associate()
        modality.ask(association, ["1.9.1"])
        told = modality.result()
        assert (told.where, told.event_type, told.safe) == ("same", 1, ["1.9.1"])
        association.release()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, "1.2.840.10008.1.2.1"])
def test_who_has_released_is_called_back_by_the_scp(site: Site, syntax: str) -> None:
    modality = Modality(site, syntax=syntax)
    with site.running(), modality.listening():
        association = modality.associate(store=True)
        modality.store(association, "1.9.1")
        asked = modality.ask(association, ["1.9.1", "1.9.404"])
        association.release()
        told = modality.result()
        assert (told.where, told.event_type, told.transaction_uid) == ("new", 2, asked)
        assert (told.safe, told.failed) == (["1.9.1"], {"1.9.404": 0x0112})
        assert told.roles == (False, True), "we propose to be SCP and not SCU"
        wait_until(lambda: state_of(site, asked) == "reported")


def test_a_peer_that_aborts_after_the_question_is_called_back(site: Site) -> None:
    modality = Modality(site)
    with site.running(), modality.listening():
        association = modality.associate()
        modality.ask(association, ["1.9.404"])
        association.abort()
        assert modality.result().where == "new"


def test_a_device_of_a_network_is_called_back_where_it_called_from(site: Site) -> None:
    site.host = "127.0.0.0/8"
    modality = Modality(site)
    with site.running(), modality.listening():
        association = modality.associate()
        modality.ask(association, ["1.9.404"])
        association.release()
        assert modality.result().where == "new"


def test_a_peer_without_a_port_is_told_at_its_reply_to(site: Site) -> None:
    modality = Modality(site)
    with site.running(), modality.listening():
        site.reply_to = Peer(name="desk", ae_title="DESK", host="127.0.0.1", port=site.callback_port)
        site.callback_port = None
        association = modality.associate()
        modality.ask(association, ["1.9.404"])
        association.release()
        assert modality.result().where == "new"


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def test_over_tls_it_is_the_same_in_both_directions(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "authority", "clinic")
    ours, theirs = authority.issue("pacsnode"), authority.issue("CT 1")
    files = {"tls_certificate": ours.certificate, "tls_key": ours.key, "tls_ca": authority.own.certificate}
    site = Site(homes.home(tmp_path).model_copy(update=files))
    site.tls = TlsPort(0, Incoming(credentials(site.settings), "required").context)
    proof = Credentials(theirs.certificate, theirs.key, authority.own.certificate)
    modality = Modality(site, calls_with=proof.client_context(), listens_with=proof.server_context("required"))
    with site.running(), modality.listening():
        association = modality.associate(store=True)
        modality.store(association, "1.9.1")
        modality.ask(association, ["1.9.1"])
        told = modality.result()
        assert (told.where, told.safe) == ("same", ["1.9.1"])
        modality.store(association, "1.9.2")
        modality.ask(association, ["1.9.2"])
        association.abort()
        told = modality.result()
        assert (told.where, told.safe) == ("new", ["1.9.2"])
    site.close()


def test_a_file_that_changed_on_the_disk_is_not_committed_and_the_others_are(site: Site) -> None:
    with site.running():
        modality = Modality(site)
        association = modality.associate(store=True)
        uids = [f"1.9.{number}" for number in range(1, 6)]
        for uid in uids:
            modality.store(association, uid)
        damage(site.file_of("1.9.1"))
        site.file_of("1.9.2").unlink()
        site.file_of("1.9.3").write_bytes(b"torn")
        modality.ask(association, uids)
        told = modality.result()
        assert told.event_type == 2
        assert told.failed == {"1.9.1": 0x0110, "1.9.2": 0x0110, "1.9.3": 0x0110}
        assert told.safe == ["1.9.4", "1.9.5"]
        association.release()


def test_other_bytes_under_the_same_uid_are_looked_at_too(site: Site) -> None:
    with site.running():
        modality = Modality(site)
        association = modality.associate(store=True)
        modality.store(association, "1.9.1")
        other = homes.data_set("1.9.1", pixels=70)
        ours = homes.archive(site.settings, owner="work")
        assert homes.store(ours, other, homes.request("1.9.1", peer="modality")).verdict == "aside"
        ours.close()
        modality.ask(association, ["1.9.1"])
        assert modality.result().safe == ["1.9.1"]
        ((path,),) = site.rows("SELECT path FROM aside")
        damage(site.settings.files / path)
        modality.ask(association, ["1.9.1"])
        assert modality.result().failed == {"1.9.1": 0x0110}
        association.release()


def test_an_instance_of_another_class_is_a_conflict(site: Site) -> None:
    with site.running():
        modality = Modality(site)
        association = modality.associate(store=True)
        modality.store(association, "1.9.1")
        modality.ask(association, ["1.9.1"], sop_class=MR)
        assert modality.result().failed == {"1.9.1": 0x0119}
        association.release()


def test_a_transaction_uid_in_use_fails_and_the_first_request_stands(site: Site) -> None:
    modality = Modality(site)
    with site.running():  # nobody listens: what the first association leaves stays open
        association = modality.associate(store=True)
        modality.store(association, "1.9.1")
        modality.ask(association, ["1.9.1"], "1.2.77")
        association.abort()
        wait_until(lambda: state_of(site, "1.2.77") == "checked")
        association = modality.associate()
        modality.ask(association, ["1.9.2", "1.9.3"], "1.2.77")
        told = modality.result()
        assert (told.where, told.failed) == ("same", {"1.9.2": 0x0131, "1.9.3": 0x0131})
        modality.ask(association, ["1.9.1"], "1.2.77")  # not answered as far as the peer knows: asked again
        assert modality.result().safe == ["1.9.1"]
        wait_until(lambda: state_of(site, "1.2.77") == "reported,reported")
        association.release()


def test_a_peer_that_may_not_commit_is_told_so(site: Site) -> None:
    with site.running(may=frozenset({"store"})):
        modality = Modality(site)
        association = modality.associate(store=True)
        modality.store(association, "1.9.1")
        status, _ = association.send_n_action(
            request("1.2.3", ["1.9.1"]), 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        assert status.Status == 0x0124
        modality.store(association, "1.9.2")
        association.release()
    assert site.rows("SELECT * FROM commitments") == []


def no_transaction() -> Dataset:
    asked = request("1.2.3", ["1.9.1"])
    del asked.TransactionUID
    return asked


@pytest.mark.parametrize(
    ("asked", "action", "sop_class", "instance", "status"),
    [
        (request("1.2.3", []), 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance, 0x0115),
        (no_transaction(), 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance, 0x0115),
        (request("1.2.3", ["1.9.1"]), 2, StorageCommitmentPushModel, StorageCommitmentPushModelInstance, 0x0123),
        (request("1.2.3", ["1.9.1"]), 1, StorageCommitmentPushModel, "1.2.3", 0x0112),
        (None, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance, 0x0115),
    ],
)
def test_a_malformed_request_has_its_own_status(
    site: Site, asked: Dataset | None, action: int, sop_class: str, instance: str, status: int
) -> None:
    with site.running():
        association = Modality(site).associate()
        answer, _ = association.send_n_action(asked, action, sop_class, instance)
        assert answer.Status == status
        association.release()
    assert site.rows("SELECT * FROM commitments") == []


def test_a_peer_that_sends_on_is_not_interrupted(site: Site) -> None:
    data = homes.data_set("1.9.1")
    ask = pdv(1, 3, commands.action_request(9, COMMITMENT, COMMITMENT_INSTANCE, 1))
    asked = pdv(1, pdus.LAST, encoded(request("1.2.3", ["1.9.1"]), EXPLICIT))
    stored = store_command("1.9.1", context_id=3) + p_data(pdv(3, pdus.LAST, data))
    contexts = (COMMITMENT, (EXPLICIT,)), (CT, (EXPLICIT,))
    with site.running(), RawClient(site.port).associate(contexts) as client:
        client.send(p_data(ask) + p_data(asked) + stored * 50)
        heard = [client.read_status() for _ in range(52)]
        assert [h.command_field for h in heard] == [
            commands.N_ACTION_RSP,
            *[commands.C_STORE_RSP] * 50,
            commands.N_EVENT_REPORT_RQ,
        ]
        assert all(h.status.is_success for h in heard)


def test_a_refused_result_stays_owed(site: Site) -> None:
    modality = Modality(site, status=0x0110)
    with site.running(), modality.listening():
        association = modality.associate()
        asked = modality.ask(association, ["1.9.404"])
        assert modality.result().where == "same"
        assert modality.result().where == "new"
        wait_until(lambda: site.rows("SELECT attempts FROM commitments") == [(1,)])
        assert state_of(site, asked) == "checked"
        ((reason,),) = site.rows("SELECT reason FROM commitments")
        assert "0x0110" in reason
        association.release()


def test_what_could_not_be_told_is_told_by_the_next_process(site: Site) -> None:
    modality = Modality(site)
    with modality.listening():
        port = site.callback_port
        site.callback_port = free_port()
        with site.running():
            association = modality.associate(store=True)
            modality.store(association, "1.9.1")
            asked = modality.ask(association, ["1.9.1"])
            association.abort()
            wait_until(lambda: site.rows("SELECT attempts FROM commitments") == [(1,)])
            ((reason, wait_us),) = site.rows("SELECT reason, next_attempt_utc_us - received_utc_us FROM commitments")
            assert "does a DICOM service run there" in reason
            assert 60e6 <= wait_us < 90e6
        with pytest.raises(queue.Empty):
            modality.results.get(timeout=0.1)
        site.callback_port = port
        with site.running():
            told = modality.result()
            assert (told.where, told.transaction_uid, told.safe) == ("new", asked, ["1.9.1"])
            wait_until(lambda: state_of(site, asked) == "reported")


class Process:
    """`pacsnode scp` on the site's home."""

    def __init__(self, site: Site, folder: Path, callback_port: int) -> None:
        rules = folder / "rules.yaml"
        rules.write_text(
            "version: 1\npeers:\n  modality: {ae_title: MODALITY, host: 127.0.0.1, "
            f"port: {callback_port}, may: [{', '.join(sorted(MAY))}]}}\nrules: []\n"
        )
        site.port = free_port()
        environment = os.environ | {
            "PACSNODE_HOME": str(site.settings.home),
            "PACSNODE_RULES": str(rules),
            "PACSNODE_DICOM_HOST": "127.0.0.1",
            "PACSNODE_DICOM_PORT": str(site.port),
            "PACSNODE_MINIMUM_FREE_MB": "1",
        }
        self.process = subprocess.Popen([sys.executable, "-m", "pacsnode", "scp"], env=environment)
        await_listener(site.port)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def test_a_kill_between_answer_and_result_forgets_nothing(site: Site, tmp_path: Path) -> None:
    modality, callback_port = Modality(site), free_port()
    asked = []
    for number in range(3):
        process = Process(site, tmp_path, callback_port)
        try:
            association = modality.associate(store=True)
            modality.store(association, f"1.9.{number}")
            asked.append(modality.ask(association, [f"1.9.{number}"]))
        finally:
            process.kill()
        association.abort()
    told_before = modality.results.qsize()  # on a busy machine the kill may come too late to be in between
    assert told_before < 3
    with modality.listening(callback_port):
        process = Process(site, tmp_path, callback_port)
        try:
            told = [modality.result() for _ in asked]
            assert [t.where for t in told] == ["same"] * told_before + ["new"] * (3 - told_before)
            assert {(t.transaction_uid, *t.safe) for t in told} == {
                (uid, f"1.9.{number}") for number, uid in enumerate(asked)
            }
            wait_until(lambda: all(state_of(site, uid) == "reported" for uid in asked))
        finally:
            process.kill()


def test_an_idle_association_that_asked_is_still_ended_in_time(site: Site) -> None:
    with site.running(idle_s=1.0):
        modality = Modality(site)
        association = modality.associate()
        modality.ask(association, ["1.9.404"])
        assert modality.result().where == "same"
        wait_until(lambda: bool(association.is_aborted))


def test_many_instances_are_checked_while_others_store(site: Site) -> None:
    uids = [f"1.9.{number}" for number in range(200)]
    contexts = contexts_for([(CT, EXPLICIT)])
    ask = pdv(1, 3, commands.action_request(9, COMMITMENT, COMMITMENT_INSTANCE, 1))
    with (
        site.running(),
        Association.request("127.0.0.1", site.port, "OTHER", "PACSNODE", contexts) as other,
        RawClient(site.port).associate(((COMMITMENT, (EXPLICIT,)),)) as client,
    ):
        for uid in uids:
            assert other.store(CT, uid, EXPLICIT, io.BytesIO(homes.data_set(uid))).is_success
        client.send(p_data(ask) + p_data(pdv(1, pdus.LAST, encoded(request("1.2.3", uids), EXPLICIT))))
        for number in range(50):
            uid = f"1.8.{number}"
            assert other.store(CT, uid, EXPLICIT, io.BytesIO(homes.data_set(uid))).is_success
        assert client.read_status().status.is_success
        told = client.read_status()
        assert (told.command_field, told.type_id) == (commands.N_EVENT_REPORT_RQ, 1)
        data = client.read_pdu()[1][12:]
        assert [item.text(0x0008_1155) for item in nested.read(data, EXPLICIT, frozenset()).items(0x0008_1199)] == uids
