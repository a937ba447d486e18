"""Two services that read the same studies, compared: numbers, findings, outlines, failures, and what could not be.

In: the ended cases of both with their numbers, and `runs/` with the label maps that are not freed yet. Out: a
Comparison. Says nothing of who is right, and never names a patient: a study is its UID. Changes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pacsnode import findings_files
from pacsnode.agreement import Spread, dice, kappa, spread
from pacsnode.archive.numbers import Ended, Numbers
from pacsnode.database import utc_us
from pacsnode.findings import Findings, Group
from pacsnode.readings import Reading, Readings, Subject, segment_subject
from pacsnode.settings import Settings

T = TypeVar("T")
Sides = tuple[str, str]
"""Of the first and of the second service."""

NO_NUMBERS = "numbers are not kept, or not any more"
OTHER_VERSION = "read by another version than the newest"
OTHER_INPUT = "no input in common"


@dataclass(frozen=True)
class Pair:
    """What both services said in one study. `keys`: of their cases."""

    study: str
    keys: Sides
    first: Readings
    second: Readings

    def inputs(self) -> Iterator[tuple[Reading, Reading]]:
        """What both said of the inputs that both read."""
        seconds = {one.source: one for one in self.second.inputs}
        return ((one, seconds[one.source]) for one in self.first.inputs if one.source in seconds)


@dataclass(frozen=True)
class Figure:
    """One number (second minus first), or the Dice of one label. `extreme`: the largest difference or the least Dice,
    in `study`.
    """

    words: str
    spread: Spread
    extreme: float
    study: str


@dataclass(frozen=True)
class Table:
    """One finding: how often which said what, (first, second) by count."""

    words: str
    counts: Mapping[Sides, int]
    kappa: float | None


@dataclass(frozen=True)
class Said:
    """Numbers and findings. `inputs`: how many both read; `only`: what one service alone said of them; `repeated`: what
    was said more than once of an input, and has no partner.
    """

    inputs: int
    numbers: tuple[Figure, ...]
    findings: tuple[Table, ...]
    only: tuple[Mapping[str, int], Mapping[str, int]]
    repeated: Mapping[str, int]


@dataclass(frozen=True)
class Outlines:
    """Dice by label. `studies` were compared, of `freed` the label maps are not here any more; `off_grid`: inputs whose
    two label maps do not lie on the same pixels.
    """

    labels: tuple[Figure, ...]
    studies: int
    freed: int
    off_grid: int


@dataclass(frozen=True)
class Parked:
    """A case that failed in a study that both had to read. `other`: how the other's ended."""

    study: str
    service: str
    reason: str
    other: str


@dataclass(frozen=True)
class MadeBy:
    """One side: all cases of one bundle."""

    version: str
    bundle_hash: str
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """`studies` were compared. `by_one`: of so many more only one ended a case; `left_out`: how many not, by reason."""

    services: Sides
    studies: int
    by_one: tuple[int, int]
    made_by: tuple[MadeBy | None, MadeBy | None]
    left_out: Mapping[str, int]
    said: Said
    outlines: Outlines
    parked: tuple[Parked, ...]


def compare(settings: Settings, services: Sides, since_s: int, limit: int) -> Comparison:
    """The newest studies, `limit` at most, that both services ended a case of within `since_s` seconds."""
    since_us = utc_us() - since_s * 1_000_000
    with closing(Numbers(settings.node_db)) as kept:
        studies = kept.of_both(services, since_us, limit)
        by_one = kept.of_one(services, since_us)
    newest = (_newest_bundle(first for first, _ in studies), _newest_bundle(second for _, second in studies))
    left_out: Counter[str] = Counter()
    pairs = [pair for of in studies if (pair := _pair(of, newest, left_out)) is not None]
    return Comparison(
        services,
        len(pairs),
        by_one,
        (_made_by([pair.first for pair in pairs]), _made_by([pair.second for pair in pairs])),
        left_out,
        _said(pairs),
        _outlines(pairs, settings.runs),
        tuple(parked for of in studies for parked in _parked(*of)),
    )


def _newest_bundle(cases: Iterator[Sequence[Ended]]) -> str:
    """The bundle of the case that started last: an older version would blur what is compared."""
    read = [(one.record.case.started_utc_us, one.readings.bundle_hash) for of in cases for one in of if one.readings]
    return max(read)[1] if read else ""


def _pair(of: tuple[Sequence[Ended], Sequence[Ended]], newest: Sides, left_out: Counter[str]) -> Pair | None:
    """The newest cases of a study that have an input in common; None with a reason, or where one side failed."""
    if not all(any(one.record.state == "done" for one in side) for side in of):
        return None  # told as parked
    first, second = ([(one.record.case, one.readings) for one in side if one.readings] for side in of)
    if not first or not second:
        left_out[NO_NUMBERS] += 1
        return None
    first, second = (
        [one for one in s if one[1].bundle_hash == n] for s, n in zip((first, second), newest, strict=True)
    )
    for case, readings in first:
        for other, others in second:
            pair = Pair(case.study_instance_uid, (case.key, other.key), readings, others)
            if any(pair.inputs()):
                return pair
    left_out[OTHER_INPUT if first and second else OTHER_VERSION] += 1
    return None


def _made_by(readings: Sequence[Readings]) -> MadeBy | None:
    if not readings:
        return None
    devices = tuple(sorted({one.device for one in readings}))
    return MadeBy(readings[0].version, readings[0].bundle_hash, devices)


def _parked(first: Sequence[Ended], second: Sequence[Ended]) -> Iterator[Parked]:
    """The newest case of each side, where it failed."""
    for mine, other in ((first, second), (second, first)):
        newest = mine[0].record
        if newest.state == "parked":
            case = newest.case
            yield Parked(case.study_instance_uid, case.service, newest.reason, other[0].record.state)


def _said(pairs: Sequence[Pair]) -> Said:
    differences: dict[Subject, list[tuple[float, str]]] = defaultdict(list)
    tables: dict[Subject, Counter[Sides]] = defaultdict(Counter)
    only: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    repeated: Counter[str] = Counter()
    inputs = [(pair.study, *both) for pair in pairs for both in pair.inputs()]
    for study, first, second in inputs:
        repeated.update({*first.repeated, *second.repeated})
        for subject, value in first.numbers.items():
            if subject in second.numbers:
                differences[subject].append((second.numbers[subject] - value, study))
        for subject, word in first.presences.items():
            if subject in second.presences:
                tables[subject][word, second.presences[subject]] += 1
        for count, mine, other in ((only[0], first, second), (only[1], second, first)):
            alone = (mine.numbers.keys() - other.numbers.keys()) | (mine.presences.keys() - other.presences.keys())
            count.update(subject.words for subject in alone)
    numbers = tuple(_figure(one, found, lambda value: -abs(value)) for one, found in _ordered(differences))
    return Said(
        len(inputs),
        numbers,
        tuple(Table(one.words, counts, kappa(counts)) for one, counts in _ordered(tables)),
        only,
        repeated,
    )


def _outlines(pairs: Sequence[Pair], runs: Path) -> Outlines:
    """Both label maps of a case lie in memory, those of one study at a time."""
    found: dict[Subject, list[tuple[float, str]]] = defaultdict(list)
    studies = freed = off_grid = 0
    for pair in pairs:
        if not (pair.first.outlined and pair.second.outlined):
            continue
        first, second = (_kept(runs / key) for key in pair.keys)
        if first is None or second is None:
            freed += 1
            continue
        studies += 1
        seconds = {group.source: group for group in second.groups}
        for one in first.groups:
            other = seconds.get(one.source)
            if other is None or one.label_map is None or other.label_map is None:
                continue
            if (one.label_map.shape, one.frames) != (other.label_map.shape, other.frames):
                off_grid += 1
                continue
            for subject, value in _dice_by_label(one, other):
                found[subject].append((value, pair.study))
    labels = tuple(_figure(one, values, lambda value: value) for one, values in _ordered(found))
    return Outlines(labels, studies, freed, off_grid)


def _kept(folder: Path) -> Findings | None:
    try:
        return findings_files.load(folder)
    except FileNotFoundError:
        return None


def _dice_by_label(first: Group, second: Group) -> Iterator[tuple[Subject, float]]:
    """Of each label that both may give; none where neither marked anything."""
    others = {segment_subject(segment) for segment in second.segments}
    for subject in dict.fromkeys(map(segment_subject, first.segments)):
        if subject in others:
            value = dice(_mask(first, subject), _mask(second, subject))
            if value is not None:
                yield subject, value


def _mask(group: Group, subject: Subject) -> NDArray[np.bool_]:
    return group.mask(*(one.value for one in group.segments if segment_subject(one) == subject))


def _figure(subject: Subject, found: Sequence[tuple[float, str]], order: Callable[[float], float]) -> Figure:
    """`order`: the first by it is the extreme one."""
    extreme, study = min(found, key=lambda one: order(one[0]))
    return Figure(subject.words, spread([value for value, _ in found]), extreme, study)


def _ordered(by_subject: Mapping[Subject, T]) -> list[tuple[Subject, T]]:
    return sorted(by_subject.items(), key=lambda item: (item[0].words, item[0].codes))
