"""Hostile and broken peers: each test ends with the node alive and the other modality's images stored (see `real`)."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pacsnode.dimse import associate, commands, pdus
from pacsnode.dimse.pdus import LeastRate
from pacsnode.receive.protocol import TimeLimits
from tests.archive import homes
from tests.receive.doubles import CT, EXPLICIT, RawClient, dcmtk, p_data, pdv, run_tool, store_command
from tests.receive.real import Site, another_modality, ct_file, wait_for

DEFLATED = "1.2.840.10008.1.2.1.99"
TCP_REPAIR = 19
SHORT = TimeLimits(request_s=0.5, pdu_s=0.5, idle_s=0.5, linger_s=0.3)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as made:
        yield made


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    if vr in (b"OB", b"OW", b"SQ", b"UN"):
        return struct.pack("<HH2sxxI", group, number, vr, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def answer_to(site: Site, uid: str, data: bytes, syntax: str = EXPLICIT) -> commands.Status:
    """How the node answers one object; the association is released."""
    with site.client(((CT, (syntax,)),)) as client:
        message = store_command(uid)
        for at in range(0, len(data), 100_000):
            message += p_data(pdv(1, 2 if at + 100_000 >= len(data) else 0, data[at : at + 100_000]))
        client.send(message)
        status = client.read_status().status
        client.release()
    return status


# ------------------------------------------------------------------------------------------------------ bounds

ELEMENT_WITHOUT_END = struct.pack("<HHI", 0, 2, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (struct.pack(">BxI", pdus.P_DATA_TF, 0xFFFFFFF0), pdus.INVALID_PARAMETER),
        (struct.pack(">BxI", pdus.P_DATA_TF, 5), pdus.INVALID_PARAMETER),
        (p_data(struct.pack(">IBB", 0xFFFFFFF0, 1, 3) + bytes(20)), pdus.INVALID_PARAMETER),
        (p_data(pdv(1, 3, ELEMENT_WITHOUT_END + bytes(40))), pdus.INVALID_PARAMETER),
        (p_data(pdv(1, 3, bytes(70_000))), pdus.INVALID_PARAMETER),
        (p_data(pdv(1, 1, bytes(40_000))) * 2, pdus.INVALID_PARAMETER),
        (p_data(pdv(1, 2, b"a data set without a command")), pdus.INVALID_PARAMETER),
        (p_data(pdv(99, 3, commands.store_request(1, CT, "1.2.3"))), pdus.INVALID_PARAMETER),
        (struct.pack(">BxI", 0x99, 4) + bytes(4), pdus.UNRECOGNISED_PDU),
        (struct.pack(">BxI", pdus.ASSOCIATE_RQ, 4) + bytes(4), pdus.UNEXPECTED_PDU),
    ],
    ids=["pdu", "pdu-empty", "pdv", "element", "command", "command-in-two", "order", "context", "type", "again"],
)
def test_what_is_out_of_bounds_is_aborted_with_the_reason(site: Site, sent: bytes, reason: int) -> None:
    with another_modality(site), site.client() as client:
        client.send(sent)
        kind, pdu = client.read_end()
        assert (kind, pdu[8], pdu[9]) == (pdus.ABORT, pdus.BY_PROVIDER, reason)


@pytest.mark.parametrize("length", [4, 0xFFFFFFF0])
def test_a_request_that_is_no_request_is_aborted(site: Site, length: int) -> None:
    with another_modality(site), RawClient(site.server.port) as client:
        client.send(struct.pack(">BxI", pdus.ASSOCIATE_RQ, length) + bytes(4))
        assert client.read_end()[0] == pdus.ABORT


# ---------------------------------------------------------------------------------------------- slow and silent


def test_a_byte_at_a_time_in_valid_pdus_is_aborted(tmp_path: Path) -> None:
    limits = TimeLimits(linger_s=0.3, least_rate=LeastRate(window_s=0.5))
    with Site(tmp_path, limits=limits) as site, site.client() as client:
        client.send(store_command("1.2.9"))
        stop = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    client.send(p_data(pdv(1, 0, b"x")))

        sender = threading.Thread(target=drip)
        sender.start()
        assert answer_to(site, "1.2.10", homes.data_set("1.2.10")).is_success
        assert client.read_pdu()[0] == pdus.ABORT
        stop.set()
        sender.join()
        with another_modality(site):
            pass


def test_a_slow_line_that_keeps_the_least_rate_is_served(tmp_path: Path) -> None:
    limits = TimeLimits(linger_s=0.3, least_rate=LeastRate(window_s=0.05))
    data = homes.data_set("1.2.9")
    with Site(tmp_path, limits=limits) as site, another_modality(site), site.client() as client:
        client.send(store_command("1.2.9"))
        pause = threading.Event()
        for at in range(0, len(data), 60):
            pause.wait(0.005)
            client.send(p_data(pdv(1, 2 if at + 60 >= len(data) else 0, data[at : at + 60])))
        assert client.read_status().status.is_success
        client.release()


def test_a_peer_that_vanished_without_a_word_is_dropped(tmp_path: Path) -> None:
    with Site(tmp_path, limits=SHORT) as site:
        client = site.client()
        client.send(store_command("1.2.9") + p_data(pdv(1, 0, b"half")))
        wait_for(site.torn, bool)
        try:
            client.socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)  # its close then sends nothing
        except PermissionError:
            pytest.skip("a half-open connection needs CAP_NET_ADMIN")
        client.socket.close()
        wait_for(site.server.counts, lambda counts: counts.active == 0)
        with another_modality(site):
            pass


def test_a_hundred_silent_sockets_hold_no_modality(site: Site) -> None:
    silent = [RawClient(site.server.port) for _ in range(100)]
    with another_modality(site):
        assert answer_to(site, "1.2.9", homes.data_set("1.2.9")).is_success
    for client in silent:
        client.socket.close()


def test_a_host_that_fills_the_house_pushes_out_only_itself(tmp_path: Path) -> None:
    limits = TimeLimits(linger_s=0.3, request_s=600)
    with Site(tmp_path, limits=limits) as site:
        crowd = []
        early = socket.create_connection(("127.0.0.1", site.server.port), source_address=("127.0.0.2", 0), timeout=20)
        for _ in range(250):  # more than may be without an association
            crowd.append(RawClient(site.server.port))
        with another_modality(site):
            early.sendall(associate.encode_request("ELSEWHERE", "PACSNODE", ((CT, (EXPLICIT,)),)))
            assert early.recv(10)[:1] == bytes([pdus.ASSOCIATE_RJ])  # it is no peer, but it is still answered
        early.close()
        for client in crowd:
            client.socket.close()


# ------------------------------------------------------------------------------------------------------ objects


@pytest.mark.parametrize("end", [pdus.abort_pdu(0, 0), b""], ids=["abort", "closed"])
def test_what_was_whole_before_an_abort_stays_and_the_torn_object_goes(
    site: Site, end: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    whole = homes.data_set("1.2.1")
    with another_modality(site), site.client() as client:
        client.send(store_command("1.2.1") + p_data(pdv(1, 2, whole)))
        assert client.read_status().status.is_success
        client.send(store_command("1.2.2") + p_data(pdv(1, 0, whole[:90])))
        wait_for(site.torn, bool)
        client.send(end)
        client.socket.shutdown(socket.SHUT_WR)
        wait_for(site.server.counts, lambda counts: counts.active == 1)
    assert homes.held_bytes(site.settings, "1.2.1") == whole
    assert "1.2.2" not in site.held()
    assert any("MODALITY" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "uid", ["../../../../tmp/x", "1.2\0.3", "1." * 32 + "1", "1.2.3/4", "", "1.2.3\n", "%2e%2e", "1.2.３"]
)
def test_a_uid_that_is_none_is_refused_before_anything_is_written(site: Site, uid: str) -> None:
    command = commands.store_request(7, CT, "1.2.3.4").replace(
        struct.pack("<HHI", 0, 0x1000, 8) + b"1.2.3.4\0",
        struct.pack("<HHI", 0, 0x1000, len(uid.encode())) + uid.encode(),
    )
    with another_modality(site), site.client() as client:
        client.send(p_data(pdv(1, 3, command)) + p_data(pdv(1, 2, homes.data_set("1.2.3.4"))))
        answer = client.read_status()
        assert answer.status.code == commands.INVALID_OBJECT_INSTANCE
        assert answer.affected_sop_instance_uid == ""
        client.release()
    assert len(site.held()) == 2


@pytest.mark.parametrize("padding", [" ", "\0\0", " \0"])
def test_a_uid_with_wrong_padding_is_understood(site: Site, padding: str) -> None:
    with another_modality(site), site.client() as client:
        client.send(store_command("1.2.34" + padding) + p_data(pdv(1, 2, homes.data_set("1.2.34"))))
        assert client.read_status().status.is_success
        client.release()
    assert "1.2.34" in site.held()


def test_command_and_data_set_of_two_objects_are_a900_and_kept_aside(site: Site) -> None:
    with another_modality(site):
        assert answer_to(site, "1.2.9", homes.data_set("1.2.10")).code == 0xA900
    ((uid, reason),) = site.aside()
    assert (uid, reason) == ("1.2.9", "A900 SOPInstanceUID of data set and command differ")
    assert site.held().isdisjoint({"1.2.9", "1.2.10"})


@pytest.mark.parametrize(
    "data",
    [
        b"MZ" + bytes(range(256)) * 8,
        element(8, 0x16, b"UI", CT.encode() + b"\0") + b"\x08\x00\x18\x00UI\xff\xff",
        element(8, 0x16, b"UI", b"1" * 60_000),
        homes.data_set("1.2.9")[:-10],
    ],
    ids=["noise", "cut", "long", "truncated"],
)
def test_bytes_that_are_no_data_set_are_c000_and_kept_aside(site: Site, data: bytes) -> None:
    with another_modality(site):
        status = answer_to(site, "1.2.9", data)
        assert status.code == 0xC000, status
    ((uid, reason),) = site.aside()
    assert uid == "1.2.9"
    assert reason.startswith("C000 ")
    ((path,),) = homes.rows(site.settings, "SELECT path FROM aside")
    assert (site.settings.files / str(path)).read_bytes().endswith(data)


def bomb(uid: str) -> bytes:
    """300 MB of zeros as pixels, deflated to about 290 KB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = homes.data_set(uid, pixels=0)[:-12] + struct.pack("<HH2sxxI", 0x7FE0, 0x10, b"OW", 300 << 20)
    packed = packer.compress(head) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()
    return packed + b"\0" * (len(packed) & 1)


def test_a_deflate_bomb_is_kept_as_it_came_and_never_unpacked(site: Site) -> None:
    packed = bomb("1.2.9")
    assert len(packed) < 1 << 19
    tracemalloc.start()
    try:
        with another_modality(site):
            assert answer_to(site, "1.2.9", packed, DEFLATED).is_success
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert homes.held_bytes(site.settings, "1.2.9") == packed


def nested(depth: int, inner: bytes = b"") -> bytes:
    """Sequences of undefined length, one in the other."""
    opening = struct.pack("<HH2sxxI", 0x0040, 0x0275, b"SQ", 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return opening * depth + inner + closing * depth


def test_three_thousand_sequences_in_one_another_are_c000(site: Site) -> None:
    plain = homes.data_set("1.2.9", pixels=0)[:-12]
    with another_modality(site):
        assert answer_to(site, "1.2.9", plain + nested(3000)).code == 0xC000
        assert answer_to(site, "1.2.9", plain + nested(8)).is_success


def test_the_preamble_on_disk_is_ours(site: Site) -> None:
    polyglot = b"MZ" + b"\x90" * 126
    file = ct_file(site.folder, "1.2.77", preamble=polyglot)
    assert file.read_bytes()[:2] == b"MZ"
    sent = run_tool(
        dcmtk("storescu"), "-aet", "MODALITY", "-aec", "PACSNODE", "127.0.0.1", str(site.server.port), str(file)
    )
    assert sent.returncode == 0, sent.stderr
    with another_modality(site):
        pass
    assert all(path.read_bytes()[:132] == bytes(128) + b"DICM" for path in homes.on_disk(site.settings))


# ------------------------------------------------------------------------------------------- what DCMTK is told


@pytest.mark.parametrize(
    ("titles", "told"),
    [
        (("-aet", "MODALITY", "-aec", "WRONG"), "Called AE Title Not Recognized"),
        (("-aet", "STRANGER", "-aec", "PACSNODE"), "Calling AE Title Not Recognized"),
    ],
)
def test_dcmtk_is_told_why_it_is_rejected(site: Site, titles: tuple[str, ...], told: str) -> None:
    with another_modality(site):
        answer = run_tool(dcmtk("echoscu"), "-v", *titles, "127.0.0.1", str(site.server.port))
    assert answer.returncode != 0
    assert told in answer.stderr + answer.stdout


def test_dcmtk_is_told_that_a_peer_may_not_store(site: Site) -> None:
    file = ct_file(site.folder, "1.2.78")
    with another_modality(site):
        arguments = ("-d", "-aet", "VIEWER", "-aec", "PACSNODE", "127.0.0.1", str(site.server.port), str(file))
        answer = run_tool(dcmtk("storescu"), *arguments)
    assert "0x0124" in answer.stderr + answer.stdout
    assert "1.2.78" not in site.held()


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        ({"maximum_associations": 2}, None),
        ({"peer_associations": 1}, None),
        ({}, "associations: 1, "),
    ],
    ids=["total", "peer by setting", "peer by file"],
)
def test_dcmtk_is_told_that_a_limit_is_reached(
    tmp_path: Path, given: dict[str, Any], rules: str | None, default_rules: Callable[[str], str]
) -> None:
    with Site(tmp_path, default_rules(rules or ""), **given) as site:
        with another_modality(site), site.client() as first:
            answer = run_tool(
                dcmtk("echoscu"), "-v", "-aet", "MODALITY", "-aec", "PACSNODE", "127.0.0.1", str(site.server.port)
            )
            assert "Local Limit Exceeded" in answer.stderr + answer.stdout
            first.release()
            wait_for(site.server.counts, lambda counts: counts.active == 1)
        assert "as many associations" in site.refused()[0].refusal.reason


@pytest.fixture
def default_rules() -> Callable[[str], str]:
    from tests.receive.real import RULES

    return lambda extra: RULES.replace("{ae_title: MODALITY, ", "{ae_title: MODALITY, " + extra)
