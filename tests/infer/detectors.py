"""A detector made for tests: a TorchScript module that gives the box around all that is bright."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pacsnode.infer.catalogue import hash_file
from tests.infer.bundles import network_bundle, pipeline, write_pipeline

NODULE = {
    "key": "nodule",
    "label": "Nodule",
    "name": {"value": "27925004", "scheme": "SCT", "meaning": "Nodule"},
    "site": {"value": "39607008", "scheme": "SCT", "meaning": "Lung"},
    "shape": "box",
    "threshold": 0.5,
}


class Bright(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
    """The box of what is above `level`, with each of the `scores`, one below the other; all with label 3."""

    def __init__(self, level: float, scores: Sequence[float]) -> None:
        super().__init__()
        self.level = level
        self.scores = torch.tensor(list(scores))

    def forward(self, batch: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """As MONAI's RetinaNetDetector answers."""
        found: list[dict[str, torch.Tensor]] = []
        for one in batch:
            where = torch.nonzero(one[0] > self.level)
            count = self.scores.shape[0] if where.shape[0] > 0 else 0
            box = torch.zeros(0, 2 * where.shape[1])
            if count > 0:
                low, high = where.min(0)[0], where.max(0)[0] + 1
                box = torch.cat([low, high]).float()[None].repeat(count, 1)
            labels = torch.full((count,), 3, dtype=torch.int64)
            found.append({"box": box, "label_scores": self.scores[:count], "label": labels})
        return found


def detector(
    models: Path,
    *,
    level: float = 0.5,
    scores: Sequence[float] = (0.9,),
    before: list[dict[str, Any]] | None = None,
    region: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """The folder of a bundle with this detector, whose label 3 is a nodule."""
    contract = {
        "segments": None,
        "measurements": None,
        "machine_learning": True,
        "regions": [NODULE | {"index": 3} | (region or {})],
    }
    folder = network_bundle(models, before=before, **(contract | changes))
    weights = folder / "models" / "model.ts"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what torch advises its users; vendors' files stay
        torch.jit.script(Bright(level, scores)).save(str(weights))
    network = {"weights": "models/model.ts", "sha256": hash_file(weights), "format": "torchscript"}
    write_pipeline(folder, pipeline(**(contract | changes | {"network": network})))
    return folder
