"""MONAI bundles, loaded once and kept warm: a network by its config, or a BundleWorkflow class.

The runner takes the pieces of the config (preprocessing, network, inferer, postprocessing) and runs them itself:
no data loader, no ignite engine, no file written. Weights load with `weights_only=True`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import torch
from monai.bundle import BundleWorkflow, ConfigParser
from monai.data import MetaTensor
from numpy.typing import NDArray

from pacsnode.errors import Permanent
from pacsnode.infer.catalogue import Service

DROPPED = ("LoadImaged", "EnsureChannelFirstd", "SaveImaged")
"""The node reads the image and writes the result itself."""

POLARITY_SIDE = 256
"""Pixels of the longest side of the copies on which the polarity is judged."""
PRIVATE_PACKAGE = "pacsnode_bundle_"


class NetworkBundle:
    """A network bundle on one device."""

    def __init__(self, service: Service, device: str) -> None:
        network = service.pipeline.network
        assert network is not None
        parser = ConfigParser()
        parser.read_config(str(service.folder / service.config))
        parser["bundle_root"] = str(service.folder)
        parser["device"] = device
        self._device = torch.device(device)
        self.network_s = 0.0
        """Seconds spent in the network itself, in all."""
        for chain in ("preprocessing", "postprocessing"):
            parser[chain] = _without_files(parser.get(chain))
        self._before = parser.get_parsed_content("preprocessing")
        self._after = parser.get_parsed_content("postprocessing")
        self._inferer = parser.get_parsed_content("inferer")
        self._network = parser.get_parsed_content("network_def").to(self._device)
        state = torch.load(service.folder / network.weights, map_location=self._device, weights_only=True)
        self._network.load_state_dict(state)
        self._network.eval()
        self._longest_side = service.pipeline.longest_side
        self._polarity_check = service.pipeline.polarity_check

    def label_map(self, intensity: NDArray[np.float32]) -> tuple[NDArray[np.uint8], bool]:
        """(rows, columns) 0 to 1 in, labels on the same grid out, and if the negative was read. Raises Permanent."""
        reduced, block = at_most(intensity, self._longest_side or max(intensity.shape))
        is_negative = self._polarity_check and self._is_negative(reduced)
        data = self._run(_tensor(1 - reduced if is_negative else reduced))
        labels = self._finished(data, (1, *reduced.shape))
        return labels.repeat(block, 0).repeat(block, 1)[: intensity.shape[0], : intensity.shape[1]], is_negative

    def _is_negative(self, intensity: NDArray[np.float32]) -> bool:
        """Whether the network is surer of the negative: by the mean probability of its most probable class."""
        small, _ = at_most(intensity, POLARITY_SIDE)
        given, negative = (self._run(_tensor(picture))["pred"] for picture in (small, 1 - small))
        return bool(torch.softmax(negative, 0).amax(0).mean() > torch.softmax(given, 0).amax(0).mean())

    def volume_label_map(self, intensity: NDArray[np.float32], affine: NDArray[np.float64]) -> NDArray[np.uint8]:
        """(slices, rows, columns) in, labels on the same grid out; `affine` as in Volume. Raises Permanent.

        In between the network has what MONAI's readers give it: (1, columns, rows, slices), affine to RAS.
        """
        meta = {"original_affine": affine, "spatial_shape": np.array(intensity.shape[::-1]), "space": "RAS"}
        voxels = torch.from_numpy(np.ascontiguousarray(intensity.transpose(2, 1, 0)))[None]
        image = MetaTensor(voxels, affine=torch.from_numpy(affine), meta=meta)
        labels = self._finished(self._run(image), tuple(image.shape))
        return np.ascontiguousarray(labels.transpose(2, 1, 0))

    def _run(self, image: MetaTensor) -> dict[str, Any]:
        """Preprocessing and network. Raises Permanent when the network's output is not finite."""
        with torch.inference_mode():
            data: dict[str, Any] = self._before({"image": image})
            batch = data["image"][None].to(self._device)
            begun = time.perf_counter()
            logits = self._inferer(batch, self._network)[0].cpu()
            self.network_s += time.perf_counter() - begun
        if not torch.isfinite(logits).all():
            raise Permanent("the model's output is not a number (NaN or infinity)")
        return data | {"pred": logits}

    def _finished(self, data: dict[str, Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Postprocessing. Raises Permanent when the output is not a label map on the image's grid."""
        with torch.inference_mode():
            labels = np.asarray(self._after(data)["pred"].cpu())
        if labels.shape != shape:
            raise Permanent(f"the model's mask has shape {labels.shape}, expected {shape}")
        with np.errstate(invalid="ignore"):
            whole = labels.astype(np.uint8)
        # NaN, fractions, negative numbers and those above 255 all differ after the cast.
        if not np.array_equal(whole, labels):
            raise Permanent("the model's mask does not hold labels (whole numbers from 0 to 255)")
        return np.asarray(whole[0])


def _tensor(intensity: NDArray[np.float32]) -> MetaTensor:
    return MetaTensor(torch.from_numpy(intensity)[None])


def at_most(intensity: NDArray[np.float32], side: int) -> tuple[NDArray[np.float32], int]:
    """(rows, columns) reduced by the mean of blocks to at most `side`, and the block; the last blocks may be cut."""
    block = -(-max(intensity.shape) // side)
    if block == 1:
        return intensity, block
    rows, columns = intensity.shape
    edged = np.pad(intensity, ((0, -rows % block), (0, -columns % block)), mode="edge")
    summed = sum(edged[row::block, column::block] for row in range(block) for column in range(block))
    return np.asarray(summed / np.float32(block * block), dtype=np.float32), block


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


def _without_files(chain: Any) -> Any:
    """A chain's config with what touches files made harmless, before MONAI makes it: making LoadImaged already looks
    for every reader's library and warns. The places in the list stay, for other parts may refer to them.
    """
    if not isinstance(chain, Mapping) or not isinstance(chain.get("transforms"), list):
        return chain
    kept = []
    for transform in chain["transforms"]:
        target = str(transform.get("_target_", "")) if isinstance(transform, Mapping) else ""
        dropped = target.rpartition(".")[2] in DROPPED
        kept.append({"_target_": "Identityd", "keys": transform["keys"]} if dropped else transform)
    return dict(chain) | {"transforms": kept}


class _FromSource(SourceFileLoader):
    """Compiles the file that was hashed: __pycache__ is in no hash, and is neither read nor written."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Scripts:
    """Finds the modules of the loaded bundles' scripts/ (a finder of sys.meta_path)."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if not package.startswith(PRIVATE_PACKAGE) or not path:
            return None
        folder = Path(path[0]) / name
        for file, inside in ((folder / "__init__.py", [str(folder)]), (folder.with_suffix(".py"), None)):
            if file.is_file():
                loader = _FromSource(fullname, str(file))
                return importlib.util.spec_from_file_location(
                    fullname, file, loader=loader, submodule_search_locations=inside
                )
        return None


def _load_scripts(service: Service) -> ModuleType:
    """scripts/ as a package under a name of its own: two bundles may both call theirs `scripts`."""
    name = PRIVATE_PACKAGE + service.name.replace("-", "_")
    for loaded in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        del sys.modules[loaded]  # an older version of the bundle
    if _Scripts not in sys.meta_path:
        sys.meta_path.insert(0, _Scripts)
    package = ModuleType(name)
    package.__path__ = [str(service.folder / "scripts")]
    sys.modules[name] = package
    return importlib.import_module(f"{name}.workflow")
