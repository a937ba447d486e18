"""The doorbell: a datagram socket in the home. Who changed something rings, `work` wakes (else its sweep finds it)."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pacsnode.database import boot_us

Ring = Literal["", "received", "now"]
"""Nobody rang; images came in, and more are likely to follow; something is to be done at once."""
_RELEASED = b"released "
_LONGEST_WORD_BYTES = 512
MOST_PEERS = 4096

RECEIVED_EVERY_S = 0.05
"""A device sends hundreds of images a second: whoever hears of one waits longer than this for the next."""


class Doorbell:
    """The side that is woken."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._released_boot_us: dict[str, int] = {}
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
                word = self._socket.recv(_LONGEST_WORD_BYTES)
                if word.startswith(_RELEASED):
                    self._note_released(word.removeprefix(_RELEASED).decode(errors="replace"))
                elif word != b"received":
                    ring = "now"
        except BlockingIOError:
            return ring

    def _note_released(self, peer: str) -> None:
        if len(self._released_boot_us) >= MOST_PEERS:
            self._released_boot_us.clear()
        self._released_boot_us[peer] = boot_us()

    def released_boot_us(self, peers: Collection[str]) -> int | None:
        """When the last association of each of these peers ended, as far as it was heard; None where it was not."""
        heard = [self._released_boot_us.get(peer) for peer in peers]
        known = [at for at in heard if at is not None]
        return min(known) if known and len(known) == len(heard) else None

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

    def released(self, peer: str) -> None:
        """Tell that a peer has ended the last of its associations. Never raises."""
        self._send(_RELEASED + peer.encode())

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
