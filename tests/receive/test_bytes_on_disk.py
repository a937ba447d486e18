"""What lies on the disk is what was sent, byte for byte: every object through the real archive, however it was cut.

`test_bytes` holds the receive loop alone; here the file is read back, from its preamble to its last byte.
"""

from __future__ import annotations

import itertools
import random
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pydicom
import pytest

from pacsnode.dimse import pdus
from tests.archive import homes
from tests.receive.doubles import EXPLICIT, RawClient, dcmtk, p_data, pdv, run_tool, sample, store_command, storescp
from tests.receive.real import Site

KB, MB = 1 << 10, 1 << 20
PDU_BYTES = (4096, 16382, 131072)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as made:
        yield made


def data_set(uid: str, size: int, seed: int = 1) -> bytes:
    """A CT data set of exactly `size` bytes, its pixels random: no piece of it is like another."""
    head = homes.data_set(uid, pixels=0)[:-4]
    pixels = size - len(head) - 4
    return head + struct.pack("<I", pixels) + random.Random(seed).randbytes(pixels)


def in_pdus(data: bytes, pdu: int) -> list[bytes]:
    """The P-DATA-TF PDUs of a data set, each with one value that fills it."""
    cuts = [*range(0, len(data), pdu - 6), len(data)]
    return [
        p_data(pdv(1, pdus.LAST if end == len(data) else 0, data[start:end])) for start, end in itertools.pairwise(cuts)
    ]


def exchange(client: RawClient, uid: str, messages: Sequence[bytes], pause_s: float = 0.0) -> None:
    """One C-STORE in so many sends; it must succeed."""
    client.send(store_command(uid))
    for message in messages:
        client.send(message)
        if pause_s:
            time.sleep(pause_s)
    assert client.read_status().status.is_success


def compare(site: Site, sent: dict[str, bytes], syntax: str = EXPLICIT) -> None:
    """The whole of each file: zeroed preamble, meta header with the right UIDs, then nothing but what was sent."""
    for uid, data in sent.items():
        ((path, sop_class),) = homes.rows(
            site.settings, "SELECT path, sop_class_uid FROM instances WHERE sop_instance_uid = ?", uid
        )
        file = site.settings.files / str(path)
        content = file.read_bytes()
        meta = pydicom.filereader.read_file_meta_info(file)
        begin = 144 + int(meta.FileMetaInformationGroupLength)
        assert content[:132] == bytes(128) + b"DICM"
        assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (sop_class, uid)
        assert meta.TransferSyntaxUID == syntax
        assert content[begin:] == data, f"{uid}: {_first_difference(content[begin:], data)}"


def _first_difference(kept: bytes, sent: bytes) -> str:
    at = next((n for n, (a, b) in enumerate(zip(kept, sent, strict=False)) if a != b), min(len(kept), len(sent)))
    return f"{len(kept)} bytes kept, {len(sent)} sent, the first difference is at {at}"


@pytest.mark.parametrize("pdu", PDU_BYTES)
def test_objects_around_the_borders_of_pdu_and_buffer_in_one_association(site: Site, pdu: int) -> None:
    borders = (pdu - 6, pdu, 64 * KB, MB - 64 * KB, MB, MB + 64 * KB, 2 * MB)
    sizes = [max(400, border + around) for border in borders for around in (-2, -1, 0, 1, 2)]
    sent = {f"1.2.{n}": data_set(f"1.2.{n}", size, n) for n, size in enumerate(sizes)}
    with site.client() as client:
        for uid, data in sent.items():
            exchange(client, uid, [b"".join(in_pdus(data, pdu))])
        client.release()
    compare(site, sent)


@pytest.mark.parametrize("values_in_pdu", [1, 7, 5000])
def test_values_of_one_byte(site: Site, values_in_pdu: int) -> None:
    """Their headers make more than a buffer full of it, whose end then falls into one of them."""
    data = data_set("1.2.1", 200_001)
    values = [pdv(1, 0, bytes([octet])) for octet in data] + [pdv(1, pdus.LAST, b"")]
    messages = [p_data(*values[at : at + values_in_pdu]) for at in range(0, len(values), values_in_pdu)]
    with site.client() as client:
        exchange(client, "1.2.1", [b"".join(messages)])
        client.release()
    compare(site, {"1.2.1": data})


@pytest.mark.parametrize("seed", range(6))
def test_values_cut_at_random_over_pdus_and_segments(site: Site, seed: int) -> None:
    dice = random.Random(seed)
    sizes = [dice.choice((500, 70_000, MB + dice.randrange(-9, 9), 3 * MB)) for _ in range(4)]
    sent = {f"1.2.{n}": data_set(f"1.2.{n}", size, seed * 10 + n) for n, size in enumerate(sizes)}
    with site.client() as client:
        for uid, data in sent.items():
            at_random = (dice.randrange(len(data)) for _ in range(dice.choice([1, 40, 3000])))
            cuts = sorted({0, len(data), *range(0, len(data), 100_000), *at_random})
            values = [pdv(1, 0, data[start:end]) for start, end in itertools.pairwise(cuts)]
            stream = b"".join(_grouped([*values, pdv(1, pdus.LAST, b"")], dice))
            segment = dice.choice([777, 65_536, 999_983]) if len(stream) > 5000 else 1
            exchange(client, uid, [stream[at : at + segment] for at in range(0, len(stream), segment)])
        client.release()
    compare(site, sent)


def _grouped(values: list[bytes], dice: random.Random) -> Iterator[bytes]:
    """PDUs of several values each, none longer than announced."""
    while values:
        taken = [values.pop(0)]
        while values and sum(map(len, taken)) + len(values[0]) <= 131072 and len(taken) < dice.choice([1, 5, 5000]):
            taken.append(values.pop(0))
        yield p_data(*taken)


@pytest.mark.parametrize("cut", range(1, 13))
def test_headers_that_are_split_over_segments(site: Site, cut: int) -> None:
    """A pause behind every split, so that the node has read the first part before the second is sent."""
    data = data_set("1.2.1", 300_000)
    stream = b"".join(in_pdus(data, 16382))
    borders = [0, *itertools.accumulate(len(pdu) for pdu in in_pdus(data, 16382))]
    parts = sorted({0, len(stream), *(border + cut for border in borders if border + cut < len(stream))})
    with site.client() as client:
        messages = [stream[start:end] for start, end in itertools.pairwise(parts)]
        exchange(client, "1.2.1", messages, pause_s=0.002)
        client.release()
    compare(site, {"1.2.1": data})


def test_requests_that_are_sent_before_the_answers(site: Site) -> None:
    sent = {f"1.2.{n}": data_set(f"1.2.{n}", 500 + 997 * n % 30_000, n) for n in range(200)}
    message = b"".join(store_command(uid) + b"".join(in_pdus(data, 4096)) for uid, data in sent.items())
    with site.client() as client:
        sender = threading.Thread(target=client.send, args=(message,))
        sender.start()
        answers = [client.read_status() for _ in sent]
        sender.join()
        assert [answer.affected_sop_instance_uid for answer in answers] == list(sent)
        assert all(answer.status.is_success for answer in answers)
        client.release()
    compare(site, sent)


def test_eight_associations_at_once_with_pdus_of_every_size(site: Site) -> None:
    sent = {
        f"1.2.{peer}.{n}": data_set(f"1.2.{peer}.{n}", (700, 65_536, 600_001, MB + 1)[n % 4], 100 * peer + n)
        for peer in range(8)
        for n in range(8)
    }

    def send(peer: int) -> None:
        with site.client() as client:
            for n in range(8):
                uid = f"1.2.{peer}.{n}"
                exchange(client, uid, [b"".join(in_pdus(sent[uid], PDU_BYTES[peer % 3]))])
            client.release()

    threads = [threading.Thread(target=send, args=(peer,)) for peer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    compare(site, sent)


@pytest.mark.parametrize("pdu", PDU_BYTES)
def test_storescu_sends_real_images_of_many_syntaxes(site: Site, tmp_path: Path, pdu: int) -> None:
    """What it sends is known from a storescp that keeps the bytes."""
    real = {
        "CT_small.dcm": "-xe",
        "RG1_UNCR.dcm": "-xe",  # 7 MB
        "MR_small_implicit.dcm": "-xi",
        "ExplVR_BigEnd.dcm": "-xb",
        "JPEG-LL.dcm": "-xs",
        "JPEG2000.dcm": "-xw",
        "image_dfl.dcm": "-xd",
    }
    kept = tmp_path / "kept"
    kept.mkdir()
    to = ("-R", "--max-send-pdu", str(pdu), "-aet", "MODALITY", "-aec", "PACSNODE")
    with storescp(kept) as port:
        for name, proposal in real.items():
            for target in (port, site.server.port):
                told = run_tool(dcmtk("storescu"), proposal, *to, "127.0.0.1", str(target), str(sample(name)))
                assert told.returncode == 0, told.stderr
    files = list(kept.iterdir())
    assert len(files) == len(site.held()) == len(real)
    for file in files:
        meta = pydicom.filereader.read_file_meta_info(file)
        begin = 144 + int(meta.FileMetaInformationGroupLength)
        uid = str(meta.MediaStorageSOPInstanceUID)
        compare(site, {uid: file.read_bytes()[begin:]}, str(meta.TransferSyntaxUID))
