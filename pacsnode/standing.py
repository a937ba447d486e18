"""Which results of a study count: current, superseded (by which case), or withdrawn (why); for `studies show`.

In: the cases of a study, their results and notes in `node.db`. Out: plain values. Changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pacsnode.archive import notes
from pacsnode.archive.case_rows import CaseRecord, ResultRecord, is_replaced_by
from pacsnode.archive.cases import Cases
from pacsnode.archive.notes import Note
from pacsnode.archive.rejections import Rejections
from pacsnode.deliver.debts import withdraw
from pacsnode.dicom.rejection import in_words
from pacsnode.settings import Settings


def rejected(settings: Settings, cases: Cases, study_instance_uid: str) -> dict[str, Any]:
    """What counts no more of a study, by who said so, and notes that do nothing, with the reason."""
    rejections = Rejections(cases, withdraw)
    of_study = rejections.of_study(study_instance_uid)
    counts = Counter((one.code, one.author, one.note) for one in of_study)
    first = {(one.code, one.author, one.note): one.rejected_utc_us for one in reversed(of_study)}
    return {
        "rejected": [
            {
                "when": local(settings, first[said]),
                "code": said[0],
                "author": said[1],
                "note": said[2],
                "instances": count,
                "reason": f"{in_words(said[0])}, by {said[1]}",
            }
            for said, count in counts.items()
        ],
        "notes_ignored": [
            {"sop_instance_uid": note.sop_instance_uid, "peer": note.peer, "code": note.code, "reason": note.objection}
            for note in rejections.ignored(study_instance_uid)
        ],
    }


def results_told(settings: Settings, cases: Cases, record: CaseRecord, records: Sequence[CaseRecord]) -> dict[str, Any]:
    """The results of a case and the notes about it, each object with its standing. `records`: all of the study."""
    with cases.reading() as connection:
        told = notes.of_case(connection, record.case.key)
        results = notes.objects(connection, record.case.key)
        objects = {note.key: notes.objects(connection, note.key) for note in told}
        created = {
            str(uid): int(when)
            for uid, when in connection.execute(
                "SELECT sop_instance_uid, created_utc_us FROM results WHERE case_key = ? OR case_key IN "
                "(SELECT key FROM notes WHERE case_key = ?)",
                (record.case.key, record.case.key),
            )
        }
    gone = {uid: note for note in told if note.kind == "rejection" for uid in note.instances}
    replaced = _replaced(record, records)

    def plain(one: ResultRecord) -> dict[str, Any]:
        """An object with when it was made and how it stands."""
        since = created[one.sop_instance_uid]
        stands = _standing(settings, record, since, gone.get(one.sop_instance_uid), replaced)
        return asdict(one) | {"created": local(settings, since), "standing": stands}

    return {
        "standing": _of_case(record, results, replaced),
        "superseded_by": replaced.case.key if replaced else "",
        "results": [plain(one) for one in results],
        "notes": [_note(settings, note, [plain(one) for one in objects[note.key]]) for note in told],
    }


def _replaced(record: CaseRecord, records: Sequence[CaseRecord]) -> CaseRecord | None:
    """The case that has a result in place of this one's; one that was withdrawn replaces nothing."""
    return next((r for r in records if is_replaced_by(record, r, records)), None)


def _of_case(record: CaseRecord, results: Sequence[ResultRecord], replaced: CaseRecord | None) -> str:
    if record.state == "withdrawn":
        return "withdrawn"
    if not results or record.state != "done":
        return ""
    return "superseded" if replaced else "current"


def _standing(
    settings: Settings, record: CaseRecord, since_utc_us: int, gone: Note | None, replaced: CaseRecord | None
) -> dict[str, str]:
    if gone is not None:
        return {"is": "withdrawn", "since": local(settings, gone.told_utc_us), "by": "", "reason": gone.reason}
    if record.state == "withdrawn":
        when = record.finished_utc_us or since_utc_us
        return {"is": "withdrawn", "since": local(settings, when), "by": "", "reason": record.reason}
    if replaced is not None:
        when = replaced.finished_utc_us or since_utc_us
        return {"is": "superseded", "since": local(settings, when), "by": replaced.case.key, "reason": ""}
    return {"is": "current", "since": local(settings, since_utc_us), "by": "", "reason": ""}


def _note(settings: Settings, note: Note, objects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "kind": note.kind,
        "state": note.state,
        "problem": note.problem,
        "told": local(settings, note.told_utc_us),
        "code": note.code,
        "reason": note.reason,
        "instances": note.instances,
        "destinations": note.destinations,
        "objects": [one | {"standing": one["standing"] | _counts(note, one)} for one in objects],
    }


def _counts(note: Note, one: dict[str, Any]) -> dict[str, str]:
    """A rejection itself stands, whatever became of the case that it is about."""
    return {"is": "current", "since": one["created"], "by": "", "reason": ""} if note.kind == "rejection" else {}


def local(settings: Settings, utc_us: int) -> str:
    """A time as people of the site read it."""
    moment = datetime.fromtimestamp(utc_us / 1e6, UTC).astimezone(settings.zone)
    return moment.isoformat(sep=" ", timespec="milliseconds")
