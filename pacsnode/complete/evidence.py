"""What was announced of a study: procedure steps (MPPS), availability (IAN), storage commitment requests.

In: the rows of `index.db` that receive wrote. Out: for a case, whether an announcement lists all of its images, how
many that are listed have not come, and when its sender asked for commitment. Reads only.

An MPPS that is COMPLETED lists what was created (PS3.4 F.7.2.2), an Instance Availability Notification what is there
(PS3.4 R.3.2). A commitment request lists what its sender wants kept and says nothing about the rest (PS3.4
J.3.2.1.1.2): a hint that sending has ended, no more.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pacsnode.database import connect

WORDS = {"mpps": "the modality's completed procedure step", "ian": "an instance availability notification"}


@dataclass(frozen=True)
class Announcement:
    """One procedure step or notice, as it stands after its last message."""

    kind: str
    sop_instance_uid: str
    state: str
    listed: frozenset[str]

    @property
    def is_final(self) -> bool:
        """Whether it lists all that there will be of it."""
        return self.kind == "ian" or self.state == "COMPLETED"


@dataclass(frozen=True)
class Verdict:
    """What announcements say of one case."""

    announced: str
    awaited: int


def verdict(announcements: Sequence[Announcement], case: Collection[str], held: Collection[str]) -> Verdict:
    """`case`: SOP Instance UIDs of the case; `held`: those of everything that came of the study. Pure."""
    about = [one for one in announcements if one.is_final and not one.listed.isdisjoint(case)]
    awaited = len(frozenset().union(*(one.listed for one in about)).difference(held)) if about else 0
    for one in about:
        if not awaited and one.listed.issuperset(case):
            return Verdict(f"{WORDS[one.kind]} lists {len(one.listed)} images, and all of them are here", 0)
    return Verdict("", awaited)


class Announcements:
    """Reads them; one object for one thread."""

    def __init__(self, index_db: Path) -> None:
        self._connection = connect(index_db, "NORMAL", automatic_checkpoint=False)
        self._connection.execute("PRAGMA query_only=1")

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def of_study(self, study_instance_uid: str) -> list[Announcement]:
        """Everything that was announced of a study."""
        rows = self._connection.execute(
            "SELECT e.kind, e.sop_instance_uid, e.state, e.referenced FROM evidence_studies s JOIN evidence e "
            "ON e.id = s.evidence WHERE s.study_instance_uid = ? ORDER BY e.id",
            (study_instance_uid,),
        ).fetchall()
        merged: dict[str, Announcement] = {}
        for kind, uid, state, referenced in rows:
            before = merged.get(uid)
            listed = frozenset(json.loads(referenced)) | (before.listed if before else frozenset())
            merged[uid] = Announcement(kind, uid, state or (before.state if before else ""), listed)
        return list(merged.values())

    def asked_to_commit_utc_us(self, peers: Collection[str], case: Collection[str], since_utc_us: int) -> int | None:
        """When one of the peers last asked for a commitment of images of the case, after `since_utc_us`."""
        rows = self._connection.execute(
            "SELECT received_utc_us, instances, peer FROM commitments WHERE received_utc_us >= ? ORDER BY id DESC",
            (since_utc_us,),
        )
        for received_utc_us, instances, peer in rows:
            if peer in peers and any(uid in case for _, uid in json.loads(instances)):
                return int(received_utc_us)
        return None
