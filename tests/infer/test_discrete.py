"""The largest channel is what argmax says it is."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import AsDiscreted

from pacsnode.infer.discrete import Largestd, largest


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_it_is_the_argmax_also_where_channels_are_equal(channels: int) -> None:
    torch.manual_seed(0)
    values = torch.randint(0, 3, (channels, 20, 30, 5)).float()
    assert torch.equal(largest(values).long(), values.argmax(0))


def test_in_a_chain_it_gives_what_monai_gives() -> None:
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    pred = MetaTensor(torch.rand(3, 6, 5, 4), affine=affine)
    ours, theirs = Largestd(keys="pred")({"pred": pred})["pred"], AsDiscreted(keys="pred", argmax=True)({"pred": pred})
    assert torch.equal(ours, theirs["pred"])
    assert ours.shape == theirs["pred"].shape and ours.dtype == theirs["pred"].dtype
    assert torch.equal(ours.affine, affine)
