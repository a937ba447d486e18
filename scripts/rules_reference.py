"""The reference part of docs/rules.md, written from the program: operators, facts, attributes, keys.

In: the modules that read a rules file. Out: Markdown tables by the name of the part; `write_docs` puts them in place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pacsnode.dicom.attributes import ATTRIBUTES, Attribute
from pacsnode.operands import FACTS
from pacsnode.operators import OPERATORS
from pacsnode.route import language
from pacsnode.route.language import json_schema

UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; a | in a cell is escaped."""
    named = list(head)
    lines = [f"| {' | '.join(named)} |", f"|{'---|' * len(named)}"]
    for row in rows:
        cells = [cell.replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |".replace("  ", " "))
    return "\n".join(lines)


def operators() -> str:
    """Every operator, by its docstring."""
    return table(
        ("operator", "holds when"),
        ((f"`{name}`", " ".join(inspect.cleandoc(made.__doc__ or "").split())) for name, made in OPERATORS.items()),
    )


def facts() -> str:
    """Every fact."""
    return table(("name", "VR", "what it is"), ((f"`{name}`", vr, meaning) for name, (vr, meaning) in FACTS.items()))


def attributes() -> str:
    """Every attribute of the index."""
    return table(("keyword", "tag", "VR", "level"), ((f"`{a.keyword}`", _tag(a), a.vr, a.level) for a in ATTRIBUTES))


def _tag(attribute: Attribute) -> str:
    tags = [tag for tag in (attribute.sequence, attribute.tag) if tag]
    return " > ".join(f"{tag >> 16:04X},{tag & 0xFFFF:04X}" for tag in tags) or "found by the node"


def keys(model: type[BaseModel]) -> str:
    """Every key of one map of the file: what may stand there, what holds without it, what it means."""
    schema = json_schema()
    shapes = (schema if model is language.RulesFile else schema["$defs"][model.__name__])["properties"]
    return table(
        ("key", "value", "left out", "meaning"),
        (
            (f"`{name}`", _shape(shapes[name]), _default(name, model), field.description or "")
            for name, field in model.model_fields.items()
        ),
    )


def _shape(schema: dict[str, Any]) -> str:
    """What may stand behind a key, in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_shape, schema["anyOf"])))
    if "$ref" in schema:
        section = SECTIONS[schema["$ref"].split("/")[-1]]
        return f"[`{section}`](#keys-of-{section})"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "pattern" in schema:
        return "time: `20s`, `2m`, `1h`, `7d`"
    if "properties" in schema and "any" in schema["properties"]:
        return "[conditions](#conditions)"
    if schema.get("maxItems") == 2:
        return "`[from, to]`"
    if schema["type"] == "array":
        return f"list of {_shape(schema['items'])}"
    return {"boolean": "`true`, `false`", "integer": "whole number", "object": "map", "string": "text"}.get(
        schema["type"], "number"
    )


SECTIONS = {
    "Complete": "complete",
    "LateImages": "late_images",
    "SeriesChoice": "series",
    "Schedule": "schedule",
    "Defaults": "defaults",
    "RuleEntry": "rules",
    "Example": "examples",
    "Peer": "peers",
}


def _default(name: str, model: type[BaseModel]) -> str:
    default = model.model_fields[name].default
    if default is PydanticUndefined:
        return "must be there"
    if model is language.RuleEntry and name in language.Defaults.model_fields and default is None:
        return "as in `defaults:`"
    if isinstance(default, language.LateImages):
        return f"`{default.do}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, float):
        size, unit = next(pair for pair in UNITS if default % pair[0] == 0)
        return f"`{default / size:g}{unit}`"
    if name == "days":
        return "every day"
    return f"`{default}`" if isinstance(default, str | int) and default != "" else ""


PARTS: dict[str, Callable[[], str]] = {
    "operators": operators,
    "facts": facts,
    "attributes": attributes,
    "keys-file": partial(keys, language.RulesFile),
    "keys-defaults": partial(keys, language.Defaults),
    "keys-rules": partial(keys, language.RuleEntry),
    "keys-series": partial(keys, language.SeriesChoice),
    "keys-schedule": partial(keys, language.Schedule),
    "keys-complete": partial(keys, language.Complete),
    "keys-late_images": partial(keys, language.LateImages),
    "keys-examples": partial(keys, language.Example),
}
"""By the name of the markers in docs/rules.md."""
