"""The forwarding part of `pacsnode work` as a process: archive, outbox, sender thread, as the node has them.

A process: home and port as arguments, `ready` goes out; each line on stdin makes every archived image owed to the sink
anew, and is answered with the seconds until the last row was `sent` (durable, with its audit row), as JSON.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path

from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.database import connect, transaction
from pacsnode.deliver.debts import Debt, owe
from pacsnode.deliver.outbox import Outbox
from pacsnode.deliver.ready import Route
from pacsnode.deliver.senders import Senders
from pacsnode.errors import Permanent
from pacsnode.owing import Owing, Site
from pacsnode.peers import Peer
from pacsnode.settings import Settings, load

SINK = "sink"


def main() -> None:
    """Forward when told to, until stdin ends."""
    settings = load(home=Path(sys.argv[1]))
    node_db = connect(settings.node_db, "FULL")
    index = Index(settings.index_db)  # one sender thread: it alone reads

    def locate(uid: str) -> Path:
        path = index.path(uid)
        if path is None:
            raise Permanent("not in the archive")
        return settings.files / path

    def site() -> Site:
        raise AssertionError("images that are forwarded need no service")

    peer = Peer(name=SINK, ae_title="SINK", host="127.0.0.1", port=int(sys.argv[2]))
    outbox = Outbox(settings.node_db, 86_400)
    forbidden = Owing(Cases(settings.node_db), lambda: index, site).forbidden
    route = Route(settings.ae_title, locate, forbidden, lambda: False)
    senders = Senders(outbox, route, lambda name: peer)
    images = _images(settings)
    print("ready", flush=True)
    for _ in sys.stdin:
        started_s = time.monotonic()
        with transaction(node_db):
            node_db.execute("DELETE FROM outbox")
            for study, uids in images.items():
                owe(node_db, "", study, 10, [Debt(SINK, tuple(uids))])
        senders.wake()
        while _count(node_db, "owed") + _count(node_db, "sending"):
            time.sleep(0.005)
        seconds = time.monotonic() - started_s
        print(json.dumps({"seconds": seconds, "sent": _count(node_db, "sent")}), flush=True)
    senders.stop(10)


def _images(settings: Settings) -> dict[str, list[str]]:
    """SOP Instance UIDs by study, as the archive has them."""
    images: dict[str, list[str]] = {}
    with sqlite3.connect(settings.index_db) as index_db:
        for uid, study in index_db.execute(
            "SELECT sop_instance_uid, study_instance_uid FROM instances ORDER BY received_utc_us"
        ):
            images.setdefault(study, []).append(uid)
    return images


def _count(node_db: sqlite3.Connection, state: str) -> int:
    return int(node_db.execute("SELECT count(*) FROM outbox WHERE state = ?", (state,)).fetchone()[0])


if __name__ == "__main__":
    main()
