"""Part 10 files to pydicom data sets, and values of headers that may hold anything.

In: a path, or a data set and a keyword. Out: the data set, or a value that is what it should be, else None. Never
decodes a pixel, and never believes a number that is not finite.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.config
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from pacsnode.errors import Permanent

DAMAGED = (  # what pydicom and the decoders raise for damaged data; OSError and EOFError for cut files
    InvalidDicomError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
LARGEST_NUMBER = 1e6
"""Of a position, a spacing or a factor: far outside of any patient."""


def read_dataset(path: Path, *, with_pixels: bool = True) -> Dataset:
    """The data set of a Part 10 file. Raises Permanent where it is none, or lacks its own UID."""
    # What is wrong with the file is found here; pydicom's warnings would put its values, names too, into the log.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=not with_pixels)
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk, not the data
            raise Permanent(f"the file is damaged and cannot be read: {one_line(error)}") from error
    if not value(dataset, "SOPInstanceUID"):
        raise Permanent("the object is damaged: it has no SOP Instance UID")
    return dataset


def value(dataset: Dataset, keyword: str) -> Any:
    """An attribute's value, None where it is absent, empty or unreadable."""
    if keyword not in dataset:
        return None  # most of what is asked for: filters of warnings take longer than the look
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dataset.get(keyword)
        except DAMAGED:
            return None


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence, none where it is absent or no sequence."""
    given = value(dataset, keyword)
    if given is None or isinstance(given, str | bytes) or not isinstance(given, Iterable):
        return []
    return [item for item in given if isinstance(item, Dataset)]


def numbers(given: Any, count: int) -> NDArray[np.float64] | None:
    """`count` finite numbers, else None."""
    if given is None or isinstance(given, str | bytes | float | int) or len(given) != count:
        return None
    try:
        found = np.array([float(v) for v in given])
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found).all() and np.abs(found).max() < LARGEST_NUMBER else None


def positive_pair(given: Any) -> tuple[float, float] | None:
    """Two finite positive numbers, else None: a zero is how consoles say that they do not know."""
    found = numbers(given, 2)
    return (float(found[0]), float(found[1])) if found is not None and (found > 0).all() else None


def positive(given: Any) -> float | None:
    """A finite positive number, else None."""
    try:
        number = float(str(given))
    except ValueError:
        return None
    return number if 0 < number < LARGEST_NUMBER else None


def whole(dataset: Dataset, keyword: str, default: int) -> int:
    """A whole number of the header; one that cannot be read is none that fits."""
    if keyword not in dataset:
        return default
    given = value(dataset, keyword)
    if given is None or given == "":
        return default
    return int(given) if isinstance(given, int | float) else -1


def one_line(error: Exception) -> str:
    """What an exception says, for a reason: one line, cut; its class where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__
