"""pipeline.yaml as its author writes it: every key with its type, its default and its meaning.

In: plain values of YAML. Out: frozen records, or pydantic's mistakes, which `yamlfile` places. What is wrong between
the parts, or with the files beside it, `mistakes` finds. Each description is help for people: docs/services.md has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema

from pacsnode.dicom.codes import LEFT, RIGHT, Concept
from pacsnode.durations import Seconds
from pacsnode.handover import ResultKind
from pacsnode.infer.endpoint import Http
from pacsnode.operators import ConditionMap
from pacsnode.yamlfile import Items, Record, found_in_words, wrong

Status = Literal["certified", "trained", "classical", "published weights", "slot"]
InputForm = Literal["image", "multi-frame", "volume", "waveform", "series"]
Orientation = Literal["axial", "coronal", "sagittal"]
Laterality = Literal["right", "left"]
LATERALITY: dict[str | None, Concept | None] = {"right": RIGHT, "left": LEFT, None: None}

Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,30}[a-z0-9]$")]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _span(raw: object) -> tuple[float, float]:
    if not isinstance(raw, list) or len(raw) != 2 or any(type(value) not in (int, float) for value in raw):
        raise wrong("wrong-type", f"expected two numbers, [from, to], found {found_in_words(raw)}")
    low, high = map(float, raw)
    if not 0 <= low <= high:
        raise wrong("wrong-value", f"expected two numbers from 0 on, the smaller one first, found {low:g} and {high:g}")
    return low, high


_SPAN = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
Span = Annotated[tuple[float, float], BeforeValidator(_span), WithJsonSchema(_SPAN)]


class Code(Record):
    """A coded concept (PS3.3 8.8): `{value: "39607008", scheme: SCT, meaning: Lung}`; the value in quotes."""

    value: Annotated[str, StringConstraints(min_length=1, max_length=16), Field(description="Code Value.")]
    scheme: Annotated[
        str,
        StringConstraints(min_length=1, max_length=16),
        Field(description="SCT, DCM, LN, UCUM, MDC …; 99PACSNODE for what has no code."),
    ]
    meaning: Annotated[Label, Field(description="In words, at most 64 characters.")]

    @property
    def concept(self) -> Concept:
        """The same as the vocabulary's type."""
        return Concept(self.value, self.scheme, self.meaning)


class Limits(Record):
    """What one run may take before its process is killed."""

    time_s: Annotated[float, Field(gt=0, le=86400, description="Seconds.")] = 300.0
    memory_mb: Annotated[int, Field(ge=64, description="Memory of the compute process.")] = 4000
    batch: Annotated[
        int,
        Field(
            ge=1, le=64, description="Images that wait go through the network so many at once, of several studies too."
        ),
    ] = 8


class Needs(Record):
    """What the input must be, looked at when it is read. What does not fit is parked with a sentence that says why."""

    views: Annotated[
        Items[ConditionMap], Field(description="An image of the case for each of these, such as `{ViewPosition: MLO}`.")
    ] = ()
    pixel_spacing_mm: Annotated[
        Span | None, Field(description="Between pixels, true to the patient; an image that does not say it is refused.")
    ] = None
    slice_spacing_mm: Annotated[Span | None, Field(description="Between slices.")] = None
    slices: Annotated[Span | None, Field(description="How many.")] = None
    frames: Annotated[Span | None, Field(description="How many.")] = None
    orientation: Annotated[
        Orientation | None, Field(description="Of the slices, within 37 degrees of the axis of the patient.")
    ] = None
    leads: Annotated[Items[Label], Field(description="Leads that must be there: I, II, III, aVR, V1 …")] = ()
    sampling_hz: Annotated[Span | None, Field(description="Samples a second.")] = None
    duration_s: Annotated[Span | None, Field(description="Length of the recording.")] = None


class Network(Record):
    """A network, run by a config in the style of MONAI bundles."""

    weights: Annotated[Text, Field(description="The file of weights, from the folder on: `models/model.pt`.")]
    sha256: Annotated[Sha256 | None, Field(description="Of that file; only a `slot` may leave it out.")] = None
    format: Annotated[Literal["state-dict", "torchscript", "onnx"], Field(description="What that file is.")] = (
        "state-dict"
    )
    config: Annotated[
        Text | None, Field(description="The config; left out: `configs/inference.json` or `.yaml`, as it is there.")
    ] = None


class Workflow(Record):
    """A published algorithm: a `monai.bundle.BundleWorkflow` in `scripts/workflow.py`."""

    class_: Annotated[str, Field(alias="class", pattern=r"^[A-Za-z_]\w*$", description="The name of the class.")]


class Remote(Record):
    """A vendor's own AI node: the images go there by C-STORE; what it answers comes back so, and goes on as it is."""

    peer: Annotated[Label, Field(description="The vendor's node: a peer of the rules file with `may: [answer]`.")]
    results: Annotated[
        Items[ResultKind], Field(min_length=1, description="What an answer consists of: all of these, nothing else.")
    ]
    within: Annotated[Seconds, Field(description="How long the case waits for its answer; then it is parked.")]
    quiet: Annotated[
        Seconds, Field(description="An answer is whole once all of `results` came and nothing more for so long.")
    ] = 10.0


class Measured(Record):
    """One number that was measured, and on what."""

    metric: Annotated[Label, Field(description="`sensitivity`, `specificity`, `Dice`, `AUC`, `mean absolute error` …")]
    of: Annotated[str, Field(max_length=64, description="The `key` or `label` of the output that it is about.")] = ""
    value: Annotated[float, Field(description="The number; a sensitivity from 0 to 1.")]
    data: Annotated[Text, Field(description="Whose data, which part of it, how it was counted.")]
    cases: Annotated[int, Field(ge=1, description="How many there were; for a sensitivity: with the finding.")]
    real_data: Annotated[bool, Field(description="false: phantoms or made-up data.")]


class Card(Record):
    """What every result says of its maker."""

    method: Annotated[Text, Field(description="How it works.")]
    training_data: Annotated[Text, Field(description="What it was trained on; `None` is an answer.")]
    quality: Annotated[Text, Field(description="What it measured on data that it never saw, or that nobody measured.")]
    intended_use: Annotated[Text, Field(description="For whom, for what, and for what not.")]
    licence: Annotated[Text, Field(description="Of code, weights and data.")]
    limits: Annotated[Text | None, Field(description="Where it fails; stands in `pacsnode models card`.")] = None
    measured: Annotated[Items[Measured], Field(description="The same as numbers.")] = ()


class SegmentSpec(Record):
    """One label of the label map: a segment of the DICOM SEG."""

    value: Annotated[int, Field(ge=1, le=255, description="Its number in the label map: 1 to n; 0 is background.")]
    label: Annotated[Label, Field(description="For people.")]
    category: Annotated[Code, Field(description="Segmented Property Category.")]
    type: Annotated[Code, Field(description="Segmented Property Type.")]
    laterality: Annotated[Laterality | None, Field(description="Side of the patient.")] = None
    color_rgb: Annotated[
        Items[Annotated[int, Field(ge=0, le=255)]],
        Field(min_length=3, max_length=3, description="`[red, green, blue]`."),
    ]
    may_be_absent: Annotated[
        bool, Field(description="true: to find none is a result (a lesion, an instrument); false: it is parked.")
    ] = False
    minimum_fraction: Annotated[
        float, Field(ge=0, lt=1, description="Share of the image below which the output counts as empty and is parked.")
    ] = 0.0


class MeasurementSpec(Record):
    """A number: measured by the node on the label map (`method`), or a value of the workflow (`key`)."""

    name: Annotated[Code, Field(description="What is measured.")]
    method: Annotated[Literal["area", "volume", "width_ratio"] | None, Field(description="How the node does it.")] = (
        None
    )
    of: Annotated[Items[int], Field(description="Values of segments, taken together.")] = ()
    over: Annotated[Items[int], Field(description="For `width_ratio`: those that it is divided by.")] = ()
    key: Annotated[str, Field(description="The name under which the workflow gives it.")] = ""
    unit: Annotated[Code | None, Field(description="UCUM; left out: no unit, or the one that the method gives.")] = None
    site: Annotated[Code | None, Field(description="Where in the body.")] = None
    laterality: Annotated[Laterality | None, Field(description="Side of the patient.")] = None
    derivation: Annotated[str, Field(description="How, where a reader would have to guess.")] = ""


class EvaluationSpec(Record):
    """A finding of a workflow: present, absent or undetermined."""

    key: Annotated[Text, Field(description="The name under which the workflow says it.")]
    name: Annotated[Code, Field(description="The finding.")]


class ClassSpec(Record):
    """One class of a classifying network. A class without `name` is told to nobody (`normal`, `other`)."""

    index: Annotated[int, Field(ge=0, description="Its number in the output of the network, from 0.")]
    label: Annotated[Label, Field(description="For people.")]
    name: Annotated[Code | None, Field(description="The finding that it is.")] = None
    threshold: Annotated[Fraction | None, Field(description="Probability from which it is `Present`.")] = None
    site: Annotated[Code | None, Field(description="Where in the body.")] = None
    laterality: Annotated[Laterality | None, Field(description="Side of the patient.")] = None


class Classification(Record):
    """What the numbers of a classifying network mean."""

    activation: Annotated[
        Literal["softmax", "sigmoid", "none"],
        Field(description="What makes probabilities of them; none: they are some."),
    ]
    classes: Annotated[Items[ClassSpec], Field(min_length=1, description="Every output of the network.")]


ABNORMAL = Code(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure")


class RegionSpec(Record):
    """A kind of place in the image: what a detecting model finds."""

    key: Annotated[Key, Field(description="Its name; a workflow gives its places under it.")]
    index: Annotated[int, Field(ge=0, description="Of a network: the label under which the network gives it.")] = 0
    label: Annotated[Label, Field(description="For people.")]
    name: Annotated[Code, Field(description="The finding.")]
    category: Annotated[Code, Field(description="Left out: morphologically abnormal structure.")] = ABNORMAL
    shape: Annotated[
        Literal["point", "polyline", "polygon", "circle", "ellipse", "box"],
        Field(description="What its points are; a network gives boxes."),
    ]
    threshold: Annotated[
        Fraction | None, Field(description="Score from which it is reported; a network's must be there.")
    ] = None
    most: Annotated[int, Field(ge=1, le=200, description="So many are reported, the most probable ones.")] = 20
    site: Annotated[Code | None, Field(description="Where in the body.")] = None
    laterality: Annotated[Laterality | None, Field(description="Side of the patient.")] = None


class SeriesRole(Record):
    """One of several series that the model reads together."""

    role: Annotated[Key, Field(description="Its name for the model: `t2`, `adc`, `dwi`.")]
    when: Annotated[ConditionMap, Field(description="Which images of the case belong to it.")]
    needs: Annotated[Needs, Field(description="What this series must be.")] = Needs()
    optional: Annotated[bool, Field(description="true: the model runs without it too.")] = False


class PipelineFile(Record):
    """pipeline.yaml: the DICOM contract of a bundle."""

    version: Annotated[Literal[1], Field(description="Of this contract.")]
    name: Annotated[Name, Field(description="The name of the folder; rules use it.")]
    title: Annotated[str, StringConstraints(min_length=1, max_length=120), Field(description="One line for people.")]
    status: Annotated[Status, Field(description="What it is; see [status](#status).")]
    machine_learning: Annotated[bool, Field(description="false for an algorithm that learnt nothing.")]
    input: Annotated[InputForm, Field(description="What the model reads; see [input](#input).")]
    procedure: Annotated[Code, Field(description="Procedure reported (SR): what kind of examination it reads.")]
    accepts: Annotated[ConditionMap, Field(description="Which images; a rule cannot talk it into more.")]
    needs: Annotated[Needs, Field(description="What they must be, seen when they are read.")] = Needs()
    series: Annotated[Items[SeriesRole], Field(description="With `input: series`: which series plays which role.")] = ()
    limits: Annotated[Limits, Field(description="Time and memory of one run.")] = Limits()
    longest_side: Annotated[
        int | None,
        Field(
            ge=64, description="An image is reduced by whole blocks to so many pixels; labels come back on its grid."
        ),
    ] = None
    polarity_check: Annotated[
        bool,
        Field(description="The network sees the negative too; the one of which it is surer is read: headers may lie."),
    ] = False
    keep_probabilities: Annotated[
        bool,
        Field(description="Those of the segments are kept, a byte a pixel and segment, for a FRACTIONAL segmentation."),
    ] = False
    most_frames: Annotated[
        int | None,
        Field(ge=1, description="Of a clip, so many frames are read, evenly spaced; left out: every one."),
    ] = None
    network: Annotated[Network | None, Field(description="A network that the node runs.")] = None
    http: Annotated[
        Http | None, Field(description="Or a network on an inference server; see [there](#an-inference-server).")
    ] = None
    workflow: Annotated[Workflow | None, Field(description="Or an algorithm that the node runs.")] = None
    remote: Annotated[Remote | None, Field(description="Or a vendor's node; see [there](#a-vendors-node).")] = None
    card: Annotated[Card, Field(description="What every result says of its maker.")]
    segments: Annotated[Items[SegmentSpec], Field(description="Labels of the label map.")] = ()
    measurements: Annotated[Items[MeasurementSpec], Field(description="Numbers.")] = ()
    evaluations: Annotated[Items[EvaluationSpec], Field(description="Findings of a workflow.")] = ()
    classification: Annotated[Classification | None, Field(description="Findings of a classifying network.")] = None
    regions: Annotated[Items[RegionSpec], Field(description="Places that a detecting model finds.")] = ()

    def outputs(self) -> Iterator[str]:
        """Keys and labels of all outputs: what `card.measured` may be about."""
        yield from (segment.label for segment in self.segments)
        yield from (one.key or one.name.meaning for one in self.measurements)
        yield from (one.key for one in self.evaluations)
        yield from (one.key for one in self.regions)
        yield from (one.label for one in (self.classification.classes if self.classification else ()))

    @property
    def sensitivity_known(self) -> frozenset[str]:
        """The outputs that may be called absent: their sensitivity was measured on real data."""
        measured = (m for m in self.card.measured if m.metric.casefold() == "sensitivity" and m.real_data)
        return frozenset(m.of for m in measured)


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file."""
    return PipelineFile.model_json_schema()
