"""The reference part of docs/services.md, written from the program: every key of pipeline.yaml.

In: the records of `infer.pipeline`. Out: Markdown tables by the name of the part; `write_docs` puts them in place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from rules_reference import table

from pacsnode.infer import endpoint, pipeline
from pacsnode.infer.mistakes import FITTING
from pacsnode.infer.pipeline import json_schema

SECTIONS: dict[str, type[BaseModel]] = {
    "file": pipeline.PipelineFile,
    "needs": pipeline.Needs,
    "series": pipeline.SeriesRole,
    "limits": pipeline.Limits,
    "network": pipeline.Network,
    "http": endpoint.Http,
    "tensor": endpoint.Tensor,
    "workflow": pipeline.Workflow,
    "remote": pipeline.Remote,
    "card": pipeline.Card,
    "measured": pipeline.Measured,
    "segments": pipeline.SegmentSpec,
    "measurements": pipeline.MeasurementSpec,
    "evaluations": pipeline.EvaluationSpec,
    "classification": pipeline.Classification,
    "classes": pipeline.ClassSpec,
    "regions": pipeline.RegionSpec,
    "code": pipeline.Code,
}
"""By the name of the marker and of the section."""
NAMES = {model.__name__: name for name, model in SECTIONS.items()}


def keys(model: type[BaseModel]) -> str:
    """Every key of one map: what may stand there, what holds without it, what it means."""
    schema = json_schema()
    shapes = (schema if model is pipeline.PipelineFile else schema["$defs"][model.__name__])["properties"]
    return table(
        ("key", "value", "left out", "meaning"),
        (
            (
                f"`{field.alias or name}`",
                _shape(shapes[field.alias or name]),
                _default(field.default, shapes[field.alias or name]),
                field.description or "",
            )
            for name, field in model.model_fields.items()
        ),
    )


def _shape(schema: dict[str, Any]) -> str:
    """What may stand behind a key, in words."""
    if "anyOf" in schema:
        return " or ".join(_shape(one) for one in schema["anyOf"] if one != {"type": "null"})
    if "$ref" in schema:
        name = NAMES[schema["$ref"].split("/")[-1]]
        return f"[`{name}`](#keys-of-{name})"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "properties" in schema and "any" in schema["properties"]:
        return "[conditions](rules.md#conditions)"
    if schema["type"] == "array":
        return "`[from, to]`" if schema.get("maxItems") == 2 else f"list of {_shape(schema['items'])}"
    if _is_time(schema):
        return "time: `20s`, `2m`, `1h`, `7d`"
    words = {"boolean": "`true`, `false`", "integer": "whole number", "number": "number"}
    return words.get(schema["type"], "text")


def _default(default: object, shape: dict[str, Any]) -> str:
    if default is PydanticUndefined:
        return "must be there"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float):
        return f"`{default:g}s`" if _is_time(shape) else f"`{default:g}`"
    return f"`{default}`" if isinstance(default, str) and default else ""


def _is_time(schema: dict[str, Any]) -> bool:
    return str(schema.get("pattern", "")).endswith("[smhd]$")


def fitting() -> str:
    """What may stand in `needs`, by the form of the input."""
    return table(
        ("`input`", "may need"),
        ((f"`{form}`", ", ".join(f"`{name}`" for name in names)) for form, names in FITTING.items()),
    )


PARTS: dict[str, Callable[[], str]] = {f"keys-{name}": partial(keys, model) for name, model in SECTIONS.items()} | {
    "fitting": fitting
}
"""By the name of the markers in docs/services.md."""
