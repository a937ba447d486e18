"""What the node says of a case beside its results: rejection notes that withdraw them, and `not analysed`.

    due in `node.db` → made by the compute child → archived → owed, and the note done, in one transaction

One thread of `work`. A kill at any moment leaves the note due: it is made again, with the same UIDs and bytes. Never
decides what is rejected or told; says nothing of a case in shadow.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pacsnode.archive import notes
from pacsnode.archive.case_rows import CaseRecord, ResultRecord, is_replaced_by
from pacsnode.archive.index import Index
from pacsnode.archive.notes import Note
from pacsnode.deliver.debts import Debt, owe, withdraw
from pacsnode.dicom.rejection import TITLES
from pacsnode.encode.results import read_objects
from pacsnode.errors import Permanent, Transient
from pacsnode.handover import Case, NodeIdentity, ResultKind
from pacsnode.infer.catalogue import NOT_ALLOWED
from pacsnode.infer.pipeline import Limits
from pacsnode.infer.waiting import ComputeQueue, Kind, Turn
from pacsnode.owing import Site
from pacsnode.settings import Settings
from pacsnode.telemetry import Log
from pacsnode.workflow import Stores, Workflow

log = Log(__name__)

LOOK_EVERY_S: Final = 30.0
LIMITS: Final = Limits(time_s=120.0, memory_mb=4000)
OF_FAILURE: Final[tuple[ResultKind, ...]] = ("sr", "sc")
_NEW_REASON: Final = "it was tried again, and another reason is told"


class Telling:
    """Makes notes that are due. `start`, `wake` whenever one may be, `close`."""

    def __init__(
        self, settings: Settings, node: NodeIdentity, stores: Stores, workflow: Workflow, queue: ComputeQueue
    ) -> None:
        self._settings = settings
        self._node = node
        self._cases = stores.cases
        self._index_db = stores.index_db
        self._workflow = workflow
        self._queue = queue
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, site: Callable[[], Site], on_owed: Callable[[], None]) -> None:
        """Begin; `on_owed` is called after a note was owed."""
        self._thread = threading.Thread(target=self._run, args=(site, on_owed), name="telling", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """A note may be due."""
        self._bell.set()

    def close(self, grace_s: float) -> None:
        """End after the present note."""
        self._stopping.set()
        self._bell.set()
        if self._thread is not None:
            self._thread.join(grace_s)

    def _run(self, site: Callable[[], Site], on_owed: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            self._bell.clear()
            try:
                if self.tell_due(site()):
                    on_owed()
                    continue
            except Exception:  # the thread must not end: what is to be withdrawn would stay without a word
                log.exception("a note cannot be made; it is tried again")
                self._stopping.wait(LOOK_EVERY_S)
            self._bell.wait(LOOK_EVERY_S)

    def tell_due(self, site: Site) -> bool:
        """Make what is due; whether something was owed."""
        with self._cases.reading() as connection:
            waiting = notes.due(connection)
        told = False
        for note in waiting:
            if self._stopping.is_set():
                break
            try:
                told = (self._reject(note) if note.kind == "rejection" else self._fail(note, site)) or told
            except Transient as error:
                log.warning("a note waits", note=note.key, reason=error)
            except Permanent as error:
                log.error("a note cannot be made; a person has to see to it", note=note.key, reason=error)
                with self._cases.transaction() as connection:
                    notes.park(connection, note, str(error))
        return told

    # --- rejections

    def _reject(self, note: Note) -> bool:
        record = self._cases.get(note.case_key)
        if record is None:
            raise Permanent("the case is not in the database any more")
        listed = self._listed(note)
        case = replace(record.case, key=note.key, instances=note.instances, started_utc_us=note.told_utc_us)
        message = self._message(case, ("ko",), [one.path for one in listed])
        results = self._made("reject", message | {"code": note.code, "reason": note.reason}, note, record.priority)
        made = tuple(one.sop_instance_uid for one in results)
        with self._cases.transaction() as connection:
            debts = [Debt(destination, made) for destination in note.destinations]
            owe(connection, note.case_key, note.study_instance_uid, record.priority, debts)
            notes.made(connection, note, results)
        log.info("results withdrawn", case=note.case_key, results=len(listed), code=note.code)
        return True

    def _listed(self, note: Note) -> list[ResultRecord]:
        with self._cases.reading() as connection:
            keys = [note.case_key, *(n.key for n in notes.of_case(connection, note.case_key) if n.kind == "failure")]
            ours = [one for key in keys for one in notes.objects(connection, key)]
        return [one for one in ours if one.sop_instance_uid in note.instances]

    # --- failures

    def _fail(self, note: Note, site: Site) -> bool:
        record = self._cases.get(note.case_key)
        kinds = self._kinds(record)
        if record is None or not kinds or self._is_private(note, record):
            self._drop(note)
            return False
        with self._cases.reading() as connection:
            earlier = notes.standing_failures(connection, note.case_key)
        case = replace(record.case, key=note.key, started_utc_us=note.told_utc_us)
        sources = self._images(case)
        message = self._message(case, kinds, sources, [one.path for one in earlier if one.kind == "sr"])
        service = site.services.get(case.service)
        folder = str(service.folder.absolute()) if service is not None and not service.obstacle else ""
        results = self._made("fail", message | {"service": folder, "reason": note.reason}, note, record.priority)
        with self._cases.transaction() as connection:
            now = self._cases.get(note.case_key)
            if now is None or not self._kinds(now):
                notes.drop(connection, note)
                return False
            owe(
                connection,
                now.case.key,
                case.study_instance_uid,
                now.priority,
                self._workflow.owing.debts(now, results),
            )
            notes.made(connection, note, results)
            self._replace(connection, note, earlier)
        log.info("failure told", case=note.case_key, reason=note.reason)
        return True

    def _kinds(self, record: CaseRecord | None) -> tuple[ResultKind, ...]:
        """What of report and page is wanted; nothing where the case goes on or ended otherwise meanwhile."""
        if record is None or record.state != "parked" or record.shadow:
            return ()
        of_study = self._cases.of_study(record.case.study_instance_uid)
        if any(is_replaced_by(record, one, of_study) for one in of_study):
            return ()  # there is a result, of these images and more
        return tuple(kind for kind in OF_FAILURE if kind in record.case.results)

    def _is_private(self, note: Note, record: CaseRecord) -> bool:
        """Whether a reason concerns this node or the patient's identity alone: nothing leaves for either."""
        if note.reason.startswith(NOT_ALLOWED):
            return True
        with closing(Index(self._index_db)) as index:
            return bool(index.conflict(record.case.study_instance_uid))

    def _images(self, case: Case) -> list[str]:
        with closing(Index(self._index_db)) as index:
            found = [index.instance(uid) for uid in case.instances]
        if None in found:
            raise Permanent("an image of the case is not in the archive any more")
        return [one.path for one in found if one is not None]

    def _replace(self, connection: sqlite3.Connection, note: Note, earlier: Sequence[ResultRecord]) -> None:
        """What was told of an earlier attempt for another reason is withdrawn."""
        gone = [one.sop_instance_uid for one in earlier]
        had, destinations = withdraw(connection, note.case_key, gone, _NEW_REASON)
        notes.add_rejection(connection, note.case_key, (TITLES["quality"].value, _NEW_REASON), had, destinations)

    def _drop(self, note: Note) -> None:
        with self._cases.transaction() as connection:
            notes.drop(connection, note)

    # --- both

    def _message(
        self, case: Case, kinds: Sequence[ResultKind], sources: Sequence[str], predecessors: Sequence[str] = ()
    ) -> dict[str, Any]:
        files = self._settings.files.absolute()
        started = datetime.fromtimestamp(case.started_utc_us / 1e6, UTC).astimezone(self._settings.zone)
        return {
            "case": json.loads(json.dumps(vars(case))),
            "kinds": list(kinds),
            "node": [self._node.ae_title, self._node.device_uid, self._node.version],
            "sources": [str(files / path) for path in sources],
            "folder": str(self._folder(case.key)),
            "started": started.isoformat(),
            "predecessors": [str(files / path) for path in predecessors],
        }

    def _made(self, operation: str, message: dict[str, Any], note: Note, priority: int) -> list[ResultRecord]:
        """Have the objects of a note made, and archive them."""
        self._queue.call(operation, message, LIMITS, Turn(priority, Kind.REPORT))
        folder = self._folder(note.key)
        objects = read_objects(folder, message["kinds"])
        results = [
            ResultRecord(
                one.sop_instance_uid,
                note.key,
                one.kind,
                one.sop_class_uid,
                one.series_instance_uid,
                self._workflow.keep(one.path),
            )
            for one in objects
        ]
        shutil.rmtree(folder)
        return results

    def _folder(self, key: str) -> Path:
        """Of a note's own, inside that of its case: both go together."""
        case_key, _, rest = key.partition(":")
        return self._settings.runs.absolute() / case_key / f"note-{rest.replace(':', '-')}"
