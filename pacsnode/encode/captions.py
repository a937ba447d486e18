"""Which slice or frame a picture shows, in the words of a viewer: the image's number and its place in the patient.

In: the normalised headers of the sources and the planes that are drawn. Out: one line for each. Never a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacsnode.encode.marking import labels_of, regions_in
from pacsnode.encode.provenance import Origin
from pacsnode.findings import Group

_LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))
"""Of the patient's axes (PS3.3 C.7.6.2.1.1): toward smaller and toward larger numbers."""


def captions(group: Group, planes: Iterable[int], origin: Origin) -> list[str]:
    """`Image 34, S 12.5 mm: Liver, Tumour` for each of `planes`, numbers from 0."""
    return [_caption(group, plane, origin) for plane in planes]


def _caption(group: Group, plane: int, origin: Origin) -> str:
    several = len(group.source) > 1
    header = origin.sources[group.source[plane if several else 0]]
    if several:
        frame, name = 0, f"Image {str(header.get('InstanceNumber') or plane + 1)[:12]}"
    else:
        frame = group.frames[plane] if group.frames else plane + 1
        name = f"Frame {frame}" if int(header.get("NumberOfFrames") or 1) > 1 else "Image"
    place = _place(header, frame)
    found = _found(group, plane)
    return f"{name}{f', {place}' if place else ''}: {', '.join(found) if found else 'nothing marked'}"


def _found(group: Group, plane: int) -> list[str]:
    labels = {value for one in labels_of(group, plane) for value in np.flatnonzero(np.bincount(one.ravel())).tolist()}
    segments = [s.label for s in group.segments if s.value in labels]
    return [*segments, *dict.fromkeys(region.label for _, region in regions_in(group, plane))]


def _place(header: Dataset, frame: int) -> str:
    """Of the middle of the slice, along the axis of the patient that it is nearest to; "" where it has no place."""
    position, cosines = _numbers(header, frame, "PlanePosition"), _numbers(header, frame, "PlaneOrientation")
    spacing = _numbers(header, frame, "PixelMeasures")
    if position is None or cosines is None or spacing is None:
        return ""
    across, down = cosines[:3], cosines[3:]
    size = np.array([header.get("Columns", 1), header.get("Rows", 1)], dtype=np.float64)
    middle = position + across * spacing[1] * (size[0] - 1) / 2 + down * spacing[0] * (size[1] - 1) / 2
    axis = int(np.abs(np.cross(across, down)).argmax())
    return f"{_LETTERS[axis][int(middle[axis] >= 0)]} {abs(middle[axis]):.1f} mm"


_VALUES = {"PlanePosition": "ImagePositionPatient", "PlaneOrientation": "ImageOrientationPatient"}
_COUNTS = {"PlanePosition": 3, "PlaneOrientation": 6, "PixelMeasures": 2}


def _numbers(header: Dataset, frame: int, macro: str) -> NDArray[np.float64] | None:
    """An attribute of the image, or of a frame (from 1) by its functional groups."""
    keyword = _VALUES.get(macro, "PixelSpacing")
    holders: list[Dataset] = [header]
    if frame:
        groups: Sequence[Dataset] = header.get("PerFrameFunctionalGroupsSequence") or []
        own = list(groups[frame - 1 : frame])
        holders = [*own, *(header.get("SharedFunctionalGroupsSequence") or [])]
        holders = [item for holder in holders for item in holder.get(f"{macro}Sequence") or []]
    given: Any = next((holder.get(keyword) for holder in holders if holder.get(keyword)), None)
    try:
        found = np.array([float(v) for v in given], dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return found if len(found) == _COUNTS[macro] and np.isfinite(found).all() else None
