"""A receiver that costs as little as our own server can: takes every object, keeps none, counts.

A process: its port goes out on stdout; each line on stdin is answered with how many objects and bytes came since the
last one, as JSON. Ends with its stdin.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence

from pacsnode.handover import Stored, StoreRequest
from pacsnode.receive.admission import Admitted, Caller
from pacsnode.receive.server import ListenOptions, Server

LOOPBACK = "127.0.0.1"


class Sink:
    """Anybody may store; nothing is kept but the count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects = 0
        self._bytes = 0

    def admit(self, caller: Caller) -> Admitted:
        """Anybody."""
        return Admitted("anybody", "", frozenset({"store"}))

    def refused(self, caller: Caller, reason: str) -> None:
        """Nobody is."""

    def begin(self, request: StoreRequest) -> Taking:
        """Take one object."""
        return Taking(self)

    def count(self, size_bytes: int) -> None:
        """One object came whole."""
        with self._lock:
            self._objects += 1
            self._bytes += size_bytes

    def taken(self) -> dict[str, int]:
        """What came since the last call."""
        with self._lock:
            objects, size_bytes = self._objects, self._bytes
            self._objects = self._bytes = 0
        return {"objects": objects, "bytes": size_bytes}


class Taking:
    """One object on its way to nowhere."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._bytes = 0

    def write(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Forget them."""
        self._bytes += sum(map(len, pieces))

    def commit(self) -> Stored:
        """Count it."""
        self._sink.count(self._bytes)
        return Stored("stored")

    def abort(self) -> None:
        """A torn object does not count."""


def main() -> None:
    """Listen until stdin ends."""
    sink = Sink()
    with Server(ListenOptions(LOOPBACK, 0, 20), sink, sink, lambda request, stored: None) as server:
        print(server.port, flush=True)
        for _ in sys.stdin:
            print(json.dumps(sink.taken()), flush=True)


if __name__ == "__main__":
    main()
