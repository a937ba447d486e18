"""Content items of any structured report, ours or a vendor's, as plain values: bounded in number, depth and length.

In: a normalised header (see `encode.normalise`) of an SR or a key object selection. Out: Items. Never raises for what a
vendor wrote: an item that says nothing readable is shown as "?".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pacsnode.infer.headers import items, value

MOST_ITEMS = 5000
DEEPEST = 20
LONGEST = 4000
_CUT = "… the rest of the report is left out"


@dataclass(frozen=True)
class Item:
    """One content item. `code`, `name`: of its concept; `said`: its value in words; `said_code`: of a coded value."""

    kind: str
    code: str
    name: str
    said: str = ""
    said_code: str = ""
    children: tuple[Item, ...] = ()

    def find(self, *codes: str) -> Iterator[Item]:
        """Children whose concept is one of `codes`."""
        return (child for child in self.children if child.code in codes)

    def first(self, *codes: str) -> str:
        """What the first such child says."""
        return next((child.said for child in self.find(*codes)), "")


def read_items(header: Dataset) -> Item:
    """The root of the document with all below it."""
    return _item(header, 0, _Room(MOST_ITEMS))


class _Room:
    """How many items may still be read."""

    def __init__(self, count: int) -> None:
        self.left = count


def _item(dataset: Dataset, depth: int, room: _Room) -> Item:
    kind = text(dataset, "ValueType")[:16]
    code, name = _concept(dataset, "ConceptNameCodeSequence")
    said_code, said = _said(dataset, kind)
    children: list[Item] = []
    for child in items(dataset, "ContentSequence"):
        if room.left <= 0 or depth >= DEEPEST:
            children.append(Item("", "", "", _CUT))
            break
        room.left -= 1
        children.append(_item(child, depth + 1, room))
    return Item(kind, code, name, said, said_code, tuple(children))


def text(dataset: Dataset, keyword: str) -> str:
    """A value as text, "" where there is none; several are separated by commas."""
    given = value(dataset, keyword)
    if given is None or isinstance(given, bytes | Dataset):
        return ""
    parts = [str(one) for one in given] if isinstance(given, list | tuple | MultiValue) else [str(given)]
    return ", ".join(parts)[:LONGEST]


def _concept(dataset: Dataset, keyword: str) -> tuple[str, str]:
    for code in items(dataset, keyword)[:1]:
        value_of = text(code, "CodeValue") or text(code, "LongCodeValue") or text(code, "URNCodeValue")
        return value_of, text(code, "CodeMeaning") or value_of or "?"
    return "", ""


def _said(dataset: Dataset, kind: str) -> tuple[str, str]:
    """(code of a coded value, what the item says)"""
    if reference := text(dataset, "ReferencedContentItemIdentifier"):
        return "", f"see item {reference}"
    if kind == "CODE":
        return _concept(dataset, "ConceptCodeSequence")
    if kind in _READERS:
        return "", _READERS[kind](dataset)
    return "", "" if kind == "CONTAINER" else "?"


def _number(dataset: Dataset) -> str:
    for measured in items(dataset, "MeasuredValueSequence")[:1]:
        code, meaning = _concept(measured, "MeasurementUnitsCodeSequence")
        unit = "" if code in ("1", "{ratio}") else meaning if code.startswith(("{", "[")) else code or meaning
        return f"{text(measured, 'NumericValue')} {unit}".strip()
    why = _concept(dataset, "NumericValueQualifierCodeSequence")[1]
    return f"no value{f' ({why})' if why else ''}"


def _reference(dataset: Dataset) -> str:
    told = []
    for one in items(dataset, "ReferencedSOPSequence")[:20]:
        parts = [text(one, "ReferencedSOPInstanceUID")]
        for keyword, word in (
            ("ReferencedFrameNumber", "frame"),
            ("ReferencedSegmentNumber", "segment"),
            ("ReferencedWaveformChannels", "channels"),
        ):
            if number := text(one, keyword):
                parts.append(f"{word} {number}")
        told.append(" ".join(parts))
    return "; ".join(told) or "?"


def _coordinates(dataset: Dataset) -> str:
    kind = text(dataset, "GraphicType").lower()
    points = [_short(number) for number in text(dataset, "GraphicData").split(", ")]
    size = 3 if text(dataset, "ValueType") == "SCOORD3D" else 2
    first = [" ".join(points[n : n + size]) for n in range(0, min(len(points), 6 * size), size)]
    more = f" and {len(points) // size - 6} more points" if len(points) > 6 * size else ""
    return f"{kind} ({', '.join(first)}{more})"


def _short(number: str) -> str:
    """Two digits after the point: FL has more than it means."""
    try:
        return f"{float(number):.2f}".rstrip("0").rstrip(".")
    except ValueError:
        return number


def _temporal(dataset: Dataset) -> str:
    given = (text(dataset, k) for k in ("ReferencedSamplePositions", "ReferencedTimeOffsets", "ReferencedDateTime"))
    return f"{text(dataset, 'TemporalRangeType').lower()} {next(filter(None, given), '')}".strip()


def _plain(keyword: str) -> Callable[[Dataset], str]:
    return lambda dataset: text(dataset, keyword) or "?"


_READERS: Mapping[str, Callable[[Dataset], Any]] = {
    "TEXT": _plain("TextValue"),
    "NUM": _number,
    "UIDREF": _plain("UID"),
    "PNAME": _plain("PersonName"),
    "DATE": _plain("Date"),
    "TIME": _plain("Time"),
    "DATETIME": _plain("DateTime"),
    "IMAGE": _reference,
    "COMPOSITE": _reference,
    "WAVEFORM": _reference,
    "SCOORD": _coordinates,
    "SCOORD3D": _coordinates,
    "TCOORD": _temporal,
}
