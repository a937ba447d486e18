"""Bundles and images made for tests: a threshold as a network (1 x 1 convolution), a workflow that says as told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from ruamel.yaml import YAML

from pacsnode.infer.catalogue import hash_file

CT = "1.2.840.10008.5.1.4.1.1.2"
CR = "1.2.840.10008.5.1.4.1.1.1"

LUNG = {"value": "39607008", "scheme": "SCT", "meaning": "Lung"}
ANATOMY = {"value": "91723000", "scheme": "SCT", "meaning": "Anatomical Structure"}
AREA = {"value": "42798000", "scheme": "SCT", "meaning": "Area"}
VOLUME = {"value": "118565006", "scheme": "SCT", "meaning": "Volume"}

READING = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
]
WRITING = [
    {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    {"_target_": "SaveImaged", "keys": "pred", "output_dir": "nowhere"},
]


def segment(value: int = 1, label: str = "Lung", minimum_fraction: float = 0.0) -> dict[str, Any]:
    return {
        "value": value,
        "label": label,
        "category": ANATOMY,
        "type": LUNG,
        "color_rgb": [255, 0, 0],
        "minimum_fraction": minimum_fraction,
    }


SENSITIVITY = {
    "metric": "sensitivity",
    "of": "af",
    "value": 0.7,
    "data": "Made up for tests.",
    "cases": 10,
    "real_data": True,
}


def card(**changes: Any) -> dict[str, Any]:
    """The card of a pipeline.yaml."""
    texts = dict.fromkeys(("method", "training_data", "quality", "intended_use", "licence"), "For tests.")
    return texts | changes


def pipeline(**changes: Any) -> dict[str, Any]:
    """A pipeline.yaml that is right for a network on images; a change to None takes the key out."""
    plain: dict[str, Any] = {
        "version": 1,
        "name": "threshold",
        "title": "Threshold for tests",
        "status": "classical",
        "machine_learning": False,
        "input": "image",
        "procedure": {"value": "399208008", "scheme": "SCT", "meaning": "Plain chest X-ray"},
        "accepts": {"Modality": {"in": ["CR", "DX"]}},
        "limits": {"time_s": 60, "memory_mb": 3000},
        "network": {"weights": "models/model.pt", "sha256": "0" * 64},
        "card": card(),
        "segments": [segment()],
        "measurements": [{"method": "area", "of": [1], "name": AREA}],
    }
    return {k: v for k, v in (plain | changes).items() if v is not None}


def write_pipeline(folder: Path, plain: Mapping[str, Any]) -> Path:
    path = folder / "pipeline.yaml"
    with path.open("w") as file:
        YAML().dump(dict(plain), file)
    return path


def network_bundle(
    models: Path,
    *,
    dimensions: int = 2,
    threshold: float = 0.49,
    before: list[dict[str, Any]] | None = None,
    after: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> Path:
    """The folder of a bundle whose network marks with 1 what lies above `threshold`."""
    import torch

    folder = models / str(changes.get("name", "threshold"))
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    config = {
        "bundle_root": ".",
        "device": "cpu",
        "network_def": {
            "_target_": f"torch.nn.Conv{dimensions}d",
            "in_channels": 1,
            "out_channels": 2,
            "kernel_size": 1,
        },
        "preprocessing": {"_target_": "Compose", "transforms": READING + (before or [])},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": (after or []) + WRITING},
    }
    with (folder / "configs" / "inference.yaml").open("w") as file:
        YAML().dump(config, file)
    weight = torch.tensor([0.0, 1.0]).reshape((2, 1) + (1,) * dimensions)
    torch.save({"weight": weight, "bias": torch.tensor([threshold, 0.0])}, folder / "models" / "model.pt")
    network = {"weights": "models/model.pt", "sha256": hash_file(folder / "models" / "model.pt")}
    write_pipeline(folder, pipeline(**({"network": network} | changes)))
    return folder


WORKFLOW = """
from monai.bundle import BundleWorkflow
from .said import OUTPUTS, refuse

class Says(BundleWorkflow):
    def __init__(self):
        super().__init__(workflow_type="inference")
        self.inputs = {}
        self.outputs = {}
    def initialize(self):
        pass
    def run(self):
        refuse(self.inputs)
        self.outputs = OUTPUTS
    def finalize(self):
        pass
    def _get_property(self, name, property):
        return None
    def _set_property(self, name, property, value):
        return None
"""

HEART_RATE = {"key": "heart_rate", "name": {"value": "8867-4", "scheme": "LN", "meaning": "Heart rate"}}
FIBRILLATION = {"key": "af", "name": {"value": "49436004", "scheme": "SCT", "meaning": "Atrial fibrillation"}}


def workflow_bundle(models: Path, outputs: str, refuse: str = "pass", **changes: Any) -> Path:
    """The folder of a bundle whose workflow gives `outputs` (Python text), after the statement `refuse`."""
    folder = models / str(changes.get("name", "says"))
    (folder / "configs").mkdir(parents=True)
    (folder / "scripts").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    (folder / "scripts" / "__init__.py").write_text("")
    (folder / "scripts" / "workflow.py").write_text(WORKFLOW)
    write_said(folder, outputs, refuse)
    fixed = {
        "name": "says",
        "input": "waveform",
        "network": None,
        "workflow": {"class": "Says"},
        "segments": None,
        "measurements": [HEART_RATE],
        "evaluations": [FIBRILLATION],
    }
    write_pipeline(folder, pipeline(**(fixed | changes)))
    return folder


def write_said(folder: Path, outputs: str, refuse: str = "pass") -> None:
    (folder / "scripts" / "said.py").write_text(
        f"nan = float('nan')\nOUTPUTS = {outputs}\ndef refuse(inputs):\n    {refuse}\n"
    )


def image(pixels: NDArray[Any], sop_class_uid: str = CR, **attributes: Any) -> FileDataset:
    """An image with these stored values, grey, Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    dataset.Modality = "CR" if sop_class_uid == CR else "CT"
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        setattr(dataset, keyword, "")
    for keyword in ("AccessionNumber", "StudyID", "ReferringPhysicianName", "Manufacturer"):
        setattr(dataset, keyword, "")
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = dataset.BitsAllocated
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated == 16 else "OB"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
        if value is None:
            delattr(dataset, keyword)
    dataset.HighBit = dataset.BitsStored - 1
    return dataset


def saved(dataset: pydicom.Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def saved_image(folder: Path, pixels: NDArray[Any], **attributes: Any) -> Path:
    """A file in `folder` with these stored values."""
    return saved(image(pixels, **attributes), folder / f"{generate_uid()}.dcm")


def gradient(rows: int = 40, columns: int = 60, dtype: str = "uint16", top: int = 4000) -> NDArray[Any]:
    """Darker left, brighter right, with no two columns alike."""
    ramp = np.linspace(0, top, columns).round().astype(dtype)
    return np.repeat(ramp[None], rows, axis=0)


README = """# For tests

Not for diagnosis.

## Intended use
Tests.

## Training data
None.

## Quality
Not measured.

## Limits
All.
"""


def with_card(folder: Path) -> Path:
    """A bundle with what `models check` wants beside pipeline.yaml."""
    (folder / "docs").mkdir(exist_ok=True)
    (folder / "docs" / "README.md").write_text(README)
    (folder / "LICENSE").write_text("Apache-2.0\n")
    return folder
