"""For tests of delivery: an outbox with senders on a clock of its own, and the small objects that it sends.

Run as a program (`folder`, `port`) it sends what is owed to the peer `pacs` at that port until it is killed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pacsnode import schema
from pacsnode.archive.confirmations import Asked, Confirmations
from pacsnode.database import connect, transaction, utc_us
from pacsnode.deliver.debts import Debt, owe
from pacsnode.deliver.destinations import Destinations
from pacsnode.deliver.orders import Orders
from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.proving import Proving, Subject
from pacsnode.deliver.ready import Route
from pacsnode.deliver.senders import Senders
from pacsnode.dimse.part10 import read_meta
from pacsnode.errors import Permanent
from pacsnode.peers import Peer
from pacsnode.settings import Settings, load

SC = "1.2.840.10008.5.1.4.1.1.7"
STUDY = "1.2.3"
PATIENCE_S = 30.0
DAY_S = 86_400


def wait_until(what: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


class Clock:
    """The wall's clock, some time ahead."""

    def __init__(self) -> None:
        self._ahead_us = 0

    def __call__(self) -> int:
        return utc_us() + self._ahead_us

    def advance(self, seconds: float) -> None:
        self._ahead_us += int(seconds * 1e6)


def write_object(path: Path, uid: str, *, study: str = STUDY, size: int = 64) -> None:
    """A small secondary capture in Explicit VR Little Endian."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = SC, uid
    made.StudyInstanceUID, made.SeriesInstanceUID = study, study + ".1"
    made.Modality, made.PatientID, made.PatientName = "OT", "4711", "Hong^Gildong"
    made.add_new("PixelData", "OW", bytes(size))
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = SC, uid
    made.save_as(path, enforce_file_format=True)


@dataclass
class Node:
    """Senders over a real outbox; `ahead` of the clock may be moved while they run."""

    settings: Settings
    outbox: Outbox
    clock: Clock
    confirmations: Confirmations
    zone: tzinfo = UTC
    peers: dict[str, Peer] = field(default_factory=dict)
    studies: dict[str, str] = field(default_factory=dict)
    senders: Senders | None = None

    def route(self) -> Route:
        return Route("PACSNODE", self.path, lambda owed, peer: "", lambda: False)

    def start(self, *, proves: bool = True) -> None:
        """As `work` does it."""
        route = self.route()
        proving = Proving(route, self.confirmations, self.describe, answer_within_s=0.5) if proves else None
        self.senders = Senders(self.outbox, route, self.peers.get, proving, self.zone)
        self.senders.wake()

    def stop(self) -> None:
        if self.senders is not None:
            self.senders.stop(20)
            self.senders = None

    def wake(self) -> None:
        assert self.senders is not None
        self.senders.wake()

    def pass_time(self, seconds: float) -> None:
        """Let the clock run ahead, and look."""
        self.clock.advance(seconds)
        self.wake()

    def path(self, uid: str) -> Path:
        if uid not in self.studies:
            raise Permanent(f"instance {uid} is not in the archive")
        return self.settings.home / f"{uid}.dcm"

    def describe(self, uids: object) -> dict[str, Subject]:
        assert isinstance(uids, list)
        found = {}
        for uid in uids:
            with self.path(uid).open("rb") as file:
                meta = read_meta(file)
            asked = Asked(meta.sop_class_uid, uid, f"hash of {uid}")
            found[uid] = Subject(asked, self.studies[uid], self.studies[uid] + ".1")
        return found

    def peer(self, name: str, port: int | None, **values: object) -> None:
        given = {"name": name, "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port, **values}
        self.peers[name] = Peer.model_validate(given)

    def owe(
        self, destination: str, *uids: str, study: str = STUDY, priority: int = 10, case: str = "case", rule: str = "r"
    ) -> None:
        """Make objects and owe them."""
        for uid in uids:
            self.studies[uid] = study
            if not self.path(uid).exists():
                write_object(self.path(uid), uid, study=study)
        with closing(connect(self.settings.node_db, "FULL")) as connection, transaction(connection):
            owe(connection, case, study, priority, [Debt(destination, uids, rules=(rule,))])
        if self.senders is not None:
            self.senders.wake()

    @property
    def orders(self) -> Orders:
        return Orders(self.outbox, "operator")

    @property
    def destinations(self) -> Destinations:
        return Destinations(self.outbox)

    def rows(self, destination: str) -> list[Owed]:
        """Oldest first."""
        return [one for one in reversed(self.outbox.listing(limit=100_000)) if one.destination == destination]

    def row(self, destination: str) -> Owed:
        (row,) = self.rows(destination)
        return row

    def states(self, destination: str) -> list[str]:
        return [one.state for one in self.rows(destination)]

    def all_are(self, destination: str, *states: str) -> list[Owed]:
        """Once every row is in one of these states."""
        wait_until(lambda: set(self.states(destination)) <= set(states))
        return self.rows(destination)

    def fails(self, destination: str) -> str:
        """The reason, once the destination was found not to answer, and will be left alone for a while."""

        def is_left_alone() -> bool:
            trouble = self.destinations.trouble(destination)
            return trouble is not None and trouble.retry_utc_us > self.clock()

        wait_until(is_left_alone)
        trouble = self.destinations.trouble(destination)
        assert trouble is not None
        return trouble.reason

    def skips_to_next_try(self, destination: str) -> None:
        """Let time pass until a destination that fails is tried again."""
        trouble = self.destinations.trouble(destination)
        assert trouble is not None
        self.pass_time(max(0.0, (trouble.retry_utc_us - self.clock()) / 1e6) + 0.001)


@contextmanager
def made_node(folder: Path, give_up_s: float = 14 * DAY_S) -> Iterator[Node]:
    """A migrated home with an outbox; its senders are not started yet."""
    settings = load(home=folder / "home")
    schema.migrate(settings)
    clock = Clock()
    with ExitStack() as stack:
        outbox = stack.enter_context(closing(Outbox(settings.node_db, give_up_s, clock)))
        node = Node(settings, outbox, clock, stack.enter_context(closing(Confirmations(settings.index_db))))
        try:
            yield node
        finally:
            node.stop()


def main() -> None:
    with made_node(Path(sys.argv[1])) as node:
        node.studies = {path.stem: path.stem.rsplit(".", 1)[0] for path in node.settings.home.glob("*.dcm")}
        node.peer("pacs", int(sys.argv[2]), sends={"at_once": 2})
        node.start()
        threading.Event().wait()


if __name__ == "__main__":
    main()
