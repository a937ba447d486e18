"""What a person wants of the objects beyond patient and study, checked against what each kind of object can say.

In: the command's options. Out: the same, checked: a type 1 attribute that only a person can know has to be given. Knows
no file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset

from pacsnode.errors import ConfigError
from pacsnode.wrap.anatomy import BODY_PARTS, MAMMOGRAPHIC_VIEWS, OPHTHALMIC_DEVICES
from pacsnode.wrap.examination import checked, clock_of, day_of

KINDS = ("dx", "mg", "px", "op", "endoscopy", "ecg")
RADIOGRAPHS = ("dx", "mg", "px")
HAS_TO_SAY_BURNED_IN = (*RADIOGRAPHS, "op")
"""Kinds whose Burned In Annotation is type 1."""
MOST_MM = 10.0
"""A pixel larger than this is a mistyped one."""
_BODY_PART = {"mg": "BREAST", "px": "JAW", "op": "EYE"}
_SIDES = {"dx": "RLBU", "mg": "RLB", "px": "RLBU", "op": "RLB"}
_AXES = {"L": "side", "R": "side", "A": "depth", "P": "depth", "H": "height", "F": "height"}
_ONLY_FOR = {
    "view": ("dx", "mg"),
    "laterality": tuple(_SIDES),
    "pixel_spacing_mm": (*RADIOGRAPHS, "op"),
    "orientation": (*RADIOGRAPHS, "op", "endoscopy"),
    "burned_in": (*RADIOGRAPHS, "op", "endoscopy"),
    "device": ("op",),
    "to_grey": RADIOGRAPHS,
    "body_part": (*RADIOGRAPHS, "op", "endoscopy"),
    "seconds": ("ecg",),
    "from_s": ("ecg",),
}


@dataclass(frozen=True)
class Wanted:
    """One kind of object. `pixel_spacing_mm`: between rows, between columns; at the detector, or in the retina.

    `orientation`: where in the patient the rows run to, and the columns: L, F for a frontal view (PS3.3 C.7.6.1.1.1).
    `burned_in`: yes, no, or "" where nobody said. `from_s`, `seconds`: which part of a recording, else all of it.
    """

    kind: str
    body_part: str = ""
    view: str = ""
    laterality: str = ""
    pixel_spacing_mm: tuple[float, float] | None = None
    orientation: tuple[str, ...] = ()
    burned_in: str = ""
    device: str = ""
    to_grey: bool = False
    seconds: float | None = None
    from_s: float | None = None


def settled(wanted: Wanted, examination: Dataset) -> Wanted:
    """`wanted` with what follows from its kind. Raises ConfigError for what is missing, wrong or of another kind."""
    if wanted.kind not in KINDS:
        raise ConfigError(f"is one of {', '.join(KINDS)}", where="--as")
    for name, kinds in _ONLY_FOR.items():
        if getattr(wanted, name) not in ("", None, False, ()) and wanted.kind not in kinds:
            raise ConfigError(f"is not for {wanted.kind}", where=_option(name))
    if wanted.burned_in not in ("", "yes", "no"):
        raise ConfigError("is yes or no", where="--burned-in")
    body_part = wanted.body_part.upper() or _BODY_PART.get(wanted.kind, "")
    checked("BodyPartExamined", body_part, "--body-part")
    wanted = replace(wanted, body_part=body_part, view=wanted.view.upper(), laterality=_laterality(wanted, body_part))
    _check_spacing(wanted)
    _check_orientation(wanted)
    if wanted.kind == "mg" and wanted.view not in MAMMOGRAPHIC_VIEWS:
        raise ConfigError(f"a mammogram needs its view, one of {', '.join(MAMMOGRAPHIC_VIEWS)}", where="--view")
    checked("ViewPosition", wanted.view, "--view")
    if wanted.kind == "op":
        wanted = replace(wanted, device=wanted.device or "not-stated")
    if wanted.device and wanted.device not in OPHTHALMIC_DEVICES:
        raise ConfigError(f"is one of {', '.join(OPHTHALMIC_DEVICES)}", where="--device")
    if wanted.device == "fundus-camera" and wanted.pixel_spacing_mm is None:
        raise ConfigError("a picture of a fundus camera needs its spacing in the retina, else --device not-stated",
                          where="--pixel-spacing-mm")  # fmt: skip
    if wanted.kind == "op" and (day_of(examination) is None or clock_of(examination) is None):
        raise ConfigError("an ophthalmic photograph needs a date and a time", where="--study-date, --study-time")
    _check_part(wanted)
    return wanted


def _option(name: str) -> str:
    return {"from_s": "--from"}.get(name, f"--{name.replace('_', '-')}")


def _laterality(wanted: Wanted, body_part: str) -> str:
    """R, L, B or U; "" where the object has none."""
    sides = _SIDES.get(wanted.kind, "")
    given = wanted.laterality.upper()
    if not given and "U" in sides and body_part in BODY_PARTS and BODY_PARTS[body_part].is_unpaired:
        return "U"
    if sides and given not in tuple(sides):
        raise ConfigError(
            f"which side? One of {', '.join(sides)} (R right, L left, B both{', U unpaired' if 'U' in sides else ''})",
            where="--laterality",
        )
    return given


def _check_spacing(wanted: Wanted) -> None:
    spacing = wanted.pixel_spacing_mm
    if spacing is None:
        if wanted.kind in RADIOGRAPHS:
            raise ConfigError(
                "a radiograph needs the distance between its pixels at the detector, in mm as ROWS,COLUMNS; "
                "the device's manual has it, a picture file does not",
                where="--pixel-spacing-mm",
            )
    elif not all(math.isfinite(side) and 0 < side <= MOST_MM for side in spacing):
        raise ConfigError(f"is two numbers above 0 and up to {MOST_MM:g}, in mm", where="--pixel-spacing-mm")


def _check_orientation(wanted: Wanted) -> None:
    given = wanted.orientation
    if not given and wanted.kind in RADIOGRAPHS:
        raise ConfigError(
            "which way does it lie? L,F where the patient's left is at the right of the picture and the feet are at "
            "its bottom, as frontal views are shown; A anterior, P posterior, R right, H head",
            where="--orientation",
        )
    if given and not (len(given) == 2 and all(map(_is_direction, given)) and _axis(given[0]) != _axis(given[1])):
        raise ConfigError("is two directions of L, R, A, P, H, F, such as L,F", where="--orientation")


def _is_direction(word: str) -> bool:
    """One to three letters of which no two lie on one line (PS3.3 C.7.6.1.1.1)."""
    axes = [_AXES.get(letter, "") for letter in word]
    return 1 <= len(word) <= 3 and all(axes) and len(set(axes)) == len(axes)


def _axis(word: str) -> str:
    return _AXES[word[0]]


def _check_part(wanted: Wanted) -> None:
    if wanted.seconds is not None and not (math.isfinite(wanted.seconds) and wanted.seconds > 0):
        raise ConfigError("is a number of seconds above 0", where="--seconds")
    if wanted.from_s is not None and not (math.isfinite(wanted.from_s) and wanted.from_s >= 0):
        raise ConfigError("is a number of seconds from 0", where="--from")
