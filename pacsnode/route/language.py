"""The rules file as its author writes it: every key with its type, its default and its meaning.

In: plain values of YAML. Out: frozen records, or pydantic's mistakes, which `yamlfile` places. What a rule leaves out
stands in `defaults:`; `rules` puts the two together. Each docstring and description is help for people, in the schema
for their editor too.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema, field_validator

from pacsnode import yamlfile
from pacsnode.handover import LateAction, ResultKind
from pacsnode.operands import WEEKDAYS
from pacsnode.operators import ConditionMap
from pacsnode.peers import Peers
from pacsnode.yamlfile import Items, Record, wrong

Priority = Literal["stat", "routine", "off-peak"]
LONGEST_QUIET_S = 86400.0
LONGEST_WAIT_S = 30 * 86400.0
UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(raw: object) -> float:
    found = re.fullmatch(r"(\d{1,5}(?:\.\d)?) ?([smhd])", raw, re.ASCII) if isinstance(raw, str) else None
    if found is None:
        raise wrong("duration", f"expected a time such as 20s, 2m, 1h or 7d, found {yamlfile.found_in_words(raw)}")
    seconds = float(found[1]) * UNITS_S[found[2]]
    if seconds > LONGEST_WAIT_S:
        raise wrong("duration", f"{raw} is longer than 30 days")
    return seconds


def _quiet(raw: object) -> float:
    seconds = _seconds(raw)
    if seconds > LONGEST_QUIET_S:
        raise wrong("duration", f"{raw} is longer than a day")
    return seconds


def _one_or_more(raw: object) -> object:
    """One name stands for a list of one."""
    return [raw] if isinstance(raw, str) else raw


def _values(raw: object) -> tuple[str, ...]:
    """The values of an attribute as the index has them: text, in order."""
    values = raw if isinstance(raw, list) else [raw]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            found = yamlfile.found_in_words(value) if value != "" else "an empty text"
            raise wrong("wrong-type", f"expected a value or a list of values, found {found}; leave out what is absent")
    return tuple(map(str, values))


def _clock(raw: object) -> str:
    if not isinstance(raw, str) or not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", raw):
        raise wrong("clock", f'expected a time of day such as "18:30", found {yamlfile.found_in_words(raw)}')
    return raw


_DURATION = WithJsonSchema({"type": "string", "pattern": r"^\d{1,5}(\.\d)? ?[smhd]$"})
Seconds = Annotated[float, BeforeValidator(_seconds), _DURATION]
Quiet = Annotated[float, BeforeValidator(_quiet), _DURATION]
Clock = Annotated[str, BeforeValidator(_clock)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]
Names = Annotated[Items[Name], BeforeValidator(_one_or_more), Field(min_length=1)]
Pair = Field(min_length=2, max_length=2)
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
    at_most: Annotated[Seconds, Field(description="The longest wait for what is missing, from the last image.")] = 86400
    then: Annotated[
        Literal["run", "keep"],
        Field(description="What is incomplete even then: run all the same, or keep it and give an alarm."),
    ] = "keep"


class LateImages(Record):
    """What images do that come after the service has started.

    rerun: the service reads everything again, the new result names the one that it replaces. amend: it reads the new
    images alone. ignore: they are archived, and that is all.
    """

    do: LateAction
    within: Annotated[Seconds, Field(description="Counted from the start; what comes later is ignored.")] = 604800.0


class SeriesChoice(Record):
    """Which series of the study, of the images that `when` takes."""

    when: Annotated[ConditionMap | None, Field(description="Some image of the series is such.")] = None
    orientation: Annotated[
        Literal["axial", "coronal", "sagittal", "oblique"] | None, Field(description="Of its slices.")
    ] = None
    images: Annotated[Items[int] | None, Pair] = None
    thickness_mm: Annotated[Items[Number] | None, Pair] = None
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

    days: Annotated[Items[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]], Field(min_length=1)] = WEEKDAYS  # type: ignore[assignment]
    time: Annotated[Items[Clock] | None, Pair, Field(description="From, to; may go over midnight.")] = None


def _late(raw: object) -> object:
    return {"do": raw} if isinstance(raw, str) else raw


Late = Annotated[LateImages, BeforeValidator(_late)]
Kinds = Annotated[Items[ResultKind], Field(min_length=1)]


class Defaults(Record):
    """What a rule does not say itself."""

    complete: Complete | None = None
    results: Kinds | None = None
    send_to: Names | None = None
    priority: Priority = "routine"
    late_images: Late = LateImages(do="rerun")
    owner: str = ""


class RuleEntry(Record):
    """One rule: which images, what is done with them."""

    name: Name
    when: Annotated[ConditionMap, Field(description="All lines must hold for an image.")]
    series: SeriesChoice | None = None
    schedule: Schedule | None = None
    run: Annotated[Names | None, Field(description="The AI service, or a list of them.")] = None
    results: Kinds | None = None
    send_to: Annotated[Names | None, Field(description="Peers that get the results; `sender` is who sent.")] = None
    forward: Annotated[Names | None, Field(description="Peers that get the images themselves, without AI.")] = None
    complete: Complete | None = None
    late_images: Late | None = None
    priority: Priority | None = None
    stop: Annotated[bool, Field(description="No rule below looks at the images that this one takes.")] = False
    enabled: bool = True
    note: str = ""
    owner: str | None = None


def _images(raw: object) -> object:
    """One image stands for a list of one."""
    return [raw] if isinstance(raw, dict) else raw


Image = dict[str, Annotated[tuple[str, ...], BeforeValidator(_values)]]


class Example(Record):
    """A made-up study and the rules that must act on it."""

    study: Annotated[Items[Image], BeforeValidator(_images), Field(min_length=1, max_length=1000)]
    images: Annotated[int, Field(ge=1, le=2000, description="Each image so many times, in one series.")] = 1
    expect: Items[Name]


class RulesFile(Record):
    """routing_rules.yaml: who may talk to this node, and which images go to which AI service."""

    version: Literal[1]
    peers: Peers
    defaults: Defaults = Defaults()
    rules: Items[RuleEntry]
    unmatched: Annotated[
        Literal["keep", "alarm"], Field(description="A study that no rule takes is kept; alarm: somebody is told.")
    ]
    examples: Items[Example] = ()


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors that complete and check while one types."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **RulesFile.model_json_schema()}
