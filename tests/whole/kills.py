"""Kill -9 of scp, work and compute child at random moments, while studies arrive: what was acknowledged must be there.

Used by the tests (a few rounds) and by `scripts/soak kills` (the full count).
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from harness import LOOPBACK, Node, Pacs, electrocardiogram, radiograph, wait_until, write_rules
from sending import data_set_bytes, variant

from pacsnode.archive.cases import Cases
from pacsnode.archive.index import Index
from pacsnode.deliver.outbox import Outbox
from pacsnode.dimse.association import Association, contexts_for
from pacsnode.dimse.part10 import read_meta
from pacsnode.errors import Permanent, Transient

RESULTS = {"CR": 3, "ECG": 2}
PAUSE_S = 0.5
"""Between two studies: more would only pile up behind the model."""


@dataclass
class Outcome:
    """What a run of kills did and found."""

    kills: Counter[str] = field(default_factory=Counter)
    studies: int = 0
    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    second_uids: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{sum(self.kills.values())} kills ({', '.join(f'{n} {k}' for k, n in sorted(self.kills.items()))}), "
            f"{self.studies} studies, {self.acknowledged} instances acknowledged in {self.seconds:.0f} s; "
            f"lost {len(self.lost)}, unfinished {len(self.unfinished)}, second UIDs {len(self.second_uids)}"
        )


class Modality(threading.Thread):
    """Sends one study after the other until stopped, each until it is acknowledged: a device that never gives up."""

    def __init__(self, node: Node, folder: Path, seed: int) -> None:
        super().__init__(name="modality")
        self._node = node
        self._folder = folder
        self._seed = seed
        self.stopping = threading.Event()
        self.acknowledged: dict[str, Path] = {}
        self.studies: dict[str, str] = {}

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            source = electrocardiogram() if number % 3 else radiograph()
            path = self._folder / f"{number}.dcm"
            dataset = variant(source, path, f"kills {self._seed} {number}")
            self._send(path)
            self.acknowledged[str(dataset.SOPInstanceUID)] = path
            self.studies[str(dataset.StudyInstanceUID)] = str(dataset.Modality)
            number += 1
            self.stopping.wait(PAUSE_S)

    def _send(self, path: Path) -> None:
        with path.open("rb") as file:
            meta = read_meta(file)
        contexts = contexts_for([(meta.sop_class_uid, meta.transfer_syntax_uid)])
        while True:
            try:
                with Association.request(LOOPBACK, self._node.port, "XR1", "PACSNODE", contexts) as association:
                    if association.store_file(path).is_success:
                        return
            except (Transient, Permanent):
                time.sleep(0.1)


def run_kills(folder: Path, rounds: int, seed: int, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Kill `rounds` times, let everything end, then compare what there is with what must be there."""
    chance = random.Random(seed)
    outcome = Outcome()
    begun = time.monotonic()
    (folder / "sent").mkdir(parents=True)
    with Pacs(folder / "pacs") as pacs, Pacs(folder / "sender", ae_title="XR1") as sender:
        rules = write_rules(folder / "rules.yaml", sender_port=sender.port, pacs_port=pacs.port, quiet=0.5)
        with Node(folder / "home", rules, extra={"PACSNODE_LOG_LEVEL": "warning"}) as node:
            modality = Modality(node, folder / "sent", seed)
            modality.start()
            try:
                for number in range(rounds):
                    time.sleep(chance.uniform(0.3, 8.0))
                    role = _kill(node, chance)
                    outcome.kills[role] += 1
                    tell(f"round {number + 1}: killed {role}; {len(modality.acknowledged)} instances acknowledged")
            finally:
                modality.stopping.set()
                modality.join()
            _settle(node, modality)
            _compare(node, modality, (pacs, sender), outcome)
    outcome.seconds = time.monotonic() - begun
    return outcome


def _kill(node: Node, chance: random.Random) -> str:
    """Kill one role that runs now; serve starts it again."""
    while True:
        role = chance.choice(["scp", "work", "child"])
        pid = node.pids().get(role)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            return role
        time.sleep(0.1)


def _settle(node: Node, modality: Modality) -> None:
    """Wait until every acknowledged study has a case that has ended, and nothing is owed."""

    def settled() -> bool:
        cases, outbox = Cases(node.home / "node.db"), Outbox(node.home / "node.db", 0)
        try:
            ended = all(
                {c.state for c in cases.of_study(study)} <= {"done", "parked"} and cases.of_study(study)
                for study in modality.studies
            )
            return ended and not any(outbox.listing(state=state, limit=1) for state in ("owed", "sending"))
        finally:
            cases.close()
            outbox.close()

    wait_until(settled, 30 + 8 * len(modality.studies), 0.5)


def _compare(node: Node, modality: Modality, peers: tuple[Pacs, ...], outcome: Outcome) -> None:
    outcome.studies = len(modality.studies)
    outcome.acknowledged = len(modality.acknowledged)
    index, cases = Index(node.home / "index.db"), Cases(node.home / "node.db")
    try:
        for uid, path in modality.acknowledged.items():
            held = index.instance(uid)
            if held is None or data_set_bytes(node.home / "files" / held.path) != data_set_bytes(path):
                outcome.lost.append(uid)
        for study in modality.studies:
            records = cases.of_study(study)
            if [r.state for r in records] != ["done"]:
                outcome.unfinished.append(f"{study}: {[(r.state, r.reason) for r in records]}")
    finally:
        cases.close()
        index.close()
    for peer in peers:
        uids: dict[str, set[str]] = {}
        for path in peer.folder.iterdir():
            held_there = pydicom.dcmread(path, stop_before_pixels=True)
            uids.setdefault(str(held_there.StudyInstanceUID), set()).add(str(held_there.SOPInstanceUID))
        for study, kind in modality.studies.items():
            count = len(uids.get(study, ()))
            if count < RESULTS[kind]:
                outcome.unfinished.append(f"{study}: {count} results at {peer.ae_title}")
            elif count > RESULTS[kind]:
                outcome.second_uids.append(f"{study}: {count} results at {peer.ae_title}")
