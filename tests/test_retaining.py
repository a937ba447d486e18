"""A sweep of retention: finish, ask, remove, raise the alarm; one at a time, and nothing without the archive's word."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacsnode import database
from pacsnode.errors import ConfigError
from pacsnode.peers import Directory, Peer
from pacsnode.retaining import LOCK, Swept, archive_peer, sweep
from pacsnode.settings import Settings, load
from tests.archive import homes
from tests.archive.retained import Home
from tests.deliver.archives import ArchivePeer
from tests.receive.doubles import free_port

STUDY = "1.2.3"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    settings = load(
        home=homes.home(tmp_path).home,
        retention_keep_days=1e-9,
        retention_archive="main-pacs",
        minimum_free_mb=1,
    )
    return Home(settings)


def peers(port: int | None, **values: object) -> Directory:
    peer = {"name": "main-pacs", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
    return Directory({"main-pacs": Peer.model_validate(peer | values)})


def swept(settings: Settings, port: int) -> Swept:
    return sweep(settings, peers(port), lambda: False)


def test_a_sweep_asks_and_removes_what_was_confirmed_at_once(home: Home) -> None:
    home.hold(STUDY, 3)
    with ArchivePeer().running() as archive:
        assert swept(home.settings, archive.port) == Swept(0, 3, 3, "", "")
        assert swept(home.settings, archive.port) == Swept(0, 0, 0, "", "")
        assert len(archive.asked) == 1
    assert not home.files()


def test_an_archive_that_is_down_stops_no_removal_that_was_begun_and_starts_none(home: Home) -> None:
    home.hold(STUDY)
    left = home.settings.files / "00000001" / "00" / "left.dcm"
    left.write_bytes(b"killed here")
    home.rows("INSERT INTO unlinking VALUES ('00000001/00/left.dcm')")
    done = swept(home.settings, free_port())
    assert (done.unlinked, done.asked, done.removed) == (1, 0, 0)
    assert "no connection to 127.0.0.1" in done.problem
    assert len(home.held()) == len(home.files()) == 2


def test_what_is_waiting_for_an_answer_is_not_asked_again(home: Home) -> None:
    home.hold(STUDY)
    with ArchivePeer(how="abort").running() as archive:
        assert swept(home.settings, archive.port).asked == 2
        home.hold("1.2.4")
        assert swept(home.settings, archive.port).asked == 2
        assert swept(home.settings, archive.port).asked == 0
    home.rows("UPDATE questions SET asked_utc_us = asked_utc_us - 86400000001")
    with ArchivePeer().running() as archive:
        assert swept(home.settings, archive.port) == Swept(0, 4, 4, "", "")


def test_a_full_disk_is_told_and_makes_nothing_go(home: Home) -> None:
    home.hold(STUDY)
    full = home.settings.model_copy(update={"minimum_free_mb": 10**9})
    with ArchivePeer(has=set()).running() as archive:
        done = swept(full, archive.port)
    assert done.alarm == "1 studies: the archive says that it does not have all of it"
    off = full.model_copy(update={"retention_keep_days": 0.0})
    assert swept(off, 1) == Swept(0, 0, 0, "", "retention is off")
    assert len(home.files()) == 2


def test_one_process_at_a_time(home: Home) -> None:
    with (
        database.locked(home.settings.home / LOCK, wait=False),
        pytest.raises(ConfigError, match="at work in another process"),
    ):
        swept(home.settings, 1)


def test_an_archive_that_cannot_be_asked_is_a_mistake_of_the_settings(home: Home) -> None:
    assert archive_peer(home.settings, peers(104)) is not None
    for wrong, why in (
        (peers(None), "no port"),
        (peers(1, host="10.0.0.0/8"), "a network"),
        (Directory({}), "no peer"),
    ):
        with pytest.raises(ConfigError, match=why):
            archive_peer(home.settings, wrong)
    off = home.settings.model_copy(update={"retention_keep_days": 0.0})
    assert archive_peer(off, Directory({})) is None
