"""Cases that wait for an inference server: who is tried, when, and who never again by itself. Real cases and clocks."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pacsnode import schema
from pacsnode.archive.case_rows import Arrived, Pending
from pacsnode.archive.cases import Cases
from pacsnode.database import boot_us, utc_us
from pacsnode.handover import Candidate, Case, Completion
from pacsnode.infer.server import NO_SERVER, SERVER_FAILED
from pacsnode.live import load_site
from pacsnode.servers import FIRST_US, GIVE_UP_US, MOST_TRIES, Servers
from pacsnode.settings import Settings, load
from tests.infer.bundles import network_bundle
from tests.infer.inference_server import Inference, served_bundle

ABSENT, FAILED = f"{NO_SERVER} at triton:8000: Connection refused", f"{SERVER_FAILED} (triton:8000): status 500"
RULES = """\
version: 1
unmatched: keep
peers: {pacs: {ae_title: PACS, host: 127.0.0.1, port: 104, investigational: true}}
rules:
  - {name: film, when: {Modality: CR}, complete: {quiet: 1s}, run: served, results: [sr], send_to: [pacs]}
"""


@dataclass
class World:
    """The cases of a node with one service on a server and one that runs here."""

    settings: Settings
    cases: Cases
    servers: Servers

    def open(self, key: str, service: str = "served", *, reason: str = "", age_us: int = 0) -> None:
        """A case, parked for a reason, or waiting for its turn."""
        candidate = Candidate("1.2.3", service, ("film",), ("1.2.3.1",), ("sr",), ("pacs",), 10, Completion(1.0))
        case = Case(key, "1.2.3", service, ("film",), "rules", ("1.2.3.1",), ("sr",), utc_us() - age_us)
        self.cases.open(Pending(0, candidate, "rules", Arrived(0, "boot", 0, ("x",)), False), case, "quiet")
        if reason:
            self.cases.park(key, 1, reason)

    def states(self) -> dict[str, str]:
        return {one.case.key: one.state for one in self.cases.listing("", 100)}

    def later(self, seconds: float) -> None:
        """As if all that is parked had been for so long."""
        connection = sqlite3.connect(self.settings.node_db)
        with connection:
            connection.execute("UPDATE cases SET finished_utc_us = finished_utc_us - ?", (int(seconds * 1e6),))
        connection.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    models, rules = tmp_path / "models", tmp_path / "rules.yaml"
    rules.write_text(RULES)
    served_bundle(models, Inference(port=9), name="served")
    network_bundle(models, name="here")
    settings = load(home=tmp_path / "home", rules=rules, models=models)
    schema.migrate(settings)
    site, cases = load_site(settings), Cases(settings.node_db)
    yield World(settings, cases, Servers(cases, lambda: site))
    cases.close()


def test_of_those_without_a_server_one_is_tried_and_the_rest_goes_on_with_its_answer(world: World) -> None:
    for key in ("a", "b", "c"):
        world.open(key, reason=ABSENT)
    next_look = world.servers.look()
    assert next_look is not None
    assert 0 < next_look - boot_us() <= FIRST_US
    assert set(world.states().values()) == {"parked"}
    time.sleep((next_look - boot_us()) / 1e6 + 0.01)
    assert world.servers.look() is not None
    assert world.states() == {"a": "waiting", "b": "parked", "c": "parked"}
    world.servers.look()
    assert world.states() == {"a": "waiting", "b": "parked", "c": "parked"}, "more than one was tried at once"
    world.servers.answered("served")
    assert world.servers.look() is None
    assert set(world.states().values()) == {"waiting"}


def test_who_was_tried_last_is_tried_again_last(world: World) -> None:
    world.open("a", reason=ABSENT)
    world.later(10)
    world.open("b", reason=ABSENT)
    world.servers.look()
    time.sleep(FIRST_US / 1e6 + 0.01)
    world.servers.look()
    assert world.states() == {"a": "waiting", "b": "parked"}
    world.cases.park("a", 2, ABSENT)
    time.sleep(2 * FIRST_US / 1e6 + 0.01)
    world.servers.look()
    assert world.states() == {"a": "parked", "b": "waiting"}


def test_a_case_at_which_the_server_failed_is_tried_again_by_itself_and_not_for_ever(world: World) -> None:
    world.open("a", reason=FAILED)
    next_look = world.servers.look()
    assert next_look is not None and 0 < next_look - boot_us() <= 5_000_000
    world.servers.answered("served")
    world.servers.look()
    assert world.states() == {"a": "parked"}, "the answer to another case says nothing of this one"
    for attempt in range(2, MOST_TRIES + 1):
        world.later(900)
        world.servers.look()
        assert world.states() == {"a": "waiting"}, attempt
        world.cases.park("a", attempt, FAILED)
    world.later(86_400)
    assert world.servers.look() is None
    assert world.states() == {"a": "parked"}


def test_others_and_old_ones_stay_where_they_are(world: World) -> None:
    world.open("old", reason=ABSENT, age_us=GIVE_UP_US + 1)
    world.open("here", "here", reason=ABSENT)
    world.open("shape", reason="the inference server triton:8000 gives scores in no shape")
    assert world.servers.look() is None
    world.servers.answered("served")
    world.servers.look()
    assert set(world.states().values()) == {"parked"}


def test_cases_of_a_server_take_no_place_from_those_that_run_here(world: World) -> None:
    for n in range(4):
        world.open(f"served-{n}", age_us=1000 - n)
        world.open(f"here-{n}", "here", age_us=500 - n)
    served = world.servers.services()
    assert served == {"served"}
    taken = [
        [one.case.key for one in world.cases.take(2, (), served, is_served=is_served)] for is_served in (True, False)
    ]
    assert taken == [["served-0", "served-1"], ["here-0", "here-1"]]
    assert world.cases.take(2, (), served, is_served=True) == []
    assert world.cases.take(2, (), served, is_served=False) == []
