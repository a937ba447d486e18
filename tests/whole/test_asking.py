"""A whole node whose rule asks the sender how many images the study has, and a sender that answers C-FIND."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from harness import ROOT, Node, electrocardiogram, wait_until
from pydicom.dataset import Dataset
from sending import variant

from pacsnode.dicom.uids import derive
from tests.dimse.test_find import PENDING, Answers, Sender, match

RULES = """
version: 1
peers:
  cart: {{ae_title: CART, host: 127.0.0.1, port: {port}, may: [store], issuer: CLINIC, investigational: true}}
rules:
  - name: ecg
    when: {{Modality: ECG}}
    complete: {{quiet: 1s, ask_sender: true}}
    run: ecg-arrhythmia
    results: [sr]
    send_to: [sender]
unmatched: keep
"""
STUDY, SERIES = derive("asking", "study"), derive("asking", "series")


class Cart(Sender):
    """Has so many images of the study in each series, tells it and its number at each level, or refuses."""

    def __init__(self, series: Mapping[str, int]) -> None:
        super().__init__(self._answer)
        self.series = dict(series)
        self.refuses = False

    def _answer(self, asked: Dataset) -> Answers:
        if self.refuses:
            yield 0xA900, None
        elif asked.QueryRetrieveLevel == "STUDY":
            total = sum(self.series.values())
            yield PENDING, match("STUDY", StudyInstanceUID=STUDY, NumberOfStudyRelatedInstances=total)
        else:
            for uid, count in self.series.items():
                told = {"SeriesInstanceUID": uid, "NumberOfSeriesRelatedInstances": count}
                yield PENDING, match("SERIES", StudyInstanceUID=STUDY, **told)


@contextmanager
def asking(folder: Path, cart: Cart) -> Iterator[Node]:
    """A node with one service, and the cart beside it."""
    shutil.copytree(ROOT / "models" / "ecg-arrhythmia", folder / "models" / "ecg-arrhythmia")
    rules = folder / "rules.yaml"
    with cart.running():
        rules.write_text(RULES.format(port=cart.port))
        with Node(folder / "home", rules, models=folder / "models") as node:
            yield node


def send(node: Node, folder: Path, *numbers: int) -> None:
    """ECGs of the study, all of one series."""
    paths = [folder / f"{number}.dcm" for number in numbers]
    for number, path in zip(numbers, paths, strict=True):
        uids = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES}
        variant(electrocardiogram(), path, f"asking {number}", **uids)
    node.send(paths, calling="CART")


def opened(node: Node) -> list[str]:
    """Why each case of the study was thought whole, in the order in which they were opened."""
    with closing(sqlite3.connect(node.home / "node.db")) as connection:
        return [because for (because,) in connection.execute("SELECT whole_because FROM cases ORDER BY started_utc_us")]


def test_a_case_waits_for_the_images_that_its_sender_still_has_and_not_for_results_that_it_was_sent(
    tmp_path: Path,
) -> None:
    cart = Cart({SERIES: 3})
    with asking(tmp_path, cart) as node:
        send(node, tmp_path, 1, 2)
        wait_until(lambda: cart.levels == ["STUDY"], 30)
        wait_until(lambda: "the sender says what it has of a study" in node.log(), 20)
        time.sleep(4)
        assert opened(node) == []
        assert len(node.life(STUDY)["waiting"]) == 1
        send(node, tmp_path, 3)
        wait_until(lambda: bool(opened(node)), 30)
        assert opened(node) == ["the sender says that it has 3 images of the study, and all are here"]
        assert cart.levels == ["STUDY", "STUDY"]

        wait_until(lambda: [case["state"] for case in node.life(STUDY)["cases"]] == ["done"], 90, 0.3)
        reports = Counter(str(made["series_instance_uid"]) for made in node.life(STUDY)["cases"][0]["results"])
        assert reports
        cart.series = {SERIES: 4, **reports}
        send(node, tmp_path, 4)
        wait_until(lambda: len(opened(node)) == 2, 30)
        assert opened(node)[1] == "the sender says that it has 4 images of the study, and all are here"
        assert cart.levels == ["STUDY", "STUDY", "SERIES"]
        assert {str(asked.StudyInstanceUID) for asked in cart.questions} == {STUDY}


def test_a_sender_that_refuses_leaves_the_quiet_time_to_decide(tmp_path: Path) -> None:
    cart = Cart({})
    cart.refuses = True
    with asking(tmp_path, cart) as node:
        send(node, tmp_path, 1)
        wait_until(lambda: bool(opened(node)), 30)
        (because,) = opened(node)
        assert because.startswith("quiet for 1.") and because.endswith("; the sender was asked and did not answer")
        assert "refuses the question at STUDY level: 0xA900" in node.log()
