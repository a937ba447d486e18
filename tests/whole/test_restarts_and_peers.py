"""What outlives a restart, who stays apart, and that a dead destination is no one else's trouble."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest
from harness import LOOPBACK, Node, Pacs, electrocardiogram, free_port, wait_until, write_rules
from sending import send_from, variant

TWO_CLINICS = """
version: 1
peers:
  north-cr1: {{ae_title: CR1, host: 127.0.0.2, port: {port}, may: [store], issuer: NORTH, investigational: true}}
  south-cr1: {{ae_title: CR1, host: 127.0.0.3, port: {port}, may: [store], issuer: SOUTH, investigational: true}}
rules: []
unmatched: keep
"""


def test_two_peers_with_one_ae_title_and_one_patient_id_stay_two_patients(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(TWO_CLINICS.format(port=free_port()))
    north, south = tmp_path / "north.dcm", tmp_path / "south.dcm"
    first = variant(electrocardiogram(), north, "north", PatientID="12345", PatientName="Kim^Minsu")
    second = variant(electrocardiogram(), south, "south", PatientID="12345", PatientName="Lee^Jiwoo")
    node = Node(tmp_path / "home", rules, extra={"PACSNODE_DICOM_HOST": "0.0.0.0"})
    node.run("migrate")
    node.start("scp")
    try:
        assert send_from("127.0.0.2", node.port, "CR1", [north]) == [0]
        assert send_from("127.0.0.3", node.port, "CR1", [south]) == [0]
        # The same study from the other network is another patient's: a conflict, whatever its PatientID says.
        variant(electrocardiogram(), south, "south 2", StudyInstanceUID=first.StudyInstanceUID, PatientID="12345")
        assert send_from("127.0.0.3", node.port, "CR1", [south]) == [0]
    finally:
        node.stop()
    from pacsnode.archive.index import Index

    index = Index(tmp_path / "home" / "index.db")
    try:
        studies = [index.study(str(d.StudyInstanceUID)) for d in (first, second)]
        assert [(s.issuer, s.patient_id) for s in studies if s] == [("NORTH", "12345"), ("SOUTH", "12345")]
        assert [s.conflict for s in studies if s] == ["IssuerOfPatientID differs", ""]
    finally:
        index.close()


def test_a_caller_that_is_no_peer_gets_no_association_and_the_log_says_why(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(TWO_CLINICS.format(port=free_port()))
    node = Node(tmp_path / "home", rules)
    node.run("migrate")
    node.start("scp")
    try:
        answer = node.run("echo", f"{LOOPBACK}:{node.port}:PACSNODE", check=False)
        assert answer.returncode == 1
        assert "does not know our AE title PACSNODE" in answer.stderr
        assert "enter it under `peers:`" in node.log()
    finally:
        node.stop()


@pytest.fixture
def deaf_port() -> object:
    """A destination that accepts connections and never answers."""
    with socket.socket() as deaf:
        deaf.bind((LOOPBACK, 0))
        deaf.listen(8)
        yield deaf.getsockname()[1]


def test_quiet_time_outlives_a_restart_and_a_dead_destination_delays_no_other(tmp_path: Path, deaf_port: int) -> None:
    path = tmp_path / "ecg.dcm"
    study = str(variant(electrocardiogram(), path, "restart").StudyInstanceUID)
    with Pacs(tmp_path / "pacs") as pacs:
        rules = write_rules(tmp_path / "rules.yaml", sender_port=deaf_port, pacs_port=pacs.port, quiet=6)
        node = Node(tmp_path / "home", rules)
        with node:
            begun = time.monotonic()
            node.send([path])
            wait_until(lambda: node.life(study)["waiting"] != [], 20)
        assert pacs.objects() == []
        with node:
            wait_until(lambda: len(pacs.objects()) == 2, 90, 0.1)
            assert time.monotonic() - begun > 6
            case = node.life(study)["cases"][0]
            assert "quiet for" in case["whole_because"]
            states = {(d["destination"], d["state"]) for d in case["deliveries"]}
            waiting = {("xray-1", "owed"), ("xray-1", "sending")}
            assert states - waiting == {("main-pacs", "sent")}
            assert states & waiting


def test_a_retry_sends_nothing_to_a_peer_that_may_not_have_uncertified_results_any_more(tmp_path: Path) -> None:
    path = tmp_path / "ecg.dcm"
    study = str(variant(electrocardiogram(), path, "gate").StudyInstanceUID)
    pacs_port = free_port()

    def deliveries(node: Node) -> set[tuple[str, str]]:
        return {(d["destination"], d["state"]) for c in node.life(study)["cases"] for d in c["deliveries"]}

    with Pacs(tmp_path / "sender", ae_title="XR1") as sender:
        rules = write_rules(tmp_path / "rules.yaml", sender_port=sender.port, pacs_port=pacs_port)
        with Node(tmp_path / "home", rules) as node:
            node.send([path])  # the PACS is down: its results stay owed
            wait_until(lambda: deliveries(node) == {("xray-1", "sent"), ("main-pacs", "owed")}, 90, 0.3)
            text = rules.read_text().replace("[sender, main-pacs]", "[sender]")
            rules.write_text(text.replace("may: [query, retrieve], investigational: true", "may: [query, retrieve]"))
            node.processes[0].send_signal(signal.SIGHUP)
            wait_until(lambda: "rules and models reloaded" in node.log(), 20)
            with Pacs(tmp_path / "pacs", port=pacs_port) as pacs:
                node.run("deliveries", "retry", "main-pacs")
                wait_until(lambda: deliveries(node) == {("xray-1", "sent"), ("main-pacs", "parked")}, 30, 0.3)
                assert pacs.objects() == []
            assert "is not certified and peer main-pacs" in node.run("deliveries", "list", "--state", "parked").stdout
