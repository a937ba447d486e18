"""Hostile and broken peers against a whole node, while another modality sends real images all the time.

Each test ends with the same scp process alive, no object of the other modality refused, and every one of them stored
byte for byte (`SteadyModality.undisturbed`). What DCMTK can produce is in `test_hostile_dcmtk`.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Node, wait_until
from hostile import RULES, SENT, Slow, World, attacked
from sending import data_set_bytes
from steady import SteadyModality, as_dcmtk_writes_them, torn

from pacsnode.dimse import commands, pdus
from tests.archive import homes
from tests.receive.doubles import CT, RawClient, p_data, pdv, store_command
from tests.receive.test_hostile import ELEMENT_WITHOUT_END, TCP_REPAIR


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with attacked(tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def slow(world: World) -> dict[str, Slow]:
    """Peers that are slow from the first test on; the last tests see how they end."""
    inside = world.client()
    inside.send(store_command(f"{SENT}.1"))
    request = struct.pack(">BxI", pdus.ASSOCIATE_RQ, 500) + bytes(500)
    slow = {
        "silent from the start": Slow(RawClient(world.node.port), b""),
        "a request byte by byte": Slow(RawClient(world.node.port), request),
        "an idle association": Slow(world.client(), b""),
        "a PDU byte by byte": Slow(inside, p_data(pdv(1, 0, bytes(5000)))),
    }
    for peer in slow.values():
        peer.start()
    return slow


# ----------------------------------------------------------------------------------------------------- by raw bytes


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (struct.pack(">BxI", pdus.P_DATA_TF, 0xFFFFFFF0) + bytes(300_000), pdus.INVALID_PARAMETER),
        (p_data(struct.pack(">IBB", 0xFFFFFFF0, 1, 3) + bytes(20)), pdus.INVALID_PARAMETER),
        (p_data(pdv(1, 3, ELEMENT_WITHOUT_END + bytes(40))), pdus.INVALID_PARAMETER),
        (p_data(pdv(1, 1, bytes(40_000))) * 2, pdus.INVALID_PARAMETER),
        (store_command() + p_data(pdv(1, 3, bytes(8))), pdus.INVALID_PARAMETER),
        (p_data(pdv(99, 3, commands.store_request(1, CT, "1.2.3"))), pdus.INVALID_PARAMETER),
        (struct.pack(">BxI", 0x99, 4) + bytes(4), pdus.UNRECOGNISED_PDU),
        (struct.pack(">BxI", pdus.ASSOCIATE_RQ, 4) + bytes(4), pdus.UNEXPECTED_PDU),
    ],
    ids=["pdu", "pdv", "element", "command", "order", "context", "type", "again"],
)
def test_what_is_out_of_bounds_is_aborted_with_its_reason(world: World, sent: bytes, reason: int) -> None:
    with world.steady.undisturbed(), world.client() as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the node need not read all of it
            client.send(sent)
        kind, pdu = client.read_pdu()
        assert (kind, pdu[8], pdu[9]) == (pdus.ABORT, pdus.BY_PROVIDER, reason)


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\n\r\n", struct.pack(">BxI", pdus.ASSOCIATE_RQ, 0xFFFFFFF0), b"\x16\x03\x01\x02\x00\x01\x00"],
    ids=["http", "request", "tls"],
)
def test_what_is_no_association_request_is_aborted(world: World, said: bytes) -> None:
    with world.steady.undisturbed(), RawClient(world.node.port) as client:
        client.send(said)
        assert client.read_pdu()[0] == pdus.ABORT


@pytest.mark.parametrize(
    ("uid", "code"),
    [
        ("../../../../tmp/x", 0x0117),
        ("1.2\0.3", 0x0117),
        ("1." * 32 + "1", 0x0117),
        ("1.2.3/4", 0x0117),
        (f"{SENT}.2 ", 0),
        (f"{SENT}.3\0\0", 0),
        (f"{SENT}.4", 0xA900),
    ],
    ids=["path", "nul", "65", "slash", "space", "two-nuls", "another"],
)
def test_a_uid_that_is_none_or_another_one_is_answered_by_its_status(world: World, uid: str, code: int) -> None:
    own = uid.rstrip(" \0") if code == 0 else f"{SENT}.99"
    data = homes.data_set(own)
    with world.steady.undisturbed(), world.client() as client:
        client.send(store_command(uid) + p_data(pdv(1, 2, data)))
        answer = client.read_status()
        assert answer.status.code == code, answer
        client.release()
    path = world.held(own)
    assert (path is not None) is (code == 0)
    assert path is None or data_set_bytes(path) == data
    asides = world.rows("SELECT reason FROM aside WHERE sop_instance_uid = ?", uid)
    assert asides == ([("A900 SOPInstanceUID of data set and command differ",)] if code == 0xA900 else [])


@pytest.mark.parametrize("end", [pdus.abort_pdu(0, 0), b""], ids=["abort", "close"])
def test_an_abort_inside_an_object_keeps_what_was_whole_and_is_logged(world: World, end: bytes) -> None:
    first, second = f"{SENT}.5{len(end)}", f"{SENT}.6{len(end)}"
    whole = homes.data_set(first, pixels=300_000)
    before = torn(world.node)  # what a slow peer is inside of
    with world.steady.undisturbed(), world.client() as client:
        for at in range(0, len(whole), 100_000):
            last = pdus.LAST if at + 100_000 >= len(whole) else 0
            client.send((b"" if at else store_command(first)) + p_data(pdv(1, last, whole[at : at + 100_000])))
        assert client.read_status().status.is_success
        client.send(store_command(second) + p_data(pdv(1, 0, homes.data_set(second, pixels=90_000)[:80_000])))
        wait_until(lambda: not torn(world.node) <= before, 20)
        client.send(end)
        client.socket.shutdown(socket.SHUT_WR)
    wait_until(lambda: torn(world.node) <= before, 20)
    kept = world.held(first)
    assert kept is not None and data_set_bytes(kept) == whole
    assert world.held(second) is None
    told = "aborted the association" if end else "closed the connection"
    assert any("MODALITY" in line and told in line for line in world.node.log().splitlines())


def test_a_hundred_silent_sockets_and_fifty_idle_associations_hold_nobody(world: World) -> None:
    silent = [RawClient(world.node.port) for _ in range(100)]
    idle = [world.client() for _ in range(45)]  # of the 50 that one peer may have
    with world.steady.undisturbed():
        pass
    for client in (*silent, *idle):
        client.socket.close()


def test_a_peer_that_vanished_without_a_word_is_dropped(world: World) -> None:
    client = world.client()
    port = client.socket.getsockname()[1]
    try:
        client.socket.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)  # its close then sends nothing
    except PermissionError:
        pytest.skip("a half-open connection needs CAP_NET_ADMIN")
    client.socket.close()
    assert connected(world.node.port, port)
    with world.steady.undisturbed():
        wait_until(lambda: not connected(world.node.port, port), 20, 0.1)


def connected(ours: int, theirs: int) -> bool:
    """Whether the kernel holds a connection of our port with theirs as established."""
    ends = re.compile(rf" 0100007F:{ours:04X} 0100007F:{theirs:04X} 01 ")
    return ends.search(Path("/proc/net/tcp").read_text()) is not None


# --------------------------------------------------------------------------------------------------- disk, patience


def test_below_the_watermark_storescu_gets_a700_before_anything_is_written_and_soon_success(tmp_path: Path) -> None:
    """A node of its own: its watermark lies between what is free now and what a ballast of 2 GB leaves."""
    free_mb = shutil.disk_usage(tmp_path).free >> 20
    if free_mb < 6000:
        pytest.skip("needs 6 GB of free disk for a ballast of 2 GB")
    (tmp_path / "rules.yaml").write_text(RULES)
    extra = {"PACSNODE_MINIMUM_FREE_MB": str(free_mb - 1024)}
    sources = as_dcmtk_writes_them(tmp_path, ("CT_small.dcm",))
    node = Node(tmp_path / "home", tmp_path / "rules.yaml", extra=extra)
    node.run("migrate")
    node.start("scp")
    steady = SteadyModality(node, tmp_path, sources)
    ballast = tmp_path / "ballast"
    try:
        scp = node.pids()["scp"]
        steady.start()
        steady.another_round()
        subprocess.run(["fallocate", "-l", "2G", str(ballast)], check=True)
        wait_until(lambda: steady.refused != [], 20)
        wait_until(lambda: torn(node) == set(), 20)
        files = set(node.home.rglob("*.dcm"))
        refused = len(steady.refused)
        wait_until(lambda: len(steady.refused) >= refused + 2, 20)
        assert set(node.home.rglob("*.dcm")) == files
        ballast.unlink()
        steady.another_round()  # what was refused is sent again, and taken
        assert node.pids()["scp"] == scp
        assert all("Refused: OutOfResources" in told for told in steady.refused)
        steady.compare()
    finally:
        steady.stopping.set()
        steady.join()
        ballast.unlink(missing_ok=True)
        node.stop()


@pytest.mark.parametrize(
    "who", ["an idle association", "silent from the start", "a request byte by byte", "a PDU byte by byte"]
)
def test_who_is_silent_or_sends_a_byte_a_second_is_ended(world: World, slow: dict[str, Slow], who: str) -> None:
    with world.steady.undisturbed():
        slow[who].join(60)
    assert not slow[who].is_alive()
    assert slow[who].last_word[:1] == bytes([pdus.ABORT])
    assert world.held(f"{SENT}.1") is None
