"""How long after `kill -9` until scp answers a C-ECHO again, with many files in the archive.

Prints a Markdown table and what the archive is made of. The sealed epochs are filled by the archive's own code without
flushing (durability "none"), which leaves the same files and rows; the last one is what a running `pacsnode scp` has
received when it is killed. Run: scripts/bench/run recovery. With --cold (as root) every start finds cold caches, as
after a power cut; it empties those of the whole machine. Deletes its folder at the end.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from acknowledged import CONTEXTS, CT, Made, without_row
from harness import LOOPBACK, Node, wait_until
from receive_kills import RULES

from pacsnode.archive.store import Archive
from pacsnode.dicom.uids import derive
from pacsnode.dimse.association import ECHO_CONTEXT, Association
from pacsnode.errors import Transient
from pacsnode.handover import StoreRequest

PIXEL_BYTES = 640
"""With its header a data set of about 1 KB: the number of files is what counts here, not their size."""
OBJECTS_A_STUDY = 50
THREADS = 4
CAUSES = ("as killed", "last rows missing")


def objects(first: int, count: int) -> list[Made]:
    """Small CT slices with running numbers."""
    return [
        Made(CT, derive("recovery", str(n)), derive("recovery study", str(n // OBJECTS_A_STUDY)), PIXEL_BYTES)
        for n in range(first, first + count)
    ]


def fill_epoch(node: Node, made: Iterable[Made]) -> None:
    """One epoch, closed and sealed."""
    archive = Archive(
        node.home / "files",
        node.home / "index.db",
        "scp",
        minimum_free_mb=64,
        on_rows=lambda: None,
        durability="none",
    )

    def store(one: Made) -> None:
        names = one.kind.sop_class_uid, one.sop_instance_uid, one.kind.transfer_syntax_uid
        writer = archive.begin(StoreRequest(*names, "XR1", "PACSNODE", LOOPBACK, "modality", "CLINIC"))
        writer.write([one.data_set()])
        assert writer.commit().verdict == "stored"

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(store, made):
                pass
    finally:
        archive.close()


def receive_and_kill(node: Node, made: list[Made]) -> None:
    """The last epoch: received by a running scp, which is killed once all is acknowledged."""

    def send(share: list[Made]) -> None:
        with Association.request(LOOPBACK, node.port, "XR1", "PACSNODE", CONTEXTS) as association:
            for one in share:
                names = one.kind.sop_class_uid, one.sop_instance_uid, one.kind.transfer_syntax_uid
                assert association.store(*names, io.BytesIO(one.data_set())).is_success

    node.start("scp")
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(send, [made[n::THREADS] for n in range(THREADS)]):
                pass
    finally:
        node.kill()


def seconds_to_echo(node: Node) -> float:
    """From the start of the process to the answer."""
    begun = time.monotonic()
    log = (node.home.parent / f"{node.home.name}.log").open("ab")
    command = [sys.executable, "-m", "pacsnode", "scp"]
    process = subprocess.Popen(command, env=node.environment, stderr=log, start_new_session=True)
    node.processes.append(process)
    log.close()
    while process.poll() is None:
        try:
            with Association.request(LOOPBACK, node.port, "XR1", "PACSNODE", (ECHO_CONTEXT,)) as association:
                assert association.echo().is_success
                return time.monotonic() - begun
        except Transient:  # it does not listen yet
            time.sleep(0.005)
    raise RuntimeError(f"scp did not start:\n{node.log()[-3000:]}")


def rows(node: Node, sql: str) -> list[tuple[int, ...]]:
    """What the index says."""
    with closing(sqlite3.connect(node.home / "index.db")) as connection:
        return connection.execute(sql).fetchall()


def lose_rows(index_db: Path, count: int) -> None:
    """The rows that came last, as a power cut takes what was not flushed of the WAL."""
    with closing(sqlite3.connect(index_db)) as connection, connection:
        connection.execute(
            "DELETE FROM instances WHERE sop_instance_uid IN "
            "(SELECT sop_instance_uid FROM instances ORDER BY received_utc_us DESC LIMIT ?)",
            (count,),
        )
        connection.execute(
            "DELETE FROM studies WHERE study_instance_uid NOT IN (SELECT study_instance_uid FROM instances)"
        )


def copy_index(source: Path, target: Path) -> None:
    """The database and what is still in its WAL; nothing has it open."""
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        (target / name).unlink(missing_ok=True)
    for name in ("index.db", "index.db-wal"):
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)


def measure(node: Node, prepare: Callable[[], None], rounds: int, files: int, cold: bool) -> tuple[list[float], float]:
    """Start `rounds` times from the same state: seconds to the C-ECHO, and the most until each file had its row."""
    echoed, settled_s = [], 0.0
    for _ in range(rounds):
        prepare()
        os.sync()  # what the preparation wrote is not to be waited for
        if cold:
            Path("/proc/sys/vm/drop_caches").write_text("3")
        begun = time.monotonic()
        try:
            echoed.append(seconds_to_echo(node))
            wait_until(lambda: rows(node, "SELECT count(*) FROM instances") == [(files,)], 300, 0.05)
            settled_s = max(settled_s, time.monotonic() - begun)
        finally:
            node.kill()
    return echoed, settled_s


def main() -> None:
    """Build, kill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--unsealed", type=int, default=5_000, help="files of the epoch that was open at the kill")
    parser.add_argument("--missing", type=int, default=1_000, help="rows that are missing as after a power cut")
    parser.add_argument("--epochs", type=int, default=20, help="sealed ones")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="empty the machine's caches before each start")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="recovery"))
    try:
        _run(folder, given)
    finally:
        shutil.rmtree(folder)


def _run(folder: Path, given: argparse.Namespace) -> None:
    (folder / "rules.yaml").write_text(RULES)
    empty, node = (
        Node(folder / name, folder / "rules.yaml", extra={"PACSNODE_LOG_LEVEL": "warning"})
        for name in ("empty", "home")
    )
    for one in (empty, node):
        one.run("migrate")
    begun = time.monotonic()
    sealed, unsealed = given.files - given.unsealed, min(given.unsealed, given.files)
    for epoch in range(given.epochs):
        start, end = (sealed * n // given.epochs for n in (epoch, epoch + 1))
        fill_epoch(node, objects(start, end - start))
    receive_and_kill(node, objects(sealed, unsealed))
    built_s = time.monotonic() - begun
    killed, cut = folder / "killed", folder / "cut"
    for state in (killed, cut):
        state.mkdir()
        copy_index(node.home, state)
    lose_rows(cut / "index.db", given.missing)
    table = [("an empty home", *measure(empty, lambda: None, given.rounds, 0, given.cold))]
    for cause, state in zip(CAUSES, (killed, cut), strict=True):
        times = measure(node, partial(copy_index, state, node.home), given.rounds, given.files, given.cold)
        table.append((f"{given.files:,} files, {cause}", *times))
    _print(node, given, built_s, table)


def _print(node: Node, given: argparse.Namespace, built_s: float, table: list[tuple[str, list[float], float]]) -> None:
    print("| kill -9, then start | process start to C-ECHO answered: median | worst | each file has its row |")
    print("|---|---|---|---|")
    for what, echoed, settled_s in table:
        print(f"| {what} | {statistics.median(echoed):.2f} s | {max(echoed):.2f} s | {settled_s:.2f} s |")
    left = without_row(node.home)
    on_disk = [p.stat() for p in (node.home / "files").rglob("*.dcm")]
    index_mb = (node.home / "index.db").stat().st_size / 1e6
    ((open_epochs,),) = rows(node, "SELECT count(*) FROM epochs WHERE sealed = 0")
    print(
        f"\n{len(on_disk):,} files ({sum(s.st_size for s in on_disk) / 1e6:.0f} MB, "
        f"{sum(s.st_blocks for s in on_disk) * 512 / 1e6:.0f} MB of disk) in {given.epochs} sealed epochs and one of "
        f"{given.unsealed:,} files that was open at the kill, index.db {index_mb:.0f} MB, built in {built_s:.0f} s; "
        f"{given.missing:,} rows missing where said; caches {'cold' if given.cold else 'warm'}; {given.rounds} rounds; "
        f"afterwards {len(left)} files without a row, {open_epochs} epochs unsealed"
    )


if __name__ == "__main__":
    main()
