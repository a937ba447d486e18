"""What the tests of hostile peers share: a whole node with another modality at work, and who attacks it how.

In: a folder. Out: a running `World`, which tells what the node holds and what DCMTK was answered.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import LOOPBACK, Node
from steady import SteadyModality, as_dcmtk_writes_them

from pacsnode.archive.index import Index
from tests.receive.doubles import CT, EXPLICIT, RawClient, dcmtk, run_tool

RULES = """
version: 1
peers:
  other: {ae_title: OTHER, host: 127.0.0.1, may: [store], issuer: CLINIC}
  modality: {ae_title: MODALITY, host: 127.0.0.1, may: [store], issuer: CLINIC}
  crowd: {ae_title: CROWD, host: 127.0.0.1, may: [store], issuer: CLINIC, associations: 1}
  viewer: {ae_title: VIEWER, host: 127.0.0.1, may: [query]}
rules: []
unmatched: keep
"""
IDLE_S = 4
SENT = "1.2.826.0.7"
"""Below it are the SOP Instance UIDs of what the attackers send."""


@dataclass
class World:
    """A running node, the modality that sends to it, and where files may be made."""

    node: Node
    steady: SteadyModality
    folder: Path

    def client(self, **titles: str) -> RawClient:
        """An association as MODALITY, for bytes that no proper client sends."""
        return RawClient(self.node.port).associate(((CT, (EXPLICIT,)),), **titles)

    def rows(self, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        """What the index says."""
        with closing(sqlite3.connect(self.node.home / "index.db")) as index:
            return index.execute(sql, parameters).fetchall()

    def held(self, uid: str) -> Path | None:
        """The file of an instance."""
        with closing(Index(self.node.home / "index.db")) as index:
            found = index.instance(uid)
        return None if found is None else self.node.home / "files" / found.path

    def storescu(self, path: Path, *options: str, calling: str = "MODALITY", called: str = "PACSNODE") -> str:
        """What DCMTK's storescu tells, word by word."""
        titles = ("-aet", calling, "-aec", called, LOOPBACK, str(self.node.port))
        answer = run_tool(dcmtk("storescu"), "-d", "-R", *options, *titles, str(path))
        return answer.stdout + answer.stderr

    def status(self, path: Path, *options: str, calling: str = "MODALITY") -> int:
        """The status that storescu was answered."""
        told = self.storescu(path, *options, calling=calling)
        found = re.findall(r"DIMSE Status +: 0x([0-9a-f]{4})", told)
        assert len(found) == 1, told
        return int(found[0], 16)


@contextmanager
def attacked(folder: Path) -> Iterator[World]:
    """`pacsnode serve` with another modality that sends to it until the end."""
    rules = folder / "rules.yaml"
    rules.write_text(RULES)
    sources = as_dcmtk_writes_them(folder)
    sending = folder / "sending"
    sending.mkdir()
    with Node(folder / "home", rules, extra={"PACSNODE_ASSOCIATION_IDLE_S": str(IDLE_S)}) as node:
        steady = SteadyModality(node, sending, sources)
        steady.start()
        try:
            yield World(node, steady, folder)
        finally:
            steady.stopping.set()
            steady.join()


class Slow(threading.Thread):
    """A peer that sends a byte a second, or nothing, until the node has had enough."""

    def __init__(self, client: RawClient, data: bytes) -> None:
        super().__init__(name="slow", daemon=True)
        self._client = client
        self._data = data
        self.begun = time.monotonic()
        self.last_word = b""
        self.lasted_s = 0.0

    def run(self) -> None:
        self._client.socket.settimeout(1)
        for at in range(120):
            with contextlib.suppress(TimeoutError):
                self.last_word = self._client.socket.recv(100)
                self.lasted_s = time.monotonic() - self.begun
                self._client.socket.close()
                return
            with contextlib.suppress(OSError):  # ended meanwhile: the next read says so
                self._client.send(self._data[at : at + 1])
