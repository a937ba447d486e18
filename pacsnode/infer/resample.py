"""Resampling between grids with parallel axes, axis by axis: MONAI's Spacingd and Invertd in a fraction of their time.

MONAI interpolates between eight neighbours, each at coordinates of its own in float64. Where the axes of two grids are
parallel, as those of nearly every series and its resampled copy are, trilinear interpolation is the same as three
linear ones, one along each axis. Anything else (nearest neighbours, splines, turned grids, other borders) is MONAI's.
The numbers are MONAI's to float32's last digits.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import Identityd, Invertd, Spacingd, SpatialResample
from monai.transforms.inverse import TraceableTransform
from monai.utils import convert_to_dst_type
from numpy.typing import NDArray

from pacsnode.infer.discrete import Largestd, largest

PARALLEL = 1e-6
"""Of a voxel's step: what another axis may add to it before the axes are not parallel any more."""
SLAB_PLANES = 16
"""Planes that are brought to the source's grid at a time, so that they stay in the processor's cache."""


@dataclass(frozen=True)
class Along:
    """Where the voxels of one axis of a grid lie on an axis of another: between two neighbours, nearer to the second
    by `weight` (0 to 1). Beyond the ends counts the last voxel (MONAI's `border`).
    """

    first: torch.Tensor
    second: torch.Tensor
    weight: torch.Tensor

    def applied(self, values: torch.Tensor, axis: int) -> torch.Tensor:
        """`values` interpolated along one of their axes."""
        chosen = values.index_select(axis, self.first)
        if not self.weight.any():  # each voxel lies on one of the source
            return chosen
        weight = self.weight.view([-1 if n == axis else 1 for n in range(values.ndim)])
        return chosen.lerp_(values.index_select(axis, self.second), weight)


def parallel_axes(
    to_source: NDArray[np.float64], source: Sequence[int], wanted: Sequence[int]
) -> tuple[tuple[int, ...], tuple[Along, ...]] | None:
    """For each axis of the wanted grid the axis of the source that is parallel to it, and where its voxels lie on it.

    `to_source`: (n + 1, n + 1), from voxels of the wanted grid to those of the source. None where the axes are turned.
    """
    rank = len(wanted)
    turn, offset = to_source[:rank, :rank], to_source[:rank, rank]
    axes = tuple(int(n) for n in np.abs(turn).argmax(axis=0))
    if len(set(axes)) != rank:
        return None
    aside = np.abs(turn)
    aside[list(axes), range(rank)] = 0
    # Sideways, over the whole length of the axis.
    if (aside * np.array(wanted)).max() > PARALLEL * max(wanted):
        return None
    return axes, tuple(_along(turn[axis, n], offset[axis], source[axis], wanted[n]) for n, axis in enumerate(axes))


def _along(step: float, start: float, source: int, wanted: int) -> Along:
    at = np.clip(start + step * np.arange(wanted), 0, source - 1)
    nearest = np.rint(at)
    at = np.where(np.abs(at - nearest) < PARALLEL, nearest, at)
    first = np.floor(at).astype(np.int64)
    second = np.minimum(first + 1, source - 1)
    return Along(torch.from_numpy(first), torch.from_numpy(second), torch.from_numpy((at - first).astype(np.float32)))


class SeparableResample(SpatialResample):  # type: ignore[misc]  # monai says no types
    """MONAI's SpatialResample, axis by axis where that is the same; its inverse is MONAI's."""

    def __call__(self, img: torch.Tensor, dst_affine: Any = None, spatial_size: Any = None, **told: Any) -> Any:
        """As SpatialResample: (channels, …) to the grid of `dst_affine` and `spatial_size`."""
        plan = self._plan(img, dst_affine, spatial_size, told)
        if plan is None:
            return super().__call__(img, dst_affine, spatial_size, **told)
        assert isinstance(img, MetaTensor)
        source, xform, alongs = plan
        padding = told.get("padding_mode") or self.padding_mode
        align_corners = told.get("align_corners")
        record = {
            "dtype": "float64",
            "mode": "bilinear",
            "padding_mode": str(getattr(padding, "value", padding)),
            "align_corners": self.align_corners if align_corners is None else align_corners,
            "src_affine": source,
        }
        meta = TraceableTransform.track_transform_meta(
            img,
            sp_size=torch.tensor(spatial_size),
            affine=torch.from_numpy(xform),
            extra_info=record,
            orig_size=img.peek_pending_shape(),
            transform_info=self.get_transform_info(),
            lazy=False,
        )
        values = img.as_subclass(torch.Tensor).float()
        # The axis whose voxels lie furthest apart in memory first: whole planes are moved, and the rest gets smaller.
        for axis in sorted(range(1, values.ndim), key=lambda n: -values.stride(n)):
            values = alongs[axis - 1].applied(values, axis)
        return MetaTensor(values).copy_meta_from(meta)

    def _plan(
        self, img: torch.Tensor, dst_affine: Any, spatial_size: Any, told: Mapping[str, Any]
    ) -> tuple[torch.Tensor, NDArray[np.float64], tuple[Along, ...]] | None:
        """The source's affine, the way to it and the voxels along each axis; None where MONAI has to do it."""
        mode, padding = told.get("mode") or self.mode, told.get("padding_mode") or self.padding_mode
        is_lazy = self.lazy if told.get("lazy") is None else told["lazy"]
        usual = str(getattr(mode, "value", mode)) == "bilinear" and str(getattr(padding, "value", padding)) == "border"
        if (
            not usual
            or is_lazy
            or not isinstance(img, MetaTensor)
            or img.device.type != "cpu"
            or img.pending_operations
        ):
            return None
        rank = img.ndim - 1
        if dst_affine is None or not isinstance(spatial_size, list | tuple) or len(spatial_size) != rank:
            return None
        source = to_affine_nd(rank, img.affine).to(torch.float64)
        wanted = convert_to_dst_type(to_affine_nd(rank, dst_affine), source)[0]
        xform = np.linalg.solve(source.numpy(), wanted.numpy())
        found = parallel_axes(xform, img.shape[1:], [int(one) for one in spatial_size])
        if found is None or found[0] != tuple(range(rank)):
            return None
        return source, xform, found[1]


class InvertedLargestd:
    """Invertd and then the largest channel, in one go: no channel is ever made on the whole grid of the source.

    In place of an Invertd and a Largestd that follow each other, where all that was done to the image's grid is
    Orientationd and Spacingd; else they are run.
    """

    def __init__(self, inverting: Invertd, discrete: Largestd) -> None:
        self._inverting = inverting
        self._discrete = discrete

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """(1, columns, rows, slices) uint8 labels under the key, with the source's affine."""
        key, image = self._inverting.keys[0], self._inverting.orig_keys[0]
        found = _way_back(data[key], data.get(image)) if image in data else None
        if found is None:
            return dict(self._discrete(self._inverting(data)))
        affine, axes, alongs = found
        labels = _largest_on(data[key].as_subclass(torch.Tensor), axes, alongs)
        return dict(data) | {key: MetaTensor(labels[None], affine=torch.from_numpy(affine))}


def quickened(before: Any, after: Any) -> None:
    """Let a bundle's preprocessing and postprocessing (Compose, or anything else) do the same in less time."""
    for one in getattr(before, "transforms", ()):
        if isinstance(one, Spacingd):
            theirs = one.spacing_transform.sp_resample
            one.spacing_transform.sp_resample = SeparableResample(
                theirs.mode, theirs.padding_mode, theirs.align_corners, theirs.dtype, theirs.lazy
            )
    steps = list(getattr(after, "transforms", ()))
    for n, (one, following) in enumerate(itertools.pairwise(steps)):
        is_last = all(type(other) is Identityd for other in steps[n + 2 :])
        if is_last and type(one) is Invertd and type(following) is Largestd and _is_usual(one, following):
            after.transforms = (*steps[:n], InvertedLargestd(one, following), *steps[n + 2 :])
            return


def _is_usual(inverting: Invertd, discrete: Largestd) -> bool:
    told = (inverting.nearest_interp, inverting.device, inverting.post_func)
    return len(inverting.keys) == 1 and inverting.keys == discrete.keys and told == ((False,), (None,), (None,))


def _way_back(output: Any, image: Any) -> tuple[NDArray[np.float64], tuple[int, ...], tuple[Along, ...]] | None:
    """The source's affine, and where its voxels lie on the output's axes; None where that is not all there is to it."""
    if not isinstance(output, MetaTensor) or not isinstance(image, MetaTensor) or output.device.type != "cpu":
        return None
    done = [dict(one) for one in image.applied_operations]
    names = [one["class"] for one in done]
    if names not in (["SeparableResample"], ["Orientation", "SeparableResample"]) or output.ndim != 4:
        return None
    told = done[0]["extra_info"]
    affine = np.asarray(told["original_affine" if len(done) == 2 else "src_affine"], dtype=np.float64)
    if done[-1]["extra_info"]["mode"] != "bilinear" or done[-1]["extra_info"]["padding_mode"] != "border":
        return None
    here = np.asarray(image.affine, dtype=np.float64)
    xform = np.asarray(np.linalg.solve(here, affine), dtype=np.float64)
    found = parallel_axes(xform, output.shape[1:], done[0]["orig_size"])
    return None if found is None else (affine, *found)


def _largest_on(channels: torch.Tensor, axes: Sequence[int], alongs: Sequence[Along]) -> torch.Tensor:
    """(columns, rows, slices) uint8, a view of (slices, rows, columns): the largest of (channels, …) on that grid.

    Of two channels their difference is brought there: interpolation is linear.
    """
    columns, rows, slices = alongs
    is_yes_or_no = len(channels) == 2
    given = (channels[1] - channels[0])[None] if is_yes_or_no else channels
    wide = columns.applied(given.permute(0, *(1 + axes[n] for n in (2, 1, 0))).contiguous(), 3)
    labels = torch.empty((len(slices.first), len(rows.first), len(columns.first)), dtype=torch.uint8)
    for start in range(0, len(labels), SLAB_PLANES):
        here = slice(start, start + SLAB_PLANES)
        slab = Along(slices.first[here], slices.second[here], slices.weight[here]).applied(wide, 1)
        slab = rows.applied(slab, 2)
        labels[here] = slab[0] > 0 if is_yes_or_no else largest(slab)
    return labels.permute(2, 1, 0)
