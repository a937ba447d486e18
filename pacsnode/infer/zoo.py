"""The config of a MONAI bundle to its parts: preprocessing, network, inferer, postprocessing. Never edits the bundle.

In: a config as the model zoo writes them (JSON or YAML), with ids and keys of its own. Out: Parts, made by MONAI's own
parser. What touches files (loading, saving) is made harmless before MONAI makes it; data sets, loaders, engines and
handlers are never made, so that no path of the author's machine is opened and no worker process started.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.inferers import SimpleInferer

from pacsnode.errors import Permanent
from pacsnode.infer.catalogue import read_metadata
from pacsnode.infer.resample import quickened

BEFORE = ("preprocessing", "pre_transforms", "preprocess", "preprocessing_transforms", "dataset::transform")
AFTER = ("postprocessing", "post_transforms", "postprocess", "evaluator::postprocessing")
NETWORK = ("network", "network_def", "net", "model", "evaluator::network")
INFERER = ("inferer", "evaluator::inferer")
"""Ids by which bundles call their parts, the usual one first."""

CHANNELS_FIRST = ("EnsureChannelFirstd", "AsChannelFirstd", "AddChanneld")
"""What the node gives has its channels first already; the two old ones are not in MONAI any more."""
ON_GRIDS = "ResampleToMatchd"
IMAGE, PREDICTION = "image", "pred"
LARGEST = "pacsnode.infer.discrete.Largestd"
OF_LARGEST = {"_target_", "keys", "argmax", "allow_missing_keys"}
"""The step of the zoo that takes longest on a large CT is replaced by one that gives the same, if it says no more."""
NOT_AN_INPUT = ("label", "seg", "mask")


@dataclass(frozen=True)
class Reading:
    """How the config reads its input. `keys`: all that it loads, in order; `image_key`: that of a single input.

    `rows_first`: 2-D arrays are (rows, columns); MONAI's readers give (columns, rows) unless they are told otherwise.
    `resamples`: several inputs are brought to one grid by the config itself.
    """

    keys: tuple[str, ...] = (IMAGE,)
    rows_first: bool = False
    resamples: bool = False

    @property
    def image_key(self) -> str:
        """Of the image: not of the label that some configs load beside it."""
        inputs = [key for key in self.keys if not key.casefold().startswith(NOT_AN_INPUT)] or list(self.keys)
        return IMAGE if IMAGE in inputs else inputs[0]


@dataclass(frozen=True)
class Parts:
    """What the node runs of a bundle. `network` is None where the weights bring their own (TorchScript, ONNX)."""

    before: Any
    network: torch.nn.Module | None
    inferer: Any
    after: Any
    reading: Reading = field(default_factory=Reading)
    result_key: str = PREDICTION


AS_IT_IS = Parts(lambda data: data, None, SimpleInferer(), None, Reading(rows_first=True))
"""Without a config: the network reads an image as the node does, (channels, rows, columns), and gives its labels."""


def read_parts(folder: Path, config: str, device: torch.device, *, with_network: bool) -> Parts:
    """The parts of the bundle in `folder`. Raises Permanent where one is missing."""
    parser = ConfigParser()
    parser.read_config(str(folder / config))
    before = _first(parser, BEFORE)
    if before is None:
        raise Permanent(f"{config} has no preprocessing (looked for {', '.join(BEFORE)})")
    reading = _reading(parser, before)
    result_key = _result_key(parser)
    harmless = _harmless(parser.get(), frozenset(reading.keys) - {reading.image_key})
    parser.set(config=harmless | {"_meta_": read_metadata(folder)})
    parser["bundle_root"] = str(folder)
    parser["device"] = device
    network_id = _first(parser, NETWORK)
    if with_network and network_id is None:
        raise Permanent(f"{config} has no network (looked for {', '.join(NETWORK)})")
    after, inferer = _first(parser, AFTER), _first(parser, INFERER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's hints at renamed arguments are for the bundle's author
        parts = Parts(
            parser.get_parsed_content(before),
            parser.get_parsed_content(network_id) if with_network else None,
            parser.get_parsed_content(inferer) if inferer else SimpleInferer(),
            parser.get_parsed_content(after) if after else None,
            reading,
            result_key,
        )
    quickened(parts.before, parts.after)
    return parts


def _first(parser: Any, ids: Sequence[str]) -> str | None:
    """The first of `ids` that the config has, and has not emptied."""
    return next((one for one in ids if one in parser and parser.get(one) is not None), None)


def _transforms(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every part of a config that names a class, in its order."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from _transforms(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _transforms(value)


def _name(transform: Mapping[str, Any]) -> str:
    """The class without its module; MONAI has three names for each: LoadImaged, LoadImageD, LoadImageDict."""
    name = str(transform["_target_"]).rpartition(".")[2]
    for ending in ("Dict", "D"):
        if name.endswith(ending) and len(name) > len(ending):
            return name.removesuffix(ending) + "d"
    return name


def _is_loading(transform: Mapping[str, Any]) -> bool:
    return _name(transform).startswith("Load") and _name(transform).endswith("d")


def _is_saving(transform: Mapping[str, Any]) -> bool:
    return _name(transform).startswith("Save") and _name(transform).endswith("d")


def _reading(parser: Any, before: str) -> Reading:
    """By the chain of preprocessing, or the whole config where that chain only refers to other parts."""
    chain = list(_transforms(parser.get(before)))
    loads = [t for t in chain if _is_loading(t)] or [t for t in _transforms(parser.get()) if _is_loading(t)]
    if not loads:
        return Reading()
    keys = tuple(dict.fromkeys(key for load in loads for key in _keys(parser, load)))
    first = loads[0]
    reader = str(first.get("reader", "")).rpartition(".")[2].casefold()
    rows_first = first.get("swap_ij") is False
    if isinstance(first.get("reverse_indexing"), bool):  # of two readers, with opposite meanings
        rows_first = first["reverse_indexing"] == (reader == "itkreader")
    return Reading(keys or (IMAGE,), rows_first, any(_name(t) == ON_GRIDS for t in chain))


def _keys(parser: Any, transform: Mapping[str, Any]) -> tuple[str, ...]:
    keys = transform.get("keys", ())
    if isinstance(keys, str) and keys.startswith("@"):
        keys = parser.get(keys[1:], ())
    if isinstance(keys, str):
        return () if keys.startswith("$") else (keys,)
    return tuple(key for key in keys if isinstance(key, str))


def _result_key(parser: Any) -> str:
    """What the bundle saves is its result; without a step that saves, it is what engines call the prediction."""
    after = _first(parser, AFTER)
    saved = [
        key for t in _transforms(parser.get(after) if after else None) if _is_saving(t) for key in _keys(parser, t)
    ]
    return saved[0] if saved and PREDICTION not in saved else PREDICTION


def _harmless(node: Any, missing: frozenset[str]) -> Any:
    """The config without what touches files or the network; its lists keep their places, for others refer to them.

    `missing`: keys that only exist in training; steps over several keys pass them by.
    """
    if isinstance(node, list | tuple):
        return [_harmless(value, missing) for value in node]
    if not isinstance(node, Mapping):
        return node
    if "_target_" in node and (_is_loading(node) or _is_saving(node) or _name(node) in CHANNELS_FIRST):
        return {"_target_": "Identityd", "keys": node.get("keys", IMAGE), "allow_missing_keys": True}
    plain = {key: _harmless(value, missing) for key, value in node.items()}
    if (
        "_target_" in plain
        and _name(plain) == "AsDiscreted"
        and plain.get("argmax") is True
        and set(plain) <= OF_LARGEST
    ):
        plain["_target_"] = LARGEST
        del plain["argmax"]
    if plain.get("pretrained") is True:
        plain["pretrained"] = False  # its weights come from the bundle's file, not from the internet
    if "_target_" in plain and isinstance(plain.get("keys"), list) and missing.intersection(map(str, plain["keys"])):
        plain["allow_missing_keys"] = True
    return plain
