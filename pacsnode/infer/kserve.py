"""The KServe v2 protocol (Open Inference Protocol, REST): is the model there and the promised one; numbers in and out.

In: the record `http` of pipeline.yaml, batches of numbers. Out: batches of finite or other decimal numbers in exactly
the shape that was promised, and what the server says of its model. Numbers go as bytes where the server has the
binary tensor extension (`Inference-Header-Content-Length`), else as JSON. Trusts no number of the answer.
Source: kserve.github.io, Open Inference Protocol V2; Triton's docs/protocol, extension binary_tensor_data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pacsnode.errors import Permanent, Transient
from pacsnode.infer.endpoint import Http, Tensor
from pacsnode.infer.server import Reply, Request, Server, shown

BINARY: Final = "binary_tensor_data"
HEADER_LENGTH: Final = "inference-header-content-length"
MOST_WORDS: Final = 256 * 1024
"""Bytes of an answer beside its numbers: metadata, the JSON before them."""
JSON_NUMBER: Final = 32
"""Bytes of a number in JSON, with its comma: -1.2345678901234567e-308 has 24."""
TYPES: Final[Mapping[str, str]] = {
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "UINT8": "u1",
    "INT8": "i1",
    "UINT16": "<u2",
    "INT16": "<i2",
    "UINT32": "<u4",
    "INT32": "<i4",
    "INT64": "<i8",
    "BOOL": "?",
}
"""NumPy's names; bytes on the wire are little-endian."""


@dataclass(frozen=True)
class Served:
    """What the server says of its model: `version` "" where it tells none."""

    version: str
    platform: str
    is_binary: bool


class Model:
    """The model of one service on its server."""

    def __init__(self, http: Http, folder: Path) -> None:
        self._http = http
        self._server = Server(http, folder)
        self._path = f"v2/models/{http.model}" + (f"/versions/{http.version}" if http.version else "")

    def look(self) -> Served:
        """Is the server ready, its model there, and the promised one? Raises Transient, Permanent."""
        http = self._http
        health = self._ask("v2/health/ready")
        if health.status in (400, 500):  # as some servers say "not yet"; the protocol leaves it to them
            raise self._server.absent(f"it is not ready (status {health.status}{health.words})")
        self._server.answered(health, "the question whether it is ready")
        extensions = self._ask("v2")
        binary = extensions.status == 200 and BINARY in _names(self._json(extensions).get("extensions"))
        asked = f"the model {http.model}" + (f", version {http.version}" if http.version else "")
        served = self._promised(self._json(self._server.answered(self._ask(self._path), asked)), is_binary=binary)
        ready = self._ask(f"{self._path}/ready")
        if ready.status in (400, 500) or (ready.status == 200 and _is_unready(ready)):
            raise self._server.absent(f"{asked} is not ready (status {ready.status}{ready.words})")
        self._server.answered(ready, asked)
        return served

    def infer(self, batch: NDArray[np.float32], served: Served) -> NDArray[np.float32]:
        """The output of each item, as many as a request may hold at once. Raises Transient, Permanent."""
        fixed = self._http.input.shape[0]
        step = min(self._http.batch, len(batch)) if fixed == -1 else fixed
        if len(batch) % step and fixed != -1:
            raise Permanent(f"the server's model reads {fixed} inputs at once, and there are {len(batch)}")
        return np.concatenate([self._run(batch[n : n + step], served) for n in range(0, len(batch), step)])

    def _ask(self, path: str) -> Reply:
        return self._server.ask(Request(path, MOST_WORDS))

    def _run(self, values: NDArray[np.float32], served: Served) -> NDArray[np.float32]:
        """Of one request."""
        http = self._http
        shape, count = (len(values), *http.output.shape[1:]), _most_numbers(http.output, values.shape)
        request = _request(http, values, is_binary=served.is_binary)
        most = MOST_WORDS + count * (
            np.dtype(TYPES[http.output.datatype]).itemsize if served.is_binary else JSON_NUMBER
        )
        reply = self._server.answered(
            self._server.ask(Request(f"{self._path}/infer", most, *request)), f"the question to {http.model}"
        )
        told, raw = self._split(reply)
        self._refuse_other_version(told, served)
        found = self._output(told, raw)
        if found.size > count or not _fits(found.shape, shape):
            raise self._wrong(f"{http.output.name} in the shape {_shape(found.shape)} instead of {_shape(shape)}")
        return found

    def _split(self, reply: Reply) -> tuple[dict[str, Any], bytes | None]:
        """The JSON, and the bytes behind it where the answer is binary."""
        length = reply.headers.get(HEADER_LENGTH)
        if length is None:
            return self._json(reply), None
        if not (length.isascii() and length.isdigit() and len(length) <= 9 and int(length) <= len(reply.body)):
            raise self._wrong("an answer whose length of the header is not one")
        head = int(length)
        return self._json(Reply(reply.status, {}, reply.body[:head])), reply.body[head:]

    def _output(self, told: Mapping[str, Any], raw: bytes | None) -> NDArray[np.float32]:
        """The one output that was asked for, as decimal numbers, in the shape that the answer says."""
        outputs = told.get("outputs")
        one = outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else None
        wanted = self._http.output
        if not isinstance(one, dict) or one.get("name") != wanted.name:
            raise self._wrong(f"something else than {wanted.name} alone")
        if one.get("datatype") != wanted.datatype:
            raise self._wrong(f"{wanted.name} as {shown(str(one.get('datatype')), 20)} instead of {wanted.datatype}")
        shape = one.get("shape")
        if not isinstance(shape, list) or len(shape) != len(wanted.shape) or not all(map(_is_size, shape)):
            raise self._wrong(f"{wanted.name} in no shape, or with another number of axes")
        kind = np.dtype(TYPES[wanted.datatype])
        values = self._numbers(one.get("data")) if raw is None else _of_bytes(raw, kind)
        if values is None or values.size != math.prod(shape):
            raise self._wrong(f"{wanted.name} with other numbers than its shape {_shape(shape)} has room for")
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
            return values.reshape(shape).astype(np.float32)

    def _numbers(self, data: object) -> NDArray[Any] | None:
        """Of JSON, flat or nested. None: something else is among them."""
        try:
            values = np.asarray(data)
        except (ValueError, OverflowError, RecursionError):
            return None
        return values if isinstance(data, list) and values.dtype.kind in "biuf" else None

    def _json(self, reply: Reply) -> dict[str, Any]:
        try:
            told = json.loads(reply.body)
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            raise self._wrong("something that is no JSON of this protocol")
        return told

    def _refuse_other_version(self, told: Mapping[str, Any], served: Served) -> None:
        """The version that answered must be the one that was looked at: results name it."""
        version, model = told.get("model_version"), told.get("model_name", self._http.model)
        if model != self._http.model:
            raise self._wrong(f"an answer of the model {shown(str(model), 60)} instead of {self._http.model}")
        if version in (None, "") or not served.version or version == served.version:
            return
        text = f"version {shown(str(version), 32)} of {self._http.model} answers, not {served.version}"
        raise Permanent(f"{text}, which pipeline.yaml names") if self._http.version else self._server.failed(text)

    def _promised(self, told: Mapping[str, Any], *, is_binary: bool) -> Served:
        """The metadata of the model, once they are as pipeline.yaml says. Raises Permanent."""
        http = self._http
        if told.get("name", http.model) != http.model:
            raise self._wrong(f"what it knows of {shown(str(told['name']), 60)}, asked for {http.model}")
        self._refuse_others("inputs", told.get("inputs"), http.input)
        self._refuse_others("outputs", told.get("outputs"), http.output)
        if len(told["inputs"]) != 1:
            raise self._wrong(
                f"a model of {len(told['inputs'])} inputs; the node runs one with {http.input.name} alone"
            )
        versions = [shown(one, 32) for one in _names(told.get("versions"))]
        if http.version is not None and versions and http.version not in versions:
            has = ", ".join(versions[:5])
            raise Permanent(f"the server {http.address} has {http.model} in version {has}; asked for {http.version}")
        version = http.version or (max(versions, key=_newest) if versions else "")
        platform = told.get("platform")
        return Served(version, shown(platform, 60) if isinstance(platform, str) else "", is_binary)

    def _refuse_others(self, kind: str, told: object, promised: Tensor) -> None:
        tensors = [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []
        one = next((one for one in tensors if one.get("name") == promised.name), None)
        if one is None:
            names = ", ".join(shown(str(one.get("name")), 40) for one in tensors[:5]) or "none"
            raise self._wrong(f"a model whose {kind} are {names}; pipeline.yaml says {promised.name}")
        if one.get("datatype") != promised.datatype:
            text = f"{promised.name} as {shown(str(one.get('datatype')), 20)}; pipeline.yaml says {promised.datatype}"
            raise self._wrong(text)
        shape = one.get("shape")
        if not isinstance(shape, list) or not all(type(axis) is int for axis in shape):
            raise self._wrong(f"{promised.name} without a shape")
        if not _fits(promised.shape, shape):
            raise self._wrong(f"{promised.name} as {_shape(shape)}; pipeline.yaml says {_shape(promised.shape)}")

    def _wrong(self, what: str) -> Permanent:
        return Permanent(f"the inference server {self._http.address} gives {what}")


def problem(http: Http, folder: Path) -> str:
    """What keeps the server from being asked now; "" where nothing does. For a person who looks, not for cases."""
    try:
        Model(http, folder).look()
    except (Transient, Permanent) as error:
        return str(error)
    return ""


def _request(http: Http, values: NDArray[np.float32], *, is_binary: bool) -> tuple[dict[str, str], list[bytes]]:
    """Headers and body. Raises Permanent for what the model does not read."""
    name, shape, datatype = http.input.name, http.input.shape, http.input.datatype
    if not _fits(values.shape, shape):
        raise Permanent(
            f"the server's model reads {name} in the shape {_shape(shape)}; what goes in has {_shape(values.shape)}: "
            "does the config lack a step that brings it there?"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        cast = np.ascontiguousarray(values, dtype=TYPES[datatype])
    is_decimal = cast.dtype.kind == "f"
    if not (np.isfinite(cast).all() if is_decimal else np.array_equal(cast.astype(np.float32), values)):
        raise Permanent(f"what the preprocessing gives for {name} does not fit into {datatype}, or is no number")
    told: dict[str, Any] = {"name": name, "shape": list(cast.shape), "datatype": datatype}
    wanted: dict[str, Any] = {"name": http.output.name}
    if not is_binary:
        plain = json.dumps({"inputs": [told | {"data": cast.ravel().tolist()}], "outputs": [wanted]})
        return {"Content-Type": "application/json"}, [plain.encode()]
    told["parameters"] = {"binary_data_size": cast.nbytes}
    wanted["parameters"] = {"binary_data": True}
    head = json.dumps({"inputs": [told], "outputs": [wanted]}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return headers, [head, cast.tobytes()]


def _of_bytes(raw: bytes, kind: np.dtype[Any]) -> NDArray[Any] | None:
    if len(raw) % kind.itemsize:
        return None
    if kind.kind == "b":  # a byte that is neither is refused later, as a number that is no label
        return np.frombuffer(raw, np.uint8)
    return np.frombuffer(raw, kind)


def _most_numbers(output: Tensor, given: Sequence[int]) -> int:
    """Of an answer: an axis of any size is at most as long as the longest of the input."""
    longest = max(given[1:], default=1)
    return given[0] * math.prod(longest if axis == -1 else axis for axis in output.shape[1:])


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape is one of those that another one, where -1 is any, stands for."""
    return len(shape) == len(wanted) and all(w in (-1, one) for one, w in zip(shape, wanted, strict=True))


def _shape(shape: Sequence[int]) -> str:
    return " x ".join("any" if axis == -1 else str(axis) for axis in shape)


def _is_size(axis: object) -> bool:
    return type(axis) is int and 0 < axis < 1 << 31


def _names(told: object) -> list[str]:
    return [one for one in told if isinstance(one, str)] if isinstance(told, list) else []


def _newest(version: str) -> tuple[int, str]:
    """Servers give the highest number where none is named."""
    return (int(version) if version.isascii() and version.isdigit() else -1, version)


def _is_unready(ready: Reply) -> bool:
    """Some servers say it in words beside a 200."""
    try:
        told = json.loads(ready.body)
    except (ValueError, RecursionError):
        return False
    return isinstance(told, dict) and told.get("ready") is False
