"""The life of a case, top to bottom: with `considering`, the only module that knows the order of the stages.

    a study changed → consider (decide) → candidates → whole? → open a case (`considering`)
    → infer → encode → keep and owe SR and SEG → draw → keep and owe pictures, PDF, KO and PR

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

from pacsnode import findings_files
from pacsnode.allowing import Allowing
from pacsnode.archive import notes, numbers
from pacsnode.archive.case_rows import CaseRecord, ResultRecord, replaced_by, result_record
from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.archive.store import Archive
from pacsnode.deliver.debts import owe, withdraw
from pacsnode.dicom.rejection import TITLES
from pacsnode.dimse.part10 import read_meta
from pacsnode.encode.results import is_recorded, read_objects
from pacsnode.errors import Permanent, Rejected, Transient
from pacsnode.handover import SHIPPED, Case, Form, NodeIdentity, ResultKind, StoreRequest
from pacsnode.infer.catalogue import Service
from pacsnode.infer.compute import Message
from pacsnode.infer.pipeline import Limits
from pacsnode.infer.server import NO_SERVER, SERVER_FAILED
from pacsnode.infer.waiting import Kind, Lines, Turn
from pacsnode.owing import Owing, Site, in_form
from pacsnode.readings import Readings, readings_of
from pacsnode.servers import MOST_TRIES, Servers
from pacsnode.settings import Settings
from pacsnode.telemetry import Log
from pacsnode.vendors import Vendors

log = Log(__name__)

ENCODE_LIMITS = Limits(time_s=300.0, memory_mb=6000)
REPORTS: tuple[ResultKind, ...] = ("seg", "sr")
PICTURES: tuple[ResultKind, ...] = ("sc", "pdf", "ko", "pr")
"""Every kind is made, whatever the rules ask for today: the SR refers to the SEG, one key has one SR, and a rule that
joins the case later finds what it asks for."""


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
        lines: Lines,
        site: Callable[[], Site],
    ) -> None:
        self._settings = settings
        self._node = node
        self._stores = stores
        self._cases = stores.cases
        self._lines = lines
        self._site = site
        self._thread = threading.local()
        self.owing = Owing(stores.cases, self._index, site)
        self.servers = Servers(stores.cases, site)
        self.vendors = Vendors(settings, stores.cases, stores.allowing, self._index, site)

    # --- the steps of a case (called by the engine; each may be repeated)

    def infer(self, key: str) -> None:
        """Run the model; findings lie in `runs/<key>/` afterwards. A vendor's answer is judged, and is the result."""
        record = self._record(key)
        folder = self._settings.runs / key
        if (folder / findings_files.RECORD).exists() or self._cases.results(key):
            return
        service = self._service(record)
        if self.vendors.concerns(key):
            self.vendors.take_up(record, service)
            return
        begun = time.monotonic()
        request = {
            "service": str(service.folder.absolute()),
            "bundle_hash": service.bundle_hash,
            "files": self._files(record.case),
            "folder": str(folder.absolute()),
            "device": self._settings.device,
        }
        reply = self._run(service, request, record.priority)
        self._cases.note_timing(key, {"infer_s": time.monotonic() - begun, "network_s": reply["network_s"]})

    def encode(self, key: str) -> None:
        """Make SR and SEG; they lie in `runs/<key>/` afterwards."""
        self._encode(key, REPORTS)

    def keep_reports(self, key: str) -> None:
        """Archive SR and SEG and owe them: the reader need not wait for the pictures."""
        self._keep_and_owe(key, REPORTS, is_last=False)

    def draw(self, key: str) -> None:
        """Make pictures and what else is for viewers that show neither SR nor SEG: PDF, key objects, presentation."""
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

    def _run(self, service: Service, request: Message, priority: int) -> Message:
        """What the model of a service says. Raises Permanent, Transient."""
        pipeline = service.pipeline
        line = self._lines.here if pipeline.http is None else self._lines.served
        is_batchable = pipeline.input == "image" and pipeline.workflow is None
        try:
            reply = line.infer(request, pipeline.limits, priority, is_batchable=is_batchable)
        except Transient as error:
            if str(error).startswith(NO_SERVER):  # `servers` tries these two again, not the engine at once
                raise Permanent(f"{error}; the case goes on by itself once it is there") from error
            if str(error).startswith(SERVER_FAILED):
                raise Permanent(f"{error}; it is tried again by itself, {MOST_TRIES} times in all") from error
            raise
        except Permanent:
            self.servers.answered(service.name)
            raise
        self.servers.answered(service.name)
        return reply

    def _encode(self, key: str, kinds: tuple[ResultKind, ...]) -> None:
        record = self._record(key)
        folder = self._settings.runs / key
        if self._archived(key, kinds) or self.vendors.concerns(key):
            return
        begun = time.monotonic()
        missing = [form for form in self.owing.forms(record) if not is_recorded(folder, kinds, form)]
        for form in missing:
            self._encode_form(record, kinds, form)
        if missing:
            spent = "encode_s" if kinds == REPORTS else "draw_s"
            self._cases.note_timing(key, {spent: time.monotonic() - begun})

    def _encode_form(self, record: CaseRecord, kinds: tuple[ResultKind, ...], form: Form) -> None:
        before = [r for r in self._before(record) if r.kind == "sr"]
        predecessors = in_form(before, form)
        self._lines.here.call(
            "encode",
            {
                "case": _plain_case(record.case),
                "kinds": kinds,
                "unasked": [kind for kind in kinds if kind not in record.case.results],
                "node": [self._node.ae_title, self._node.device_uid, self._node.version],
                "sources": self._files(record.case),
                "folder": str((self._settings.runs / record.case.key).absolute()),
                "form": vars(form),
                "started": datetime.fromtimestamp(record.case.started_utc_us / 1e6, UTC)
                .astimezone(self._settings.zone)
                .isoformat(),
                "predecessors": [str((self._settings.files / r.path).absolute()) for r in predecessors],
            },
            ENCODE_LIMITS,
            Turn(record.priority, Kind.REPORT if kinds == REPORTS else Kind.PICTURE),
        )

    def _keep_and_owe(self, key: str, kinds: tuple[ResultKind, ...], *, is_last: bool) -> None:
        record = self._record(key)
        results = self._archived(key, kinds)
        if not results and not self.vendors.concerns(key):
            folder = self._settings.runs / key
            forms = [form for form in self.owing.forms(record) if is_recorded(folder, kinds, form)]
            made = [one for form in forms or [SHIPPED] for one in read_objects(folder, kinds, form)]
            results = [result_record(record.case, one, self.keep(one.path)) for one in made]
        read = self._readings(key) if is_last else None

        def enter(connection: sqlite3.Connection) -> None:
            """Owe all that is there, as the case is now: a decision may have joined it since the step began."""
            if read is not None:
                numbers.enter(connection, key, read)
            now = self._record(key)
            debts = self.owing.debts(now, self._cases.results(key))
            owe(connection, key, now.case.study_instance_uid, now.priority, debts)
            if is_last:
                self._withdraw_failures(connection, now)

        self._cases.add_results(key, results, enter, is_last=is_last)
        log.info("results kept", case=key, service=record.case.service, results=len(results), shadow=record.shadow)

    def _before(self, record: CaseRecord) -> list[ResultRecord]:
        """What a result of this case stands in place of: earlier results, and what said that there are none."""
        replaced = replaced_by(record, self._cases.of_study(record.case.study_instance_uid))
        with self._cases.reading() as connection:
            earlier = [one for r in replaced for one in notes.objects(connection, r.case.key)]
            for one in (*replaced, record):
                earlier += notes.standing_failures(connection, one.case.key)
        return earlier

    def _withdraw_failures(self, connection: sqlite3.Connection, record: CaseRecord) -> None:
        """There is a result now: the report supersedes what said that there is none, and a note hides its page."""
        title = TITLES["quality"].value, f"analysed after all: case {record.case.key[:12]}"
        for one in (*replaced_by(record, self._cases.of_study(record.case.study_instance_uid)), record):
            key = one.case.key
            failures = [failure.sop_instance_uid for failure in notes.standing_failures(connection, key)]
            had, destinations = withdraw(connection, key, failures, title[1])
            notes.add_rejection(connection, key, title, had, destinations)

    def _readings(self, key: str) -> Readings | None:
        """The numbers of a case; None where its findings are not here."""
        folder = self._settings.runs / key
        if not (folder / findings_files.RECORD).exists():
            return None
        return readings_of(findings_files.load(folder, with_arrays=False))

    def _archived(self, key: str, kinds: tuple[ResultKind, ...]) -> list[ResultRecord]:
        return [r for r in self._cases.results(key) if r.kind in kinds]

    def _record(self, key: str) -> CaseRecord:
        record = self._cases.get(key)
        if record is None:
            raise Permanent("the case is not in the database any more")
        if record.state == "withdrawn":
            raise Permanent(f"withdrawn: {record.reason}")
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

    def keep(self, made: Path) -> str:
        """Archive one encoded object; what is archived already under its UID is reused. Gives its path below `files/`.

        Raises Permanent, Transient.
        """
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
