"""What the compute child does when nobody asks for anything."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pacsnode.infer.compute import ComputeKeeper

ROOT = Path(__file__).parents[2]
PROGRAM = """
import pathlib, sys
from pacsnode.infer import compute
path = pathlib.Path(sys.argv[1])
def rest():
    path.write_text((path.read_text() if path.exists() else "") + "rested ")
compute.serve({"echo": lambda request: request}, rest=rest, rest_after_s=0.05)
"""


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_child_that_is_asked_nothing_for_a_while_rests_once(tmp_path: Path) -> None:
    rested = tmp_path / "rested"
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    keeper = ComputeKeeper([sys.executable, "-c", PROGRAM, str(rested)], environment)
    try:
        keeper.call("echo", {}, time_limit_s=30, memory_limit_mb=2000)
        wait_until(rested.exists)
        time.sleep(0.3)
        assert rested.read_text() == "rested "
        assert keeper.call("echo", {"said": "again"}, time_limit_s=30, memory_limit_mb=2000) == {"said": "again"}
        wait_until(lambda: rested.read_text() == "rested rested ")
    finally:
        keeper.close()
