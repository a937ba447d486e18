"""OHIF and the DICOMweb of an archive under one origin, on loopback, for tests: static files and a reverse proxy.

In: the folder `dist` of the npm package @ohif/app, the port of the archive. Out: an address. Serves nothing outside of
that folder, changes nothing in it, and has no accounts: not for a hospital.
"""

from __future__ import annotations

import http.client
import json
import mimetypes
import threading
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
_PROXIED = "/dicom-web/"
_PASSED_ON = ("Accept", "Content-Type", "Host", "Range")
"""Host among them: Orthanc writes the addresses of bulk data by it."""
_SOURCE = {
    "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
    "sourceName": "dicomweb",
    "configuration": {
        "friendlyName": "Orthanc",
        "name": "orthanc",
        "qidoRoot": "/dicom-web",
        "wadoRoot": "/dicom-web",
        "wadoUriRoot": "/wado",
        "qidoSupportsIncludeField": False,
        "supportsReject": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "omitQuotationForMultipartRequest": True,
        "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
    },
}
_SETTINGS = {
    "routerBasename": "/",
    "showStudyList": True,
    "extensions": [],
    "modes": [],
    "maxNumberOfWebWorkers": 1,
    "showLoadingIndicator": True,
    "disableConfirmationPrompts": True,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "dicomweb",
    "dataSources": [_SOURCE],
}

_PLACELESS = """\
window.config.customizationService = [{
  onBeforeSRAddMeasurement: {
    $set: ({ measurement }) => {
      if (!measurement.coords.length) measurement.coords.push({});
      return measurement;
    },
  },
}];
"""
"""OHIF (3.12.10, 3.13.2) ends with an error where a measurement group has no coordinates, such as one of a segment."""


class Site(AbstractContextManager["Site"]):
    """Serves from entering to leaving."""

    def __init__(self, dist: Path, archive_port: int) -> None:
        kept = {"dist": dist.resolve(strict=True), "archive_port": archive_port}
        handler = type("_Bound", (_Handler,), kept)
        self._server = ThreadingHTTPServer((LOOPBACK, 0), handler)
        self.address = f"http://{LOOPBACK}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    dist: Path
    archive_port: int
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(_PROXIED):
            self._from_archive()
        elif path == "/app-config.js":
            self._answer(f"window.config = {json.dumps(_SETTINGS)};\n{_PLACELESS}".encode(), "text/javascript")
        else:
            file = (self.dist / path.lstrip("/")).resolve()
            if not file.is_relative_to(self.dist) or not file.is_file():
                file = self.dist / "index.html"  # /viewer and the like are made in the browser
            self._answer(file.read_bytes(), mimetypes.guess_type(file.name)[0] or "application/octet-stream")

    def _from_archive(self) -> None:
        archive = http.client.HTTPConnection(LOOPBACK, self.archive_port, timeout=60)
        try:
            headers = {name: self.headers[name] for name in _PASSED_ON if name in self.headers}
            archive.request("GET", self.path, headers=headers)
            answer = archive.getresponse()
            self._answer(answer.read(), answer.headers["Content-Type"] or "application/json", answer.status)
        finally:
            archive.close()

    def _answer(self, body: bytes, content_type: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: the browser says what it misses."""
