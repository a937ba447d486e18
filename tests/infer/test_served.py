"""A network on an inference server: the same findings as here, and every way in which a server's answer is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pacsnode.errors import PacsnodeError, Permanent, Transient
from pacsnode.findings import Findings, Presence
from pacsnode.infer.bundle import NetworkBundle
from pacsnode.infer.catalogue import load_service
from pacsnode.infer.run import WEIGHTS_ELSEWHERE, infer, infer_many
from pacsnode.infer.server import NO_SERVER, SERVER_FAILED
from tests.infer import inference_server as played
from tests.infer.bundles import (
    CT,
    VOLUME,
    gradient,
    image,
    network_bundle,
    saved,
    saved_image,
)
from tests.infer.inference_server import Answering, Inference, served_bundle
from tests.receive.certificates import Authority

ROOT = Path(__file__).resolve().parents[2]
PNEUMONIA = {"value": "233604007", "scheme": "SCT", "meaning": "Pneumonia"}


@pytest.fixture
def server() -> Iterator[Inference]:
    with Inference() as made:
        yield made
        assert made.faults == []


def found_in(folder: Path, *files: Path) -> Findings:
    service = load_service(folder)
    bundle = NetworkBundle(service, "cpu")
    return infer(service, bundle, bundle.ready(), files)


def test_a_server_finds_what_the_network_finds_here(tmp_path: Path, server: Inference) -> None:
    film = saved_image(tmp_path, gradient(), PixelSpacing=[0.5, 0.25])
    (here,) = found_in(network_bundle(tmp_path / "here"), film).groups
    for extensions, is_binary in ((("binary_tensor_data",), True), ((), False)):
        server.extensions = extensions
        (there,) = found_in(served_bundle(tmp_path / f"there-{is_binary}", server), film).groups
        assert server.questions[-1].is_binary is is_binary
        assert here.label_map is not None and there.label_map is not None
        assert np.array_equal(here.label_map, there.label_map)
        assert (here.measurements, here.segments, here.notes) == (there.measurements, there.segments, there.notes)


def test_json_in_answer_to_bytes_is_read_too(tmp_path: Path, server: Inference) -> None:
    server.answering = played.json_though_asked_for_bytes
    (group,) = found_in(served_bundle(tmp_path, server), saved_image(tmp_path, gradient(20, 30))).groups
    assert group.label_map is not None
    assert group.label_map.mean() == 0.5


def test_only_numbers_go_to_the_server_and_nothing_of_the_patient(tmp_path: Path, server: Inference) -> None:
    film = saved_image(tmp_path, gradient(), PatientName="Hong^Gildong", PatientID="4711", StudyID="S-1")
    found_in(served_bundle(tmp_path, server), film)
    told = b"".join(one.body + repr((one.path, one.headers)).encode() for one in server.asked)
    for private in (b"Hong", b"4711", b"S-1", b"1.2.840"):
        assert private not in told
    (question,) = server.questions
    assert question.values is not None
    assert question.values.shape == (1, 1, 60, 40)
    assert question.path == "/v2/models/chest/versions/3/infer"
    head = json.loads(question.body[: int(question.headers["inference-header-content-length"])])
    assert head == {
        "inputs": [
            {"name": "image", "shape": [1, 1, 60, 40], "datatype": "FP32", "parameters": {"binary_data_size": 9600}}
        ],
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
    }


def test_the_result_says_which_model_of_which_server_answered(tmp_path: Path, server: Inference) -> None:
    algorithm = found_in(served_bundle(tmp_path, server), saved_image(tmp_path, gradient())).algorithm
    where = f"inference server 127.0.0.1:{server.port}, model chest version 3 (onnxruntime_onnx)"
    assert (algorithm.device, algorithm.version) == (where, "0.1.0")
    assert algorithm.weights_hash == WEIGHTS_ELSEWHERE
    assert algorithm.bundle_hash == load_service(tmp_path / "threshold").bundle_hash


def test_without_a_version_the_newest_one_is_named(tmp_path: Path, server: Inference) -> None:
    server.version = "12"
    folder = served_bundle(tmp_path, server, http={"version": None})
    assert "model chest version 12 (" in found_in(folder, saved_image(tmp_path, gradient())).algorithm.device
    assert server.questions[-1].path == "/v2/models/chest/infer"


def test_images_go_in_batches_one_request_after_the_other(tmp_path: Path, server: Inference) -> None:
    folder = served_bundle(tmp_path, server, http={"batch": 2}, limits={"time_s": 60, "memory_mb": 3000, "batch": 5})
    service = load_service(folder)
    bundle = NetworkBundle(service, "cpu")
    files = [[saved_image(tmp_path, gradient(20, 30))] for _ in range(5)]
    found = list(infer_many(service, bundle, bundle.ready(), files))
    assert all(isinstance(one, Findings) for one in found)
    assert [len(one.values) for one in server.questions if one.values is not None] == [2, 2, 1]
    assert server.most_at_once == 1
    assert bundle.network_s > 0


def test_a_model_for_one_image_at_a_time_gets_one(tmp_path: Path, server: Inference) -> None:
    server.input["shape"], server.output["shape"] = [1, 1, -1, -1], [1, 2, -1, -1]
    service = load_service(served_bundle(tmp_path, server))
    bundle = NetworkBundle(service, "cpu")
    files = [[saved_image(tmp_path, gradient(20, 30))] for _ in range(3)]
    assert len(list(infer_many(service, bundle, bundle.ready(), files))) == 3
    assert [len(one.values) for one in server.questions if one.values is not None] == [1, 1, 1]


def test_without_a_config_the_image_goes_as_the_node_reads_it_and_labels_come_back(
    tmp_path: Path, server: Inference
) -> None:
    server.output = {"name": "scores", "datatype": "INT64", "shape": [-1, 1, -1, -1]}
    server.compute = lambda values: (values > 0.49).astype(np.int64)
    folder = served_bundle(tmp_path, server)
    (folder / "configs" / "inference.yaml").unlink()
    (group,) = found_in(folder, saved_image(tmp_path, gradient(40, 60))).groups
    values = server.questions[0].values
    assert values is not None and values.shape == (1, 1, 40, 60)
    assert group.label_map is not None
    assert np.array_equal(group.label_map[0], np.tile(np.arange(60) >= 30, (40, 1)))


def test_windows_of_a_volume_are_asked_for_one_by_one(tmp_path: Path, server: Inference) -> None:
    server.input["shape"], server.output["shape"] = [-1, 1, 16, 16, 4], [-1, 2, 16, 16, 4]
    window = {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 4], "sw_batch_size": 2, "overlap": 0.0}
    changes: dict[str, Any] = {
        "dimensions": 3,
        "inferer": window,
        "input": "volume",
        "accepts": {"Modality": "CT"},
        "measurements": [{"method": "volume", "of": [1], "name": VOLUME}],
    }
    server.compute = lambda values: played.threshold(values, 500.0)
    slices = [
        image(
            gradient(32, 32, "int16", 1000),
            CT,
            InstanceNumber=n,
            ImagePositionPatient=[0, 0, 2.0 * n],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
            RescaleSlope=1,
            RescaleIntercept=0,
        )
        for n in range(8)
    ]
    files = [saved(one, tmp_path / f"{n}.dcm") for n, one in enumerate(slices)]
    (group,) = found_in(served_bundle(tmp_path, server, **changes), *files).groups
    assert group.label_map is not None
    assert np.array_equal(group.label_map, np.stack([gradient(32, 32, "int16", 1000) > 500] * 8))
    assert [one.values.shape[0] for one in server.questions if one.values is not None] == [2, 2, 2, 2]
    assert server.most_at_once == 1


def test_a_classifying_model_becomes_a_finding_with_its_probability(tmp_path: Path, server: Inference) -> None:
    server.output = {"name": "scores", "datatype": "FP32", "shape": [-1, 2]}
    server.compute = lambda values: np.tile([0.0, 2.0], (len(values), 1))
    classes = [{"index": 0, "label": "normal"}, {"index": 1, "label": "p", "name": PNEUMONIA, "threshold": 0.5}]
    changes = {
        "segments": None,
        "measurements": None,
        "classification": {"activation": "softmax", "classes": classes},
    }
    (group,) = found_in(served_bundle(tmp_path, server, **changes), saved_image(tmp_path, gradient())).groups
    (finding,) = group.evaluations
    assert (finding.presence, finding.probability) == (Presence.PRESENT, 0.8808)


@pytest.mark.parametrize(
    ("datatype", "low"), [("FP16", 0.0), ("FP64", 0.0), ("UINT8", 300.0)], ids=["FP16", "FP64", "UINT8"]
)
def test_numbers_go_in_the_type_that_the_model_reads(
    tmp_path: Path, server: Inference, datatype: str, low: float
) -> None:
    server.input["datatype"] = datatype
    folder = served_bundle(tmp_path, server, before=[] if not low else [SCALED])
    (group,) = found_in(folder, saved_image(tmp_path, gradient())).groups
    assert group.label_map is not None
    values = server.questions[0].values
    assert values is not None and values.dtype == np.dtype(played.DTYPES[datatype])


SCALED: dict[str, Any] = {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: (x > 0.5).float()"}


# --- what is no model that pipeline.yaml promises

OTHER_MODELS: list[tuple[dict[str, Any], str]] = [
    ({"model": "lungs"}, r"refuses the model chest, version 3: status 404: Request for unknown model: 'chest'"),
    ({"version": "4"}, r"refuses the model chest, version 3: status 404"),
    ({"input": {"name": "x"}}, r"gives a model whose inputs are x; pipeline.yaml says image"),
    ({"input": {"datatype": "FP16"}}, r"gives image as FP16; pipeline.yaml says FP32"),
    ({"input": {"shape": [-1, 3, -1, -1]}}, r"gives image as any x 3 x any x any; pipeline.yaml says any x 1 x any"),
    (
        {"input": {"shape": [-1, 1, 64, 64]}},
        r"gives image as any x 1 x 64 x 64; pipeline.yaml says any x 1 x any x any",
    ),
    ({"input": {"shape": "wide"}}, r"gives image without a shape"),
    ({"output": {"name": "y"}}, r"gives a model whose outputs are y, aux; pipeline.yaml says scores"),
    ({"output": {"shape": [-1, 5, -1, -1]}}, r"gives scores as any x 5 x any x any"),
    ({"more_inputs": [{"name": "age", "datatype": "FP32", "shape": [-1, 1]}]}, r"gives a model of 2 inputs"),
]


@pytest.mark.parametrize(("changes", "sentence"), OTHER_MODELS, ids=[one[1][:40] for one in OTHER_MODELS])
def test_a_model_other_than_the_promised_one_is_never_asked(
    tmp_path: Path, server: Inference, changes: dict[str, Any], sentence: str
) -> None:
    folder = served_bundle(tmp_path, server)
    for key, value in changes.items():
        setattr(server, key, getattr(server, key) | value if isinstance(value, dict) else value)
    with pytest.raises(Permanent, match=sentence):
        found_in(folder, saved_image(tmp_path, gradient()))
    assert server.questions == []


# --- what is no answer

LARGE = b"[" * 5_000_000
WRONG: dict[str, tuple[Answering, str]] = {
    "another shape": (
        played.told_as(shape=[1, 2, 40, 60]),
        r"mask has the shape 1 x 40 x 60; the image needs 1 x 60 x 40",
    ),
    "fewer axes": (played.told_as(shape=[1, 2, 2400]), r"in no shape, or with another number of axes"),
    "no sizes": (played.told_as(shape=[1, 2, "60", 40]), r"in no shape"),
    "a size of nothing": (played.told_as(shape=[1, 2, 0, 40]), r"in no shape"),
    "sizes beyond memory": (played.told_as(shape=[1, 2, 2**30, 2**30]), r"other numbers than its shape"),
    "another batch": (
        played.told_as(shape=[2, 1, 60, 40]),
        r"in the shape 2 x 1 x 60 x 40 instead of 1 x 2 x any x any",
    ),
    "another type": (played.told_as(datatype="INT32"), r"gives scores as INT32 instead of FP32"),
    "another name": (played.told_as(name="aux"), r"gives something else than scores alone"),
    "half of the bytes": (played.with_bytes(lambda raw: raw[: len(raw) // 2]), r"other numbers than its shape"),
    "a byte too many": (played.with_bytes(lambda raw: raw + b"x"), r"other numbers than its shape"),
    "a length that is none": (played.with_bytes(bytes, "-5"), r"whose length of the header is not one"),
    "a length beyond the end": (played.with_bytes(bytes, "99999999"), r"whose length of the header is not one"),
    "not a number": (
        played.with_bytes(lambda raw: np.full(len(raw) // 4, np.nan, "<f4").tobytes()),
        r"output is not a number \(NaN or infinity\)",
    ),
    "infinite": (
        played.with_bytes(lambda raw: raw[:-4] + np.array(np.inf, "<f4").tobytes()),
        r"output is not a number \(NaN or infinity\)",
    ),
    "NaN in JSON": (played.with_data(lambda data: [float("nan"), *data[1:]]), r"output is not a number"),
    "too large for a float": (played.with_data(lambda data: [1e300, *data[1:]]), r"output is not a number"),
    "texts": (played.with_data(lambda data: [str(one) for one in data]), r"other numbers than its shape"),
    "holes": (played.with_data(lambda data: [None, *data[1:]]), r"other numbers than its shape"),
    "ragged": (played.with_data(lambda data: [data[:2], data[2:]]), r"other numbers than its shape"),
    "a number": (played.with_data(lambda data: 7), r"other numbers than its shape"),
    "no numbers": (played.with_data(lambda data: None), r"other numbers than its shape"),
    "no outputs": (played.saying(200, b'{"outputs": []}'), r"something else than scores alone"),
    "an output that is none": (played.saying(200, b'{"outputs": ["scores"]}'), r"something else than scores alone"),
    "another model's": (
        played.saying(200, b'{"model_name": "lungs"}'),
        r"an answer of the model lungs instead of chest",
    ),
    "rubbish": (played.saying(200, b"\x00\xff rubbish"), r"something that is no JSON of this protocol"),
    "a list": (played.saying(200, b"[]"), r"something that is no JSON of this protocol"),
    "nesting": (played.saying(200, b"[" * 200_000), r"something that is no JSON of this protocol"),
    "a page": (played.saying(200, b"<html>"), r"something that is no JSON of this protocol"),
    "nothing": (played.saying(200, b""), r"something that is no JSON of this protocol"),
    "too large, and says so": (played.saying(200, LARGE), r"answers with more than the \d+ bytes it may need"),
    "too large, without a length": (played.endless, r"answers with more than the \d+ bytes it may need"),
    "too large, in chunks": (played.endless_chunks, r"answers with more than the \d+ bytes it may need"),
    "compressed": (played.saying(200, Content_Encoding="gzip"), r"compresses its answer, which nobody asked for"),
    "a redirect": (played.saying(307, Location="http://192.0.2.1/steal"), r"sends the node elsewhere \(307\)"),
    "no HTTP": (played.no_http, r"does not speak HTTP"),
    "another version": (played.as_version("4"), r"version 4 of chest answers, not 3, which pipeline.yaml names"),
    "a refusal": (
        played.saying(400, b'{"error": "batch-size must be <= 4\\u001b[2J\\n for chest"}'),
        r"refuses the question to chest: status 400: batch-size must be <= 4 \[2J for chest$",
    ),
    "no token": (played.saying(401), r"does not let the node in \(401\)"),
}


@pytest.mark.parametrize(("answering", "sentence"), WRONG.values(), ids=WRONG)
def test_an_answer_that_is_none_parks_the_case(
    tmp_path: Path, server: Inference, answering: Answering, sentence: str
) -> None:
    server.answering = answering
    folder = served_bundle(tmp_path, server)
    with pytest.raises(Permanent, match=sentence):
        found_in(folder, saved_image(tmp_path, gradient()))
    assert len(server.questions) == 1


WAITS: dict[str, tuple[Answering, str]] = {
    "busy": (played.saying(503, b'{"error": "Exceeds maximum queue size"}'), rf"^{NO_SERVER} at .*503: Exceeds"),
    "too many": (played.saying(429), rf"^{NO_SERVER} at .*429"),
    "failed": (played.saying(500, b'{"error": "CUDA out of memory"}'), rf"^{SERVER_FAILED} .*500: CUDA out of memory"),
    "late": (played.after(3), rf"^{SERVER_FAILED} .*no whole answer within 1 s"),
    "a byte now and then": (played.drip, rf"^{SERVER_FAILED} .*no whole answer within 1 s"),
    "a header now and then": (played.drip_headers, rf"^{SERVER_FAILED} .*no whole answer within 1 s"),
    "cut": (played.cut, rf"^{SERVER_FAILED} .*it cut the connection"),
    "half an answer": (played.half, rf"^{SERVER_FAILED} .*it cut the connection"),
}


@pytest.mark.parametrize(("answering", "sentence"), WAITS.values(), ids=WAITS)
def test_a_server_that_may_answer_later_lets_the_case_wait_and_then_it_is_right(
    tmp_path: Path, server: Inference, answering: Answering, sentence: str
) -> None:
    server.answering = played.first(answering)
    folder, film = served_bundle(tmp_path, server, http={"timeout": "1s"}), saved_image(tmp_path, gradient())
    begun = time.monotonic()
    with pytest.raises(Transient, match=sentence):
        found_in(folder, film)
    assert time.monotonic() - begun < 3
    assert found_in(folder, film).groups[0].label_map is not None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"health": 503}, rf"^{NO_SERVER} at .*the question whether it is ready: status 503"),
        ({"health": 400}, rf"^{NO_SERVER} at .*it is not ready"),
        ({"ready": (503, {})}, rf"^{NO_SERVER} at .*the model chest, version 3: status 503"),
        ({"ready": (400, {"error": "loading"})}, rf"^{NO_SERVER} at .*version 3 is not ready \(status 400: loading\)"),
        ({"ready": (200, {"name": "chest", "ready": False})}, rf"^{NO_SERVER} at .*version 3 is not ready"),
    ],
    ids=["server starts", "server starts, as Triton says it", "model loads", "model loads, 400", "in words"],
)
def test_a_server_or_model_that_is_not_ready_is_waited_for(
    tmp_path: Path, server: Inference, changes: dict[str, Any], sentence: str
) -> None:
    for key, value in changes.items():
        setattr(server, key, value)
    with pytest.raises(Transient, match=sentence):
        found_in(served_bundle(tmp_path, server), saved_image(tmp_path, gradient()))
    assert server.questions == []


def test_a_server_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    with Inference() as gone:
        folder = served_bundle(tmp_path, gone)
    with pytest.raises(Transient, match=rf"^{NO_SERVER} at 127.0.0.1:{gone.port}: Connection refused"):
        found_in(folder, saved_image(tmp_path, gradient()))


def test_a_version_that_changes_in_the_middle_is_looked_at_again(tmp_path: Path, server: Inference) -> None:
    folder, film = served_bundle(tmp_path, server, http={"version": None}), saved_image(tmp_path, gradient())
    service = load_service(folder)
    bundle = NetworkBundle(service, "cpu")
    where, server.version = bundle.ready(), "4"
    with pytest.raises(Transient, match=rf"^{SERVER_FAILED} .*version 4 of chest answers, not 3"):
        infer(service, bundle, where, [film])
    assert "version 4 (" in infer(service, bundle, bundle.ready(), [film]).algorithm.device


@pytest.mark.parametrize(
    ("pixels", "steps", "sentence"),
    [
        (
            gradient(),
            [],
            r"reads image in the shape any x 1 x 16 x 16; what goes in has 1 x 1 x 60 x 40: does the config",
        ),
        (
            gradient(16, 16),
            [{"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x / 0"}],
            r"does not fit into FP32, or is no number",
        ),
    ],
    ids=["another shape", "no number"],
)
def test_what_the_model_does_not_read_is_never_sent(
    tmp_path: Path, server: Inference, pixels: Any, steps: list[dict[str, Any]], sentence: str
) -> None:
    server.input["shape"] = [-1, 1, 16, 16]
    with pytest.raises(Permanent, match=sentence):
        found_in(served_bundle(tmp_path, server, before=steps), saved_image(tmp_path, pixels))
    assert server.questions == []


# --- the way to the server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "ca", "hospital")


def test_tls_is_verified_and_a_token_is_sent_as_it_is_now(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = authority.issue("triton")
    token, film = tmp_path / "token", saved_image(tmp_path, gradient())
    with Inference(tls=(pair.certificate, pair.key)) as server:
        folder = served_bundle(tmp_path / "models", server, http={"ca": "ca.pem", "token_file": str(token)})
        (folder / "ca.pem").write_bytes(authority.own.certificate.read_bytes())
        for word in ("first.token", "second.token"):
            token.write_text(f"{word}\n")
            found_in(folder, film)
            assert {one.headers["authorization"] for one in server.asked[-4:]} == {f"Bearer {word}"}
        token.write_text("two words\n")
        with pytest.raises(Permanent, match=r"holds no token for the inference server") as caught:
            found_in(folder, film)
        assert "two" not in str(caught.value)
        token.unlink()
        with pytest.raises(Permanent, match=r"the token of the inference server cannot be read .*No such file"):
            found_in(folder, film)
        other = served_bundle(tmp_path / "others", server, http={"ca": "ca.pem", "token_env": "TRITON_TOKEN"})
        (other / "ca.pem").write_bytes(authority.own.certificate.read_bytes())
        monkeypatch.setenv("TRITON_TOKEN", "third.token")
        found_in(other, film)
        assert server.asked[-1].headers["authorization"] == "Bearer third.token"


def test_a_certificate_of_somebody_else_or_for_another_host_is_not_believed(
    tmp_path: Path, authority: Authority
) -> None:
    stranger = Authority.make(tmp_path / "stranger", "stranger")
    for n, pair in enumerate((stranger.issue("triton"), authority.issue("other", host="DNS:other.example"))):
        with Inference(tls=(pair.certificate, pair.key)) as server:
            folder = served_bundle(tmp_path / f"models-{n}", server, http={"ca": "ca.pem"})
            (folder / "ca.pem").write_bytes(authority.own.certificate.read_bytes())
            with pytest.raises(Permanent, match=r"the certificate of 127\.0\.0\.1:\d+ is not believed"):
                found_in(folder, saved_image(tmp_path, gradient()))
            assert server.asked == []


def test_a_file_of_authorities_that_is_none_is_told(tmp_path: Path, server: Inference) -> None:
    url = f"https://127.0.0.1:{server.port}"
    folder = served_bundle(tmp_path, server, http={"url": url, "ca": "ca.pem"}, files={"ca.pem": "no certificate\n"})
    with pytest.raises(Permanent, match=r"^ca\.pem holds no certificates that can be read"):
        found_in(folder, saved_image(tmp_path, gradient()))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://triton.hospital.local", "triton.hospital.local:443"),
        ("http://192.0.2.7", "192.0.2.7:80"),
        ("http://[2001:db8::7]:8000/ai/", "[2001:db8::7]:8000"),
    ],
)
def test_an_address_may_be_a_name_or_a_number(tmp_path: Path, server: Inference, url: str, address: str) -> None:
    http = load_service(served_bundle(tmp_path, server, http={"url": url})).pipeline.http
    assert http is not None
    assert http.address == address


def test_a_server_without_tls_is_not_asked_over_https(tmp_path: Path, server: Inference) -> None:
    folder = served_bundle(tmp_path, server, http={"url": f"https://127.0.0.1:{server.port}"})
    with pytest.raises(Permanent, match=r"what answers at 127\.0\.0\.1:\d+ does not speak TLS"):
        found_in(folder, saved_image(tmp_path, gradient()))


def test_a_proxy_of_the_environment_is_never_used(
    tmp_path: Path, server: Inference, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert found_in(served_bundle(tmp_path, server), saved_image(tmp_path, gradient())).groups


def test_a_server_behind_a_path_is_asked_there(tmp_path: Path, server: Inference) -> None:
    folder = served_bundle(tmp_path, server, http={"url": f"http://127.0.0.1:{server.port}/ai/triton/"})
    with pytest.raises(PacsnodeError):  # this one has nothing there
        found_in(folder, saved_image(tmp_path, gradient()))
    assert server.asked[0].path == "/ai/triton/v2/health/ready"


def test_the_command_tries_a_service_on_a_server_and_says_why_it_cannot(tmp_path: Path, server: Inference) -> None:
    models = tmp_path / "models"
    served_bundle(models, server)
    film = saved_image(tmp_path, gradient(), PatientID="1", PixelSpacing=[0.2, 0.2])
    environment = os.environ | {
        "PACSNODE_HOME": str(tmp_path / "home"),
        "PACSNODE_MODELS": str(models),
        "PYTHONPATH": str(ROOT),
    }

    def run() -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "pacsnode",
            "models",
            "run",
            "threshold",
            str(film),
            "--out",
            str(tmp_path / "o"),
        ]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)

    server.answering = played.saying(503)
    answer = run()
    assert answer.returncode == 1
    assert f"{NO_SERVER} at 127.0.0.1:{server.port}: the question to chest: status 503\n" in answer.stdout
    server.answering = None
    answer = run()
    assert answer.returncode == 0, answer
    assert "outline: Lung, 1200 pixels" in answer.stdout
    kinds = sorted(path.stem.split("-")[1] for path in (tmp_path / "o").iterdir())
    assert kinds == ["pdf", "pr", "sc", "seg", "sr"]
