"""The life of one study, put together from index and node database: received, decided, run, delivered, and why (not).

Gives plain values for `studies show --json`, the console and tests. Never a name or a PatientID.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pacsnode.archive.asked import AskedCases
from pacsnode.archive.case_rows import CaseRecord
from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.overview import told_state
from pacsnode.settings import Settings


def study_life(settings: Settings, study_instance_uid: str) -> dict[str, Any] | None:
    """Everything the node knows of a study; None when it knows nothing."""
    index, cases = Index(settings.index_db), Cases(settings.node_db)
    outbox = Outbox(settings.node_db, 0)
    try:
        study, aside = index.study(study_instance_uid), index.aside(study_instance_uid)
        if study is None and not aside and not index.answers(study_instance_uid):
            return None
        decided = cases.verdicts(study_instance_uid)
        deliveries = outbox.listing(study=study_instance_uid, limit=1000)
        return {
            "study_instance_uid": study_instance_uid,
            "conflict": study.conflict if study else "",
            "received": _received(settings, index, study_instance_uid),
            "aside": [asdict(a) | {"received": _time(settings, a.received_utc_us)} for a in aside],
            "rules_hash": decided[0] if decided else "",
            "rules": [asdict(v) for v in decided[1]] if decided else [],
            "waiting": [asdict(p.candidate) for p in cases.pending(study_instance_uid)],
            "answers": _answers(settings, index, cases, study_instance_uid),
            "cases": [_case(settings, cases, record, deliveries) for record in cases.of_study(study_instance_uid)],
        }
    finally:
        outbox.close()
        cases.close()
        index.close()


def _answers(settings: Settings, index: Index, cases: Cases, study_instance_uid: str) -> list[dict[str, Any]]:
    """What vendors' nodes sent for the study, and what became of it."""
    found = index.answers(study_instance_uid)
    refused = AskedCases(cases).refusals([one.sop_instance_uid for one in found])
    case_of = {
        result.sop_instance_uid: record.case.key
        for record in cases.of_study(study_instance_uid)
        for result in cases.results(record.case.key)
    }
    return [
        {
            "sop_instance_uid": one.sop_instance_uid,
            "peer": one.peer,
            "modality": one.attributes.get("Modality", ("?",))[0],
            "received": _time(settings, one.received_utc_us),
            "case": case_of.get(one.sop_instance_uid, ""),
            "refused": refused.get(one.sop_instance_uid, ""),
        }
        for one in found
    ]


def _received(settings: Settings, index: Index, study_instance_uid: str) -> dict[str, Any]:
    study = index.study(study_instance_uid)
    instances = study.instances if study else ()
    times = [i.received_utc_us for i in instances]
    return {
        "instances": len(instances),
        "peers": sorted({i.peer for i in instances}),
        "modalities": dict(Counter(i.attributes.get("Modality", ("?",))[0] for i in instances)),
        "first": _time(settings, min(times)) if times else "",
        "last": _time(settings, max(times)) if times else "",
    }


def _case(settings: Settings, cases: Cases, record: CaseRecord, deliveries: list[Owed]) -> dict[str, Any]:
    case = record.case
    until_us = AskedCases(cases).until_utc_us(case.key)
    return {
        "key": case.key,
        "service": case.service,
        "rules": case.rules,
        "instances": case.instances,
        "shadow": record.shadow,
        "state": record.state,
        "reason": record.reason,
        "answer_until": _time(settings, until_us) if until_us else "",
        "whole_because": record.whole_because,
        "supersedes": case.supersedes,
        "attempt": record.attempt,
        "started": _time(settings, case.started_utc_us),
        "finished": _time(settings, record.finished_utc_us) if record.finished_utc_us else "",
        "timings_s": record.timings,
        "results": [asdict(r) for r in cases.results(case.key)],
        "deliveries": [_delivery(settings, d) for d in reversed(deliveries) if d.case_key == case.key],
    }


def _delivery(settings: Settings, owed: Owed) -> dict[str, Any]:
    return {
        "id": owed.id,
        "sop_instance_uid": owed.sop_instance_uid,
        "destination": owed.destination,
        "state": owed.state,
        "told": told_state(owed),
        "proof": owed.proof,
        "attempts": owed.attempts,
        "reason": owed.reason,
        "status": None if owed.status is None else f"0x{owed.status:04X}",
        "ended": _time(settings, owed.ended_utc_us) if owed.ended_utc_us else "",
        "next_attempt": _time(settings, owed.next_attempt_utc_us) if owed.state == "owed" else "",
    }


def _time(settings: Settings, utc_us: int) -> str:
    """A time as people of the site read it."""
    moment = datetime.fromtimestamp(utc_us / 1e6, UTC).astimezone(settings.zone)
    return moment.isoformat(sep=" ", timespec="milliseconds")
