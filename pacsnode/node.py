"""Composition root: settings in, connected parts out. One function a role; each runs until SIGTERM.

`scp` imports neither torch nor dbos nor highdicom; `work` decodes no pixel.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from pacsnode import __version__, database, schema
from pacsnode.archive.recovery import recover
from pacsnode.archive.refusals import Refusals
from pacsnode.archive.rule_versions import RuleVersions
from pacsnode.archive.store import Archive
from pacsnode.dimse import tls
from pacsnode.dimse.tls import Incoming
from pacsnode.doorbell import Bell
from pacsnode.handover import NodeIdentity, Stored, StoreRequest
from pacsnode.live import WORK_LOCK, LivePeers
from pacsnode.receive import committing
from pacsnode.receive.protocol import TimeLimits
from pacsnode.receive.server import ListenOptions, Server, TlsPort
from pacsnode.receive.site import SiteAdmission
from pacsnode.settings import Settings
from pacsnode.supervise import Supervisor, notify, watchdog_interval_s
from pacsnode.telemetry import Log
from pacsnode.watched import LOOK_EVERY_S

log = Log(__name__)

STOP_GRACE_S = 10.0
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3
"""Of glibc's malloc.h."""
NICENESS = 5
"""Of `work`: whoever receives has the first right to the processor."""


def run_scp(settings: Settings) -> None:
    """Receive until SIGTERM."""
    _keep_memory_flat()
    schema.prepare_home(settings)
    schema.check(settings)
    busy = f"another pacsnode scp runs on {settings.home}; stop it first"
    with (
        database.locked(settings.home / "scp.lock", wait=False, busy=busy),
        closing(RuleVersions(settings.node_db)) as versions,
    ):
        live, incoming = LivePeers(settings, versions), _incoming(settings)
        with _signals(lambda: _reload(live, incoming)) as stop, closing(Refusals(settings.index_db)) as refusals:
            admission = SiteAdmission(settings, refusals, lambda: live.directory)
            _receive(settings, admission, incoming, lambda: _wait(stop, live.look))


def _keep_memory_flat() -> None:
    """Few heaps for many threads, and large buffers outside of them.

    glibc gives threads heaps of their own and keeps what was freed inside one: after each peak of associations the
    process stayed larger by 10 to 20 MB. Without glibc there is no such function, and nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, 128 << 10)


def _incoming(settings: Settings) -> Incoming | None:
    """What TLS is accepted with; None where it is off."""
    if settings.tls_certificate is None:
        return None
    return Incoming(tls.credentials(settings), settings.tls_client_certificate)


def _reload(live: LivePeers, incoming: Incoming | None) -> None:
    live.reload()
    if incoming is not None:
        incoming.reload()


def _receive(settings: Settings, admission: SiteAdmission, incoming: Incoming | None, wait: Callable[[], None]) -> None:
    bell = Bell(settings.doorbell)
    archive = Archive(
        settings.files,
        settings.index_db,
        "scp",
        minimum_free_mb=settings.minimum_free_mb,
        on_rows=bell.received,
        durability=settings.durability,
    )
    try:
        recover(archive, settings.index_db)
        options = ListenOptions(
            settings.dicom_host,
            settings.dicom_port,
            settings.maximum_associations,
            limits=TimeLimits(idle_s=settings.association_idle_s),
            tls=None if incoming is None else TlsPort(settings.tls_port, incoming.context),
        )
        with (
            committing.notices(settings, lambda: admission.peers) as notices,
            Server(options, admission, archive, _log_stored, notices, bell.released) as server,
        ):
            log.info(
                "receiving",
                ae_title=settings.ae_title,
                host=settings.dicom_host,
                port=server.port,
                tls_port=server.tls_port,
            )
            notify("READY=1")
            gc.freeze()  # what stands now stays: no collection need look at it again
            wait()
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
    with database.locked(settings.home / WORK_LOCK, wait=False, busy=busy):
        identity = NodeIdentity(settings.ae_title, schema.device_uid(settings), __version__)
        os.nice(NICENESS)
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


def _wait(stop: threading.Event, look: Callable[[], bool]) -> None:
    interval_s = watchdog_interval_s() or LOOK_EVERY_S
    while not stop.wait(min(interval_s, LOOK_EVERY_S)):  # a signal that another thread got does not wake this one
        notify("WATCHDOG=1")
        look()
