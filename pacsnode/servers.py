"""Cases that an inference server keeps waiting: which of them is tried again, and when.

    parked, "no inference server …"       → now and then one of the service is tried; once the server answers, all go on
    parked, "the inference server failed" → each is tried again by itself, ever later, a few times

`look` is called by the watcher of `work` alone, `answered` by the engine's threads. Nothing waits here: what is awaited
stands in `node.db`, so a restart loses nothing but the pace. Asks no server itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pacsnode.archive.case_rows import CaseRecord
from pacsnode.archive.cases import Cases
from pacsnode.database import boot_us, utc_us
from pacsnode.infer.server import NO_SERVER, SERVER_FAILED
from pacsnode.owing import Site
from pacsnode.telemetry import Log

log = Log(__name__)

FIRST_US: Final = 2_000_000
LONGEST_US: Final = 120_000_000
"""Between two looks whether a server is back: each is one case, so that this may be often."""
AGAIN_US: Final = 5_000_000
LONGEST_AGAIN_US: Final = 900_000_000
"""Between two tries of a case at which a server failed: 5 s, 20 s, 80 s …"""
MOST_TRIES: Final = 8
"""Of such a case, about an hour in all: it may be the case itself that the server cannot do."""
GIVE_UP_US: Final = 7 * 86_400_000_000
"""From the start of the case on: an older one waits for `jobs retry`."""


@dataclass
class _Trying:
    """How often, and when next, a service is tried that has no server."""

    tries: int
    next_boot_us: int


class Servers:
    """Lets cases go on whose inference server may answer again. `site`: as it is now."""

    def __init__(self, cases: Cases, site: Callable[[], Site]) -> None:
        self._cases = cases
        self._site = site
        self._lock = threading.Lock()
        self._answered: set[str] = set()
        self._trying: dict[str, _Trying] = {}

    def services(self) -> frozenset[str]:
        """The services that ask an inference server."""
        return frozenset(name for name, one in self._site().services.items() if one.pipeline.http is not None)

    def answered(self, service: str) -> None:
        """A case of this service got an answer, whatever it was."""
        with self._lock:
            self._answered.add(service)

    def look(self) -> int | None:
        """Put back in the line what is tried now; gives the boot time of the next look, if something waits."""
        services = self.services()
        with self._lock:
            answered, self._answered = self._answered, set()
        if not services:
            return None
        looks = [*self._look_at_absent(services, answered), *self._look_at_failed(services)]
        return min(looks, default=None)

    def _parked(self, beginning: str, services: frozenset[str]) -> list[CaseRecord]:
        since = utc_us() - GIVE_UP_US
        parked = self._cases.parked_because(beginning)
        return [one for one in parked if one.case.service in services and one.case.started_utc_us > since]

    def _look_at_absent(self, services: frozenset[str], answered: set[str]) -> list[int]:
        waiting: dict[str, list[CaseRecord]] = {}
        for record in self._parked(NO_SERVER, services):
            waiting.setdefault(record.case.service, []).append(record)
        self._trying = {name: one for name, one in self._trying.items() if name in waiting}
        looks = []
        for service, records in waiting.items():
            if service in answered:
                self._trying.pop(service, None)
                self._go_on(*records)
                continue
            trying = self._trying.setdefault(service, _Trying(0, boot_us() + FIRST_US))
            if trying.next_boot_us <= boot_us():
                trying.tries += 1
                trying.next_boot_us = boot_us() + min(FIRST_US << min(trying.tries, 20), LONGEST_US)
                self._go_on(min(records, key=_last_tried))  # in turn: none can keep the others from it
            looks.append(trying.next_boot_us)
        return looks

    def _look_at_failed(self, services: frozenset[str]) -> list[int]:
        looks = []
        for record in self._parked(SERVER_FAILED, services):
            if record.attempt >= MOST_TRIES:
                continue
            left_us = _last_tried(record) + min(AGAIN_US << 2 * (record.attempt - 1), LONGEST_AGAIN_US) - utc_us()
            if left_us <= 0:
                self._go_on(record)
            else:
                looks.append(boot_us() + left_us)
        return looks

    def _go_on(self, *records: CaseRecord) -> None:
        for record in records:
            self._cases.retry(record.case.key)
            log.info(
                "case is tried again", case=record.case.key, service=record.case.service, attempt=record.attempt + 1
            )


def _last_tried(record: CaseRecord) -> int:
    return record.finished_utc_us or 0
