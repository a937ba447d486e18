"""The AI services of `models/`: one folder each, read from its pipeline.yaml and checked. Never loads a network.

A bundle is code: its hash (every file) is in each result, and weights that do not match their hash are refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from pacsnode import yamlfile
from pacsnode.conditions import Condition
from pacsnode.dicom.codes import LEFT, RIGHT, Concept
from pacsnode.errors import ConfigError
from pacsnode.operators import ConditionMap
from pacsnode.yamlfile import Items, Problem, Record

PIPELINE_FILE = "pipeline.yaml"
Status = Literal["certified", "trained", "classical", "published weights", "slot"]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,30}[a-z0-9]$")]


class Code(Record):
    """A coded concept as pipeline.yaml writes it."""

    value: Annotated[str, StringConstraints(min_length=1, max_length=16)]
    scheme: Annotated[str, StringConstraints(min_length=1, max_length=16)]
    meaning: Annotated[str, StringConstraints(min_length=1, max_length=64)]

    @property
    def concept(self) -> Concept:
        """The same as the vocabulary's type."""
        return Concept(self.value, self.scheme, self.meaning)


Laterality = Literal["right", "left"]
LATERALITY: dict[str | None, Concept | None] = {"right": RIGHT, "left": LEFT, None: None}


class Limits(Record):
    """What one run may take before its process is killed."""

    time_s: Annotated[float, Field(gt=0, le=86400)] = 300.0
    memory_mb: Annotated[int, Field(ge=64)] = 4000


class Network(Record):
    """A network whose weights are a state dict, run by configs/inference.yaml."""

    weights: Text
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Workflow(Record):
    """A published algorithm: a class of scripts/workflow.py, a monai.bundle.BundleWorkflow."""

    class_: str = Field(alias="class", pattern=r"^[A-Za-z_]\w*$")


class Card(Record):
    """What every result says of its maker."""

    method: Text
    training_data: Text
    quality: Text
    intended_use: Text
    licence: Text


class SegmentSpec(Record):
    """One label of the label map; `minimum_fraction` of the image, below which the output counts as empty."""

    value: Annotated[int, Field(ge=1, le=255)]
    label: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    category: Code
    type: Code
    laterality: Laterality | None = None
    color_rgb: Annotated[Items[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]
    minimum_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0


class MeasurementSpec(Record):
    """A number: measured by the node on the label map (`method`), or a value of the workflow (`key`)."""

    name: Code
    method: Literal["area", "volume", "width_ratio"] | None = None
    of: Items[int] = ()
    over: Items[int] = ()
    key: str = ""
    unit: Code | None = None
    site: Code | None = None
    laterality: Laterality | None = None
    derivation: str = ""


class EvaluationSpec(Record):
    """A qualitative finding: `key` names what the workflow says."""

    key: Text
    name: Code


class PipelineFile(Record):
    """pipeline.yaml: the DICOM contract of a bundle.

    `longest_side`: an image is given to the network reduced by whole blocks to at most so many pixels; labels come back
    on the image's own grid. `polarity_check`: the network also sees the negative, and the one of which it is surer is
    read: a header may say MONOCHROME1 of pixels that are not.
    """

    version: Literal[1]
    name: Name
    title: Annotated[str, StringConstraints(min_length=1, max_length=120)]
    status: Status
    machine_learning: bool
    input: Literal["image", "volume", "waveform"]
    procedure: Code
    accepts: ConditionMap
    limits: Limits = Limits()
    longest_side: Annotated[int, Field(ge=64)] | None = None
    polarity_check: bool = False
    network: Network | None = None
    workflow: Workflow | None = None
    card: Card
    segments: Items[SegmentSpec] = ()
    measurements: Items[MeasurementSpec] = ()
    evaluations: Items[EvaluationSpec] = ()


@dataclass(frozen=True)
class Service:
    """One usable service. `bundle_hash` covers every file of the folder; pipeline.yaml has a hash of its own too."""

    folder: Path
    pipeline: PipelineFile
    version: str
    bundle_hash: str
    pipeline_hash: str

    @property
    def name(self) -> str:
        """The name that rules use."""
        return self.pipeline.name

    @property
    def accepts(self) -> Condition:
        """Which instances the model can read."""
        return self.pipeline.accepts


def load_catalogue(models: Path) -> dict[str, Service]:
    """Every service of the folder by name. Raises ConfigError with all that is wrong in all of them."""
    if not models.is_dir():
        raise ConfigError(f"there is no folder {models}; set PACSNODE_MODELS to the folder of AI services")
    services: dict[str, Service] = {}
    problems: list[str] = []
    for folder in sorted(p for p in models.iterdir() if p.is_dir() and not p.name.startswith((".", "_"))):
        try:
            service = load_service(folder)
        except ConfigError as error:
            problems.append(str(error))
            continue
        services[service.name] = service
    if problems:
        raise ConfigError("\n".join(problems))
    return services


def load_service(folder: Path) -> Service:
    """One service. Raises ConfigError: file, line, column, key; missing weights or weights of another hash."""
    path = folder / PIPELINE_FILE
    if not path.is_file():
        raise ConfigError(f"a service needs a {PIPELINE_FILE}; there is none", where=str(folder))
    document = yamlfile.load(path)
    pipeline = yamlfile.validate(document, PipelineFile)
    problems = _semantic_problems(folder, pipeline)
    if problems:
        raise document.error(problems)
    return Service(
        folder,
        pipeline,
        _version(folder / "configs" / "metadata.json"),
        _hash_folder(folder),
        document.sha256,
    )


def _version(metadata: Path) -> str:
    try:
        version = json.loads(metadata.read_text(encoding="utf-8"))["version"]
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg}", where=f"{metadata}:{error.lineno}:{error.colno}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"cannot read the bundle's version ({type(error).__name__}: {error})", where=str(metadata)
        ) from None
    if not isinstance(version, str) or not 0 < len(version) <= 64:
        raise ConfigError('the bundle\'s `version` must be a text like "0.1.0"', where=str(metadata))
    return version


def _semantic_problems(folder: Path, pipeline: PipelineFile) -> list[Problem]:
    problems: list[Problem] = []
    if pipeline.name != folder.name:
        text = f"is {pipeline.name}, but the folder is {folder.name}; they must be equal"
        problems.append(Problem(("name",), text, "folder-name"))
    if (pipeline.network is None) == (pipeline.workflow is None):
        problems.append(Problem((), "exactly one of `network` and `workflow` must be given", "one-model"))
    if pipeline.network is not None:
        text = _weights_problem(folder, pipeline.network)
        if text:
            problems.append(Problem(("network", "weights"), text, "weights"))
    values = [s.value for s in pipeline.segments]
    if sorted(values) != list(range(1, len(values) + 1)):
        problems.append(Problem(("segments",), "values must be 1 to n without gaps", "segment-values"))
    problems += _kind_problems(folder, pipeline)
    for n, measurement in enumerate(pipeline.measurements):
        text, code = _measurement_problem(measurement, pipeline, set(values))
        if text:
            problems.append(Problem(("measurements", n), text, code))
    return problems


def _kind_problems(folder: Path, pipeline: PipelineFile) -> list[Problem]:
    """What the model needs beside pipeline.yaml, and whether it fits the input."""
    problems: list[Problem] = []
    if pipeline.network is not None:
        if pipeline.input == "waveform":
            problems.append(Problem(("input",), "a `network` reads image or volume, not waveform", "input"))
        if not pipeline.segments:
            problems.append(Problem(("network",), "a network needs `segments`, one for each label", "no-segments"))
        if not (folder / "configs" / "inference.yaml").is_file():
            problems.append(Problem(("network",), "the folder has no configs/inference.yaml", "no-config"))
    if pipeline.workflow is not None:
        if pipeline.input != "waveform":
            text = f"a `workflow` reads waveform, not {pipeline.input}, in this version"
            problems.append(Problem(("input",), text, "input"))
        if not (folder / "scripts" / "workflow.py").is_file():
            problems.append(Problem(("workflow",), "the folder has no scripts/workflow.py", "no-script"))
    links = [p for p in folder.rglob("*") if p.is_symlink() and not p.resolve().is_relative_to(folder.resolve())]
    if links:
        text = f"{links[0]} links to a place outside of the folder, which the hash does not cover; copy it there"
        problems.append(Problem((), text, "link"))
    return problems


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
    if (spec.method == "volume") != (pipeline.input == "volume"):
        return "a volume is measured by `volume`, an image by `area` or `width_ratio`", "method"
    if spec.unit is not None and spec.method != "width_ratio":
        return f"the node knows the unit of {spec.method}; leave `unit` out", "unit"
    return "", ""


def _weights_problem(folder: Path, network: Network) -> str:
    weights = folder / network.weights
    if not weights.resolve().is_relative_to(folder.resolve()):
        return "weights must lie inside the service's folder"
    if not weights.is_file():
        return f"there is no file {weights}; copy the weights there"
    found = hash_file(weights)
    if found == network.sha256:
        return ""
    return (
        f"{weights} has SHA-256 {found[:12]}…, expected {network.sha256[:12]}…; "
        "restore the weights that belong to this service, or enter the new hash if you changed them"
    )


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_folder(folder: Path) -> str:
    """SHA-256 over names and contents of all files but Python's own caches."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{hash_file(path)}\n".encode())
    return digest.hexdigest()
