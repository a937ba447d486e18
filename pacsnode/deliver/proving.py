"""Asking one destination for proof that it has what it took: storage commitment, else a query, else it stays `sent`.

Of a peer whose entry says no `proof:`, the best that it offers is learned. Commitment is answered on the same
association, or on one of the peer's own that the receiving process takes. Time-outs ask again, then the instance is
sent again under the same UID; what the peer says that it has not is owed again with the reason.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pacsnode.archive.confirmations import Asked, Confirmations
from pacsnode.deliver import proof
from pacsnode.deliver.destinations import Destinations, ProofBy
from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.pace import Slots
from pacsnode.deliver.proof import ANSWER_WITHIN_S, MOST_IN_ONE, Asker
from pacsnode.deliver.proofs import Proofs
from pacsnode.deliver.ready import Route
from pacsnode.deliver.ways import WAYS
from pacsnode.errors import ConfigError, Permanent, Transient, Unsupported
from pacsnode.peers import Peer
from pacsnode.telemetry import Log

log = Log(__name__)

COMMITMENT_AGAIN_S: Final = (300.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
"""Waits for an answer; after the last there is none. Some archives answer in the night."""
QUERY_AGAIN_S: Final = (10.0, 60.0, 300.0, 1800.0)
"""A PACS may file what it took a little later; after the last wait it has it not."""
TROUBLE_AGAIN_S: Final = 60.0
NO_ANSWER: Final = "does not answer storage commitment"


@dataclass(frozen=True)
class Subject:
    """An instance as a peer can be asked for it."""

    asked: Asked
    study_instance_uid: str
    series_instance_uid: str

    @property
    def sop_instance_uid(self) -> str:
        """Which one it is."""
        return self.asked.sop_instance_uid


Describe = Callable[[Sequence[str]], dict[str, Subject]]
"""By SOP Instance UID; without those that are not archived (any more)."""


@dataclass(frozen=True)
class Proving:
    """What all provers share."""

    route: Route
    confirmations: Confirmations
    describe: Describe
    answer_within_s: float = ANSWER_WITHIN_S


class Prover:
    """For one destination and one thread."""

    def __init__(self, destination: str, outbox: Outbox, proving: Proving, slots: Slots) -> None:
        self._destination = destination
        self._outbox = outbox
        self._proving = proving
        self._slots = slots
        self._proofs = Proofs(outbox)
        self._destinations = Destinations(outbox)

    def next_due_utc_us(self) -> int | None:
        """When to ask next; None when nothing is unproven."""
        return self._proofs.next_due_utc_us(self._destination)

    def take_answers(self) -> bool:
        """What came since the last look, on whichever association. Whether something is owed again."""
        has_lost = False
        for question in self._proofs.open_questions(self._destination):
            said = self._proving.confirmations.answer(question)
            if said is not None:
                self._take(self._proofs.of_question(question), said)
                has_lost |= any(said.values())
        return has_lost

    def _take(self, rows: Sequence[Owed], said: dict[str, int]) -> None:
        self._proofs.confirm([one for one in rows if said.get(one.sop_instance_uid) == 0], "commitment")
        failed: dict[int, list[Owed]] = {}
        for one in rows:
            if failure := said.get(one.sop_instance_uid):
                failed.setdefault(failure, []).append(one)
        for failure, lost in failed.items():
            self._proofs.lost(lost, f"{self._destination} says that it does not have it (0x{failure:04X})")
        self._proofs.closed([one for one in rows if one.sop_instance_uid not in said])

    def ask(self, peer: Peer, stopping: threading.Event) -> bool:
        """Ask about what is due. False when the peer cannot be asked now."""
        rows = self._proofs.due(self._destination, MOST_IN_ONE)
        subjects = self._proving.describe([one.sop_instance_uid for one in rows])
        gone = [one for one in rows if one.sop_instance_uid not in subjects]
        self._proofs.unprovable(gone, "it is not in the archive of this node any more")
        rows = [one for one in rows if one.sop_instance_uid in subjects]
        by, why = self._by(peer)
        if by == "none":
            self._proofs.unprovable(rows, why)
            return True
        if self._is_over(peer, by, rows):
            return True
        rows = [one for one in rows if one.asked < len(_waits_s(by))]
        try:
            with self._slots.take(peer.sends.at_once, stopping):
                if by == "commitment":
                    self._by_commitment(peer, rows, subjects, stopping)
                else:
                    self._by_query(peer, rows, subjects)
        except Unsupported as error:
            self._unsupported(peer, by, rows, str(error))
        except (Transient, Permanent, ConfigError) as error:
            log.warning("a destination cannot be asked what it has", destination=self._destination, reason=error)
            self._proofs.put_off(rows, self._after_us(TROUBLE_AGAIN_S))
            return False
        return True

    def _by(self, peer: Peer) -> tuple[ProofBy, str]:
        """How to ask, and for `none` why not."""
        if peer.proof is not None:
            return peer.proof, "its entry says proof: none"
        learned = self._destinations.learned(self._destination)
        if learned is not None:
            return learned.by, learned.reason
        return "commitment" if WAYS[peer.type].commits else "query", ""

    def _is_over(self, peer: Peer, by: ProofBy, rows: Sequence[Owed]) -> bool:
        """Deal with what was asked for often enough. Whether everything is to be looked at anew."""
        over = [one for one in rows if one.asked >= len(_waits_s(by))]
        if not over:
            return False
        if by == "query":
            self._proofs.lost(over, f"{self._destination} took it, and does not find it")
        elif peer.proof is None:
            self._learn_worse(peer, "commitment", f"{self._destination} {NO_ANSWER}")
            self._proofs.ask_anew(over)
        else:
            self._proofs.lost(over, f"{self._destination} {NO_ANSWER} ({len(COMMITMENT_AGAIN_S)} times)")
        return True

    def _by_commitment(
        self, peer: Peer, rows: Sequence[Owed], subjects: dict[str, Subject], stopping: threading.Event
    ) -> None:
        route, confirmations = self._proving.route, self._proving.confirmations
        asker = Asker(
            route.calling_ae_title,
            route.credentials,
            confirmations,
            stopping.is_set,
            gives_way=lambda: self._slots.is_wanted,
            answer_within_s=self._proving.answer_within_s,
        )
        outcome = proof.ask(peer, asker, (subjects[one.sop_instance_uid].asked for one in rows))
        if peer.proof is None:
            self._destinations.learn(self._destination, "commitment", "")
        for question in outcome.questions:  # one: there are no more rows
            waits = {one.asked: COMMITMENT_AGAIN_S[one.asked] for one in rows}
            for asked, wait_s in waits.items():
                of_that = [one for one in rows if one.asked == asked]
                self._proofs.asked(of_that, question, self._after_us(wait_s))
        self.take_answers()

    def _by_query(self, peer: Peer, rows: Sequence[Owed], subjects: dict[str, Subject]) -> None:
        asked_for = [subjects[one.sop_instance_uid] for one in rows]
        wrong = WAYS[peer.type].confirm(asked_for, peer, self._proving.route)
        if peer.proof is None:
            before = self._destinations.learned(self._destination)
            self._destinations.learn(self._destination, "query", before.reason if before else "")
        self._proofs.confirm([one for one in rows if not wrong[one.sop_instance_uid]], "query")
        for one in rows:
            if wrong[one.sop_instance_uid]:
                self._proofs.asked([one], "", self._after_us(QUERY_AGAIN_S[one.asked]))

    def _unsupported(self, peer: Peer, by: ProofBy, rows: Sequence[Owed], reason: str) -> None:
        """Another way, where the entry of the peer leaves it to us."""
        if peer.proof is None:
            self._learn_worse(peer, by, reason)
            self._proofs.ask_anew(rows)
            return
        log.warning("a destination does not prove as its entry says", destination=self._destination, reason=reason)
        self._proofs.unprovable(rows, f"its entry says proof: {by}, but {reason}")

    def _learn_worse(self, peer: Peer, than: ProofBy, reason: str) -> None:
        worse: ProofBy = "query" if than == "commitment" else "none"
        before = self._destinations.learned(self._destination)
        told = f"{before.reason}; {reason}" if worse == "none" and before and before.reason else reason
        self._destinations.learn(self._destination, worse, told)

    def _after_us(self, wait_s: float) -> int:
        return self._outbox.now_us() + int(wait_s * 1e6)


def _waits_s(by: ProofBy) -> tuple[float, ...]:
    return COMMITMENT_AGAIN_S if by == "commitment" else QUERY_AGAIN_S
