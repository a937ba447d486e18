"""The key `http` of pipeline.yaml: an inference server that computes the network, and what it was promised to be.

In: plain values of YAML, the folder around them. Out: a frozen record, or problems with their places. Asks no server
anything: that its model is the promised one is looked at before every case (`kserve`).
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from pacsnode.durations import Seconds
from pacsnode.yamlfile import Items, Loc, Problem, Record, found_in_words, wrong

PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?")
LONGEST_AXIS = 65_536

Datatype = Literal["FP16", "FP32", "FP64", "UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32", "INT64", "BOOL"]


def _url(raw: object) -> str:
    """The address of a server, and nothing beside it. Raises pydantic's mistake."""
    if not isinstance(raw, str):
        raise wrong("wrong-type", f"expected text, found {found_in_words(raw)}")
    try:
        parts = urlsplit(raw)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise _no_url(raw, "its port or its brackets cannot be read") from None
    if parts.scheme not in PORTS or len(raw) > 500:
        raise _no_url(raw, "it does not begin with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise wrong("server-url", "a password in an address is read by everybody; use `token_file` or `token_env`")
    if parts.query or parts.fragment or not PATH.fullmatch(parts.path):
        raise _no_url(raw, "behind the host only a path of plain words may stand")
    if port == 0 or not (HOST.fullmatch(host) or _is_address(host)):
        raise _no_url(raw, "there is no host, or no port that one can have")
    return raw.rstrip("/")


def _no_url(raw: str, why: str) -> Exception:
    return wrong(
        "server-url", f"expected an address such as https://triton.hospital.local:8000, found {raw[:80]!r}: {why}"
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _axis(raw: object) -> int:
    if type(raw) is not int or not (raw == -1 or 1 <= raw <= LONGEST_AXIS):
        raise wrong("wrong-value", f"expected a size from 1 on, or -1 for any, found {found_in_words(raw)}")
    return raw


Url = Annotated[str, BeforeValidator(_url), WithJsonSchema({"type": "string"})]
Axis = Annotated[int, BeforeValidator(_axis), WithJsonSchema({"type": "integer"})]
File = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
ServersName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}$")]
"""Of a model or tensor, as servers have them (`serving_default_x:0`)."""


class Tensor(Record):
    """What goes in, or comes out, as the metadata of the server's model say it."""

    name: Annotated[ServersName, Field(description="As the server calls it.")]
    shape: Annotated[
        Items[Axis],
        Field(min_length=2, max_length=6, description="Sizes, the batch first, then channels; -1: any."),
    ]
    datatype: Annotated[Datatype, Field(description="Of its numbers.")]


class Http(Record):
    """An inference server (KServe v2 protocol: Triton and others) that computes the network."""

    url: Annotated[Url, Field(description="Its address, https; http without encryption. A path may follow.")]
    model: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"), Field(description="As it calls it.")
    ]
    version: Annotated[
        str | None,
        StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$"),
        Field(description="Of the model there, in quotes; another one is refused. Left out: the server's choice."),
    ] = None
    input: Annotated[Tensor, Field(description="What the model reads.")]
    output: Annotated[Tensor, Field(description="What the model gives, and the node maps.")]
    timeout: Annotated[Seconds, Field(description="For one request, from the connection to the last byte.")] = 60.0
    batch: Annotated[int, Field(ge=1, le=256, description="Images or windows of one request, at most.")] = 8
    ca: Annotated[
        File | None,
        Field(description="PEM file of the authorities that are believed, from the folder on; left out: the system's."),
    ] = None
    token_file: Annotated[
        File | None, Field(description="Whole path of a file, outside of the folder, that holds the token.")
    ] = None
    token_env: Annotated[
        str | None,
        StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,63}_TOKEN$"),
        Field(description="Or the environment variable that holds it: `TRITON_TOKEN`."),
    ] = None
    config: Annotated[
        File | None,
        Field(description="What is done before and after, in MONAI's language, as for a network; see there."),
    ] = None

    @property
    def split(self) -> SplitResult:
        """The parts of the address."""
        return urlsplit(self.url)

    @property
    def port(self) -> int:
        """As written, or the usual one."""
        return self.split.port or PORTS[self.split.scheme]

    @property
    def address(self) -> str:
        """`host:port`, for people."""
        host = self.split.hostname or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def problems(folder: Path, http: Http, time_s: float, files: Mapping[str, str]) -> Iterator[Problem]:
    """What contradicts within `http`, its folder and `limits.time_s`. `files`: what lies in the folder."""
    yield from _of_token(folder, http)
    if http.ca is not None and Path(http.ca).as_posix() not in files:
        text = f"the folder has no {http.ca}; copy the authorities' certificates there, so that the hash covers them"
        yield Problem(("http", "ca"), text, "ca-file")
    if not 0 < http.timeout < time_s:
        text = (
            f"expected a time below `limits.time_s` ({time_s:g} s), which ends the whole run, found {http.timeout:g} s"
        )
        yield Problem(("http", "timeout"), text, "timeout")


def _of_token(folder: Path, http: Http) -> Iterator[Problem]:
    given: list[Loc] = [("http", key) for key in ("token_file", "token_env") if getattr(http, key) is not None]
    if len(given) > 1:
        yield Problem(given[1], "give either `token_file` or `token_env`", "token", at="key")
    if given and http.split.scheme == "http":
        yield Problem(given[0], "a token is sent over https only; anybody on the way could read it", "token", at="key")
    if http.token_env is not None and http.token_env.startswith("PACSNODE_"):
        yield Problem(("http", "token_env"), "PACSNODE_… are the node's own settings; take another name", "token")
    if http.token_file is None:
        return
    path = Path(http.token_file)
    if not path.is_absolute() or path.resolve().is_relative_to(folder.resolve()):
        text = "expected a whole path outside of the folder, which is copied and hashed as it is"
        yield Problem(("http", "token_file"), text, "token")


def class_problem(http: Http, classes: int) -> Iterator[Problem]:
    """Where the output cannot be a number for each class."""
    axes = http.output.shape[1:]
    if -1 not in axes and math.prod(axes) != classes:
        text = f"{http.output.name} has {math.prod(axes)} numbers for each input; there are {classes} classes"
        yield Problem(("http", "output", "shape"), text, "output-shape")
