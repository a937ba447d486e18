"""Who gets which results of a case: destinations of the rules, as peers and services stand now.

Results of a service that is not certified go only to peers marked `investigational: true`; asked again for every send.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pacsnode.archive.case_rows import CaseRecord, ResultRecord
from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.deliver.outbox import Debt, Owed, owe
from pacsnode.handover import Case, Forward, Study
from pacsnode.infer.catalogue import Service
from pacsnode.peers import SENDER, Peer
from pacsnode.route.rules import Rules

CERTIFIED = "certified"


@dataclass(frozen=True)
class Site:
    """What IT may change while the node runs; swapped whole."""

    rules: Rules
    services: Mapping[str, Service]


class Owing:
    """Debts of cases; used by the engine's threads and the senders."""

    def __init__(self, cases: Cases, index: Callable[[], Index], site: Callable[[], Site]) -> None:
        self._cases = cases
        self._index = index
        self._site = site

    def debts(self, record: CaseRecord, results: Sequence[ResultRecord]) -> list[Debt]:
        """What is owed to whom; a destination that may not have it is refused with its reason, for people to see.

        Of a case in shadow nothing is ever owed.
        """
        if record.shadow:
            return []
        wanted = [r for r in results if r.kind in record.case.results]
        debts = []
        for name in record.send_to:
            destination, peer, refusal = self._destination(record.case, name)
            if peer is not None and not refusal:
                refusal = self._refusal(record.case.service, peer)
            accepted = tuple(r.sop_instance_uid for r in wanted if peer is None or r.kind in peer.accepts)
            debts.append(Debt(destination, accepted, refusal))
        return debts

    def owe_again(self, key: str) -> None:
        """Rules gave a finished case more destinations or kinds: owe what is new."""
        record = self._cases.get(key)
        assert record is not None
        debts = self.debts(record, self._cases.results(key))
        with self._cases.transaction() as connection:
            owe(connection, key, record.case.study_instance_uid, record.priority, debts)

    def forward(self, connection: sqlite3.Connection, study: Study, forwards: Sequence[Forward]) -> None:
        """Owe images to the peers that rules forward them to, never to the one that sent them.

        What is owed already stays as it is. The caller holds the transaction.
        """
        sent_by = {instance.sop_instance_uid: instance.peer for instance in study.instances}
        for forward in forwards:
            debts = []
            for name in forward.peers:
                peer = self._site().rules.peers.by_name(name)
                refusal = peer.obstacle if peer else f"the rules file has no peer for {name}"
                instances = tuple(uid for uid in forward.instances if sent_by[uid] != name)
                debts.append(Debt(name, instances, refusal))
            owe(connection, "", study.study_instance_uid, forward.priority, debts)

    def forbidden(self, owed: Owed, peer: Peer) -> str:
        """Why a row may not be sent to a peer now, though an operator retries it; "" when it may."""
        conflict = self._index().conflict(owed.study_instance_uid)
        if conflict:
            return f"the study's instances disagree on the patient: {conflict}"
        if not owed.case_key:
            return ""
        record = self._cases.get(owed.case_key)
        if record is None:
            return "its case is not known any more"
        if owed.sop_instance_uid in record.case.instances:
            return ""  # an image for the vendor's node that does the case's work
        return "its case runs in shadow" if record.shadow else self._refusal(record.case.service, peer)

    def _refusal(self, service_name: str, peer: Peer) -> str:
        service = self._site().services.get(service_name)
        if (service is None or service.pipeline.status != CERTIFIED) and not peer.investigational:
            return f"{service_name} is not certified and peer {peer.name} is not `investigational: true`"
        return ""

    def _destination(self, case: Case, name: str) -> tuple[str, Peer | None, str]:
        """(destination, its peer, why it cannot be) for a word of `send_to`."""
        first = self._index().instance(case.instances[0])
        sent_by = first.peer if first else ""
        peer = self._site().rules.peers.destination(name, sent_by)
        if peer is None:
            return (sent_by if name == SENDER else name), None, f"the rules file has no peer for {name}"
        if peer.type == "dimse" and peer.port is None:
            return peer.name, None, f"peer {peer.name} has neither `port:` nor `reply_to:` in the rules file"
        return peer.name, peer, ""
