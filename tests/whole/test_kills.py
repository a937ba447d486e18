"""Five of the random kills; `scripts/soak kills` runs the full count."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import run_kills


@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_and_every_case_ends_though_processes_are_killed(tmp_path: Path) -> None:
    outcome = run_kills(tmp_path, rounds=5, seed=20261122)
    assert outcome.lost == []
    assert outcome.unfinished == []
    assert outcome.second_uids == []
    assert outcome.acknowledged >= 5
