"""After kill -9 or a lost index: what was acknowledged is there, bit for bit, and what was torn is gone."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pacsnode import schema
from pacsnode.archive.files import PREAMBLE
from pacsnode.archive.recovery import recover
from pacsnode.errors import Rejected
from pacsnode.settings import Settings
from tests.archive.homes import archive, data_set, held_bytes, home, on_disk, request, restart, rows, store

META_LENGTH = b"\x02\x00\x00\x00UL\x04\x00\x20\x00\x00\x00"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path)


def store_and_stop(settings: Settings, *objects: tuple[str, bytes], owner: str = "scp") -> None:
    """One start, these objects, one clean stop."""
    node = archive(settings, owner=owner)
    for uid, data in objects:
        store(node, data, request(uid))
    node.close()


def lose_the_index(settings: Settings) -> None:
    """What an operator does whose index.db is damaged."""
    for path in settings.home.glob("index.db*"):
        path.unlink()
    schema.migrate(settings)


def paths_with_rows(settings: Settings) -> set[str]:
    return {str(path) for (path,) in rows(settings, "SELECT path FROM instances UNION ALL SELECT path FROM aside")}


def paths_on_disk(settings: Settings) -> set[str]:
    return {str(path.relative_to(settings.files)) for path in on_disk(settings)}


def test_every_acknowledged_object_outlives_kill_9(settings: Settings) -> None:
    chance = random.Random(20261122)
    acknowledged: dict[str, str] = {}
    for _ in range(5):
        command = [sys.executable, "-m", "tests.archive.homes", str(settings.home), "scp"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline()]  # it is storing now
            time.sleep(chance.uniform(0.0, 0.25))
            process.kill()
            lines += process.stdout.readlines()
        acknowledged |= dict(line.split() for line in lines if line.endswith("\n"))
    restart(settings)
    assert len(acknowledged) >= 5
    for uid, sha256 in acknowledged.items():
        assert hashlib.sha256(held_bytes(settings, uid)).hexdigest() == sha256
    assert paths_with_rows(settings) == paths_on_disk(settings)
    assert rows(settings, "SELECT * FROM epochs WHERE sealed = 0") == []


def tear(whole: Path, how: str) -> None:
    """What a power cut leaves of a file that was never acknowledged: the name, and not all of the bytes."""
    size = whole.stat().st_size
    with whole.open("r+b") as file:
        if how == "empty":
            file.truncate(0)
        elif how == "in the preamble":
            file.truncate(100)
        elif how == "in the meta header":
            file.truncate(300)
        elif how == "in the data set":
            file.truncate(size - 100)
        elif how == "never written":
            file.truncate(0)
            file.truncate(size)
        elif how == "a block missing":
            file.seek(size - 100)
            file.write(bytes(50))
        else:
            assert how == "without its checksum"
            content = whole.read_bytes()
            at = content.index(b'{"xxh3_128": "') + 14
            file.seek(at)
            file.write(b"0" * 32)


TORN = (
    "empty",
    "in the preamble",
    "in the meta header",
    "in the data set",
    "never written",
    "a block missing",
    "without its checksum",
)


@pytest.mark.parametrize("how", TORN)
def test_a_torn_file_is_removed_and_never_indexed(settings: Settings, how: str) -> None:
    store_and_stop(settings, ("1.2.3.4", data_set("1.2.3.4")))
    tear(on_disk(settings)[0], how)
    rows(settings, "UPDATE epochs SET sealed = 0")
    rows(settings, "DELETE FROM instances")
    report = restart(settings)
    assert (report.torn_removed, report.rows_restored, report.unreadable) == (1, 0, 0)
    assert on_disk(settings) == []
    assert rows(settings, "SELECT * FROM instances") == []


@pytest.mark.parametrize("how", TORN)
def test_a_damaged_file_stays_where_nobody_knows_what_was_acknowledged(settings: Settings, how: str) -> None:
    store_and_stop(settings, ("1.2.3.4", data_set("1.2.3.4")), ("1.2.3.5", data_set("1.2.3.5")))
    torn, whole = on_disk(settings)
    tear(torn, how)
    lose_the_index(settings)
    for restored in (1, 0):
        report = restart(settings)
        assert (report.torn_removed, report.rows_restored, report.unreadable) == (0, restored, 1)
    assert on_disk(settings) == [torn, whole]


def test_rows_that_a_power_cut_took_are_put_back(settings: Settings) -> None:
    objects = [(f"1.2.3.{n}", data_set(f"1.2.3.{n}", StudyDescription="흉부")) for n in range(6)]
    store_and_stop(settings, *objects)
    before = rows(
        settings,
        "SELECT sop_instance_uid, path, dataset_sha256, peer, attributes, own "
        "FROM instances JOIN common ON id = common",
    )
    rows(settings, "DELETE FROM instances WHERE sop_instance_uid > '1.2.3.1'")
    rows(settings, "UPDATE epochs SET sealed = 0")
    assert restart(settings).rows_restored == 4
    after = rows(
        settings,
        "SELECT sop_instance_uid, path, dataset_sha256, peer, attributes, own "
        "FROM instances JOIN common ON id = common",
    )
    assert after == before
    assert rows(settings, "SELECT sealed FROM epochs") == [(1,)]


def test_a_sealed_epoch_is_not_read_again(settings: Settings) -> None:
    store_and_stop(settings, ("1.2.3.4", data_set("1.2.3.4")))
    rows(settings, "DELETE FROM instances")
    assert restart(settings).epochs == 0
    assert rows(settings, "SELECT * FROM instances") == []


def test_an_epoch_of_another_role_is_left_to_it(settings: Settings) -> None:
    store_and_stop(settings, ("1.2.3.4", data_set("1.2.3.4")), owner="work")
    rows(settings, "DELETE FROM instances")
    rows(settings, "UPDATE epochs SET sealed = 0")
    assert restart(settings, "scp").epochs == 0
    assert restart(settings, "work").rows_restored == 1


def test_a_lost_index_is_built_again_from_the_files(settings: Settings) -> None:
    objects = [(f"1.2.3.{n}", data_set(f"1.2.3.{n}")) for n in range(6)]
    store_and_stop(settings, *objects[:3])
    store_and_stop(settings, *objects[3:])
    lose_the_index(settings)
    assert restart(settings).rows_restored == 6
    for uid, data in objects:
        assert held_bytes(settings, uid) == data
    assert rows(settings, "SELECT issuer, patient_id, conflict FROM studies") == [("CLINIC", "4711", "")]
    assert restart(settings).epochs == 0


def test_a_new_object_after_a_lost_index_never_touches_an_old_file(settings: Settings) -> None:
    """Epochs are counted anew then: the number of the new one must not be that of a folder that is there."""
    store_and_stop(settings, ("1.2.3.4", data_set("1.2.3.4")))
    (old,) = on_disk(settings)
    lose_the_index(settings)
    node = archive(settings)
    store(node, data_set("1.2.3.5"), request("1.2.3.5"))
    (new,) = set(on_disk(settings)) - {old}
    assert new.parts[-3] > old.parts[-3]
    assert recover(node, settings.index_db).rows_restored == 1
    node.close()
    assert held_bytes(settings, "1.2.3.4") == data_set("1.2.3.4")


def test_results_of_ours_are_known_as_ours_after_a_lost_index(settings: Settings) -> None:
    node = archive(settings, owner="work")
    writer = node.open(request("1.2.3.4", peer="", issuer=""), "result")
    writer.write([data_set("1.2.3.4")])
    writer.commit()
    node.close()
    lose_the_index(settings)
    restart(settings)
    assert rows(settings, "SELECT origin FROM instances") == [("result",)]
    assert rows(settings, "SELECT * FROM studies") == []


def test_the_first_of_two_objects_under_one_uid_stays_the_first(settings: Settings) -> None:
    for number in range(8):
        uid = f"1.2.3.{number}"
        store_and_stop(settings, (uid, data_set(uid)), (uid, data_set(uid, Modality="MR")))
    lose_the_index(settings)
    restart(settings)
    for number in range(8):
        assert held_bytes(settings, f"1.2.3.{number}") == data_set(f"1.2.3.{number}")
    assert rows(settings, "SELECT count(*) FROM aside") == [(8,)]


def test_what_was_kept_aside_is_aside_again_after_a_lost_index(settings: Settings) -> None:
    node = archive(settings)
    with pytest.raises(Rejected):
        store(node, b"\x08\x00\x05\x00CS\xff\xffnot a data set", request("1.2.3.4"))
    node.close()
    reasons = rows(settings, "SELECT path, reason FROM aside")
    lose_the_index(settings)
    restart(settings)
    assert rows(settings, "SELECT path, reason FROM aside") == reasons


def test_a_copy_that_was_not_indexed_before_the_kill_is_removed(settings: Settings) -> None:
    store_and_stop(settings, ("1.2.3.4", data_set("1.2.3.4")))
    (first,) = on_disk(settings)
    first.with_name("copy.dcm").write_bytes(first.read_bytes())
    rows(settings, "UPDATE epochs SET sealed = 0")
    restart(settings)
    assert on_disk(settings) == [first]
    assert held_bytes(settings, "1.2.3.4") == data_set("1.2.3.4")


@pytest.mark.parametrize("content", [b"not DICOM", b"not DICOM" * 100, PREAMBLE + META_LENGTH + bytes(64)])
def test_an_unreadable_file_stays_and_is_reported_at_each_start(settings: Settings, content: bytes) -> None:
    store_and_stop(settings, ("1.2.3.4", data_set("1.2.3.4")))
    (whole,) = on_disk(settings)
    strange = whole.with_name("strange.dcm")
    strange.write_bytes(content)
    rows(settings, "UPDATE epochs SET sealed = 0")
    rows(settings, "DELETE FROM instances")
    for restored in (1, 0):
        report = restart(settings)
        assert (report.unreadable, report.rows_restored) == (1, restored)
    assert strange.read_bytes() == content


def test_an_object_that_the_index_cannot_take_does_not_stop_the_start(settings: Settings) -> None:
    store_and_stop(settings, *[(f"1.2.3.{n}", data_set(f"1.2.3.{n}")) for n in range(3)])
    rows(settings, "DELETE FROM instances")
    rows(settings, "UPDATE epochs SET sealed = 0")
    rows(
        settings,
        "CREATE TRIGGER fault BEFORE INSERT ON instances WHEN new.sop_instance_uid = '1.2.3.1' "
        "BEGIN SELECT RAISE(ABORT, 'of no use'); END",
    )
    report = restart(settings)
    assert (report.rows_restored, report.unreadable) == (2, 1)
    assert len(on_disk(settings)) == 3
