"""From a study that changed to cases: decided by the rules, kept waiting until whole, opened.

Called by the watcher of `work` alone, in one thread. Everything that it does may be done again: decisions replace each
other, candidates are derived from the index, and a case that exists is not opened twice.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from pacsnode import audit
from pacsnode.archive.attributes import with_files
from pacsnode.archive.case_rows import Arrived, Pending
from pacsnode.archive.cases import Cases
from pacsnode.archive.digests import Digests
from pacsnode.archive.index import Index
from pacsnode.complete.asking import Asker, askable
from pacsnode.complete.evidence import Announcements, verdict
from pacsnode.complete.late import admit
from pacsnode.complete.policy import Now, Seen, policy
from pacsnode.database import boot_id, boot_us, utc_us
from pacsnode.dimse.find import Question, count_images
from pacsnode.dimse.tls import credentials
from pacsnode.doorbell import Bell
from pacsnode.handover import Candidate, Case, Decision, Instance, Study
from pacsnode.infer.catalogue import Service
from pacsnode.owing import Owing, Site
from pacsnode.peers import Peer
from pacsnode.rejecting import Rejecting, has_images
from pacsnode.route.decide import decide
from pacsnode.settings import Settings
from pacsnode.telemetry import Log

log = Log(__name__)

MILLISECOND_US = 1000

Released = Callable[[Collection[str]], int | None]
"""When the last association of these peers ended, on the boot clock; None where that is not known of each of them."""


@dataclass(frozen=True)
class _Held:
    """What is here of a study, for the question what its senders have."""

    images: int
    arrived: Arrived
    patient_id: str = field(repr=False)


class Considering:
    """Moves studies to cases. `site` is asked once for each study: a decision is made under one version of rules."""

    def __init__(
        self, settings: Settings, cases: Cases, owing: Owing, site: Callable[[], Site], released: Released
    ) -> None:
        self._settings = settings
        self._cases = cases
        self._owing = owing
        self._site = site
        self._released = released
        self._index = Index(settings.index_db)
        self._digests = Digests(settings.files, settings.index_db)
        self._rejecting = Rejecting(settings.files, cases, self._index)
        self._announcements = Announcements(settings.index_db)
        self._bell = Bell(settings.doorbell)
        tls = credentials(settings)
        self._asker = Asker(lambda asked, peer: count_images(asked, peer, settings.ae_title, tls), self._bell.ring)
        self._boot_id = boot_id()
        self._seen: dict[int, int] = {}
        self._held: dict[str, _Held] = {}

    def close(self) -> None:
        """Ask nobody any more, and give the connections back."""
        self._asker.close()
        self._bell.close()
        self._announcements.close()
        self._digests.close()
        self._index.close()

    def consider_changes(self) -> bool:
        """Decide the studies that changed since the watermark; False when there were none."""
        changed = self._index.changed_since(self._cases.watermark())
        for uid, _ in changed:
            self._consider(self._digests.whole_study(self._index, uid))
        for uid, asked_utc_us in self._rejecting.rejections.to_reconsider():
            if self._index.study(uid) is not None:
                self._consider(self._digests.whole_study(self._index, uid))
            self._rejecting.rejections.reconsidered(uid, asked_utc_us)
        return bool(changed)

    def _consider(self, study: Study) -> None:
        site = self._site()
        self._held.pop(study.study_instance_uid, None)
        study = self._rejecting.without_rejected(study, site.rules.peers)
        decision = decide(with_files(study, self._settings.files, site.rules.beyond_index), site.rules)
        pending: list[tuple[Candidate, Arrived]] = []
        with self._cases.transaction() as connection:
            for candidate in decision.candidates:
                decision = self._take(study, candidate, site.services[candidate.service], decision, pending)
            self._owing.forward(connection, study, decision.forwards)
            self._cases.record_decision(decision, pending)
            repaired = self._note_quality(connection, study.study_instance_uid)
        if repaired:
            log.warning("text was read against its declaration", study=study.study_instance_uid, attributes=repaired)
        services = ",".join(c.service for c in decision.candidates)
        log.info("decided", study=study.study_instance_uid, instances=len(study.instances), services=services)
        if study.conflict:
            log.warning("study in conflict, not routed", study=study.study_instance_uid, reason=study.conflict)
        elif site.rules.unmatched == "alarm" and not decision.is_matched and has_images(study):
            log.error("no rule takes the study", study=study.study_instance_uid)

    def _note_quality(self, connection: sqlite3.Connection, study_instance_uid: str) -> str:
        """Enter once which attributes were repaired in reading; what is new of it, "" where nothing is.

        The files stay as they came; the device, or `charset:` of its peer, is to be set right.
        """
        keywords = ",".join(self._index.repaired(study_instance_uid))
        known = connection.execute(
            "SELECT 1 FROM audit WHERE study_instance_uid = ? AND event = 'text repaired' "
            "AND json_extract(detail, '$.attributes') = ?",
            (study_instance_uid, keywords),
        ).fetchone()
        if not keywords or known:
            return ""
        audit.record(connection, "text repaired", study=study_instance_uid, attributes=keywords)
        return keywords

    def _take(
        self,
        study: Study,
        candidate: Candidate,
        service: Service,
        decision: Decision,
        pending: list[tuple[Candidate, Arrived]],
    ) -> Decision:
        """Let one candidate wait, or join the case that it is already; a decision that says what became of it."""
        earlier = [
            record.case
            for record in self._cases.of_study(study.study_instance_uid)
            if record.case.service == candidate.service
            and record.shadow == candidate.shadow
            and record.state != "withdrawn"
        ]
        key = case_key(study, candidate, service)
        held = self._cases.get(key)
        if held is not None:
            if self._cases.unite(key, candidate) and held.state == "done":
                self._owing.owe_again(key)
            return decision
        admittance = admit(candidate, earlier, utc_us())
        if admittance.candidate is not None:
            mine = set(admittance.candidate.instances)
            came = arrived([i for i in study.instances if i.sop_instance_uid in mine])
            pending.append((admittance.candidate, came))
            return decision
        verdicts = tuple(
            replace(v, reason=f"{v.reason}; {admittance.reason}") if v.rule in candidate.rules else v
            for v in decision.verdicts
        )
        return replace(decision, verdicts=verdicts)

    def open_whole_cases(self) -> int | None:
        """Turn candidates that are whole into cases; gives the boot time of the next look, if one waits."""
        next_look: int | None = None
        now_us = boot_us()
        waiting = self._cases.pending()
        self._seen = {p.id: self._seen.get(p.id, now_us) for p in waiting}
        self._forget_all_but({p.candidate.study_instance_uid for p in waiting if p.candidate.completion.ask_sender})
        for pending in waiting:
            now = Now(now_us, self._boot_id, self._seen[pending.id])
            whole = policy(pending.candidate.completion, self._evidence(pending), now)
            if whole.ask_after_boot_us is not None:
                self._ask(pending, whole.ask_after_boot_us)
            if whole.whole:
                self._open(pending, whole.because)
                continue
            next_look = min(next_look or whole.check_again_boot_us, whole.check_again_boot_us)
            if whole.overdue and not pending.is_overdue:
                self._cases.mark_overdue(pending, whole.because)
                study = pending.candidate.study_instance_uid
                log.error("case stays incomplete", study=study, service=pending.candidate.service, why=whole.because)
        return next_look

    def _evidence(self, pending: Pending) -> Seen:
        candidate, came = pending.candidate, pending.arrived
        told, images = None, 0
        if candidate.completion.ask_sender and (peers := self._askable(pending)):
            told = self._asker.said(candidate.study_instance_uid, peers)
            here = self._held_of(candidate.study_instance_uid)
            came, images = here.arrived, here.images
        announcements = self._announcements.of_study(candidate.study_instance_uid)
        said = verdict((), (), ())
        if announcements:
            study = self._index.study(candidate.study_instance_uid)
            held = {i.sop_instance_uid for i in study.instances} if study else set()
            said = verdict(announcements, candidate.instances, held)
        released_us = None
        if candidate.completion.after_release_s is not None:
            released_us = self._released(came.peers)
            if self._announcements.asked_to_commit_utc_us(came.peers, candidate.instances, came.last_utc_us):
                released_us = max(released_us or 0, came.last_boot_us)
        return Seen(came.last_boot_us, came.boot_id, images, released_us, said.announced, said.awaited, told)

    def _askable(self, pending: Pending) -> tuple[Peer, ...]:
        return askable(self._site().rules.peers, pending.arrived.peers)

    def _ask(self, pending: Pending, after_boot_us: int) -> None:
        """Results of earlier cases may be at the sender too: they are none of the images that are to come."""
        study = pending.candidate.study_instance_uid
        results = [result for record in self._cases.of_study(study) for result in self._cases.results(record.case.key)]
        ours = frozenset(result.series_instance_uid for result in results)
        question = Question(study, self._held_of(study).patient_id, ours)
        self._asker.ask(question, self._askable(pending), after_boot_us)

    def _held_of(self, study_instance_uid: str) -> _Held:
        """Read once after each change of the study: it may have thousands of images, and is looked at often."""
        held = self._held.get(study_instance_uid)
        if held is None:
            study = self._index.study(study_instance_uid)
            assert study is not None
            held = _Held(len(study.instances), arrived(study.instances), study.patient_id)
            self._held[study_instance_uid] = held
        return held

    def _forget_all_but(self, studies: Collection[str]) -> None:
        """Of studies for which no case waits any more that asks for it, nothing is kept in memory."""
        self._asker.keep(studies)
        self._held = {uid: held for uid, held in self._held.items() if uid in studies}

    def _open(self, pending: Pending, because: str) -> None:
        candidate = pending.candidate
        study = self._index.study(candidate.study_instance_uid)
        assert study is not None
        service = self._site().services.get(candidate.service)
        if service is None:
            because += f"; service {candidate.service} was removed meanwhile"
        # A case's start is part of its results' bytes; whole milliseconds survive every representation.
        started = utc_us() // MILLISECOND_US * MILLISECOND_US
        case = Case(
            case_key(study, candidate, service) if service else f"removed:{candidate.service}:{pending.id}",
            study.study_instance_uid,
            candidate.service,
            candidate.rules,
            pending.rules_hash,
            candidate.instances,
            candidate.results,
            started,
            self._superseded(candidate),
        )
        self._cases.open(pending, case, because)

    def _superseded(self, candidate: Candidate) -> str:
        """The newest case of the same service whose instances are all of this one's: fewer, or read by another version.

        A live one follows no one in shadow: nobody has its report.
        """
        for record in reversed(self._cases.of_study(candidate.study_instance_uid)):
            is_alike = record.case.service == candidate.service and record.shadow == candidate.shadow
            if is_alike and record.state != "withdrawn" and set(record.case.instances) <= set(candidate.instances):
                return record.case.key
        return ""


def case_key(study: Study, candidate: Candidate, service: Service) -> str:
    """The key of a case: study, service, bundle, contract, and what goes in. Equal keys are one run."""
    digests = {i.sop_instance_uid: i.dataset_sha256 for i in study.instances}
    inputs = [f"{uid}={digests[uid]}" for uid in sorted(candidate.instances)]
    parts = [study.study_instance_uid, service.name, service.bundle_hash, service.pipeline_hash, *inputs]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:40]


def arrived(instances: Sequence[Instance]) -> Arrived:
    """When the newest of some instances came, on both clocks, and from whom they came."""
    newest = max(instances, key=lambda i: (i.received_utc_us, i.received_boot_us))
    peers = tuple(sorted({i.peer for i in instances}))
    return Arrived(newest.received_boot_us, newest.boot_id, newest.received_utc_us, peers)
