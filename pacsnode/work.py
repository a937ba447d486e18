"""The parts of `pacsnode work`, connected: watcher, engine, compute child, senders. No pixel decoded, no torch."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pacsnode.allowing import Allowing
from pacsnode.archive import numbers
from pacsnode.archive.cases import Cases
from pacsnode.archive.confirmations import Asked, Confirmations
from pacsnode.archive.index import Index
from pacsnode.archive.recovery import recover
from pacsnode.archive.rule_versions import RuleVersions
from pacsnode.archive.store import Archive
from pacsnode.considering import Considering
from pacsnode.database import boot_us, utc_us
from pacsnode.deliver.learned import Learned
from pacsnode.deliver.outbox import Outbox
from pacsnode.deliver.proving import Proving, Subject
from pacsnode.deliver.ready import Route
from pacsnode.deliver.senders import Senders
from pacsnode.dimse.tls import credentials
from pacsnode.doorbell import Bell, Doorbell, Ring
from pacsnode.engine import Engine, Step
from pacsnode.errors import PacsnodeError, Transient
from pacsnode.handover import NodeIdentity
from pacsnode.infer.catalogue import NOT_ALLOWED
from pacsnode.infer.compute import ComputeKeeper
from pacsnode.infer.pipeline import Limits
from pacsnode.infer.waiting import ComputeQueue, Kind, Lines, Turn
from pacsnode.live import LiveRules
from pacsnode.owing import Site
from pacsnode.retaining import Retaining
from pacsnode.settings import Settings
from pacsnode.supervise import notify
from pacsnode.telemetry import Log
from pacsnode.telling import Telling
from pacsnode.watched import LOOK_EVERY_S
from pacsnode.workflow import Stores, Workflow

log = Log(__name__)

SWEEP_EVERY_S = 5.0
SETTLE_S = 0.25
LONGEST_SETTLE_S = 2.0
"""While images come in, work lets them: their study is looked at once, not at each of them. Well above the doorbell's
`RECEIVED_EVERY_S`."""
CASES_AT_ONCE = 16
"""Most wait for the child: so many that images of one service find each other, and one device is kept busy."""
KEEP_RUNS_S = 7 * 86400.0
KEEP_NUMBERS_S = 90 * 86400.0
"""Some hundred bytes a case: enough to compare two services over a quarter, without their outlines."""
LOOK_AT_RUNS_EVERY_S = 3600.0
CONVERT_LIMITS = Limits(time_s=300.0, memory_mb=6000)
CONVERT_PRIORITY = 10
"""As a case of routine has it."""
WARM_LIMITS = Limits(time_s=600.0, memory_mb=16_000)


class Work:
    """One work process. `start`, then `run`, then `close`."""

    def __init__(self, settings: Settings, identity: NodeIdentity) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._versions = RuleVersions(settings.node_db)
        self._allowing = Allowing(settings.node_db)  # before the services are read: what is allowed meanwhile is seen
        self._live = LiveRules(settings, self._versions)
        self._doorbell = Doorbell(settings.doorbell)
        self._bell = Bell(settings.doorbell)
        self._cases = Cases(settings.node_db)
        self._outbox = Outbox(settings.node_db, settings.delivery_give_up_days * 86400)
        self._archive = Archive(settings.files, settings.index_db, "work", minimum_free_mb=0, on_rows=lambda: None)
        child = [sys.executable, "-m", "pacsnode.child"]  # started with its first job
        self._keepers = [ComputeKeeper(child, child_environment(settings)) for _ in range(2)]
        self._lines = Lines(*map(ComputeQueue, self._keepers))
        stores = Stores(self._archive, settings.index_db, self._cases, self._allowing)
        self._workflow = Workflow(settings, identity, stores, self._lines, lambda: self._site)
        self._telling = Telling(settings, identity, stores, self._workflow, self._lines.here)
        self._considering = Considering(
            settings, self._cases, self._workflow.owing, lambda: self._site, self._doorbell.released_boot_us
        )
        self._confirmations = Confirmations(settings.index_db)
        self._learned = Learned(settings.node_db)
        self._senders = self._made_senders()
        self._engine = Engine(
            settings.engine_url,
            "work",
            [
                Step("infer", self._workflow.infer),
                Step("encode", self._workflow.encode),
                Step("keep reports", lambda key: self._keep(key, self._workflow.keep_reports)),
                Step("draw", self._workflow.draw),
                Step("keep pictures", lambda key: self._keep(key, self._workflow.keep_pictures)),
            ],
            self._park,
        )
        self._retaining = Retaining(settings, lambda: self._site.rules.peers)
        self._looked_at_runs_s = 0.0
        self._some_held = threading.Event()
        self._some_held.set()

    def _made_senders(self) -> Senders:
        route = Route(
            self._settings.ae_title,
            self._workflow.file_of,
            self._workflow.owing.forbidden,
            self._stopping.is_set,
            credentials(self._settings),
            self._convert,
            self._learned.learn,
        )
        return Senders(
            self._outbox,
            route,
            lambda name: self._site.rules.peers.by_name(name),
            Proving(route, self._confirmations, self._describe),
            self._settings.zone,
        )

    @property
    def _site(self) -> Site:
        return self._live.site

    def start(self) -> None:
        """Take up what a stopped or killed process left."""
        self._live.record()
        self._allowing.begin(self._site.services)
        recover(self._archive, self._settings.index_db)
        self._engine.launch()
        for record in self._cases.running():
            self._resume(record.case.key, record.attempt)
        self._senders.wake()
        self._retaining.start()
        self._telling.start(lambda: self._site, self._senders.wake)
        threading.Thread(target=self._warm, name="warm", daemon=True).start()
        log.info("working", rules=self._site.rules.hash[:12], services=",".join(sorted(self._site.services)))

    def run(self, stop: threading.Event, watchdog_s: float | None) -> None:
        """Watch until `stop`: decide what changed, open what is whole, start what waits."""
        threading.Thread(target=self._ring_at_stop, args=(stop,), name="stop", daemon=True).start()
        while not stop.is_set():
            self._take_over_allowed()
            while self._considering.consider_changes():
                notify("WATCHDOG=1")
                self._live.look()
            next_look = self._considering.open_whole_cases()
            vendors = self._workflow.vendors
            vendors.ask()
            next_look = _sooner(next_look, vendors.look())
            next_look = _sooner(next_look, self._workflow.servers.look())
            for is_served in (False, True):
                self._take(is_served=is_served)
            self._senders.wake()
            self._telling.wake()
            self._free_old_runs()
            notify("WATCHDOG=1")
            sleep_s = min(SWEEP_EVERY_S, watchdog_s or SWEEP_EVERY_S)
            if next_look is not None:
                sleep_s = min(sleep_s, (next_look - boot_us()) / 1e6)
            if self._sleep(sleep_s) == "received":
                self._let_images_come()

    def _take(self, *, is_served: bool) -> None:
        """Start what may run: those that wait for an inference server take no place from the others."""
        waiting, served = self._workflow.vendors.services().keys(), self._workflow.servers.services()
        for record in self._cases.take(CASES_AT_ONCE, waiting, served, is_served=is_served):
            self._engine.start(record.case.key, record.attempt)

    def _sleep(self, sleep_s: float) -> Ring:
        """Until it rings or the time is over; the rules file is looked at meanwhile."""
        until_s = time.monotonic() + sleep_s
        while True:
            left_s = until_s - time.monotonic()
            ring = self._doorbell.wait(min(left_s, LOOK_EVERY_S))
            if self._live.look() or ring or left_s <= LOOK_EVERY_S:
                return ring

    def _take_over_allowed(self) -> None:
        """After `pacsnode models allow` or `install`: the services as they are now, and the cases that waited."""
        if self._allowing.has_grown():
            self.reload()
            self._live.look()
            self._some_held.set()
        if not self._some_held.is_set():
            return
        self._some_held.clear()
        for record in self._cases.parked_because(NOT_ALLOWED):
            service = self._site.services.get(record.case.service)
            if service is not None and not self._allowing.refusal(service):
                self._cases.retry(record.case.key)
                log.info("case goes on, its service is allowed now", case=record.case.key, service=service.name)

    def _let_images_come(self) -> None:
        until_s = time.monotonic() + LONGEST_SETTLE_S
        while time.monotonic() < until_s:
            if self._doorbell.wait(SETTLE_S) != "received":
                return

    def reload(self) -> None:
        """Let the thread that runs read rules, peers and services again; a bad file changes nothing."""
        self._live.ask()
        self._bell.ring()

    def close(self, grace_s: float) -> None:
        """Let steps and sends end for a while; what is left is taken up at the next start."""
        self._stopping.set()
        self._senders.stop(grace_s)
        self._retaining.close(grace_s)
        self._telling.close(grace_s)
        self._engine.close(int(grace_s))
        for keeper in self._keepers:
            keeper.close()
        self._archive.close()
        self._considering.close()
        self._doorbell.close()
        self._bell.close()
        self._cases.close()
        self._allowing.close()
        self._outbox.close()
        self._confirmations.close()
        self._learned.close()
        self._versions.close()

    def _resume(self, key: str, attempt: int) -> None:
        """The engine has taken up what it knew; what it did not, or gave up at a stop, starts again."""
        self._engine.start(key, attempt)
        record = self._cases.get(key)
        if record is not None and record.state == "running" and not self._engine.is_unfinished(key, attempt):
            self._engine.start(key, self._cases.run_again(key))

    def _ring_at_stop(self, stop: threading.Event) -> None:
        stop.wait()
        self._bell.ring()

    def _keep(self, key: str, keep: Callable[[str], None]) -> None:
        keep(key)
        self._senders.wake()
        self._bell.ring()

    def _park(self, key: str, attempt: int, reason: str) -> None:
        if self._stopping.is_set():  # cut by the stop, not by a fault of its own: the next start runs it again
            raise Transient("the node is stopping")
        self._workflow.park(key, attempt, reason)
        if reason.startswith(NOT_ALLOWED):  # it may have been allowed at this very moment
            self._some_held.set()
        self._bell.ring()

    def _convert(self, source: Path, transfer_syntax_uid: str, target: Path) -> None:
        """Have the compute process write an archived object anew for a destination."""
        request = {
            "source": str(source.absolute()),
            "transfer_syntax_uid": transfer_syntax_uid,
            "target": str(target.absolute()),
        }
        self._lines.here.call("convert", request, CONVERT_LIMITS, Turn(CONVERT_PRIORITY, Kind.REPORT))

    def _describe(self, sop_instance_uids: Sequence[str]) -> dict[str, Subject]:
        """Instances as a destination is asked for them."""
        index = Index(self._settings.index_db)
        try:
            found = [index.instance(uid) for uid in sop_instance_uids]
        finally:
            index.close()
        return {
            one.sop_instance_uid: Subject(
                Asked(one.sop_class_uid, one.sop_instance_uid, one.dataset_sha256),
                one.study_instance_uid,
                one.series_instance_uid,
            )
            for one in found
            if one is not None
        }

    def _warm(self) -> None:
        """Load the models before the first study waits for them."""
        ours = [s for s in self._site.services.values() if s.pipeline.remote is None]
        served = [s for s in ours if s.pipeline.http is not None]
        for line, of_line in ((self._lines.here, [s for s in ours if s not in served]), (self._lines.served, served)):
            services = [(str(s.folder.absolute()), s.bundle_hash) for s in of_line]
            if line is self._lines.served and not services:
                continue
            request = {"services": services, "device": self._settings.device}
            try:
                reply = line.call("warm", request, WARM_LIMITS, Turn(0, Kind.INFER))
                log.info("models loaded", device=reply["device"], services=len(services))
            except PacsnodeError as error:
                log.error("models could not be loaded ahead; cases will say why", problem=str(error))

    def _free_old_runs(self) -> None:
        """Findings are kept some days for an operator's look, then freed; never those of an unfinished case."""
        if time.monotonic() - self._looked_at_runs_s < LOOK_AT_RUNS_EVERY_S and self._looked_at_runs_s:
            return
        self._looked_at_runs_s = time.monotonic()
        for folder in self._settings.runs.iterdir():
            record = self._cases.get(folder.name)
            done = record is not None and record.state in ("done", "withdrawn")
            if done and time.time() - folder.stat().st_mtime > KEEP_RUNS_S:
                shutil.rmtree(folder)
        with self._cases.transaction() as connection:
            numbers.forget(connection, utc_us() - round(KEEP_NUMBERS_S * 1e6))


def _sooner(one: int | None, other: int | None) -> int | None:
    return min((at for at in (one, other) if at is not None), default=None)


def child_environment(settings: Settings) -> dict[str, str]:
    """What the compute child is started with: its share of the cores, and a C library that keeps the memory of a case
    for the next one (a volume's pages, new from the system, cost a second of its time); it gives back what it rests on.
    """
    threads = settings.compute_threads or max(1, (os.cpu_count() or 2) - 1)
    told = {"OMP_NUM_THREADS": str(threads), "PACSNODE_LOG_LEVEL": settings.log_level}
    return {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)} | dict(os.environ) | told
