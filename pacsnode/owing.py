"""Who gets which results of a case: destinations of the rules, as peers and services stand now.

Results of a service that is not certified go only to peers marked `investigational: true`; asked again for every send.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pacsnode.archive import notes
from pacsnode.archive.case_rows import CaseRecord, ResultRecord
from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.deliver.debts import Debt, owe
from pacsnode.deliver.outbox import Owed
from pacsnode.handover import SHIPPED, Case, Form, Forward, Study
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

        Of a case in shadow nothing is ever owed, nor of one that was withdrawn.
        """
        if record.shadow or record.state == "withdrawn":
            return []
        wanted = [r for r in results if r.kind in record.case.results]
        debts = []
        for name in record.send_to:
            destination, peer, refusal = self._destination(record.case, name)
            if peer is not None and not refusal:
                refusal = self._refusal(record.case.service, peer)
            chosen = tuple(r.sop_instance_uid for r in _for_peer(wanted, peer))
            debts.append(Debt(destination, chosen, refusal, record.case.rules))
        return debts

    def forms(self, record: CaseRecord) -> list[Form]:
        """In what forms the results of a case are made: as shipped, and as its destinations want them."""
        wanted = [SHIPPED]
        for name in record.send_to:
            _, peer, _ = self._destination(record.case, name)
            if peer is not None and peer.wants.form not in wanted:
                wanted.append(peer.wants.form)
        return wanted

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
                debts.append(Debt(name, instances, refusal, (forward.rule,)))
            owe(connection, "", study.study_instance_uid, forward.priority, debts)

    def forbidden(self, owed: Owed, peer: Peer) -> str:
        """Why a row may not be sent to a peer now, though an operator retries it; "" when it may.

        A rejection note always may: it goes where the results went that it withdraws.
        """
        if owed.case_key and self._is_rejection(owed.sop_instance_uid):
            return ""
        conflict = self._index().conflict(owed.study_instance_uid)
        if conflict:
            return f"the study's instances disagree on the patient: {conflict}"
        if not owed.case_key:
            return ""
        record = self._cases.get(owed.case_key)
        if record is None:
            return "its case is not known any more"
        if record.state == "withdrawn":
            return f"withdrawn: {record.reason}"
        if owed.sop_instance_uid in record.case.instances:
            return ""  # an image for the vendor's node that does the case's work
        return "its case runs in shadow" if record.shadow else self._refusal(record.case.service, peer)

    def _is_rejection(self, sop_instance_uid: str) -> bool:
        with self._cases.reading() as connection:
            return notes.is_rejection(connection, sop_instance_uid)

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


def _for_peer(results: Sequence[ResultRecord], peer: Peer | None) -> list[ResultRecord]:
    """What the peer accepts, in the form that it wants."""
    wanted = in_form(results, SHIPPED if peer is None else peer.wants.form)
    return [one for one in wanted if peer is None or one.kind in peer.accepts]


def in_form(results: Sequence[ResultRecord], form: Form) -> list[ResultRecord]:
    """Of each case and kind the objects of this form; as shipped where none of it were made."""
    chosen = []
    for case, kind in dict.fromkeys((one.case_key, one.kind) for one in results):
        alike = [one for one in results if (one.case_key, one.kind) == (case, kind)]
        chosen += [one for one in alike if one.form == form.tag(kind)] or [one for one in alike if not one.form]
    return chosen
