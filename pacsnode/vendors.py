"""Cases whose work a vendor's node does: asked by C-STORE of the images, answered by C-STORE of its results.

    waiting → asked, images owed → the answer whole → waiting → looked at → results as they came → done
                                 → nothing in time → parked; what comes later is taken up by itself

`ask` and `look` are called by the watcher of `work` alone, `take_up` by the engine's threads. Nothing waits here: what
is awaited stands in `node.db`, so a restart or kill at any moment loses nothing. Everything may be done again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from pacsnode.allowing import Allowing
from pacsnode.archive.asked import ENDED_UNSENT, STILL_OWED, AskedCase, AskedCases
from pacsnode.archive.case_rows import CaseRecord, ResultRecord
from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.database import boot_id, boot_us, utc_us
from pacsnode.deliver.debts import Debt, ask
from pacsnode.encode.answer import Asked, kind_of, objection
from pacsnode.errors import Permanent
from pacsnode.handover import Instance
from pacsnode.infer.catalogue import Service
from pacsnode.infer.pipeline import Remote
from pacsnode.owing import Site
from pacsnode.settings import Settings
from pacsnode.telemetry import Log

log = Log(__name__)

NO_ANSWER: Final = "no answer"
"""With this begins the reason of a case that a late answer lets go on."""
LATE_WITHIN_US: Final = 7 * 86_400_000_000
"""From the time when it was asked on: an answer that comes later than this waits for `jobs retry`."""
MOST_OBJECTS: Final = 500


@dataclass(frozen=True)
class _Look:
    """The objects of a node that may be an answer. `quiet_after_boot_us`: when nothing more will have come for long."""

    objects: Sequence[Instance]
    missing: Sequence[str]
    strange: Sequence[str]
    quiet_after_boot_us: int

    @property
    def is_whole(self) -> bool:
        """Whether it can be judged: all is here, or something that is no answer."""
        return bool(self.objects) and (bool(self.strange) or not self.missing)


class Vendors:
    """Asks vendors' nodes and takes up their answers. `index`: of the calling thread; `site`: as it is now."""

    def __init__(
        self,
        settings: Settings,
        cases: Cases,
        allowing: Allowing,
        index: Callable[[], Index],
        site: Callable[[], Site],
    ) -> None:
        self._files = settings.files
        self._cases = cases
        self._asked = AskedCases(cases)
        self._allowing = allowing
        self._index = index
        self._site = site
        self._boot_id = boot_id()

    def services(self) -> Mapping[str, tuple[Service, Remote]]:
        """The services whose work others do."""
        services = self._site().services
        return {name: (s, s.pipeline.remote) for name, s in services.items() if s.pipeline.remote is not None}

    def ask(self) -> None:
        """Send what waits for its turn to its vendor's node; a case whose answer came meanwhile goes on with it."""
        services = self.services()
        for record in self._asked.to_ask(services):
            service, remote = services[record.case.service]
            look = self._seen(record, remote)
            if look.is_whole and not look.strange and not self._is_busy(record, remote):
                if look.quiet_after_boot_us <= boot_us():
                    self._asked.answered(record.case.key)
            elif reason := self._obstacle(record, service, remote):
                self._park(record, reason)
            else:
                self._ask(record, remote)

    def _ask(self, record: CaseRecord, remote: Remote) -> None:
        case = record.case
        debt = Debt(remote.peer, case.instances, rules=case.rules)
        self._asked.ask(
            record,
            remote.peer,
            remote.within,
            lambda connection: ask(connection, case.key, case.study_instance_uid, record.priority, debt),
        )
        log.info("vendor asked", case=case.key, service=case.service, peer=remote.peer, images=len(case.instances))

    def _obstacle(self, record: CaseRecord, service: Service, remote: Remote) -> str:
        if conflict := self._index().conflict(record.case.study_instance_uid):
            return f"the study's instances disagree on the patient: {conflict}"
        if refusal := self._allowing.refusal(service):
            return refusal
        peer = self._site().rules.peers.by_name(remote.peer)
        if peer is None:
            return f"{service.name} asks peer {remote.peer}, and the rules file has no such peer"
        if peer.obstacle:
            return f"{service.name} asks peer {peer.name}, to which nothing can be sent: {peer.obstacle}"
        return ""

    def look(self) -> int | None:
        """Let go on what is answered, park what waited too long; gives the boot time of the next look, if one waits."""
        services, taken = self.services(), set[tuple[str, str]]()
        next_look: int | None = None
        for asked in self._asked.open(utc_us() - LATE_WITHIN_US, NO_ANSWER):
            record = asked.record
            _, remote = services.get(record.case.service, (None, None))
            place = record.case.study_instance_uid, asked.peer
            if remote is None or remote.peer != asked.peer:
                self._end_late(asked, lambda _: "; its service is not installed any more, or asks another node")
                continue
            if place in taken or self._is_busy(record, remote):
                continue
            taken.add(place)
            look = self._seen(record, remote)
            if not look.is_whole:
                self._end_late(asked, partial(self._why, look))
            elif look.quiet_after_boot_us <= boot_us():
                self._asked.answered(record.case.key)
                log.info("vendor answered", case=record.case.key, peer=asked.peer, objects=len(look.objects))
            else:
                next_look = min(next_look or look.quiet_after_boot_us, look.quiet_after_boot_us)
        return next_look

    def _is_busy(self, record: CaseRecord, remote: Remote) -> bool:
        return self._asked.is_busy(record.case.study_instance_uid, remote.peer)

    def _seen(self, record: CaseRecord, remote: Remote) -> _Look:
        found = self._index().answers(record.case.study_instance_uid, remote.peer)
        free = self._asked.free([one.sop_instance_uid for one in found])
        objects = [one for one in found if one.sop_instance_uid in free]
        kinds = {one.sop_class_uid: kind_of(one.sop_class_uid) for one in objects}
        strange = [uid for uid, kind in kinds.items() if kind not in remote.results]
        missing = [kind for kind in remote.results if kind not in kinds.values()]
        came = [one.received_boot_us for one in objects if one.boot_id == self._boot_id]
        quiet_us = int(remote.quiet * 1_000_000)
        return _Look(objects, missing, strange, max(came) + quiet_us if came else 0)

    def _end_late(self, asked: AskedCase, why: Callable[[AskedCase], str]) -> None:
        """Park a case that waited too long, or whose images the node does not take."""
        if asked.record.state != "asked":
            return
        count, reason = self._asked.unsent(asked.record.case.key, *ENDED_UNSENT)
        if count:
            self._park(asked.record, f"the images cannot be sent to {asked.peer}: {reason}")
        elif utc_us() >= asked.until_utc_us:
            within_s = (asked.until_utc_us - asked.asked_utc_us) / 1e6
            self._park(asked.record, f"{NO_ANSWER} from {asked.peer} within {_in_words(within_s)}{why(asked)}")

    def _why(self, look: _Look, asked: AskedCase) -> str:
        told = f"; {', '.join(look.missing)} did not come" if look.objects else ""
        count, reason = self._asked.unsent(asked.record.case.key, *STILL_OWED)
        if count:
            told += f"; {count} images could not be sent to it{f': {reason}' if reason else ' yet'}"
        aside = self._index().asides_of_peer(asked.peer, asked.asked_utc_us)
        if aside:
            told += f"; of what it sent since then, {len(aside)} are kept aside: {aside[-1].reason}"
        return told

    def _park(self, record: CaseRecord, reason: str) -> None:
        log.warning("case parked", case=record.case.key, reason=reason)
        self._cases.park(record.case.key, record.attempt, reason)

    # --- a step of the engine

    def concerns(self, key: str) -> bool:
        """Whether a vendor's node does the work of this case."""
        return self._asked.is_asked(key)

    def take_up(self, record: CaseRecord, service: Service) -> None:
        """Look at an answer; what it consists of are the results of the case afterwards. Raises Permanent."""
        remote = service.pipeline.remote
        if remote is None:
            raise Permanent(f"service {service.name} asks no vendor's node any more")
        look = self._seen(record, remote)
        if len(look.objects) > MOST_OBJECTS:
            raise Permanent(f"{remote.peer} answered with {len(look.objects)} objects, more than {MOST_OBJECTS}")
        if refused := self._refused(record, remote, look.objects):
            self._asked.refuse(record, refused)
            told = "; ".join(dict.fromkeys(refused.values()))
            raise Permanent(f"the answer of {remote.peer} is not delivered: {told}")
        if look.missing:
            raise Permanent(f"the answer of {remote.peer} lacks {', '.join(look.missing)}")
        results = [_result(record, one) for one in look.objects]
        self._cases.add_results(record.case.key, results, lambda _: None, is_last=False)

    def _refused(self, record: CaseRecord, remote: Remote, objects: Sequence[Instance]) -> dict[str, str]:
        """Why objects are no answer, by their UIDs."""
        index, case = self._index(), record.case
        study, image = index.study(case.study_instance_uid), index.instance(case.instances[0])
        if study is None or image is None:
            raise Permanent("the images that were sent are not in the archive any more")
        known = {one.sop_instance_uid for one in study.instances}
        answers = [one.sop_instance_uid for one in index.answers(case.study_instance_uid, remote.peer)]
        known |= set(answers) - self._asked.refusals(answers).keys()
        known -= self._asked.rejected(case.study_instance_uid)
        asked = Asked(image.attributes, study.issuer, frozenset(case.instances), known)
        refused = {}
        for one in objects:
            kind = kind_of(one.sop_class_uid)
            if kind is None or kind not in remote.results:
                named = one.attributes.get("Modality", ("?",))[0][:16]
                reason = f"it holds an object ({named}, {one.sop_class_uid}) that {case.service} does not announce"
            else:
                reason = objection(one, Path(self._files / one.path), asked)
                reason = f"{kind.upper()}: {reason}" if reason else ""
            if reason:
                refused[one.sop_instance_uid] = reason
        return refused


def _result(record: CaseRecord, one: Instance) -> ResultRecord:
    kind = kind_of(one.sop_class_uid)
    assert kind is not None
    return ResultRecord(
        one.sop_instance_uid, record.case.key, kind, one.sop_class_uid, one.series_instance_uid, one.path
    )


def _in_words(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
