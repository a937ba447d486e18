"""How associations start, end, are counted and cannot hold each other."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Callable

import pytest

from pacsnode.dimse import associate, pdus
from pacsnode.dimse.transport import Transport
from pacsnode.errors import ConfigError
from pacsnode.receive.protocol import AcceptedAssociation, TimeLimits
from pacsnode.receive.server import ListenOptions, Server
from tests.receive.doubles import CT, EXPLICIT, Door, Node, RawClient, RememberingStore, p_data, pdv, store_command

REQUEST = associate.encode_request("MODALITY", "PACSNODE", ((CT, (EXPLICIT,)),))
DATA = p_data(pdv(1, pdus.LAST, b"data set"))
SHORT = TimeLimits(request_s=0.3, pdu_s=0.3, idle_s=0.3, linger_s=0.3)


def store_one(node: Node) -> None:
    with node.client() as client:
        client.send(store_command() + DATA)
        assert client.read_status().status.is_success
        client.release()


@pytest.mark.parametrize("end", [pdus.abort_pdu(0, 0), b"", pdus.RELEASE_RQ_PDU])
def test_an_object_that_is_torn_is_forgotten_and_others_are_not_touched(node: Node, end: bytes) -> None:
    with node.client() as other:
        other.send(store_command("1.2.1") + p_data(pdv(1, 0, b"first half ")))
        with node.client() as client:
            client.send(store_command("1.2.2") + p_data(pdv(1, 0, bytes(200_000)[:130_000])) + end)
            client.socket.shutdown(socket.SHUT_WR)
            if end:
                client.socket.recv(100)
        other.send(p_data(pdv(1, 2, b"second half")))
        assert other.read_status().status.is_success
        other.release()
    node.server.stop()
    assert [(request.sop_instance_uid, data) for request, data in node.store.objects] == [
        ("1.2.1", b"first half second half")
    ]
    assert [request.sop_instance_uid for request in node.store.aborted] == ["1.2.2"]


def test_a_silent_connection_is_dropped_and_holds_nobody(start_node: Callable[..., Node]) -> None:
    node = start_node(limits=SHORT, unassociated=3)
    silent = [RawClient(node.port) for _ in range(6)]
    for _ in range(3):
        store_one(node)
    for client in silent:
        with client:
            assert client.read_end()[0] == pdus.ABORT
    assert len(node.store.objects) == 3


def test_a_full_house_of_silent_connections_gives_way_to_a_request(start_node: Callable[..., Node]) -> None:
    node = start_node(limits=TimeLimits(request_s=600, linger_s=0.3), unassociated=4)
    silent = [RawClient(node.port) for _ in range(10)]
    store_one(node)
    for client in silent:
        client.socket.close()


def drip(client: RawClient, data: bytes) -> bytes:
    """Send a byte each 50 ms until the server has had enough; what it said."""
    stop = threading.Event()

    def send() -> None:
        for at in range(len(data)):
            if stop.wait(0.05):
                return
            try:
                client.send(data[at : at + 1])
            except OSError:
                return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return client.read_pdu()[1]
    finally:
        stop.set()
        sender.join()


def test_a_request_that_drips_is_dropped(start_node: Callable[..., Node]) -> None:
    node = start_node(limits=SHORT)
    with RawClient(node.port) as client:
        assert drip(client, REQUEST)[0] == pdus.ABORT


def test_a_pdu_that_drips_is_dropped_while_another_peer_stores(start_node: Callable[..., Node]) -> None:
    node = start_node(limits=SHORT)
    with node.client() as client:
        client.send(store_command("1.2.9"))
        store_one(node)
        assert drip(client, p_data(pdv(1, 2, bytes(4000))))[0] == pdus.ABORT
    assert [data for _, data in node.store.objects] == [b"data set"]
    assert [request.sop_instance_uid for request in node.store.aborted] == ["1.2.9"]


def test_an_idle_association_is_aborted(start_node: Callable[..., Node]) -> None:
    node = start_node(limits=SHORT)
    with node.client() as client:
        assert client.read_end()[0] == pdus.ABORT


def test_associations_over_the_limit_are_rejected_as_transient(start_node: Callable[..., Node]) -> None:
    node = start_node(associations=2)
    with node.client() as first, node.client() as second:
        with RawClient(node.port) as third:
            third.send(REQUEST)
            kind, pdu = third.read_end()
        assert (kind, tuple(pdu[7:10])) == (pdus.ASSOCIATE_RJ, (2, 3, 2))
        assert node.server.counts().active == 2
        first.release()
        second.release()


def test_counts_tell_what_was_done(node: Node) -> None:
    store_one(node)
    store_one(node)
    node.server.stop()
    counts = node.server.counts()
    assert (counts.accepted, counts.active, counts.stored, counts.stored_bytes) == (2, 0, 2, 16)
    assert (counts.rejected, counts.refused, counts.lost, counts.echoed) == (0, 0, 0, 0)


def test_stop_lets_a_message_be_answered_and_aborts_the_idle(node: Node) -> None:
    node.store.held = threading.Event()
    with node.client() as busy, node.client() as idle:
        busy.send(store_command() + DATA)
        assert node.store.committing.wait(20)
        stopper = threading.Thread(target=node.server.stop, kwargs={"grace_s": 20})
        stopper.start()
        assert idle.read_end()[0] == pdus.ABORT
        node.store.held.set()
        assert busy.read_status().status.is_success
        assert busy.read_end()[0] == pdus.ABORT
        stopper.join()
    assert len(node.store.objects) == 1
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", node.port), timeout=5)


def test_stop_aborts_a_message_that_does_not_end(node: Node) -> None:
    with node.client() as client:
        client.send(store_command() + p_data(pdv(1, 0, b"half")))
        while not node.store.opened:
            pass
        node.server.stop(grace_s=0.1)
        assert client.read_end()[0] == pdus.ABORT
    assert len(node.store.aborted) == 1


def test_a_port_that_is_taken_is_a_configuration_error(node: Node) -> None:
    options = ListenOptions(host="127.0.0.1", port=node.port)
    with pytest.raises(ConfigError, match=rf"127.0.0.1:{node.port}: the DICOM port is taken by another program"):
        Server(options, Door(), RememberingStore()).start()


def test_an_address_that_is_not_ours_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:0: cannot listen here"):
        Server(ListenOptions(host="192.0.2.1", port=0), Door(), RememberingStore()).start()


def test_many_peers_store_at_once_and_each_object_is_whole(node: Node) -> None:
    def send(number: int) -> None:
        with node.client() as client:
            for n in range(10):
                data = bytes([number, n]) * 100_000
                message = store_command(f"1.2.{number}.{n}")
                for at in range(0, len(data), 100_000):
                    message += p_data(pdv(1, 2 if at + 100_000 == len(data) else 0, data[at : at + 100_000]))
                client.send(message)
                assert client.read_status().status.is_success
            client.release()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = {request.sop_instance_uid: data for request, data in node.store.objects}
    assert kept == {f"1.2.{a}.{b}": bytes([a, b]) * 100_000 for a in range(20) for b in range(10)}


def test_an_association_that_has_ended_holds_no_memory_until_some_collection(node: Node) -> None:
    """Each holds a megabyte, with TLS more: in a cycle they would wait for the garbage collector."""

    def held() -> list[object]:
        # By type alone: isinstance asks each object of the process for its __class__, and torch's lazy ones warn then.
        return [one for one in gc.get_objects() if type(one) in (AcceptedAssociation, Transport)]

    gc.collect()
    before = held()  # other tests' peers may still have some
    gc.disable()
    try:
        for _ in range(5):
            store_one(node)
        node.server.stop()
        assert len(held()) == len(before)
    finally:
        gc.enable()
