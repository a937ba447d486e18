"""Who is let in, who is turned away and listed, and what becomes of the images of unknown callers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacsnode import peers
from pacsnode.archive import quarantine, refusals
from pacsnode.archive.index import Index
from pacsnode.archive.refusals import MOST_ROWS, Refusal, Refusals
from pacsnode.dimse import associate, pdus
from pacsnode.dimse.tls import Certificate
from pacsnode.errors import ConfigError
from pacsnode.peers import QUARANTINE, Peer
from pacsnode.receive.admission import Caller, Refused
from tests.archive import homes
from tests.receive.doubles import CT, EXPLICIT, RawClient, p_data, pdv, store_command
from tests.receive.real import RULES, Site, another_modality

ONE, OTHER = Certificate("CT 1", "ab" * 32), Certificate("CT 2", "cd" * 32)


def store(site: Site, uid: str, data: bytes, calling: str = "UNKNOWN") -> int:
    with site.client(calling=calling) as client:
        client.send(store_command(uid) + p_data(pdv(1, 2, data)))
        code = client.read_status().status.code
        client.release()
    return code


def stranger(address: str, _: str = "") -> Peer | None:
    """What the rules file says once UNKNOWN was entered."""
    return Peer(name="new", ae_title="UNKNOWN", host="127.0.0.1", may=("store",), issuer="CLINIC")


@pytest.mark.parametrize(
    ("caller", "admitted"),
    [
        (Caller("OPEN", "PACSNODE", "127.0.0.1"), "open"),
        (Caller("OPEN", "PACSNODE", "127.0.0.1", True, OTHER), "open"),
        (Caller("OPEN ", "PACSNODE ", "127.0.0.1"), "open"),
        (Caller("ANY-CERT", "PACSNODE", "127.0.0.1", True), "any-cert"),
        (Caller("ANY-CERT", "PACSNODE", "127.0.0.1"), 3),
        (Caller("CT", "PACSNODE", "127.0.0.1", True, ONE), "ct-1"),
        (Caller("CT", "PACSNODE", "127.0.0.1", True, OTHER), "ct-2"),
        (Caller("CT", "PACSNODE", "127.0.0.1", True, Certificate("CT 3", "00" * 32)), 3),
        (Caller("CT", "PACSNODE", "127.0.0.1", True), 3),
        (Caller("CT", "PACSNODE", "127.0.0.1"), 3),
        (Caller("CT", "PACSNODE", "127.0.0.2", True, ONE), 3),
        (Caller("OPEN", "ELSEWHERE", "127.0.0.1"), 7),
        (Caller("", "", "127.0.0.1"), 7),
    ],
)
def test_title_address_and_certificate_bind_together(tmp_path: Path, caller: Caller, admitted: str | int) -> None:
    rules = f"""{RULES}
  open: {{ae_title: OPEN, host: 127.0.0.1}}
  any-cert: {{ae_title: ANY-CERT, host: 127.0.0.1, tls: true}}
  ct-1: {{ae_title: CT, host: 127.0.0.1, tls: true, certificate: CT 1}}
  ct-2: {{ae_title: CT, host: 127.0.0.1, tls: true, certificate: {":".join(["CD"] * 32)}}}
"""
    with Site(tmp_path, rules) as site:
        if isinstance(admitted, str):
            assert site.admission.admit(caller).peer == admitted
            return
        with pytest.raises(Refused) as refused:
            site.admission.admit(caller)
        assert (refused.value.result, refused.value.source, refused.value.reason) == (1, 1, admitted)


def test_the_refused_are_listed_with_reason_and_count_and_outlive_the_process(tmp_path: Path) -> None:
    with Site(tmp_path) as site, another_modality(site):
        for calling, called in (("STRANGER", "PACSNODE"), ("STRANGER", "PACSNODE"), ("MODALITY", "WRONG")):
            with RawClient(site.server.port) as client:
                client.send(associate.encode_request(calling, called, ((CT, (EXPLICIT,)),)))
                assert client.read_end()[0] == pdus.ASSOCIATE_RJ
    lines = {line.refusal.calling_ae_title: line for line in refusals.listing(site.settings.index_db)}
    assert {title: line.count for title, line in lines.items()} == {"STRANGER": 2, "MODALITY": 1}
    assert lines["STRANGER"].refusal.reason.startswith("no peer has AE title 'STRANGER' and address 127.0.0.1")
    assert lines["MODALITY"].refusal.reason == "called 'WRONG', but this is PACSNODE"
    assert lines["STRANGER"].first_utc_us < lines["STRANGER"].last_utc_us


def test_the_list_is_bounded_and_a_flood_of_one_address_leaves_the_others(tmp_path: Path) -> None:
    settings = homes.home(tmp_path)
    few = [Refusal(f"CT{n}", "PACSNODE", "192.0.2.1", "", "rejected", "no peer") for n in range(5)]
    flood = [Refusal(f"X{n}", "PACSNODE", "192.0.2.66", "", "rejected", "no peer") for n in range(3 * MOST_ROWS)]
    for batch in (few, flood[: MOST_ROWS - 10], flood[MOST_ROWS - 10 : 2 * MOST_ROWS - 20], flood[2 * MOST_ROWS :]):
        book = Refusals(settings.index_db)
        for refusal in batch:
            book.note(refusal)
        book.close()
    listed = refusals.listing(settings.index_db)
    assert len(listed) == MOST_ROWS
    assert {line.refusal for line in listed} >= set(few)
    assert refusals.forget(settings.index_db, lambda refusal: refusal.address == "192.0.2.66") == MOST_ROWS - 5


def test_an_unknown_caller_is_rejected_where_nothing_else_is_set(tmp_path: Path) -> None:
    with Site(tmp_path) as site, another_modality(site), RawClient(site.server.port) as client:
        client.send(associate.encode_request("UNKNOWN", "PACSNODE", ((CT, (EXPLICIT,)),)))
        kind, pdu = client.read_end()
        assert (kind, tuple(pdu[7:10])) == (pdus.ASSOCIATE_RJ, (1, 1, 3))


def test_in_quarantine_images_are_kept_and_count_for_nothing(tmp_path: Path) -> None:
    study = "1.2.3"
    with Site(tmp_path, unknown_callers="quarantine") as site:
        with another_modality(site):
            # The same UIDs, and another patient in the same study: neither may spoil what the known peer sends.
            assert store(site, "1.2.1", homes.data_set("1.2.1", PatientID="666", PatientName="Evil")) == 0
            assert store(site, "1.2.1", homes.data_set("1.2.1"), calling="MODALITY") == 0
            assert store(site, "1.2.2", homes.data_set("1.2.2", PatientID="666")) == 0
        assert "1.2.1" in site.held()
        assert "1.2.2" not in site.held()
        assert [line.refusal.outcome for line in site.refused()] == ["quarantined"]
        assert quarantine.count(site.settings.index_db) == 2
        index = Index(site.settings.index_db)
        found = index.study(study)
        index.close()
        assert found is not None
        assert found.conflict == ""
        assert {instance.peer for instance in found.instances} == {"modality", "other"}


def test_who_is_allowed_gets_his_images_out_of_quarantine_into_their_studies(tmp_path: Path) -> None:
    data = homes.data_set("1.2.1", study="1.2.9")
    with Site(tmp_path, unknown_callers="quarantine") as site:
        with another_modality(site):
            assert store(site, "1.2.1", data) == 0
            assert store(site, "1.2.2", homes.data_set("1.2.2", study="1.2.9"), calling="THIRD") == 0
        settings = site.settings

        def allowed(calling: str, address: str) -> Peer | None:
            return stranger(address) if calling == "UNKNOWN" else None

        before = homes.rows(settings, "SELECT value FROM revision")
        assert quarantine.release(settings.index_db, settings.files, allowed) == 1
        assert quarantine.release(settings.index_db, settings.files, allowed) == 0
        assert homes.rows(settings, "SELECT value FROM revision") > before
    assert homes.held_bytes(settings, "1.2.1") == data
    assert homes.rows(settings, "SELECT peer FROM instances WHERE sop_instance_uid = '1.2.1'") == [("new",)]
    assert homes.rows(settings, "SELECT issuer FROM studies WHERE study_instance_uid = '1.2.9'") == [("CLINIC",)]
    assert [uid for uid, _ in site.aside()] == ["1.2.2"]
    assert homes.restart(settings).rows_restored == 0


def test_what_came_again_from_a_known_peer_leaves_quarantine_without_a_trace(tmp_path: Path) -> None:
    data = homes.data_set("1.2.1")
    with Site(tmp_path, unknown_callers="quarantine") as site:
        assert store(site, "1.2.1", data) == 0
        assert store(site, "1.2.1", data, calling="MODALITY") == 0
        assert quarantine.release(site.settings.index_db, site.settings.files, stranger) == 1
        assert site.aside() == []
        assert site.torn() == []
    assert homes.held_bytes(site.settings, "1.2.1") == data


def test_quarantine_outlives_a_lost_index(tmp_path: Path) -> None:
    with Site(tmp_path, unknown_callers="quarantine") as site:
        assert store(site, "1.2.1", homes.data_set("1.2.1")) == 0
    homes.rows(site.settings, "DELETE FROM aside")
    homes.rows(site.settings, "UPDATE epochs SET sealed = 0")
    assert homes.restart(site.settings).rows_restored == 1
    assert site.aside() == [("1.2.1", "in quarantine: its sender is no peer")]


def test_no_peer_of_the_file_can_be_the_quarantine(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES.replace("viewer:", f"{QUARANTINE}:"))
    with pytest.raises(ConfigError, match="a peer cannot be called 'quarantine'"):
        peers.load(tmp_path / "rules.yaml")


@pytest.mark.parametrize("given", ["certificate: CT 1", 'tls: false, certificate: "CT 1"'])
def test_a_certificate_without_tls_is_a_mistake(tmp_path: Path, given: str) -> None:
    (tmp_path / "rules.yaml").write_text(RULES.replace("host: 127.0.0.1, may: [query]", f"host: 127.0.0.1, {given}"))
    with pytest.raises(ConfigError, match="a certificate is shown over TLS alone; add tls: true"):
        peers.load(tmp_path / "rules.yaml")


@pytest.mark.parametrize(
    ("first", "second", "right"),
    [
        ("tls: true, certificate: A", "tls: true, certificate: B", True),
        ("tls: true, certificate: A", "tls: true, certificate: A", False),
        ("tls: true, certificate: A", "tls: true", False),
        ("may: [store]", "tls: true, certificate: B", False),
    ],
)
def test_two_peers_at_one_place_are_told_apart_by_their_certificates(
    tmp_path: Path, first: str, second: str, right: bool
) -> None:
    lines = "".join(f"  {n}: {{ae_title: T, host: 192.0.2.1, {how}}}\n" for n, how in (("a1", first), ("b1", second)))
    (tmp_path / "rules.yaml").write_text("version: 1\npeers:\n" + lines)
    if right:
        assert len(peers.load(tmp_path / "rules.yaml").matching("T", "192.0.2.1")) == 2
        return
    with pytest.raises(ConfigError, match="nobody could tell them apart"):
        peers.load(tmp_path / "rules.yaml")
