"""The gate's rules for the tree of a report (PS3.16 TID 1500, IHE AIR): what dciodvfy does not look at.

In: a report, read back. Out: nothing, or Permanent with the first rule that is broken.
"""

from __future__ import annotations

from collections.abc import Iterator

from pacsnode.encode.read_back import Item
from pacsnode.errors import Permanent

_CONTENT, _VALUE_TYPE, _NAME, _CODE = 0x0040A730, 0x0040A040, 0x0040A043, 0x0040A168
_MEASURED, _UNITS = 0x0040A300, 0x004008EA
_TEMPLATES, _TEMPLATE = 0x0040A504, 0x0040DB00
_REFERENCED, _INSTANCE = 0x00081199, 0x00081155
_EVIDENCE, _SERIES = (0x0040A375, 0x0040A385), 0x00081115

_ROOT = ("126000", "DCM")
_OBSERVER_TYPE, _DEVICE, _DEVICE_UID = ("121005", "DCM"), ("121007", "DCM"), ("121012", "DCM")
_PROCEDURE, _LANGUAGE = ("121058", "DCM"), ("121049", "DCM")
_MEASUREMENTS, _GROUP = ("126010", "DCM"), ("125007", "DCM")
_TRACKING, _TRACKING_UID = ("112039", "DCM"), ("112040", "DCM")
_ALGORITHM = (("111001", "DCM"), ("111003", "DCM"))
_GROUP_TEMPLATES = {"1410", "1411", "1501"}
_REFERRING = {"IMAGE", "WAVEFORM", "COMPOSITE"}


def check(root: Item) -> None:
    """Raise Permanent unless the tree of the report `root` is as TID 1500 and its parts want it."""
    if _name(root) != _ROOT or root.text(_VALUE_TYPE) != "CONTAINER" or _template(root) != "1500":
        raise Permanent("the report is no Imaging Measurement Report (TID 1500)")
    named = {_name(item): item for item in _children(root)}
    observer = named.get(_OBSERVER_TYPE)
    if observer is None or _coded(observer, _CODE) != _DEVICE or _DEVICE_UID not in named:
        raise Permanent("the report does not say which device observed")
    for name, what in ((_PROCEDURE, "which procedure it is about"), (_LANGUAGE, "its language")):
        if name not in named:
            raise Permanent(f"the report does not say {what}")
    measurements = named.get(_MEASUREMENTS)
    groups = _children(measurements) if measurements is not None else []
    if not groups:
        raise Permanent("the report has no measurement group")
    for group in groups:
        _check_group(group)
    _check_items(root)


def _check_group(group: Item) -> None:
    if _name(group) != _GROUP or _template(group) not in _GROUP_TEMPLATES:
        raise Permanent("the report has a measurement group of an unknown template")
    names = [_name(item) for item in _children(group)]
    if names.count(_TRACKING) != 1 or names.count(_TRACKING_UID) != 1:
        raise Permanent("a measurement group lacks its tracking identifier and UID")
    if not all(name in names for name in _ALGORITHM):
        raise Permanent("a measurement group does not say which algorithm made it")


def _check_items(root: Item) -> None:
    known = set(_evidence(root))
    for item in _tree(root):
        value_type = item.text(_VALUE_TYPE)
        if value_type == "NUM":
            _check_number(item)
        elif value_type == "CODE" and not all(_coded(item, _CODE)):
            raise Permanent("the report has a code without value or scheme")
        elif value_type in _REFERRING:
            for reference in item.sequences.get(_REFERENCED, []):
                if reference.text(_INSTANCE) not in known:
                    raise Permanent("the report refers to an instance that is not among its evidence")


def _check_number(item: Item) -> None:
    measured = item.sequences.get(_MEASURED, [])
    if len(measured) != 1 or not all(_coded(measured[0], _UNITS)):
        raise Permanent("a number of the report has no unit")


def _evidence(root: Item) -> Iterator[str]:
    """SOP Instance UIDs of the evidence (PS3.3 C.17.2)."""
    for tag in _EVIDENCE:
        for study in root.sequences.get(tag, []):
            for series in study.sequences.get(_SERIES, []):
                yield from (one.text(_INSTANCE) for one in series.sequences.get(_REFERENCED, []))


def _tree(item: Item) -> Iterator[Item]:
    for child in _children(item):
        yield child
        yield from _tree(child)


def _children(item: Item) -> list[Item]:
    return item.sequences.get(_CONTENT, [])


def _name(item: Item) -> tuple[str, str]:
    return _coded(item, _NAME)


def _coded(item: Item, tag: int) -> tuple[str, str]:
    """(code value, scheme), of a long or URN code too; empty where there is none."""
    for code in item.sequences.get(tag, []):
        value = code.text(0x00080100) or code.text(0x00080119) or code.text(0x00080120)
        return value, code.text(0x00080102) or ("URN" if 0x00080120 in code.values else "")
    return "", ""


def _template(item: Item) -> str:
    return next((one.text(_TEMPLATE) for one in item.sequences.get(_TEMPLATES, [])), "")
