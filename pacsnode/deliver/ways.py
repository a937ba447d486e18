"""The types of destinations: for each, how instances go there, how it is asked whether it is there and what it has.

A new type is one file in this folder and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pacsnode.deliver import dicomweb, dimse, folder, orthanc
from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.ready import Named, Route
from pacsnode.destination_types import DestinationType
from pacsnode.dimse import find
from pacsnode.dimse.association import ECHO_CONTEXT, Association, Timeouts
from pacsnode.dimse.tls import Credentials
from pacsnode.errors import Permanent
from pacsnode.peers import Peer

_PROBE_TIMEOUTS: Final = Timeouts(connect_s=10, acse_s=15, pdu_s=15, dimse_s=15)

Deliver = Callable[[Outbox, Sequence[Owed], Peer, Route], None]
"""Sends claimed rows. Each ends by `Outbox.sent`, `park`, `postpone` or `unsent`; what it leaves stays owed. What goes
wrong with the destination as a whole is `unsent` for the rows that were not offered, and raises nothing.
"""
Probe = Callable[[Peer, Route], None]
"""Returns when the destination is there. Raises Transient, Permanent, ConfigError."""
Confirm = Callable[[Sequence[Named], Peer, Route], Mapping[str, str]]
"""By SOP Instance UID, "" where it holds the instance, else what is wrong. Raises as `Probe`; Unsupported if it answers
no such question.
"""
Look = Callable[[Peer, Credentials], str]
"""What is there, as the end of a sentence. Raises as `Probe`."""


@dataclass(frozen=True)
class Way:
    """One type. `commits`: storage commitment can be asked for. `look`: None where a person is told more (C-ECHO)."""

    deliver: Deliver
    probe: Probe
    commits: bool
    confirm: Confirm
    look: Look | None = None


def _echo(peer: Peer, route: Route) -> None:
    """C-ECHO; a peer that takes the association and does not know Verification is there all the same."""
    if peer.obstacle or peer.port is None:
        raise Permanent(f"nothing can be sent to peer {peer.name}: {peer.obstacle}")
    with Association.request(
        peer.host,
        peer.port,
        route.calling_ae_title,
        peer.ae_title,
        [ECHO_CONTEXT],
        _PROBE_TIMEOUTS,
        tls=route.credentials.toward(peer),
    ) as association:
        if association.accepted:
            association.echo()


def _found(sent: Sequence[Named], peer: Peer, route: Route) -> Mapping[str, str]:
    """By C-FIND at IMAGE level."""
    series: dict[str, set[str]] = {}
    for one in sent:
        series.setdefault(one.study_instance_uid, set()).add(one.series_instance_uid)
    asked = {study: frozenset(of_study) for study, of_study in series.items()}
    held = find.held_images(asked, peer, route.calling_ae_title, route.credentials)
    return {one.sop_instance_uid: "" if one.sop_instance_uid in held else "it does not find it" for one in sent}


def _other(deliver: Deliver, confirm: Confirm, look: Look) -> Way:
    return Way(deliver, lambda peer, route: _looked(look(peer, route.credentials)), False, confirm, look)


def _looked(_found: str) -> None:
    """Whatever it says, it is there."""


WAYS: Final[Mapping[DestinationType, Way]] = {
    "dimse": Way(dimse.deliver, _echo, commits=True, confirm=_found),
    "dicomweb": _other(dicomweb.deliver, dicomweb.confirm, dicomweb.look),
    "folder": _other(folder.deliver, folder.confirm, folder.look),
    "orthanc": _other(orthanc.deliver, orthanc.confirm, orthanc.look),
}
"""By the `type:` of a peer."""
