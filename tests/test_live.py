"""A rules file that people save while the node runs: what is good goes live whole, what is not changes nothing."""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pacsnode import checks, database, schema
from pacsnode.archive.rule_versions import RuleVersions
from pacsnode.errors import ConfigError
from pacsnode.live import WORK_LOCK, LivePeers, LiveRules
from pacsnode.settings import Settings, load

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
version: 1
unmatched: keep
rules:
  - name: ecg
    enabled: false
    when: {Modality: ECG}
    complete: {quiet: 5s}
    run: ecg-arrhythmia
    results: [sr]
    send_to: [pacs]
examples:
  - {study: {Modality: CT}, expect: []}
peers:
  pacs: {ae_title: PACS, host: 192.0.2.5, port: 104, investigational: true}
"""
GOOD = HEAD + "  ct-1: {ae_title: CT1, host: 192.0.2.1, may: [store]}\n"
BETTER = HEAD + "  ct-2: {ae_title: CT2, host: 192.0.2.2, may: [store]}\n"
UNKNOWN_KEY = "unmached: keep\n" + GOOD
NO_YAML = GOOD + "  ct-3: {ae_title: CT3\n"
FAILING = GOOD.replace("expect: []", "expect: [ecg]")


class Seconds:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Editing:
    """A home, its rules file, and who goes by it: all as one test has them."""

    def __init__(self, folder: Path) -> None:
        (folder / "models").mkdir()
        self.file = folder / "rules.yaml"
        self.file.write_text(GOOD)
        self.settings: Settings = load(home=folder / "home", rules=self.file, models=folder / "models")
        schema.migrate(self.settings)
        self.clock = Seconds()
        self.versions = RuleVersions(self.settings.node_db)

    def work(self) -> LiveRules:
        """A start of `work`."""
        started = LiveRules(self.settings, self.versions, self.clock)
        started.record()
        return started

    def scp(self) -> LivePeers:
        """A start of `scp`."""
        return LivePeers(self.settings, self.versions, self.clock)

    def looks(self, at: LiveRules | LivePeers, count: int = 3) -> list[bool]:
        """What so many looks say, a second apart."""
        said = []
        for _ in range(count):
            self.clock.now_s += 1
            said.append(at.look())
        return said

    def recorded(self) -> list[str]:
        """The texts that went live."""
        with closing(sqlite3.connect(self.settings.node_db)) as connection:
            return [text for (text,) in connection.execute("SELECT text FROM rule_versions ORDER BY id")]

    def doctor(self) -> checks.Check:
        """What it says of the rules."""
        return next(check for check in checks.examine(self.settings) if check.subject == "rules")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Editing]:
    made = Editing(tmp_path)
    yield made
    made.versions.close()


def names(of: LiveRules | LivePeers) -> set[str]:
    """The scanners that are peers."""
    directory = of.directory if isinstance(of, LivePeers) else of.site.rules.peers
    return set(directory.peers) - {"pacs"}


def mistakes(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log has of mistakes, without what stays."""
    return [record.fields["problem"] for record in caplog.records if record.msg == "mistake in the rules"]  # type: ignore[attr-defined]


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def by_rename(file: Path, text: str) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(text)
    beside.replace(file)


def by_a_link(file: Path, text: str) -> None:
    """As a mounted folder of a container does it: the file is a link whose target changes."""
    behind = file.with_name(f"{len(list(file.parent.iterdir()))}.yaml")
    behind.write_text(text)
    link = file.with_suffix(".link")
    link.symlink_to(behind)
    link.replace(file)


def with_the_same_size_and_time(file: Path, text: str) -> None:
    """As a restore from a backup does it."""
    before = file.stat()
    file.write_text(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("save", [in_place, by_rename, by_a_link, with_the_same_size_and_time])
def test_a_saved_file_goes_live_by_itself(site: Editing, save: Callable[[Path, str], None]) -> None:
    work = site.work()
    assert site.looks(work) == [False, False, False]
    save(site.file, BETTER)
    assert site.looks(work) == [False, True, False]
    assert names(work) == {"ct-2"}
    assert site.recorded() == [GOOD, BETTER]


def test_looks_in_quick_succession_count_as_one(site: Editing) -> None:
    work = site.work()
    site.file.write_text(BETTER)
    assert not any(work.look() for _ in range(100))
    assert site.looks(work, 1) == [True]


@pytest.mark.parametrize("bad", [UNKNOWN_KEY, NO_YAML, FAILING, "", HEAD.replace("ecg-arrhythmia", "7")])
def test_a_bad_file_changes_nothing_and_is_told_once(site: Editing, bad: str, caplog: pytest.LogCaptureFixture) -> None:
    work, scp = site.work(), site.scp()
    before = work.site
    site.file.write_text(bad)
    assert site.looks(work, 10) == [False] * 10
    assert site.looks(scp, 10) == [False] * 10
    assert work.site is before
    assert (names(work), names(scp)) == ({"ct-1"}, {"ct-1"})
    assert site.recorded() == [GOOD]
    (told,) = mistakes(caplog)
    assert told.startswith(f"{site.file}:")


def test_each_bad_content_is_told_and_so_is_the_end_of_it(site: Editing, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    work = site.work()
    for text in (UNKNOWN_KEY, UNKNOWN_KEY, NO_YAML, GOOD, UNKNOWN_KEY):
        by_rename(site.file, text)
        assert site.looks(work) == [False] * 3
    assert [told.partition("file: ")[2][:8] for told in mistakes(caplog)] == ["", "not YAML", ""]
    assert [record.msg for record in caplog.records].count("rules in order again") == 1
    assert site.recorded() == [GOOD]


def test_half_of_a_file_that_would_be_valid_never_goes_live(site: Editing) -> None:
    work = site.work()
    for text in (HEAD, HEAD[: HEAD.index("examples")] + HEAD[HEAD.index("peers") :], BETTER[: len(HEAD)]):
        with site.file.open("w") as saving:
            saving.write(text)
            saving.flush()
            assert site.looks(work, 1) == [False]
            saving.write(BETTER[len(HEAD) :])
        assert site.looks(work, 1) == [False]
        site.file.write_text(GOOD)
    assert site.looks(work) == [False, False, False]
    assert site.recorded() == [GOOD]


def test_a_file_saved_again_and_again_is_taken_once_it_lies_still(site: Editing) -> None:
    work = site.work()
    for number in range(5):
        site.file.write_text(BETTER + f"# {number}\n")
        assert site.looks(work, 1) == [False]
    assert site.looks(work) == [True, False, False]
    assert site.recorded() == [GOOD, BETTER + "# 4\n"]


def test_a_reload_judges_at_once_and_reads_the_services_again(site: Editing) -> None:
    work = site.work()
    shutil.copytree(ROOT / "models" / "ecg-arrhythmia", site.settings.models / "ecg-arrhythmia")
    site.file.write_text(BETTER)
    work.ask()
    assert work.look()
    assert names(work) == {"ct-2"}
    assert set(work.site.services) == {"ecg-arrhythmia"}
    assert site.looks(work) == [False, False, False]
    assert site.recorded() == [GOOD, BETTER]


def test_a_file_that_is_gone_changes_nothing(site: Editing, caplog: pytest.LogCaptureFixture) -> None:
    work = site.work()
    site.file.unlink()
    assert site.looks(work, 5) == [False] * 5
    assert names(work) == {"ct-1"}
    assert mistakes(caplog) == [f"{site.file}:1:1 file: cannot be read: No such file or directory [not-readable]"]


def test_the_last_good_version_outlives_a_restart(site: Editing, caplog: pytest.LogCaptureFixture) -> None:
    site.work()
    site.file.write_text(UNKNOWN_KEY)
    work, scp = site.work(), site.scp()
    assert (names(work), names(scp)) == ({"ct-1"}, {"ct-1"})
    assert work.site.rules.hash == site.versions.live().hash  # type: ignore[union-attr]
    assert work.site.rules.file.startswith("rules.yaml (version ")
    assert any("unmached" in told and f"{site.file}:1:1" in told for told in mistakes(caplog))
    checks.check_start(site.settings)
    site.file.write_text(BETTER)
    assert site.looks(work) == [False, True, False]
    assert site.recorded() == [GOOD, BETTER]


def test_a_node_that_never_had_a_good_version_does_not_start(site: Editing) -> None:
    site.file.write_text(UNKNOWN_KEY)
    for start in (site.work, lambda: checks.check_start(site.settings)):
        with pytest.raises(ConfigError, match="unmached") as refused:
            start()
        assert refused.value.exit_code == 2
    site.file.write_text(NO_YAML)
    with pytest.raises(ConfigError):
        site.scp()
    assert site.recorded() == []


def test_a_start_takes_the_file_that_was_saved_meanwhile(site: Editing) -> None:
    site.work()
    site.file.write_text(BETTER)
    checks.check_start(site.settings)
    assert site.recorded() == [GOOD, BETTER]
    assert names(site.scp()) == {"ct-2"}


def test_a_start_beside_a_work_that_runs_leaves_the_judging_to_it(site: Editing) -> None:
    work = site.work()
    site.file.write_text(BETTER)
    with database.locked(site.settings.home / WORK_LOCK, wait=False):
        checks.check_start(site.settings)
    assert site.recorded() == [GOOD]
    assert site.looks(work) == [False, True, False]


def test_a_recorded_version_that_does_not_fit_the_settings_any_more_is_not_used(site: Editing) -> None:
    site.work()
    site.file.write_text(UNKNOWN_KEY)
    retention = {"retention_keep_days": 1.0, "retention_archive": "nobody"}
    site.settings = load(home=site.settings.home, rules=site.file, models=site.settings.models, **retention)
    with pytest.raises(ConfigError, match="unmached"):
        site.work()


def test_a_file_that_is_written_all_the_time_does_not_keep_a_node_from_its_start(
    site: Editing, caplog: pytest.LogCaptureFixture
) -> None:
    site.work()
    done = threading.Event()

    def write_on() -> None:
        while not done.wait(0.05):
            site.file.write_text(BETTER)

    site.file.write_text(BETTER)
    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        work = site.work()
    finally:
        done.set()
        writer.join()
    assert names(work) == {"ct-1"}
    assert mistakes(caplog) == [f"{site.file}: somebody is writing this file just now"]
    assert site.looks(work) == [False, True, False]


def test_what_is_no_mistake_but_hardly_meant_is_told(site: Editing, caplog: pytest.LogCaptureFixture) -> None:
    work = site.work()
    site.file.write_text(GOOD.replace("enabled: false", "enabled: true"))
    assert site.looks(work) == [False, True, False]
    told = [record.fields["problem"] for record in caplog.records if record.msg == "hardly meant in the rules"]  # type: ignore[attr-defined]
    (line,) = told
    assert line.startswith(f"{site.file}:8:")
    assert "warning: there is no service ecg-arrhythmia installed" in line
    assert (site.doctor().level, site.doctor().found) == ("warning", line)


def test_who_saved_it_is_recorded(site: Editing) -> None:
    site.work()
    live = site.versions.live()
    assert live is not None
    assert live.author == pwd.getpwuid(os.getuid()).pw_name
    assert live.source == str(site.file)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_an_owner_without_a_name_is_recorded_by_number(site: Editing) -> None:
    os.chown(site.file, 54321, -1)
    site.work()
    live = site.versions.live()
    assert live is not None
    assert live.author == "54321"


def test_going_back_is_a_new_version(site: Editing) -> None:
    work = site.work()
    for text in (BETTER, GOOD):
        site.file.write_text(text)
        assert site.looks(work) == [False, True, False]
    assert site.recorded() == [GOOD, BETTER, GOOD]


def test_scp_alone_goes_by_the_file(site: Editing, caplog: pytest.LogCaptureFixture) -> None:
    scp = site.scp()
    assert names(scp) == {"ct-1"}
    site.file.write_text(BETTER)
    assert site.looks(scp) == [False, True, False]
    assert names(scp) == {"ct-2"}
    site.file.write_text(NO_YAML)
    assert site.looks(scp, 5) == [False] * 5
    assert len(mistakes(caplog)) == 1
    site.file.write_text(GOOD)
    scp.reload()
    assert names(scp) == {"ct-1"}


def test_scp_goes_by_the_live_version_and_not_by_the_file(site: Editing) -> None:
    scp, work = site.scp(), site.work()
    assert site.looks(scp) == [True, False, False]  # the same peers, from now on of the version
    site.file.write_text(BETTER)
    assert site.looks(scp, 5) == [False] * 5
    scp.reload()
    assert (names(scp), names(site.scp())) == ({"ct-1"}, {"ct-1"})
    assert site.looks(work) == [False, True, False]
    assert scp.look()
    assert names(scp) == {"ct-2"}


def test_scp_keeps_its_peers_while_node_db_cannot_be_read(site: Editing, caplog: pytest.LogCaptureFixture) -> None:
    site.work()
    scp = site.scp()
    with closing(sqlite3.connect(site.settings.node_db)) as connection:
        connection.execute("ALTER TABLE rule_versions RENAME TO elsewhere")
        assert site.looks(scp) == [False, False, False]
        assert names(scp) == {"ct-1"}
        assert mistakes(caplog) == ["node.db cannot be read: no such table: rule_versions"]
        connection.execute("ALTER TABLE elsewhere RENAME TO rule_versions")
    work = site.work()
    site.file.write_text(BETTER)
    site.looks(work)
    assert scp.look()


def test_doctor_says_which_version_is_live_and_what_is_wrong_with_the_file(site: Editing) -> None:
    assert site.doctor().level == "ok"
    work = site.work()
    live = site.versions.live()
    assert live is not None
    assert (site.doctor().level, f"version {live.short} of 20" in site.doctor().found) == ("ok", True)
    site.file.write_text(FAILING)
    site.looks(work)
    told = site.doctor()
    assert told.level == "wrong"
    assert told.found.startswith(f"{site.file}:12:5 example: ")
    assert f"; version {live.short} of 20" in told.found
    assert told.found.endswith(" stays live")
    site.file.write_text(BETTER)
    assert site.doctor().level == "warning"
