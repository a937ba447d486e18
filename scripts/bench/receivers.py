"""The receivers that are compared, and how each is started, awaited and stopped.

In: a name and an empty folder. Out: a running receiver that answers C-ECHO. Each starts with a clean environment:
neither `TCP_NODELAY` nor a `PACSNODE_*` of the caller's reaches it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench import lean

ROOT: Final = Path(__file__).resolve().parents[2]
NODELAY: Final = {"TCP_NODELAY": "1"}
"""DCMTK, and Orthanc through it, reads this variable: without it Nagle's algorithm costs 40 ms an object."""
LARGEST_PDU: Final = "131072"
START_LIMIT_S: Final = 120.0
STOP_LIMIT_S: Final = 60.0
DISK: Final = "disk"
"""No receiver: the same bytes written and flushed by as many threads."""

RULES: Final = """version: 1
peers:
  any: {ae_title: "*", host: 127.0.0.1, may: [store]}
rules: []
unmatched: keep
"""
ORTHANC: Final = {
    "Name": "BENCH",
    "HttpServerEnabled": False,
    "DicomAet": "ANY-SCP",
    "DicomCheckCalledAet": False,
    "DicomCheckModalityHost": False,
}


class StartFailed(Exception):
    """A receiver ended, or did not answer in time."""


@dataclass(frozen=True)
class Start:
    """How one is started. `after_line`: besides C-ECHO, its log must say this before it counts as started."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ae_title: str = "ANY-SCP"
    after_line: str = ""


def _storescp(folder: Path, port: int) -> Start:
    return Start(["/usr/bin/storescp", "--fork", "+B", "-od", str(folder), str(port)])


def _storescp_best(folder: Path, port: int) -> Start:
    command = ["/usr/bin/storescp", "--fork", "+B", "-pdu", LARGEST_PDU, "-od", str(folder), str(port)]
    return Start(command, NODELAY)


def _orthanc(folder: Path, port: int) -> Start:
    settings = folder / "orthanc.json"
    where = {"StorageDirectory": str(folder), "IndexDirectory": str(folder), "DicomPort": port}
    settings.write_text(json.dumps(ORTHANC | where))
    return Start(["/usr/sbin/Orthanc", str(settings)])


def _orthanc_nodelay(folder: Path, port: int) -> Start:
    return Start(_orthanc(folder, port).command, NODELAY)


def _pynetdicom(folder: Path, port: int) -> Start:
    return Start([sys.executable, "-m", "pynetdicom", "storescp", str(port), "-q", "-od", str(folder)])


def _pacsnode(folder: Path, port: int) -> Start:
    """`pacsnode serve` with its shipped settings and services: scp, work and the compute child."""
    (folder / "rules.yaml").write_text(RULES)
    environment = {
        "PACSNODE_HOME": str(node_home(folder)),
        "PACSNODE_RULES": str(folder / "rules.yaml"),
        "PACSNODE_MODELS": str(ROOT / "models"),
        "PACSNODE_DICOM_HOST": lean.LOOPBACK,
        "PACSNODE_DICOM_PORT": str(port),
        "PYTHONPATH": str(ROOT),
    }
    # Loading the models costs some seconds of CPU, once at the start: no load of a node that receives.
    return Start([sys.executable, "-m", "pacsnode", "serve"], environment, "PACSNODE", "models loaded")


def _pacsnode_none(folder: Path, port: int) -> Start:
    start = _pacsnode(folder, port)
    return Start(start.command, {**start.environment, "PACSNODE_DURABILITY": "none"}, start.ae_title, start.after_line)


STARTS: Final[Mapping[str, Callable[[Path, int], Start]]] = {
    "storescp": _storescp,
    "storescp-best": _storescp_best,
    "orthanc": _orthanc,
    "orthanc-nodelay": _orthanc_nodelay,
    "pynetdicom": _pynetdicom,
    "pacsnode": _pacsnode,
    "pacsnode-none": _pacsnode_none,
}
DESCRIPTIONS: Final[Mapping[str, str]] = {
    "storescp": "`storescp --fork +B` as installed",
    "storescp-best": "`TCP_NODELAY=1 storescp --fork +B -pdu 131072`; flushes nothing",
    "orthanc": "Orthanc as installed, AE checks and HTTP off",
    "orthanc-nodelay": "the same with `TCP_NODELAY=1`",
    "pynetdicom": "`python -m pynetdicom storescp`",
    "pacsnode": "`pacsnode serve` as shipped: file and folder flushed, row committed, then 0x0000; admission, hashing; "
    "CPU and RSS with work and the compute child, which has the models loaded",
    "pacsnode-none": "the same with `PACSNODE_DURABILITY=none`: nothing is flushed before 0x0000",
    DISK: "no receiver: create, write, fsync by as many threads",
}


def is_node(name: str) -> bool:
    """Whether it is ours: its files are compared bit for bit."""
    return name.startswith("pacsnode")


def node_home(folder: Path) -> Path:
    """PACSNODE_HOME of a node that runs in `folder`."""
    return folder / "home"


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind((lean.LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Running:
    """A receiver from its first C-ECHO to its end, in a process group of its own. Raises StartFailed."""

    def __init__(self, name: str, folder: Path, extra: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        start = STARTS[name](folder, self.port)
        self.ae_title = start.ae_title
        self._name = name
        self._after_line = start.after_line
        self._log = folder.with_suffix(".log")
        self.environment = _clean_environment() | dict(start.environment) | dict(extra or {})
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                start.command,
                env=self.environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._await()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM and a while to end; then SIGKILL for what is left of its group."""
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _await(self) -> None:
        deadline_s = time.monotonic() + START_LIMIT_S
        while not self._is_ready():
            if self.process.poll() is not None:
                raise StartFailed(f"{self._name} ended: {self.log()[-300:].strip()}")
            if time.monotonic() > deadline_s:
                raise StartFailed(f"{self._name} was not ready in {START_LIMIT_S:.0f} s: {self.log()[-300:].strip()}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        if self._after_line not in self.log():
            return False
        try:
            lean.echo(self.port, self.ae_title)
        except OSError:
            return False
        return True

    def log(self) -> str:
        """What it wrote to its standard streams."""
        return self._log.read_text(errors="replace")


def _clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in NODELAY and not k.startswith("PACSNODE_")}
