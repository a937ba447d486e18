"""Score the chest X-ray bundle on the held-out films: weights in, a table and the model card's numbers out.

    python scripts/train/evaluate_chest_xray.py --data DATA --weights seed0.pt seed1.pt seed2.pt

One of the weights must be the bundle's own (models/model.pt, byte for byte). Rewrites the part of docs/README.md
between the markers, and `quality` and `sha256` in pipeline.yaml. It chooses nothing: that was done on the
validation films by the training script.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from chest_xray import BUNDLE, CLASSES, dice_of_classes, held_out_films, load_bundle, read_film, width_ratio

BEGIN, END = "<!-- held-out: begin -->", "<!-- held-out: end -->"
SHIPPED = BUNDLE / "models" / "model.pt"


@dataclass
class Scores:
    """One seed on the held-out films. `dice`: (films, classes). `ratio`, `truth`: (films,), not a number if unread."""

    name: str
    shipped: bool
    films: list[str]
    dice: np.ndarray
    ratio: np.ndarray
    truth: np.ndarray

    @property
    def row(self) -> list[float]:
        """Mean Dice of each class, mean absolute error, mean error and r of the ratio."""
        error = self.ratio - self.truth
        r = float(np.corrcoef(self.ratio, self.truth)[0, 1])
        return [*self.dice.mean(axis=0), float(np.abs(error).mean()), float(error.mean()), r]


def radiologists_ratios(data: Path) -> dict[str, float]:
    """The published ratio of each film that has one."""
    with (data / "wingspan" / "ctr.csv").open(newline="") as file:
        rows = [(row["id"], row["ctr_ground_truth_upstream"]) for row in csv.DictReader(file)]
    return {film: float(ratio) for film, ratio in rows if ratio}


def score(data: Path, weights: Path) -> Scores:
    """Run the bundle with `weights` over every held-out film. Raises ValueError where a structure was not found."""
    bundle, films, ratios = load_bundle(weights), held_out_films(data), radiologists_ratios(data)
    dice, measured = [], []
    for film in films:
        picture, truth = read_film(data, film)
        found = bundle.segment(picture)
        dice.append(dice_of_classes(found, truth))
        measured.append(width_ratio(found))
    if not np.isfinite(measured).all():
        raise ValueError(f"{weights}: no ratio on {[f for f, m in zip(films, measured, strict=True) if m != m]}")
    shipped = weights.read_bytes() == SHIPPED.read_bytes()
    truths = np.array([ratios[film] for film in films])
    return Scores(weights.stem, shipped, films, np.array(dice), np.array(measured), truths)


def table(seeds: list[Scores]) -> str:
    """Markdown: a line for each seed, the median, the range."""
    head = ["", *(f"Dice {name}" for name in CLASSES), "CTR mean absolute error", "CTR mean error", "CTR r"]
    rows = np.array([seed.row for seed in seeds])
    lines = [head, ["---"] * len(head)]
    for seed, row in zip(seeds, rows, strict=True):
        lines.append([seed.name + (" (shipped)" if seed.shipped else ""), *(f"{v:.4f}" for v in row)])
    lines.append(["**median**", *(f"**{v:.4f}**" for v in np.median(rows, axis=0))])
    lines.append(["range", *(f"{a:.4f} to {b:.4f}" for a, b in zip(rows.min(axis=0), rows.max(axis=0), strict=True))])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def worst(seed: Scores) -> str:
    """The shipped weights' lowest Dice of each class and largest errors of the ratio, film by film."""
    lines = []
    for number, name in enumerate(CLASSES):
        order = np.argsort(seed.dice[:, number])[:3]
        named = ", ".join(f"{seed.films[i]} {seed.dice[i, number]:.3f}" for i in order)
        lines.append(f"- lowest Dice, {name}: {named}")
    error = seed.ratio - seed.truth
    order = np.argsort(-np.abs(error))[:5]
    named = ", ".join(f"{seed.films[i]} {error[i]:+.3f} (radiologists {seed.truth[i]:.3f})" for i in order)
    lines.append(f"- largest errors of the cardiothoracic ratio: {named}")
    share = float((np.abs(error) <= 0.05).mean())
    lines.append(
        f"- {share:.0%} of the films within 0.05 of the radiologists' ratio, SD of the error {error.std():.3f}"
    )
    return "\n".join(lines)


def quality(seeds: list[Scores]) -> str:
    """The sentence that goes into every result."""
    own = next(seed for seed in seeds if seed.shipped)
    middle = np.median([seed.row for seed in seeds], axis=0)

    def words(row: np.ndarray | list[float]) -> str:
        right, left, heart, mae = row[:4]
        return f"Dice {right:.3f} right lung, {left:.3f} left lung, {heart:.3f} heart, ratio MAE {mae:.3f}"

    return (
        f"{len(own.films)} held-out films of the same set: {words(own.row)}; "
        f"median of {len(seeds)} seeds: {words(middle)}. Not measured on films of another source."
    )


def replace_once(path: Path, pattern: str, replacement: str) -> None:
    """Put `replacement` for the one match of `pattern`. Raises ValueError unless there is exactly one."""
    text, count = re.subn(pattern, lambda _: replacement, path.read_text(), flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{path}: {count} places match {pattern!r}, not one")
    path.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder with wingspan/ and held_out.txt")
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help="one state dict for each seed")
    parser.add_argument("--print-only", action="store_true", help="leave the model card as it is")
    options = parser.parse_args()
    torch.set_num_threads(2)
    seeds = [score(options.data, weights) for weights in options.weights]
    shipped = [seed for seed in seeds if seed.shipped]
    text = f"{len(seeds[0].films)} held-out films, shipped preprocessing and postprocessing.\n\n{table(seeds)}\n"
    if shipped:
        text += f"\nFailure cases of the shipped weights:\n\n{worst(shipped[0])}\n"
    print(text)
    if options.print_only:
        return
    if not shipped:
        parser.error(f"none of the weights is {SHIPPED}")
    replace_once(BUNDLE / "docs" / "README.md", f"{BEGIN}.*{END}", f"{BEGIN}\n{text}{END}")
    replace_once(BUNDLE / "pipeline.yaml", r'quality: "[^"\n]*"', f'quality: "{quality(seeds)}"')
    digest = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    replace_once(BUNDLE / "pipeline.yaml", r'sha256: "[0-9a-f]{64}"', f'sha256: "{digest}"')


if __name__ == "__main__":
    main()
