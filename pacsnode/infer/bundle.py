"""MONAI bundles, loaded once and kept warm: a network by its config, or a BundleWorkflow class.

In: arrays as the readers give them, bright is dense. Out: labels on their grid, or probabilities. The node runs the
pieces of the config itself (`zoo`): no data loader, no ignite engine, no file written.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from pacsnode.infer.pictures import Picture, at_most, turned_round
from pacsnode.infer.scripts import PACKAGE, Scripts
from pacsnode.infer.served import ServedNetwork
from pacsnode.infer.weights import Network, OnnxNetwork, load_state, load_torchscript
from pacsnode.infer.zoo import AS_IT_IS, IMAGE, PREDICTION, Parts, read_parts

POLARITY_SIDE = 256
"""Pixels of the longest side of the copies on which the polarity is judged."""


@dataclass(frozen=True)
class Answer:
    """Of one picture: labels on its grid (`labels`), a probability for each class, or boxes on its grid, (column, row).

    `is_negative`: read so. `overlaid`: as in Group, where segments overlap. `probability_maps`: (segments, …) on the
    same grid, where they are kept. Of a volume, the third axis of `boxes` is the slice.
    """

    labels: NDArray[np.uint8] | None = None
    probabilities: tuple[float, ...] = ()
    is_negative: bool = False
    overlaid: tuple[NDArray[np.uint8], ...] = ()
    probability_maps: NDArray[np.uint8] | None = None
    boxes: tuple[Boxes, ...] = ()

    @property
    def maps(self) -> tuple[NDArray[np.uint8], ...]:
        """All label maps, none where there are no labels."""
        return () if self.labels is None else (self.labels, *self.overlaid)

    def on_grid(self, turn: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], *, is_negative: bool = False) -> Answer:
        """The same with `turn` done to all maps; it may only touch the last axes."""
        first, *others = map(turn, self.maps)
        kept = None if self.probability_maps is None else turn(self.probability_maps)
        return Answer(first, (), is_negative, tuple(others), kept)


class NetworkBundle:
    """A network bundle on one device, or on an inference server. `network_s`: seconds spent in the network, in all."""

    def __init__(self, service: Service, device: str) -> None:
        network, http = service.pipeline.network, service.pipeline.http
        self._service = service
        self._device = torch.device(device if http is None else "cpu")
        self.network_s = 0.0
        self.channels = _channels(service)
        self._scripts = Scripts(service.folder)
        with self._scripts:
            is_here = network is not None and network.format == "state-dict"
            self._parts: Parts = AS_IT_IS
            if service.config:
                self._parts = read_parts(service.folder, service.config, self._device, with_network=is_here)
            self._network: Network
            if http is not None:
                self._network = ServedNetwork(http, service.folder)
                return
            assert network is not None
            weights = service.folder / network.weights
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

    def ready(self) -> str:
        """Who computes the next job, for people, once an inference server says that it will. Raises Transient."""
        return self._network.look() if isinstance(self._network, ServedNetwork) else self.device

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
            return Answer(is_negative=is_negative, boxes=tuple(self._on_picture(one, block) for one in found.boxes))
        if found.labels is None:
            return Answer(None, found.probabilities, is_negative)
        rows, columns = picture.shape[:2]

        def whole(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
            turned = labels if self._parts.reading.rows_first else labels.swapaxes(-1, -2)
            return np.ascontiguousarray(turned.repeat(block, -2).repeat(block, -1)[..., :rows, :columns])

        return found.on_grid(whole, is_negative=is_negative)

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
        return found.on_grid(lambda labels: np.ascontiguousarray(labels.swapaxes(-1, -3)))

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
        result, segments = data[self._parts.result_key], len(pipeline.segments)
        first, *others = answers.labels(result, grid, segments)
        kept = answers.probability_maps(result, segments) if pipeline.keep_probabilities else None
        return Answer(first, overlaid=tuple(others), probability_maps=kept)


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

    def ready(self) -> str:
        """Who computes the next job, for people."""
        return self.device

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
    return WorkflowBundle(service, device) if service.pipeline.workflow is not None else NetworkBundle(service, device)


def pick_device(wanted: str) -> str:
    """`auto`: the GPU when there is one. Raises Permanent when `cuda` is asked for in vain."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise Permanent("PACSNODE_DEVICE is cuda, but torch finds no CUDA device; set it to auto or cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def describe_torch() -> str:
    """Version and device, for a person."""
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU only"
    return f"torch {torch.__version__}, {device}"
