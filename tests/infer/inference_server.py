"""An inference server of the KServe v2 protocol, played by a script on a real socket: right, and in every wrong way.

`Inference.answering` says how a question is answered, and may be changed at any time; `asked` holds what came.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML

from tests.infer.bundles import network_bundle, pipeline, write_pipeline

LOOPBACK = "127.0.0.1"
DTYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "UINT8": "u1", "INT64": "<i8"}


@dataclass
class Question:
    """One request as it came. `values`: the input of an inference."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    values: NDArray[Any] | None = None

    @property
    def is_binary(self) -> bool:
        """Whether the numbers came as bytes."""
        return "inference-header-content-length" in self.headers


Answering = Callable[["Inference", "_Handler", Question], None]
Compute = Callable[[NDArray[Any]], NDArray[Any]]


def threshold(values: NDArray[Any], above: float = 0.49) -> NDArray[Any]:
    """What the network of `network_bundle` gives: a channel that is `above` everywhere, and the image."""
    image = values.astype(np.float32)
    return np.concatenate([np.full_like(image, above), image], axis=1)


@dataclass
class Inference:
    """The server and its one model."""

    model: str = "chest"
    version: str = "3"
    platform: str = "onnxruntime_onnx"
    extensions: tuple[str, ...] = ("binary_tensor_data", "sequence")
    input: dict[str, Any] = field(
        default_factory=lambda: {"name": "image", "datatype": "FP32", "shape": [-1, 1, -1, -1]}
    )
    output: dict[str, Any] = field(
        default_factory=lambda: {"name": "scores", "datatype": "FP32", "shape": [-1, 2, -1, -1]}
    )
    more_inputs: list[dict[str, Any]] = field(default_factory=list)
    compute: Compute = threshold
    answering: Answering | None = None
    health: int = 200
    ready: tuple[int, dict[str, Any]] = (200, {})
    port: int = 0
    asked: list[Question] = field(default_factory=list)
    most_at_once: int = 0
    tls: tuple[Path, Path] | None = None
    """Certificate and key."""
    faults: list[str] = field(default_factory=list)

    def __enter__(self) -> Inference:
        self._lock, self._now = threading.Lock(), 0
        handler = type("Handler", (_Handler,), {"played": self})
        self._server = _Listening((LOOPBACK, self.port), handler)
        if self.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def questions(self) -> list[Question]:
        """The inferences that were asked for."""
        return [one for one in self.asked if one.path.endswith("/infer")]

    def http(self, **changes: Any) -> dict[str, Any]:
        """The key `http` of a pipeline.yaml that fits; a change to None takes the key out."""
        plain = {
            "url": f"{'http' if self.tls is None else 'https'}://{LOOPBACK}:{self.port}",
            "model": self.model,
            "version": self.version,
            "input": self.input,
            "output": self.output,
            "timeout": "2s",
        }
        return {key: value for key, value in (plain | changes).items() if value is not None}

    def metadata(self) -> dict[str, Any]:
        """Of the model."""
        inputs = [self.input, *self.more_inputs]
        told = {"name": self.model, "versions": [self.version] if self.version else [], "platform": self.platform}
        return told | {"inputs": inputs, "outputs": [self.output, {"name": "aux", "datatype": "FP32", "shape": [-1]}]}

    def computed(self, question: Question, **changes: Any) -> tuple[dict[str, Any], NDArray[Any]]:
        """The right answer: its JSON without numbers, and these."""
        assert question.values is not None
        values = self.compute(question.values).astype(DTYPES[self.output["datatype"]])
        output = {"name": self.output["name"], "datatype": self.output["datatype"], "shape": list(values.shape)}
        told = {"model_name": self.model, "model_version": self.version, "outputs": [output | changes]}
        return told, values


def served_bundle(models: Path, server: Inference, *, http: dict[str, Any] | None = None, **changes: Any) -> Path:
    """The bundle of `network_bundle` without weights: its network is on the server."""
    name = str(changes.get("name", "threshold"))
    before, after, dimensions = (changes.pop(key, None) for key in ("before", "after", "dimensions"))
    folder = network_bundle(models, before=before, after=after, dimensions=dimensions or 2, name=name)
    (folder / "models" / "model.pt").unlink()
    path = folder / "configs" / "inference.yaml"
    config = YAML().load(path.read_text())
    del config["network_def"]
    config["inferer"] = changes.pop("inferer", config["inferer"])
    with path.open("w") as file:
        YAML().dump(config, file)
    for file_name, text in changes.pop("files", {}).items():
        (folder / file_name).write_text(text)
    write_pipeline(folder, pipeline(**({"network": None, "http": server.http(**(http or {}))} | changes)))
    return folder


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of our faults."""


class _Handler(BaseHTTPRequestHandler):
    played: Inference
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests look at `asked`."""

    def do_GET(self) -> None:
        played, question = self.played, self._question()
        model = f"/v2/models/{played.model}"
        paths = {model, f"{model}/versions/{played.version}"}
        if self.path == "/v2/health/ready":
            self.say(played.health, {})
        elif self.path == "/v2":
            self.say(200, {"name": "played", "version": "1", "extensions": list(played.extensions)})
        elif self.path in paths:
            self.say(200, played.metadata())
        elif self.path in {f"{path}/ready" for path in paths}:
            self.say(*played.ready)
        else:
            self.say(404, {"error": f"Request for unknown model: '{question.path.split('/')[3]}' is not found"})

    def do_POST(self) -> None:
        played, question = self.played, self._question()
        with played._lock:
            played._now += 1
            played.most_at_once = max(played.most_at_once, played._now)
        try:
            (played.answering or right)(played, self, question)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True  # the node went away
        except Exception as error:
            played.faults.append(repr(error))
            raise
        finally:
            with played._lock:
                played._now -= 1

    def _question(self) -> Question:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        question = Question(self.command, self.path, headers, body)
        if body:
            length = int(headers.get("inference-header-content-length", len(body)))
            told = json.loads(body[:length])
            (one,) = told["inputs"]
            dtype = DTYPES[one["datatype"]]
            flat = np.frombuffer(body[length:], dtype) if question.is_binary else np.array(one["data"], dtype)
            question.values = flat.reshape(one["shape"])
        self.played.asked.append(question)
        return question

    def say(self, status: int, told: object) -> None:
        """An answer in JSON."""
        self.give(status, {"Content-Type": "application/json"}, json.dumps(told).encode())

    def give(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Any answer."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def give_binary(self, told: dict[str, Any], raw: bytes, length: str = "") -> None:
        """Numbers as bytes behind the JSON."""
        told["outputs"][0]["parameters"] = {"binary_data_size": len(raw)}
        head = json.dumps(told).encode()
        self.give(200, {"Inference-Header-Content-Length": length or str(len(head))}, head + raw)


def right(played: Inference, handler: _Handler, question: Question) -> None:
    """As the protocol says, in the form in which it was asked."""
    told, values = played.computed(question)
    if question.is_binary:
        handler.give_binary(told, values.tobytes())
    else:
        told["outputs"][0]["data"] = values.ravel().tolist()
        handler.say(200, told)


def json_though_asked_for_bytes(played: Inference, handler: _Handler, question: Question) -> None:
    """Nested, as some servers write it."""
    told, values = played.computed(question)
    told["outputs"][0]["data"] = values.tolist()
    handler.say(200, told)


def told_as(**changes: Any) -> Answering:
    """The right numbers, and something wrong said of them."""

    def answering(played: Inference, handler: _Handler, question: Question) -> None:
        told, values = played.computed(question, **changes)
        handler.give_binary(told, values.tobytes())

    return answering


def with_data(change: Callable[[list[Any]], object]) -> Answering:
    """JSON whose numbers are something else."""

    def answering(played: Inference, handler: _Handler, question: Question) -> None:
        told, values = played.computed(question)
        told["outputs"][0]["data"] = change(values.ravel().tolist())
        handler.say(200, told)

    return answering


def with_bytes(change: Callable[[bytes], bytes], length: str = "") -> Answering:
    """Bytes that are others."""

    def answering(played: Inference, handler: _Handler, question: Question) -> None:
        told, values = played.computed(question)
        handler.give_binary(told, change(values.tobytes()), length)

    return answering


def as_version(version: str) -> Answering:
    """Another version of the model answers."""

    def answering(played: Inference, handler: _Handler, question: Question) -> None:
        told, values = played.computed(question)
        handler.give_binary(told | {"model_version": version}, values.tobytes())

    return answering


def saying(status: int, body: bytes = b"{}", **headers: str) -> Answering:
    """A fixed answer; `_` in the name of a header stands for `-`."""

    def answering(played: Inference, handler: _Handler, question: Question) -> None:
        handler.give(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)

    return answering


def after(seconds: float) -> Answering:
    """Right, but late."""

    def answering(played: Inference, handler: _Handler, question: Question) -> None:
        time.sleep(seconds)
        right(played, handler, question)

    return answering


def once(event: threading.Event) -> Answering:
    """Right, when something has happened."""

    def answering(played: Inference, handler: _Handler, question: Question) -> None:
        event.wait(45)
        right(played, handler, question)

    return answering


def drip(played: Inference, handler: _Handler, question: Question) -> None:
    """A byte now and then, for ever."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def drip_headers(played: Inference, handler: _Handler, question: Question) -> None:
    """Provisional answers, for ever."""
    for _ in range(1000):
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.05)


def endless(played: Inference, handler: _Handler, question: Question) -> None:
    """Without a length, for ever."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 65536)


def endless_chunks(played: Inference, handler: _Handler, question: Question) -> None:
    """In chunks, for ever."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")


def cut(played: Inference, handler: _Handler, question: Question) -> None:
    """The connection is reset without an answer."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def half(played: Inference, handler: _Handler, question: Question) -> None:
    """The connection ends in the middle of the answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.wfile.flush()
    handler.close_connection = True


def no_http(played: Inference, handler: _Handler, question: Question) -> None:
    """Something that speaks another language."""
    handler.wfile.write(b"\x01\x02SSH-2.0-rubbish\r\n" * 10)
    handler.close_connection = True


def first(*answers: Answering) -> Answering:
    """One after the other, then right."""
    left = list(answers)

    def answering(played: Inference, handler: _Handler, question: Question) -> None:
        (left.pop(0) if left else right)(played, handler, question)

    return answering
