"""What arrives is what was sent, byte for byte, however it was cut."""

from __future__ import annotations

import io
import itertools
import random
from pathlib import Path

import pydicom
import pytest

from pacsnode.dimse import pdus
from pacsnode.dimse.association import ECHO_CONTEXT, Association, contexts_for
from pacsnode.dimse.part10 import read_meta
from tests.receive.doubles import CT, EXPLICIT, Node, dcmtk, p_data, pdv, run_tool, sample, store_command, storescp

SAMPLES = {
    "CT_small.dcm": "-xe",
    "MR_small_implicit.dcm": "-xi",
    "MR_small_bigendian.dcm": "-xb",
    "MR_small_RLE.dcm": "-xr",
    "JPEG-lossy.dcm": "-xx",
    "SC_rgb_jpeg_dcmtk.dcm": "-xy",
    "JPEG-LL.dcm": "-xs",
    "JPGLosslessP14SV1_1s_1f_8b.dcm": "-xs",
    "MR_small_jp2klossless.dcm": "-xv",
    "JPEG2000.dcm": "-xw",
    "MR_small_jpeg_ls_lossless.dcm": "-xt",
    "JPEGLSNearLossless_08.dcm": "-xu",
    "image_dfl.dcm": "-xd",
    "waveform_ecg.dcm": "-xe",
    "test-SR.dcm": "-xe",
}


def data_set_of(path: Path) -> bytes:
    with path.open("rb") as file:
        read_meta(file)
        return file.read()


def random_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize(("name", "proposal"), SAMPLES.items())
def test_storescu_sends_us_the_bytes_that_it_sends_storescp(
    node: Node, tmp_path: Path, name: str, proposal: str
) -> None:
    path = sample(name)
    storescu = (dcmtk("storescu"), "-R", proposal, "-aec", "PACSNODE", "127.0.0.1")
    with storescp(tmp_path) as port:
        assert run_tool(*storescu, str(port), str(path)).returncode == 0
    for pdu in ("4096", "16382", "131072"):
        result = run_tool(*storescu, str(node.port), str(path), "--max-send-pdu", pdu)
        assert result.returncode == 0, result.stderr
    [kept] = tmp_path.iterdir()
    with kept.open("rb") as file:
        meta = read_meta(file)
        expected = file.read()
    assert [data for _, data in node.store.objects] == [expected] * 3
    for request, _ in node.store.objects:
        assert (request.sop_class_uid, request.sop_instance_uid) == (meta.sop_class_uid, meta.sop_instance_uid)
        assert request.transfer_syntax_uid == pydicom.dcmread(path).file_meta.TransferSyntaxUID


def test_storescu_with_all_its_contexts_sends_several_files_in_one_association(node: Node) -> None:
    paths = [str(sample(name)) for name in ("CT_small.dcm", "MR_small.dcm", "waveform_ecg.dcm", "rtplan.dcm")]
    result = run_tool(dcmtk("storescu"), "-aec", "PACSNODE", "127.0.0.1", str(node.port), *paths)
    assert result.returncode == 0, result.stderr
    assert len(node.store.objects) == 4
    assert node.server.counts().accepted == 1
    assert len(node.rung) == 4


def test_echoscu_is_answered(node: Node) -> None:
    result = run_tool(dcmtk("echoscu"), "-aec", "PACSNODE", "127.0.0.1", str(node.port))
    assert result.returncode == 0, result.stderr
    assert node.server.counts().echoed == 1


def test_our_scu_sends_every_sample_to_our_scp_byte_for_byte(node: Node) -> None:
    paths = [sample(name) for name in SAMPLES]
    metas = []
    for path in paths:
        with path.open("rb") as file:
            metas.append(read_meta(file))
    pairs = contexts_for((meta.sop_class_uid, meta.transfer_syntax_uid) for meta in metas)
    with Association.request("127.0.0.1", node.port, "SENDER", "PACSNODE", (ECHO_CONTEXT, *pairs)) as association:
        assert association.echo().is_success
        for path in paths:
            assert association.store_file(path).is_success
    sent = [data_set_of(path) for path in paths]
    padded = [data + b"\0" * (len(data) & 1) for data in sent]  # image_dfl.dcm alone, by PS3.5 A.5
    assert [data for _, data in node.store.objects] == padded
    assert [request.sop_instance_uid for request, _ in node.store.objects] == [meta.sop_instance_uid for meta in metas]
    assert {request.peer for request, _ in node.store.objects} == {"sender"}


@pytest.mark.parametrize("size", [0, 1, 2, 131065, 131066, 131067, 262144, 1 << 20, (1 << 20) + 17, 5_000_001])
def test_data_sets_around_the_sizes_of_pdu_and_buffer_arrive_whole(node: Node, size: int) -> None:
    data = random_bytes(size)
    with Association.request("127.0.0.1", node.port, "SENDER", "PACSNODE", ((CT, (EXPLICIT,)),)) as association:
        for uid in ("1.2.1", "1.2.2", "1.2.3"):
            assert association.store(CT, uid, EXPLICIT, io.BytesIO(data)).is_success
    assert [kept for _, kept in node.store.objects] == [data] * 3


@pytest.mark.parametrize("pdu", [64, 4096, 16382, 131072])
def test_many_objects_cut_into_pdus_of_one_size_arrive_whole(node: Node, pdu: int) -> None:
    objects = [random_bytes(size, seed) for seed, size in enumerate((7, pdu - 6, pdu, 40_000, 400_001))]
    with node.client() as client:
        for data in objects:
            message = store_command()
            for at in range(0, len(data), pdu - 6):
                last = at + pdu - 6 >= len(data)
                message += p_data(pdv(1, pdus.LAST if last else 0, data[at : at + pdu - 6]))
            client.send(message)
            assert client.read_status().status.is_success
        client.release()
    assert [kept for _, kept in node.store.objects] == objects


@pytest.mark.parametrize("seed", range(12))
def test_pdvs_cut_at_random_in_pdus_and_segments_arrive_whole(node: Node, seed: int) -> None:
    dice = random.Random(seed)
    objects = [random_bytes(dice.choice([3, 900, 70_000, 1_300_000]), seed + n) for n in range(4)]
    with node.client() as client:
        for data in objects:
            at_random = (dice.randrange(len(data)) for _ in range(dice.choice([1, 30, 3000])))
            cuts = sorted({*range(0, len(data), 100_000), len(data), *at_random})
            pieces = [data[start:end] for start, end in itertools.pairwise(cuts)]
            values = [pdv(1, 0, piece) for piece in pieces] + [pdv(1, pdus.LAST, b"")]
            message = store_command()
            while values:
                taken, size = [values.pop(0)], 0
                while values and size + len(values[0]) < 131072 and len(taken) < dice.choice([1, 5, 5000]):
                    taken.append(values.pop(0))
                    size = sum(map(len, taken))
                message += p_data(*taken)
            segment = dice.choice([1000, 65_536, 999_983]) if len(message) > 5000 else 1
            for at in range(0, len(message), segment):
                client.send(message[at : at + segment])
            assert client.read_status().status.is_success
        client.release()
    assert [kept for _, kept in node.store.objects] == objects


def test_a_command_and_its_headers_may_come_byte_by_byte(node: Node) -> None:
    message = store_command() + p_data(pdv(1, 0, b"abc"), pdv(1, 2, b"defg"))
    with node.client() as client:
        for at in range(len(message)):
            client.send(message[at : at + 1])
        assert client.read_status().status.is_success
    assert node.store.objects[0][1] == b"abcdefg"


def test_requests_that_are_sent_before_the_answers_are_all_answered(node: Node) -> None:
    message = b"".join(store_command(f"1.2.{n}", message_id=n) + p_data(pdv(1, 2, b"%06d" % n)) for n in range(1, 400))
    with node.client() as client:
        client.send(message)
        answers = [client.read_status() for _ in range(1, 400)]
    assert [answer.message_id for answer in answers] == list(range(1, 400))
    assert [data for _, data in node.store.objects] == [b"%06d" % n for n in range(1, 400)]
