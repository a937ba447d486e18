"""The doorbell: a datagram socket in the home. Who changed something rings, `work` wakes (else its sweep finds it)."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path


class Doorbell:
    """The side that is woken."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._socket.bind(_short(folder, path.name))
        finally:
            os.close(folder)

    def wait(self, timeout_s: float) -> bool:
        """Sleep until it rings; False when the time is over first. Rings that came meanwhile count as one."""
        if not select.select([self._socket], [], [], max(0.0, timeout_s))[0]:
            return False
        try:
            while True:
                self._socket.recv(16)
        except BlockingIOError:
            return True

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


class Bell:
    """The side that rings; may be used by many threads."""

    def __init__(self, path: Path) -> None:
        self._folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = path.name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def ring(self) -> None:
        """Wake whoever listens; when nobody can hear it, the next sweep finds what changed. Never raises."""
        with contextlib.suppress(OSError):
            self._socket.sendto(b"1", _short(self._folder, self._name))

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()
        os.close(self._folder)


def _short(folder: int, name: str) -> str:
    """A path to the socket that fits the 107 bytes of an address, however long the home's own path is."""
    return f"/proc/self/fd/{folder}/{name}"
