"""The doorbell: rings wake, many are one, nobody listening is no error."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pacsnode.doorbell import RECEIVED_EVERY_S, Bell, Doorbell


def test_a_ring_wakes_and_many_rings_are_one(tmp_path: Path) -> None:
    door, bell = Doorbell(tmp_path / "bell"), Bell(tmp_path / "bell")
    assert not door.wait(0)
    for _ in range(10_000):  # more than the queue of the socket holds
        bell.ring()
    assert door.wait(20)
    assert not door.wait(0)
    door.close()
    bell.close()


def test_a_ring_with_nobody_listening_is_no_error(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell")
    bell.ring()
    door = Doorbell(tmp_path / "bell")
    door.close()
    bell.ring()
    (tmp_path / "bell").unlink()
    (tmp_path / "bell").write_text("no socket")
    bell.ring()
    bell.close()
    bell.ring()  # an object may be settled after the bell was given back


def test_a_new_listener_takes_over_from_one_that_was_killed(tmp_path: Path) -> None:
    dead = Doorbell(tmp_path / "bell")
    bell = Bell(tmp_path / "bell")
    dead.close()  # its socket file is still there
    door = Doorbell(tmp_path / "bell")
    bell.ring()
    assert door.wait(20)
    door.close()
    bell.close()


def test_a_home_with_a_long_path_has_a_doorbell_too(tmp_path: Path) -> None:
    folder = tmp_path / ("한" * 60) / ("b" * 100)
    folder.mkdir(parents=True)
    door, bell = Doorbell(folder / "bell"), Bell(folder / "bell")
    bell.ring()
    assert door.wait(20)
    door.close()
    bell.close()


def test_another_process_can_ring(tmp_path: Path) -> None:
    door = Doorbell(tmp_path / "bell")
    code = (
        f"from pathlib import Path; from pacsnode.doorbell import Bell; Bell(Path({str(tmp_path / 'bell')!r})).ring()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert door.wait(0)
    door.close()


def test_a_bell_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        door, bell = Doorbell(tmp_path / "bell"), Bell(tmp_path / "bell")
        bell.close()
        door.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_negative_wait_is_a_look(tmp_path: Path) -> None:
    door = Doorbell(tmp_path / "bell")
    assert not door.wait(-5)
    door.close()


def test_a_home_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Bell(tmp_path / "absent" / "bell")


def test_images_that_come_in_are_told_apart_from_what_is_to_be_done_at_once(tmp_path: Path) -> None:
    door, bell = Doorbell(tmp_path / "bell"), Bell(tmp_path / "bell")
    for _ in range(1000):
        bell.received()
    assert door.wait(20) == "received"
    time.sleep(RECEIVED_EVERY_S)
    bell.received()  # the thousand did not use up the right to tell
    assert door.wait(20) == "received"
    time.sleep(RECEIVED_EVERY_S)
    bell.received()
    bell.ring()
    assert door.wait(20) == "now"
    assert door.wait(0) == ""
    door.close()
    bell.close()
