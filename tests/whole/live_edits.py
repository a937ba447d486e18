"""The rules file is saved again and again while studies arrive, a third of the saves broken: no study stays without a
decision, and none is decided by rules that nobody saved whole.

In: a folder, how many studies and saves, a seed. Out: what was decided by what, and each fault. Used by the tests (60
studies, 25 saves) and at length by hand or a soak. No service is needed: the rules are switched off, their hash counts.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from harness import LOOPBACK, Node, wait_until
from pydicom.data import get_testdata_file
from sending import variant

from pacsnode.archive.cases import Cases
from pacsnode.dimse.association import ECHO_CONTEXT, Association, contexts_for
from pacsnode.dimse.part10 import read_meta
from pacsnode.errors import PacsnodeError
from pacsnode.watched import LOOK_EVERY_S

RULES = """\
version: 1
unmatched: keep
rules:
  - name: ct of version {number}
    enabled: false
    when: {{Modality: CT}}
    complete: {{quiet: 1s}}
    run: nothing-installed
    results: [sr]
    send_to: [main-pacs]
examples:
  - {{study: {{Modality: MR}}, expect: []}}
peers:
  main-pacs: {{ae_title: PACS, host: 192.0.2.5, port: 104, investigational: true}}
  ct-1: {{ae_title: CT1, host: 127.0.0.1, may: [store], issuer: CLINIC}}
"""
NEWEST = "  newest: {{ae_title: NEW{number}, host: 127.0.0.1, may: [store]}}\n"
"""The last line of each version: a file without it is half of one, and valid."""
WAYS = ("in place", "in two halves", "by rename", "by a link")
BROKEN = ("syntax error", "unknown key", "half of it")
LONGEST_PAUSE_S = 3.5
"""Between two saves: some lie still long enough to be judged, some do not."""


@dataclass
class Outcome:
    """What a run did and found."""

    saves: Counter[str] = field(default_factory=Counter)
    good: set[str] = field(default_factory=set)
    studies: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    decided_by: dict[str, str] = field(default_factory=dict)
    live: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        saves = ", ".join(f"{count} {how}" for how, count in sorted(self.saves.items()))
        return (
            f"{len(self.studies)} studies, {sum(self.saves.values())} saves ({saves}) in {self.seconds:.0f} s; "
            f"{len(self.decided_by)} decided, by {len(set(self.decided_by.values()))} of {len(self.live)} live versions"
        )

    @property
    def broken(self) -> int:
        """How many saves were to be refused."""
        return sum(self.saves[how] for how in BROKEN)

    def faults(self) -> list[str]:
        """Each as a line."""
        undecided = [f"{study} has no decision" for study in self.studies if study not in self.decided_by]
        wrong = [f"{study} was decided by {used}" for study, used in self.decided_by.items() if used not in self.good]
        live = [f"{used} was live, and nobody saved it whole" for used in self.live if used not in self.good]
        return [*undecided, *wrong, *live, *(f"refused: {told}" for told in self.refused), *self.problems]


class Scanner(threading.Thread):
    """Sends so many studies, one after the other, to a node that must refuse none of them."""

    def __init__(self, node: Node, folder: Path, count: int, outcome: Outcome) -> None:
        super().__init__(name="scanner")
        self._node, self._folder, self._count, self._outcome = node, folder, count, outcome
        self._chance = random.Random(count)

    def run(self) -> None:
        for number in range(self._count):
            self.send(f"live edits {number}")
            time.sleep(self._chance.uniform(0.1, 0.9))

    def send(self, seed: str) -> str:
        """One study of one image; its UID."""
        path = self._folder / f"{seed}.dcm"
        study = str(variant(Path(str(get_testdata_file("CT_small.dcm", download=False))), path, seed).StudyInstanceUID)
        with path.open("rb") as file:
            meta = read_meta(file)
        contexts = contexts_for([(meta.sop_class_uid, meta.transfer_syntax_uid)])
        try:
            with Association.request(LOOPBACK, self._node.port, "CT1", "PACSNODE", contexts) as association:
                status = association.store_file(path)
        except PacsnodeError as error:
            self._outcome.refused.append(f"{seed}: {error}")
            return study
        if status.is_success:
            self._outcome.studies.append(study)
        else:
            self._outcome.refused.append(f"{seed}: {status}")
        return study


class Editor:
    """A person who saves the file in every way that editors know, and with every kind of mistake."""

    def __init__(self, file: Path, seed: int, outcome: Outcome) -> None:
        self._file, self._outcome = file, outcome
        self._chance = random.Random(seed)
        self._number = 0

    def save_well(self, how: str) -> str:
        """A new version, whole; its hash."""
        self._outcome.saves[how] += 1
        self._number += 1
        half, text = RULES.format(number=self._number), (RULES + NEWEST).format(number=self._number)
        self._outcome.good.add(_hash(text))
        match how:
            case "in two halves":
                self._in_two_halves(half, text)
            case "by rename":
                self._replaced(text)
            case "by a link":
                self._linked(text)
            case _:
                self._file.write_text(text)
        return _hash(text)

    def save_badly(self, how: str) -> None:
        """A file with a mistake."""
        self._outcome.saves[how] += 1
        text = (RULES + NEWEST).format(number=f"{self._number} and broken")
        match how:
            case "syntax error":
                text = text.replace("peers:", "peers: [")
            case "unknown key":
                text = text.replace("investigational:", "investigation:")
            case _:
                text = text[: -self._chance.randrange(5, 40)]
        self._file.write_text(text)

    def newest(self) -> str:
        """The AE title that only the last good version has."""
        return f"NEW{self._number}"

    def _in_two_halves(self, half: str, text: str) -> None:
        with self._file.open("w") as saving:
            saving.write(half)
            saving.flush()
            begun_s = time.monotonic()
            time.sleep(self._chance.uniform(0.1, 0.6 * LOOK_EVERY_S))
            saving.write(text[len(half) :])
        if time.monotonic() - begun_s >= LOOK_EVERY_S:  # a machine so busy that the half lay still, as if it were meant
            self._outcome.good.add(_hash(half))

    def _replaced(self, text: str) -> None:
        beside = self._file.with_suffix(".swp")
        beside.write_text(text)
        beside.replace(self._file)

    def _linked(self, text: str) -> None:
        behind = self._file.with_name(f"behind{self._number}.yaml")
        behind.write_text(text)
        link = self._file.with_suffix(".link")
        link.symlink_to(behind)
        link.replace(self._file)


def run_live_edits(
    folder: Path, studies: int, saves: int, seed: int, tell: Callable[[str], None] = lambda line: None
) -> Outcome:
    """Save `saves` times while `studies` studies arrive, then once more, and see who went by what."""
    outcome, begun_s = Outcome(), time.monotonic()
    for made in ("models", "sent"):
        (folder / made).mkdir(parents=True)
    editor, chance = Editor(folder / "rules.yaml", seed, outcome), random.Random(seed)
    editor.save_well("in place")
    with Node(folder / "home", folder / "rules.yaml", models=folder / "models") as node:
        before = _roles(node)
        scanner = Scanner(node, folder / "sent", studies, outcome)
        scanner.start()
        for number in range(saves):
            time.sleep(chance.uniform(0.0, LONGEST_PAUSE_S))
            if number % 3 == 2:
                editor.save_badly(chance.choice(BROKEN))
            else:
                editor.save_well(chance.choice(WAYS))
            tell(f"save {number + 1}: {len(outcome.studies)} studies acknowledged")
        scanner.join()
        _end(node, editor, scanner, outcome)
        if _roles(node) != before:
            outcome.problems.append(f"processes were {before}, and are {_roles(node)}")
    outcome.seconds = time.monotonic() - begun_s
    return outcome


def _end(node: Node, editor: Editor, scanner: Scanner, outcome: Outcome) -> None:
    """The last version goes live for work and scp, and every study has its decision."""
    last, older = editor.save_well("by rename"), editor.newest()
    wait_until(lambda: _live(node)[-1:] == [last], 30, 0.1)
    wait_until(lambda: is_let_in(node, older), 10, 0.1)
    if is_let_in(node, "NEW1"):
        outcome.problems.append("a peer of the first version is let in")
    final = scanner.send("live edits, the last one")
    with closing(Cases(node.home / "node.db")) as cases:
        wait_until(lambda: all(cases.verdicts(study) for study in outcome.studies), 60, 0.2)
        found = {study: cases.verdicts(study) for study in outcome.studies}
    outcome.decided_by = {study: decided[0] for study, decided in found.items() if decided}
    if outcome.decided_by.get(final) != last:
        outcome.problems.append("the last study was not decided by the last version")
    outcome.live = _live(node)


def _roles(node: Node) -> dict[str, int]:
    """The processes that go by the rules; they are not to be others at the end."""
    wait_until(lambda: {"scp", "work"} <= node.pids().keys(), 10)
    return {role: pid for role, pid in node.pids().items() if role in ("scp", "work")}


def _live(node: Node) -> list[str]:
    """Hashes of all versions that were live, the live one last."""
    with closing(sqlite3.connect(node.home / "node.db")) as connection:
        return [used for (used,) in connection.execute("SELECT hash FROM rule_versions ORDER BY id")]


def is_let_in(node: Node, calling: str) -> bool:
    """Whether scp knows a caller."""
    try:
        with Association.request(LOOPBACK, node.port, calling, "PACSNODE", [ECHO_CONTEXT]) as association:
            return association.echo().is_success
    except PacsnodeError:
        return False


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
