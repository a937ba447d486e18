"""Who is asked when, and what is known of it meanwhile: by a clock that the test sets, and over real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from pacsnode import peers
from pacsnode.complete.asking import AGAIN_AFTER_US, Asker, askable
from pacsnode.complete.policy import US_PER_S, Said
from pacsnode.dimse.find import Question, count_images
from pacsnode.errors import PacsnodeError, Permanent, Transient
from pacsnode.peers import Peer
from tests.dimse.test_find import STUDY, Sender, holding
from tests.receive.doubles import free_port

CT = Peer(name="ct-1", ae_title="CT1", host="192.0.2.1", port=104)
MR = Peer(name="mr-1", ae_title="MR1", host="192.0.2.2", port=104)
ONE, TWO = Question("1.2.1"), Question("1.2.2")
PATIENCE_S = 20.0
BEGUN_S = 1000


class Desk:
    """An asker whose peers answer what the test enters, in a time that the test sets. `put`: what was really asked."""

    def __init__(self) -> None:
        self.second = BEGUN_S
        self.answers: dict[tuple[Question, Peer], int | PacsnodeError | None] = {}
        self.put: list[tuple[Question, Peer]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.rings: SimpleQueue[None] = SimpleQueue()
        self.is_putting = threading.Event()
        self.asker = Asker(self._count, lambda: self.rings.put(None), lambda: self.second * US_PER_S)

    def _count(self, question: Question, peer: Peer) -> int | None:
        self.put.append((question, peer))
        self.is_putting.set()
        assert self.may_answer.wait(PATIENCE_S)
        answer = self.answers.get((question, peer))
        if isinstance(answer, PacsnodeError):
            raise answer
        return answer

    def ask(self, *to: Peer, question: Question = ONE, after_s: int = BEGUN_S, rings: int = 1) -> Said:
        """Ask, wait until it has rung so often, and tell what is known then."""
        self.asker.ask(question, to, after_s * US_PER_S)
        for _ in range(rings):
            self.rings.get(timeout=PATIENCE_S)
        return self.said(*to, question=question)

    def said(self, *by: Peer, question: Question = ONE) -> Said:
        return self.asker.said(question.study_instance_uid, by)

    def is_quiet(self) -> bool:
        """Nobody rings, though there was time to."""
        time.sleep(0.05)
        return self.rings.empty()


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.may_answer.set()
    made.asker.close()


def asked(told: int | None = None, *, second: int = BEGUN_S, awaited: bool = False) -> Said:
    return Said(second * US_PER_S, told, awaited)


def test_nothing_is_known_before_it_is_asked_and_nobody_is_asked_by_looking(desk: Desk) -> None:
    assert desk.said(CT) == Said()
    assert desk.put == []


def test_an_answer_is_known_once_it_has_come_and_rings(desk: Desk) -> None:
    desk.answers[ONE, CT] = 120
    desk.may_answer.clear()
    desk.asker.ask(ONE, [CT], BEGUN_S * US_PER_S)
    desk.asker.ask(ONE, [CT], BEGUN_S * US_PER_S)
    assert desk.said(CT) == asked(awaited=True)
    desk.may_answer.set()
    desk.rings.get(timeout=PATIENCE_S)
    assert desk.said(CT) == asked(120)
    assert desk.put == [(ONE, CT)], "asked twice, put once"
    assert desk.said(CT, question=TWO) == Said()


def test_the_largest_count_of_several_senders_counts_and_all_are_awaited(desk: Desk) -> None:
    desk.answers |= {(ONE, CT): 3, (ONE, MR): 5}
    assert desk.ask(CT, MR, rings=2) == asked(5)
    desk.answers[TWO, CT] = 3
    desk.may_answer.clear()
    desk.asker.ask(TWO, [CT, MR], 0)
    assert desk.said(CT, MR, question=TWO) == asked(None, awaited=True)
    desk.may_answer.set()
    desk.rings.get(timeout=PATIENCE_S)
    desk.rings.get(timeout=PATIENCE_S)
    assert desk.said(CT, MR, question=TWO) == asked(3), "the other one does not say"


def test_an_answer_from_before_a_new_image_is_forgotten(desk: Desk) -> None:
    desk.answers[ONE, CT] = 3
    desk.ask(CT)
    desk.second += 40
    desk.answers[ONE, CT] = 4
    assert desk.ask(CT, after_s=BEGUN_S + 30) == asked(4, second=BEGUN_S + 40)


def test_an_answer_that_was_on_its_way_while_an_image_came_does_not_count(desk: Desk) -> None:
    desk.answers[ONE, CT] = 3
    desk.may_answer.clear()
    desk.asker.ask(ONE, [CT], BEGUN_S * US_PER_S)
    assert desk.is_putting.wait(PATIENCE_S)
    desk.second += 10
    desk.asker.ask(ONE, [CT], desk.second * US_PER_S)
    assert desk.said(CT) == asked(second=BEGUN_S + 10, awaited=True)
    desk.may_answer.set()
    desk.rings.get(timeout=PATIENCE_S)
    desk.rings.get(timeout=PATIENCE_S)
    assert desk.said(CT) == asked(3, second=BEGUN_S + 10)
    assert desk.put == [(ONE, CT)] * 2


def test_who_waits_for_more_images_asks_again_after_longer_and_longer_pauses(desk: Desk) -> None:
    desk.answers[ONE, CT] = 5
    desk.ask(CT)
    for pause_us in (*AGAIN_AFTER_US, AGAIN_AFTER_US[-1]):
        pause_s = pause_us // US_PER_S
        desk.second += pause_s - 1
        desk.ask(CT, rings=0)
        assert desk.is_quiet()
        desk.second += 1
        desk.answers[ONE, CT] = desk.second
        assert desk.ask(CT) == asked(desk.second)
    assert len(desk.put) == 5


def test_a_peer_that_cannot_be_reached_is_tried_once_more_and_then_not_waited_for(desk: Desk) -> None:
    desk.answers[ONE, CT] = Transient("off")
    assert desk.ask(CT) == asked(awaited=True)
    desk.second += 29
    desk.ask(CT, rings=0)
    assert desk.is_quiet()
    desk.second += 1
    assert desk.ask(CT) == asked(), "two minutes more are more than a case waits"
    assert len(desk.put) == 2


def test_a_peer_in_trouble_is_spared_by_the_questions_about_other_studies_too(desk: Desk) -> None:
    desk.answers[ONE, CT] = Permanent("refuses")
    assert desk.ask(CT) == asked()
    assert desk.ask(CT, question=TWO) == asked()
    assert desk.put == [(ONE, CT)]
    desk.answers[TWO, MR] = 2
    assert desk.ask(MR, question=TWO) == asked(2), "another peer is none the worse"
    desk.second += 600
    desk.answers[TWO, CT] = 7
    assert desk.ask(CT, question=TWO, after_s=desk.second) == asked(7, second=desk.second)


def test_a_count_stays_known_when_its_peer_fails_later_and_goes_when_the_peer_knows_no_such_study(desk: Desk) -> None:
    desk.answers[ONE, CT] = 5
    desk.ask(CT)
    desk.second += 30
    desk.answers[ONE, CT] = Transient("off")
    assert desk.ask(CT) == asked(5)
    desk.second += 120
    desk.answers[ONE, CT] = None
    assert desk.ask(CT) == asked()


def test_of_studies_that_wait_no_more_nothing_is_kept(desk: Desk) -> None:
    desk.answers |= {(ONE, CT): 3, (TWO, CT): 4}
    desk.ask(CT)
    desk.ask(CT, question=TWO)
    desk.asker.keep({TWO.study_instance_uid})
    assert desk.said(CT) == Said()
    assert desk.said(CT, question=TWO) == asked(4)


def test_a_question_about_a_study_that_waits_no_more_is_not_put(desk: Desk) -> None:
    desk.may_answer.clear()
    desk.asker.ask(ONE, [CT], 0)
    desk.asker.ask(TWO, [CT], 0)
    desk.asker.keep({ONE.study_instance_uid})
    desk.may_answer.set()
    desk.rings.get(timeout=PATIENCE_S)
    assert desk.is_quiet()
    assert desk.put == [(ONE, CT)]


def test_a_slow_peer_keeps_nobody_waiting_not_even_at_the_end(desk: Desk) -> None:
    desk.may_answer.clear()
    begun_s = time.monotonic()
    desk.asker.ask(ONE, [CT], 0)
    assert desk.said(CT) == asked(awaited=True)
    assert time.monotonic() - begun_s < 0.5
    desk.asker.close()
    desk.asker.ask(TWO, [CT], 0)
    assert time.monotonic() - begun_s < 5


def test_over_real_sockets_one_peer_answers_and_one_is_off() -> None:
    rung: SimpleQueue[None] = SimpleQueue()
    asker = Asker(lambda question, peer: count_images(question, peer, "PACSNODE"), lambda: rung.put(None))
    off = Peer(name="mr-1", ae_title="MR1", host="127.0.0.1", port=free_port())
    with Sender(holding({"1.1": 3}, "STUDY")).running() as peer:
        asker.ask(Question(STUDY), [peer, off], 0)
        rung.get(timeout=PATIENCE_S)
        rung.get(timeout=PATIENCE_S)
        said = asker.said(STUDY, [peer, off])
        assert (said.told_count, said.is_awaited) == (3, True)
        asker.close()


PEERS = """\
version: 1
peers:
  ct-1: {ae_title: CT1, host: 192.0.2.1, port: 104}
  mr-1: {ae_title: MR1, host: 192.0.2.2, reply_to: main-pacs}
  us-1: {ae_title: US1, host: 192.0.2.3}
  ward: {ae_title: "*", host: 192.0.3.0/24, reply_to: main-pacs}
  main-pacs: {ae_title: PACS, host: 192.0.2.5, port: 104}
"""


def test_a_sender_is_asked_where_its_results_go_and_one_without_a_port_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(PEERS)
    directory = peers.load(tmp_path / "rules.yaml")

    def names(*senders: str) -> list[str]:
        return [peer.name for peer in askable(directory, senders)]

    assert names("ct-1") == ["ct-1"]
    assert names("mr-1", "ward", "main-pacs") == ["main-pacs"]
    assert names("us-1", "quarantine", "gone") == []
    assert names("us-1", "ct-1") == ["ct-1"]
