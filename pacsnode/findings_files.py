"""Findings on disk, in `runs/<key>/` between infer and encode, and files that a crash cannot tear.

In and out: Findings. Arrays lie in one file beside the JSON that names them. Never reads a pickle.
"""

from __future__ import annotations

import io
import json
import math
import os
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacsnode.dicom.codes import Concept
from pacsnode.findings import (
    Algorithm,
    Evaluation,
    Findings,
    Group,
    Measurement,
    Presence,
    Region,
    Segment,
    Shape,
    Trace,
)
from pacsnode.pictured import Pictures

RECORD = "findings.json"
"""Written last: its presence means that the record is whole."""


def save(findings: Findings, folder: Path) -> None:
    """Write `findings` into `folder` durably (arrays first, then the JSON that names them), mode 0600."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    arrays: dict[str, NDArray[Any]] = {}
    groups: list[dict[str, Any]] = []
    for number, group in enumerate(findings.groups):
        plain: dict[str, Any] = {
            "source": group.source,
            "measurements": [asdict(m) for m in group.measurements],
            "evaluations": [asdict(e) for e in group.evaluations],
            "segments": [asdict(s) for s in group.segments],
            "notes": group.notes,
            "frames": group.frames,
            "regions": [asdict(r) for r in group.regions],
            "overlaid": len(group.overlaid),
            "spacing_mm": group.spacing_mm,
        }
        if group.label_map is not None:
            _put(arrays, f"{number}.label_map", group.label_map)
        for layer, label_map in enumerate(group.overlaid):
            _put(arrays, f"{number}.overlaid.{layer}", label_map)
        if group.probabilities is not None:
            arrays[f"{number}.probabilities"] = group.probabilities
        if group.picture is not None:
            arrays[f"{number}.picture"] = group.picture
        if group.pictures is not None:
            arrays[f"{number}.pictures"] = group.pictures.pixels
            plain["pictures"] = group.pictures.plain
        if group.trace is not None:
            arrays[f"{number}.millivolts"] = group.trace.millivolts
            plain["trace"] = {
                "leads": group.trace.leads,
                "sampling_hz": group.trace.sampling_hz,
                "beats": group.trace.beats,
            }
        groups.append(plain)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for a name here
    write_durably(folder / "arrays.npz", buffer.getvalue())
    text = json.dumps({"algorithm": asdict(findings.algorithm), "groups": groups}, ensure_ascii=False)
    write_durably(folder / RECORD, text.encode())


def load(folder: Path, *, with_arrays: bool = True) -> Findings:
    """Read what `save` wrote; without arrays there are no label maps, pictures and traces, and no big file is read.

    Raises FileNotFoundError where there is no whole record.
    """
    plain = json.loads((folder / RECORD).read_text())
    with np.load(folder / "arrays.npz", allow_pickle=False) if with_arrays else nullcontext({}) as arrays:
        groups = tuple(_group(number, g, arrays) for number, g in enumerate(plain["groups"]))
    algorithm = plain["algorithm"] | {"procedure": Concept(**plain["algorithm"]["procedure"])}
    return Findings(Algorithm(**algorithm), groups)


def _put(arrays: dict[str, NDArray[Any]], name: str, label_map: NDArray[np.uint8]) -> None:
    """A label map of one segment as bits: an eighth of the bytes to write and flush."""
    if label_map.dtype != np.uint8 or label_map.max(initial=0) > 1:
        arrays[name] = label_map
    else:
        arrays[f"{name}.bits"] = np.packbits(label_map)
        arrays[f"{name}.shape"] = np.array(label_map.shape)


def _taken(arrays: Any, name: str) -> NDArray[np.uint8] | None:
    """What `_put` put there."""
    bits = arrays.get(f"{name}.bits")
    if bits is None:
        whole: NDArray[np.uint8] | None = arrays.get(name)
        return whole
    shape = tuple(int(n) for n in arrays[f"{name}.shape"])
    return np.unpackbits(bits, count=math.prod(shape)).reshape(shape)


def _group(number: int, plain: dict[str, Any], arrays: Any) -> Group:
    trace, pictures = plain.get("trace"), arrays.get(f"{number}.pictures")
    return Group(
        source=tuple(plain["source"]),
        measurements=tuple(map(_measurement, plain["measurements"])),
        evaluations=tuple(
            Evaluation(**_concepts(e) | {"presence": Presence(e["presence"])}) for e in plain["evaluations"]
        ),
        segments=tuple(Segment(**_concepts(s) | {"color_rgb": tuple(s["color_rgb"])}) for s in plain["segments"]),
        notes=tuple(plain["notes"]),
        label_map=_taken(arrays, f"{number}.label_map"),
        picture=arrays.get(f"{number}.picture"),
        trace=None
        if trace is None or f"{number}.millivolts" not in arrays
        else Trace(
            tuple(trace["leads"]),
            arrays[f"{number}.millivolts"],
            trace["sampling_hz"],
            tuple(trace["beats"]),
        ),
        frames=tuple(plain.get("frames", ())),
        regions=tuple(map(_region, plain.get("regions", ()))),
        overlaid=tuple(
            found
            for n in range(plain.get("overlaid", 0))
            if (found := _taken(arrays, f"{number}.overlaid.{n}")) is not None
        ),
        probabilities=arrays.get(f"{number}.probabilities"),
        pictures=None if pictures is None else Pictures.of(plain["pictures"], pictures),
        spacing_mm=tuple(plain["spacing_mm"]) if plain.get("spacing_mm") else None,
    )


def _measurement(plain: dict[str, Any]) -> Measurement:
    return Measurement(**_concepts(plain) | {"regions": tuple(plain.get("regions", ()))})


def _region(plain: dict[str, Any]) -> Region:
    typed: dict[str, Any] = {
        "shape": Shape(plain["shape"]),
        "points": tuple((column, row) for column, row in plain["points"]),
        "presence": None if plain["presence"] is None else Presence(plain["presence"]),
        "measurements": tuple(map(_measurement, plain["measurements"])),
        "color_rgb": tuple(plain["color_rgb"]),
        "also": tuple((image, frame) for image, frame in plain.get("also", ())),
    }
    return Region(**_concepts(plain) | typed)


def _concepts(plain: dict[str, Any]) -> dict[str, Any]:
    return {k: Concept(**v) if isinstance(v, dict) else v for k, v in plain.items()}


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is there whole or not at all; mode 0600."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
