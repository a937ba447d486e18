"""Which series of a study a rule means: by orientation, count and thickness of its slices, and which of several.

In: the images that a rule's `when` takes, and its `series:`. Out: those of the chosen series, or why there is none.
Pure; the order in which images came makes no difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pacsnode.handover import Instance
from pacsnode.operands import NUMBER
from pacsnode.route.language import SeriesChoice

ALONG_AN_AXIS = 0.8
"""From this cosine between its normal and an axis of the patient on, a slice is called by that axis: 37 degrees."""
AXES = ("sagittal", "coronal", "axial")
"""By the axis of the patient along the normal: x to the left, y to the back, z to the head (PS3.3 C.7.6.2)."""


@dataclass(frozen=True)
class Chosen:
    """Images of the chosen series; `reason` says why there are none."""

    instances: tuple[Instance, ...]
    reason: str = ""


def choose(instances: Sequence[Instance], choice: SeriesChoice, meets: Callable[[Sequence[Instance]], bool]) -> Chosen:
    """The images of the series that fit; `meets` looks whether a series meets the choice's own `when`."""
    by_uid: dict[str, list[Instance]] = {}
    for instance in instances:
        by_uid.setdefault(instance.series_instance_uid, []).append(instance)
    fitting: list[list[Instance]] = []
    obstacles: list[str] = []
    for _, series in sorted(by_uid.items()):
        obstacle = _obstacle(series, choice, meets)
        if obstacle:
            obstacles.append(f"{_called(series[0])} {obstacle}")
        else:
            fitting.append(series)
    if not fitting:
        more = f"; and {len(obstacles) - 3} more" if len(obstacles) > 3 else ""
        return Chosen((), "no series fits: " + "; ".join(obstacles[:3]) + more)
    taken = fitting if choice.choose == "all" else [_best(fitting, choice.choose)]
    uids = {instance.series_instance_uid for series in taken for instance in series}
    return Chosen(tuple(instance for instance in instances if instance.series_instance_uid in uids))


def _obstacle(series: Sequence[Instance], choice: SeriesChoice, meets: Callable[[Sequence[Instance]], bool]) -> str:
    """Why a series does not fit, "" where it does."""
    if choice.when is not None and not meets(series):
        return "has no image with " + choice.when.in_words
    count = sum(map(_frames, series))
    if choice.images is not None and not choice.images[0] <= count <= choice.images[1]:
        return f"has {count} images, expected {choice.images[0]} to {choice.images[1]}"
    if choice.orientation is not None:
        orientation = orientation_of(series[0])
        if orientation != choice.orientation:
            return f"is {orientation or 'of unknown orientation'}, expected {choice.orientation}"
    if choice.thickness_mm is not None:
        thickness_mm = _thickness_mm(series[0])
        low, high = choice.thickness_mm
        if thickness_mm is None or not low <= thickness_mm <= high:
            told = "of unknown thickness" if thickness_mm is None else f"{thickness_mm:g} mm thick"
            return f"is {told}, expected {low:g} to {high:g} mm"
    return ""


def _frames(instance: Instance) -> int:
    """An object of several frames is as many slices."""
    if "NumberOfFrames" not in instance.attributes:
        return 1
    value = _first(instance, "NumberOfFrames")
    return int(value) if re.fullmatch(r"[1-9]\d{0,5}", value, re.ASCII) else 1


def _called(instance: Instance) -> str:
    number = _first(instance, "SeriesNumber")
    return f"series {number}" if number else f"series {instance.series_instance_uid}"


def orientation_of(instance: Instance) -> str:
    """axial, coronal, sagittal or oblique, by ImageOrientationPatient; "" where it is not told (PS3.3 C.7.6.2.1.1)."""
    values = instance.attributes.get("ImageOrientationPatient", ())
    if len(values) != 6 or not all(NUMBER.fullmatch(value.strip()) for value in values):
        return ""
    rx, ry, rz, cx, cy, cz = map(float, values)
    normal = (ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx)
    length = sum(part * part for part in normal) ** 0.5
    if not 0.0 < length < float("inf"):
        return ""
    along = max(range(3), key=lambda axis: abs(normal[axis]))
    return AXES[along] if abs(normal[along]) / length >= ALONG_AN_AXIS else "oblique"


def _first(instance: Instance, keyword: str) -> str:
    return next(iter(instance.attributes.get(keyword, ())), "").strip()


def _thickness_mm(instance: Instance) -> float | None:
    for keyword in ("SliceThickness", "SpacingBetweenSlices"):
        value = _first(instance, keyword)
        if NUMBER.fullmatch(value):
            return abs(float(value))
    return None


def _best(fitting: Sequence[Sequence[Instance]], choose: str) -> Sequence[Instance]:
    """The one of several series; only where they are equal every image is looked at for when it was made."""
    ranks = [_RANKS[choose](series) for series in fitting]
    best = [series for series, rank in zip(fitting, ranks, strict=True) if rank == max(ranks)]
    return max(best, key=_newness) if len(best) > 1 else best[0]


def _newness(series: Sequence[Instance]) -> tuple[str, ...]:
    """When it was made, else when it came; the UID decides between equals, so that the answer is one."""
    first = series[0]
    made = max(
        _first(one, "AcquisitionDate") + _first(one, "AcquisitionTime")
        or _first(one, "SeriesDate") + _first(one, "SeriesTime")
        for one in series
    )
    came = max(one.received_utc_us for one in series)
    return made, f"{came:020}", first.series_instance_uid


_RANKS: dict[str, Callable[[Sequence[Instance]], tuple[float, ...]]] = {
    "most-images": lambda series: (sum(map(_frames, series)),),
    "newest": lambda series: (),
    "thinnest": lambda series: (-(_thickness_mm(series[0]) or float("inf")), len(series)),
}
