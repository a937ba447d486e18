"""Cases through their model: files in, Findings out. Runs in the compute child only.

Which reader, how many inputs and what the answer means is said by pipeline.yaml. Images of several cases of one service
go through the network together; what is wrong with one of them is the reason of that case alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacsnode.errors import Permanent
from pacsnode.findings import Algorithm, Findings, Group, Trace
from pacsnode.infer import groups, needs, places, shown
from pacsnode.infer.bundle import Answer, Bundle, NetworkBundle, WorkflowBundle
from pacsnode.infer.catalogue import Service
from pacsnode.infer.detection import Boxes
from pacsnode.infer.frames import Clip, evenly_spaced, read_clip, read_frames
from pacsnode.infer.groups import Scale
from pacsnode.infer.inputs import Still, as_rgb, read_roles, read_still
from pacsnode.infer.volume import Volume, read_volume
from pacsnode.infer.waveform import read_waveform

READ_AS_NEGATIVE = "The picture's brightness contradicts its PhotometricInterpretation; it was read as its negative."
WEIGHTS_ELSEWHERE = "not known, they are on the inference server"
"""In the place of their hash."""


def infer(service: Service, bundle: Bundle, device: str, files: Sequence[Path]) -> Findings:
    """Findings of one case, one group for each input. Raises Permanent with the reason that an operator reads."""
    (found,) = infer_many(service, bundle, device, [files])
    if isinstance(found, Permanent):
        raise found
    return found


def infer_many(
    service: Service, bundle: Bundle, device: str, cases: Sequence[Sequence[Path]]
) -> Iterator[Findings | Permanent]:
    """Findings of each case in their order, or why there are none."""
    if service.pipeline.input == "image" and isinstance(bundle, NetworkBundle):
        yield from _stills(service, bundle, device, cases)
        return
    for files in cases:
        try:
            needs.refuse_missing_views(service.pipeline.needs, files)
            yield Findings(algorithm(service, device), tuple(_groups(service, bundle, files)))
        except Permanent as error:
            yield error


def algorithm(service: Service, device: str) -> Algorithm:
    """The record of the model that every result carries."""
    pipeline, card = service.pipeline, service.pipeline.card
    weights_hash = (pipeline.network.sha256 or "") if pipeline.network else ""
    return Algorithm(
        service=pipeline.name,
        title=pipeline.title,
        status=pipeline.status,
        version=service.version,
        bundle_hash=service.bundle_hash,
        weights_hash=weights_hash if pipeline.http is None else WEIGHTS_ELSEWHERE,
        method=card.method,
        training_data=card.training_data,
        quality=card.quality,
        intended_use=card.intended_use,
        licence=card.licence,
        device=device,
        procedure=pipeline.procedure.concept,
        machine_learning=pipeline.machine_learning,
    )


def _groups(service: Service, bundle: Bundle, files: Sequence[Path]) -> Iterator[Group]:
    form, is_network = service.pipeline.input, isinstance(bundle, NetworkBundle)
    if form == "volume":
        volume = read_volume(files)
        needs.refuse_volume(service.pipeline.needs, volume)
        yield shown.of_volume(_of_volumes(service, bundle, {"image": volume}), volume)
    elif form == "series":
        resampled = bundle.reading[1] if isinstance(bundle, NetworkBundle) else True
        volumes = read_roles(service.pipeline.series, files, resampled=resampled)
        yield shown.of_volume(_of_volumes(service, bundle, volumes), next(iter(volumes.values())))
    elif form == "multi-frame":
        yield from (_of_clip(service, bundle, path) for path in files)
    elif form == "waveform" and not is_network:
        yield from (_of_waveform(service, bundle, path) for path in files)
    elif form == "image" and not is_network:
        yield from (_of_still(service, bundle, read_still(path, None)) for path in files)
    else:
        raise Permanent(f"this version of the node cannot run a network on input: {form}")


# --- single images, those of several cases together


@dataclass
class _Pending:
    """A case whose images are on their way."""

    files: Sequence[Path]
    groups: list[Group]
    refusal: Permanent | None = None


def _stills(
    service: Service, bundle: NetworkBundle, device: str, cases: Sequence[Sequence[Path]]
) -> Iterator[Findings | Permanent]:
    pending = [_Pending(files, []) for files in cases]
    for one in pending:
        try:
            needs.refuse_missing_views(service.pipeline.needs, one.files)
        except Permanent as error:
            one.refusal = error
    images = [(n, path) for n, one in enumerate(pending) for path in one.files]
    told = 0
    size = service.pipeline.limits.batch
    for start in range(0, len(images), size):
        _together(service, bundle, [(pending[n], path) for n, path in images[start : start + size]])
        ahead = images[start + size][0] if start + size < len(images) else len(pending)
        for one in pending[told:ahead]:
            yield one.refusal or Findings(algorithm(service, device), tuple(one.groups))
        told = ahead
    for one in pending[told:]:
        yield one.refusal or Findings(algorithm(service, device), tuple(one.groups))


def _together(service: Service, bundle: NetworkBundle, images: Sequence[tuple[_Pending, Path]]) -> None:
    """One batch: reads, runs, and adds to each case its group or the reason why it has none."""
    read: list[tuple[_Pending, Still]] = []
    for one, path in images:
        if one.refusal is None:
            try:
                still = read_still(path, bundle.channels)
                needs.refuse_image(service.pipeline.needs, still)
                read.append((one, still))
            except Permanent as error:
                one.refusal = error
    for (one, still), answer in zip(read, bundle.pictures([still.values for _, still in read]), strict=True):
        try:
            if isinstance(answer, Permanent):
                raise answer
            one.groups.append(_of_picture(service, still, answer))
        except Permanent as error:
            one.refusal = one.refusal or error


def _of_picture(service: Service, still: Still, answer: Answer) -> Group:
    pipeline = service.pipeline
    maps = tuple(one[None] for one in answer.maps)
    if maps:
        groups.refuse_empty(pipeline, maps)
    source = (still.sop_instance_uid,)
    planes = places.planes_of(source, (1, *still.values.shape[:2]))
    regions, found = places.located(pipeline, answer.boxes, planes)
    return Group(
        source=source,
        measurements=groups.measurements(pipeline, maps, Scale(still.spacing_mm), {}),
        evaluations=(*groups.classified(pipeline, [answer.probabilities]), *found),
        segments=groups.segments(pipeline),
        notes=(*still.notes, READ_AS_NEGATIVE) if answer.is_negative else still.notes,
        picture=still.picture(is_negative=answer.is_negative),
        regions=regions,
        spacing_mm=still.spacing_mm,
        probabilities=None if answer.probability_maps is None else answer.probability_maps[:, None],
        **groups.laid(maps),
    )


def _of_still(service: Service, bundle: Bundle, still: Still) -> Group:
    assert isinstance(bundle, WorkflowBundle)
    needs.refuse_image(service.pipeline.needs, still)
    pixels = {"intensity": still.values} if still.grey else {"rgb": still.values.astype(np.uint8)}
    outputs = bundle.run(pixels | {"spacing_mm": still.spacing_mm})
    source, shape = (still.sop_instance_uid,), (1, *still.values.shape[:2])
    beside = {"picture": still.picture(), "spacing_mm": still.spacing_mm}
    return _told(service, outputs, source, Scale(still.spacing_mm), shape, still.notes, **beside)


# --- clips


def _of_clip(service: Service, bundle: Bundle, path: Path) -> Group:
    """Every frame by itself, or some of them, evenly spaced."""
    pipeline = service.pipeline
    clip = read_clip(path)
    needs.refuse_clip(pipeline.needs, clip)
    numbers = evenly_spaced(clip.frames, pipeline.most_frames or clip.frames)
    notes: tuple[str, ...] = (clip.spacing_note,) if clip.spacing_note else ()
    if len(numbers) < clip.frames:
        notes += (f"Analysed: {len(numbers)} of {clip.frames} frames, evenly spaced.",)
    layers = groups.Layers((clip.frames, clip.rows, clip.columns))
    if isinstance(bundle, WorkflowBundle):
        return _clip_by_workflow(service, bundle, path, clip, numbers, notes)
    if pipeline.segments:
        layers.need(1)
    probabilities: list[tuple[float, ...]] = []
    boxes: list[Boxes] = []
    for start in range(0, len(numbers), pipeline.limits.batch):
        wanted = numbers[start : start + pipeline.limits.batch]
        pixels = read_frames(path, wanted).pixels
        for number, answer in zip(wanted, bundle.pictures(_for_network(bundle, pixels)), strict=True):
            if isinstance(answer, Permanent):
                raise Permanent(f"frame {number}: {answer}")
            probabilities.append(answer.probabilities)
            boxes += answer.boxes
            layers.put(number, answer.maps)
    maps = layers.maps
    if maps:
        groups.refuse_empty(pipeline, maps)
    source, shape = (clip.sop_instance_uid,), (len(numbers), clip.rows, clip.columns)
    regions, found = places.located(pipeline, boxes, places.planes_of(source, shape, numbers))
    group = Group(
        source=source,
        measurements=groups.measurements(pipeline, maps, Scale(clip.spacing_mm, None, _all(clip)), {}),
        evaluations=(*groups.classified(pipeline, probabilities, numbers), *found),
        segments=groups.segments(pipeline),
        notes=notes,
        regions=regions,
        **groups.laid(maps),
    )
    return shown.of_clip(group, path, groups.most_probable(pipeline, probabilities, numbers))


def _clip_by_workflow(
    service: Service, bundle: WorkflowBundle, path: Path, clip: Clip, numbers: tuple[int, ...], notes: tuple[str, ...]
) -> Group:
    frames = read_frames(path, numbers)
    times_s = None if clip.times_s is None else [clip.times_s[n - 1] for n in numbers]
    asked = {"frames": frames.pixels, "numbers": list(numbers), "times_s": times_s, "spacing_mm": clip.spacing_mm}
    shape = (clip.frames, clip.rows, clip.columns)
    scale = Scale(clip.spacing_mm, None, _all(clip))
    return shown.of_clip(_told(service, bundle.run(asked), (clip.sop_instance_uid,), scale, shape, notes), path)


def _all(clip: Clip) -> tuple[int, ...]:
    return tuple(range(1, clip.frames + 1))


def _for_network(bundle: NetworkBundle, pixels: NDArray[Any]) -> list[NDArray[np.float32]]:
    if pixels.ndim == 4 and bundle.channels == 1:
        raise Permanent("the service reads grey images, this one is coloured")
    if pixels.ndim == 3 and bundle.channels == 3:
        pixels = as_rgb(pixels)
    return [frame.astype(np.float32) for frame in pixels]


# --- volumes and recordings


def _of_volumes(service: Service, bundle: Bundle, volumes: Mapping[str, Volume]) -> Group:
    pipeline = service.pipeline
    first = next(iter(volumes.values()))
    scale = Scale(voxel_mm3=first.voxel_mm3)
    notes = first.notes
    if pipeline.series:
        notes = tuple(f"{role}: {note}" for role, volume in volumes.items() for note in volume.notes)
        notes += (f"Read together: {', '.join(volumes)}; places are those of {next(iter(volumes))}.",)
    if isinstance(bundle, WorkflowBundle):
        plain = {role: _plain(volume) for role, volume in volumes.items()}
        outputs = bundle.run({"series": plain} if pipeline.series else plain["image"])
        return _told(service, outputs, first.source, scale, first.intensity.shape, notes, frames=first.frames)
    lacking = [role.role for role in pipeline.series if role.role not in volumes]
    if lacking and not set(volumes) & set(bundle.reading[0]):
        raise Permanent(f"the study has no series for {', '.join(lacking)}, which the network reads as a channel")
    answer = bundle.volume({role: (volume.intensity, volume.affine) for role, volume in volumes.items()})
    if answer.maps:
        groups.refuse_empty(pipeline, answer.maps)
    planes = places.planes_of(first.source, first.intensity.shape, first.frames)
    regions, found = places.located(pipeline, answer.boxes, planes)
    return Group(
        source=first.source,
        measurements=groups.measurements(pipeline, answer.maps, scale, {}),
        evaluations=(*groups.classified(pipeline, [answer.probabilities]), *found),
        segments=groups.segments(pipeline),
        notes=notes,
        frames=first.frames,
        regions=regions,
        probabilities=answer.probability_maps,
        **groups.laid(answer.maps),
    )


def _plain(volume: Volume) -> dict[str, Any]:
    return {"intensity": volume.intensity, "spacing_mm": volume.spacing_mm, "affine": volume.affine}


def _of_waveform(service: Service, bundle: Bundle, path: Path) -> Group:
    assert isinstance(bundle, WorkflowBundle)
    recording = read_waveform(path)
    needs.refuse_waveform(service.pipeline.needs, recording)
    outputs = bundle.run(
        {
            "millivolts": recording.millivolts,
            "leads": list(recording.leads),
            "sampling_hz": recording.sampling_hz,
        }
    )
    beats = tuple(int(b) for b in outputs.get("beats", ()))
    trace = Trace(recording.leads, recording.millivolts, recording.sampling_hz, beats)
    return _told(service, outputs, (recording.sop_instance_uid,), Scale(), None, recording.notes, trace=trace)


def _told(
    service: Service,
    outputs: Mapping[str, Any],
    source: tuple[str, ...],
    scale: Scale,
    shape: tuple[int, ...] | None,
    notes: tuple[str, ...],
    **beside: Any,
) -> Group:
    """A workflow's answer: `values`, `findings`, `regions`, `notes`, a `label_map` of `shape`. Raises Permanent."""
    pipeline = service.pipeline
    maps = groups.told_labels(outputs.get("label_map"), shape) if pipeline.segments else ()
    if maps:
        groups.refuse_empty(pipeline, maps)
    measurements = groups.measurements(pipeline, maps, scale, outputs.get("values", {}))
    planes = places.planes_of(source, shape, beside.get("frames", ())) if shape is not None else None
    regions, found = places.told(pipeline, outputs.get("regions"), planes)
    if pipeline.measurements and not measurements and (not maps or maps[0].any()):
        raise Permanent("the method could measure nothing in this recording")
    return Group(
        source=source,
        measurements=measurements,
        evaluations=(*groups.said(pipeline, outputs.get("findings", {})), *found),
        regions=regions,
        segments=groups.segments(pipeline) if maps else (),
        notes=(*notes, *(str(note) for note in outputs.get("notes", ()))),
        **groups.laid(maps),
        **beside,
    )
