"""A little of the soaks of the receiving side; `scripts/soak receive-kills` and `scripts/soak mixed` run them in full.

And the comparison that they end with, on an archive that was damaged by hand: it sees each kind of damage.
"""

from __future__ import annotations

import io
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from acknowledged import CONTEXTS, CT, KINDS, Ledger, Made, compare, indexed, without_row
from harness import LOOPBACK, Node
from levels import Level, Role
from mixed_peers import run_mixed
from receive_kills import RULES, run_receive_kills, send_by_dcmtk

from pacsnode.dicom.uids import derive
from pacsnode.dimse.association import Association


@pytest.mark.timeout(600)
def test_no_object_that_was_answered_is_lost_or_torn_though_scp_is_killed(tmp_path: Path) -> None:
    outcome = run_receive_kills(tmp_path, rounds=5, seed=20261122)
    assert outcome.faults() == []
    assert outcome.kills == 5
    assert len(outcome.ledger.acknowledged) > 50
    assert outcome.ledger.cut


@pytest.mark.timeout(600)
def test_mixed_peers_lose_nothing_and_leave_nothing_behind_though_one_misbehaves(tmp_path: Path) -> None:
    outcome = run_mixed(tmp_path, 40, seed=20261122)
    # In so short a time memory still fills up to what the traffic needs: its flatness is for the long run to show.
    assert [fault for fault in outcome.faults() if "memory grew" not in fault] == []
    assert set(outcome.roles) == {"scp", "work"}
    assert len(outcome.ledger.acknowledged) > 200
    assert {"series", "series over TLS", "commitments", "pings", "of garbage", "of half an object"} <= set(outcome.done)


# ------------------------------------------------------------------------------------ the comparison itself


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ledger]:
    """A home that holds one object of each kind; no process runs on it."""
    folder, ledger = tmp_path_factory.mktemp("compared"), Ledger()
    (folder / "rules.yaml").write_text(RULES)
    node = Node(folder / "home", folder / "rules.yaml")
    node.run("migrate")
    node.start("scp")
    try:
        objects = [Made(kind, derive("compared", str(n)), "1.2.3", 10_000) for n, kind in enumerate(KINDS)]
        with Association.request(LOOPBACK, node.port, "XR1", "PACSNODE", CONTEXTS) as association:
            for made in objects[1:]:
                ledger.sending(made)
                names = made.kind.sop_class_uid, made.sop_instance_uid, made.kind.transfer_syntax_uid
                status = association.store(*names, io.BytesIO(made.data_set()))
                ledger.answered(made, "" if status.is_success else str(status))
        send_by_dcmtk(node.port, {objects[0].write(folder): objects[0]}, ledger, "XR1")
    finally:
        node.stop()
    assert ledger.refused == []
    assert len(ledger.acknowledged) == len(KINDS)
    return node.home, ledger


def a_file(home: Path) -> Path:
    """Of some object."""
    return home / "files" / sorted(indexed(home)[0].values())[0]


def cut_a_file(home: Path) -> None:
    path = a_file(home)
    path.write_bytes(path.read_bytes()[:-1])


def change_a_byte(home: Path) -> None:
    path = a_file(home)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def delete_a_row(home: Path) -> None:
    with closing(sqlite3.connect(home / "index.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM instances WHERE sop_class_uid = ?", (CT.sop_class_uid,))


def delete_a_file(home: Path) -> None:
    a_file(home).unlink()


def exchange_two_files(home: Path) -> None:
    one, other = (home / "files" / path for path in sorted(indexed(home)[0].values())[:2])
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "kinds"),
    [
        (cut_a_file, {"torn"}),
        (change_a_byte, {"changed"}),
        (delete_a_row, {"lost", "without a row"}),
        (delete_a_file, {"lost", "torn"}),
        (exchange_two_files, {"torn", "changed"}),
    ],
    ids=lambda given: given.__name__ if callable(given) else "",
)
def test_each_kind_of_damage_is_seen(
    stored: tuple[Path, Ledger], damage: Callable[[Path], None], kinds: set[str]
) -> None:
    home, ledger = stored
    before = {path: path.read_bytes() for path in [home / "index.db", *(home / "files").rglob("*.dcm")]}

    def seen() -> set[str]:
        found = {fault.partition(":")[0] for fault in compare(home, ledger).faults()}
        return found | ({"without a row"} if without_row(home) else set())

    assert seen() == set()
    try:
        damage(home)
        assert seen() <= kinds
        assert seen()
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def test_an_object_that_was_never_sent_whole_must_not_be_indexed(stored: tuple[Path, Ledger]) -> None:
    home, ledger = stored
    uid = next(iter(ledger.sent))
    ledger.cut.add(uid)
    try:
        assert compare(home, ledger).torn == [f"{uid} is indexed, but was never sent whole"]
    finally:
        ledger.cut.remove(uid)


def test_what_is_left_after_the_peers_have_gone_is_a_fault() -> None:
    start, later = Level(0, 8, ("index.db", "socket")), Level(0, 9, ("index.db", "socket", "socket"))

    def role(after: Level, *resident_mb: int) -> Role:
        return Role(1, start, [Level(mb * 1024, 20, ()) for mb in resident_mb], after)

    assert role(start, 100, 100, 104, 108).faults() == []
    assert role(start, 100, 100, 110, 120).faults() == ["memory grew by 20480 KB"]
    assert role(later, 100, 120, 120, 120).faults() == [
        "1 threads are left",
        "1 descriptors are left, new: {'socket': 1}",
    ]


def test_a_level_is_what_the_kernel_tells_of_this_process() -> None:
    before = Level.of(os.getpid())
    release = threading.Event()
    threads = [threading.Thread(target=release.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        with Path("/dev/null").open():
            now = Level.of(os.getpid())
    finally:
        release.set()
        for thread in threads:
            thread.join()
    assert (now.threads, now.descriptors) == (before.threads + 3, before.descriptors + 1)
    assert now.resident_kb > 1000
