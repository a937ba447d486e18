"""Every input of the corpus, and some hundred damaged ones, through its parser. `scripts/fuzz` goes on for minutes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import mutate
from tests.fuzz.reference import Encoding, PeerStream, well_formed
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import SYNTAXES, TARGETS

CORPUS = Path(__file__).parent / "corpus"
INPUTS = {name: sorted((CORPUS / name).iterdir()) for name in TARGETS}
DATA = {name: [path.read_bytes() for path in paths] for name, paths in INPUTS.items()}


@pytest.mark.parametrize(
    ("target", "path"),
    [pytest.param(name, path, id=f"{name}/{path.name}") for name, paths in INPUTS.items() for path in paths],
)
def test_an_input_of_the_corpus_does_no_harm(target: str, path: Path) -> None:
    TARGETS[target](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(which=st.integers(0, 1000), damage=st.integers(0, 2**32))
def test_a_damaged_input_of_the_corpus_does_no_harm(target: str, which: int, damage: int) -> None:
    seeds = DATA[target]
    TARGETS[target](mutate(seeds[which % len(seeds)], random.Random(damage), seeds))


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_small_and_what_its_script_writes(target: str) -> None:
    written = dict(SEEDS[target]())
    kept = {path.name: path.read_bytes() for path in INPUTS[target] if not path.name.startswith("found-")}
    assert kept == written
    assert 10 <= len(kept) <= 30
    assert sum(map(len, kept.values())) < 50_000


def test_the_second_readers_read_what_is_in_order_and_nothing_else() -> None:
    heard = PeerStream(dict(SEEDS["pdu"]())["store"][3:]).read()
    assert [(context, is_command, len(data)) for context, is_command, data in heard.messages] == [
        (1, True, len(heard.messages[0][2])),
        (1, False, 8),
    ]
    assert heard.end == "release"
    inputs = dict(SEEDS["header"]())
    in_order = {
        name: well_formed(data[1:], Encoding(data[0] not in (1, 5), SYNTAXES[data[0]] == SYNTAXES[2])) is not None
        for name, data in inputs.items()
        if data[0] != 3
    }
    assert all(in_order[name] for name in ("explicit", "implicit", "big-endian", "ge-undefined", "jpeg", "korean"))
    assert not any(in_order[name] for name in ("deep", "jpeg-padded", "cut-off", "other-vr", "explicit-said-implicit"))
