"""For tests of HTTP destinations: a server whose answers are scripted, and a real Orthanc with its DICOMweb plugin."""

from __future__ import annotations

import email
import json
import os
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ORTHANC = Path("/usr/sbin/Orthanc")
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass
class Request:
    """What the server got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def parts(self) -> list[bytes]:
        """The bodies of a multipart/related request."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        made = email.message_from_bytes(head + self.body)
        assert made.is_multipart()
        payloads = [part.get_payload(decode=True) for part in made.walk() if not part.is_multipart()]
        return [payload for payload in payloads if isinstance(payload, bytes)]


@dataclass
class Answer:
    """What it says to one request."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        """The body as bytes; what is no bytes goes as JSON."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Scripted:
    """A server that answers as `say` tells; `got`: every request."""

    say: Callable[[Request], Answer]
    got: list[Request] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def running(self, tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
        """Until the end of the block."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                headers = {key.lower(): value for key, value in self.headers.items()}
                request = Request(self.command, self.path, headers, self.rfile.read(length))
                scripted.got.append(request)
                answer = scripted.say(request)
                self.send_response(answer.status)
                for key, value in ({"Content-Length": str(len(answer.data))} | answer.headers).items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(answer.data)

            do_GET = do_POST = _answer

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        return Handler


@dataclass
class Orthanc:
    """A running Orthanc: its URL, who may use it, what it holds."""

    url: str
    user: str = "node"
    password: str = "secret"

    def get(self, path: str) -> bytes:
        """What its REST interface says."""
        opener = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        opener.add_password(None, self.url, self.user, self.password)
        with urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(opener)).open(self.url + path) as answer:
            return bytes(answer.read())

    def files(self) -> dict[str, bytes]:
        """Every object by SOP Instance UID, as it is stored."""
        names = json.loads(self.get("/instances"))
        held = {}
        for name in names:
            tags = json.loads(self.get(f"/instances/{name}"))["MainDicomTags"]
            held[tags["SOPInstanceUID"]] = self.get(f"/instances/{name}/file")
        return held


@contextmanager
def orthanc(folder: Path, **more: Any) -> Iterator[Orthanc]:
    """An Orthanc with basic authentication and DICOMweb, empty."""
    if not ORTHANC.exists() or not DICOMWEB.exists():
        pytest.skip("Orthanc or its DICOMweb plugin is not installed")
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Orthanc(f"http://127.0.0.1:{port}")
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {made.user: made.password},
        "Plugins": [str(DICOMWEB)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings | more))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(ORTHANC), str(path)], stdout=log, stderr=log, env=dict(os.environ))
    try:
        _await(made, process)
        yield made
    finally:
        process.terminate()
        process.wait(30)


def _await(made: Orthanc, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + 60
    while True:
        assert process.poll() is None, "Orthanc ended"
        try:
            made.get("/system")
        except OSError:
            assert time.monotonic() < until_s, "Orthanc did not start in time"
            time.sleep(0.05)
        else:
            return
