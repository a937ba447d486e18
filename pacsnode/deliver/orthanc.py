"""Delivery into an Orthanc by its REST interface, proof by the MD5 that Orthanc keeps of what it holds.

In: what is owed, archived files, a peer with the `url` of an Orthanc. Out: each row's own outcome. One object a request
on one kept connection: Orthanc answers for each by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.ready import Named, Route, ready, settle
from pacsnode.deliver.web import Refused, Web
from pacsnode.dimse.commands import DONE, Status
from pacsnode.dimse.tls import Credentials
from pacsnode.errors import ConfigError, Permanent, Transient
from pacsnode.peers import Peer

_PIECE_BYTES: Final = 1 << 20
_TAKEN: Final = ("Success", "AlreadyStored")


def deliver(outbox: Outbox, owed: Sequence[Owed], peer: Peer, route: Route) -> None:
    """Send `owed` to `peer`; every row ends sent, refused, parked, postponed or unsent."""
    waiting = ready(outbox, owed, peer, route)
    if not waiting:
        return
    try:
        with Web(peer, route.credentials) as web:
            while waiting and not route.stopping():
                route.pace(waiting[0].size_bytes)
                settle(outbox, waiting[0].owed, _stored(web, waiting[0].path))
                waiting.pop(0)
    except (Transient, Permanent, ConfigError) as error:  # of the destination as a whole
        outbox.unsent([one.owed for one in waiting], str(error))


def confirm(sent: Sequence[Named], peer: Peer, route: Route) -> Mapping[str, str]:
    """By SOP Instance UID, "" where Orthanc holds our very bytes, else what is wrong.

    Raises Transient, Permanent, ConfigError where it cannot be asked.
    """
    with Web(peer, route.credentials) as web:
        return {one.sop_instance_uid: _difference(web, one.sop_instance_uid, route) for one in sent}


def look(peer: Peer, credentials: Credentials) -> str:
    """What the server answers to a harmless question. Raises Transient, Permanent, ConfigError."""
    with Web(peer, credentials) as web:
        said = web.get("/system").json()
    version = said.get("Version") if isinstance(said, dict) else None
    if not isinstance(version, str):
        raise Permanent("what answers at its url is no Orthanc")
    return f"is Orthanc {version[:20]}"


def _difference(web: Web, sop_instance_uid: str, route: Route) -> str:
    answer = web.post("/tools/lookup", sop_instance_uid.encode(), {"Accept": "application/json"})
    found = answer.json()
    names = [item.get("ID") for item in found if _is_instance(item)] if isinstance(found, list) else []
    if not names:
        return "Orthanc does not hold it"
    try:
        path = route.locate(sop_instance_uid)
    except Permanent as error:
        return str(error)
    with path.open("rb") as file:
        ours = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    for name in names:
        if web.get(f"/instances/{name}/attachments/dicom/md5", accept="text/plain").body.decode("latin-1") == ours:
            return ""
    return "Orthanc holds other bytes under this UID"


def _is_instance(item: Any) -> bool:
    name = item.get("ID") if isinstance(item, dict) and item.get("Type") == "Instance" else None
    return isinstance(name, str) and name.isascii() and name.replace("-", "").isalnum()


def _stored(web: Web, path: Path) -> Status | str:
    headers = {
        "Content-Type": "application/dicom",
        "Content-Length": str(path.stat().st_size),
        "Accept": "application/json",
    }
    try:
        answer = web.post("/instances", _pieces(path), headers)
    except Refused as refused:
        return f"Orthanc refused it: {refused.answer}"
    said = answer.json()
    status = said.get("Status") if isinstance(said, dict) else None
    return DONE if status in _TAKEN else f"Orthanc did not take it: {str(status)[:40]}"


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
