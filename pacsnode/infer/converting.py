"""One object in another transfer syntax: decompressed, or the same values encoded otherwise. Runs in the compute child.

In: a Part 10 file, Explicit or Implicit VR Little Endian. Out: another file with the same SOP Instance UID. No value of
a pixel changes: nothing is compressed, no colour is converted to another that would round it.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pacsnode.errors import Permanent
from pacsnode.infer.decoding import plugins_for, read_layout, refuse_contradictions, syntax_uid
from pacsnode.infer.headers import DAMAGED, items, one_line, read_dataset

TARGETS = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def convert(source: Path, transfer_syntax_uid: str, target: Path) -> None:
    """Write `source` to `target` in that transfer syntax. Raises Permanent where that cannot be without loss."""
    if transfer_syntax_uid not in TARGETS:
        raise Permanent(f"nothing is written in {UID(transfer_syntax_uid).name}: that would compress it")
    dataset = read_dataset(source)
    stored = UID(syntax_uid(dataset))
    if stored == ExplicitVRBigEndian or stored.is_private:
        raise Permanent(f"the node does not convert {stored.name}")
    with warnings.catch_warnings():  # they would put its values, names too, into the log
        warnings.simplefilter("ignore")
        try:
            if stored.is_encapsulated:
                _decompress(dataset)
            dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
            is_implicit = transfer_syntax_uid == ImplicitVRLittleEndian
            dataset.save_as(target, implicit_vr=is_implicit, little_endian=True, enforce_file_format=True)
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk, not the data
            raise Permanent(f"it cannot be converted from {stored.name}: {one_line(error)}") from error


def _decompress(dataset: Dataset) -> None:
    """In place. Raises Permanent, and what the decoders raise."""
    icons = items(dataset, "IconImageSequence")
    if any("PixelData" in icon and icon["PixelData"].is_undefined_length for icon in icons):
        raise Permanent("it holds a compressed icon")
    layout = read_layout(dataset)
    refuse_contradictions(dataset, layout)
    *others, last = plugins_for(dataset)
    for plugin in others:
        with suppress(*DAMAGED):
            dataset.decompress(as_rgb=False, generate_instance_uid=False, decoding_plugin=plugin)
            break
    else:
        dataset.decompress(as_rgb=False, generate_instance_uid=False, decoding_plugin=last)
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):  # of compressed frames alone
        if keyword in dataset:
            del dataset[keyword]
