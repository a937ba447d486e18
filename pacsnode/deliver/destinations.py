"""Which code delivers to which type of destination, and which asks it for proof: one line for each type.

A new type is a file with `deliver` and, where it can be asked, `confirm`; its lines here; its keys in
`destination_types`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pacsnode.deliver import dicomweb, dimse, folder, orthanc
from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.ready import Named, Route
from pacsnode.destination_types import DestinationType
from pacsnode.dimse.tls import Credentials
from pacsnode.peers import Peer

Deliver = Callable[[Outbox, Sequence[Owed], Peer, Route], None]
"""Sends what is owed; every row ends sent, parked or postponed, but for what was not begun when the node stops."""
Confirm = Callable[[Sequence[Named], Peer, Route], Mapping[str, str]]
"""By SOP Instance UID, "" where the destination holds it, else what is wrong. Raises Transient, Permanent, ConfigError
where it cannot be asked."""
Look = Callable[[Peer, Credentials], str]
"""What is there, as the end of a sentence. Raises Transient, Permanent, ConfigError."""

DELIVER: Mapping[DestinationType, Deliver] = {
    "dimse": dimse.deliver,
    "dicomweb": dicomweb.deliver,
    "folder": folder.deliver,
    "orthanc": orthanc.deliver,
}
CONFIRM: Mapping[DestinationType, Confirm] = {
    "dicomweb": dicomweb.confirm,
    "folder": folder.confirm,
    "orthanc": orthanc.confirm,
}
"""Without `dimse`: storage commitment answers later, maybe on an association of the peer's (`proof`)."""

LOOK: Mapping[DestinationType, Look] = {
    "dicomweb": dicomweb.look,
    "folder": folder.look,
    "orthanc": orthanc.look,
}
"""Without `dimse`: it is asked by C-ECHO and for each SOP class."""


def deliver(outbox: Outbox, owed: Sequence[Owed], peer: Peer, route: Route) -> None:
    """Deliver to a peer as its type asks."""
    DELIVER[peer.type](outbox, owed, peer, route)
