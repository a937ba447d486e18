"""Readings: what of a case's findings is a number or a word of a code, small enough to be kept for months.

In: findings. Out: a record of some hundred bytes, and its JSON. No pixels, no sentences; of the input only a digest.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pacsnode.dicom.codes import Concept
from pacsnode.findings import Evaluation, Findings, Group, Measurement, Segment


@dataclass(frozen=True)
class Subject:
    """What a number or a finding is about: its codes, by which those of two services are paired; words for people."""

    codes: tuple[str, ...]
    words: str = field(compare=False)


@dataclass(frozen=True)
class Reading:
    """What was said of one input. `repeated`: what was said more than once, such as a volume of each of many lesions:
    it has no partner in what another service says.
    """

    source: str
    numbers: Mapping[Subject, float]
    presences: Mapping[Subject, str]
    repeated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Readings:
    """All inputs of one case, and who read them. `outlined`: there was something to outline."""

    version: str
    bundle_hash: str
    device: str
    outlined: bool
    inputs: tuple[Reading, ...]


def readings_of(findings: Findings) -> Readings:
    """The numbers of findings, which may have been loaded without their arrays."""
    made_by = findings.algorithm
    outlined = any(group.segments for group in findings.groups)
    inputs = tuple(map(_reading, findings.groups))
    return Readings(made_by.version, made_by.bundle_hash, made_by.device, outlined, inputs)


def source_digest(source: Iterable[str]) -> str:
    """Stands for the SOP Instance UIDs of an input: a CT has hundreds."""
    return hashlib.sha256("\x1f".join(source).encode()).hexdigest()[:32]


def segment_subject(segment: Segment) -> Subject:
    """By its code and side: versions of a model may number their labels otherwise."""
    return Subject((_code(segment.type), _code(segment.laterality)), segment.label)


def _reading(group: Group) -> Reading:
    numbers = [(_number_subject(one), one.value) for one in group.measurements]
    presences = [(_finding_subject(one), one.presence.value) for one in group.evaluations]
    times = Counter(subject for subject, _ in (*numbers, *presences))
    return Reading(
        source_digest(group.source),
        {subject: value for subject, value in numbers if times[subject] == 1},
        {subject: value for subject, value in presences if times[subject] == 1},
        tuple(subject.words for subject, count in times.items() if count > 1),
    )


def _number_subject(one: Measurement) -> Subject:
    codes = ("number", *map(_code, (one.name, one.site, one.laterality, one.unit)))
    where = " ".join(part.meaning.lower() for part in (one.laterality, one.site) if part)
    unit = "" if one.unit.value == "1" else f" [{one.unit.value}]"
    return Subject(codes, f"{one.name.meaning}{f' ({where})' if where else ''}{unit}")


def _finding_subject(one: Evaluation) -> Subject:
    return Subject(("finding", _code(one.name)), one.name.meaning)


def _code(concept: Concept | None) -> str:
    return f"{concept.scheme}:{concept.value}" if concept else ""


def to_text(readings: Readings) -> str:
    """As JSON."""
    inputs = [
        {
            "source": one.source,
            "numbers": [(subject.codes, subject.words, value) for subject, value in one.numbers.items()],
            "presences": [(subject.codes, subject.words, value) for subject, value in one.presences.items()],
            "repeated": one.repeated,
        }
        for one in readings.inputs
    ]
    return json.dumps(vars(readings) | {"inputs": inputs}, ensure_ascii=False, separators=(",", ":"))


def from_text(text: str) -> Readings:
    """What `to_text` made."""
    plain: dict[str, Any] = json.loads(text)
    inputs = tuple(
        Reading(one["source"], _by_subject(one["numbers"]), _by_subject(one["presences"]), tuple(one["repeated"]))
        for one in plain["inputs"]
    )
    return Readings(**(plain | {"inputs": inputs}))


def _by_subject(rows: Iterable[Any]) -> dict[Subject, Any]:
    return {Subject(tuple(codes), words): value for codes, words, value in rows}
