"""Train the chest X-ray bundle: films with masks in, a state dict out.

    python scripts/train/chest_xray.py --data DATA --seed 0 --out model.pt

Network and preprocessing are the bundle's own (models/chest-xray/configs/inference.yaml). The films named in
held_out.txt are never read here: a fixed part of the other films is the validation split, by which every choice
was made. One seed takes some minutes on two CPU cores and gives the same weights each time on the same machine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.data import set_track_meta
from monai.losses import DiceCELoss
from numpy.typing import NDArray
from PIL import Image

BUNDLE = Path(__file__).resolve().parents[2] / "models" / "chest-xray"
CLASSES = ("right lung", "left lung", "heart")
LOADERS = ("LoadImaged", "EnsureChannelFirstd", "SaveImaged")
VALIDATION_FILMS = 30
BATCH = 8

Picture = NDArray[np.float32]
Labels = NDArray[np.uint8]


def held_out_films(data: Path) -> list[str]:
    """Names of the films that are never trained or tuned on."""
    lines = (data / "held_out.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def split_films(data: Path) -> tuple[list[str], list[str]]:
    """(training, validation): all films but the held-out ones, split once and for all seeds alike."""
    held_out = set(held_out_films(data))
    films = sorted(path.stem for path in (data / "wingspan" / "mask").glob("*.png") if path.stem not in held_out)
    validation = set(np.random.default_rng(2018).permutation(films)[:VALIDATION_FILMS].tolist())
    return [film for film in films if film not in validation], sorted(validation)


def read_film(data: Path, film: str) -> tuple[Picture, Labels]:
    """The picture (rows, columns) and its label map on the same grid."""
    picture = np.asarray(Image.open(data / "wingspan" / "img" / f"{film}.jpg").convert("L"), np.float32)
    return picture, np.array(Image.open(data / "wingspan" / "mask" / f"{film}.png"), np.uint8)


@dataclass
class Bundle:
    """The parts of inference.yaml that training and evaluation share, without those that touch files."""

    network: Any
    preprocessing: Any
    inferer: Any
    postprocessing: Any

    def segment(self, picture: Picture) -> Labels:
        """Label map on the grid of `picture`, got as the node gets it."""
        pixels = scale_by_percentiles(picture)
        with torch.inference_mode():
            data = self.preprocessing({"image": torch.as_tensor(pixels)[None]})
            data["pred"] = self.inferer(data["image"][None], self.network)[0]
            return np.asarray(self.postprocessing(data)["pred"][0], np.uint8)


def load_bundle(weights: Path | None = None) -> Bundle:
    """The bundle, with `weights` (a state dict) where given, else untrained."""
    parser = ConfigParser()
    parser.read_config(BUNDLE / "configs" / "inference.yaml")
    for chain in ("preprocessing", "postprocessing"):
        steps = parser.get(f"{chain}::transforms")
        parser[f"{chain}::transforms"] = [step for step in steps if step["_target_"] not in LOADERS]
    network, before, inferer, after = (
        parser.get_parsed_content(key) for key in ("network_def", "preprocessing", "inferer", "postprocessing")
    )
    if weights is not None:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network.eval()
    return Bundle(network, before, inferer, after)


def scale_by_percentiles(picture: Picture) -> Picture:
    """What the node does before any bundle: 0.5th percentile to 0, 99.5th to 1, clipped."""
    low, high = np.percentile(picture, (0.5, 99.5))
    return np.asarray(np.clip((picture - low) / max(high - low, 1e-6), 0, 1), np.float32)


def dice_of_classes(found: Labels, truth: Labels) -> list[float]:
    """Dice coefficient of each of `CLASSES`."""
    pairs = [(found == value, truth == value) for value in range(1, len(CLASSES) + 1)]
    return [float(2 * (f & t).sum() / max(f.sum() + t.sum(), 1)) for f, t in pairs]


def width_ratio(labels: Labels) -> float:
    """Cardiothoracic ratio as the node measures it: widest extent of the heart over that of both lungs."""
    heart, lungs = (np.flatnonzero(mask.any(axis=0)) for mask in (labels == 3, (labels == 1) | (labels == 2)))
    if not heart.size or not lungs.size:
        return math.nan
    return float((heart[-1] - heart[0] + 1) / (lungs[-1] - lungs[0] + 1))


def warp(image: torch.Tensor, truth: torch.Tensor, rng: np.random.Generator) -> tuple[Any, Any]:
    """Rotate, scale each axis by itself, shear and shift (1, rows, columns) and (classes, rows, columns) alike.

    Never mirrored: left and right are what the labels mean.
    """
    angle, shear = rng.normal(0, 0.08), rng.normal(0, 0.05)
    scale = np.exp(rng.normal(0.03, 0.11)) * np.exp(rng.normal(0, 0.06, 2))
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = np.diag(scale) @ rotation @ np.array([[1, shear], [0, 1]])
    theta = torch.as_tensor(np.column_stack([matrix, rng.normal(0, 0.08, 2)]), dtype=torch.float32)[None]
    outside = "zeros" if rng.random() < 0.7 else "border"
    fine, coarse = (F.affine_grid(theta, [1, 1, n, n], align_corners=False) for n in (image.shape[1], truth.shape[1]))
    warped = F.grid_sample(image[None], fine, padding_mode=outside, align_corners=False)[0]
    labels = F.grid_sample(truth[None], coarse, padding_mode="zeros", align_corners=False)[0]
    labels[0] += 1 - labels.sum(0)
    return warped, labels


def blur(image: torch.Tensor, sigma_px: float) -> torch.Tensor:
    """Gaussian blur of (1, rows, columns)."""
    radius = max(1, math.ceil(2.5 * sigma_px))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma_px) ** 2)
    taps = taps / taps.sum()
    padded = F.pad(image[None], [radius] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))[0]


def retouch(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """What differs between vendors and rooms: curve, window, edge enhancement, sharpness, noise, opacities."""
    if rng.random() < 0.4:  # opacities in the lungs, breast shadows
        image = image + shadows(image.shape[1], rng)
    if rng.random() < 0.6:  # local contrast enhancement, as the processing stations of CR and DX vendors do
        image = image + rng.uniform(-0.3, 2.5) * (image - blur(image, float(rng.uniform(4, 16))))
        image = (image - image.min()) / (image.max() - image.min())
    if rng.random() < 0.5:  # window
        low, high = rng.uniform(-0.1, 0.15), rng.uniform(0.75, 1.1)
        image = (image - low) / (high - low)
    image = image.clamp(0, 1)
    if rng.random() < 0.7:
        image = image ** float(np.exp(rng.normal(0, 0.4)))
    if rng.random() < 0.4:  # any rising curve
        knots = np.sort(rng.random(6))
        curve = np.interp(image.numpy(), np.linspace(0, 1, 8), [0, *knots, 1])
        image = torch.as_tensor(curve, dtype=torch.float32)
    if rng.random() < 0.3:
        image = blur(image, float(rng.uniform(0.4, 1.8)))
    if rng.random() < 0.5:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image = image + float(rng.uniform(0, 0.04)) * torch.as_tensor(noise)
    return image


def shadows(size_px: int, rng: np.random.Generator) -> torch.Tensor:
    """One to four soft round spots, brighter or a little darker than what is there."""
    row, column = np.mgrid[:size_px, :size_px] / size_px
    field = np.zeros((size_px, size_px))
    for _ in range(rng.integers(1, 5)):
        y, x = rng.uniform(0.1, 0.9, 2)
        radius = rng.uniform(0.01, 0.12)
        field += rng.uniform(-0.1, 0.3) * np.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * radius**2))
    return torch.as_tensor(field[None], dtype=torch.float32)


def clutter(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Collimator edges, side markers and lines (catheters, electrodes) over the picture."""
    rows, columns = image.shape[1:]
    if rng.random() < 0.3:  # unexposed or blank edges
        level = float(rng.integers(0, 2))
        top, bottom, left, right = (int(rng.uniform(0, 0.08) * rows) * int(rng.integers(0, 2)) for _ in range(4))
        image[:, :top], image[:, rows - bottom :] = level, level
        image[:, :, :left], image[:, :, columns - right :] = level, level
    for _ in range(rng.integers(0, 4)):  # markers, labels
        height, width = rng.integers(4, 22, 2)
        y, x = int(rng.uniform(0, rows - height)), int(rng.uniform(0, columns - width))
        image[:, y : y + height, x : x + width] = float(rng.random())
    if rng.random() < 0.2:
        steps = np.linspace(0, 1, 2 * rows)
        y, x = (np.clip(rng.uniform(0, n) + rng.normal(0, n / 2) * steps, 0, n - 1) for n in (rows, columns))
        image[:, y.astype(int), x.astype(int)] = float(rng.uniform(0.7, 1))
    return image


class Lesson:
    """All samples of one training run in order; sample `i` is the same whoever asks for it and when."""

    def __init__(self, data: Path, films: list[str], epochs: int, seed: int) -> None:
        self.preprocessing = load_bundle().preprocessing
        self.films = [self.read(data, film) for film in films]
        self.seed = seed
        rng = np.random.default_rng(seed)
        self.order = np.concatenate([rng.permutation(len(films)) for _ in range(epochs)])

    def read(self, data: Path, film: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The film as the node hands it over, and what share of each pixel of the network's grid each class has."""
        picture, labels = read_film(data, film)
        image = torch.as_tensor(scale_by_percentiles(picture))[None]
        truth = F.one_hot(torch.as_tensor(labels, dtype=torch.long), 1 + len(CLASSES)).permute(2, 0, 1).float()
        grid = self.preprocessing({"image": image})["image"].shape[1:]
        return image, F.interpolate(truth[None], grid, mode="area")[0]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self.seed, number])
        image, truth = warp(*self.films[int(self.order[number])], rng)
        if rng.random() < 0.85:
            image = clutter(retouch(image, rng), rng)
        return self.preprocessing({"image": image})["image"], truth


def train(data: Path, seed: int, epochs: int, peak_rate: float) -> dict[str, torch.Tensor]:
    """Weights after `epochs` over the training films (one-cycle AdamW on Dice + cross entropy, soft labels)."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    set_track_meta(False)
    lesson = Lesson(data, split_films(data)[0], epochs, seed)
    loader = torch.utils.data.DataLoader(lesson, BATCH, num_workers=2, drop_last=True, prefetch_factor=4)
    network = load_bundle().network.to(memory_format=torch.channels_last).train()
    loss_of = DiceCELoss(softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak_rate, weight_decay=1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=len(loader), pct_start=0.15)
    began, recent = time.monotonic(), []
    for step, (image, truth) in enumerate(loader, start=1):
        optimizer.zero_grad()
        loss = loss_of(network(image.contiguous(memory_format=torch.channels_last)), truth)
        loss.backward()
        optimizer.step()
        rate.step()
        recent.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}/{len(loader)} loss {np.mean(recent):.4f} {time.monotonic() - began:.0f} s", flush=True)
            recent.clear()
    set_track_meta(True)
    return {name: value.contiguous().clone() for name, value in network.state_dict().items()}


def validate(data: Path, weights: Path) -> dict[str, float]:
    """Scores on the validation films; the ratio against the one from the mask, since not every film has the other."""
    bundle = load_bundle(weights)
    dice, errors = [], []
    for film in split_films(data)[1]:
        picture, truth = read_film(data, film)
        found = bundle.segment(picture)
        dice.append(dice_of_classes(found, truth))
        errors.append(abs(width_ratio(found) - width_ratio(truth)))
    scores = dict(zip(CLASSES, np.mean(dice, axis=0).tolist(), strict=True))
    return {**scores, "mean dice": float(np.mean(dice)), "ratio mae": float(np.mean(errors))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder with wingspan/ and held_out.txt")
    parser.add_argument("--seed", type=int, default=[0], nargs="+", help="one or more; each makes its own weights")
    parser.add_argument("--out", type=Path, required=True, help="state dict; with several seeds, a folder")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=1, help="another number gives other last digits")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for seed in options.seed:
        out = options.out if len(options.seed) == 1 else options.out / f"seed{seed}.pt"
        out.parent.mkdir(parents=True, exist_ok=True)
        torch.save(train(options.data, seed, options.epochs, options.rate), out)
        print(json.dumps({"seed": seed, "weights": str(out), "validation": validate(options.data, out)}), flush=True)


if __name__ == "__main__":
    main()
