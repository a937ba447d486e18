"""YAML that people of the site write, with every mistake named by file, line and column.

In: the path of a file and a pydantic model. Out: a Document (plain values and where each stands), the validated model,
or one ConfigError that lists all mistakes. Never shows a traceback, never runs a tag, never guesses a value's type:
what YAML would silently change (`0800` is the number 800) has to be put in quotes.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import ruamel.yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pacsnode.errors import ConfigError
from pacsnode.textfile import mistake_at, not_yaml, read

MAX_DEPTH = 32
MAX_VALUES = 200_000  # with aliases expanded: nine lines of YAML can stand for a billion values
MAX_PROBLEMS = 50
MOST_KEYS = 16  # of those that lead to a mistake, in its line

Loc = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")

Items = Annotated[tuple[T, ...], BeforeValidator(lambda raw: tuple(raw) if isinstance(raw, list) else raw)]
"""A YAML list as a tuple: a strict model takes no list for a tuple."""

IMPLIED = "implied"
"""`Annotated[str, IMPLIED]`: a field that the reader fills in; no key of the file."""


class Record(BaseModel):
    """Base of the models of such files: unknown keys are mistakes, no value is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    @field_validator("*", mode="before")
    @classmethod
    def _not_left_open(cls, given: object, key: ValidationInfo) -> object:
        """`certificate:` with nothing behind it is a mistake: its writer meant something."""
        if key.context and given is None and not cls.model_fields[str(key.field_name)].is_required():
            raise wrong("wrong-type", "expected a value, found nothing; write one, or leave the line out")
        return given


@dataclass(frozen=True)
class Problem:
    """One mistake: where in the document, in words, and a short code to search for."""

    loc: Loc
    text: str
    code: str
    at: Literal["key", "value"] = "value"
    is_warning: bool = False


@dataclass(frozen=True)
class Document:
    """A parsed file. `keys` and `values` hold (line, column), 1-based, of every key and value by its location."""

    name: str
    sha256: str
    data: dict[str, Any]
    keys: Mapping[Loc, tuple[int, int]]
    values: Mapping[Loc, tuple[int, int]]
    problems: tuple[Problem, ...] = ()  # no plain value, or twice the same key: told by `validate` with all else

    def known(self, loc: Loc) -> Loc:
        """The longest beginning of `loc` that the file has; without its index where one value stands for a list."""
        found: Loc = ()
        for part in loc:
            if (*found, part) in self.values:
                found = (*found, part)
            elif not isinstance(part, int):
                break
        return found

    def line_column(self, loc: Loc, at: Literal["key", "value"] = "value") -> tuple[int, int]:
        """Where `loc` stands; what is not in the file stands where its nearest ancestor's key does."""
        known = self.known(loc)
        if known != loc or at == "key":
            return self.keys.get(known, self.values[known])
        return self.values[known]

    def position(self, loc: Loc, at: Literal["key", "value"] = "value") -> str:
        """`file:line:column` of a location."""
        line, column = self.line_column(loc, at)
        return f"{self.name}:{line}:{column}"

    def lines(self, problems: Iterable[Problem]) -> list[str]:
        """`file:line:column key: what is wrong [code]` of each, in the file's order."""
        lines = [
            f"{self.position(found.loc, found.at)} {'.'.join(map(str, found.loc[:MOST_KEYS])) or 'file'}: "
            f"{'warning: ' if found.is_warning else ''}{found.text} [{found.code}]"
            for found in self._ordered(problems)
        ]
        return [*lines[:MAX_PROBLEMS], f"... and {len(lines) - MAX_PROBLEMS} more"] if lines[MAX_PROBLEMS:] else lines

    def error(self, problems: Iterable[Problem]) -> ConfigError:
        """One ConfigError that lists all problems in the file's order."""
        ordered = self._ordered(problems)
        error = ConfigError("\n".join(self.lines(ordered)))
        error.where = self.position(ordered[0].loc, ordered[0].at)
        return error

    def _ordered(self, problems: Iterable[Problem]) -> list[Problem]:
        return sorted(set(problems), key=lambda found: (self.line_column(found.loc, found.at), found.text))


def load(path: Path) -> Document:
    """Read and parse one file. Raises ConfigError."""
    return parse(read(path), str(path))


def parse(text: str, name: str) -> Document:
    """The document of a text; `name` is what its mistakes are placed in. Raises ConfigError."""
    try:
        root = ruamel.yaml.YAML(typ="rt").compose(text)
    except MarkedYAMLError as error:
        raise not_yaml(error, text, name) from None
    except RecursionError:
        raise mistake_at(name, 1, 1, f"nested too deeply; at most {MAX_DEPTH} levels") from None
    except YAMLError as error:
        raise mistake_at(name, 1, 1, f"not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(root, MappingNode):
        what = "the file is empty" if root is None else "the file is not a map"
        raise mistake_at(name, 1, 1, f"{what}; expected `key: value` lines")
    reading = _Reading()
    data = reading.value(root, ())
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    document = Document(name, sha256, data, reading.keys, reading.values, tuple(reading.problems))
    if reading.full:
        raise document.error(reading.problems)
    return document


def validate(document: Document, model: type[Model]) -> Model:
    """The document as a model, or a ConfigError with every mistake in it."""
    found = list(document.problems)
    unread = {problem.loc for problem in found if problem.code != "duplicate-key"}
    try:
        made = model.model_validate(document.data, context={"file": document.name})
    except ValidationError as error:
        errors = error.errors(include_url=False)
        missing = [details["loc"] for details in errors if details["type"] == "missing"]
        for details in errors:
            if not any(details["loc"][: len(loc)] == loc for loc in unread):
                found.append(_problem(document, model, details, missing))
    if found:
        raise document.error(found)
    return made


def wrong(code: str, text: str) -> PydanticCustomError:
    """The error that a validator of such a model raises: a sentence for the site, and a code."""
    return PydanticCustomError(code, "{text}", {"text": text})


def nearest(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean X?` for a misspelt word, "" when nothing is near."""
    by_folded = {choice.casefold(): choice for choice in choices}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=cutoff)
    return f"; did you mean {by_folded[found[0]]}?" if found else ""


def found_in_words(value: object) -> str:
    """What a file holds, as a person would call it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {value[:60]!r}"
        case Mapping():
            return "a map"
    return "a list" if value else "an empty list"


@dataclass
class _Reading:
    """Turns YAML nodes into plain values, and remembers where each stood."""

    problems: list[Problem] = field(default_factory=list)
    keys: dict[Loc, tuple[int, int]] = field(default_factory=dict)
    values: dict[Loc, tuple[int, int]] = field(default_factory=dict)
    full: bool = False

    def value(self, node: Node, loc: Loc) -> Any:
        if self.full:
            return None
        self.values[loc] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if node.value == "" and loc in self.keys:  # a value left out has no place of its own
            self.values[loc] = self.keys[loc]
        if len(self.values) > MAX_VALUES:
            self.full = True
            self.wrong(loc[:2], "more values than a person writes: leave out the * aliases", "too-large")
            return None
        if len(loc) > MAX_DEPTH:
            self.wrong(loc, f"nested too deeply; at most {MAX_DEPTH} levels", "too-deep")
            return None
        match node:
            case ScalarNode():
                return self.scalar(node, loc)
            case MappingNode() if str(node.tag) == "tag:yaml.org,2002:map":
                return self.mapping(node, loc)
            case SequenceNode() if str(node.tag) == "tag:yaml.org,2002:seq":
                return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        self.wrong(loc, f"the tag {str(node.tag)[:60]} is not allowed; write plain values", "tag")
        return None

    def mapping(self, node: MappingNode, loc: Loc) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in node.value:
            at = (*loc, str(key.value) if isinstance(key, ScalarNode) else "?")
            position = (key.start_mark.line + 1, key.start_mark.column + 1)
            if at in self.keys:
                first, self.keys[at] = self.keys[at], position  # the message points at the second one
                self.wrong(at, f"this key is here twice, first on line {first[0]}", "duplicate-key")
                continue
            self.keys[at] = position
            if not isinstance(key, ScalarNode) or not str(key.tag).endswith((":str", ":timestamp")):
                self.values[at] = position
                told = "; << is not read, write its lines out" if key.value == "<<" else "; put it in quotes"
                self.wrong(at, f"a key is a word{told}", "bad-key")
                result[str(at[-1])] = None
                continue
            result[key.value] = self.value(value, at)
        return result

    def scalar(self, node: ScalarNode, loc: Loc) -> str | int | float | bool | None:
        text: str = node.value
        tag = str(node.tag)
        match tag.removeprefix("tag:yaml.org,2002:"):
            case "str" | "timestamp":
                return text
            case "null":
                return None
            case "bool":
                return text.casefold() == "true"
            case "int" if re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", text):
                return int(text)
            case "float" if re.fullmatch(r"-?[0-9]{1,18}\.[0-9]{1,18}", text):
                return float(text)
            case "int" | "float":
                self.wrong(loc, f"{text[:40]} is no plain number; put it in quotes", "unclear-number")
                return None
        self.wrong(loc, f"the tag {tag[:60]} is not allowed; write plain values", "tag")
        return None

    def wrong(self, loc: Loc, text: str, code: str) -> None:
        self.values.setdefault(loc, (1, 1))
        self.problems.append(Problem(loc, text, code, at="key" if code in ("duplicate-key",) else "value"))


EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "greater_than_equal": "a number of at least {ge}",
    "greater_than": "a number above {gt}",
    "less_than_equal": "a number of at most {le}",
    "less_than": "a number below {lt}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text like {pattern}",
}
"""Errors of pydantic in the words of the site; in braces what pydantic tells with them."""


def _problem(document: Document, model: type[BaseModel], details: ErrorDetails, missing: Sequence[Loc]) -> Problem:
    """One error of pydantic in the words of the site. `missing`: keys that are not there at all."""
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    whole: Loc = details["loc"]
    loc = document.known(whole)
    if kind == "missing":
        beside = nearest(str(whole[-1]), given if isinstance(given, Mapping) else ())
        return Problem(whole, f"this key is missing{beside}", "missing", at="key")
    if kind == "extra_forbidden":
        names = _field_names(model, whole[:-1])
        absent = [str(other[-1]) for other in missing if other[:-1] == whole[:-1]]
        beside = nearest(str(whole[-1]), absent, 0.5) or nearest(str(whole[-1]), names) or ";"
        return Problem(whole, f"there is no such key{beside} expected: {', '.join(names)}", "unknown-key", at="key")
    if kind == "literal_error":
        found, expected = found_in_words(given), context["expected"]
        if not isinstance(given, str | int | float):
            return Problem(loc, f"expected {expected}, found {found}", "unknown-value")
        near = nearest(str(given), re.findall("'([^']*)'", expected))
        return Problem(loc, f"{found} is not known; expected: {expected}{near}", "unknown-value")
    if kind in EXPECTED:
        expected = EXPECTED[kind].format_map(context)
        code = "wrong-type" if kind.endswith("_type") else "wrong-value"
        hint = _hint(kind, given, _field_names(model, whole))
        return Problem(loc, f"expected {expected}, found {found_in_words(given)}{hint}", code)
    if "text" in context:
        return Problem(loc, context["text"], kind, at="key" if kind.startswith("unknown-") else "value")
    text = str(context.get("error", details["msg"]))
    return Problem(loc, f"{text}, found {found_in_words(given)}", "wrong-value")


def _hint(kind: str, given: object, names: Sequence[str]) -> str:
    """What to write in place of a value of the wrong type; `names`: the keys that may stand there."""
    match EXPECTED[kind], given:
        case "text", int() | float():
            return "; put it in quotes"
        case "a list", str() if re.fullmatch(r"[\w-]+", given):
            return f"; write [{given}]"
        case "a list", Mapping() if given:
            return "; put a dash in front of each"
        case "a map", list():
            return "; leave the dashes out"
        case "a map", _ if names:
            return f"; it has the keys {', '.join(names)}"
    return ""


def _field_names(model: object, loc: Sequence[str | int]) -> list[str]:
    """The keys that the model allows at a location."""
    origin, arguments = typing.get_origin(model), typing.get_args(model)
    if origin is Annotated:
        return _field_names(arguments[0], loc)
    if isinstance(model, type) and issubclass(model, BaseModel):
        fields = model.model_fields.items()
        names = {info.alias or name: info.annotation for name, info in fields if IMPLIED not in info.metadata}
        if not loc:
            return list(names)
        return _field_names(names.get(str(loc[0])), loc[1:])
    if origin in (dict, Mapping, tuple) and loc:
        return _field_names(arguments[0 if origin is tuple else 1], loc[1:])
    return next((found for option in arguments if (found := _field_names(option, loc))), [])  # X | None
