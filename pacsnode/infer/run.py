"""One case through its model: files in, Findings out. Runs in the compute child only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacsnode.dicom.codes import NO_UNITS, Concept
from pacsnode.errors import Permanent
from pacsnode.findings import (
    Algorithm,
    Evaluation,
    Findings,
    Group,
    Measurement,
    Presence,
    Segment,
    Trace,
)
from pacsnode.infer import measure, needs
from pacsnode.infer.bundle import NetworkBundle, WorkflowBundle
from pacsnode.infer.catalogue import Service
from pacsnode.infer.pipeline import LATERALITY, EvaluationSpec, MeasurementSpec
from pacsnode.infer.pixels import Image, read_image
from pacsnode.infer.volume import read_volume
from pacsnode.infer.waveform import read_waveform

SENSITIVITY_UNKNOWN = "No candidate found; sensitivity not measured."
READ_AS_NEGATIVE = "The picture's brightness contradicts its PhotometricInterpretation; it was read as its negative."


def infer(service: Service, bundle: NetworkBundle | WorkflowBundle, device: str, files: Sequence[Path]) -> Findings:
    """Findings of one case, one group for each input. Raises Permanent with the reason that an operator reads."""
    needs.refuse_missing_views(service.pipeline.needs, files)
    if service.pipeline.input == "image" and isinstance(bundle, NetworkBundle):
        groups = tuple(_image_group(service, bundle, path) for path in files)
    elif service.pipeline.input == "volume" and isinstance(bundle, NetworkBundle):
        groups = (_volume_group(service, bundle, files),)
    elif service.pipeline.input == "waveform" and isinstance(bundle, WorkflowBundle):
        groups = tuple(_waveform_group(service, bundle, path) for path in files)
    else:
        kind = "a network" if isinstance(bundle, NetworkBundle) else "a workflow"
        raise Permanent(f"this version of the node cannot run {kind} on input: {service.pipeline.input}")
    return Findings(algorithm(service, device), groups)


def algorithm(service: Service, device: str) -> Algorithm:
    """The record of the model that every result carries."""
    pipeline, card = service.pipeline, service.pipeline.card
    return Algorithm(
        service=pipeline.name,
        title=pipeline.title,
        status=pipeline.status,
        version=service.version,
        bundle_hash=service.bundle_hash,
        weights_hash=(pipeline.network.sha256 or "") if pipeline.network else "",
        method=card.method,
        training_data=card.training_data,
        quality=card.quality,
        intended_use=card.intended_use,
        licence=card.licence,
        device=device,
        procedure=pipeline.procedure.concept,
        machine_learning=pipeline.machine_learning,
    )


def _image_group(service: Service, bundle: NetworkBundle, path: Path) -> Group:
    image = read_image(path)
    needs.refuse_image(service.pipeline.needs, image)
    notes: tuple[str, ...] = (image.spacing_note,) if image.spacing_note else ()
    label_map, is_negative = bundle.label_map(image.intensity)
    if is_negative:
        image = image.negative()
        notes += (READ_AS_NEGATIVE,)
    _refuse_empty(service, label_map)
    return Group(
        source=(image.sop_instance_uid,),
        measurements=tuple(_measure(spec, label_map, image) for spec in service.pipeline.measurements),
        segments=tuple(_segments(service)),
        notes=notes,
        label_map=label_map[None],
        picture=image.picture,
    )


def _volume_group(service: Service, bundle: NetworkBundle, files: Sequence[Path]) -> Group:
    """No picture: a volume has no single plane that stands for it; viewers show the segmentation on the series."""
    volume = read_volume(files)
    needs.refuse_volume(service.pipeline.needs, volume)
    label_map = bundle.volume_label_map(volume.intensity, volume.affine)
    _refuse_empty(service, label_map)
    return Group(
        source=volume.source,
        measurements=tuple(
            _measurement(spec, *measure.volume(label_map, spec.of, volume.voxel_mm3))
            for spec in service.pipeline.measurements
        ),
        segments=tuple(_segments(service)),
        notes=volume.notes,
        label_map=label_map,
        frames=volume.frames,
    )


def _refuse_empty(service: Service, label_map: NDArray[np.uint8]) -> None:
    """An output that lacks a structure is no result: it is more often a wrong image than a missing organ."""
    counts = {value: int(np.count_nonzero(label_map == value)) for value in (0, *_values(service))}
    if sum(counts.values()) < label_map.size:
        unknown = sorted(set(np.unique(label_map).tolist()) - set(counts))
        raise Permanent(f"the model gave labels that pipeline.yaml does not know: {unknown}")
    for spec in service.pipeline.segments:
        fraction = counts[spec.value] / label_map.size
        if fraction <= spec.minimum_fraction:
            found_text = f"{fraction:.2%} of the image, more than {spec.minimum_fraction:.2%} expected"
            raise Permanent(
                f"the model found no usable {spec.label.lower()} ({found_text}): not the kind of image that it reads?"
            )


def _values(service: Service) -> list[int]:
    return [s.value for s in service.pipeline.segments]


def _measure(spec: MeasurementSpec, label_map: NDArray[np.uint8], image: Image) -> Measurement:
    if spec.method == "width_ratio":
        value, unit = measure.width_ratio(label_map, spec.of, spec.over), _unit(spec)
    else:
        value, unit = measure.area(label_map, spec.of, image.spacing_mm)
    return _measurement(spec, value, unit)


def _measurement(spec: MeasurementSpec, value: float, unit: Concept) -> Measurement:
    if not math.isfinite(value):
        raise Permanent(f"the model's {spec.name.meaning} is not a number")
    return Measurement(
        spec.name.concept,
        value,
        unit,
        spec.site.concept if spec.site else None,
        LATERALITY[spec.laterality],
        spec.derivation,
    )


def _unit(spec: MeasurementSpec) -> Concept:
    return spec.unit.concept if spec.unit else NO_UNITS


def _segments(service: Service) -> list[Segment]:
    return [
        Segment(
            s.value,
            s.label,
            s.category.concept,
            s.type.concept,
            LATERALITY[s.laterality],
            (s.color_rgb[0], s.color_rgb[1], s.color_rgb[2]),
        )
        for s in service.pipeline.segments
    ]


def _waveform_group(service: Service, bundle: WorkflowBundle, path: Path) -> Group:
    recording = read_waveform(path)
    needs.refuse_waveform(service.pipeline.needs, recording)
    outputs = bundle.run(
        {
            "millivolts": recording.millivolts,
            "leads": list(recording.leads),
            "sampling_hz": recording.sampling_hz,
        }
    )
    values, findings = outputs["values"], outputs["findings"]
    measurements = tuple(
        _measurement(spec, float(values[spec.key]), _unit(spec))
        for spec in service.pipeline.measurements
        if spec.key in values
    )
    if not measurements:
        raise Permanent("the method could measure nothing in this recording")
    known = service.pipeline.sensitivity_known
    evaluations = tuple(
        _evaluation(spec, findings[spec.key], known) for spec in service.pipeline.evaluations if spec.key in findings
    )
    beats = tuple(int(b) for b in outputs.get("beats", ()))
    return Group(
        source=(recording.sop_instance_uid,),
        measurements=measurements,
        evaluations=evaluations,
        notes=(*recording.notes, *(str(note) for note in outputs.get("notes", ()))),
        trace=Trace(recording.leads, recording.millivolts, recording.sampling_hz, beats),
    )


def _evaluation(spec: EvaluationSpec, said: Mapping[str, Any], sensitivity_known: frozenset[str]) -> Evaluation:
    """What the workflow says; it is absent only where the card says how often the method would have seen it."""
    name = spec.name.concept
    probability = said.get("probability")
    if probability is not None and not 0 <= float(probability) <= 1:
        raise Permanent(f"the model's probability of {name.meaning} is {probability}, not between 0 and 1")
    presence, comment = Presence(said["presence"]), str(said.get("comment", ""))
    if presence is Presence.ABSENT and spec.key not in sensitivity_known:
        presence, comment = Presence.UNDETERMINED, f"{SENSITIVITY_UNKNOWN} {comment}".strip()
    return Evaluation(name, presence, None if probability is None else float(probability), comment)
