"""What a row says is what the header said."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pacsnode.archive.rows import _attributes_json

KEYWORDS = st.sampled_from(["PatientName", "Modality", "ImageType", "StudyDescription"])
VALUES = st.lists(st.text(max_size=100), max_size=3).map(tuple)


@given(st.dictionaries(KEYWORDS, VALUES))
def test_attributes_come_back_from_their_row_as_they_were(attributes: dict[str, tuple[str, ...]]) -> None:
    for _ in range(2):  # short ones are remembered: the second time they come from there
        read = json.loads(_attributes_json(attributes))
        assert {keyword: tuple(values) for keyword, values in read.items()} == attributes
