"""Storage commitment and evidence, put together for one site: its databases, its peers, its files.

In: settings, the peers as the rules file has them now. Out: what associations hand N-operations to, as long as it is
needed. The result of a request goes to the peer that asked, or to the one it names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from pacsnode.archive.confirmations import Confirmations
from pacsnode.archive.files import free_mb
from pacsnode.dimse.tls import Credentials, credentials
from pacsnode.errors import ConfigError, Permanent
from pacsnode.peers import ANY_AE_TITLE, Directory, Peer, network_of
from pacsnode.receive.evidence import Evidence
from pacsnode.receive.ledger import Commitment, Ledger
from pacsnode.receive.normalised import Notices
from pacsnode.receive.reporter import Destination, Reporter
from pacsnode.receive.verification import Verifier
from pacsnode.settings import Settings

STOP_GRACE_S: Final = 5.0


@contextmanager
def notices(settings: Settings, peers: Callable[[], Directory]) -> Iterator[Notices]:
    """Running commitment checks and reports; they end after the last association."""
    ours = credentials(settings)

    def has_room() -> bool:
        return free_mb(settings.files) >= settings.minimum_free_mb

    with (
        closing(Ledger(settings.index_db)) as ledger,
        closing(Verifier(settings.files, settings.index_db)) as verifier,
        closing(Evidence(settings.index_db, has_room)) as evidence,
        closing(Confirmations(settings.index_db)) as confirmations,
    ):
        reporter = Reporter(ledger, verifier, lambda owed: destination(owed, peers(), ours))
        reporter.start()
        try:
            yield Notices(ledger, reporter, evidence, confirmations)
        finally:
            reporter.close(STOP_GRACE_S)


def destination(owed: Commitment, peers: Directory, ours: Credentials) -> Destination:
    """The peer itself where it has a port, else its `reply_to`. Raises Permanent with what an operator must do.

    Of an entry for a whole network or for any AE title, the one device that asked.
    """
    peer = peers.by_name(owed.peer)
    if peer is None:
        raise Permanent(f"the rules file has no peer {owed.peer} any more")
    if peer.port is None and peer.reply_to:
        peer = peers.by_name(peer.reply_to) or peer
    if peer.port is None:
        raise Permanent(f"peer {peer.name} has no port: enter it, or a reply_to, for storage commitment")
    host = owed.address if _is_network(peer) else peer.host
    ae_title = owed.calling_ae_title if peer.ae_title == ANY_AE_TITLE else peer.ae_title
    try:
        tls = ours.toward(peer)
    except ConfigError as error:
        raise Permanent(str(error)) from None
    return Destination(host, peer.port, ae_title, tls and dataclasses.replace(tls, host=host))


def _is_network(peer: Peer) -> bool:
    network = network_of(peer.host)
    return network is not None and network.num_addresses > 1
