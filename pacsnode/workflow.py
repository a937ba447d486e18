"""The life of a case, top to bottom: with `considering`, the only module that knows the order of the stages.

    a study changed → consider (decide) → candidates → whole? → open a case (`considering`)
    → infer → encode → keep and owe SR and SEG → draw → keep and owe the pictures

Every step has a key and may be repeated: after a kill it is, with the same UIDs and the same bytes.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pacsnode import findings
from pacsnode.allowing import Allowing
from pacsnode.archive import numbers
from pacsnode.archive.case_rows import CaseRecord, ResultRecord, result_record
from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.archive.store import Archive
from pacsnode.deliver.outbox import owe
from pacsnode.dimse.part10 import read_meta
from pacsnode.encode.results import is_recorded, read_objects
from pacsnode.errors import Permanent, Rejected, Transient
from pacsnode.handover import Case, NodeIdentity, ResultKind, StoreRequest
from pacsnode.infer.catalogue import Service
from pacsnode.infer.pipeline import Limits
from pacsnode.infer.waiting import ComputeQueue, Kind, Turn
from pacsnode.owing import Owing, Site
from pacsnode.readings import Readings, readings_of
from pacsnode.settings import Settings
from pacsnode.telemetry import Log
from pacsnode.vendors import Vendors

log = Log(__name__)

ENCODE_LIMITS = Limits(time_s=300.0, memory_mb=6000)
REPORTS: tuple[ResultKind, ...] = ("seg", "sr")
PICTURES: tuple[ResultKind, ...] = ("sc",)
"""Every kind is made, whatever the rules ask for today: the SR refers to the SEG, and one key has one SR."""


@dataclass(frozen=True)
class Stores:
    """What the workflow remembers in."""

    archive: Archive
    index_db: Path
    cases: Cases
    allowing: Allowing


class Workflow:
    """Moves cases to results. Thread-safe: the engine's threads use it."""

    def __init__(
        self,
        settings: Settings,
        node: NodeIdentity,
        stores: Stores,
        queue: ComputeQueue,
        site: Callable[[], Site],
    ) -> None:
        self._settings = settings
        self._node = node
        self._stores = stores
        self._cases = stores.cases
        self._queue = queue
        self._site = site
        self._thread = threading.local()
        self.owing = Owing(stores.cases, self._index, site)
        self.vendors = Vendors(settings, stores.cases, stores.allowing, self._index, site)

    # --- the steps of a case (called by the engine; each may be repeated)

    def infer(self, key: str) -> None:
        """Run the model; findings lie in `runs/<key>/` afterwards. A vendor's answer is judged, and is the result."""
        record = self._record(key)
        folder = self._settings.runs / key
        if (folder / findings.RECORD).exists() or self._cases.results(key):
            return
        service = self._service(record)
        if self.vendors.concerns(key):
            self.vendors.take_up(record, service)
            return
        begun = time.monotonic()
        pipeline = service.pipeline
        reply = self._queue.infer(
            {
                "service": str(service.folder.absolute()),
                "bundle_hash": service.bundle_hash,
                "files": self._files(record.case),
                "folder": str(folder.absolute()),
                "device": self._settings.device,
            },
            pipeline.limits,
            record.priority,
            is_batchable=pipeline.input == "image" and pipeline.network is not None,
        )
        self._cases.note_timing(key, {"infer_s": time.monotonic() - begun, "network_s": reply["network_s"]})

    def encode(self, key: str) -> None:
        """Make SR and SEG; they lie in `runs/<key>/` afterwards."""
        self._encode(key, REPORTS)

    def keep_reports(self, key: str) -> None:
        """Archive SR and SEG and owe them: the reader need not wait for the pictures."""
        self._keep_and_owe(key, REPORTS, is_last=False)

    def draw(self, key: str) -> None:
        """Make the pictures for viewers that show neither SR nor SEG."""
        self._encode(key, PICTURES)

    def keep_pictures(self, key: str) -> None:
        """Archive and owe the pictures: the case is done."""
        self._keep_and_owe(key, PICTURES, is_last=True)

    def park(self, key: str, attempt: int, reason: str) -> None:
        """The case cannot go on."""
        log.warning("case parked", case=key, reason=reason)
        self._cases.park(key, attempt, reason)

    def file_of(self, sop_instance_uid: str) -> Path:
        """The archived file of an instance, received or made. Raises Permanent where there is none."""
        path = self._index().path(sop_instance_uid)
        if path is None:
            raise Permanent(f"instance {sop_instance_uid} is not in the archive")
        return self._settings.files / path

    # --- parts of the steps

    def _encode(self, key: str, kinds: tuple[ResultKind, ...]) -> None:
        record = self._record(key)
        folder = self._settings.runs / key
        if self._archived(key, kinds) or self.vendors.concerns(key) or is_recorded(folder, kinds):
            return
        begun = time.monotonic()
        predecessors = [r for r in self._cases.results(record.case.supersedes) if r.kind == "sr"]
        self._queue.call(
            "encode",
            {
                "case": _plain_case(record.case),
                "kinds": kinds,
                "node": [self._node.ae_title, self._node.device_uid, self._node.version],
                "sources": self._files(record.case),
                "folder": str(folder.absolute()),
                "started": datetime.fromtimestamp(record.case.started_utc_us / 1e6, UTC)
                .astimezone(self._settings.zone)
                .isoformat(),
                "predecessors": [str((self._settings.files / r.path).absolute()) for r in predecessors],
            },
            ENCODE_LIMITS,
            Turn(record.priority, Kind.REPORT if kinds == REPORTS else Kind.PICTURE),
        )
        spent = "encode_s" if kinds == REPORTS else "draw_s"
        self._cases.note_timing(key, {spent: time.monotonic() - begun})

    def _keep_and_owe(self, key: str, kinds: tuple[ResultKind, ...], *, is_last: bool) -> None:
        record = self._record(key)
        results = self._archived(key, kinds)
        if not results and not self.vendors.concerns(key):
            made = read_objects(self._settings.runs / key, kinds)
            results = [result_record(record.case, one, self._keep(record.case, one.path)) for one in made]
        read = self._readings(key) if is_last else None

        def enter(connection: sqlite3.Connection) -> None:
            """Owe all that is there, as the case is now: a decision may have joined it since the step began."""
            if read is not None:
                numbers.enter(connection, key, read)
            now = self._record(key)
            debts = self.owing.debts(now, self._cases.results(key))
            owe(connection, key, now.case.study_instance_uid, now.priority, debts)

        self._cases.add_results(key, results, enter, is_last=is_last)
        log.info("results kept", case=key, service=record.case.service, results=len(results), shadow=record.shadow)

    def _readings(self, key: str) -> Readings | None:
        """The numbers of a case; None where its findings are not here."""
        folder = self._settings.runs / key
        return readings_of(findings.load(folder, with_arrays=False)) if (folder / findings.RECORD).exists() else None

    def _archived(self, key: str, kinds: tuple[ResultKind, ...]) -> list[ResultRecord]:
        return [r for r in self._cases.results(key) if r.kind in kinds]

    def _record(self, key: str) -> CaseRecord:
        record = self._cases.get(key)
        if record is None:
            raise Permanent("the case is not in the database any more")
        conflict = self._index().conflict(record.case.study_instance_uid)
        if conflict:
            raise Permanent(f"the study's instances disagree on the patient: {conflict}")
        return record

    def _service(self, record: CaseRecord) -> Service:
        service = self._site().services.get(record.case.service)
        if service is None:
            raise Permanent(f"service {record.case.service} is not installed any more")
        if refusal := self._stores.allowing.refusal(service):
            raise Permanent(refusal)
        return service

    def _files(self, case: Case) -> list[str]:
        files = []
        for uid in case.instances:
            instance = self._index().instance(uid)
            if instance is None:
                raise Permanent(f"instance {uid} is not in the archive any more")
            files.append(str((self._settings.files / instance.path).absolute()))
        return files

    def _keep(self, case: Case, made: Path) -> str:
        """Archive one encoded object; what is archived already under its UID is reused. Returns its path."""
        with made.open("rb") as file:
            meta = read_meta(file)
            held = self._index().instance(meta.sop_instance_uid)
            if held is not None:
                return held.path
            request = StoreRequest(
                meta.sop_class_uid,
                meta.sop_instance_uid,
                meta.transfer_syntax_uid,
                self._node.ae_title,
                self._node.ae_title,
                "",
                "",
                "",
            )
            writer = self._stores.archive.open(request, "result")
            try:
                while piece := file.read(1 << 20):
                    writer.write([piece])
            except BaseException:
                writer.abort()
                raise
            try:
                writer.commit()
            except Rejected as error:
                if error.status == Rejected.OUT_OF_RESOURCES:
                    raise Transient(f"the archive has no room for the result: {error.comment}") from error
                raise Permanent(f"the archive refused the result: {error.comment}") from error
        held = self._index().instance(meta.sop_instance_uid)
        if held is None:
            raise Permanent("the archive holds other bytes under the result's UID")
        return held.path

    def _index(self) -> Index:
        """One reading connection a thread; threads of the engine come and go with the process."""
        if not hasattr(self._thread, "index"):
            self._thread.index = Index(self._stores.index_db)
        index: Index = self._thread.index
        return index


def _plain_case(case: Case) -> dict[str, object]:
    plain: dict[str, object] = json.loads(json.dumps(vars(case)))
    return plain
