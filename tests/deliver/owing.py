"""For tests of destinations: an outbox, archived files, a peer of any type, and what became of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom

from pacsnode import schema
from pacsnode.database import connect, transaction
from pacsnode.deliver.debts import Debt, owe
from pacsnode.deliver.learned import Learned
from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.ready import Route
from pacsnode.deliver.ways import WAYS
from pacsnode.dimse.part10 import read_meta
from pacsnode.dimse.tls import NO_CREDENTIALS, Credentials
from pacsnode.errors import Permanent
from pacsnode.infer.converting import convert
from pacsnode.peers import Peer
from pacsnode.settings import Settings, load

STUDY = "1.2.826.0.1.3680043.8.498.5"


@dataclass(frozen=True)
class Named:
    """As a destination is asked for an instance."""

    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str = "1.2.826.0.1.3680043.8.498.6"


@dataclass
class Site:
    """One destination `there`, and what is owed to it."""

    settings: Settings
    outbox: Outbox
    learned: Learned
    peer: Peer
    files: dict[str, Path] = field(default_factory=dict)
    studies: dict[str, str] = field(default_factory=dict)
    credentials: Credentials = NO_CREDENTIALS
    stopping: bool = False

    @property
    def route(self) -> Route:
        """As the node has it; what the compute process does is done here."""
        return Route(
            "PACSNODE",
            self._locate,
            lambda owed, peer: "",
            lambda: self.stopping,
            self.credentials,
            convert,
            self.learned.learn,
        )

    def _locate(self, uid: str) -> Path:
        if uid not in self.files:
            raise Permanent(f"instance {uid} is not in the archive")
        return self.files[uid]

    def owe(self, *paths: Path) -> list[str]:
        """Owe these files; their SOP Instance UIDs."""
        uids = []
        for path in paths:
            with path.open("rb") as file:
                uids.append(read_meta(file).sop_instance_uid)
            self.files[uids[-1]] = path
            self.studies[uids[-1]] = STUDY
        connection = connect(self.settings.node_db, "FULL")
        with transaction(connection):
            for uid in uids:
                owe(connection, "", self.studies[uid], 10, [Debt("there", (uid,))])
        connection.close()
        return uids

    def deliver(self) -> list[Owed]:
        """One try; the rows afterwards, in the order in which they were owed."""
        owed = self.outbox.claim("there")
        WAYS[self.peer.type].deliver(self.outbox, owed, self.peer, self.route)
        self.outbox.conclude(owed)
        return self.rows()

    def rows(self) -> list[Owed]:
        """In the order in which they were owed."""
        return self.outbox.listing()[::-1]

    def proof(self) -> dict[str, str]:
        """What the destination says of all that was ever owed, "" where it holds it."""
        sent = [Named(row.sop_instance_uid, row.study_instance_uid) for row in self.rows()]
        return dict(WAYS[self.peer.type].confirm(sent, self.peer, self.route))


@contextmanager
def site(root: Path, **peer: Any) -> Iterator[Site]:
    """A site with the peer `there`."""
    settings = load(home=root / "home")
    schema.migrate(settings)
    outbox, learned = Outbox(settings.node_db, 86_400), Learned(settings.node_db)
    try:
        yield Site(settings, outbox, learned, Peer.model_validate({"name": "there", **peer}))
    finally:
        outbox.close()
        learned.close()


def image(path: Path, number: int = 1, *, rows: int = 32, **values: object) -> Path:
    """A small CT image, Explicit VR Little Endian, each number another instance of one study."""
    made = pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = pydicom.uid.CTImageStorage, f"1.2.826.0.1.3680043.8.498.7.{number}"
    made.StudyInstanceUID, made.SeriesInstanceUID = STUDY, "1.2.826.0.1.3680043.8.498.6"
    made.SpecificCharacterSet, made.PatientName, made.PatientID = "ISO_IR 192", "Hong^Gildong=洪^吉洞=홍^길동", "4711"
    made.Modality, made.StudyDate, made.InstanceNumber = "CT", "20260102", number
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.Rows, made.Columns, made.BitsAllocated, made.BitsStored, made.HighBit = rows, 32, 16, 12, 11
    made.PixelData = bytes((i * 7 + number) % 16 if i % 2 else i % 251 for i in range(rows * 64))
    for keyword, value in values.items():
        setattr(made, keyword, value)
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path
