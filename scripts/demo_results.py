"""What a person looks at after scripts/demo: results under telling names, reports as text, pictures as PNG.

In: received Part 10 files and the life of each study. Out: files in one folder. Never changes what was received.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydicom
from PIL import Image

DSRDUMP = Path("/usr/bin/dsrdump")
NAMES = {"sr": "report_SR", "seg": "outlines_SEG", "sc": "overlay_SC"}


def present(lives: list[dict[str, Any]], received: Mapping[str, Path], folder: Path) -> list[Path]:
    """Write every result that was received; gives the files in the order in which they are told of."""
    folder.mkdir()
    written: list[Path] = []
    studies_of = Counter(case["service"] for life in lives for case in life["cases"])
    numbers: Counter[str] = Counter()
    for life in lives:
        for case in life["cases"]:
            numbers[case["service"]] += 1
            several = studies_of[case["service"]] > 1
            stem = f"{case['service']}-{numbers[case['service']]}" if several else case["service"]
            is_ecg = "ECG" in life["received"]["modalities"]
            kinds: Counter[str] = Counter()
            for result in case["results"]:
                source = received.get(result["sop_instance_uid"])
                if source is None:
                    continue
                kinds[result["kind"]] += 1
                name = "page_SC" if is_ecg and result["kind"] == "sc" else NAMES[result["kind"]]
                more = f"-{kinds[result['kind']]}" if kinds[result["kind"]] > 1 else ""
                written += _write(source, folder / f"{stem}_{name}{more}.dcm", result["kind"])
    return written


def _write(source: Path, target: Path, kind: str) -> list[Path]:
    shutil.copyfile(source, target)
    if kind == "sr":
        text = target.with_suffix(".txt")
        text.write_text(report_text(target))
        return [target, text]
    if kind == "sc":
        picture = target.with_suffix(".png")
        pixels = pydicom.dcmread(target).pixel_array
        Image.fromarray(pixels[0] if pixels.ndim == 4 else pixels).save(picture)  # the first of several is the key one
        return [target, picture]
    return [target]


def report_text(path: Path) -> str:
    """The report as DCMTK reads it, else as we do."""
    if DSRDUMP.exists():
        dumped = subprocess.run([DSRDUMP, "+Pl", path], capture_output=True, check=False)
        if dumped.returncode == 0 and dumped.stdout:
            return dumped.stdout.decode("utf-8", "replace")
    return "\n".join(_lines(pydicom.dcmread(path), 0)) + "\n"


def _lines(item: pydicom.Dataset, depth: int) -> Iterator[str]:
    name = item.ConceptNameCodeSequence[0].CodeMeaning if item.get("ConceptNameCodeSequence") else ""
    line = f"{'  ' * depth}{item.get('ValueType', '?')}  {name}"
    value = _value(item)
    yield f"{line} = {value}" if value else line
    for child in item.get("ContentSequence", ()):
        yield from _lines(child, depth + 1)


def _value(item: pydicom.Dataset) -> str:
    kind = item.get("ValueType", "")
    if kind == "NUM":
        measured = item.MeasuredValueSequence[0] if item.get("MeasuredValueSequence") else None
        if measured is None:
            return "no value"
        return f"{measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeMeaning}"
    if kind == "CODE":
        return str(item.ConceptCodeSequence[0].CodeMeaning)
    if item.get("ReferencedSOPSequence"):
        referenced = item.ReferencedSOPSequence[0]
        return f"{referenced.ReferencedSOPClassUID.name} {referenced.ReferencedSOPInstanceUID}"
    fields = {"TEXT": "TextValue", "PNAME": "PersonName", "UIDREF": "UID", "DATETIME": "DateTime", "DATE": "Date"}
    return str(item.get(fields.get(kind, ""), "")) if kind in fields else ""
