"""A real Orthanc as the PACS: Debian's, in a folder of its own, on loopback, without accounts."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from harness import LOOPBACK, free_port, wait_until

ORTHANC = "/usr/sbin/Orthanc"
DICOM_WEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


@dataclass
class Orthanc:
    """Takes everything, answers by REST what it holds, and sends it on to `node_port`."""

    folder: Path
    node_port: int
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    plugins: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Orthanc:
        self.folder.mkdir(parents=True)
        settings = {
            "Name": "pacs",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": list(self.plugins),
            "DicomAet": "PACS",
            "DicomPort": self.port,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "DefaultEncoding": "Utf8",
            "UnknownSopClassAccepted": True,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StableAge": 1,
            "DicomModalities": {"node": ["PACSNODE", LOOPBACK, self.node_port]},
        }
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(settings))
        with (self.folder / "log").open("wb") as log:
            environment = os.environ | {"TCP_NODELAY": "1"}
            self.process = subprocess.Popen([ORTHANC, str(path)], stdout=log, stderr=log, env=environment)
        wait_until(self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def _answers(self) -> bool:
        try:
            self._get("/system")
        except OSError:
            return False
        return True

    def _get(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{LOOPBACK}:{self.http_port}{path}", data)
        with urllib.request.urlopen(request, timeout=30) as answer:
            content: bytes = answer.read()
        return content

    def _ids(self, study: str) -> list[str]:
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study}}
        ids: list[str] = json.loads(self._get("/tools/find", query))
        return ids

    def count(self, study: str = "") -> int:
        """How many instances it holds, of a study or in all."""
        if study:
            return len(self._ids(study))
        return int(json.loads(self._get("/statistics"))["CountInstances"])

    def objects(self, study: str) -> list[pydicom.Dataset]:
        """What it holds of a study, as it would give it to a viewer."""
        return [pydicom.dcmread(BytesIO(self._get(f"/instances/{one}/file"))) for one in self._ids(study)]

    def tags(self, study: str) -> list[dict[str, Any]]:
        """What it reads in each instance of a study: keyword to value, text as it shows it in a browser."""
        return [json.loads(self._get(f"/instances/{one}/simplified-tags")) for one in self._ids(study)]

    def put(self, file: Path) -> None:
        """Store a file by REST."""
        request = urllib.request.Request(f"http://{LOOPBACK}:{self.http_port}/instances", file.read_bytes())
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()

    def send_to_node(self, study: str) -> None:
        """C-STORE of all that it holds of a study back to the node, as a careless routing rule would."""
        self._get("/modalities/node/store", self._ids(study))
