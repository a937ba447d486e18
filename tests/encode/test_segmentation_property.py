"""Whatever the masks are, two readers get them back from the SEG: of any size, overlapping or not, in every form."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pacsnode.encode.masks import Pixels
from pacsnode.handover import SegmentationForm
from tests.encode.segmentations import READERS, Masks, clip, ct_series, encoded, group_of

SHAPES = array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=9).filter(lambda shape: shape[0] <= 4)
FORMS = st.sampled_from(["binary", "labelmap", "fractional"])


@settings(max_examples=25, deadline=None)
@given(
    masks=SHAPES.flatmap(lambda shape: arrays(np.bool_, shape)), form=FORMS, exclusive=st.booleans(), of=st.booleans()
)
def test_any_masks_come_back(masks: Masks, form: SegmentationForm, exclusive: bool, of: bool) -> None:
    if exclusive:
        masks = masks & (np.cumsum(masks, axis=0) == 1)
    assume(masks.any())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [clip(folder, *masks.shape[1:])] if of else ct_series(folder, *masks.shape[1:])
        results = encoded(folder / "out", files, group_of(files, masks), form, ("seg",))
        for reader in READERS:
            np.testing.assert_array_equal(reader(results[0].path, files, masks.shape), masks)


@given(each=st.integers(1, 9), size=st.integers(0, 40), reads=st.lists(st.integers(0, 12)))
def test_pixels_read_in_any_portions_are_the_same(each: int, size: int, reads: list[int]) -> None:
    whole = bytes(range(1, size + 1))
    pixels = Pixels(each, size, lambda number: whole[number * each : (number + 1) * each])
    even = whole + bytes(size % 2)
    parts = [pixels.read(portion) for portion in reads]
    assert b"".join(parts) == even[: sum(reads)]
    assert pixels.read() == even[sum(reads) :]
    assert (pixels.seek(0, 2), pixels.tell(), pixels.read(5)) == (len(even), len(even), b"")
    pixels.seek(0)
    assert pixels.read() == even
