"""For tests of retention: a home with old studies, an archive that confirms them, and a removal that is killed.

Run as a program (`home`, `study`, `count`) it removes a study and is killed at the unlinking of the `count`-th file.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from pacsnode.archive.cases import Cases
from pacsnode.archive.confirmations import Asked, Confirmations
from pacsnode.archive.retention import Keep, Retention, Standing
from pacsnode.dimse import commands
from pacsnode.dimse.commitment import COMMITMENT, COMMITMENT_INSTANCE
from pacsnode.handover import Decision
from pacsnode.receive.commitment import EXPLICIT_VR, Reference, Result, encode
from pacsnode.settings import Settings, load
from tests.archive import homes

PACS = "main-pacs"
AT_ONCE = Keep(1e-12, PACS)


def told(transaction_uid: str, results: Sequence[Result]) -> tuple[commands.CommandSet, bytes, str]:
    """An N-EVENT-REPORT as it comes off the wire."""
    event_type, data_set = encode(transaction_uid, results, EXPLICIT_VR)
    command = commands.parse(commands.event_report_request(1, COMMITMENT, COMMITMENT_INSTANCE, event_type))
    return command, data_set, EXPLICIT_VR


@dataclass
class Home:
    """A migrated home; `keep` is what retention looks with."""

    settings: Settings
    keep: Keep | None = AT_ONCE
    data: dict[str, bytes] = field(default_factory=dict)

    def hold(self, study: str, count: int = 2) -> list[str]:
        """Store a study of `count` images, hashed and decided; their SOP Instance UIDs."""
        uids = [f"{study}.1.{number}" for number in range(count)]
        into = homes.archive(self.settings)
        try:
            for uid in uids:
                self.data[uid] = homes.data_set(uid, study=study)
                assert homes.store(into, self.data[uid], homes.request(uid)).verdict == "stored"
        finally:
            into.close()
        self.hashed(*uids)
        self.decided(study)
        return uids

    def hashed(self, *uids: str) -> None:
        """What the work process does in the background."""
        for uid in uids:
            sha256 = hashlib.sha256(self.data[uid]).hexdigest()
            self.rows("UPDATE instances SET dataset_sha256 = ? WHERE sop_instance_uid = ?", sha256, uid)

    def decided(self, study: str) -> None:
        """The rules were asked about the study as it is now."""
        ((revision,),) = self.rows("SELECT revision FROM studies WHERE study_instance_uid = ?", study)
        with closing(Cases(self.settings.node_db)) as cases:
            cases.record_decision(Decision(study, int(str(revision)), "rules", (), ()), [])

    def asked(self, *uids: str) -> list[Asked]:
        """The instances as a question names them."""
        return [
            Asked(*map(str, row))
            for uid in uids
            for row in self.rows(
                "SELECT sop_class_uid, sop_instance_uid, dataset_sha256 FROM instances WHERE sop_instance_uid = ?", uid
            )
        ]

    def answered(self, uids: Sequence[str], failure: int = 0, by: str = PACS) -> None:
        """The archive was asked about `uids`, and told that it has them."""
        asked = self.asked(*uids)
        with closing(Confirmations(self.settings.index_db)) as confirmations:
            transaction_uid = confirmations.ask(by, asked)
            results = [Result(Reference(*one.reference), failure) for one in asked]
            confirmations.take(by, *told(transaction_uid, results))

    def standings(self) -> dict[str, str]:
        """Obstacle by study."""
        with closing(self.retention()) as retention:
            return {one.study_instance_uid: one.obstacle for one in retention.standings()}

    def standing(self, study: str) -> Standing:
        """One study."""
        with closing(self.retention()) as retention:
            return next(one for one in retention.standings() if one.study_instance_uid == study)

    def remove(self, study: str) -> int:
        """How many instances went."""
        with closing(self.retention()) as retention:
            return retention.remove(study)

    def retention(self) -> Retention:
        """To be closed."""
        return Retention(self.settings.files, self.settings.index_db, self.settings.node_db, self.keep)

    def rows(self, sql: str, *parameters: object) -> list[tuple[object, ...]]:
        """The index, read or changed."""
        return homes.rows(self.settings, sql, *parameters)

    def node(self, sql: str, *parameters: object) -> None:
        """A change of node.db."""
        with closing(sqlite3.connect(self.settings.node_db, isolation_level=None)) as connection:
            connection.execute(sql, parameters)

    def held(self) -> set[str]:
        """SOP Instance UIDs with a row."""
        return {str(uid) for (uid,) in self.rows("SELECT sop_instance_uid FROM instances")}

    def listed(self) -> set[str]:
        """Paths that are still to be unlinked."""
        return {str(path) for (path,) in self.rows("SELECT path FROM unlinking")}

    def files(self) -> set[str]:
        """What lies below files/."""
        return {str(path.relative_to(self.settings.files)) for path in homes.on_disk(self.settings)}

    def tombstones(self) -> dict[str, str]:
        """SHA-256 by SOP Instance UID."""
        return {str(u): str(h) for u, h in self.rows("SELECT sop_instance_uid, dataset_sha256 FROM tombstones")}


def kill_at_unlinking(count: int) -> None:
    """From now on this process is killed when it is about to unlink its `count`-th file."""
    left = [count]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.remove" and str(arguments[0]).endswith(".dcm"):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def main() -> None:
    home = Home(load(home=Path(sys.argv[1])))
    kill_at_unlinking(int(sys.argv[3]))
    home.remove(sys.argv[2])


if __name__ == "__main__":
    main()
