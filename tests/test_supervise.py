"""`serve` with real processes: what dies starts again, what cannot start ends the node, a signal reaches all."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pacsnode import schema
from pacsnode.settings import load
from pacsnode.supervise import LONGEST_BACK_OFF_S, back_off_s, notify, watchdog_interval_s

PATIENCE_S = 60.0

RULES = """
version: 1
peers:
  ct-1: {ae_title: CT1, host: 127.0.0.1, may: [store]}
rules: []
unmatched: keep
"""

SUPERVISE = """
import sys
from pacsnode.supervise import Supervisor
from pacsnode.telemetry import configure
configure("serve", "info")
sys.exit(Supervisor(sys.argv[1:], essential="scp").run())
"""


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@dataclass
class Site:
    """A home with rules, and the processes that were started on it."""

    folder: Path
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        (self.folder / "rules.yaml").write_text(RULES)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PACSNODE_")} | {
            "PACSNODE_HOME": str(self.home),
            "PACSNODE_RULES": str(self.folder / "rules.yaml"),
            "PACSNODE_MODELS": str(self.folder / "models"),
            "PACSNODE_DICOM_HOST": "127.0.0.1",
            "PACSNODE_DICOM_PORT": str(self.port),
            "PACSNODE_MINIMUM_FREE_MB": "1",
        }
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen([sys.executable, *command], env=environment, stderr=log, start_new_session=True)
        self.processes.append(process)
        return process

    def supervise(self, *roles: str) -> subprocess.Popen[bytes]:
        return self.start("-c", SUPERVISE, *roles)

    def told(self) -> str:
        return (self.folder / "log").read_text()

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.told().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    def receives(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def role_pids(self, role: str) -> list[int]:
        return [line["pid"] for line in self.events("process started") if line["process"] == role]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    (tmp_path / "models").mkdir()
    schema.migrate(load(home=made.home))
    yield made
    for process in made.processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_killed_role_starts_again_and_sigterm_ends_all(site: Site) -> None:
    serve = site.supervise("scp")
    wait_until(site.receives)
    os.kill(site.role_pids("scp")[-1], signal.SIGKILL)
    wait_until(lambda: len(site.role_pids("scp")) == 2 and site.receives())
    pids = site.role_pids("scp")
    serve.send_signal(signal.SIGTERM)
    assert serve.wait(PATIENCE_S) == 0
    assert not any(map(is_alive, pids))
    assert not site.receives()


def test_a_port_that_is_taken_ends_the_node_with_a_sentence(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.port)):
        serve = site.supervise("scp")
        assert serve.wait(PATIENCE_S) == 2
    assert f"127.0.0.1:{site.port}: the DICOM port is taken by another program" in site.told()
    assert "Traceback" not in site.told()


def test_a_wrong_setting_of_the_receiver_ends_the_node(site: Site) -> None:
    (site.home / "index.db").unlink()
    for path in site.home.glob("index.db-*"):
        path.unlink()
    serve = site.supervise("scp")
    assert serve.wait(PATIENCE_S) == 3
    assert "run `pacsnode migrate`" in site.told()


def test_a_role_that_is_not_the_receiver_is_tried_again_and_again(site: Site) -> None:
    serve = site.supervise("scp", "no-such-role")
    wait_until(lambda: len(site.role_pids("no-such-role")) >= 3 and site.receives())
    assert serve.poll() is None
    serve.send_signal(signal.SIGINT)
    assert serve.wait(PATIENCE_S) == 0


def test_a_second_receiver_on_one_home_is_refused(site: Site) -> None:
    site.start("-m", "pacsnode", "scp")
    wait_until(site.receives)
    second = site.start("-m", "pacsnode", "scp")
    assert second.wait(PATIENCE_S) == 2
    assert f"another pacsnode scp runs on {site.home}" in site.told()
    assert site.receives()


def test_a_storm_of_signals_does_not_hang_the_supervisor(site: Site) -> None:
    """A handler that takes a lock which the interrupted code holds would."""
    serve = site.supervise("scp")
    wait_until(site.receives)
    for _ in range(100):
        serve.send_signal(signal.SIGCHLD)
        serve.send_signal(signal.SIGHUP)
    serve.send_signal(signal.SIGTERM)
    assert serve.wait(PATIENCE_S) == 0


def test_a_receiver_ends_on_sigterm_among_other_signals(site: Site) -> None:
    """The kernel may give a signal to another thread; the main thread must notice all the same."""
    for _ in range(3):
        scp = site.start("-m", "pacsnode", "scp")
        wait_until(site.receives)
        for _ in range(100):
            scp.send_signal(signal.SIGHUP)
        scp.send_signal(signal.SIGTERM)
        assert scp.wait(PATIENCE_S) == 0


def test_the_back_off_grows_to_its_limit_and_no_further() -> None:
    waits = [back_off_s(failures) for failures in (1, 2, 3, 10, 1030, 100_000)]
    assert waits == [0.2, 0.4, 0.8, LONGEST_BACK_OFF_S, LONGEST_BACK_OFF_S, LONGEST_BACK_OFF_S]


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1")
        assert systemd.recv(64) == b"READY=1"
    notify("WATCHDOG=1")  # systemd has gone: the node goes on
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("WATCHDOG=1")


@pytest.mark.parametrize(("given", "interval"), [("30000000", 15.0), ("", None), ("0", None), ("x", None)])
def test_the_watchdog_is_fed_twice_in_its_time(
    monkeypatch: pytest.MonkeyPatch, given: str, interval: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", given)
    assert watchdog_interval_s() == interval
