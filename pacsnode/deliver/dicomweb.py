"""Delivery by STOW-RS (PS3.18 10.5), proof by QIDO-RS (10.6): archived files as they are, streamed from the disk.

In: what is owed, archived files, a peer with a `url`. Out: each row's own outcome, as the peer tells it instance by
instance. Where it does not take an object's transfer syntax, the object goes once more, decompressed.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.ready import Named, Ready, Route, ready, settle
from pacsnode.deliver.web import Answer, Refused, Web
from pacsnode.dicom.uids import is_safe
from pacsnode.dimse.association import EXPLICIT_VR_LITTLE_ENDIAN
from pacsnode.dimse.commands import DONE, Status
from pacsnode.dimse.tls import Credentials
from pacsnode.errors import ConfigError, Permanent, Transient
from pacsnode.peers import Peer

JSON: Final = "application/dicom+json"
MOST_IN_ONE: Final = 50
MOST_BYTES_IN_ONE: Final = 64 << 20
"""In one request, unless a single object is larger: what is cut off is sent again as a whole."""
ASKED_AT_ONCE: Final = 20
_PIECE_BYTES: Final = 1 << 20

_REFERENCED: Final = "00081199"
_FAILED: Final = "00081198"
_INSTANCE_UID: Final = "00081155"
_SOP_INSTANCE_UID: Final = "00080018"
_FAILURE_REASON: Final = "00081197"
_WARNING_REASON: Final = "00081196"
"""Of the Store Instances Response Module (PS3.18 I.2) as JSON (F.2)."""
_SYNTAX_NOT_SUPPORTED: Final = 0xC122
"""PS3.18 table I.2-2."""
_UNSAID: Final = Status(0x0110, "it gives no reason")
_TOO_LARGE: Final = 413

Outcome = Status | str | None
"""A status, why it could not be offered, or None where the peer says nothing of the instance."""


def deliver(outbox: Outbox, owed: Sequence[Owed], peer: Peer, route: Route) -> None:
    """Send `owed` to `peer`; every row ends sent, refused, parked, postponed or unsent."""
    waiting = ready(outbox, owed, peer, route)
    if not waiting:
        return
    try:
        with Web(peer, route.credentials) as web:
            while waiting and not route.stopping():
                for one, outcome in _stored(web, _first(waiting), route):
                    if outcome is None:
                        outbox.postpone([one.owed], "the peer does not say whether it took the instance")
                    else:
                        settle(outbox, one.owed, outcome)
                    waiting.remove(one)
    except (Transient, Permanent, ConfigError) as error:  # of the destination as a whole
        outbox.unsent([one.owed for one in waiting], str(error))


def confirm(sent: Sequence[Named], peer: Peer, route: Route) -> Mapping[str, str]:
    """By SOP Instance UID, "" where the peer's QIDO-RS lists it, else what is wrong.

    Raises Transient, Permanent, ConfigError where the peer cannot be asked.
    """
    by_study: dict[str, list[str]] = {}
    for one in sent:
        by_study.setdefault(one.study_instance_uid, []).append(one.sop_instance_uid)
    found: set[str] = set()
    with Web(peer, route.credentials) as web:
        for study, uids in by_study.items():
            for first in range(0, len(uids), ASKED_AT_ONCE):
                some = uids[first : first + ASKED_AT_ONCE]
                found |= _listed(web, study, some)
                for uid in set(some) - found:  # not every server knows lists of UIDs (PS3.18 8.3.4.1)
                    found |= _listed(web, study, [uid])
    return {one.sop_instance_uid: "" if one.sop_instance_uid in found else "the peer does not list it" for one in sent}


def look(peer: Peer, credentials: Credentials) -> str:
    """What the server answers to a harmless question. Raises Transient, Permanent, ConfigError."""
    with Web(peer, credentials) as web:
        answer = web.get("/studies", {"limit": "1"}, JSON)
    return f"answers QIDO-RS with {answer}"


def _listed(web: Web, study: str, uids: Sequence[str]) -> set[str]:
    parameters = {"StudyInstanceUID": study} if is_safe(study) else {}
    try:
        answer = web.get("/instances", parameters | {"SOPInstanceUID": ",".join(uids)}, JSON)
    except Refused:
        if len(uids) > 1:
            return set()
        raise
    return {uid for item in _items(answer.json()) if (uid := _text(item, _SOP_INSTANCE_UID)) in uids}


def _first(waiting: Sequence[Ready]) -> list[Ready]:
    """What goes in the next request: as many as there is room for, at least one."""
    taken: list[Ready] = []
    room = MOST_BYTES_IN_ONE
    for one in waiting[:MOST_IN_ONE]:
        room -= one.size_bytes
        if taken and room < 0:
            break
        taken.append(one)
    return taken


def _stored(web: Web, some: Sequence[Ready], route: Route) -> Iterator[tuple[Ready, Outcome]]:
    """Each instance with its outcome. Raises Transient, Permanent for the destination as a whole."""
    try:
        answer = _post(web, [one.path for one in some])
    except Refused as refused:
        if len(some) > 1 and refused.status != 409:  # one of them may be the reason
            for one in some:
                yield from _stored(web, [one], route)
            return
        answer = refused.answer
    for one in some:
        outcome = _outcome(answer, one.meta.sop_instance_uid)
        if _wants_other_syntax(outcome, answer) and one.meta.transfer_syntax_uid != EXPLICIT_VR_LITTLE_ENDIAN:
            outcome = _converted(web, one, route)
        yield one, outcome


def _wants_other_syntax(outcome: Outcome, answer: Answer) -> bool:
    return answer.status == 415 or (isinstance(outcome, Status) and outcome.code == _SYNTAX_NOT_SUPPORTED)


def _converted(web: Web, one: Ready, route: Route) -> Outcome:
    """The object again, in Explicit VR Little Endian."""
    with tempfile.TemporaryDirectory(prefix="pacsnode-") as folder:
        path = Path(folder) / "converted.dcm"
        try:
            route.convert(one.path, EXPLICIT_VR_LITTLE_ENDIAN, path)
        except Permanent as error:
            return f"the peer does not take its transfer syntax, and it cannot be sent in another: {error}"
        meta = replace(one.meta, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN)
        ((_, outcome),) = _stored(web, [Ready(one.owed, path, meta, path.stat().st_size)], route)
        return outcome


def _post(web: Web, paths: Sequence[Path]) -> Answer:
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    tail = f"--{boundary}--\r\n".encode()
    length = sum(len(head) + path.stat().st_size + 2 for path in paths) + len(tail)
    headers = {
        "Accept": JSON,
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Content-Length": str(length),  # some servers take no chunked body
    }
    return web.post("/studies", _parts(paths, head, tail), headers)


def _parts(paths: Sequence[Path], head: bytes, tail: bytes) -> Iterator[bytes]:
    for path in paths:
        yield head
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece
        yield b"\r\n"
    yield tail


def _outcome(answer: Answer, sop_instance_uid: str) -> Outcome:
    """What the answer says of one instance (PS3.18 10.5.3): 200 all, 202 not all as asked, 409 none of them."""
    said = next(iter(_items(answer.json())), {})
    for item in _sequence(said, _FAILED):
        if _text(item, _INSTANCE_UID) == sop_instance_uid:
            return Status(_number(item, _FAILURE_REASON) or _UNSAID.code, "as the STOW-RS answer says")
    for item in _sequence(said, _REFERENCED):
        if _text(item, _INSTANCE_UID) == sop_instance_uid:
            warning = _number(item, _WARNING_REASON)
            return Status(warning) if Status(warning).is_warning else DONE
    if answer.status == _TOO_LARGE:
        return "it is larger than the peer takes in one request"
    if answer.status >= 400:
        return f"the peer refused it: {answer}"
    return None if answer.status == 202 or _sequence(said, _REFERENCED) else DONE


def _items(said: Any) -> list[dict[str, Any]]:
    """The data sets of an answer: a list of them, or one by itself."""
    found = said if isinstance(said, list) else [said]
    return [item for item in found if isinstance(item, dict)]


def _values(item: Mapping[str, Any], tag: str) -> list[Any]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _sequence(item: Mapping[str, Any], tag: str) -> list[dict[str, Any]]:
    return _items(_values(item, tag))


def _text(item: Mapping[str, Any], tag: str) -> str:
    return next((value for value in _values(item, tag) if isinstance(value, str)), "")


def _number(item: Mapping[str, Any], tag: str) -> int:
    """0 where there is none."""
    for value in _values(item, tag):
        with suppress(ValueError, TypeError):
            number = int(value)
            return number if 0 < number <= 0xFFFF else 0
    return 0
