"""Cases in node.db: decided, waiting, taken, ended, retried; by several threads and a second process's worth."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pacsnode import schema
from pacsnode.archive.case_rows import Arrived, Pending, ResultRecord, is_replaced_by, replaced_by
from pacsnode.archive.cases import Cases
from pacsnode.handover import Candidate, Case, Clause, Completion, Decision, Late, RuleVerdict
from pacsnode.settings import Settings, load

COMPLETION = Completion(20.0, 5.0, at_most_s=600.0, then="run", missing=("no image with ViewPosition LL",))
CANDIDATE = Candidate(
    "1.2.3",
    "chest-xray",
    ("chest",),
    ("1.2.3.1",),
    ("sr", "seg"),
    ("sender", "pacs"),
    10,
    COMPLETION,
    Late("amend", 60.0),
)
CAME = Arrived(77, "boot-1", 1_700_000_000_000_000, ("xray-1",))
VERDICT = RuleVerdict("chest", True, "Modality is CR", (Clause("Modality", "CR or DX", "CR", True),))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load(home=tmp_path / "home")
    schema.migrate(made)
    return made


@pytest.fixture
def cases(settings: Settings) -> Iterator[Cases]:
    made = Cases(settings.node_db)
    yield made
    made.close()


def decision(revision: int = 1, *candidates: Candidate, study: str = "1.2.3") -> Decision:
    return Decision(study, revision, "rules-1", candidates, (VERDICT,))


def case(key: str, started: int = 1000) -> Case:
    return Case(key, "1.2.3", "chest-xray", ("chest",), "rules-1", ("1.2.3.1",), ("sr", "seg"), started)


def open_case(cases: Cases, key: str, started: int = 1000, candidate: Candidate = CANDIDATE) -> None:
    cases.open(Pending(0, candidate, "rules-1", CAME, False), case(key, started), "quiet for 20 s")


def result(key: str) -> ResultRecord:
    return ResultRecord(f"2.25.{key}", key, "sr", "1.2.840.10008.5.1.4.1.1.88.33", "2.25.1", "00000001/aa/x.dcm")


def nothing(connection: sqlite3.Connection) -> None:
    """Owe nothing."""


def audited(settings: Settings) -> list[str]:
    connection = sqlite3.connect(settings.node_db)
    try:
        return [event for (event,) in connection.execute("SELECT event FROM audit ORDER BY id")]
    finally:
        connection.close()


def test_a_decision_replaces_the_one_before_and_moves_the_watermark(cases: Cases) -> None:
    cases.record_decision(decision(4, CANDIDATE), [(CANDIDATE, CAME)])
    cases.record_decision(decision(9, CANDIDATE), [(replace(CANDIDATE, priority=1), replace(CAME, last_boot_us=88))])
    (pending,) = cases.pending("1.2.3")
    assert pending.candidate == replace(CANDIDATE, priority=1)
    assert (pending.arrived, pending.rules_hash) == (replace(CAME, last_boot_us=88), "rules-1")
    assert cases.watermark() == 9
    assert cases.verdicts("1.2.3") == ("rules-1", (VERDICT,))
    assert cases.verdicts("1.2.4") is None


def test_a_decision_on_an_older_revision_never_moves_the_watermark_back(cases: Cases) -> None:
    cases.record_decision(decision(9), [])
    cases.record_decision(decision(4, study="1.2.4"), [])
    assert cases.watermark() == 9


def test_a_candidate_that_is_whole_becomes_a_case_and_waits_no_longer(settings: Settings, cases: Cases) -> None:
    cases.record_decision(decision(1, CANDIDATE), [(CANDIDATE, CAME)])
    cases.open(cases.pending()[0], case("k1"), "quiet for 20 s")
    assert cases.pending() == []
    record = cases.get("k1")
    assert record is not None
    assert record.case == case("k1")
    assert (record.state, record.whole_because, record.send_to) == ("waiting", "quiet for 20 s", ("sender", "pacs"))
    assert audited(settings) == ["decided", "case opened"]


def test_a_case_that_is_opened_twice_is_one_case_with_all_destinations(settings: Settings, cases: Cases) -> None:
    open_case(cases, "k1")
    open_case(cases, "k1", started=2000, candidate=replace(CANDIDATE, rules=("second",), send_to=("pacs", "ward")))
    (record,) = cases.of_study("1.2.3")
    assert record.send_to == ("sender", "pacs", "ward")
    assert record.case.rules == ("chest", "second")
    assert record.case.started_utc_us == 1000
    assert audited(settings) == ["case opened"]


def test_uniting_tells_once_that_a_case_grew(cases: Cases) -> None:
    open_case(cases, "k1")
    more = replace(CANDIDATE, send_to=("pacs", "ward"), results=("sc",))
    assert cases.unite("k1", more)
    assert not cases.unite("k1", more)
    record = cases.get("k1")
    assert record is not None
    assert record.send_to == ("sender", "pacs", "ward")
    assert record.case.results == ("sr", "seg", "sc")


def test_the_most_urgent_are_taken_first_and_never_more_than_the_limit(cases: Cases) -> None:
    open_case(cases, "late", started=3000)
    open_case(cases, "early", started=1000)
    open_case(cases, "stat", started=9000, candidate=replace(CANDIDATE, priority=1))
    assert [r.case.key for r in cases.take(2)] == ["stat", "early"]
    assert cases.take(2) == []
    assert cases.waiting_count() == 1
    cases.add_results("stat", [], nothing, is_last=True)
    assert [r.case.key for r in cases.take(2)] == ["late"]


def test_a_case_is_taken_by_one_only(settings: Settings) -> None:
    """Two connections: what a second work process would do."""
    takers = [Cases(settings.node_db) for _ in range(2)]
    for number in range(40):
        open_case(takers[0], f"k{number}", started=number)
    with ThreadPoolExecutor(8) as pool:
        taken = [r.case.key for some in pool.map(lambda n: takers[n % 2].take(n + 1), range(40)) for r in some]
    assert sorted(taken) == sorted(f"k{number}" for number in range(40))
    for taker in takers:
        taker.close()


def test_results_debts_and_the_end_are_one_transaction(settings: Settings, cases: Cases) -> None:
    open_case(cases, "k1")
    cases.take(1)

    def fail(connection: sqlite3.Connection) -> None:
        assert connection.in_transaction
        raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        cases.add_results("k1", [result("k1")], fail, is_last=True)
    record = cases.get("k1")
    assert record is not None
    assert record.state == "running"
    assert cases.results("k1") == []
    for _ in range(2):  # the step may be repeated
        cases.add_results("k1", [result("k1")], nothing, is_last=True)
    assert cases.results("k1") == [result("k1")]
    assert [r.case.key for r in cases.listing("done", 10)] == ["k1"]


def test_a_parked_case_is_retried_by_another_process_while_work_runs(settings: Settings, cases: Cases) -> None:
    open_case(cases, "k1")
    cases.take(1)
    cases.park("k1", 1, "the model failed")
    assert cases.take(4) == []
    operator = Cases(settings.node_db)
    assert operator.retry("k1")
    assert not operator.retry("k1")
    operator.close()
    (record,) = cases.take(4)
    assert (record.attempt, record.reason) == (2, "")
    assert audited(settings) == ["case opened", "case parked", "case retried"]


def test_a_case_that_is_done_cannot_be_parked_or_retried(settings: Settings, cases: Cases) -> None:
    open_case(cases, "k1")
    cases.take(1)
    cases.add_results("k1", [result("k1")], nothing, is_last=True)
    cases.park("k1", 1, "too late")
    assert not cases.retry("k1")
    record = cases.get("k1")
    assert record is not None
    assert (record.state, record.reason) == ("done", "")
    assert "case parked" not in audited(settings)


def test_a_running_case_that_the_engine_lost_gets_a_new_attempt(cases: Cases) -> None:
    open_case(cases, "k1")
    cases.take(1)
    assert cases.run_again("k1") == 2
    assert [(r.case.key, r.attempt) for r in cases.running()] == [("k1", 2)]


def test_timings_of_several_steps_add_up(cases: Cases) -> None:
    open_case(cases, "k1")
    cases.note_timing("k1", {"infer_s": 1.5})
    cases.note_timing("k1", {"encode_s": 0.5, "infer_s": 2.0})
    record = cases.get("k1")
    assert record is not None
    assert record.timings == {"infer_s": 2.0, "encode_s": 0.5}


def test_an_inner_transaction_belongs_to_the_outer_one(cases: Cases) -> None:
    with pytest.raises(RuntimeError), cases.transaction():
        open_case(cases, "k1")
        assert cases.get("k1") is not None
        raise RuntimeError
    assert cases.get("k1") is None


def test_a_thread_never_joins_the_transaction_of_another(cases: Cases) -> None:
    inside, leave = threading.Event(), threading.Event()

    def fail() -> None:
        with pytest.raises(RuntimeError), cases.transaction():
            open_case(cases, "torn")
            inside.set()
            leave.wait(20)
            raise RuntimeError

    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(fail)
        assert inside.wait(20)
        opening = pool.submit(open_case, cases, "whole")
        assert not opening.done()
        leave.set()
        failing.result(20)
        opening.result(20)
    assert [r.case.key for r in cases.listing("", 10)] == ["whole"]


def test_many_threads_work_on_one_connection(cases: Cases) -> None:
    def live(number: int) -> None:
        key = f"k{number}"
        open_case(cases, key, started=number)
        cases.note_timing(key, {"infer_s": float(number)})
        with cases.transaction():
            cases.unite(key, replace(CANDIDATE, send_to=("ward",)))
            assert cases.get(key) is not None
        cases.add_results(key, [result(key)], nothing, is_last=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(live, range(80)))
    records = cases.listing("done", 100)
    assert len(records) == 80
    assert all(r.send_to == ("sender", "pacs", "ward") and len(cases.results(r.case.key)) == 1 for r in records)


SHADOW = replace(CANDIDATE, rules=("next",), results=(), send_to=(), priority=110, shadow=True)


def test_a_live_rule_wins_over_one_in_shadow_and_its_destinations_alone_count(settings: Settings, cases: Cases) -> None:
    open_case(cases, "k1", candidate=SHADOW)
    assert cases.unite("k1", CANDIDATE)
    record = cases.get("k1")
    assert record is not None
    assert (record.shadow, record.priority, record.send_to) == (False, 10, ("sender", "pacs"))
    assert (record.case.rules, record.case.results) == (("chest",), ("sr", "seg"))
    assert audited(settings) == ["case opened", "case in shadow goes live"]


def test_a_rule_in_shadow_adds_nothing_to_a_live_case(cases: Cases) -> None:
    open_case(cases, "k1")
    before = cases.get("k1")
    assert not cases.unite("k1", replace(SHADOW, results=("sc",), send_to=("ward",)))
    assert cases.get("k1") == before


def test_two_rules_in_shadow_stay_in_shadow(cases: Cases) -> None:
    open_case(cases, "k1", candidate=SHADOW)
    cases.unite("k1", replace(SHADOW, rules=("another",)))
    record = cases.get("k1")
    assert record is not None
    assert (record.shadow, record.send_to, record.case.rules) == (True, (), ("chest", "another"))


def test_a_case_in_shadow_starts_only_when_no_live_one_waits_or_runs_and_then_alone(cases: Cases) -> None:
    for number in range(3):
        open_case(cases, f"shadow-{number}", started=number, candidate=SHADOW)
    open_case(cases, "live", started=9000, candidate=replace(CANDIDATE, priority=20))
    assert [r.case.key for r in cases.take(4)] == ["live"]
    assert cases.take(4) == []
    cases.add_results("live", [], nothing, is_last=True)
    assert [r.case.key for r in cases.take(4)] == ["shadow-0"]
    assert cases.take(4) == []
    for number in range(4):
        open_case(cases, f"live-{number}", started=9001 + number)
    assert [r.case.key for r in cases.take(4)] == [f"live-{number}" for number in range(4)]


def test_a_candidate_that_was_recorded_before_there_was_a_shadow_is_live(settings: Settings, cases: Cases) -> None:
    cases.record_decision(decision(1, CANDIDATE), [(CANDIDATE, CAME)])
    with sqlite3.connect(settings.node_db) as connection:
        connection.execute("UPDATE candidates SET candidate = json_remove(candidate, '$.shadow')")
    connection.close()
    assert cases.pending("1.2.3")[0].candidate == CANDIDATE


def test_stat_finds_a_place_where_routine_waits_and_off_peak_leaves_some(settings: Settings) -> None:
    cases = Cases(settings.node_db)
    for number in range(20):
        open_case(cases, f"night{number}", number, replace(CANDIDATE, priority=20))
    assert len(cases.take(16)) == 12
    for number in range(8):
        open_case(cases, f"day{number}", 100 + number, replace(CANDIDATE, priority=10))
    assert [r.case.key for r in cases.take(16)] == [f"day{n}" for n in range(4)]
    for number in range(3):
        open_case(cases, f"now{number}", 200 + number, replace(CANDIDATE, priority=1))
    assert [r.case.key for r in cases.take(16)] == ["now0", "now1"]
    cases.close()


def test_a_case_stands_in_place_of_those_before_it_back_to_the_last_with_a_report(cases: Cases) -> None:
    keys = ("first", "second", "third", "fourth")
    for number, key in enumerate(keys):
        made = replace(case(key, number), supersedes=keys[number - 1] if number else "")
        cases.open(Pending(0, CANDIDATE, "rules", CAME, False), made, "quiet")
        if key == "third":
            cases.park(key, 1, "no pixels")
        else:
            cases.add_results(key, [result(key)], nothing, is_last=True)
    records = cases.of_study("1.2.3")
    first, second, third, fourth = records
    assert [one.case.key for one in replaced_by(fourth, records)] == ["third", "second"]
    assert is_replaced_by(second, fourth, records)
    assert is_replaced_by(first, second, records)
    assert not is_replaced_by(second, third, records)
    assert replaced_by(first, records) == []
