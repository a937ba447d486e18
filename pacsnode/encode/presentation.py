"""Presentation states: outlines and regions as lines over the images themselves (PS3.3 A.33), for viewers without SEG.

In: the findings and the headers of their sources. Out: Grayscale or Color Softcopy Presentation States without patient
and study yet (see `header.stamp`); none where nothing is marked. They show an image as its own header says, and change
nothing in it. One state has one transformation of grey values, so images that differ in it get states of their own.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Final

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from pacsnode.encode.header import evidence
from pacsnode.encode.marks import Layer, Mark, Plan, Sheet, layers_of, plan
from pacsnode.encode.provenance import Origin
from pacsnode.findings import Group

WARNING: Final = "AI result, unverified. Not for diagnosis."
"""In English alone: many viewers have no Hangul for the text over an image."""
MOST_STATES: Final = 16
"""Of one group: slices of PET may each have a scale of their own."""
_MOST_LAYERS: Final = 100
_WARNING_LAYER: Final = "AI_WARNING"
_WARNING_BOX: Final = (0.02, 0.94, 0.98, 0.99)
"""Left, top, right, bottom of the displayed area."""
_PLAIN_IMAGE: Final = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True)
class _Look:
    """What all images of a state must have in common."""

    rows: int
    columns: int
    is_color: bool
    is_inverse: bool
    slope: float
    intercept: float
    rescale_type: str
    aspect: tuple[int, int]


@dataclass(frozen=True)
class _Window:
    center: float
    width: float
    function: str
    explanation: str


def presentations(origin: Origin) -> list[Dataset]:
    """The states of the case, numbered as they stand."""
    states: list[Dataset] = []
    for group in origin.findings.groups:
        headers = {uid: origin.sources[uid] for uid in group.source}
        sizes = {uid: (int(h.Columns), int(h.Rows)) for uid, h in headers.items() if "Rows" in h and "Columns" in h}
        if len(sizes) < len(headers) or not (group.regions or group.label_map is not None):
            continue
        planned = plan(group, sizes)
        by_look: dict[_Look, list[Sheet]] = {}
        for sheet in planned.sheets:
            look = _look(origin.sources[sheet.place.image], sheet.place.frame)
            if look is not None:
                by_look.setdefault(look, []).append(sheet)
        most_marked = sorted(by_look.items(), key=lambda item: -len(item[1]))[:MOST_STATES]
        is_whole = planned.is_whole and len(most_marked) == len(by_look)
        for look, sheets in most_marked:
            states.append(_state(origin, group, look, Plan(tuple(sheets), is_whole), len(states) + 1))
    return states


def _state(origin: Origin, group: Group, look: _Look, planned: Plan, index: int) -> Dataset:
    uids = list(dict.fromkeys(sheet.place.image for sheet in planned.sheets))
    images = {uid: evidence(origin.sources[uid]) for uid in uids}
    layers = _layers(layers_of(planned.sheets))
    annotations = list(_annotations(origin, group, planned.sheets, images, layers))
    warning = hd.pr.GraphicLayer(_WARNING_LAYER, len(set(map(id, layers.values()))) + 1, "AI, unverified")
    annotations += [_warning(image, warning) for image in images.values()]
    told = "AI outlines" if planned.is_whole else "AI outlines, not all"
    common: dict[str, Any] = {
        "referenced_images": list(images.values()),
        "content_label": "AI",
        "content_description": f"{told}, unverified, not for diagnosis",
        "graphic_annotations": annotations,
        "graphic_layers": [*{id(layer): layer for layer in layers.values()}.values(), warning],
        **origin.constructor("pr", index),
    }
    if look.is_color:
        for image in images.values():
            image.SamplesPerPixel = 3  # of a palette too; what the constructor is told is not written
        dataset = hd.pr.ColorSoftcopyPresentationState(**common, icc_profile=_srgb())
    else:
        windows = list(_windows(origin, look, planned.sheets, images))
        dataset = hd.pr.GrayscaleSoftcopyPresentationState(**common, **_grey(look), voi_lut_transformations=windows)
    dataset.PresentationCreationDate = origin.request.started.strftime("%Y%m%d")
    dataset.PresentationCreationTime = origin.request.started.strftime("%H%M%S.%f")
    dataset.Laterality = origin.sources[uids[0]].get("Laterality") or None  # type 2C, and highdicom leaves it out
    dataset.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio = list(look.aspect)
    return dataset


@cache
def _srgb() -> bytes | None:
    """The profile that highdicom gives its other colour states: no console says what its RGB means."""
    return pkgutil.get_data("highdicom", "_icc_profiles/sRGB_v4_ICC_preference.icc")


def _grey(look: _Look) -> dict[str, Any]:
    """From stored values to grey, but for the window."""
    shape = hd.PresentationLUTShapeValues
    return {
        "modality_lut_transformation": hd.ModalityLUTTransformation(
            rescale_intercept=look.intercept, rescale_slope=look.slope, rescale_type=look.rescale_type
        ),
        "presentation_lut_transformation": hd.PresentationLUTTransformation(
            presentation_lut_shape=shape.INVERSE if look.is_inverse else shape.IDENTITY
        ),
    }


def _layers(wanted: Sequence[Layer]) -> dict[Layer, Any]:
    """A graphic layer for each; beyond a hundred they share the last."""
    made: dict[Layer, Any] = {}
    for number, layer in enumerate(wanted, start=1):
        if number > _MOST_LAYERS:
            made[layer] = made[wanted[_MOST_LAYERS - 1]]
            continue
        color = hd.color.CIELabColor.from_rgb(*layer.color_rgb)
        made[layer] = hd.pr.GraphicLayer(f"AI_{number}", number, layer.label[:64].replace("\\", "/"), color)
    return made


def _annotations(
    origin: Origin, group: Group, sheets: Sequence[Sheet], images: dict[str, Dataset], layers: dict[Layer, Any]
) -> Iterator[Any]:
    """One item for each layer of each image."""
    for sheet in sheets:
        by_layer: dict[int, list[Mark]] = {}
        for mark in sheet.marks:
            by_layer.setdefault(id(layers[mark.layer]), []).append(mark)
        for marks in by_layer.values():
            yield hd.pr.GraphicAnnotation(
                referenced_images=[images[sheet.place.image]],
                graphic_layer=layers[marks[0].layer],
                referenced_frame_number=sheet.place.frame,
                graphic_objects=[_graphic(origin, group, mark) for mark in marks],
                text_objects=[_text(mark) for mark in marks if mark.text] or None,
            )


def _graphic(origin: Origin, group: Group, mark: Mark) -> Any:
    tracking_id, tracking_uid = origin.tracking(group, mark.segment) if mark.segment else (None, None)
    return hd.pr.GraphicObject(mark.kind, mark.points, "PIXEL", tracking_id=tracking_id, tracking_uid=tracking_uid)


def _text(mark: Mark) -> Any:
    """The label, at the highest point; viewers place it beside."""
    column, row = mark.points[int(np.argmin(mark.points[:, 1]))]
    return hd.pr.TextObject(mark.text, "PIXEL", anchor_point=(float(column), float(row)), anchor_point_visible=False)


def _warning(image: Dataset, layer: Any) -> Any:
    text = hd.pr.TextObject(WARNING, "DISPLAY", bounding_box=_WARNING_BOX, text_justification="LEFT")
    return hd.pr.GraphicAnnotation(referenced_images=[image], graphic_layer=layer, text_objects=[text])


def _windows(origin: Origin, look: _Look, sheets: Sequence[Sheet], images: dict[str, Dataset]) -> Iterator[Any]:
    """Softcopy VOI LUT items: the first window of each image, all grey values where it has none."""
    by_window: dict[_Window, list[Sheet]] = {}
    for sheet in sheets:
        window = _window(origin.sources[sheet.place.image], sheet.place.frame, look)
        by_window.setdefault(window, []).append(sheet)
    for window, shown in by_window.items():
        references = None
        if len(by_window) > 1:
            references = hd.ReferencedImageSequence([images[shown[0].place.image]])
            references.clear()
            for uid in dict.fromkeys(sheet.place.image for sheet in shown):
                frames = [sheet.place.frame for sheet in shown if sheet.place.image == uid and sheet.place.frame]
                references.extend(hd.ReferencedImageSequence([images[uid]], frames or None))
        yield hd.pr.SoftcopyVOILUTTransformation(
            window_center=window.center,
            window_width=window.width,
            window_explanation=window.explanation or None,
            voi_lut_function=window.function or None,
            referenced_images=references,
        )


def _window(header: Dataset, frame: int | None, look: _Look) -> _Window:
    said = _macro(header, frame, "FrameVOILUTSequence")
    center, width = _number(said.get("WindowCenter")), _number(said.get("WindowWidth"))
    function = str(said.get("VOILUTFunction", "") or "")
    if center is not None and width is not None and width >= 1:
        explanation = str(_first(said.get("WindowCenterWidthExplanation")) or "")[:64]
        function = function if function in ("LINEAR", "LINEAR_EXACT", "SIGMOID") else ""
        return _Window(center, width, function, explanation)
    values = 2.0 ** min(int(header.get("BitsStored") or 16), 32)
    middle = 0.0 if header.get("PixelRepresentation") == 1 else values / 2
    return _Window(_short(middle * look.slope + look.intercept), _short(values * abs(look.slope)), "", "")


def _look(header: Dataset, frame: int | None) -> _Look | None:
    """None for what cannot be said again here: grey values that go through a table of the modality."""
    if "ModalityLUTSequence" in header:
        return None
    said = _macro(header, frame, "PixelValueTransformationSequence")
    slope, intercept = _number(said.get("RescaleSlope")), _number(said.get("RescaleIntercept"))
    photometric = header.get("PhotometricInterpretation")
    return _Look(
        rows=int(header.Rows),
        columns=int(header.Columns),
        is_color=photometric not in _PLAIN_IMAGE,
        is_inverse=photometric == "MONOCHROME1",
        slope=slope or 1.0,
        intercept=intercept or 0.0,
        rescale_type=str(said.get("RescaleType") or ("HU" if header.get("Modality") == "CT" else "US"))[:64],
        aspect=_aspect(header, frame),
    )


def _macro(header: Dataset, frame: int | None, keyword: str) -> Dataset:
    """Where a frame's attributes stand: in its own functional group, in the shared one, or in the object itself."""
    if frame is not None:
        groups = header.get("PerFrameFunctionalGroupsSequence") or []
        for holder in (*groups[frame - 1 : frame], *(header.get("SharedFunctionalGroupsSequence") or [])[:1]):
            if holder.get(keyword):
                item: Dataset = holder[keyword].value[0]
                return item
    return header


def _aspect(header: Dataset, frame: int | None) -> tuple[int, int]:
    """Height to width of a pixel, in small whole numbers."""
    spacing = _macro(header, frame, "PixelMeasuresSequence").get("PixelSpacing") or header.get("PixelAspectRatio")
    try:
        height, width = (float(value) for value in spacing or (1, 1))
        ratio = Fraction(height / width).limit_denominator(1000)
    except (TypeError, ValueError, ArithmeticError):
        return 1, 1
    return (ratio.numerator, ratio.denominator) if Fraction(1, 100) <= ratio <= 100 else (1, 1)


def _first(value: Any) -> Any:
    return value if value is None or isinstance(value, (str, float, int)) else next(iter(value), None)


def _number(value: Any) -> float | None:
    """The first value, None where it is no finite number."""
    try:
        number = float(_first(value))
    except (TypeError, ValueError):
        return None
    return _short(number) if np.isfinite(number) else None


def _short(number: float) -> float:
    return float(f"{number:.8g}")  # DS has 16 characters
