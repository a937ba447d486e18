"""The life of one study, put together from index and node database: received, decided, run, delivered, and why (not).

Gives plain values for `studies show --json`, the console and tests. Never a name or a PatientID.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from pacsnode.archive.asked import AskedCases
from pacsnode.archive.case_rows import CaseRecord
from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.deliver.outbox import Outbox, Owed
from pacsnode.deliver.overview import told_state
from pacsnode.settings import Settings
from pacsnode.standing import local, rejected, results_told


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
            "repaired": index.repaired(study_instance_uid),
            **rejected(settings, cases, study_instance_uid),
            "aside": [asdict(a) | {"received": local(settings, a.received_utc_us)} for a in aside],
            "rules_hash": decided[0] if decided else "",
            "rules": [asdict(v) for v in decided[1]] if decided else [],
            "waiting": [asdict(p.candidate) for p in cases.pending(study_instance_uid)],
            "answers": _answers(settings, index, cases, study_instance_uid),
            "cases": _cases(settings, cases, study_instance_uid, deliveries),
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
            "received": local(settings, one.received_utc_us),
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
        "first": local(settings, min(times)) if times else "",
        "last": local(settings, max(times)) if times else "",
    }


def _cases(settings: Settings, cases: Cases, study: str, deliveries: list[Owed]) -> list[dict[str, Any]]:
    records = cases.of_study(study)
    plain = []
    for record in records:
        made = results_told(settings, cases, record, records)
        plain.append({**_case(settings, cases, record), **made, "deliveries": _of_case(settings, record, deliveries)})
    return plain


def _of_case(settings: Settings, record: CaseRecord, deliveries: list[Owed]) -> list[dict[str, Any]]:
    return [_delivery(settings, d) for d in reversed(deliveries) if d.case_key == record.case.key]


def _case(settings: Settings, cases: Cases, record: CaseRecord) -> dict[str, Any]:
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
        "answer_until": local(settings, until_us) if until_us else "",
        "whole_because": record.whole_because,
        "supersedes": case.supersedes,
        "attempt": record.attempt,
        "started": local(settings, case.started_utc_us),
        "finished": local(settings, record.finished_utc_us) if record.finished_utc_us else "",
        "timings_s": record.timings,
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
        "ended": local(settings, owed.ended_utc_us) if owed.ended_utc_us else "",
        "next_attempt": local(settings, owed.next_attempt_utc_us) if owed.state == "owed" else "",
    }
