"""The archive's way in: what is kept, what is refused, what the peer may believe."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
import xxhash

from pacsnode.archive import rows as archive_rows
from pacsnode.archive.digests import Digests
from pacsnode.archive.files import Arrival
from pacsnode.archive.index import Index
from pacsnode.archive.store import Archive
from pacsnode.errors import Rejected
from pacsnode.settings import Settings
from tests.archive.homes import CT, EXPLICIT, archive, data_set, held_bytes, home, on_disk, request, rows, store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path)


@pytest.fixture
def node(settings: Settings) -> Iterator[Archive]:
    made = archive(settings)
    yield made
    made.close()


def test_files_are_named_in_the_order_in_which_they_came(settings: Settings, node: Archive) -> None:
    for number in range(20):
        store(node, data_set(f"1.2.{number}"), request(f"1.2.{number}"))
    paths = [path for (path,) in rows(settings, "SELECT path FROM instances ORDER BY received_utc_us")]
    assert paths == sorted(paths, key=str)
    assert len({len(str(path)) for path in paths}) == 1


def test_a_whole_object_becomes_a_part_10_file_with_the_bytes_as_they_came(settings: Settings, node: Archive) -> None:
    data = data_set("1.2.3.4", PatientName="홍^길동")
    assert store(node, data, request("1.2.3.4")).verdict == "stored"
    assert held_bytes(settings, "1.2.3.4") == data
    (path,) = on_disk(settings)
    meta = pydicom.dcmread(path).file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, "1.2.3.4")
    assert meta.TransferSyntaxUID == EXPLICIT
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_meta_header_says_how_the_object_came(settings: Settings, node: Archive) -> None:
    store(node, data_set("1.2.3.4"), request("1.2.3.4"))
    meta = pydicom.dcmread(on_disk(settings)[0]).file_meta
    said = json.loads(meta.PrivateInformation.rstrip(b"\0"))
    del said["received_utc_us"]
    assert said.pop("xxh3_128") == xxhash.xxh3_128(data_set("1.2.3.4")).hexdigest()
    assert said == {
        "peer": "ct-1",
        "issuer": "CLINIC",
        "calling_ae_title": "CT1",
        "called_ae_title": "PACSNODE",
        "address": "192.0.2.7",
    }
    assert meta.SendingApplicationEntityTitle == "CT1"


def test_no_path_is_made_of_a_uid_from_the_wire(settings: Settings, node: Archive) -> None:
    store(node, data_set("1.2.3.4"), request("1.2.3.4"))
    assert "1.2.3" not in str(on_disk(settings)[0].relative_to(settings.home))


def test_the_same_bytes_again_are_a_duplicate_and_leave_one_file(settings: Settings, node: Archive) -> None:
    data = data_set("1.2.3.4")
    store(node, data, request("1.2.3.4"))
    assert store(node, data, request("1.2.3.4", peer="ct-2")).verdict == "duplicate"
    assert len(on_disk(settings)) == 1
    assert held_bytes(settings, "1.2.3.4") == data


def test_the_same_object_from_many_at_once_is_stored_once(settings: Settings, node: Archive) -> None:
    data = data_set("1.2.3.4")
    with ThreadPoolExecutor(8) as pool:
        verdicts = sorted(s.verdict for s in pool.map(lambda _: store(node, data, request("1.2.3.4")), range(32)))
    assert verdicts == ["duplicate"] * 31 + ["stored"]
    assert len(on_disk(settings)) == 1
    assert held_bytes(settings, "1.2.3.4") == data


def test_other_bytes_under_a_held_uid_are_kept_aside_and_the_first_stays(settings: Settings, node: Archive) -> None:
    first, second = data_set("1.2.3.4"), data_set("1.2.3.4", Modality="MR")
    store(node, first, request("1.2.3.4"))
    assert [store(node, second, request("1.2.3.4")).verdict for _ in range(2)] == ["aside", "duplicate"]
    assert held_bytes(settings, "1.2.3.4") == first
    assert len(on_disk(settings)) == 2
    index = Index(settings.index_db)
    (aside,) = index.aside("1.2.3")
    index.close()
    assert "other bytes" in aside.reason
    assert (settings.files / aside.path).read_bytes().endswith(second)


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (data_set("1.2.3.5"), 0xA900, "SOPInstanceUID"),
        (data_set("1.2.3.4", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"), 0xA900, "SOPClassUID"),
        (data_set("1.2.3.4", StudyInstanceUID=""), 0xA900, "StudyInstanceUID"),
        (b"\x08\x00\x05\x00CS\xff\xffnot a data set", 0xC000, ""),
        (data_set("1.2.3.4")[:-9], 0xC000, ""),
    ],
)
def test_what_cannot_be_used_is_refused_and_kept_aside_once(
    settings: Settings, node: Archive, data: bytes, status: int, reason: str
) -> None:
    for _ in range(3):
        with pytest.raises(Rejected) as refused:
            store(node, data, request("1.2.3.4"))
        assert refused.value.status == status
        assert reason in refused.value.comment
    (path,) = on_disk(settings)
    assert path.read_bytes().endswith(data)
    assert rows(settings, "SELECT path FROM aside") == [(str(path.relative_to(settings.files)),)]
    assert rows(settings, "SELECT * FROM instances") == []
    # The device is set right and sends it again: it is stored.
    assert store(node, data_set("1.2.3.4"), request("1.2.3.4")).verdict == "stored"


@pytest.mark.parametrize("pieces", [[], [b""], [b"", memoryview(b"")]])
def test_a_data_set_of_no_bytes_is_refused_and_leaves_nothing(
    settings: Settings, node: Archive, pieces: list[bytes | memoryview]
) -> None:
    writer = node.begin(request("1.2.3.4"))
    writer.write(pieces)
    with pytest.raises(Rejected) as refused:
        writer.commit()
    assert refused.value.status == Rejected.CANNOT_UNDERSTAND
    assert on_disk(settings) == []


def test_an_aborted_object_leaves_nothing_and_its_epoch_can_be_sealed(settings: Settings) -> None:
    node = archive(settings)
    writer = node.begin(request("1.2.3.4"))
    writer.write([b"half"])
    writer.abort()
    node.close()
    assert on_disk(settings) == []
    assert rows(settings, "SELECT sealed FROM epochs") == [(1,)]


def test_two_names_in_one_study_are_a_conflict(settings: Settings, node: Archive) -> None:
    store(node, data_set("1.2.3.4"), request("1.2.3.4"))
    assert rows(settings, "SELECT conflict FROM studies") == [("",)]
    assert store(node, data_set("1.2.3.5", PatientName="Kim^Minji"), request("1.2.3.5")).verdict == "stored"
    assert rows(settings, "SELECT conflict FROM studies") == [("PatientName differs",)]
    store(node, data_set("1.2.3.6"), request("1.2.3.6"))
    assert rows(settings, "SELECT conflict FROM studies") == [("PatientName differs",)]


def test_a_name_of_four_groups_is_the_same_name_each_time(settings: Settings, node: Archive) -> None:
    for number, name in enumerate(("A^B=C=D=E", "A^B=C=D=E", "A^B=C=D=F")):
        data = data_set(f"1.2.3.{number}", PatientName="A^B=C=D^^^").replace(b"A^B=C=D^^^", name.encode() + b" ")
        assert store(node, data, request(f"1.2.3.{number}")).verdict == "stored"
    assert rows(settings, "SELECT conflict, revision FROM studies") == [("PatientName differs", 3)]


def test_one_patient_id_from_two_issuers_is_a_conflict(settings: Settings, node: Archive) -> None:
    store(node, data_set("1.2.3.4"), request("1.2.3.4", issuer="CLINIC-A"))
    store(node, data_set("1.2.3.5"), request("1.2.3.5", issuer="CLINIC-B"))
    assert rows(settings, "SELECT conflict FROM studies") == [("IssuerOfPatientID differs",)]


def test_a_name_that_came_later_is_compared_with_what_comes_after(settings: Settings, node: Archive) -> None:
    for number, name in enumerate(["", "Hong^Gildong", "Kim^Minji"]):
        store(node, data_set(f"1.2.3.{number}", PatientName=name), request(f"1.2.3.{number}"))
    assert rows(settings, "SELECT conflict FROM studies") == [("PatientName differs",)]


def test_a_full_disk_is_a700_and_cures_itself(settings: Settings, node: Archive) -> None:
    data = data_set("1.2.3.4", pixels=3 << 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(Rejected) as refused:
            store(node, data, request("1.2.3.4"))
        assert store(node, data_set("1.2.3.5"), request("1.2.3.5")).verdict == "stored"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.status == Rejected.OUT_OF_RESOURCES
    assert len(on_disk(settings)) == 1
    assert store(node, data, request("1.2.3.4")).verdict == "stored"
    assert held_bytes(settings, "1.2.3.4") == data


def test_below_the_watermark_the_answer_is_a700_and_results_of_ours_use_the_reserve(settings: Settings) -> None:
    node = archive(settings, minimum_free_mb=1 << 40)
    with pytest.raises(Rejected) as refused:
        node.begin(request("1.2.3.4"))
    assert refused.value.status == Rejected.OUT_OF_RESOURCES
    writer = node.open(request("1.2.3.4", peer=""), "result")
    writer.write([data_set("1.2.3.4")])
    assert writer.commit().verdict == "stored"
    node.close()
    assert rows(settings, "SELECT * FROM studies") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_without_room_for_row_or_epoch_is_a700_and_nothing_of_it_is_left(small_disk: Path) -> None:
    settings = home(small_disk)
    node = archive(settings)
    store(node, data_set("1.2.3.1"), request("1.2.3.1"))
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    for number in range(20):
        with pytest.raises(Rejected) as refused:
            node._free = (1 << 62, True)  # the watermark would answer first
            store(node, data_set(f"1.2.3.1{number}", pixels=2 * number), request(f"1.2.3.1{number}"))
        assert refused.value.status == Rejected.OUT_OF_RESOURCES
    assert len(on_disk(settings)) == 1
    ballast.unlink()
    assert store(node, data_set("1.2.3.10"), request("1.2.3.10")).verdict == "stored"
    node.close()


def test_no_room_for_an_epoch_is_a700_and_cures_itself(settings: Settings, node: Archive) -> None:
    shutil.rmtree(settings.files)
    with pytest.raises(Rejected) as refused:
        node.open(request("1.2.3.4"), "received")
    assert refused.value.status == Rejected.OUT_OF_RESOURCES
    settings.files.mkdir()
    assert store(node, data_set("1.2.3.4"), request("1.2.3.4")).verdict == "stored"


def test_objects_of_eight_writers_all_have_rows(settings: Settings, node: Archive) -> None:
    def send(writer: int) -> None:
        for number in range(50):
            uid = f"1.2.{writer}.{number}"
            assert store(node, data_set(uid, study=f"1.7.{number % 5}"), request(uid)).verdict == "stored"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))
    paths = {str(path.relative_to(settings.files)) for path in on_disk(settings)}
    assert len(paths) == 400
    assert {path for (path,) in rows(settings, "SELECT path FROM instances")} == paths
    assert rows(settings, "SELECT value FROM revision") == [(400,)]


def test_two_processes_worth_of_archives_never_share_an_epoch(settings: Settings) -> None:
    pair = archive(settings), archive(settings, owner="work")
    for number, node in enumerate(pair):
        store(node, data_set(f"1.2.3.{number}"), request(f"1.2.3.{number}"))
    for node in pair:
        node.close()
    assert len({path.parts[-3] for path in on_disk(settings)}) == 2


def test_a_row_that_the_index_cannot_take_does_not_harm_its_neighbours(settings: Settings, node: Archive) -> None:
    rows(
        settings,
        "CREATE TRIGGER fault BEFORE INSERT ON instances WHEN new.sop_instance_uid = '1.2.6.6' "
        "BEGIN SELECT RAISE(ABORT, 'of no use'); END",
    )

    def send(number: int) -> str:
        uid = f"1.2.6.{number}"
        try:
            return store(node, data_set(uid), request(uid)).verdict
        except Rejected as error:
            return f"{error.status:04X}"

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(64)))
    assert answers == ["stored"] * 6 + ["C000"] + ["stored"] * 57
    assert len(on_disk(settings)) == 63


def test_an_index_that_cannot_be_written_is_a700_and_leaves_no_file(settings: Settings, node: Archive) -> None:
    store(node, data_set("1.2.3.1"), request("1.2.3.1"))
    node._connection.execute("PRAGMA query_only=1")
    with pytest.raises(Rejected) as refused:
        store(node, data_set("1.2.3.4"), request("1.2.3.4"))
    assert refused.value.status == Rejected.OUT_OF_RESOURCES
    assert len(on_disk(settings)) == 1
    node._connection.execute("PRAGMA query_only=0")
    assert store(node, data_set("1.2.3.4"), request("1.2.3.4")).verdict == "stored"


def test_a_store_that_comes_while_the_archive_closes_is_answered(settings: Settings) -> None:
    node = archive(settings)
    writer = node.begin(request("1.2.3.4"))
    writer.write([data_set("1.2.3.4")])
    node.close()
    answers: list[int] = []

    def commit() -> None:
        try:
            writer.commit()
        except Rejected as error:
            answers.append(error.status)

    thread = threading.Thread(target=commit, daemon=True)
    thread.start()
    thread.join(20)
    assert answers == [Rejected.OUT_OF_RESOURCES]
    with pytest.raises(Rejected):
        node.begin(request("1.2.3.5"))
    assert on_disk(settings) == []


def test_a_clean_stop_leaves_every_epoch_sealed(settings: Settings) -> None:
    for start in range(3):
        node = archive(settings)
        for number in range(10):
            store(node, data_set(f"1.2.{start}.{number}"), request(f"1.2.{start}.{number}"))
        node.close()
    assert rows(settings, "SELECT sealed FROM epochs") == [(1,)] * 3


def test_an_epoch_is_not_sealed_while_a_file_of_it_waits_for_its_row(settings: Settings) -> None:
    node = archive(settings)
    writer = node.begin(request("1.2.3.4"))
    writer.write([data_set("1.2.3.4")])
    node.epochs.close()
    assert node.epochs.settled() == []
    writer.commit()
    assert node.epochs.settled() == [1]
    node.close()


def test_one_ring_tells_of_stored_objects_and_none_of_duplicates(settings: Settings) -> None:
    rung = threading.Semaphore(0)
    node = archive(settings, on_rows=rung.release)
    store(node, data_set("1.2.3.4"), request("1.2.3.4"))
    assert rung.acquire(timeout=20)
    store(node, data_set("1.2.3.4"), request("1.2.3.4"))
    node.close()
    assert not rung.acquire(blocking=False)


def test_damaged_data_sets_never_break_the_archive(settings: Settings, node: Archive) -> None:
    whole = data_set("1.2.3.4", PatientName="홍^길동", StudyDescription="CT Chest")
    for at in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        try:
            store(node, bytes(damaged), request("1.2.3.4"))
        except Rejected as error:
            assert error.status in (Rejected.DATA_SET_MISMATCH, Rejected.CANNOT_UNDERSTAND)
    known = {p for (p,) in rows(settings, "SELECT path FROM instances UNION ALL SELECT path FROM aside")}
    assert known == {str(path.relative_to(settings.files)) for path in on_disk(settings)}


def test_the_duplicate_verdict_asks_for_the_same_transfer_syntax_too(
    settings: Settings, node: Archive, tmp_path: Path
) -> None:
    store(node, data_set("1.2.3.4"), request("1.2.3.4"))
    connection = node._connection
    digests = Digests(settings.files, settings.index_db)
    digests.fill_instance("1.2.3.4")
    digests.close()
    held = connection.execute("SELECT * FROM instances").fetchone()
    row = archive_rows.NewRow(
        CT, "1.2.3.4", "1.2.840.10008.1.2", "x/y.dcm", held["dataset_sha256"], 1, "received",
        Arrival("ct-1", "", "CT1", "PACSNODE", "", 0), 0, "", {}, (),
    )  # fmt: skip
    (verdict,) = archive_rows.insert(connection, [row], tmp_path, archive_rows.Common())
    assert verdict is not None
    assert verdict.verdict == "aside"


def test_an_index_reads_while_the_archive_writes(settings: Settings, node: Archive) -> None:
    index = Index(settings.index_db)
    for number in range(20):
        store(node, data_set(f"1.2.3.{number}"), request(f"1.2.3.{number}"))
        study = index.study("1.2.3")
        assert study is not None
        assert (len(study.instances), study.revision) == (number + 1, number + 1)
    assert index.changed_since(19) == [("1.2.3", 20)]
    assert io.StringIO(json.dumps([vars(line) for line in index.studies(5)])).read()
    index.close()


def test_studies_show_tells_of_a_conflict_and_of_what_is_aside_and_no_name(settings: Settings, node: Archive) -> None:
    store(node, data_set("1.2.3.4"), request("1.2.3.4"))
    store(node, data_set("1.2.3.5", PatientName="Kim^Minji"), request("1.2.3.5"))
    with pytest.raises(Rejected):
        store(node, data_set("1.2.3.7", study="1.2.9"), request("1.2.3.6"))
    for study, words in (("1.2.3", "CONFLICT    PatientName differs: stored, not routed"), ("1.2.9", "A900 SOPInst")):
        shown = subprocess.run(
            [sys.executable, "-m", "pacsnode", "studies", "show", study],
            env=os.environ | {"PACSNODE_HOME": str(settings.home)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert words in shown.stdout
        assert not any(secret in shown.stdout for secret in ("Kim", "Hong", "4711"))
