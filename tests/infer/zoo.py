"""Three bundles written as the MONAI Model Zoo writes them, with random weights: CT volume, RGB endoscopy, two classes.

They have what makes such bundles fail elsewhere: ids and keys of their own, worker processes, mixed precision, data
sets on paths that are nowhere, steps that load and save, weights out of a training loop, code in `scripts/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from pacsnode.infer.catalogue import hash_file
from tests.infer.bundles import ANATOMY, pipeline, segment, with_card, write_pipeline
from tests.infer.zoo_scripts import SCRIPTS

NOWHERE = "/workspace/data/of-the-author"
SPLEEN = {"value": "78961009", "scheme": "SCT", "meaning": "Spleen"}
PNEUMONIA = {"value": "233604007", "scheme": "SCT", "meaning": "Pneumonia"}

CT_UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [4, 8, 16],
    "strides": [2, 2],
    "num_res_units": 1,
    "norm": "batch",
}


def _engine(**parts: str) -> dict[str, Any]:
    """The parts of a config that only MONAI's own engine needs."""
    return {
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 4},
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "val_handlers": "@handlers",
            "amp": True,
            **parts,
        },
    }


def ct_config() -> dict[str, Any]:
    """A sliding window over a resampled CT, inverted to the grid of the images."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": NOWHERE,
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/images/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": CT_UNET,
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 2.0], "mode": "bilinear"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": -1000,
                    "a_max": 1000,
                    "b_min": 0,
                    "b_max": 1,
                    "clip": True,
                },
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 16], "sw_batch_size": 2, "overlap": 0.5},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "separate_folder": False},
            ],
        },
        **_engine(inferer="@inferer", postprocessing="@postprocessing"),
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "initialize": ["$monai.utils.set_determinism(seed=123)", "$@checkpointloader(@evaluator)"],
        "run": ["$@evaluator.run()"],
    }


def rgb_config() -> dict[str, Any]:
    """Colour pictures to one channel of yes and no; other ids, and a backbone that would be downloaded."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": "/workspace/bundle/tools",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": f"$list(sorted(glob.glob(os.path.join('{NOWHERE}', '*.jpg'))))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "net": {
            "_target_": "FlexibleUNet",
            "in_channels": 3,
            "out_channels": 2,
            "backbone": "efficientnet-b0",
            "decoder_channels": [32, 16, 8, 4, 4],
            "spatial_dims": 2,
            "pretrained": True,
            "is_pad": False,
        },
        "network": "$@net.to(@device)",
        "pre_transforms": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": ["image"]},
                {"_target_": "EnsureChannelFirstd", "keys": ["image"], "channel_dim": -1},
                {"_target_": "Resized", "keys": ["image"], "spatial_size": [96, 64], "mode": ["bilinear"]},
                {"_target_": "ScaleIntensityd", "keys": ["image"]},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@pre_transforms",
        },
        "inferer": {"_target_": "SimpleInferer"},
        "post_transforms": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@pre_transforms",
                    "orig_keys": "image",
                    "meta_key_postfix": "meta_dict",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", "keys": ["pred"], "argmax": True, "to_onehot": 2},
                {"_target_": "Lambdad", "keys": ["pred"], "func": "$lambda x : x[1:]"},
                {
                    "_target_": "SaveImaged",
                    "keys": "pred",
                    "meta_keys": "pred_meta_dict",
                    "output_dir": "@output_dir",
                    "output_ext": ".png",
                    "scale": 255,
                    "squeeze_end_dims": True,
                    "separate_folder": False,
                },
            ],
        },
        **_engine(inferer="@inferer", postprocessing="@post_transforms"),
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
                "map_location": "@device",
            },
            {"_target_": "StatsHandler", "iteration_log": False},
        ],
        "initialize": ["$monai.utils.set_determinism(seed=123)"],
        "run": ["$@evaluator.run()"],
    }


def classes_config() -> dict[str, Any]:
    """Two classes of a network in scripts/; a list of files that is opened, and a label that is loaded beside it."""
    return {
        "import": ["$import json", "$from scripts.labels import names"],
        "bundle_root": "/workspace/bundle/classes",
        "test_json": f"{NOWHERE}/test.json",
        "test_fp": "$open(@test_json, 'r', encoding='utf8')",
        "test_dict": "$json.load(@test_fp)",
        "test_close": "$@test_fp.close()",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "model": {"_target_": "scripts.net.Pooled", "count": "$len(names())"},
        "network": "$@model.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": ["label", "inputs"]},
                {"_target_": "AsChannelFirstd", "keys": "inputs"},
                {
                    "_target_": "Resized",
                    "keys": ["label", "inputs"],
                    "spatial_size": [64, 64],
                    "mode": ["nearest", "bilinear"],
                },
                {"_target_": "CastToTyped", "keys": "inputs", "dtype": "$torch.float32"},
                {"_target_": "NormalizeIntensityd", "keys": "inputs", "nonzero": True, "channel_wise": True},
                {"_target_": "EnsureTyped", "keys": "inputs"},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "@test_dict", "transform": "@preprocessing"},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True, "to_onehot": 2}],
        },
        **_engine(inferer="@inferer", postprocessing="@postprocessing"),
        "evaluating": ["$setattr(torch.backends.cudnn, 'benchmark', True)", "$@evaluator.run()"],
    }


def _folder(models: Path, name: str, channels: int, config: dict[str, Any], suffix: str) -> Path:
    folder = models / name
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    inputs = {"image": {"type": "image", "modality": "none", "num_channels": channels, "spatial_shape": ["8*n"]}}
    metadata = {
        "version": "0.4.9",
        "monai_version": "1.2.0",
        "optional_packages_version": {"nibabel": "4.0.1"},
        "intended_use": "This is an example, not to be used for diagnostic purposes",
        "network_data_format": {"inputs": inputs},
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    path = folder / "configs" / f"inference.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(config, indent=4))
    else:
        with path.open("w") as file:
            YAML().dump(config, file)
    return folder


def _finish(folder: Path, network: torch.nn.Module, wrap: Callable[[Any], Any], **contract: Any) -> Path:
    torch.save(wrap(network.state_dict()), folder / "models" / "model.pt")
    weights = {"weights": "models/model.pt", "sha256": hash_file(folder / "models" / "model.pt")}
    plain = pipeline(name=folder.name, network=weights, status="published weights", machine_learning=True, **contract)
    write_pipeline(folder, plain)
    return with_card(folder)


def _balance(network: torch.nn.Module, sample: torch.Tensor) -> None:
    """Shift the last bias so that about half of a sample is marked, not all of it or nothing."""
    network.eval()
    with torch.inference_mode():
        logits = network(sample)[0]
    last = [bias for name, bias in network.named_parameters() if name.endswith("bias") and len(bias) == 2][-1]
    last.data[1] -= float((logits[1] - logits[0]).median())


def outline(**changes: Any) -> dict[str, Any]:
    """A segment that random weights need not find."""
    return segment() | {"category": ANATOMY, "may_be_absent": True} | changes


def ct_bundle(models: Path) -> Path:
    """A spleen on a CT, in the zoo's style: JSON, UNet, sliding window."""
    from monai.networks.nets import UNet

    torch.manual_seed(1)
    arguments = {key: value for key, value in CT_UNET.items() if key != "_target_"}
    network = UNet(**arguments)
    _balance(network, 0.5 + 0.15 * torch.randn(1, 1, 32, 32, 16))
    folder = _folder(models, "zoo-ct", 1, ct_config(), "json")
    return _finish(
        folder,
        network,
        lambda state: state,
        input="volume",
        accepts={"Modality": "CT"},
        segments=[outline(label="Spleen", type=SPLEEN)],
        measurements=[
            {"method": "volume", "of": [1], "name": {"value": "118565006", "scheme": "SCT", "meaning": "Volume"}}
        ],
    )


def rgb_bundle(models: Path) -> Path:
    """Instruments on endoscopic pictures, in the zoo's style; weights as a training loop writes them."""
    from monai.networks.nets import FlexibleUNet

    torch.manual_seed(2)
    network = FlexibleUNet(3, 2, "efficientnet-b0", decoder_channels=(32, 16, 8, 4, 4), is_pad=False)
    _balance(network, torch.rand(1, 3, 96, 64))
    folder = _folder(models, "zoo-rgb", 3, rgb_config(), "json")
    return _finish(
        folder,
        network,
        lambda state: {"model": state, "epoch": 7},
        accepts={"Modality": "ES"},
        segments=[outline(label="Instrument")],
        measurements=None,
    )


def classes_bundle(models: Path, **contract: Any) -> Path:
    """Two classes on pictures, in the zoo's style; YAML, a network of its own in scripts/."""
    torch.manual_seed(3)
    folder = _folder(models, "zoo-classes", 3, classes_config(), "yaml")
    (folder / "scripts").mkdir()
    for name, text in SCRIPTS.items():
        (folder / "scripts" / name).write_text(text)
    network = torch.nn.Module()
    network.layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 2),
    )
    network.layers[4].bias.data = torch.tensor([-1.0, 1.5])
    classes = [
        {"index": 0, "label": "no"},
        {"index": 1, "label": "yes", "name": PNEUMONIA, "threshold": 0.0},
    ]
    return _finish(
        folder,
        network,
        lambda state: {"state_dict": {f"module.{name}": weight for name, weight in state.items()}},
        **{
            "segments": None,
            "measurements": None,
            "classification": {"activation": "softmax", "classes": classes},
        }
        | contract,
    )
