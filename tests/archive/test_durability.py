"""What a power cut leaves: of all that was acknowledged nothing is missing, of the rest nothing is indexed."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacsnode.archive.files import Disk
from pacsnode.archive.store import Archive, Durability
from pacsnode.settings import Settings
from tests.archive.homes import data_set, home, on_disk, request, restart, rows, store


class FlushedDisk(Disk):
    """Really flushes, and keeps what would outlive a power cut: the files as they were when their flush returned, under
    the names that their folders had when theirs did."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contents: dict[tuple[int, int], bytes] = {}
        self._names: dict[Path, dict[str, tuple[int, int]]] = {}

    def flush(self, descriptor: int) -> None:
        super().flush(descriptor)
        status = os.fstat(descriptor)
        content = os.pread(descriptor, status.st_size, 0)
        with self._lock:
            self._contents[status.st_dev, status.st_ino] = content

    def flush_folder(self, descriptor: int) -> None:
        folder = Path(f"/proc/self/fd/{descriptor}").readlink()
        before = {entry.name: (entry.stat().st_dev, entry.stat().st_ino) for entry in folder.iterdir()}
        super().flush_folder(descriptor)
        with self._lock:
            self._names.setdefault(folder, {}).update(before)

    def cut_power(self, files: Path) -> None:
        """Leave below `files` what is on the disk, and nothing else."""
        shutil.rmtree(files)
        files.mkdir()
        self._put_back(files)

    def _put_back(self, folder: Path) -> None:
        for name, inode in self._names.get(folder, {}).items():
            if folder / name in self._names or (folder.name.isdecimal() and len(name) == 2):
                (folder / name).mkdir()
                self._put_back(folder / name)
            elif inode in self._contents:
                (folder / name).write_bytes(self._contents[inode])
            elif "." in name:
                (folder / name).write_bytes(b"")  # a name whose content never came
            else:
                (folder / name).mkdir()
                self._put_back(folder / name)


class NamelessDisk(FlushedDisk):
    """Leaves out the folder's flush: what the test must notice."""

    def flush_folder(self, descriptor: int) -> None:
        if len(Path(f"/proc/self/fd/{descriptor}").readlink().name) != 2:
            super().flush_folder(descriptor)


class ContentlessDisk(FlushedDisk):
    """Leaves out the file's flush."""

    def flush(self, descriptor: int) -> None:
        pass


def store_until_power_cut(settings: Settings, disk: FlushedDisk, durability: Durability = "file") -> dict[str, bytes]:
    """Four senders, 25 objects each, one torn writer left over; the index falls back to its state after the first."""
    node = Archive(
        settings.files,
        settings.index_db,
        "scp",
        minimum_free_mb=1,
        on_rows=lambda: None,
        disk=disk,
        durability=durability,
    )
    acknowledged = {"1.2.3.0": data_set("1.2.3.0")}
    store(node, acknowledged["1.2.3.0"], request("1.2.3.0"))
    with sqlite3.connect(settings.index_db) as source, sqlite3.connect(settings.home / "then.db") as target:
        source.backup(target)
    source.close()
    target.close()
    chance = random.Random(7)
    sizes = [chance.choice([2, 5_000, 70_000, 1_500_000]) for _ in range(25)]

    def send(sender: int) -> None:
        for number, pixels in enumerate(sizes):
            uid = f"1.2.{sender}.{number + 1}"
            data = data_set(uid, study=f"1.2.{sender}", pixels=pixels)
            store(node, data, request(uid))
            acknowledged[uid] = data

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(10, 14)))
    torn = node.begin(request("1.2.9.9"))
    torn.write([data_set("1.2.9.9")])
    disk.cut_power(settings.files)
    torn.abort()
    node.close()
    for path in settings.home.glob("index.db*"):
        path.unlink()
    (settings.home / "then.db").rename(settings.index_db)
    with sqlite3.connect(settings.index_db) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    return acknowledged


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return home(tmp_path)


def missing(settings: Settings, acknowledged: dict[str, bytes]) -> list[str]:
    """Acknowledged objects that are not held bit for bit."""
    known = {str(uid) for (uid,) in rows(settings, "SELECT sop_instance_uid FROM instances")}
    there = {str(path.relative_to(settings.files)) for path in on_disk(settings)}
    paths = {str(uid): str(path) for uid, path in rows(settings, "SELECT sop_instance_uid, path FROM instances")}
    return [
        uid
        for uid, data in acknowledged.items()
        if uid not in known or paths[uid] not in there or not (settings.files / paths[uid]).read_bytes().endswith(data)
    ]


def test_nothing_acknowledged_is_missing_when_all_that_was_not_flushed_is_thrown_away(settings: Settings) -> None:
    acknowledged = store_until_power_cut(settings, FlushedDisk())
    assert len(acknowledged) == 101
    report = restart(settings)
    assert report.rows_restored == 100
    assert missing(settings, acknowledged) == []
    assert rows(settings, "SELECT * FROM instances WHERE sop_instance_uid = '1.2.9.9'") == []
    assert {str(p.relative_to(settings.files)) for p in on_disk(settings)} == {
        str(path) for (path,) in rows(settings, "SELECT path FROM instances")
    }


@pytest.mark.parametrize("disk", [NamelessDisk, ContentlessDisk])
def test_the_power_cut_of_these_tests_takes_what_is_not_flushed(settings: Settings, disk: type[FlushedDisk]) -> None:
    acknowledged = store_until_power_cut(settings, disk())
    restart(settings)
    assert len(missing(settings, acknowledged)) == len(acknowledged)


def test_durability_none_flushes_nothing_and_full_flushes_the_row(settings: Settings) -> None:
    for durability, synchronous in (("none", 1), ("file", 1), ("full", 2)):
        node = Archive(
            settings.files, settings.index_db, "scp", minimum_free_mb=1, on_rows=lambda: None,
            durability=durability,  # type: ignore[arg-type]
        )  # fmt: skip
        assert node._connection.execute("PRAGMA synchronous").fetchone()[0] == synchronous
        uid = f"1.2.3.{ord(durability[0])}.{synchronous}"
        assert store(node, data_set(uid), request(uid)).verdict == "stored"
        node.close()
