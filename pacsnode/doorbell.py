"""The doorbell: a datagram socket in the home. Who changed something rings, `work` wakes (else its sweep finds it)."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from pathlib import Path
from typing import Literal

Ring = Literal["", "received", "now"]
"""Nobody rang; images came in, and more are likely to follow; something is to be done at once."""

RECEIVED_EVERY_S = 0.05
"""A device sends hundreds of images a second: whoever hears of one waits longer than this for the next."""


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

    def wait(self, timeout_s: float) -> Ring:
        """Sleep until it rings, or the time is over. Rings that came meanwhile count as one, the most urgent."""
        if not select.select([self._socket], [], [], max(0.0, timeout_s))[0]:
            return ""
        ring: Ring = "received"
        try:
            while True:
                if self._socket.recv(16) != b"received":
                    ring = "now"
        except BlockingIOError:
            return ring

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
        self._received_s = 0.0

    def ring(self) -> None:
        """Wake whoever listens; when nobody can hear it, the next sweep finds what changed. Never raises."""
        self._send(b"now")

    def received(self) -> None:
        """Tell of an image that has come in, unless it was told of another a moment ago. Never raises."""
        now_s = time.monotonic()
        if now_s - self._received_s >= RECEIVED_EVERY_S:
            self._received_s = now_s
            self._send(b"received")

    def _send(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(word, _short(self._folder, self._name))

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()
        os.close(self._folder)


def _short(folder: int, name: str) -> str:
    """A path to the socket that fits the 107 bytes of an address, however long the home's own path is."""
    return f"/proc/self/fd/{folder}/{name}"
