"""The rules file as its author writes it: every key with its type, its default and its meaning.

In: plain values of YAML. Out: frozen records, or pydantic's mistakes, which `yamlfile` places. What a rule leaves out
stands in `defaults:`; `rules` puts the two together. Each docstring and description is help for people, in the schema
for their editor too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, StringConstraints, WithJsonSchema, field_validator

from pacsnode import yamlfile
from pacsnode.durations import DURATION, PAIR, PAIR_LENGTH, Clock, Seconds, seconds
from pacsnode.handover import LateAction, OnFailure, ResultKind
from pacsnode.operands import WEEKDAYS
from pacsnode.operators import ConditionMap
from pacsnode.peers import Peers
from pacsnode.yamlfile import Items, Record, wrong

Priority = Literal["stat", "routine", "off-peak"]
LONGEST_QUIET_S = 86400.0


def _quiet(raw: object) -> float:
    wanted = seconds(raw)
    if wanted > LONGEST_QUIET_S:
        raise wrong("duration", f"{raw} is longer than a day")
    return wanted


def _one_or_more(raw: object) -> object:
    """One name stands for a list of one."""
    if not isinstance(raw, str | list):
        raise wrong("wrong-type", f"expected a name or a list of names, found {yamlfile.found_in_words(raw)}")
    return [raw] if isinstance(raw, str) else raw


def _values(raw: object) -> tuple[str, ...]:
    """The values of an attribute as the index has them: text, in order."""
    values = raw if isinstance(raw, list) else [raw]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            found = yamlfile.found_in_words(value) if value != "" else "an empty text"
            raise wrong("wrong-type", f"expected a value or a list of values, found {found}; leave out what is absent")
    return tuple(map(str, values))


@dataclass(frozen=True, eq=False)
class _Or:
    """In the schema for editors: what may stand there in short."""

    short: Mapping[str, Any]

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [dict(self.short), handler(schema)]}


Quiet = Annotated[float, BeforeValidator(_quiet), DURATION]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]
Names = Annotated[Items[Name], BeforeValidator(_one_or_more), Field(min_length=1), _Or({"type": "string"})]
Number = Annotated[float, BeforeValidator(lambda raw: float(raw) if type(raw) is int else raw)]


class Complete(Record):
    """When a case is whole: no new image for `quiet`, and nothing of what is expected missing."""

    quiet: Annotated[Quiet, Field(description="How long no new image of the case has come.")]
    after_release: Annotated[
        Quiet | None, Field(description="Instead of `quiet`, once the sender has ended its associations.")
    ] = None
    expect: Annotated[
        Items[ConditionMap], Field(description="Views or series: an image of the study for each of these.")
    ] = ()
    images: Annotated[int, Field(ge=1, le=100_000, description="The case has at least so many images.")] = 1
    contiguous: Annotated[bool, Field(description="InstanceNumber has no gap in any series of the case.")] = False
    ask_sender: Annotated[bool, Field(description="Ask the sender by C-FIND how many images the study has.")] = False
    at_most: Annotated[Seconds, Field(description="How long it waits, from its last image, for the rest.")] = 86400.0
    then: Annotated[
        Literal["run", "keep"],
        Field(description="What is incomplete even then: run all the same, or keep it and give an alarm."),
    ] = "keep"


class LateImages(Record):
    """What images do that come after the service has started.

    rerun: the service reads everything again, the new result names the one that it replaces. amend: it reads the new
    images alone. ignore: they are archived, and that is all.
    """

    do: Annotated[LateAction, Field(description="rerun, amend or ignore; `late_images: rerun` is short for it.")]
    within: Annotated[Seconds, Field(description="Counted from the start; what comes later is ignored.")] = 604800.0


class SeriesChoice(Record):
    """Which series of the study, of the images that `when` takes."""

    when: Annotated[ConditionMap | None, Field(description="Some image of the series is such.")] = None
    orientation: Annotated[
        Literal["axial", "coronal", "sagittal", "oblique"] | None, Field(description="Of its slices.")
    ] = None
    images: Annotated[Items[int] | None, PAIR_LENGTH, PAIR, Field(description="From, to: how many images it has.")] = (
        None
    )
    thickness_mm: Annotated[
        Items[Number] | None, PAIR_LENGTH, PAIR, Field(description="From, to: SliceThickness, else the spacing.")
    ] = None
    choose: Annotated[
        Literal["all", "most-images", "newest", "thinnest"], Field(description="Where several series fit.")
    ] = "all"

    @field_validator("images", "thickness_mm")
    @classmethod
    def _ordered(cls, given: tuple[float, float] | None) -> tuple[float, float] | None:
        if given is not None and given[0] > given[1]:
            raise wrong("wrong-value", f"{given[0]:g} is greater than {given[1]:g}; write the smaller one first")
        return given


class Schedule(Record):
    """When the rule acts: on images that come in these hours, on the clock of the site."""

    days: Annotated[
        Items[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]],
        Field(min_length=1, description="The day on which the image comes."),
    ] = WEEKDAYS  # type: ignore[assignment]
    time: Annotated[Items[Clock] | None, PAIR_LENGTH, PAIR, Field(description="From, to; may go over midnight.")] = None

    @field_validator("time")
    @classmethod
    def _some_hours(cls, given: tuple[str, str] | None) -> tuple[str, str] | None:
        if given is not None and given[0] == given[1]:
            raise wrong("wrong-value", "from and to are the same; leave `time` out for the whole day")
        return given


def _late(raw: object) -> object:
    return {"do": raw} if isinstance(raw, str) else raw


Late = Annotated[LateImages, BeforeValidator(_late), _Or({"enum": list(get_args(LateAction))})]
Kinds = Annotated[Items[ResultKind], Field(min_length=1)]


class Defaults(Record):
    """What a rule does not say itself."""

    complete: Annotated[Complete | None, Field(description="When the images of a case are whole.")] = None
    results: Annotated[Kinds | None, Field(description="What is sent of the results.")] = None
    send_to: Annotated[Names | None, Field(description="Who gets the results.")] = None
    priority: Annotated[Priority, Field(description="What goes first where several wait.")] = "routine"
    late_images: Annotated[Late, Field(description="What images do that come too late.")] = LateImages(do="rerun")
    on_failure: Annotated[OnFailure, Field(description="tell: a short report says that it was not analysed.")] = "keep"
    owner: Annotated[str, Field(description="Whom to ask.")] = ""


class RuleEntry(Record):
    """One rule: which images, what is done with them."""

    name: Annotated[Name, Field(description="What decisions, examples and logs call it; no other rule has it.")]
    when: Annotated[ConditionMap, Field(description="All lines must hold for an image.")]
    series: Annotated[SeriesChoice | None, Field(description="Of these images, only those of some series.")] = None
    schedule: Annotated[Schedule | None, Field(description="Only images that come on these days, at this time.")] = None
    run: Annotated[Names | None, Field(description="The AI service, or a list of them.")] = None
    results: Annotated[
        Kinds | None,
        Field(
            description="What is sent: sr (report with numbers), seg (outlines), sc (picture), pdf (report to read), "
            "ko (key images), pr (outlines as lines over the images)."
        ),
    ] = None
    send_to: Annotated[Names | None, Field(description="Peers that get the results; `sender` is who sent.")] = None
    forward: Annotated[Names | None, Field(description="Peers that get the images themselves, without AI.")] = None
    complete: Annotated[Complete | None, Field(description="When the images of a case are whole.")] = None
    late_images: Annotated[Late | None, Field(description="What images do that come too late.")] = None
    priority: Annotated[Priority | None, Field(description="What goes first where several wait.")] = None
    on_failure: Annotated[
        OnFailure | None,
        Field(description="What cannot be analysed waits here (keep); tell: `send_to` gets a short report too."),
    ] = None
    stop: Annotated[bool, Field(description="No rule below looks at the images that this one takes.")] = False
    shadow: Annotated[
        bool, Field(description="true: the service runs, and nothing of it is sent; see `pacsnode models compare`.")
    ] = False
    enabled: Annotated[bool, Field(description="false switches the rule off; its examples are still tried.")] = True
    note: Annotated[str, Field(description="For people.")] = ""
    owner: Annotated[str | None, Field(description="Whom to ask.")] = None


def _images(raw: object) -> object:
    """One image stands for a list of one."""
    if not isinstance(raw, dict | list):
        found = yamlfile.found_in_words(raw)
        raise wrong("wrong-type", f"expected an image such as {{Modality: CR}}, or a list of them, found {found}")
    return [raw] if isinstance(raw, dict) else raw


_VALUE = {"type": ["string", "number"]}
_VALUES = {"anyOf": [_VALUE, {"type": "array", "items": _VALUE}]}
Image = dict[str, Annotated[tuple[str, ...], BeforeValidator(_values), WithJsonSchema(_VALUES)]]
ONE_IMAGE = _Or({"type": "object", "additionalProperties": _VALUES})


class Example(Record):
    """A made-up study and the rules that must act on it."""

    study: Annotated[
        Items[Image],
        BeforeValidator(_images),
        Field(min_length=1, max_length=1000, description="An image by its attributes, or a list: a series of each."),
        ONE_IMAGE,
    ]
    images: Annotated[int, Field(ge=1, le=2000, description="Each image so many times, in one series.")] = 1
    expect: Annotated[Items[Name], Field(description="The rules that must act on it, and no others; [] for none.")]


class RulesFile(Record):
    """routing_rules.yaml: who may talk to this node, and which images go to which AI service."""

    version: Annotated[Literal[1], Field(description="Of the language.")]
    peers: Annotated[Peers, Field(description="Every device and system that sends, asks or gets, by its name here.")]
    defaults: Annotated[Defaults, Field(description="What a rule does not say itself.")] = Defaults()
    rules: Annotated[Items[RuleEntry], Field(description="In their order: each that matches acts.")]
    unmatched: Annotated[
        Literal["keep", "alarm"], Field(description="A study that no rule takes is kept; alarm: somebody is told.")
    ]
    examples: Annotated[
        Items[Example], Field(description="Made-up studies and the rules that must act; tried before a file goes live.")
    ] = ()


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors that complete and check while one types."""
    schema = _as_written(RulesFile.model_json_schema())
    peer = schema["$defs"]["Peer"]
    del peer["properties"]["name"]  # the key in front of it
    peer["required"].remove("name")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _as_written(node: Any) -> Any:
    """A part of pydantic's schema as the file has it: lists have items, nothing is null, times are text."""
    if isinstance(node, list):
        return [_as_written(part) for part in node if part != {"type": "null"}]
    if not isinstance(node, dict):
        return node
    words = {"minLength": "minItems", "maxLength": "maxItems"} if node.get("type") == "array" else {}
    made = {words.get(key, key): _as_written(part) for key, part in node.items() if (key, part) != ("default", None)}
    if "pattern" in made and "default" in made:
        made["default"] = f"{made['default']:g}s"
    return made
