"""Retention as a process does it: finish what was begun, ask the archive, remove what it confirmed, raise the alarm.

In: settings and the peers of the rules file. Out: a sweep at start and then every hour, or whenever the disk is nearly
full. One process at a time; never in the receiving one. A full disk makes nothing go that may not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pacsnode import database
from pacsnode.archive.confirmations import MOST_OPEN, Asked, Confirmations
from pacsnode.archive.files import free_mb
from pacsnode.archive.retention import OBSTACLES, Keep, Retention, Survey
from pacsnode.deliver import proof
from pacsnode.dimse.tls import credentials
from pacsnode.errors import ConfigError, Permanent, Transient
from pacsnode.peers import Directory, Peer
from pacsnode.settings import Settings
from pacsnode.telemetry import Log

log = Log(__name__)

SWEEP_EVERY_S: Final = 3600.0
SWEEP_WHEN_LOW_EVERY_S: Final = 300.0
LOOK_AT_DISK_EVERY_S: Final = 30.0

LOCK: Final = "retention.lock"
BUSY: Final = "retention is at work in another process; try again in a minute"


@dataclass(frozen=True)
class Swept:
    """What one sweep did. `problem`: why the archive could not be asked; `alarm`: why the disk stays too full."""

    unlinked: int
    asked: int
    removed: int
    problem: str
    alarm: str


def archive_peer(settings: Settings, peers: Directory) -> Peer | None:
    """The peer that confirms, None where retention is off. Raises ConfigError for one that cannot be asked."""
    if not settings.retention_keep_days:
        return None
    where = "PACSNODE_RETENTION_ARCHIVE"
    peer = peers.by_name(settings.retention_archive)
    if peer is None:
        raise ConfigError(f"{settings.rules} has no peer {settings.retention_archive}", where=where)
    if peer.type != "dimse":
        raise ConfigError(f"peer {peer.name} has type: {peer.type}; an archive has type: dimse", where=where)
    if peer.obstacle:
        raise ConfigError(f"peer {peer.name} cannot be asked what it holds: {peer.obstacle}", where=where)
    return peer


def retention(settings: Settings) -> Retention:
    """Retention by these settings; to be closed."""
    keep = Keep(settings.retention_keep_days, settings.retention_archive) if settings.retention_keep_days else None
    return Retention(settings.files, settings.index_db, settings.node_db, keep)


def sweep(settings: Settings, peers: Directory, stopping: Callable[[], bool]) -> Swept:
    """One round. Raises ConfigError while another process is at it, or where the archive cannot be asked at all."""
    archive = archive_peer(settings, peers)
    with (
        database.locked(settings.home / LOCK, wait=False, busy=BUSY),
        closing(retention(settings)) as kept,
    ):
        unlinked, asked, problem = kept.finish(), 0, ""
        if archive is not None:
            asked, problem = _ask(settings, archive, kept, stopping)
        removed = 0
        for standing in kept.standings():
            if not standing.obstacle and not stopping():
                removed += kept.remove(standing.study_instance_uid)
        swept = Swept(unlinked, asked, removed, problem, _alarm(settings, kept, removed))
    if removed:
        log.info("images removed that the archive holds", archive=settings.retention_archive, instances=removed)
    return swept


def _ask(settings: Settings, archive: Peer, kept: Retention, stopping: Callable[[], bool]) -> tuple[int, str]:
    """How many instances the archive was asked about, and why not about the rest."""
    with closing(Confirmations(settings.index_db)) as confirmations:
        asker = proof.Asker(settings.ae_title, credentials(settings), confirmations, stopping)
        try:
            outcome = proof.ask(archive, asker, _unasked(kept, confirmations.waiting(archive.name)))
        except (Transient, Permanent, ConfigError) as error:
            log.warning("the archive cannot be asked what it holds", archive=archive.name, reason=error)
            return 0, str(error)
    return outcome.asked, ""


def _unasked(kept: Retention, waiting: set[str]) -> Iterator[Asked]:
    new = (one for one in kept.unproven() if one.sop_instance_uid not in waiting)
    return islice(new, max(0, MOST_OPEN - len(waiting)))


def is_low(settings: Settings) -> bool:
    """Whether images are refused for want of space."""
    return free_mb(settings.files) < settings.minimum_free_mb


def _alarm(settings: Settings, kept: Retention, removed: int) -> str:
    """Log that a person is needed; why nothing more can go, "" where there is room."""
    if not is_low(settings):
        return ""
    reason = why_nothing_goes(settings, kept.survey())
    log.error(
        "disk nearly full, images are refused, and nothing may go: free space by hand",
        free_mb=free_mb(settings.files),
        removed_just_now=removed,
        reason=reason,
    )
    return reason


def why_nothing_goes(settings: Settings, survey: Survey) -> str:
    """What keeps the images here, for a person."""
    if not settings.retention_keep_days:
        return "retention is off"
    stays = [
        f"{survey.staying_studies[key]} studies: {why}" for key, why in OBSTACLES.items() if survey.staying_studies[key]
    ]
    young = f"{survey.younger_studies} studies: younger than {settings.retention_keep_days:g} days"
    return "; ".join([*stays, young] if survey.younger_studies else stays) or "nothing is held"


class Retaining:
    """The thread of a long-running process that sweeps. `close` lets the present step end."""

    def __init__(self, settings: Settings, peers: Callable[[], Directory]) -> None:
        self._settings = settings
        self._peers = peers
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Sweep now, and go on."""
        self._thread.start()

    def close(self, grace_s: float) -> None:
        """End after the present study or message."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(grace_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            swept_s = time.monotonic()
            try:
                sweep(self._settings, self._peers(), self._stopping.is_set)
            except ConfigError as error:  # busy, or rules that lost the archive: the next round sees
                log.warning("no retention now", reason=error)
            except Exception:  # the thread must not end: the disk would fill without a word
                log.exception("retention failed; it is tried again")
            while not self._stopping.wait(LOOK_AT_DISK_EVERY_S):
                every_s = SWEEP_WHEN_LOW_EVERY_S if is_low(self._settings) else SWEEP_EVERY_S
                if time.monotonic() - swept_s >= every_s:
                    break
