"""`pacsnode serve`: migrates, starts the roles of one machine as processes, restarts what dies, passes signals on.

Ends by itself only when receiving cannot start (configuration, port in use). Also the notes to systemd (sd_notify).
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pacsnode.telemetry import Log

log = Log(__name__)

LONGEST_BACK_OFF_S = 5.0
"""Modalities wait at the door: a role that fails often still gets its chance every few seconds."""
STABLE_AFTER_S = 60.0
STOP_GRACE_S = 30.0
CONFIGURATION_EXIT_CODES = (2, 3)


def notify(state: str) -> None:
    """Tell systemd, where it started us (sd_notify(3)): READY=1, WATCHDOG=1, STOPPING=1."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError as error:  # a node that runs is worth more than a note about it
            log.warning("systemd was not told", state=state, reason=error)


def watchdog_interval_s() -> float | None:
    """Half of systemd's WatchdogSec, None where there is no watchdog."""
    given = os.environ.get("WATCHDOG_USEC", "")
    return int(given) / 2e6 if given.isdigit() and int(given) > 0 else None


def back_off_s(failures: int) -> float:
    """How long to wait before a process starts again that failed so often, one time after another."""
    return min(LONGEST_BACK_OFF_S, 0.2 * 2.0 ** min(failures - 1, 20))  # 2.0 ** 1024 is an OverflowError


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _before_a_role() -> None:
    """In the new process: end when the supervisor is killed, and sleep through a reload until there is a handler."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@dataclass
class Role:
    """One supervised process."""

    name: str
    essential: bool
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    failures: int = 0
    restart_at_s: float = field(default=0.0)


class Supervisor:
    """Keeps the roles running until SIGTERM or SIGINT."""

    def __init__(self, roles: Sequence[str], essential: str) -> None:
        self._roles = [Role(name, name == essential) for name in roles]
        self._stopping = False
        self._reloading = False
        self._wakes, self._woken = socket.socketpair()

    def run(self) -> int:
        """Supervise; returns the exit code."""
        # Handlers only set flags and the interpreter writes a byte: an Event's own lock may be held where they run.
        for end in (self._wakes, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "_stopping", True))
        signal.signal(signal.SIGHUP, lambda *_: setattr(self, "_reloading", True))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        interval_s = watchdog_interval_s()
        notify("READY=1")
        try:
            while not self._stopping:
                if self._reloading:
                    self._reloading = False
                    self._signal(signal.SIGHUP)
                code = self._look_after()
                if code is not None:
                    return code
                notify("WATCHDOG=1")
                self._wait(self._sleep_s(interval_s))
        finally:
            notify("STOPPING=1")
            self._stop_all()
        return 0

    def _wait(self, timeout_s: float | None) -> None:
        """Sleep until a signal comes, one that came since the last sleep included."""
        if select.select([self._wakes], [], [], timeout_s)[0]:
            self._wakes.recv(4096)

    def _look_after(self) -> int | None:
        """Start what is due; an exit code when the node cannot go on."""
        now = time.monotonic()
        for role in self._roles:
            if role.process is not None and role.process.poll() is not None:
                code = role.process.returncode
                role.process = None
                if role.essential and code in CONFIGURATION_EXIT_CODES:
                    log.error("receiving cannot start; the node ends", process=role.name, exit_code=code)
                    return code
                role.failures = 1 if now - role.started_s > STABLE_AFTER_S else role.failures + 1
                delay_s = back_off_s(role.failures)
                role.restart_at_s = now + delay_s
                log.error("a process ended; it starts again", process=role.name, exit_code=code, in_s=delay_s)
            if role.process is None and now >= role.restart_at_s:
                role.process = subprocess.Popen(
                    [sys.executable, "-m", "pacsnode", role.name],
                    preexec_fn=_before_a_role,  # this process has one thread
                )
                role.started_s = now
                log.info("process started", process=role.name, pid=role.process.pid)
        return None

    def _sleep_s(self, watchdog_s: float | None) -> float | None:
        now = time.monotonic()
        waits = [r.restart_at_s - now for r in self._roles if r.process is None]
        if watchdog_s is not None:
            waits.append(watchdog_s)
        return max(0.0, min(waits)) if waits else None

    def _signal(self, number: signal.Signals) -> None:
        for role in self._roles:
            if role.process is not None and role.process.poll() is None:
                role.process.send_signal(number)

    def _stop_all(self) -> None:
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE_S
        for role in self._roles:
            if role.process is None:
                continue
            try:
                role.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("a process did not end in time and is killed; nothing is lost", process=role.name)
                role.process.kill()
                role.process.wait()
