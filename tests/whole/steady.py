"""Another modality: DCMTK's storescu in a loop with real images, each until it is taken, whatever happens to the node.

In: a running node, real files. Out: what was acknowledged, to be compared with the archive byte for byte.
"""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from harness import LOOPBACK, STORESCU, Node, Pacs, wait_until
from pydicom.data import get_testdata_file
from sending import data_set_bytes

from pacsnode.archive.index import Index

REAL = ("CT_small.dcm", "MR_small.dcm", "waveform_ecg.dcm")
NUMBER_DIGITS = 5
PAUSE_S = 0.1
"""Between two associations: it is the attack that is to keep the node busy."""


@dataclass(frozen=True)
class Source:
    """A real object as DCMTK writes it, to be numbered: its bytes, and the UID whose last digits are its number."""

    content: bytes
    uid: str

    def numbered(self, number: int) -> tuple[str, bytes]:
        """The SOP Instance UID and the file of one more object."""
        uid = f"{self.uid[:-NUMBER_DIGITS]}{10 ** (NUMBER_DIGITS - 1) + number}"
        return uid, self.content.replace(self.uid.encode(), uid.encode())


def as_dcmtk_writes_them(folder: Path, names: Sequence[str] = REAL) -> list[Source]:
    """Each through storescu to a storescp that keeps the bytes: what storescu sends of these is what lies in them."""
    with Pacs(folder / "sources", options=("+xa",)) as kept:
        for name in names:
            real = str(get_testdata_file(name, download=False))
            subprocess.run([STORESCU, "-R", LOOPBACK, str(kept.port), real], check=True, capture_output=True)
    found = []
    for path in sorted((folder / "sources").iterdir()):
        uid = str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        found.append(Source(path.read_bytes(), uid))
    assert len(found) == len(names)
    return found


@dataclass
class SteadyModality(threading.Thread):
    """Sends small series of new objects until `stopping` is set."""

    node: Node
    folder: Path
    sources: list[Source]
    ae_title: str = "OTHER"
    stopping: threading.Event = field(default_factory=threading.Event)
    acknowledged: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(name="steady modality")
        self._rounds = 0
        self._compared: set[str] = set()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        number = 0
        while not self.stopping.wait(PAUSE_S):
            paths: list[Path] = []
            hashes: dict[str, str] = {}
            for source in self.sources:
                uid, content = source.numbered(number)
                path = self.folder / f"{len(paths)}.dcm"
                path.write_bytes(content)
                paths.append(path)
                hashes[uid] = hashlib.sha256(data_set_bytes(path)).hexdigest()
            number += 1
            while not self._taken(paths) and not self.stopping.wait(PAUSE_S):
                pass
            if not self.stopping.is_set():
                self.acknowledged |= hashes
                self._rounds += 1

    def _taken(self, paths: list[Path]) -> bool:
        command = [STORESCU, "-v", "-R", "-aet", self.ae_title, "-aec", "PACSNODE", LOOPBACK, str(self.node.port)]
        answer = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
        if answer.returncode:
            self.refused.append(answer.stdout + answer.stderr)
        return answer.returncode == 0

    def another_round(self) -> None:
        """Wait until a series that begins from now on was taken."""
        done = self._rounds
        wait_until(lambda: self._rounds >= done + 2 or not self.is_alive(), 30)
        assert self.is_alive()

    def compare(self) -> None:
        """Every object acknowledged since the last time lies in the archive, byte for byte. Fails otherwise."""
        acknowledged = dict(self.acknowledged)
        with closing(Index(self.node.home / "index.db")) as index:
            for uid in acknowledged.keys() - self._compared:
                held = index.instance(uid)
                assert held is not None, f"{uid} was acknowledged and is lost"
                kept = data_set_bytes(self.node.home / "files" / held.path)
                assert hashlib.sha256(kept).hexdigest() == acknowledged[uid], f"{uid} is not what was sent"
        self._compared |= acknowledged.keys()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """While something bad happens inside: the same scp process, none of its objects refused, all of them stored."""
        scp, refused = self.node.pids()["scp"], len(self.refused)
        yield
        self.another_round()
        assert self.node.pids()["scp"] == scp
        assert self.refused[refused:] == []
        self.compare()


def torn(node: Node) -> set[str]:
    """Files of the archive that no row points to: named ones, and those that scp still holds open without a name."""
    files = node.home / "files"
    named = {str(path.relative_to(files)) for path in files.rglob("*") if path.is_file()}
    with closing(sqlite3.connect(node.home / "index.db")) as index:
        known = {str(path) for (path,) in index.execute("SELECT path FROM instances UNION SELECT path FROM aside")}
    return (named - known) | set(_without_a_name(node.pids()["scp"], files))


def _without_a_name(pid: int, files: Path) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith(str(files)) and target.endswith(" (deleted)"):
            yield target
