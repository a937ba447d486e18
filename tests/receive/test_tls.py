"""TLS with DCMTK and with openssl's certificates: right ones, wrong ones, none, renewed ones, and silence."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacsnode.checks import Check, examine
from pacsnode.dimse import tls
from pacsnode.dimse.association import ECHO_CONTEXT, Association, contexts_for
from pacsnode.dimse.tls import Credentials
from pacsnode.errors import ConfigError, Permanent, Transient
from pacsnode.peers import Peer
from pacsnode.receive.protocol import TimeLimits
from pacsnode.settings import load
from tests.archive import homes
from tests.receive.certificates import Authority, Pair
from tests.receive.doubles import CT, EXPLICIT, RawClient, await_listener, dcmtk, free_port, run_tool, storescp
from tests.receive.real import RULES, Site, another_modality, ct_file, wait_for

BOUND = RULES + '  bound: {ae_title: BOUND, host: 127.0.0.1, may: [store], tls: true, certificate: "CT 1"}\n'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"), "clinic")


@pytest.fixture(scope="module")
def node_pair(authority: Authority) -> Pair:
    return authority.issue("pacsnode")


@pytest.fixture(scope="module")
def modality_pair(authority: Authority) -> Pair:
    return authority.issue("CT 1")


@pytest.fixture(scope="module")
def strange_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Authority.make(tmp_path_factory.mktemp("strange"), "elsewhere").issue("CT 1")


def over_tls(folder: Path, authority: Authority, pair: Pair, rules: str = BOUND, **given: Any) -> Site:
    """A node with a TLS port; its files are copies that a test may replace."""
    for path, name in ((pair.certificate, "node.pem"), (pair.key, "node.key"), (authority.own.certificate, "ca.pem")):
        shutil.copy(path, folder / name)
    limits = TimeLimits(request_s=0.5, linger_s=0.5) if given.pop("impatient", False) else None
    files = {"tls_certificate": folder / "node.pem", "tls_key": folder / "node.key", "tls_ca": folder / "ca.pem"}
    return Site(folder, rules, limits, **files, **given)


@pytest.fixture
def site(tmp_path: Path, authority: Authority, node_pair: Pair) -> Iterator[Site]:
    with over_tls(tmp_path, authority, node_pair) as made:
        yield made


def send(site: Site, pair: Pair | None, uid: str, calling: str = "BOUND", *options: str) -> tuple[bool, str]:
    """storescu +tls: whether it was taken, and what storescu told."""
    proof = ("+tla",) if pair is None else ("+tls", str(pair.key), str(pair.certificate))
    trust = ("-ic",) if pair is None else ("+cf", str(site.folder / "ca.pem"))
    file = ct_file(site.folder, uid, pixels=500_000)
    titles = ("-aet", calling, "-aec", "PACSNODE", "127.0.0.1", str(site.server.tls_port), str(file))
    answer = run_tool(dcmtk("storescu"), "-v", *proof, *trust, *options, *titles)
    return answer.returncode == 0, answer.stderr + answer.stdout


@pytest.mark.parametrize("options", [(), ("-pdu", "4096"), ("-pdu", "131072"), ("+px",)], ids=" ".join)
def test_the_right_certificate_stores_every_byte(site: Site, modality_pair: Pair, options: tuple[str, ...]) -> None:
    with another_modality(site):
        taken, told = send(site, modality_pair, "1.2.5", "BOUND", *options)
    assert taken, told
    sent = (site.folder / "1.2.5.dcm").read_bytes()
    assert sent.endswith(homes.held_bytes(site.settings, "1.2.5"))
    assert len(homes.held_bytes(site.settings, "1.2.5")) > 500_000


def test_a_certificate_of_another_authority_gets_nothing_and_is_listed(site: Site, strange_pair: Pair) -> None:
    with another_modality(site):
        assert not send(site, strange_pair, "1.2.5")[0]
    assert "1.2.5" not in site.held()
    (line,) = site.refused()
    assert line.refusal.address == "127.0.0.1"
    assert "certificate is not accepted" in line.refusal.reason


def test_no_certificate_gets_nothing_where_one_is_required(site: Site) -> None:
    with another_modality(site):
        assert not send(site, None, "1.2.5")[0]
    assert "1.2.5" not in site.held()


def test_a_certificate_of_another_name_is_rejected_by_code(site: Site, authority: Authority) -> None:
    with another_modality(site):
        taken, told = send(site, authority.issue("CT 2"), "1.2.5")
    assert not taken
    assert "Calling AE Title Not Recognized" in told
    (line,) = site.refused()
    assert line.refusal.calling_ae_title == "BOUND"
    assert "peer bound showed the certificate 'CT 2'" in line.refusal.reason


def test_a_peer_that_is_bound_to_tls_is_rejected_without_it(site: Site) -> None:
    file = ct_file(site.folder, "1.2.5")
    with another_modality(site):
        answer = run_tool(
            *(dcmtk("storescu"), "-v", "-aet", "BOUND", "-aec", "PACSNODE"),
            *("127.0.0.1", str(site.server.port), str(file)),
        )
    assert "Calling AE Title Not Recognized" in answer.stderr + answer.stdout
    assert site.refused()[0].refusal.reason == "peer bound has tls: true and called without TLS"


def test_a_peer_that_fails_at_its_certificate_does_not_slip_in_by_a_wider_entry(
    tmp_path: Path, authority: Authority, node_pair: Pair
) -> None:
    rules = BOUND + '  any: {ae_title: "*", host: 127.0.0.0/8, may: [store]}\n'
    with over_tls(tmp_path, authority, node_pair, rules, unknown_callers="quarantine") as site:
        with another_modality(site):
            assert not send(site, authority.issue("CT 3"), "1.2.5")[0]
            assert send(site, authority.issue("CT 3"), "1.2.6", "ANYBODY")[0]
        assert "1.2.5" not in site.held()


def test_a_fingerprint_binds_as_a_name_does(
    tmp_path: Path, authority: Authority, node_pair: Pair, modality_pair: Pair
) -> None:
    rules = BOUND.replace('"CT 1"', f'"{modality_pair.fingerprint()}"')
    with over_tls(tmp_path, authority, node_pair, rules) as site:
        with another_modality(site):
            assert send(site, modality_pair, "1.2.5")[0]
            assert not send(site, authority.issue("CT 4"), "1.2.6")[0]
        assert "1.2.5" in site.held()


@pytest.mark.parametrize(("wanted", "anonymous"), [("none", True), ("optional", True), ("optional", False)])
def test_certificates_of_clients_can_be_left_out_by_setting(
    tmp_path: Path, authority: Authority, node_pair: Pair, modality_pair: Pair, wanted: str, anonymous: bool
) -> None:
    with over_tls(tmp_path, authority, node_pair, tls_client_certificate=wanted) as site, another_modality(site):
        taken, told = send(site, None if anonymous else modality_pair, "1.2.5", "MODALITY")
        assert taken, told
        assert send(site, None if anonymous else modality_pair, "1.2.6", "BOUND")[0] is not anonymous


# ------------------------------------------------------------------------------------------------ silence, age


def test_silence_on_the_tls_port_holds_nobody(
    tmp_path: Path, authority: Authority, node_pair: Pair, modality_pair: Pair
) -> None:
    with over_tls(tmp_path, authority, node_pair) as site:
        silent = [RawClient(site.server.tls_port) for _ in range(100)]
        with another_modality(site):
            assert send(site, modality_pair, "1.2.5")[0]
        for client in silent:
            client.socket.close()


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00" * 40])
def test_a_handshake_that_does_not_end_is_ended(
    tmp_path: Path, authority: Authority, node_pair: Pair, said: bytes
) -> None:
    with over_tls(tmp_path, authority, node_pair, impatient=True) as site, another_modality(site):
        with RawClient(site.server.tls_port) as client:
            client.send(said)
            with contextlib.suppress(ConnectionResetError):
                assert not client.socket.recv(100).startswith(b"\x07")  # no PDU in clear text
                assert client.socket.recv(100) == b""
        assert "no TLS" in site.refused()[0].refusal.reason


@pytest.mark.parametrize("kind", ["old version", "weak suite"])
def test_old_versions_and_weak_suites_are_refused(site: Site, modality_pair: Pair, kind: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(modality_pair.certificate, modality_pair.key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if kind == "old version":
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
            context.set_ciphers("ALL:@SECLEVEL=0")
        else:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("ECDHE-RSA-AES128-SHA256:AES128-GCM-SHA256")
    with another_modality(site):
        raw = socket.create_connection(("127.0.0.1", site.server.tls_port), timeout=20)
        with raw, pytest.raises(ssl.SSLError, match=r"(?i)alert|protocol"):
            context.wrap_socket(raw)


def served_certificate(site: Site) -> str:
    return ssl.get_server_certificate(("127.0.0.1", site.server.tls_port), timeout=20)


def test_a_renewed_certificate_is_taken_over_without_a_restart(
    tmp_path: Path, authority: Authority, node_pair: Pair, modality_pair: Pair
) -> None:
    with over_tls(tmp_path, authority, node_pair, tls_client_certificate="optional") as site:
        before = served_certificate(site)
        renewed = authority.issue("renewed")
        (tmp_path / "node.pem").write_bytes(b"half a file")
        assert served_certificate(site) == before
        shutil.copy(renewed.certificate, tmp_path / "node.pem")
        assert served_certificate(site) == before  # the key is still the old one
        shutil.copy(renewed.key, tmp_path / "node.key")
        assert served_certificate(site).split() == renewed.certificate.read_text().split()
        site.incoming.reload()
        assert send(site, modality_pair, "1.2.5")[0]


def expiry(folder: Path, pair: Pair, authority: Authority) -> Check:
    (folder / "rules.yaml").write_text(RULES + "rules: []\nunmatched: keep\n")
    (folder / "models").mkdir(exist_ok=True)
    files = {"tls_certificate": pair.certificate, "tls_key": pair.key, "tls_ca": authority.own.certificate}
    settings = load(home=folder / "home", rules=folder / "rules.yaml", models=folder / "models", **files)
    return next(c for c in examine(settings) if c.subject == "certificate" and str(pair.certificate) in c.found)


@pytest.mark.parametrize(("days", "level"), [(90, "ok"), (29, "warning"), (1, "warning")])
def test_doctor_tells_when_a_certificate_ends(tmp_path: Path, authority: Authority, days: int, level: str) -> None:
    found = expiry(tmp_path, authority.issue(f"ends-{days}", days=days), authority)
    assert (found.level, bool(found.todo)) == (level, level != "ok")
    assert f"in {days - 1} days" in found.found


@pytest.mark.parametrize("days", [100, 36_500], ids=["UTCTime", "GeneralizedTime"])
def test_the_end_of_a_certificate_is_the_one_that_openssl_tells(authority: Authority, days: int) -> None:
    from tests.receive.certificates import openssl

    pair = authority.issue(f"long-{days}", days=days)
    told = openssl("x509", "-in", str(pair.certificate), "-noout", "-enddate").partition("=")[2].strip()
    assert tls.valid_until(pair.certificate).timestamp() == ssl.cert_time_to_seconds(told)


def test_settings_that_do_not_go_together_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PACSNODE_TLS_CERTIFICATE and PACSNODE_TLS_KEY go together"):
        load(tls_certificate=tmp_path / "a.pem")
    with pytest.raises(ConfigError, match="PACSNODE_TLS_CLIENT_CERTIFICATE=none"):
        load(tls_certificate=tmp_path / "a.pem", tls_key=tmp_path / "a.key")
    with pytest.raises(ConfigError, match=r"a\.pem: cannot be used with its key"):
        Credentials(tmp_path / "a.pem", tmp_path / "a.key").server_context("none")


# ------------------------------------------------------------------------------------------------- as the SCU


def peer(port: int, **given: Any) -> Peer:
    entry = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "tls": True, **given}
    return Peer.model_validate(entry)


def test_results_reach_a_peer_over_tls_that_is_who_the_file_says(
    tmp_path: Path, authority: Authority, node_pair: Pair, modality_pair: Pair
) -> None:
    ours = Credentials(node_pair.certificate, node_pair.key, authority.own.certificate)
    theirs = ("+tls", str(modality_pair.key), str(modality_pair.certificate), "+cf", str(authority.own.certificate))
    file = ct_file(tmp_path, "1.2.5", pixels=500_000)
    kept = tmp_path / "kept"
    kept.mkdir()

    def ask(port: int, credentials: Credentials, **given: Any) -> Association:
        way = credentials.toward(peer(port, **given))
        contexts = (ECHO_CONTEXT, *contexts_for([(CT, EXPLICIT)]))
        return Association.request("127.0.0.1", port, "PACSNODE", "PACS", contexts, tls=way)

    with storescp(kept, *theirs) as port:
        for names in ({}, {"certificate": "CT 1"}, {"certificate": modality_pair.fingerprint()}):
            with ask(port, ours, **names) as association:
                assert association.echo().is_success
                assert association.store_file(file).is_success
        with pytest.raises(Permanent, match="the peer shows the certificate 'CT 1'"):
            ask(port, ours, certificate="CT 2")
        with pytest.raises(Transient):  # storescp wants to know us
            ask(port, Credentials(authorities=authority.own.certificate))
        with pytest.raises(Permanent, match="is not believed"):
            ask(port, Credentials(node_pair.certificate, node_pair.key, node_pair.certificate))
        with pytest.raises(ConfigError, match="PACSNODE_TLS_CA"):
            ask(port, Credentials())
    (one,) = wait_for(lambda: list(kept.iterdir()), bool)
    assert one.read_bytes()[-500_000:] == file.read_bytes()[-500_000:]


def test_a_peer_without_tls_on_its_port_is_told_as_such(tmp_path: Path, authority: Authority) -> None:
    with storescp(tmp_path) as port, pytest.raises(Transient, match="is this its port for TLS"):
        way = Credentials(authorities=authority.own.certificate).toward(peer(port))
        Association.request("127.0.0.1", port, "PACSNODE", "PACS", (ECHO_CONTEXT,), tls=way)


def test_a_running_node_takes_over_peers_and_certificate_at_a_signal(
    tmp_path: Path, authority: Authority, node_pair: Pair, modality_pair: Pair
) -> None:
    site = over_tls(tmp_path, authority, node_pair, RULES)
    port, tls_port = free_port(), free_port()
    given = {"home": site.settings.home, "rules": site.settings.rules, "minimum_free_mb": 1, "dicom_host": "127.0.0.1"}
    given |= {"dicom_port": port, "tls_port": tls_port, "tls_ca": tmp_path / "ca.pem"}
    given |= {"tls_certificate": tmp_path / "node.pem", "tls_key": tmp_path / "node.key"}
    environment = os.environ | {f"PACSNODE_{name.upper()}": str(value) for name, value in given.items()}
    file = ct_file(tmp_path, "1.2.5")
    proof = ("+tls", str(modality_pair.key), str(modality_pair.certificate), "+cf", str(tmp_path / "ca.pem"))
    send_it = (dcmtk("storescu"), *proof, "-aet", "BOUND", "-aec", "PACSNODE", "127.0.0.1", str(tls_port), str(file))
    command = [sys.executable, "-m", "pacsnode", "scp"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            await_listener(tls_port)
            assert run_tool(*send_it).returncode != 0
            site.settings.rules.write_text(BOUND)
            process.send_signal(signal.SIGHUP)
            wait_for(lambda: run_tool(*send_it).returncode, lambda code: code == 0)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert site.held() == {"1.2.5"}
    assert {line.refusal.calling_ae_title for line in site.refused()} >= {"BOUND"}
