"""A whole node on free ports, real peers around it, and what they hold afterwards. Nothing replaces our own code."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.data import get_testdata_file

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
STORESCP = "/usr/bin/storescp"
STORESCU = "/usr/bin/storescu"
LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_until(what: Callable[[], bool], timeout_s: float = 60.0, every_s: float = 0.02) -> None:
    """Look until it is true; fail loudly when it does not become so."""
    deadline = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen in time")
        time.sleep(every_s)


def radiograph() -> Path:
    """A real CR CHEST PA."""
    return Path(str(get_testdata_file("RG1_UNCR.dcm", download=False)))


def electrocardiogram() -> Path:
    """A real 12-lead ECG."""
    return Path(str(get_testdata_file("waveform_ecg.dcm", download=False)))


@dataclass
class Pacs:
    """A DCMTK storescp that keeps what it gets."""

    folder: Path
    port: int = field(default_factory=free_port)
    ae_title: str = "PACS"
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Pacs:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def start(self) -> None:
        """Listen."""
        command = [STORESCP, "--fork", "+B", "--aetitle", self.ae_title, *self.options, "-od", str(self.folder)]
        self.process = subprocess.Popen(
            [*command, str(self.port)], env=os.environ | {"TCP_NODELAY": "1"}, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: listens(self.port))

    def stop(self) -> None:
        """Be down."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def objects(self) -> list[pydicom.Dataset]:
        """What it holds; half-written files are left out."""
        held = []
        for path in sorted(self.folder.iterdir()):
            try:
                held.append(pydicom.dcmread(path))
            except (pydicom.errors.InvalidDicomError, EOFError):
                continue
        return held

    def modalities(self) -> list[str]:
        """SR, SEG, … of what it holds, sorted; a secondary capture counts as SC."""
        sc = "1.2.840.10008.5.1.4.1.1.7"
        return sorted("SC" if str(o.SOPClassUID).startswith(sc) else str(o.Modality) for o in self.objects())


def listens(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


@dataclass
class Node:
    """`pacsnode serve` (or single roles) in a process group of its own."""

    home: Path
    rules: Path
    models: Path = ROOT / "models"
    port: int = field(default_factory=free_port)
    extra: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Settings of this node."""
        return os.environ | {
            "PACSNODE_HOME": str(self.home),
            "PACSNODE_RULES": str(self.rules),
            "PACSNODE_MODELS": str(self.models),
            "PACSNODE_DICOM_HOST": LOOPBACK,
            "PACSNODE_DICOM_PORT": str(self.port),
            "PACSNODE_MINIMUM_FREE_MB": "64",
            **self.extra,
        }

    def start(self, *roles: str) -> None:
        """Run roles (`serve` when none is named) until `stop`."""
        log = (self.home.parent / f"{self.home.name}.log").open("ab")
        for role in roles or ("serve",):
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "pacsnode", role], env=self.environment, stderr=log, start_new_session=True
                )
            )
        log.close()
        try:
            wait_until(lambda: listens(self.port) or self._ended())
        except TimeoutError:
            self.kill()
            raise
        if self._ended():
            self.kill()
            raise RuntimeError(f"the node did not start:\n{self.log()[-3000:]}")

    def _ended(self) -> bool:
        return any(process.poll() is not None for process in self.processes)

    def kill(self) -> None:
        """SIGKILL for all that was started, and what that started."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes.clear()

    def pids(self) -> dict[str, int]:
        """Process numbers of what runs now: scp, work, child."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if f"PACSNODE_HOME={self.home}\0".encode() not in (folder / "environ").read_bytes():
                    continue
                words = (folder / "cmdline").read_bytes().split(b"\0")
                name = words[2].removeprefix(b"pacsnode.").decode() if words[1:2] == [b"-m"] else ""
                role = words[3].decode() if name == "pacsnode" and len(words) > 3 else name
                if role in ("scp", "work", "child"):
                    found[role] = int(folder.name)
        return found

    def stop(self) -> None:
        """SIGTERM, then wait."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        try:
            for process in self.processes:
                process.wait(60)
        finally:
            self.kill()

    def __enter__(self) -> Node:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log(self) -> str:
        """What the node wrote."""
        return (self.home.parent / f"{self.home.name}.log").read_text()

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A `pacsnode` command on this node's settings."""
        return subprocess.run(
            [sys.executable, "-m", "pacsnode", *arguments],
            env=self.environment,
            check=check,
            capture_output=True,
            text=True,
        )

    def life(self, study_instance_uid: str) -> dict[str, Any]:
        """`studies show --json`."""
        life: dict[str, Any] = json.loads(self.run("studies", "show", study_instance_uid, "--json").stdout)
        return life

    def send(self, paths: Sequence[Path], calling: str = "XR1") -> None:
        """C-STORE by DCMTK's storescu, as a modality would."""
        command = [STORESCU, "-R", "-aet", calling, "-aec", "PACSNODE", LOOPBACK, str(self.port)]
        subprocess.run([*command, *map(str, paths)], check=True, capture_output=True)


RULES = """
version: 1
peers:
  xray-1: {{ae_title: XR1, host: 127.0.0.1, port: {sender_port}, may: [store], issuer: CLINIC, investigational: true}}
  main-pacs: {{ae_title: PACS, host: 127.0.0.1, port: {pacs_port}, may: [query, retrieve], investigational: true}}
rules:
  - name: chest x-ray
    when: {{Modality: {{in: [CR, DX]}}}}
    complete: {{quiet: {quiet}s}}
    run: chest-xray
    results: [sr, seg, sc]
    send_to: [sender, main-pacs]
  - name: ecg
    when: {{Modality: ECG}}
    complete: {{quiet: {quiet}s}}
    run: ecg-arrhythmia
    results: [sr, sc]
    send_to: [sender, main-pacs]
unmatched: keep
"""


def write_rules(path: Path, *, sender_port: int, pacs_port: int, quiet: float = 1) -> Path:
    """The usual two rules with a sender and a PACS on this machine."""
    path.write_text(RULES.format(sender_port=sender_port, pacs_port=pacs_port, quiet=quiet))
    return path
