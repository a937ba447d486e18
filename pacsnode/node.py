"""Composition root: settings in, connected parts out. One function a role; each runs until SIGTERM.

`scp` imports neither torch nor dbos nor highdicom; `work` decodes no pixel.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pacsnode import __version__, database, peers, schema
from pacsnode.archive.recovery import recover
from pacsnode.archive.store import Archive
from pacsnode.doorbell import Bell
from pacsnode.errors import ConfigError
from pacsnode.handover import NodeIdentity, Stored, StoreRequest
from pacsnode.receive.admission import Admitted, Refused
from pacsnode.receive.protocol import TimeLimits
from pacsnode.receive.server import ListenOptions, Server
from pacsnode.settings import Settings
from pacsnode.supervise import Supervisor, notify, watchdog_interval_s
from pacsnode.telemetry import Log

log = Log(__name__)

STOP_GRACE_S = 10.0


class SiteAdmission:
    """Who may associate: the peers of the rules file. `reload` swaps them whole; a bad file changes nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._peers = peers.load(settings.rules)

    def reload(self) -> None:
        """Read the peers again."""
        try:
            self._peers = peers.load(self._settings.rules)
            log.info("peers reloaded")
        except ConfigError as error:
            log.error("rules file not taken over; the last good one stays", problem=str(error))

    def admit(self, calling_ae_title: str, called_ae_title: str, address: str) -> Admitted:
        """By called AE title, calling AE title and address (PS3.8 9.3.4)."""
        if called_ae_title.strip() != self._settings.ae_title:
            raise Refused.called_ae_title(f"called {called_ae_title.strip()}, but this is {self._settings.ae_title}")
        peer = self._peers.find(calling_ae_title, address)
        if peer is None:
            raise Refused.calling_ae_title(
                f"no peer has AE title {calling_ae_title.strip()} and address {address}; enter it under `peers:`"
            )
        return Admitted(peer.name, peer.issuer, frozenset(peer.may))


def run_scp(settings: Settings) -> None:
    """Receive until SIGTERM."""
    schema.prepare_home(settings)
    schema.check(settings)
    admission = SiteAdmission(settings)
    busy = f"another pacsnode scp runs on {settings.home}; stop it first"
    with database.locked(settings.home / "scp.lock", wait=False, busy=busy), _signals(admission.reload) as stop:
        bell = Bell(settings.doorbell)
        archive = Archive(
            settings.files, settings.index_db, "scp", minimum_free_mb=settings.minimum_free_mb, on_rows=bell.ring
        )
        try:
            recover(archive, settings.index_db)
            options = ListenOptions(
                settings.dicom_host,
                settings.dicom_port,
                settings.maximum_associations,
                limits=TimeLimits(idle_s=settings.association_idle_s),
            )
            with Server(options, admission, archive, _log_stored) as server:
                log.info("receiving", ae_title=settings.ae_title, host=settings.dicom_host, port=server.port)
                notify("READY=1")
                _wait(stop)
                notify("STOPPING=1")
        finally:
            archive.close()
            bell.close()


def _log_stored(request: StoreRequest, stored: Stored) -> None:
    log.debug("stored", peer=request.peer, verdict=stored.verdict, sop_class=request.sop_class_uid)


def run_work(settings: Settings) -> None:
    """Route, complete, run cases and deliver until SIGTERM."""
    from pacsnode.work import Work  # dbos: 0.75 s to import

    schema.prepare_home(settings)
    schema.check(settings)
    busy = f"another pacsnode work runs on {settings.home}; stop it first"
    with database.locked(settings.home / "work.lock", wait=False, busy=busy):
        identity = NodeIdentity(settings.ae_title, schema.device_uid(settings), __version__)
        work = Work(settings, identity)
        with _signals(work.reload) as stop:
            try:
                work.start()
                notify("READY=1")
                work.run(stop, watchdog_interval_s())
                notify("STOPPING=1")
            finally:
                work.close(STOP_GRACE_S)


def run_serve(settings: Settings) -> None:
    """Migrate, then keep scp and work running until SIGTERM."""
    from pacsnode.checks import check_start

    applied = schema.migrate(settings)
    if applied:
        log.info("databases migrated", applied=",".join(applied))
    check_start(settings)
    sys.exit(Supervisor(("scp", "work"), essential="scp").run())


@contextmanager
def _signals(reload: Callable[[], None]) -> Iterator[threading.Event]:
    """SIGTERM and SIGINT set the event, SIGHUP reloads."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=reload, name="reload").start())
    yield stop


def _wait(stop: threading.Event) -> None:
    interval_s = watchdog_interval_s()
    while not stop.wait(interval_s):
        notify("WATCHDOG=1")
