"""MONAI bundles, loaded once and kept warm: a network by its config, or a BundleWorkflow class.

In: arrays as the readers give them, bright is dense. Out: labels on their grid, or probabilities. The node runs the
pieces of the config itself (`zoo`): no data loader, no ignite engine, no file written.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.bundle import BundleWorkflow
from monai.data import MetaTensor
from numpy.typing import NDArray

from pacsnode.errors import Permanent
from pacsnode.infer import answers
from pacsnode.infer.catalogue import METADATA_FILE, Service
from pacsnode.infer.detection import Boxes, boxes_of, on_source
from pacsnode.infer.scripts import PACKAGE, Scripts
from pacsnode.infer.weights import Network, OnnxNetwork, load_state, load_torchscript
from pacsnode.infer.zoo import IMAGE, PREDICTION, Parts, read_parts

POLARITY_SIDE = 256
"""Pixels of the longest side of the copies on which the polarity is judged."""

Picture = NDArray[np.float32]
"""(rows, columns), 0 to 1, or (rows, columns, 3), RGB, 0 to 255."""


@dataclass(frozen=True)
class Answer:
    """Of one picture: labels on its grid (`labels`), a probability for each class, or boxes on its grid, (column, row).

    `is_negative`: read so. Of a volume, the third axis of `boxes` is the slice.
    """

    labels: NDArray[np.uint8] | None = None
    probabilities: tuple[float, ...] = ()
    is_negative: bool = False
    boxes: tuple[Boxes, ...] = ()


class NetworkBundle:
    """A network bundle on one device. `network_s`: seconds spent in the network itself, in all."""

    def __init__(self, service: Service, device: str) -> None:
        network = service.pipeline.network
        assert network is not None
        self._service = service
        self._device = torch.device(device)
        self.network_s = 0.0
        self.channels = _channels(service)
        self._scripts = Scripts(service.folder)
        weights = service.folder / network.weights
        with self._scripts:
            has_its_own = network.format != "state-dict"
            self._parts: Parts = read_parts(service.folder, service.config, self._device, with_network=not has_its_own)
            self._network: Network
            if network.format == "onnx":
                onnx = OnnxNetwork(weights, self._device)
                self._device, self._network = onnx.device, onnx
            elif network.format == "torchscript":
                self._network = load_torchscript(weights, self._device)
            else:
                assert self._parts.network is not None
                self._network = load_state(self._parts.network, weights, self._device)

    @property
    def device(self) -> str:
        """Where the network really runs."""
        return str(self._device.type)

    @property
    def reading(self) -> tuple[tuple[str, ...], bool]:
        """The keys that the config loads, and whether it brings several inputs to one grid itself."""
        return self._parts.reading.keys, self._parts.reading.resamples

    def pictures(self, pictures: Sequence[Picture]) -> list[Answer | Permanent]:
        """An answer for each, or why there is none; pictures of one size go through the network together."""
        pipeline = self._service.pipeline
        reduced = [at_most(one, pipeline.longest_side or max(one.shape[:2])) for one in pictures]
        negative = self._negatives([one for one, _ in reduced]) if pipeline.polarity_check else [False] * len(reduced)
        read = [
            self._input(turned_round(one) if turned else one)
            for (one, _), turned in zip(reduced, negative, strict=True)
        ]
        with self._scripts:
            runs = self._run(read)
            return [
                self._picture(run, picture, block, turned)
                for run, picture, (_, block), turned in zip(runs, pictures, reduced, negative, strict=True)
            ]

    def _picture(
        self, run: dict[str, Any] | Permanent, picture: Picture, block: int, is_negative: bool
    ) -> Answer | Permanent:
        if isinstance(run, Permanent):
            return run
        try:
            found = self._answer(run, answers.Grid(tuple(run[_SHAPE])))
        except Permanent as error:
            return error
        if found.boxes:
            return Answer(None, (), is_negative, tuple(self._on_picture(one, block) for one in found.boxes))
        if found.labels is None:
            return Answer(None, found.probabilities, is_negative)
        labels = found.labels if self._parts.reading.rows_first else found.labels.T
        rows, columns = picture.shape[:2]
        whole = labels.repeat(block, 0).repeat(block, 1)[:rows, :columns]
        return Answer(np.ascontiguousarray(whole), (), is_negative)

    def _on_picture(self, boxes: Boxes, block: int) -> Boxes:
        """(column, row) on the picture before it was reduced by whole blocks."""
        corners = boxes.corners if not self._parts.reading.rows_first else boxes.corners[:, [1, 0, 3, 2]]
        return replace(boxes, corners=corners * block)

    def volume(self, volumes: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float64]]]) -> Answer:
        """Of (slices, rows, columns) arrays with their affines (as in Volume): labels on the grid of the first.

        One volume goes in under the config's own key. Several go in by their roles where the config loads them so, else
        as channels of one image in their order. In between the network has what MONAI's readers give it: (channels,
        columns, rows, slices), affine to RAS. Raises Permanent.
        """
        first, affine = next(iter(volumes.values()))
        keys = self._parts.reading.keys
        inputs = {role: _volume_input([one], its) for role, (one, its) in volumes.items()}
        if len(volumes) == 1 or not set(volumes) & set(keys):
            inputs = {self._parts.reading.image_key: _volume_input([one for one, _ in volumes.values()], affine)}
        with self._scripts:
            (run,) = self._run([inputs])
            if isinstance(run, Permanent):
                raise run
            found = self._answer(run, answers.Grid(first.shape[::-1], affine))
        if found.labels is None:
            return found
        return Answer(np.ascontiguousarray(found.labels.transpose(2, 1, 0)))

    def _input(self, picture: Picture) -> dict[str, MetaTensor]:
        channels_first = picture[None] if picture.ndim == 2 else np.moveaxis(picture, 2, 0)
        if not self._parts.reading.rows_first:
            channels_first = channels_first.swapaxes(1, 2)
        tensor = torch.from_numpy(np.ascontiguousarray(channels_first, dtype=np.float32))
        return {self._parts.reading.image_key: MetaTensor(tensor)}

    def _negatives(self, pictures: Sequence[Picture]) -> list[bool]:
        """Whether the network is surer of the negative: by the mean probability of its most probable class."""
        small = [at_most(one, POLARITY_SIDE)[0] for one in pictures]
        with self._scripts:
            sure = [
                -1.0 if isinstance(run, Permanent) else float(torch.softmax(run[_OUTPUT], 0).amax(0).mean())
                for run in self._run([self._input(one) for one in (*small, *map(turned_round, small))])
            ]
        return [negative > given for given, negative in zip(sure[: len(small)], sure[len(small) :], strict=True)]

    def _run(self, inputs: Sequence[Mapping[str, MetaTensor]]) -> list[dict[str, Any] | Permanent]:
        """Preprocessing and network; neighbours of one shape are one batch, of the size in the card at most."""
        most = self._service.pipeline.limits.batch
        done: list[dict[str, Any] | Permanent] = []
        waiting: list[dict[str, Any]] = []
        with torch.inference_mode():
            for one in inputs:
                shape = next(iter(one.values())).shape[1:]
                data: dict[str, Any] = dict(self._parts.before(dict(one))) | {_SHAPE: shape}
                if waiting and (len(waiting) == most or self._of(data).shape != self._of(waiting[0]).shape):
                    done += self._forward(waiting)
                    waiting = []
                waiting.append(data)
            if waiting:
                done += self._forward(waiting)
        return done

    def _forward(self, waiting: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any] | Permanent]:
        batch = torch.stack([self._of(data).as_subclass(torch.Tensor) for data in waiting]).to(self._device)
        begun = time.perf_counter()
        given = self._parts.inferer(batch, self._network)
        if self._service.pipeline.regions:
            found = boxes_of(given, len(waiting), batch.ndim - 2)
            self.network_s += time.perf_counter() - begun
            yield from (data | {_OUTPUT: one} for data, one in zip(waiting, found, strict=True))
            return
        outputs = _first_tensor(given).cpu()
        self.network_s += time.perf_counter() - begun
        if len(outputs) != len(waiting):
            raise Permanent(f"the model gave {len(outputs)} answers to {len(waiting)} inputs")
        for data, output in zip(waiting, outputs, strict=True):
            if torch.isfinite(output).all():
                yield data | {_OUTPUT: output.clone() if len(waiting) > 1 else output}
            else:
                yield Permanent(answers.NOT_FINITE)

    def _of(self, data: Mapping[str, Any]) -> torch.Tensor:
        """What the network reads: `image`, maybe joined from several inputs, or the one input that is loaded."""
        key = IMAGE if IMAGE in data else self._parts.reading.image_key
        if not isinstance(data.get(key), torch.Tensor):
            raise Permanent(f"the bundle's preprocessing gives no {key} for the network")
        image: torch.Tensor = data[key]
        return image

    def _answer(self, run: dict[str, Any], grid: answers.Grid) -> Answer:
        """What the service's pipeline.yaml makes of the output. Raises Permanent."""
        pipeline = self._service.pipeline
        if pipeline.regions:
            return Answer(boxes=(on_source(run[_OUTPUT], self._of(run), grid.affine),))
        if pipeline.classification is not None:
            return Answer(None, answers.probabilities(run[_OUTPUT], pipeline.classification))
        image, output = self._of(run), run.pop(_OUTPUT)
        is_placed = isinstance(image, MetaTensor)
        data = run | {PREDICTION: MetaTensor(output, meta=image.meta) if is_placed else output}
        if self._parts.after is not None:
            with torch.inference_mode():
                data = self._parts.after(data)
        if self._parts.result_key not in data:
            raise Permanent(f"the bundle's postprocessing gives no {self._parts.result_key}")
        return Answer(answers.labels(data[self._parts.result_key], grid, len(pipeline.segments)))


_OUTPUT, _SHAPE = "_output", "_shape"
"""Keys beside those of the bundle: the network's output, the shape of the source without channels."""


def _first_tensor(output: Any) -> torch.Tensor:
    """Some networks give their auxiliary outputs too, after the one that counts."""
    if isinstance(output, Mapping):
        output = next(iter(output.values()))
    while isinstance(output, list | tuple):
        output = output[0]
    return output.as_subclass(torch.Tensor)


def _volume_input(arrays: Sequence[NDArray[np.float32]], affine: NDArray[np.float64]) -> MetaTensor:
    """(channels, columns, rows, slices) of (slices, rows, columns) arrays on one grid; a view of a single one."""
    turned = [torch.from_numpy(one.transpose(2, 1, 0)) for one in arrays]
    voxels = turned[0][None] if len(turned) == 1 else torch.stack(turned)
    meta = {"original_affine": affine, "spatial_shape": np.array(voxels.shape[1:]), "space": "RAS"}
    return MetaTensor(voxels, affine=torch.from_numpy(affine), meta=meta)


def _channels(service: Service) -> int | None:
    """Of the network's input as metadata.json states them; None where it does not."""
    metadata = json.loads((service.folder / METADATA_FILE).read_text(encoding="utf-8"))
    try:
        inputs = metadata["network_data_format"]["inputs"]
        stated = next(iter(inputs.values()))["num_channels"]
    except (KeyError, TypeError, AttributeError, StopIteration):
        return None
    return stated if isinstance(stated, int) else None


def turned_round(picture: Picture) -> Picture:
    """The negative."""
    return np.float32(1 if picture.ndim == 2 else 255) - picture


def at_most(picture: Picture, side: int) -> tuple[Picture, int]:
    """(rows, columns …) reduced by the mean of blocks to at most `side`, and the block; the last blocks may be cut."""
    rows, columns = picture.shape[:2]
    block = -(-max(rows, columns) // side)
    if block == 1:
        return picture, block
    beside = ((0, 0),) * (picture.ndim - 2)
    edged = np.pad(picture, ((0, -rows % block), (0, -columns % block), *beside), mode="edge")
    summed = sum(edged[row::block, column::block] for row in range(block) for column in range(block))
    return np.asarray(summed / np.float32(block * block), dtype=np.float32), block


class WorkflowBundle:
    """A published algorithm as a BundleWorkflow class. `network_s`: seconds spent in the algorithm, in all."""

    def __init__(self, service: Service, device: str = "cpu") -> None:
        wanted = service.pipeline.workflow
        assert wanted is not None
        self.device = device
        self.network_s = 0.0
        self._scripts = Scripts(service.folder)
        with self._scripts:
            made = getattr(importlib.import_module(f"{PACKAGE}.workflow"), wanted.class_, None)
            if not (isinstance(made, type) and issubclass(made, BundleWorkflow)):
                raise Permanent(f"scripts/workflow.py has no BundleWorkflow {wanted.class_}")
            self._workflow: Any = made()
            self._workflow.initialize()

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run on one input; ValueError of the workflow is the reason that a person reads."""
        begun = time.perf_counter()
        with self._scripts:
            self._workflow.inputs = dict(inputs)
            try:
                self._workflow.run()
            except ValueError as error:
                raise Permanent(str(error)) from error
            outputs: Mapping[str, Any] = self._workflow.outputs
        self.network_s += time.perf_counter() - begun
        return outputs


Bundle = NetworkBundle | WorkflowBundle


def load_bundle(service: Service, device: str) -> Bundle:
    """Load one service's model."""
    return NetworkBundle(service, device) if service.pipeline.network is not None else WorkflowBundle(service, device)


def pick_device(wanted: str) -> str:
    """`auto`: the GPU when there is one. Raises Permanent when `cuda` is asked for in vain."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise Permanent("PACSNODE_DEVICE is cuda, but torch finds no CUDA device; set it to auto or cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def describe_torch() -> str:
    """Version and device, for a person."""
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU only"
    return f"torch {torch.__version__}, {device}"
