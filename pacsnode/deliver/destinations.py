"""How each destination stands, in `node.db`: whether it answers, and by what it proves that it has what it took.

A destination that gave no association, or judged nothing of a batch, is left alone for a while, doubling from 5 s to
10 min (the circuit is open); then one question whether it is there decides. So a dead peer costs one try in that time,
however much is owed to it, and a restart forgets nothing of it. Never talks to a peer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, cast

from pacsnode.deliver.backoff import LONGEST_SILENCE_S, delay_us
from pacsnode.deliver.outbox import Outbox
from pacsnode.telemetry import Log

log = Log(__name__)

ProofBy = Literal["commitment", "query", "none"]
LEARNED_FOR_US: Final = 86_400 * 1_000_000
"""A peer may be taught storage commitment: a day later it is tried anew."""


@dataclass(frozen=True)
class Trouble:
    """A destination that does not answer: how often in a row, since when, until when it is left alone, and why."""

    failures: int
    since_utc_us: int
    retry_utc_us: int
    reason: str


@dataclass(frozen=True)
class Learned:
    """By what a destination proves what it took, and why not by something better."""

    by: ProofBy
    reason: str
    learned_utc_us: int


class Destinations:
    """Reads and changes the table, on the outbox's connection."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def trouble(self, name: str) -> Trouble | None:
        """Its trouble; None while it answers."""
        rows = self._outbox.rows(
            "SELECT failures, since_utc_us, retry_utc_us, reason FROM destinations WHERE name = ? AND failures > 0",
            (name,),
        )
        if not rows:
            return None
        found = Trouble(*rows[0])
        if found.retry_utc_us > self._outbox.now_us() + LONGEST_SILENCE_S * 1e6:  # somebody set the clock back
            return Trouble(found.failures, found.since_utc_us, 0, found.reason)
        return found

    def failed(self, name: str, reason: str) -> None:
        """It does not answer, or judged nothing that was offered."""
        now, before = self._outbox.now_us(), self.trouble(name)
        failures = before.failures if before else 0
        retry = now + delay_us(failures, LONGEST_SILENCE_S)
        with self._outbox.transaction() as connection:
            connection.execute(
                "INSERT INTO destinations (name, failures, since_utc_us, retry_utc_us, reason) VALUES (?, 1, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET failures = failures + 1, retry_utc_us = excluded.retry_utc_us, "
                "reason = excluded.reason, since_utc_us = iif(failures = 0, excluded.since_utc_us, since_utc_us)",
                (name, now, retry, reason),
            )
        if before is None:
            log.warning("destination fails; what is owed to it waits", destination=name, reason=reason)

    def answered(self, name: str) -> None:
        """It took or judged something."""
        before = self.trouble(name)
        if before is None:
            return
        with self._outbox.transaction() as connection:
            connection.execute("UPDATE destinations SET failures = 0, reason = '' WHERE name = ?", (name,))
        lasted_s = (self._outbox.now_us() - before.since_utc_us) // 1_000_000
        log.info("destination answers again", destination=name, failures=before.failures, after_s=lasted_s)

    def learned(self, name: str) -> Learned | None:
        """By what it proves; None where that is not known yet, or was learned too long ago."""
        rows = self._outbox.rows(
            "SELECT proof, proof_reason, learned_utc_us FROM destinations WHERE name = ? AND proof != ''", (name,)
        )
        if not rows:
            return None
        found = Learned(cast(ProofBy, rows[0][0]), *rows[0][1:])
        is_old = abs(self._outbox.now_us() - found.learned_utc_us) > LEARNED_FOR_US
        return None if is_old and found.by != "commitment" else found

    def learn(self, name: str, by: ProofBy, reason: str) -> None:
        """Remember by what it proves. What is known already is not written again."""
        before, now = self.learned(name), self._outbox.now_us()
        if before is not None and (before.by, before.reason) == (by, reason):
            return
        with self._outbox.transaction() as connection:
            connection.execute(
                "INSERT INTO destinations (name, proof, proof_reason, learned_utc_us) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET proof = excluded.proof, proof_reason = excluded.proof_reason, "
                "learned_utc_us = excluded.learned_utc_us",
                (name, by, reason, now),
            )
        log.info("how a destination proves what it took", destination=name, by=by, reason=reason)
