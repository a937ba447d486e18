"""One request to an inference server and its answer, over HTTP/1.1. The server is not trusted with anything.

In: a path, a body, how large the answer may be. Out: the body of a 200, or an exception that says what to do: Transient
with one of the two beginnings below, or Permanent. A connection serves one request, so nothing that was sent too much
is taken for the next answer; it goes to the host of pipeline.yaml and to no other: no proxy of the environment, no
redirect. Certificates are verified. No patient data is known here: numbers go out, and numbers come back.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from pacsnode import __version__
from pacsnode.errors import Permanent, Transient
from pacsnode.infer.endpoint import Http

NO_SERVER: Final = "no inference server"
"""With this begins the reason of a case that goes on once the server is there: not reached, not ready, too busy."""
SERVER_FAILED: Final = "the inference server failed"
"""With this begins the reason of a case that is tried some times more: no answer in time, a cut, its own error."""
CONNECT_S: Final = 5.0
LONGEST_TOKEN: Final = 16_384
TOKEN: Final = re.compile(rb"[!-~]+")
PIECE: Final = 1 << 20

BUSY: Final = (429, 502, 503)
SLOW: Final = (408, 504)


@dataclass(frozen=True)
class Request:
    """What is asked; without a body it is a GET. `most_bytes`: of the answer's body."""

    path: str
    most_bytes: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Sequence[bytes] = ()


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def words(self) -> str:
        """`: ` and what the server says is wrong, as far as it can be shown; "" where it says nothing."""
        try:
            told = json.loads(self.body[:PIECE])["error"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        return f": {shown(told, 200)}" if isinstance(told, str) and told.strip() else ""


def shown(text: str, most: int) -> str:
    """A text of the server on one line, without anything that a terminal obeys."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())[:most]


class Server:
    """The server of one service. May be used by one thread at a time."""

    def __init__(self, http: Http, folder: Path) -> None:
        self._http = http
        self._host = http.split.hostname or ""
        self._context = _context(http, folder) if http.split.scheme == "https" else None

    def ask(self, request: Request) -> Reply:
        """Whatever the server answers. Raises Transient, Permanent."""
        line = self._connected()
        with _Deadline(line, self._http.timeout) as deadline:
            try:
                reply = self._asked(line, request)
            except (OSError, http.client.HTTPException) as error:
                raise self._in_words(error, is_late=deadline.is_over) from None
            if deadline.is_over:  # what is read to the end of a connection ends there too
                raise self._late()
            return reply

    def answered(self, reply: Reply, asked: str) -> Reply:
        """A 200. Raises Transient, Permanent: what another status means."""
        status, address = reply.status, self._http.address
        told = f"{asked}: status {status}{reply.words}"
        if status == 200:
            return reply
        if 300 <= status < 400:
            raise Permanent(f"the inference server {address} sends the node elsewhere ({status}), which it never goes")
        if status in (401, 403):
            raise Permanent(f"the inference server {address} does not let the node in ({status}): see `token_file`")
        if status in BUSY:
            raise self.absent(told)
        if status in SLOW or status >= 500:
            raise self.failed(told)
        raise Permanent(f"the inference server {address} refuses {told}")

    def absent(self, why: str) -> Transient:
        """The error of a server that cannot be asked now."""
        return Transient(f"{NO_SERVER} at {self._http.address}: {why}")

    def failed(self, why: str) -> Transient:
        """The error of a server that was asked in vain."""
        return Transient(f"{SERVER_FAILED} ({self._http.address}): {why}")

    def _late(self) -> Transient:
        return self.failed(f"no whole answer within {self._http.timeout:g} s")

    def _in_words(self, error: Exception, *, is_late: bool) -> Transient | Permanent:
        address, told = self._http.address, shown(str(error), 100) or type(error).__name__
        if is_late or isinstance(error, TimeoutError):
            return self._late()
        if isinstance(error, ssl.SSLCertVerificationError):
            why = f"the certificate of {address} is not believed ({error.verify_message})"
            return Permanent(f"{why}; `ca` of pipeline.yaml names who is")
        if isinstance(error, ConnectionError | http.client.IncompleteRead | ssl.SSLEOFError):
            return self.failed("it cut the connection")
        speaks = "TLS" if isinstance(error, ssl.SSLError) else "HTTP"
        return Permanent(f"what answers at {address} does not speak {speaks}: {told}")

    def _connected(self) -> socket.socket:
        try:
            line = socket.create_connection((self._host, self._http.port), min(CONNECT_S, self._http.timeout))
        except TimeoutError:
            raise self.absent("it does not answer") from None
        except OSError as error:  # also a name that nobody knows
            raise self.absent(error.strerror or str(error)) from None
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.settimeout(self._http.timeout)
        return line

    def _asked(self, line: socket.socket, request: Request) -> Reply:
        connection = http.client.HTTPConnection(self._host, self._http.port)
        connection.sock = line
        try:
            if self._context is not None:
                connection.sock = self._context.wrap_socket(line, server_hostname=self._host)
            path, headers = f"{self._http.split.path}/{request.path}", self._headers() | dict(request.headers)
            with contextlib.suppress(ConnectionError):  # who refuses a body may say so and close before it is sent
                if request.body:
                    headers |= {"Content-Length": str(sum(map(len, request.body)))}
                    connection.request("POST", path, iter(request.body), headers)
                else:
                    connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return Reply(response.status, _lower(response), self._body(response, request.most_bytes))
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        host = self._http.address if self._http.split.port else self._http.address.rpartition(":")[0]
        fixed = {"Host": host, "Connection": "close", "Accept-Encoding": "identity", "Accept": "*/*"}
        token = _token(self._http)
        return (
            fixed | {"User-Agent": f"pacsnode/{__version__}"} | ({"Authorization": f"Bearer {token}"} if token else {})
        )

    def _body(self, response: http.client.HTTPResponse, most: int) -> bytes:
        """At most so much; more is an answer to another question. Raises Permanent, ConnectionError."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Permanent(f"the inference server {self._http.address} compresses its answer, which nobody asked for")
        announced = response.length
        body = bytearray()
        while (announced or 0) <= most and len(body) <= most:
            piece = response.read(min(PIECE, most + 1 - len(body)))
            if not piece:
                if announced is not None and len(body) < announced:
                    raise ConnectionResetError
                return bytes(body)
            body += piece
        raise Permanent(
            f"the inference server {self._http.address} answers with more than the {most} bytes it may need"
        )


class _Deadline:
    """Cuts a connection after a time, whatever the peer does: a byte now and then resets no clock here."""

    def __init__(self, line: socket.socket, seconds: float) -> None:
        self._line = line.dup()  # its end is the end of the other one, also below TLS
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self.is_over = False

    def _cut(self) -> None:
        self.is_over = True
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        self._timer.join()
        self._line.close()


def _lower(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _context(http: Http, folder: Path) -> ssl.SSLContext:
    """Raises Permanent where the file of authorities is none."""
    try:
        context = ssl.create_default_context(cafile=str(folder / http.ca) if http.ca else None)
    except (OSError, ssl.SSLError) as error:
        raise Permanent(f"{http.ca} holds no certificates that can be read: {shown(str(error), 100)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _token(http: Http) -> str:
    """As it is now: it may be replaced while the node runs. Raises Permanent, and never tells what it read."""
    if http.token_file is not None:
        where = http.token_file
        try:
            with Path(where).open("rb") as file:
                held = file.read(LONGEST_TOKEN + 1).strip()
        except OSError as error:
            raise Permanent(f"the token of the inference server cannot be read ({where}: {error.strerror})") from None
    elif http.token_env is not None:
        where = http.token_env
        held = os.environ.get(where, "").strip().encode()
    else:
        return ""
    if not TOKEN.fullmatch(held) or len(held) > LONGEST_TOKEN:
        raise Permanent(f"{where} holds no token for the inference server: one word of ASCII, without spaces")
    return held.decode("ascii")
