"""Answers of a model to Groups of Findings, by the outputs of its pipeline.yaml. Pure.

In: labels on the grid of the source, probabilities, or what a workflow said. Out: coded measurements, evaluations and
segments, or Permanent. Says `absent` only where the model card has a sensitivity measured on real data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacsnode.dicom.codes import NO_UNITS, Concept
from pacsnode.errors import Permanent
from pacsnode.findings import Evaluation, Measurement, Presence, Segment, united
from pacsnode.infer import measure
from pacsnode.infer.pipeline import LATERALITY, EvaluationSpec, MeasurementSpec, PipelineFile

Maps = tuple[NDArray[np.uint8], ...]
"""Label maps of one shape, (planes, rows, columns): several where segments overlap, none where there are none."""
MOST_LABEL_BYTES = 1_600_000_000
"""Of the label maps of a clip."""
SENSITIVITY_UNKNOWN = "No candidate found; sensitivity not measured."


@dataclass(frozen=True)
class Scale:
    """What a pixel is in the patient. `numbers`: of the frames of a clip, else empty."""

    spacing_mm: tuple[float, float] | None = None
    voxel_mm3: float | None = None
    numbers: tuple[int, ...] = ()


class Layers:
    """The label maps of a clip, filled frame by frame: as many as any frame needs. Raises Permanent for too many."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self.maps: Maps = ()
        self._refuse_too_large(1)

    def put(self, number: int, maps: Maps) -> None:
        """Those of a frame (from 1), each (rows, columns)."""
        self.need(len(maps))
        for whole, one in zip(self.maps, maps, strict=False):
            whole[number - 1] = one

    def need(self, layers: int) -> None:
        """At least so many."""
        self._refuse_too_large(layers)
        while len(self.maps) < layers:
            self.maps += (np.zeros(self._shape, dtype=np.uint8),)

    def _refuse_too_large(self, layers: int) -> None:
        if layers * math.prod(self._shape) > MOST_LABEL_BYTES:
            frames, rows, columns = self._shape
            raise Permanent(f"a clip of {frames} frames of {columns} x {rows} pixels is too large")


def laid(maps: Maps) -> dict[str, Any]:
    """As the fields of a Group."""
    return {"label_map": maps[0], "overlaid": maps[1:]} if maps else {}


def segments(pipeline: PipelineFile) -> tuple[Segment, ...]:
    """Of the label map."""
    return tuple(
        Segment(
            s.value,
            s.label,
            s.category.concept,
            s.type.concept,
            LATERALITY[s.laterality],
            (s.color_rgb[0], s.color_rgb[1], s.color_rgb[2]),
            s.may_be_absent,
        )
        for s in pipeline.segments
    )


def refuse_empty(pipeline: PipelineFile, maps: Maps) -> None:
    """An output that lacks a structure is no result, unless it may be absent: the image will be the wrong one."""
    known = len(pipeline.segments)
    if unknown := sorted({n for one in maps if one.max() > known for n in np.unique(one).tolist() if n > known}):
        raise Permanent(f"the model gave labels that pipeline.yaml does not know: {unknown}")
    for spec in pipeline.segments:
        fraction = _pixels(maps, (spec.value,)) / maps[0].size
        if fraction <= spec.minimum_fraction and not spec.may_be_absent:
            found_text = f"{fraction:.2%} of the image, more than {spec.minimum_fraction:.2%} expected"
            raise Permanent(
                f"the model found no usable {spec.label.lower()} ({found_text}): not the kind of image that it reads?"
            )


def _pixels(maps: Maps, values: Sequence[int]) -> int:
    """How many have any of the values; plane by plane, so that what is compared stays in the processor's cache."""
    return sum(int(np.count_nonzero(united(planes, values))) for planes in zip(*maps, strict=True))


def told_labels(given: Any, shape: tuple[int, ...] | None) -> Maps:
    """The label map that a workflow gave, (planes, rows, columns) on the grid of the source. Raises Permanent."""
    found = np.asarray(given) if given is not None else None
    if found is None or shape is None:
        raise Permanent("the method gave no label map, but pipeline.yaml has segments")
    if found.shape == shape[1:] and shape[0] == 1:
        found = found[None]
    if found.shape != shape:
        told, expected = (" x ".join(map(str, one)) for one in (found.shape, shape))
        raise Permanent(f"the method's label map has the shape {told}; the image needs {expected}")
    with np.errstate(invalid="ignore"):
        whole = found.astype(np.uint8)
    if not np.array_equal(whole, found):
        raise Permanent("the method's label map does not hold labels (whole numbers from 0 to 255)")
    return (whole,)


def measurements(
    pipeline: PipelineFile, maps: Maps, scale: Scale, values: Mapping[str, Any]
) -> tuple[Measurement, ...]:
    """Numbers that the node measures on the label maps, and those that a workflow gave.

    A ratio of what was not found, and may be absent, is no number.
    """
    found = []
    for spec in pipeline.measurements:
        if spec.method is None:
            if spec.key in values:
                found.append(_measurement(spec, float(values[spec.key]), _unit(spec)))
        elif maps and not _is_of_nothing(pipeline, spec, maps):
            found.append(_measured(spec, maps, scale))
    return tuple(found)


def _is_of_nothing(pipeline: PipelineFile, spec: MeasurementSpec, maps: Maps) -> bool:
    absent = {s.value for s in pipeline.segments if s.may_be_absent}
    sides = [values for values in (spec.of, spec.over) if set(values) <= absent]
    return spec.method == "width_ratio" and not all(united(maps, values).any() for values in sides)


def _measured(spec: MeasurementSpec, maps: Maps, scale: Scale) -> Measurement:
    if scale.voxel_mm3 is not None:
        return _measurement(spec, *measure.volume(_pixels(maps, spec.of), scale.voxel_mm3))
    mask = united(maps, spec.of)
    plane, where = 0, ""
    if scale.numbers:  # of a clip: where there is most of it
        plane = int(mask.sum(axis=(1, 2)).argmax())
        where = f"On frame {scale.numbers[plane]}, which shows the largest area."
    if spec.method == "width_ratio":
        value, unit = measure.width_ratio(mask[plane], united(maps, spec.over)[plane]), _unit(spec)
    else:
        value, unit = measure.area(mask[plane], scale.spacing_mm)
    return _measurement(spec, value, unit, where)


def _measurement(spec: MeasurementSpec, value: float, unit: Concept, where: str = "") -> Measurement:
    if not math.isfinite(value):
        raise Permanent(f"the model's {spec.name.meaning} is not a number")
    return Measurement(
        spec.name.concept,
        value,
        unit,
        spec.site.concept if spec.site else None,
        LATERALITY[spec.laterality],
        f"{spec.derivation} {where}".strip(),
    )


def _unit(spec: MeasurementSpec) -> Concept:
    return spec.unit.concept if spec.unit else NO_UNITS


def classified(
    pipeline: PipelineFile, probabilities: Sequence[tuple[float, ...]], numbers: Sequence[int] = ()
) -> tuple[Evaluation, ...]:
    """Findings of a classifying network; of a clip by the frame where the class is most probable (`numbers`)."""
    if pipeline.classification is None:
        return ()
    found = []
    for spec in pipeline.classification.classes:
        if spec.name is None or spec.threshold is None:
            continue
        best = max(range(len(probabilities)), key=lambda n: probabilities[n][spec.index])
        probability = probabilities[best][spec.index]
        is_present = probability >= spec.threshold
        comment = f"Highest on frame {numbers[best]}." if numbers else ""
        presence, comment = careful(pipeline, spec.label, Presence.PRESENT if is_present else Presence.ABSENT, comment)
        site = spec.site.concept if spec.site else None
        found.append(Evaluation(spec.name.concept, presence, probability, comment, site, LATERALITY[spec.laterality]))
    return tuple(found)


def most_probable(
    pipeline: PipelineFile, probabilities: Sequence[tuple[float, ...]], numbers: Sequence[int]
) -> tuple[int, ...]:
    """Of the frames `numbers`: those where a finding of the classifying network is most probable."""
    told = [c.index for c in pipeline.classification.classes if c.name is not None] if pipeline.classification else []
    best = (max(range(len(probabilities)), key=lambda n: probabilities[n][index]) for index in told)
    return tuple(dict.fromkeys(numbers[n] for n in best))


def said(pipeline: PipelineFile, findings: Mapping[str, Mapping[str, Any]]) -> tuple[Evaluation, ...]:
    """Findings that a workflow tells."""
    return tuple(_said(pipeline, spec, findings[spec.key]) for spec in pipeline.evaluations if spec.key in findings)


def _said(pipeline: PipelineFile, spec: EvaluationSpec, told: Mapping[str, Any]) -> Evaluation:
    name = spec.name.concept
    probability = told.get("probability")
    if probability is not None and not 0 <= float(probability) <= 1:
        raise Permanent(f"the model's probability of {name.meaning} is {probability}, not between 0 and 1")
    presence, comment = careful(pipeline, spec.key, Presence(told["presence"]), str(told.get("comment", "")))
    return Evaluation(name, presence, None if probability is None else float(probability), comment)


def careful(pipeline: PipelineFile, key: str, presence: Presence, comment: str) -> tuple[Presence, str]:
    """Presence and comment: it is absent only where the card says how often the method would have seen it."""
    if presence is Presence.ABSENT and key not in pipeline.sensitivity_known:
        return Presence.UNDETERMINED, f"{SENSITIVITY_UNKNOWN} {comment}".strip()
    return presence, comment
