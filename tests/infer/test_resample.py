"""Volumes resampled axis by axis are what MONAI makes of them, there and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    CropForegroundd,
    Flipd,
    Identityd,
    Invertd,
    Orientationd,
    Spacingd,
)
from numpy.typing import NDArray

from pacsnode.infer.bundle import _volume_input
from pacsnode.infer.discrete import Largestd
from pacsnode.infer.resample import InvertedLargestd, SeparableResample, quickened


def chains(steps: list[Any], *, quick: bool, is_followed: bool = False, **inverting: Any) -> tuple[Compose, Compose]:
    """Preprocessing and postprocessing as bundles have them."""
    before = Compose(steps)
    told = {"keys": "pred", "transform": before, "orig_keys": "image", "nearest_interp": False, "to_tensor": True}
    after = [Invertd(**(told | inverting)), Largestd(keys="pred")]
    composed = Compose([*after, Flipd(keys="pred", spatial_axis=0) if is_followed else Identityd(keys="pred")])
    if quick:
        quickened(before, composed)
    return before, composed


def there_and_back(
    chain: tuple[Compose, Compose], voxels: NDArray[np.float32], affine: NDArray[np.float64], channels: int = 2
) -> tuple[MetaTensor, MetaTensor]:
    """What the network would read, and labels on the grid of the voxels."""
    before, after = chain
    with torch.inference_mode():
        data = before({"image": _volume_input([voxels], affine)})
        output = torch.rand((channels, *data["image"].shape[1:]), generator=torch.Generator().manual_seed(7))
        found = after(data | {"pred": MetaTensor(output, meta=data["image"].meta)})
    return data["image"], found["pred"]


def affine_of(spacing_mm: tuple[float, float, float], order: tuple[int, ...], signs: tuple[int, ...]) -> Any:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        affine[axis, column] = sign * spacing_mm[column]
    affine[:3, 3] = (-31.5, 12.25, 400.0)
    return affine


SPACINGS = st.floats(0.4, 4.0)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(SPACINGS, SPACINGS, SPACINGS),
    st.permutations((0, 1, 2)),
    st.tuples(*[st.sampled_from((-1, 1))] * 3),
    st.tuples(*[st.integers(2, 14)] * 3),
    st.tuples(SPACINGS, SPACINGS, SPACINGS),
    st.sampled_from((None, "RAS", "LPS")),
    st.integers(2, 4),
)
def test_any_series_with_parallel_axes_becomes_what_monai_makes_of_it(
    spacing_mm: tuple[float, float, float],
    order: list[int],
    signs: tuple[int, int, int],
    shape: tuple[int, int, int],
    wanted_mm: tuple[float, float, float],
    orientation: str | None,
    channels: int,
) -> None:
    voxels = np.random.default_rng(1).normal(0, 100, shape).astype(np.float32)
    affine = affine_of(spacing_mm, tuple(order), signs)

    def steps() -> list[Any]:
        turned = [Orientationd(keys="image", axcodes=orientation, labels=None)] if orientation else []
        return [*turned, Spacingd(keys="image", pixdim=wanted_mm, mode="bilinear")]

    ours, labels = there_and_back(chains(steps(), quick=True), voxels, affine, channels)
    theirs, their_labels = there_and_back(chains(steps(), quick=False), voxels, affine, channels)

    assert ours.shape == theirs.shape and torch.allclose(ours.affine, theirs.affine)
    assert torch.allclose(ours.as_subclass(torch.Tensor), theirs.as_subclass(torch.Tensor), atol=1e-2)
    assert torch.allclose(labels.affine, their_labels.affine, atol=1e-6)
    assert labels.shape == their_labels.shape == (1, *shape[::-1])
    differing = labels.as_subclass(torch.Tensor).float() != their_labels.as_subclass(torch.Tensor)
    assert int(differing.sum()) <= labels.numel() // 1000  # channels that are equal but for a rounding


def test_a_quickened_chain_really_goes_axis_by_axis() -> None:
    before, after = chains([Spacingd(keys="image", pixdim=(2, 2, 2), mode="bilinear")], quick=True)

    image, labels = there_and_back((before, after), np.ones((6, 8, 10), np.float32), np.eye(4))

    assert image.applied_operations[-1]["class"] == SeparableResample.__name__
    assert [type(one) for one in after.transforms] == [InvertedLargestd, Identityd]
    assert labels.dtype == torch.uint8


@pytest.mark.parametrize("reason", ["sheared", "nearest", "zeros", "cropped"])
def test_what_is_not_the_same_axis_by_axis_is_left_to_monai(reason: str) -> None:
    affine = affine_of((1.0, 0.7, 0.7), (0, 1, 2), (-1, -1, 1))
    if reason == "sheared":
        affine[1, 2] = 0.4
    voxels = np.random.default_rng(2).normal(0, 100, (9, 12, 14)).astype(np.float32)

    def steps() -> list[Any]:
        spaced = Spacingd(
            keys="image",
            pixdim=(1.5, 1.5, 2.0),
            mode="nearest" if reason == "nearest" else "bilinear",
            padding_mode="zeros" if reason == "zeros" else "border",
        )
        crop = [CropForegroundd(keys="image", source_key="image", allow_smaller=True)] if reason == "cropped" else []
        return [Orientationd(keys="image", axcodes="RAS", labels=None), spaced, *crop]

    ours, labels = there_and_back(chains(steps(), quick=True), voxels, affine)
    theirs, their_labels = there_and_back(chains(steps(), quick=False), voxels, affine)

    assert torch.allclose(ours.as_subclass(torch.Tensor), theirs.as_subclass(torch.Tensor), atol=1e-3)
    assert torch.equal(labels.as_subclass(torch.Tensor).float(), their_labels.as_subclass(torch.Tensor))
    assert torch.equal(labels.affine, their_labels.affine)


def test_a_step_after_the_labels_gets_them_as_monai_gives_them() -> None:
    _, after = chains([Spacingd(keys="image", pixdim=(2, 2, 2), mode="bilinear")], quick=True, is_followed=True)

    assert [type(one) for one in after.transforms] == [Invertd, Largestd, Flipd]


def test_an_inversion_to_the_nearest_label_is_monais() -> None:
    _, after = chains([Spacingd(keys="image", pixdim=(2, 2, 2), mode="bilinear")], quick=True, nearest_interp=True)

    assert [type(one) for one in after.transforms] == [Invertd, Largestd, Identityd]
