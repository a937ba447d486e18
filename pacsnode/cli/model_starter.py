"""`pacsnode models new`: the commented skeleton of a service, to be filled in by who has a model.

In: a name and a task. Out: a folder whose every TODO `pacsnode models check` names; a slot until its weights are there.
Never overwrites a folder, never makes a claim for the model.
"""

from __future__ import annotations

import json
from enum import StrEnum

import typer

from pacsnode.errors import ConfigError


class Task(StrEnum):
    """What the model does."""

    SEGMENTATION = "segmentation"
    CLASSIFICATION = "classification"
    DETECTION = "detection"
    ALGORITHM = "algorithm"
    REMOTE = "remote"


class Form(StrEnum):
    """What the model reads."""

    IMAGE = "image"
    VOLUME = "volume"
    WAVEFORM = "waveform"


NAME_ARGUMENT = typer.Argument(help="Its name: small letters, digits and -; rules use it.")
TASK_OPTION = typer.Option(
    Task.SEGMENTATION,
    "--task",
    help="What the model does; an algorithm has no network; remote: a vendor's node does it.",
)
HTTP_OPTION = typer.Option(
    False, "--http", help="An inference server computes the network (KServe v2 protocol, as Triton has it)."
)
INPUT_OPTION = typer.Option(None, "--input", help="What it reads; left out: image, for an algorithm waveform.")

HEAD = """\
# The DICOM contract of this service: docs/services.md explains every key, `pacsnode models check {name}`
# finds mistakes, and names every TODO that is left.
version: 1
name: {name}
title: "TODO: one line for people"
status: slot                     # until the model is here; then certified, trained, classical or published weights
machine_learning: {learning}
input: {form}
# Which kind of examination it reads, as a code of SNOMED CT. TODO: the right one
procedure: {{value: "{procedure[0]}", scheme: SCT, meaning: {procedure[1]}}}
# Which images it can read: conditions as in rules; a rule cannot talk the service into more. TODO: as it was trained
accepts:
{accepts}
"""
HERE = """\
# What the input must be besides; what does not fit is parked with a sentence.
{needs}
limits: {{time_s: 300, memory_mb: 4000}}   # one run that takes more is ended, and the case parked
"""
ACCEPTS = {
    Form.IMAGE: "  Modality: {in: [CR, DX]}\n  ViewPosition: {not: {in: [LL, RL]}}\n  # age: {between: [18Y, 120Y]}",
    Form.VOLUME: "  Modality: CT\n  ImageType: {not: LOCALIZER}\n  # age: {between: [18Y, 120Y]}",
    Form.WAVEFORM: '  SOPClassUID: {in: ["1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.840.10008.5.1.4.1.1.9.1.2"]}',
}
NEEDS = {
    Form.IMAGE: "# needs: {pixel_spacing_mm: [0.05, 0.3]}",
    Form.VOLUME: "needs: {orientation: axial, slices: [20, 2000], slice_spacing_mm: [0.3, 5]}",
    Form.WAVEFORM: "needs: {leads: [I, II], sampling_hz: [250, 2000], duration_s: [8, 3600]}",
}
PROCEDURES = {
    Form.IMAGE: ("399208008", "Plain chest X-ray"),
    Form.VOLUME: ("77477000", "Computed tomography"),
    Form.WAVEFORM: ("29303009", "Electrocardiographic procedure"),
}
NETWORK = """\
network:
  weights: models/model.pt       # copy the weights there
  # sha256: "…"                  # of that file, once it is there; `pacsnode models list` tells it
"""
HTTP = """\
# The inference server that computes the network; it speaks the KServe v2 protocol, as Triton does. What it says of
# its model (curl https://…/v2/models/MODEL) is what belongs here; another model is refused.
http:
  url: https://triton.example:8000   # TODO: its address; http:// without encryption
  model: chest                       # TODO: its name there
  # version: "1"                     # another one is refused; left out: the server chooses, and results say which
  input: {{name: input, shape: [-1, 1, {size}], datatype: FP32}}      # TODO: the batch first; -1: any
  output: {{name: output, shape: [-1, 2{given}], datatype: FP32}}     # TODO: what the node maps
  timeout: 60s                       # for one request
  # ca: ca.pem                       # the authorities of its certificate, in this folder; left out: the system's
  # token_file: /etc/pacsnode/triton.token
"""
REMOTE = """\
# The vendor's node: a peer of routing_rules.yaml with host, port and `may: [answer]`.
remote:
  peer: vendor-ai
  results: [sr, seg]             # what an answer consists of: all of these, and nothing else; sr, seg, sc, pdf, ko, pr
  within: 30m                    # then the case is parked; an answer that comes later is taken up by itself
  quiet: 10s                     # an answer is whole once nothing more came for so long
"""
CARD = """\
# What every result says of its maker.
card:
  method: "TODO: how it works"
  training_data: "TODO: how many cases of which source; None is an answer"
  quality: "TODO: what it measured on which data that it never saw; Not measured is an answer"
  intended_use: "TODO: for whom, for what, and for what not. Not for diagnosis; not evaluated clinically."
  licence: "TODO: of code, weights and data"
  limits: "TODO: where it fails"
"""
MEASURED_ON = """\
  # measured:                    # the same as numbers; without a sensitivity nothing is ever called absent
  #   - {{metric: {metric}, of: {of}, value: 0.9, cases: 100, real_data: true, data: "which, and how it was counted"}}
"""
ORGAN = '{value: "91723000", scheme: SCT, meaning: Anatomical Structure}'
LUNG = '{value: "39607008", scheme: SCT, meaning: Lung}'
OUTPUTS = {
    Task.SEGMENTATION: f"""\
# One segment for each label of the label map, from 1 on.
segments:
  - value: 1
    label: Lung
    category: {ORGAN}
    type: {LUNG}
    color_rgb: [70, 160, 255]
    minimum_fraction: 0.01       # less of the image than this: the case is parked, the model saw nothing
# What the node measures on the label map: area, width_ratio (image), volume (volume).
measurements:
  - method: %(method)s
    of: [1]
    name: %(measured)s
    site: {LUNG}
""",
    Task.CLASSIFICATION: """\
# What the outputs of the network mean. A class without `name` is told to nobody.
classification:
  activation: softmax            # or sigmoid; none: the outputs are probabilities
  classes:
    - {index: 0, label: normal}
    - index: 1
      label: pneumonia
      name: {value: "233604007", scheme: SCT, meaning: Pneumonia}
      threshold: 0.5             # probability from which it is Present
""",
    Task.DETECTION: """\
# The network gives a map of `box`, `label_scores` and `label` for each image, as MONAI's detectors do; its config takes
# the place of configs/inference.yaml. Each label of it is one of these.
regions:
  - key: nodule
    label: Nodule
    index: 0                     # the label under which the network gives it
    name: {value: "27925004", scheme: SCT, meaning: Nodule}
    shape: box
    threshold: 0.5               # score from which it is reported
    most: 20                     # so many are reported, the most probable ones
""",
    Task.ALGORITHM: """\
# The class of scripts/workflow.py, and what it says under which key.
workflow: {class: Algorithm}
measurements:
  - key: heart_rate
    name: {value: "8867-4", scheme: LN, meaning: Heart rate}
    unit: {value: "/min", scheme: UCUM, meaning: /min}
evaluations:
  - key: atrial_fibrillation
    name: {value: "49436004", scheme: SCT, meaning: Atrial Fibrillation}
""",
}
MEASURED = {
    Form.IMAGE: ("area", '{value: "42798000", scheme: SCT, meaning: Area}'),
    Form.VOLUME: ("volume", '{value: "118565006", scheme: SCT, meaning: Volume}'),
}
MAIN_OUTPUT = {
    Task.SEGMENTATION: ("Dice", "Lung"),
    Task.CLASSIFICATION: ("sensitivity", "pneumonia"),
    Task.DETECTION: ("sensitivity", "nodule"),
    Task.ALGORITHM: ("sensitivity", "atrial_fibrillation"),
}
CONFIG = """\
# How the network is run, in MONAI's language (https://docs.monai.io, bundles): a config of the Model Zoo may take the
# place of this one. The node reads the image and writes the result itself.
imports:
- $import torch
bundle_root: .
device: "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')"
{network}preprocessing:
  _target_: Compose
  transforms:
  - {{_target_: LoadImaged, keys: image}}
  - {{_target_: EnsureChannelFirstd, keys: image}}
  - {{_target_: NormalizeIntensityd, keys: image}}
  - {{_target_: Resized, keys: image, spatial_size: {size}, mode: {mode}}}
inferer: {{_target_: SimpleInferer}}
postprocessing:
  _target_: Compose
  transforms:
  - {{_target_: Activationsd, keys: pred, softmax: true}}
  # Back to the grid of the image, then the most probable label.
  - {{_target_: Invertd, keys: pred, transform: "@preprocessing", orig_keys: image, nearest_interp: false}}
  - {{_target_: AsDiscreted, keys: pred, argmax: true}}
"""
NETWORK_DEF = """\
network_def:
  _target_: UNet
  spatial_dims: {dimensions}
  in_channels: 1
  out_channels: 2                # background, and each segment of pipeline.yaml
  channels: [8, 16, 32]
  strides: [2, 2]
"""
WORKFLOW = '''\
"""TODO: what it does, by which published method."""

from __future__ import annotations

from typing import Any

from monai.bundle import BundleWorkflow


class Algorithm(BundleWorkflow):
    """`inputs`: millivolts (leads, samples), leads (names), sampling_hz. `outputs`: values and findings by key."""

    def __init__(self) -> None:
        super().__init__(workflow_type="inference")
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def initialize(self) -> None:
        """Once, before the first run."""

    def run(self) -> None:
        """One recording. A ValueError is the reason that a person reads of a case that cannot be analysed."""
        raise ValueError("this algorithm is not written yet")
        # self.outputs = {
        #     "values": {"heart_rate": 61.0},
        #     "findings": {"atrial_fibrillation": {"presence": "undetermined", "probability": None, "comment": ""}},
        #     "beats": [], "notes": [],
        # }

    def finalize(self) -> None:
        """Once, after the last run."""

    def _get_property(self, name: str, property: dict[str, Any]) -> Any:
        return None

    def _set_property(self, name: str, property: dict[str, Any], value: Any) -> Any:
        return None
'''
README = """\
# TODO: title

**Not for diagnosis. Not evaluated clinically.**

## Intended use
TODO: for whom, for what, and for what not.

## Training data
TODO: how many cases, of which source, which machines and people, under which licence; or: none.

## Quality
TODO: measured on what data that it never saw, how, and with what numbers; or: not measured.

## Limits
TODO: where it fails, and what nobody has tried.
"""


def models_new(
    name: str = NAME_ARGUMENT, task: Task = TASK_OPTION, form: Form | None = INPUT_OPTION, http: bool = HTTP_OPTION
) -> None:
    """Write a commented skeleton of a service; `models check` names every TODO that is left in it."""
    from pacsnode.infer.install import FOLDER_NAME
    from pacsnode.settings import load

    models = load().models
    if not FOLDER_NAME.fullmatch(name):
        raise ConfigError(f"{name[:40]!r} is no name: 2 to 32 small letters, digits and -")
    form = form or (Form.WAVEFORM if task is Task.ALGORITHM else Form.IMAGE)
    if (form is Form.WAVEFORM) != (task is Task.ALGORITHM) and task is not Task.REMOTE:
        raise ConfigError("an algorithm reads waveform, a network image or volume, in this version of the node")
    if http and task not in (Task.SEGMENTATION, Task.CLASSIFICATION):
        raise ConfigError("`--http` is for a network that segments or classifies, that is another --task")
    folder = models / name
    try:
        models.mkdir(exist_ok=True)
        folder.mkdir()
        for path, text in _texts(name, task, form, http=http).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        if not http and task not in (Task.ALGORITHM, Task.REMOTE):
            (folder / "models").mkdir()
    except FileExistsError:
        raise ConfigError("is there already; take another name", where=str(folder)) from None
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", where=str(folder)) from None
    typer.echo(f"{folder} written; fill in every TODO: `pacsnode models check {name}` names them")


def _texts(name: str, task: Task, form: Form, *, http: bool) -> dict[str, str]:
    """The files of the skeleton by their paths in it."""
    filling = {"name": name, "learning": str(task is not Task.ALGORITHM).lower(), "form": form.value}
    head = HEAD.format(**filling, procedure=PROCEDURES[form], accepts=ACCEPTS[form])
    more = {
        "configs/metadata.json": json.dumps(_metadata(), indent=4) + "\n",
        "docs/README.md": README,
        "LICENSE": "TODO: the text of the licence of code and weights\n",
    }
    if task is Task.REMOTE:
        return more | {"pipeline.yaml": head + REMOTE + CARD}
    head += HERE.format(needs=NEEDS[form])
    method, measured = MEASURED.get(form, ("", ""))
    outputs = OUTPUTS[task] % {"method": method, "measured": measured} if task is Task.SEGMENTATION else OUTPUTS[task]
    metric, of = MAIN_OUTPUT[task]
    is_volume = form is Form.VOLUME
    size, mode = ("96, 96, 64", "trilinear") if is_volume else ("256, 256", "bilinear")
    network = "" if task is Task.ALGORITHM else NETWORK
    if http:
        network = HTTP.format(size=size, given=f", {size}" if task is Task.SEGMENTATION else "")
    measured_on = MEASURED_ON.format(metric=metric, of=of)
    texts = more | {"pipeline.yaml": head + network + CARD + measured_on + outputs}
    if task is Task.ALGORITHM:
        return texts | {"scripts/__init__.py": "", "scripts/workflow.py": WORKFLOW}
    definition = "" if http else NETWORK_DEF.format(dimensions=3 if is_volume else 2)
    return texts | {"configs/inference.yaml": CONFIG.format(network=definition, size=f"[{size}]", mode=mode)}


def _metadata() -> dict[str, object]:
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "task": "TODO: what the model does",
        "authors": "TODO: who made it",
        "copyright": "TODO: whose it is",
        "intended_use": "TODO: as in pipeline.yaml",
    }
