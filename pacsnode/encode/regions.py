"""Regions as DICOM has them: graphic types and coordinates on an image of the case.

In: a region of the findings and the header of its image. Out: a SCOORD's graphic type and data (PS3.3 C.18.6), or
Permanent. Never moves a point: what lies outside of its image is a mistake of the model or of its pipeline.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydicom.dataset import Dataset

from pacsnode.encode.sr_items import GraphicType
from pacsnode.errors import Permanent
from pacsnode.findings import Group, Point, Region, Shape, outline

_GRAPHIC_TYPES: Mapping[Shape, GraphicType] = {
    Shape.POINT: "POINT",
    Shape.POLYLINE: "POLYLINE",
    Shape.POLYGON: "POLYLINE",
    Shape.BOX: "POLYLINE",
    Shape.CIRCLE: "CIRCLE",
    Shape.ELLIPSE: "ELLIPSE",
}
_POINTS: Mapping[Shape, tuple[int, int | None]] = {
    Shape.POINT: (1, 1),
    Shape.POLYLINE: (2, None),
    Shape.POLYGON: (3, None),
    Shape.BOX: (2, 2),
    Shape.CIRCLE: (2, 2),
    Shape.ELLIPSE: (4, 4),
}
"""The least and the largest number of points that a shape has."""


def check_regions(group: Group, sources: Mapping[str, Dataset]) -> None:
    """Raise Permanent where a region cannot be right, or a measurement names a region that there is not."""
    keys = [region.key for region in group.regions]
    if len(set(keys)) < len(keys):
        raise Permanent("two regions of one image or series have the same key")
    for region in group.regions:
        _check(region, group, sources)
    named = {key for one in group.measurements for key in one.regions}
    named |= {key for region in group.regions for one in region.measurements for key in one.regions}
    if not named <= set(keys):
        raise Permanent(f"a measurement names the region {min(named - set(keys))}, which there is not")


def graphic(region: Region) -> tuple[GraphicType, list[float]]:
    """Graphic Type and Graphic Data; a polygon and a box are closed polylines."""
    points = region.points if region.shape in (Shape.CIRCLE, Shape.ELLIPSE) else outline(region)
    return _GRAPHIC_TYPES[region.shape], [float(value) for point in points for value in point]


def _check(region: Region, group: Group, sources: Mapping[str, Dataset]) -> None:
    for image, frame in ((region.image, region.frame), *region.also):
        header = _header_of(region, image, frame, group, sources)
        columns, rows = int(header.Columns), int(header.Rows)
        if not all(_lies_on(point, columns, rows) for point in region.points):
            raise Permanent(f"the region {region.key} lies outside of its image of {columns} x {rows} pixels")
    least, most = _POINTS[region.shape]
    count = len(region.points)
    if count < least or (most is not None and count > most):
        raise Permanent(f"the region {region.key} is a {region.shape} of {count} points")
    if region.shape is Shape.ELLIPSE and not _is_ellipse(region.points):
        raise Permanent(f"the axes of the region {region.key} do not halve each other")
    if region.probability is not None and not 0 <= region.probability <= 1:
        raise Permanent(f"the probability of the region {region.key} is {region.probability}")


def _header_of(region: Region, image: str, frame: int | None, group: Group, sources: Mapping[str, Dataset]) -> Dataset:
    header = sources.get(image)
    if header is None or image not in group.source or "Rows" not in header:
        raise Permanent(f"the region {region.key} lies on an image that was not analysed")
    frames = int(header.get("NumberOfFrames") or 1)
    if frame is None and frames > 1:
        raise Permanent(f"the region {region.key} says no frame, but its image has {frames}")
    if frame is not None and not 1 <= frame <= frames:
        raise Permanent(f"the region {region.key} lies on frame {frame} of {frames}")
    return header


def _lies_on(point: Point, columns: int, rows: int) -> bool:
    return all(map(math.isfinite, point)) and 0 <= point[0] <= columns and 0 <= point[1] <= rows


def _is_ellipse(points: tuple[Point, ...]) -> bool:
    """Both axes have one middle, to a tenth of a pixel."""
    a, b, c, d = points
    return all(abs(a[n] + b[n] - c[n] - d[n]) < 0.2 for n in (0, 1))
