"""The site's answer to each caller: by called AE title, calling AE title, address and certificate (PS3.8 9.3.4).

In: the peers that are live now and the settings. Out: the peer with what it may do, or why there is no association; the
list of the refused. A caller who fails at TLS or certificate of its entry is rejected, never put into quarantine.
"""

from __future__ import annotations

from collections.abc import Callable

from pacsnode.archive.refusals import Refusal, Refusals
from pacsnode.peers import QUARANTINE, Directory, Peer
from pacsnode.receive.admission import STORE, Admitted, Caller, Refused
from pacsnode.settings import Settings


class SiteAdmission:
    """Who may associate: asked anew for each association."""

    def __init__(self, settings: Settings, refusals: Refusals, peers: Callable[[], Directory]) -> None:
        self._settings = settings
        self._refusals = refusals
        self._peers = peers

    @property
    def peers(self) -> Directory:
        """The peers that are live now."""
        return self._peers()

    def admit(self, caller: Caller) -> Admitted:
        """Which peer calls. Raises Refused."""
        settings = self._settings
        if caller.called_ae_title.strip() != settings.ae_title:
            raise Refused.called_ae_title(f"called {caller.called_ae_title.strip()!r}, but this is {settings.ae_title}")
        matching = self.peers.matching(caller.calling_ae_title, caller.address)
        lacking = {peer.name: _lack(peer, caller) for peer in matching}
        peer = next((peer for peer in matching if not lacking[peer.name]), None)
        if peer is not None:
            cap = peer.associations or settings.peer_associations
            return Admitted(peer.name, peer.issuer, frozenset(peer.may), cap, peer.charset)
        if lacking:
            raise Refused.calling_ae_title("; ".join(lacking.values()))
        unknown = f"no peer has AE title {caller.calling_ae_title!r} and address {caller.address}"
        if settings.unknown_callers == "reject":
            raise Refused.calling_ae_title(f"{unknown}; enter it under `peers:`")
        self._refusals.note(_refusal(caller, unknown, quarantined=True))
        return Admitted(QUARANTINE, "", frozenset({STORE}), settings.peer_associations)

    def refused(self, caller: Caller, reason: str) -> None:
        """Enter it in the list of the refused."""
        self._refusals.note(_refusal(caller, reason))


def _lack(peer: Peer, caller: Caller) -> str:
    """What a caller with the AE title and address of `peer` lacks to be it; "" for nothing."""
    if peer.tls and not caller.tls:
        return f"peer {peer.name} has tls: true and called without TLS"
    if peer.certificate is None:
        return ""
    if caller.certificate is None:
        return f"peer {peer.name} showed no certificate; it is to be {peer.certificate}"
    if caller.certificate.is_named(peer.certificate):
        return ""
    return f"peer {peer.name} showed the certificate {caller.certificate}; it is to be {peer.certificate}"


def _refusal(caller: Caller, reason: str, *, quarantined: bool = False) -> Refusal:
    return Refusal(
        caller.calling_ae_title,
        caller.called_ae_title,
        caller.address,
        "" if caller.certificate is None else str(caller.certificate),
        "quarantined" if quarantined else "rejected",
        reason,
    )
