"""Retention: what may go, why the rest stays, and that a killed removal loses nothing and leaves nothing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pacsnode.archive.retention import OBSTACLES, Keep
from pacsnode.database import connect
from tests.archive import homes, retained
from tests.archive.retained import PACS, Home

STUDY = "1.2.3"
CASE = (
    "INSERT INTO cases (key, study_instance_uid, service, rules, rules_hash, instances, results, send_to, priority, "
    "state, whole_because, started_utc_us) VALUES ('k', '1.2.3', 's', '[]', 'r', '[]', '[]', '[]', 1, ?, 'quiet', 1)"
)
OWED = (
    "INSERT INTO outbox (sop_instance_uid, destination, case_key, study_instance_uid, state, priority, "
    "next_attempt_utc_us, created_utc_us) VALUES ('1.9', 'pacs', 'k', '1.2.3', ?, 1, 1, 1)"
)
CANDIDATE = (
    "INSERT INTO candidates (study_instance_uid, candidate, rules_hash, last_received_boot_us, boot_id) "
    "VALUES ('1.2.3', '{}', 'r', 1, 'b')"
)
ASIDE = "INSERT INTO aside VALUES ('00000001/00/x.dcm', ?, ?, 'h', 'other bytes', ?, 'CT', '192.0.2.7', 1)"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(homes.home(tmp_path))


def test_what_is_old_and_confirmed_goes_and_its_tombstones_stay(home: Home) -> None:
    gone, stays = home.hold(STUDY, 3), home.hold("1.2.4")
    ours = "1.2.3.900"
    into = homes.archive(home.settings)
    writer = into.open(homes.request(ours, peer=""), "result")
    writer.write([homes.data_set(ours, study=STUDY)])
    writer.commit()
    into.close()
    home.answered(gone)
    assert home.standings() == {STUDY: "", "1.2.4": "unconfirmed"}
    assert (home.remove(STUDY), home.remove("1.2.4")) == (3, 0)
    assert home.held() == {*stays, ours}
    assert len(home.files()) == 3
    assert home.tombstones() == {uid: hashlib.sha256(home.data[uid]).hexdigest() for uid in gone}
    assert home.rows("SELECT DISTINCT study_instance_uid, archive FROM tombstones") == [(STUDY, PACS)]
    assert home.rows("SELECT study_instance_uid FROM studies") == [("1.2.4",)]
    assert not home.listed()
    assert home.rows("SELECT * FROM confirmations") == []
    used = home.rows("SELECT DISTINCT common FROM instances ORDER BY common")
    assert home.rows("SELECT id FROM common ORDER BY id") == used, "what was common to removed images is gone too"
    assert home.remove(STUDY) == 0


def test_nothing_goes_while_retention_is_off_or_the_study_is_young(home: Home) -> None:
    home.answered(home.hold(STUDY))
    for keep in (None, Keep(0.5, PACS)):
        home.keep = keep
        assert home.standings() == {}
        assert home.remove(STUDY) == 0
        with closing(home.retention()) as retention:
            survey = retention.survey()
            assert (survey.studies, survey.younger_studies) == (0, 1)
            assert list(retention.unproven()) == []
    assert len(home.files()) == 2


OBSTACLE_BY_CAUSE: list[tuple[str, Callable[[Home], object]]] = [
    ("conflict", lambda home: home.rows("UPDATE studies SET conflict = 'PatientID differs'")),
    ("aside", lambda home: home.rows(ASIDE, "1.2.3.1.0", "1.2.99", "ct-1")),
    ("aside", lambda home: home.rows(ASIDE, "1.2.3.77", STUDY, "ct-1")),
    ("undecided", lambda home: home.rows("UPDATE studies SET revision = revision + 1")),
    ("undecided", lambda home: home.node("DELETE FROM decisions")),
    ("unfinished", lambda home: home.node(CANDIDATE)),
    ("unfinished", lambda home: home.node(CASE, "waiting")),
    ("unfinished", lambda home: home.node(CASE, "running")),
    ("unfinished", lambda home: home.node(CASE, "parked")),
    ("owed", lambda home: home.node(OWED, "owed")),
    ("unhashed", lambda home: home.rows("UPDATE instances SET dataset_sha256 = '' WHERE path > ''")),
    ("unconfirmed", lambda home: home.rows("UPDATE instances SET dataset_sha256 = 'other bytes'")),
    ("unconfirmed", lambda home: home.rows("UPDATE confirmations SET told_utc_us = told_utc_us - 8 * 86400000000")),
    ("unconfirmed", lambda home: home.rows("UPDATE confirmations SET archive = 'another'")),
    ("lacking", lambda home: home.answered(["1.2.3.1.1"], failure=0x0112)),
]


@pytest.mark.parametrize(("obstacle", "cause"), OBSTACLE_BY_CAUSE)
def test_one_reason_keeps_the_whole_study(home: Home, obstacle: str, cause: Callable[[Home], object]) -> None:
    home.answered(home.hold(STUDY))
    assert home.standings() == {STUDY: ""}
    cause(home)
    assert home.standings() == {STUDY: obstacle}
    assert home.remove(STUDY) == 0
    assert len(home.held()) == len(home.files()) == 2
    with closing(home.retention()) as retention:
        survey = retention.survey()
    assert (survey.studies, survey.staying_studies, survey.staying_instances) == (0, {obstacle: 1}, {obstacle: 2})


def test_every_obstacle_is_tried() -> None:
    assert {obstacle for obstacle, _ in OBSTACLE_BY_CAUSE} == set(OBSTACLES)


@pytest.mark.parametrize(
    "cause",
    [
        lambda home: home.node(CASE, "done"),
        lambda home: home.node(OWED, "sent"),
        lambda home: home.node(OWED, "parked"),
        lambda home: home.rows(ASIDE, "1.2.3.1.0", STUDY, "quarantine"),
    ],
)
def test_what_has_ended_and_what_unknown_callers_sent_keeps_nothing(
    home: Home, cause: Callable[[Home], object]
) -> None:
    home.answered(home.hold(STUDY))
    cause(home)
    assert home.remove(STUDY) == 2


def test_a_study_of_which_one_image_is_not_confirmed_stays_whole(home: Home) -> None:
    uids = home.hold(STUDY, 3)
    home.answered(uids[:2])
    assert home.standings() == {STUDY: "unconfirmed"}
    with closing(home.retention()) as retention:
        assert [one.sop_instance_uid for one in retention.unproven()] == [uids[2]]


def test_the_archive_is_asked_again_about_what_it_lacked_a_day_later(home: Home) -> None:
    uids = home.hold(STUDY)
    home.answered(uids, failure=0x0112)
    with closing(home.retention()) as retention:
        assert list(retention.unproven()) == []
        home.rows("UPDATE confirmations SET told_utc_us = told_utc_us - 86400000001")
        assert list(retention.unproven()) == home.asked(*uids)
    home.answered(uids)
    assert home.standings() == {STUDY: ""}


def test_images_that_come_again_are_new_ones(home: Home) -> None:
    uids = home.hold(STUDY)
    home.answered(uids)
    assert home.remove(STUDY) == 2
    assert home.hold(STUDY) == uids
    assert home.held() == set(uids)
    assert home.standings() == {STUDY: "unconfirmed"}
    home.answered(uids)
    assert home.remove(STUDY) == 2
    assert set(home.tombstones()) == set(uids)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_removal_that_is_killed_is_ended_by_the_next_one(home: Home, count: int) -> None:
    uids, others = home.hold(STUDY, 5), home.hold("1.2.4")
    home.answered(uids)
    before = home.files()
    arguments = [str(home.settings.home), STUDY, str(count)]
    killed = subprocess.run([sys.executable, "-m", retained.__name__, *arguments], cwd=Path.cwd(), check=False)
    assert killed.returncode == -9
    assert home.held() == set(others)
    assert set(home.tombstones()) == set(uids)
    assert len(home.listed()) == 5
    assert len(home.files()) == len(before) - (count - 1)
    assert len(home.listed() & home.files()) == 5 - (count - 1)
    homes.restart(home.settings)
    assert home.held() == set(others)
    with closing(home.retention()) as retention:
        assert retention.finish() == 5
    assert not home.listed()
    assert len(home.files()) == 2


def test_recovery_gives_no_row_to_a_file_that_is_going(home: Home) -> None:
    uids = home.hold(STUDY, 3)
    home.answered(uids)
    arguments = [str(home.settings.home), STUDY, "2"]
    subprocess.run([sys.executable, "-m", retained.__name__, *arguments], cwd=Path.cwd(), check=False)
    home.rows("UPDATE epochs SET sealed = 0")
    homes.restart(home.settings)
    assert home.held() == set()
    assert len(home.listed()) == 3


def test_what_is_going_is_told_by_epoch(home: Home) -> None:
    from pacsnode.archive.retention import going

    for path in ("00000001/00/a.dcm", "00000001/0f/b.dcm", "00000002/00/c.dcm", "000000011/00/d.dcm"):
        home.rows("INSERT INTO unlinking VALUES (?)", path)
    with closing(connect(home.settings.index_db, "NORMAL")) as connection:
        assert going(connection, "00000001") == {"00000001/00/a.dcm", "00000001/0f/b.dcm"}


def test_a_file_that_cannot_be_removed_stays_listed_and_the_others_go(home: Home) -> None:
    uids = home.hold(STUDY, 3)
    home.answered(uids)
    ((path,),) = home.rows("SELECT path FROM instances WHERE sop_instance_uid = ?", uids[1])
    stuck = home.settings.files / str(path)
    stuck.unlink()
    stuck.mkdir()
    assert home.remove(STUDY) == 3
    assert home.listed() == {str(path)}
    assert not home.files()
    stuck.rmdir()
    with closing(home.retention()) as retention:
        assert retention.finish() == 1
    assert not home.listed()


def test_a_file_that_is_gone_already_is_no_error(home: Home) -> None:
    home.answered(home.hold(STUDY))
    for path in homes.on_disk(home.settings):
        path.unlink()
    assert home.remove(STUDY) == 2
    assert not home.listed()
