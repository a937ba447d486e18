"""Weights of a bundle to a network that can be called: a state dict, a TorchScript program, an ONNX model.

In: the file, whose hash was checked, and the device. Out: a callable from a batch to its output. Never unpickles code:
a state dict loads with `weights_only=True`, TorchScript and ONNX hold operators of their own only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pacsnode.errors import Permanent

Network = Callable[[torch.Tensor], Any]

NESTED = ("state_dict", "model_state_dict", "model", "network", "net")
"""Under which files of training loops keep the weights, beside the optimizer's state."""
WRAPPED = "module."
"""What DataParallel puts before every name."""
ONNX_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def load_state(network: torch.nn.Module, path: Path, device: torch.device) -> torch.nn.Module:
    """The network with the weights of `path`, ready to run. Raises Permanent where they are another network's."""
    state = _state(torch.load(path, map_location=device, weights_only=True))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise Permanent(f"the weights do not belong to the network of the config: {lines[:300]}") from error
    return network.to(device).eval()


def _state(loaded: Any) -> Mapping[str, torch.Tensor]:
    """The names and weights of a file, out of what a training loop wrapped them in. Raises Permanent."""
    if not isinstance(loaded, Mapping):
        raise Permanent(f"the file of weights holds no state dict, but a {type(loaded).__name__}")
    for key in NESTED:
        if isinstance(loaded.get(key), Mapping):
            return _state(loaded[key])
    if loaded and all(str(name).startswith(WRAPPED) for name in loaded):
        return {name.removeprefix(WRAPPED): weight for name, weight in loaded.items()}
    return loaded


def load_torchscript(path: Path, device: torch.device) -> torch.nn.Module:
    """A TorchScript program. Raises Permanent where the file is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch advises its users to move on; a vendor's file is what it is
            network: torch.nn.Module = torch.jit.load(path, map_location=device)
    except (RuntimeError, ValueError) as error:
        raise Permanent(f"the file of weights is no TorchScript program: {str(error).splitlines()[0][:200]}") from error
    return network.eval()


class OnnxNetwork:
    """An ONNX model with one input. `device`: where it really runs, which is the CPU without a build for the GPU."""

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise Permanent(
                f"an ONNX model needs onnxruntime, which cannot be loaded ({error}); run: pip install 'pacsnode[ai]'"
            ) from error
        wanted = "CUDAExecutionProvider" if device.type == "cuda" else "CPUExecutionProvider"
        there = onnxruntime.get_available_providers()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=[wanted] if wanted in there else ["CPUExecutionProvider"]
            )
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "onnxruntime":
                raise
            raise Permanent(f"the file of weights is no ONNX model: {str(error).splitlines()[0][:200]}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in ONNX_TYPES:
            told = ", ".join(f"{one.name} ({one.type})" for one in inputs)
            raise Permanent(f"the node runs ONNX models with one input of decimal numbers; this one has {told}")
        self._input = inputs[0]
        self.device = torch.device("cuda" if self._session.get_providers()[0] == wanted != there[-1] else "cpu")

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """The first output, one item of the batch after the other where the model was exported for a fixed number."""
        values = np.ascontiguousarray(torch.Tensor.numpy(batch.detach().cpu()), dtype=ONNX_TYPES[self._input.type])
        fixed = self._input.shape[0] if self._input.shape else None
        step = fixed if isinstance(fixed, int) else len(values)
        pieces = [self._run(values[n : n + step]) for n in range(0, len(values), step)]
        return torch.from_numpy(np.concatenate(pieces)).to(batch.device)

    def _run(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self._session.run(None, {self._input.name: values})[0]
        return found
