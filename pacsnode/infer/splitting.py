"""One series to stacks of planes that each may be a volume: coherent parts, then phases, echoes, b-values.

Pure: in are Planes, out are groups of them, what tells the groups apart, and the notes that a reader must have. The
rule is fixed and documented (docs/reading.md): nothing is chosen by the order in which images came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pacsnode.errors import Permanent
from pacsnode.infer.marks import MARKS, TIME, Kind, Mark
from pacsnode.infer.planes import Plane

ORIENTATION_TOLERANCE = 1e-3
"""Of a direction cosine: 0.06 degrees. Consoles write six digits."""
LEAST_TOLERANCE_MM = 0.02
"""Closer planes lie at the same place."""
MOST_TOLD = 6


@dataclass(frozen=True)
class Stack:
    """Planes that differ in their place only, and what they have in common against the others of their part."""

    planes: tuple[Plane, ...]
    marks: tuple[tuple[Kind, Mark], ...] = ()

    @property
    def rank(self) -> tuple[object, ...]:
        """The smallest is taken."""
        return tuple(kind.rank(mark) for kind, mark in self.marks)

    @property
    def name(self) -> str:
        """Its marks, for a person."""
        return ", ".join(f"{kind.name} {mark}" for kind, mark in self.marks)


def largest_part(planes: Sequence[Plane], unplaced: Sequence[Permanent]) -> tuple[list[Plane], tuple[str, ...]]:
    """The planes with one orientation, size, spacing and frame of reference, and the note of what was left out.

    Raises Permanent where no part has more than half of the images: then nobody could say which one is meant.
    """
    parts = _parts(planes)
    if not parts:
        raise unplaced[0]
    chosen = parts[0]
    total = len(planes) + len(unplaced)
    if 2 * len(chosen) <= total and total > 1:
        if not parts[1:]:
            raise unplaced[0]
        raise Permanent(
            f"the images have {differences(chosen[0], parts[1][0])}, and no part has more than half of the "
            f"{total} images (localizers or several planes in one series?); send each part as a series of its own"
        )
    notes = [
        f"Left out: {_images(len(part))} with {differences(chosen[0], part[0])} (a localizer in the series?)."
        for part in parts[1:]
    ]
    if unplaced:
        reasons = Counter(str(reason) for reason in unplaced)
        notes.append(f"Left out: {_images(len(unplaced))}, since {reasons.most_common(1)[0][0]}.")
    return chosen, tuple(notes)


def _parts(planes: Sequence[Plane]) -> list[list[Plane]]:
    parts: list[list[Plane]] = []
    for plane in planes:
        for part in parts:
            if not differences(part[0], plane):
                part.append(plane)
                break
        else:
            parts.append([plane])
    # By size, then by what does not depend on the order in which the images came.
    return sorted(parts, key=lambda part: (-len(part), min((p.sop_instance_uid, p.frame) for p in part)))


def differences(one: Plane, other: Plane) -> str:
    """In what two planes differ so that they belong to no common volume; empty where they may."""
    if one.size != other.size:
        sizes = sorted({one.size, other.size})
        return f"different sizes ({', '.join(f'{columns} x {rows}' for rows, columns in sizes)} pixels)"
    turned = max(np.abs(one.across - other.across).max(), np.abs(one.down - other.down).max())
    if turned > ORIENTATION_TOLERANCE:
        return "different orientations"
    if max(abs(a / b - 1) for a, b in zip(one.spacing_mm, other.spacing_mm, strict=True)) > 1e-3:
        return "different pixel spacings"
    if one.frame_of_reference != other.frame_of_reference:
        return "different frames of reference"
    return ""


def split(part: Sequence[Plane]) -> list[Stack]:
    """Stacks of a coherent part, the one to take first. What still lies at one place was told apart by nothing."""
    place = places(part)
    stacks = [Stack(tuple(part))]
    for kind in MARKS:
        stacks = [finer for stack in stacks for finer in _refined(stack, kind, place)]
    stacks = [finer for stack in stacks for finer in _by_turns(stack, place)]
    return sorted(stacks, key=lambda stack: stack.rank)


def usable(stacks: Sequence[Stack]) -> list[Stack]:
    """Those with at least half as many planes as the largest: a stray repetition is no phase."""
    most = max(len(stack.planes) for stack in stacks)
    return [stack for stack in stacks if 2 * len(stack.planes) >= most]


def choice_note(chosen: Stack, stacks: Sequence[Stack]) -> str:
    """What the series holds and which part of it was analysed."""
    kinds = [kind for kind, _ in chosen.marks]
    told = []
    for number, kind in enumerate(kinds):
        values = sorted({stack.marks[number][1] for stack in stacks if len(stack.marks) > number})
        cut = [str(v) for v in values[:MOST_TOLD]] + (["…"] if len(values) > MOST_TOLD else [])
        told.append(f"{kind.name} ({', '.join(cut)})")
    rule = ", ".join(f"{kind.taken} {kind.name}" for kind in kinds)
    return (
        f"The series holds {len(stacks)} volumes at the same place, told apart by {' and '.join(told)}. "
        f"Analysed: {chosen.name} ({rule})."
    )


def places(planes: Sequence[Plane]) -> dict[int, int]:
    """The number of its place along the normal, by the `id` of each plane."""
    normal = planes[0].normal
    heights = sorted((float(plane.position_mm @ normal), n) for n, plane in enumerate(planes))
    found: dict[int, int] = {}
    place, last = 0, heights[0][0]
    for height, n in heights:
        place += height - last > LEAST_TOLERANCE_MM
        last = height
        found[id(planes[n])] = place
    return found


def _excess(planes: Iterable[Plane], place: dict[int, int]) -> int:
    """How many planes lie where another one lies."""
    listed = [place[id(plane)] for plane in planes]
    return len(listed) - len(set(listed))


def _refined(stack: Stack, kind: Kind, place: dict[int, int]) -> list[Stack]:
    """`stack` by `kind`, where it tells planes at one place apart and each group still has several places.

    What changes from slice to slice (a time) would leave groups of one place, and is no phase.
    """
    excess = _excess(stack.planes, place)
    if not excess:
        return [stack]
    groups: dict[Hashable, list[Plane]] = {}
    for plane in stack.planes:
        groups.setdefault(plane.marks.get(kind.name, Mark()), []).append(plane)
    is_telling = (
        len(groups) > 1
        and sum(_excess(group, place) for group in groups.values()) < excess
        and all(len({place[id(p)] for p in group}) > 1 for group in groups.values())
    )
    if not is_telling:
        return [stack]
    return [
        Stack(tuple(group), (*stack.marks, (kind, group[0].marks.get(kind.name, Mark())))) for group in groups.values()
    ]


def _by_turns(stack: Stack, place: dict[int, int]) -> list[Stack]:
    """Where each place was imaged equally often, one turn after the other: the turns, by their times."""
    if not _excess(stack.planes, place):
        return [stack]
    by_place: dict[int, list[Plane]] = {}
    for plane in stack.planes:
        by_place.setdefault(place[id(plane)], []).append(plane)
    count = len(next(iter(by_place.values())))
    if len(by_place) < 2 or any(len(group) != count for group in by_place.values()):
        return [stack]
    ordered = [sorted(group, key=lambda p: p.marks.get(TIME, Mark())) for group in by_place.values()]
    turns = list(zip(*ordered, strict=True))
    times = [[p.marks.get(TIME, Mark()) for p in turn] for turn in turns]
    if any(max(before) >= min(after) for before, after in pairwise(times)):
        return [stack]
    kind = Kind("turn by time", ())
    return [Stack(turn, (*stack.marks, (kind, Mark(True, float(n))))) for n, turn in enumerate(turns, start=1)]


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
