"""MONAI bundles, loaded once and kept warm: a network by its configs/inference.yaml, or a BundleWorkflow class.

The runner takes the pieces of the config (preprocessing, network, inferer, postprocessing) and runs them itself:
no data loader, no ignite engine, no file written. Weights load with `weights_only=True`.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from monai.bundle import BundleWorkflow, ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from numpy.typing import NDArray

from pacsnode.errors import Permanent
from pacsnode.infer.catalogue import Service

DROPPED = ("LoadImaged", "EnsureChannelFirstd", "SaveImaged")
"""The node reads the image and writes the result itself."""


class SegmentationModel(Protocol):
    """A network that gives a label map on the grid of its input."""

    def label_map(self, intensity: NDArray[np.float32]) -> NDArray[np.uint8]:
        """(rows, columns) 0 to 1 in, (rows, columns) labels out."""


class NetworkBundle:
    """A network bundle on one device."""

    def __init__(self, service: Service, device: str) -> None:
        network = service.pipeline.network
        assert network is not None
        parser = ConfigParser()
        parser.read_config(str(service.folder / "configs" / "inference.yaml"))
        parser["bundle_root"] = str(service.folder)
        parser["device"] = device
        self._device = torch.device(device)
        self.network_s = 0.0
        """Seconds spent in the network itself, in all."""
        self._before = _without_files(parser.get_parsed_content("preprocessing"))
        self._after = _without_files(parser.get_parsed_content("postprocessing"))
        self._inferer = parser.get_parsed_content("inferer")
        self._network = parser.get_parsed_content("network_def").to(self._device)
        state = torch.load(service.folder / network.weights, map_location=self._device, weights_only=True)
        self._network.load_state_dict(state)
        self._network.eval()

    def label_map(self, intensity: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Run the whole chain on one image. Raises Permanent when the output is not a label map on the image's grid."""
        with torch.inference_mode():
            data: dict[str, Any] = self._before({"image": MetaTensor(torch.from_numpy(intensity)[None])})
            batch = data["image"][None].to(self._device)
            begun = time.perf_counter()
            logits = self._inferer(batch, self._network)[0].cpu()
            self.network_s += time.perf_counter() - begun
            if not torch.isfinite(logits).all():
                raise Permanent("the model's output is not a number (NaN or infinity)")
            data["pred"] = logits
            labels = np.asarray(self._after(data)["pred"].cpu())
        if labels.shape != (1, *intensity.shape):
            raise Permanent(f"the model's mask has shape {labels.shape}, expected {(1, *intensity.shape)}")
        if not np.isfinite(labels).all():
            raise Permanent("the model's mask is not a number (NaN or infinity)")
        return np.asarray(labels[0], dtype=np.uint8)


class WorkflowBundle:
    """A published algorithm as a BundleWorkflow class."""

    def __init__(self, service: Service) -> None:
        assert service.pipeline.workflow is not None
        module = _load_scripts(service)
        made = getattr(module, service.pipeline.workflow.class_, None)
        if not (isinstance(made, type) and issubclass(made, BundleWorkflow)):
            raise Permanent(f"scripts/workflow.py has no BundleWorkflow {service.pipeline.workflow.class_}")
        self.network_s = 0.0
        """Seconds spent in the algorithm itself, in all."""
        self._workflow: Any = made()
        self._workflow.initialize()

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run on one input; ValueError of the workflow is the reason that a person reads."""
        self._workflow.inputs = dict(inputs)
        begun = time.perf_counter()
        try:
            self._workflow.run()
        except ValueError as error:
            raise Permanent(str(error)) from error
        self.network_s += time.perf_counter() - begun
        outputs: Mapping[str, Any] = self._workflow.outputs
        return outputs


Bundle = NetworkBundle | WorkflowBundle


def load_bundle(service: Service, device: str) -> Bundle:
    """Load one service's model."""
    return NetworkBundle(service, device) if service.pipeline.network is not None else WorkflowBundle(service)


def pick_device(wanted: str) -> str:
    """`auto`: the GPU when there is one. Raises Permanent when `cuda` is asked for in vain."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise Permanent("PACSNODE_DEVICE is cuda, but torch finds no CUDA device; set it to auto or cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def describe_torch() -> str:
    """Version and device, for a person."""
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU only"
    return f"torch {torch.__version__}, {device}"


def _without_files(chain: Compose) -> Compose:
    return Compose([t for t in chain.transforms if type(t).__name__ not in DROPPED])


def _load_scripts(service: Service) -> ModuleType:
    """scripts/ as a package under a name of its own: two bundles may both call theirs `scripts`."""
    name = f"pacsnode_bundle_{service.name.replace('-', '_')}"
    package = ModuleType(name)
    package.__path__ = [str(service.folder / "scripts")]
    sys.modules[name] = package
    return importlib.import_module(f"{name}.workflow")
