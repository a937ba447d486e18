"""One result object made visible: its text, its pictures, its document. Runs in the compute child only.

In: the object's file and the files of its study. Out: lines, and files with names of ours in a folder. What it reads
may be anyone's: it never runs, follows or trusts what stands there.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from pacsnode.encode.normalise import read_header
from pacsnode.encode.overlay import SINGLE, STACKED, pages
from pacsnode.encode.provenance import MANUFACTURER
from pacsnode.errors import Permanent
from pacsnode.findings import NOT_FOR_DIAGNOSIS
from pacsnode.infer.frames import evenly_spaced, read_clip, read_frames
from pacsnode.infer.headers import items, read_dataset, value
from pacsnode.show.items import read_items, text
from pacsnode.show.lines import Node, html_page, text_lines
from pacsnode.show.report import report_nodes, tree_nodes
from pacsnode.show.segments import read_segmentation

PDF = "1.2.840.10008.5.1.4.1.1.104.1"
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
DOCUMENTS = "1.2.840.10008.5.1.4.1.1.88."
CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
PRESENTATIONS = "1.2.840.10008.5.1.4.1.1.11."
MOST_FRAMES = 40
OURS = f"AI result, unverified. {NOT_FOR_DIAGNOSIS}"
OF_OTHERS = "Result of another system, as it stands; not for diagnosis on this screen."
NO_RESULT = "this is an image or another object, not a result that can be shown"


@dataclass
class Shown:
    """`lines`: for a terminal. `pictures`, `document`: names of files in the folder; "" where there is none."""

    lines: list[str]
    pictures: list[str] = field(default_factory=list)
    document: str = ""


def show(path: Path, sources: Mapping[str, Path], folder: Path, *, whole_tree: bool = False) -> Shown:
    """Write `page.html`, pictures and a document into `folder`. Raises Permanent where the object is none to show."""
    header = read_header(path)
    sop_class_uid = str(header.SOPClassUID)
    nodes, document = list(_state(header)), ""
    drawn: list[NDArray[np.uint8]] = []
    if sop_class_uid.startswith(DOCUMENTS):
        root = read_items(header)
        nodes += tree_nodes(root) if whole_tree else report_nodes(root)
    elif sop_class_uid in SEGMENTATIONS:
        nodes += _segments(header)
        try:
            drawn, more = _over_images(path, header, sources)
            nodes += more
        except Permanent as error:
            nodes.append(Node("Not drawn", str(error)))
    elif sop_class_uid == PDF:
        document = _extract(path, folder)
    elif sop_class_uid == CAPTURES or sop_class_uid.startswith(f"{CAPTURES}."):
        drawn = list(_captured(path))
    elif sop_class_uid.startswith(PRESENTATIONS):
        nodes += _presentation(header)
    else:
        raise Permanent(NO_RESULT)
    tree = Node(_title(header), children=(*nodes, Node("About the object", children=tuple(_about(header)))))
    pictures = []
    for number, pixels in enumerate(drawn, start=1):
        pictures.append(f"picture-{number}.png")
        Image.fromarray(pixels).save(folder / pictures[-1])
    urls = [_url((folder / name).read_bytes()) for name in pictures]
    warning = OURS if text(header, "Manufacturer") == MANUFACTURER else OF_OTHERS
    (folder / "page.html").write_text(html_page(tree, warning, urls), encoding="utf-8")
    return Shown([*text_lines(Node(warning)), *text_lines(tree)], pictures, document)


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _title(header: Dataset) -> str:
    for item in items(header, "ConceptNameCodeSequence")[:1]:
        return text(item, "CodeMeaning")[:120]
    return text(header, "SeriesDescription")[:120] or text(header, "Modality")[:16] or "Result"


def _state(header: Dataset) -> Iterator[Node]:
    """Of a report: whether a person has signed it."""
    if text(header, "CompletionFlag"):
        flags = (text(header, k) for k in ("CompletionFlag", "VerificationFlag", "PreliminaryFlag"))
        yield Node("State", ", ".join(filter(None, flags)).lower())


def _about(header: Dataset) -> Iterator[Node]:
    """What it is and who made it; not whom it is about: the study has its UID."""
    yield Node("Object", f"{text(header, 'Modality')} {text(header, 'SOPInstanceUID')}")
    yield Node("Study", text(header, "StudyInstanceUID"))
    made = f"{text(header, 'ContentDate')} {text(header, 'ContentTime')[:6]}".strip()
    if made:
        yield Node("Made", made)
    maker = " ".join(text(header, k) for k in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions")).strip()
    yield Node("Packaged by", maker or "not said")
    for item in items(header, "ContributingEquipmentSequence")[:8]:
        parts = (text(item, k) for k in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions"))
        yield Node("Contributed by", " ".join(filter(None, parts)))


def _segments(header: Dataset) -> Iterator[Node]:
    yield Node("Kind", text(header, "SegmentationType").lower())
    for item in items(header, "SegmentSequence")[:255]:
        kind = next((text(c, "CodeMeaning") for c in items(item, "SegmentedPropertyTypeCodeSequence")), "")
        told = f"{text(item, 'SegmentLabel')}{f' ({kind})' if kind else ''}"
        yield Node(f"Segment {text(item, 'SegmentNumber')}", f"{told}, {text(item, 'SegmentAlgorithmType').lower()}")


def _over_images(
    path: Path, header: Dataset, sources: Mapping[str, Path]
) -> tuple[list[NDArray[np.uint8]], list[Node]]:
    found = read_segmentation(path, sources)
    heading = (text(header, "SeriesDescription")[:64] or "Segmentation", text(header, "ContentDescription")[:64])
    count = len(found.views)
    nodes = [Node("Drawn", "1 image" if count == 1 else f"{count} images, the one with the largest area first")]
    if found.left_out:
        nodes.append(Node("Not drawn", f"{found.left_out} more images have marks"))
    if found.missing:
        nodes.append(Node("Not drawn", f"{found.missing} images that it refers to are not here"))
    return list(pages(found.group, found.views, heading, SINGLE if count == 1 else STACKED)), nodes


def _captured(path: Path) -> Iterator[NDArray[np.uint8]]:
    clip = read_clip(path)
    numbers = evenly_spaced(clip.frames, MOST_FRAMES)
    for number in numbers:  # one by one: a capture may be large
        pixels = read_frames(path, [number]).pixels[0]
        yield pixels if pixels.dtype == np.uint8 else np.asarray((pixels * 255 + 0.5).astype(np.uint8))


def _extract(path: Path, folder: Path) -> str:
    """The PDF inside, as it is; its length says where the padding begins."""
    dataset = read_dataset(path)
    content = value(dataset, "EncapsulatedDocument")
    if not isinstance(content, bytes) or not content.startswith(b"%PDF-"):
        raise Permanent("the object holds no PDF")
    length = value(dataset, "EncapsulatedDocumentLength")
    if isinstance(length, int) and len(content) - 1 <= length <= len(content):
        content = content[:length]
    (folder / "document.pdf").write_bytes(content)
    return "document.pdf"


def _presentation(header: Dataset) -> Iterator[Node]:
    yield Node("Presentation", f"{text(header, 'ContentLabel')} {text(header, 'ContentDescription')}".strip())
    for annotation in items(header, "GraphicAnnotationSequence")[:200]:
        texts = [text(one, "UnformattedTextValue") for one in items(annotation, "TextObjectSequence")[:50]]
        shapes = len(items(annotation, "GraphicObjectSequence"))
        yield Node(f"Layer {text(annotation, 'GraphicLayer')}", f"{shapes} shapes", tuple(Node("", t) for t in texts))
    yield Node("", "A viewer draws it on the images that it refers to.")
