"""The types of destinations: for each, how instances go there, how it is asked whether it is there and what it has.

A new type is one file in this folder and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pacsnode.deliver import dimse
from pacsnode.deliver.dimse import Route
from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.dimse import find
from pacsnode.dimse.association import ECHO_CONTEXT, Association, Timeouts
from pacsnode.errors import Permanent
from pacsnode.peers import Peer

_PROBE_TIMEOUTS: Final = Timeouts(connect_s=10, acse_s=15, pdu_s=15, dimse_s=15)

Deliver = Callable[[Outbox, Sequence[Owed], Peer, Route], None]
"""Sends claimed rows. Each ends by `Outbox.sent`, `park`, `postpone` or `unsent`; what it leaves stays owed. What goes
wrong with the destination as a whole is `unsent` for the rows that were not offered, and raises nothing.
"""
Probe = Callable[[Peer, Route], None]
"""Returns when the destination is there. Raises Transient, Permanent, ConfigError."""
Held = Callable[[Mapping[str, frozenset[str]], Peer, Route], frozenset[str]]
"""SOP Instance UIDs that it has, of these series by study. Raises as `Probe`; Unsupported if it answers no queries."""


@dataclass(frozen=True)
class Way:
    """One type. Without a `probe` the first instance is it. `commits`: storage commitment can be asked for."""

    deliver: Deliver
    probe: Probe | None
    commits: bool
    held: Held | None


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


def _found(series: Mapping[str, frozenset[str]], peer: Peer, route: Route) -> frozenset[str]:
    return find.held_images(series, peer, route.calling_ae_title, route.credentials)


WAYS: Final[Mapping[str, Way]] = {"dimse": Way(dimse.deliver, _echo, commits=True, held=_found)}
"""By the `type:` of a peer."""
