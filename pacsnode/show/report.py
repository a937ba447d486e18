"""Structured reports in a radiologist's words: measurement reports (TID 1500) by finding, any other as its tree.

In: Items. Out: Nodes. Nothing that says something is left out of a measurement report: what has no place of its own
here stands as it does in the tree. UIDs of tracking and parameters of the algorithm are only in the tree.
"""

from __future__ import annotations

from collections.abc import Iterator

from pacsnode.show.items import Item
from pacsnode.show.lines import Node

MEASUREMENT_REPORT = "126000"

IMAGE_LIBRARY = "111028"
GROUP = "125007"
FINDING, CATEGORY = ("121071",), ("276214006", "121242")
SITE = ("363698007", "G-C0E3")
LATERALITY = ("272741003", "G-C171")
TRACKING, TRACKING_UID = "112039", "112040"
ALGORITHM, ALGORITHM_VERSION = "111001", "111003"
ALGORITHM_PARTS = (ALGORITHM, ALGORITHM_VERSION, "111002", "111000", "122405")
PROBABILITY, COMMENT = "122157", "121106"
LANGUAGE, PROCEDURE = "121049", "121058"
OBSERVER = ("121005", "121012", "121013", "121014", "121015", "121016", "121017", "121008", "121009")
OBSERVER_NAME, OBSERVER_MODEL, OBSERVER_PERSON = "121013", "121015", "121008"


def report_nodes(root: Item) -> tuple[Node, ...]:
    """What the document says, for a reader."""
    if root.code == MEASUREMENT_REPORT and any(root.find("126010")):
        return tuple(_measurement_report(root))
    return tree_nodes(root)


def tree_nodes(root: Item) -> tuple[Node, ...]:
    """The items as they stand."""
    return tuple(map(_plain, root.children))


def _plain(item: Item) -> Node:
    return Node(item.name or item.kind.lower(), item.said, tuple(map(_plain, item.children)))


def _measurement_report(root: Item) -> Iterator[Node]:
    shown = {LANGUAGE, PROCEDURE, IMAGE_LIBRARY, *OBSERVER, COMMENT, "126010"}
    if procedure := root.first(PROCEDURE):
        yield Node("Procedure", procedure)
    by = root.first(OBSERVER_NAME) or root.first(OBSERVER_MODEL) or root.first(OBSERVER_PERSON)
    model = root.first(OBSERVER_MODEL)
    if by:
        yield Node("Read by", f"{by} ({model})" if model and model != by else by)
    for library in root.find(IMAGE_LIBRARY):
        yield Node("Images", str(sum(1 for one in _all(library) if one.kind == "IMAGE")))
    for container in root.find("126010"):
        for child in container.children:
            yield _group(child) if child.code == GROUP else _plain(child)
    for child in root.children:
        if child.code not in shown:
            yield _plain(child)
    if about := [Node("", child.said) for child in root.find(COMMENT)]:
        yield Node("About this result", children=tuple(about))


def _all(item: Item) -> Iterator[Item]:
    for child in item.children:
        yield child
        yield from _all(child)


def _group(group: Item) -> Node:
    """One finding: what and where, then its numbers and findings, then what it refers to."""
    finding = group.first(*FINDING)
    title = _with_place(finding, group) or group.first(TRACKING) or "Finding"
    hidden = {*FINDING, *CATEGORY, *SITE, TRACKING, TRACKING_UID, *ALGORITHM_PARTS}
    if not finding:
        title = "Whole image" if group.first(TRACKING).endswith(" findings") else title
    rows = [_row(child) for child in group.children if child.code not in hidden and child.kind in ("NUM", "CODE")]
    rest = [
        _plain(child)
        for child in group.children
        if child.code not in {*hidden, COMMENT} and child.kind not in ("NUM", "CODE")
    ]
    notes = [Node("Note", child.said, tuple(map(_plain, child.children))) for child in group.find(COMMENT)]
    algorithm = " ".join(filter(None, (group.first(ALGORITHM), group.first(ALGORITHM_VERSION))))
    by = [Node("Algorithm", algorithm)] if algorithm else []
    return Node(title, children=(*rows, *notes, *rest, *by))


def _row(item: Item) -> Node:
    """`Cardiomegaly, heart: Undetermined, probability 12.3 %`"""
    said, known = item.said, {PROBABILITY, COMMENT, *SITE, *LATERALITY}
    if probability := item.first(PROBABILITY):
        said += f", probability {probability}"
    comments = [Node("", child.said) for child in item.find(COMMENT)]
    others = [_plain(child) for child in item.children if child.code not in known]
    return Node(_with_place(item.name, item), said, (*comments, *others))


def _with_place(name: str, item: Item) -> str:
    """`Area, right lung`, or `Right lung` where the name is the site; a side stands below the site or by itself."""
    places = []
    for site in item.find(*SITE):
        side = site.first(*LATERALITY)
        places.append(" ".join(filter(None, (side.lower(), site.said.lower()))))
    if not places and (side := item.first(*LATERALITY)):
        places.append(side.lower())
    if name and (itself := next((place for place in places if place.endswith(name.lower())), "")):
        places.remove(itself)
        name = itself[:1].upper() + itself[1:]
    named = [place for place in places if place != name.lower()]
    return ", ".join(filter(None, (name, *named)))
