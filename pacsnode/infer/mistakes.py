"""What is wrong with a pipeline.yaml whose every part is right by itself: parts that contradict, files that lack.

In: the record of the file, and the names and hashes of the files beside it. Out: problems with their places. Reads no
file itself. docs/services.md explains each code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pacsnode.conditions import STUDY_HAS, Condition, StudyHas
from pacsnode.infer import endpoint
from pacsnode.infer.endpoint import Http
from pacsnode.infer.pipeline import MeasurementSpec, Needs, Network, PipelineFile, SeriesRole
from pacsnode.yamlfile import Loc, Problem, nearest

CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
SCRIPT = "scripts/workflow.py"
FITTING: Mapping[str, tuple[str, ...]] = {
    "image": ("views", "pixel_spacing_mm"),
    "multi-frame": ("views", "pixel_spacing_mm", "frames"),
    "volume": ("views", "pixel_spacing_mm", "slice_spacing_mm", "slices", "orientation"),
    "waveform": ("views", "leads", "sampling_hz", "duration_s"),
    "series": ("views",),
}
"""What may stand in `needs`, by the form of the input; a role of `series` may need what a volume may."""

NOT_OF_REMOTE = {"needs", "series", "limits", "longest_side", "polarity_check", "keep_probabilities"}
NOT_OF_REMOTE |= {"segments", "measurements", "evaluations", "classification", "regions"}
"""Keys for a model that runs here."""

Files = Mapping[str, str]
"""SHA-256 by the path from the folder on."""


def problems(folder: Path, pipeline: PipelineFile, files: Files) -> list[Problem]:
    """Everything that is wrong between the parts of the file, and between it and its folder."""
    found: list[Problem] = []
    if pipeline.name != folder.name:
        text = f"is {pipeline.name}, but the folder is {folder.name}; they must be equal"
        found.append(Problem(("name",), text, "folder-name"))
    if [pipeline.network, pipeline.http, pipeline.workflow, pipeline.remote].count(None) != 3:
        text = "exactly one of `network`, `http`, `workflow` and `remote` must be given"
        found.append(Problem((), text, "one-model"))
    found += _of_network(folder, pipeline, files)
    found += _of_http(folder, pipeline, files)
    found += _of_workflow(pipeline, files)
    found += _of_remote(pipeline)
    found += _of_outputs(pipeline)
    found += _of_input(pipeline)
    found += _of_probabilities(pipeline)
    found += _of_card(pipeline)
    return found


def slot_obstacle(pipeline: PipelineFile, files: Files) -> str:
    """Why a slot cannot be used, and what to do."""
    if pipeline.remote is not None:
        return (
            f"slot: enter the vendor's node as peer {pipeline.remote.peer} in the rules file, then another status here"
        )
    if pipeline.http is not None:
        return "slot: enter address and model of the inference server under `http`, then another status"
    if pipeline.network is None:
        return f"slot: put the algorithm into {SCRIPT}, then write another status"
    network, weights = pipeline.network, pipeline.network.weights
    config = "" if config_of(network, files) else f" and its config to {network.config or CONFIGS[1]}"
    if weights not in files:
        return f"slot: copy the vendor's weights to {weights}{config}, then enter their sha256 and another status"
    if config:
        return f"slot: the weights are there; copy{config.removeprefix(' and')}, then enter another status"
    return f"slot: the weights are there; enter sha256: {files[weights]} and another status in pipeline.yaml"


def config_of(network: Network | Http, files: Iterable[str]) -> str:
    """The config by which a network runs, from the folder on; "" where there is none."""
    there = set(files)
    wanted = CONFIGS if network.config is None else (network.config,)
    return next((name for name in wanted if name in there), "")


def _of_network(folder: Path, pipeline: PipelineFile, files: Files) -> Iterator[Problem]:
    """Of a network that runs here or on an inference server."""
    network, key = pipeline.network or pipeline.http, "network" if pipeline.network else "http"
    if network is None:
        return
    if pipeline.input == "waveform":
        text = f"a{'n' if pipeline.http else ''} `{key}` reads images, clips, volumes or series, not waveform"
        yield Problem(("input",), text, "input")
    if not (pipeline.segments or pipeline.classification or pipeline.regions):
        text = "a network needs `segments` (one for each label), `classification` or `regions`"
        yield Problem((key,), text, "no-output")
    given = [one for one in ("segments", "classification", "regions") if getattr(pipeline, one)]
    for other in given[1:]:
        text = f"a network has either `{given[0]}` or `{other}`"
        yield Problem((other,), text, "one-output", at="key")
    yield from _of_detector(pipeline)
    needs_config = pipeline.http is None or pipeline.input not in ("image", "multi-frame") or network.config is not None
    if needs_config and not config_of(network, files) and pipeline.status != "slot":
        wanted = network.config or f"{CONFIGS[1]} (or {Path(CONFIGS[0]).name})"
        yield Problem((key, "config") if network.config else (key,), f"the folder has no {wanted}", "no-config")
    if pipeline.network is not None and pipeline.status != "slot":
        yield from _of_weights(folder, pipeline.network, files)


def _of_http(folder: Path, pipeline: PipelineFile, files: Files) -> Iterator[Problem]:
    if pipeline.http is not None:
        yield from endpoint.problems(folder, pipeline.http, pipeline.limits.time_s, files)
        if pipeline.classification is not None:
            yield from endpoint.class_problem(pipeline.http, len(pipeline.classification.classes))
        if pipeline.regions:
            text = "`regions` are for a `network` that runs here: a server gives one output, no boxes with their scores"
            yield Problem(("regions",), text, "not-of-this-model", at="key")


def _of_detector(pipeline: PipelineFile) -> Iterator[Problem]:
    for n, one in enumerate(pipeline.regions):
        if one.shape != "box":
            yield Problem(("regions", n, "shape"), "a network gives boxes; other shapes are a workflow's", "region")
        if one.threshold is None:
            yield Problem(("regions", n), "`threshold` is missing: from which score is it reported?", "region")
        if one.index in [other.index for other in pipeline.regions[:n]]:
            text = f"`index` {one.index} is here twice; each label of the network has its own"
            yield Problem(("regions", n), text, "region")
    if pipeline.regions and pipeline.polarity_check:
        text = "`polarity_check` is for a network that segments or classifies"
        yield Problem(("polarity_check",), text, "not-of-this-model", at="key")


def _of_weights(folder: Path, network: Network, files: Files) -> Iterator[Problem]:
    at: Loc = ("network", "weights")
    weights = folder / network.weights
    if not weights.resolve().is_relative_to(folder.resolve()):
        yield Problem(at, "weights must lie inside the service's folder", "weights")
        return
    found = files.get(Path(network.weights).as_posix())
    if found is None:
        text = f"there is no file {weights}; copy the weights there, or write `status: slot` until they are"
        yield Problem(at, text, "weights")
    elif network.sha256 is None:
        yield Problem(
            ("network", "sha256"), f"this key is missing; the file that is there has {found}", "missing", "key"
        )
    elif network.sha256 != found:
        text = (
            f"{weights} has SHA-256 {found[:12]}…, expected {network.sha256[:12]}…; restore the weights that belong to "
        )
        yield Problem(at, f"{text}this service, or enter the new hash if you changed them", "weights")


def _of_workflow(pipeline: PipelineFile, files: Files) -> Iterator[Problem]:
    if pipeline.workflow is not None and pipeline.status != "slot" and SCRIPT not in files:
        yield Problem(("workflow",), f"the folder has no {SCRIPT}", "no-script")
    if pipeline.segments and pipeline.input == "waveform":
        yield Problem(("segments",), "a waveform has no `segments`", "not-of-this-input", at="key")
    if pipeline.regions and pipeline.input == "waveform":
        yield Problem(("regions",), "a waveform has no `regions`", "not-of-this-input", at="key")
    if pipeline.workflow is not None and pipeline.classification:
        text = "`classification` is for a network; a workflow tells its findings in `evaluations`"
        yield Problem(("classification",), text, "not-of-this-model", at="key")
    if (pipeline.network or pipeline.http) and pipeline.evaluations:
        text = "`evaluations` are what a workflow says; a network has `classification`"
        yield Problem(("evaluations",), text, "not-of-this-model", at="key")


def _of_remote(pipeline: PipelineFile) -> Iterator[Problem]:
    """What the node never does for a vendor's node: look at pixels, measure, put codes to what was found."""
    if pipeline.remote is None:
        return
    for key in sorted(pipeline.model_fields_set & NOT_OF_REMOTE):
        text = f"the vendor's node decides that, and its results stay as they are; delete `{key}`"
        yield Problem((key,), text, "not-of-this-model", at="key")


def _of_outputs(pipeline: PipelineFile) -> Iterator[Problem]:
    values = [s.value for s in pipeline.segments]
    if sorted(values) != list(range(1, len(values) + 1)):
        yield Problem(("segments",), "values must be 1 to n without gaps", "segment-values")
    for n, measurement in enumerate(pipeline.measurements):
        text, code = _measurement_problem(measurement, pipeline, set(values))
        if text:
            yield Problem(("measurements", n), text, code)
    for name, listed in (("evaluations", pipeline.evaluations), ("regions", pipeline.regions)):
        yield from _twice(name, "key", [one.key for one in listed])
    if pipeline.classification is None:
        return
    indexes = [one.index for one in pipeline.classification.classes]
    if sorted(indexes) != list(range(len(indexes))):
        yield Problem(("classification", "classes"), "indexes must be 0 to n without gaps", "class-indexes")
    for n, one in enumerate(pipeline.classification.classes):
        if (one.name is None) != (one.threshold is None):
            text = "`name` (the finding) and `threshold` go together; a class that is no finding has neither"
            yield Problem(("classification", "classes", n), text, "class-threshold")


def _twice(name: str, key: str, values: list[str]) -> Iterator[Problem]:
    for n, value in enumerate(values):
        if value in values[:n]:
            yield Problem((name, n, key), f"{value} is here twice", "same-key")


def _measurement_problem(spec: MeasurementSpec, pipeline: PipelineFile, values: set[int]) -> tuple[str, str]:
    """(what is wrong, its code), empty where nothing is."""
    if (spec.method is None) == (not spec.key):
        return "give either `method` or `key`", "one-source"
    if spec.method is None:
        return ("", "") if pipeline.workflow else ("`key` names a value of a workflow; give a `method`", "one-source")
    if not {*spec.of, *spec.over} <= values:
        return "`of` and `over` must name values of segments", "unknown-segment"
    if not spec.of or (spec.method == "width_ratio") != bool(spec.over):
        return "`of` is needed, and `over` for width_ratio only", "missing-segment"
    if (spec.method == "volume") != (pipeline.input in ("volume", "series")):
        return "a volume is measured by `volume`, an image by `area` or `width_ratio`", "method"
    if spec.unit is not None and spec.method != "width_ratio":
        return f"the node knows the unit of {spec.method}; leave `unit` out", "unit"
    return "", ""


def _of_input(pipeline: PipelineFile) -> Iterator[Problem]:
    yield from _of_needs(("needs",), pipeline.needs, pipeline.input, f"input: {pipeline.input}")
    for n, one in enumerate(pipeline.series):
        yield from _of_needs(("series", n, "needs"), one.needs, "volume", "a series")
        yield from _of_images(("series", n, "when"), one.when)
    if (pipeline.input == "series") != bool(pipeline.series) and pipeline.remote is None:
        text = "`input: series` and `series:` (which series plays which role) go together"
        yield Problem(("series",) if pipeline.series else ("input",), text, "roles")
    yield from _twice("series", "role", [one.role for one in pipeline.series])
    if pipeline.series and all(map(_is_optional, pipeline.series)):
        yield Problem(("series",), "at least one series must not be `optional`", "roles")
    if pipeline.most_frames and pipeline.input != "multi-frame":
        text = "`most_frames` is for `input: multi-frame`"
        yield Problem(("most_frames",), text, "not-of-this-input", at="key")
    for key in ("longest_side", "polarity_check"):
        if getattr(pipeline, key) and (pipeline.input != "image" or not (pipeline.network or pipeline.http)):
            yield Problem((key,), f"`{key}` is for a network on `input: image`", "not-of-this-input", at="key")


def _of_probabilities(pipeline: PipelineFile) -> Iterator[Problem]:
    may = ("image", "volume", "series")
    if pipeline.keep_probabilities and not (pipeline.network and pipeline.segments and pipeline.input in may):
        text = "`keep_probabilities` is for a network with `segments` on images, volumes or series"
        yield Problem(("keep_probabilities",), text, "not-of-this-model", at="key")


def _is_optional(one: SeriesRole) -> bool:
    return one.optional


def _of_needs(loc: Loc, needs: Needs, form: str, called: str) -> Iterator[Problem]:
    for key in sorted(needs.model_fields_set - set(FITTING[form])):
        text = f"{called} has no {key}; it may need {', '.join(FITTING[form])}"
        yield Problem((*loc, key), text, "not-of-this-input", at="key")
    for n, view in enumerate(needs.views):
        yield from _of_images((*loc, "views", n), view)


def _of_images(loc: Loc, condition: Condition) -> Iterator[Problem]:
    """Conditions that are looked at in the compute process: it has the image's file, and nothing else."""
    for name in sorted({name.text for name in condition.names() if not name.steps}):
        text = f"{name} does not stand in the file of an image; put it under `accepts`"
        yield Problem((*loc, name), text, "not-in-the-file", at="key")
    if any(isinstance(part, StudyHas) for part in condition.parts):
        yield Problem((*loc, STUDY_HAS), f"put `{STUDY_HAS}` under `accepts`", "not-in-the-file", at="key")


def _of_card(pipeline: PipelineFile) -> Iterator[Problem]:
    outputs = sorted(set(pipeline.outputs()))
    for n, measured in enumerate(pipeline.card.measured):
        loc: Loc = ("card", "measured", n)
        if measured.of and measured.of not in outputs and pipeline.remote is None:
            near = nearest(measured.of, outputs) or f"; expected: {', '.join(outputs)}"
            yield Problem((*loc, "of"), f"there is no output {measured.of}{near}", "unknown-output")
        if measured.metric.casefold() != "sensitivity":
            continue
        if not measured.of:
            yield Problem(loc, "a sensitivity needs `of`: of which finding?", "unknown-output")
        if not 0 <= measured.value <= 1:
            text = f"a sensitivity is a number from 0 to 1, found {measured.value:g}"
            yield Problem((*loc, "value"), text, "wrong-value")
