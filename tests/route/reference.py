"""A slow, obvious reading of conditions, written from docs/rules.md alone: to compare the real one with.

Takes the plain map of YAML each time, imports nothing of what it is compared with, remembers nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

Image = Mapping[str, tuple[str, ...]]
KINDS = {
    "Modality": "text",
    "BodyPartExamined": "text",
    "StudyDescription": "text",
    "SeriesDescription": "text",
    "ViewPosition": "text",
    "ImageType": "text",
    "ImageType[3]": "text",
    "Rows": "number",
    "SliceThickness": "number",
    "StudyDate": "date",
    "PatientAge": "age",
    "StudyTime": "time",
}
DAYS = {"D": Decimal(1), "W": Decimal(7), "M": Decimal("30.4375"), "Y": Decimal("365.25")}


def takes(condition: Mapping[str, Any], image: Image, study: Sequence[Image]) -> bool:
    """Whether all lines of a map hold for an image."""
    return all(line_holds(key, value, image, study) for key, value in condition.items())


def line_holds(key: str, value: Any, image: Image, study: Sequence[Image]) -> bool:
    if key == "any":
        return any(takes(part, image, study) for part in value)
    if key == "all":
        return all(takes(part, image, study) for part in value)
    if key == "not":
        return not takes(value, image, study)
    if key == "study_has":
        return any(takes(value, other, study) for other in study)
    return attribute_holds(key, value, image)


def attribute_holds(name: str, wanted: Any, image: Image) -> bool:
    if not isinstance(wanted, dict):
        wanted = {"equals": wanted}
    return all(operator_holds(name, operator, operand, image) for operator, operand in wanted.items())


def operator_holds(name: str, operator: str, operand: Any, image: Image) -> bool:
    values = values_of(name, image)
    match operator:
        case "not":
            return not attribute_holds(name, operand, image)
        case "exists":
            return bool(values) is bool(operand)
        case "equals":
            return any(is_equal(name, value, operand) for value in values)
        case "in":
            return any(is_equal(name, value, one) for value in values for one in operand)
        case "contains":
            texts = operand if isinstance(operand, list) else [operand]
            return any(plain(text) in plain(value) for value in values for text in texts)
        case "matches":
            return any(re.search(operand, plain(value)[:128], re.IGNORECASE) is not None for value in values)
        case "between":
            return any(lies_between(name, value, *operand) for value in values)
    raise AssertionError(operator)


def values_of(name: str, image: Image) -> tuple[str, ...]:
    found = re.fullmatch(r"(.*)\[(\d+)\]", name)
    if not found:
        return image.get(name, ())
    values = image.get(found[1], ())
    place = int(found[2]) - 1
    return (values[place],) if place < len(values) and values[place] else ()


def plain(text: str) -> str:
    """NFKC, no case, one space for what is neither letter, digit nor mark."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(
        re.sub(" +", " ", "".join(c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in folded))
        .strip()
        .split(" ")
    )


def is_equal(name: str, value: str, wanted: Any) -> bool:
    kind = KINDS[name]
    if kind == "text":
        return plain(value) == plain(str(wanted))
    one, other = measure(kind, value), measure(kind, str(wanted))
    return one is not None and one == other


def lies_between(name: str, value: str, low: Any, high: Any) -> bool:
    kind = KINDS[name]
    one, least, most = measure(kind, value), measure(kind, str(low)), measure(kind, str(high))
    if one is None:
        return False
    assert least is not None
    assert most is not None
    if kind == "age":  # up to the day before the next birthday
        return least <= one < most + DAYS[str(high)[-1]]
    if kind == "time" and least > most:
        return one >= least or one <= most
    return least <= one <= most


def measure(kind: str, text: str) -> Decimal | None:
    """A value as a number; None where it is none of its kind."""
    text = text.strip()
    if kind == "number":
        return Decimal(text) if re.fullmatch(r"[+-]?\d{1,9}(\.\d{1,9})?", text) else None
    if kind == "date":
        digits = text.replace("-", "")
        return Decimal(digits) if re.fullmatch(r"\d{8}", digits) else None
    if kind == "age":
        return int(text[:-1]) * DAYS[text[-1]] if re.fullmatch(r"\d{1,4}[DWMY]", text) else None
    digits = text.replace(":", "")
    return Decimal(digits.ljust(6, "0")) if re.fullmatch(r"\d{2}|\d{4}|\d{6}", digits) else None
