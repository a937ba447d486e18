"""`pacsnode rules history`, `roll-back`, `new`, `schema`, `check FILE`: as a person at a hospital uses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pacsnode import yamlfile
from pacsnode.archive.rule_versions import RuleVersions
from pacsnode.settings import Settings
from tests.archive import homes

ROOT = Path(__file__).resolve().parents[2]
FIRST = """\
version: 1
unmatched: keep
peers:
  ct-1: {ae_title: CT1, host: 192.0.2.7, may: [store], issuer: CLINIC}
  main-pacs: {ae_title: PACS, host: 192.0.2.5, port: 104, investigational: true}
rules: []
"""
SECOND = FIRST.replace("unmatched: keep", "unmatched: alarm")
BROKEN = FIRST.replace("rules: []", "rules: [{name: x}]")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = homes.home(tmp_path)
    rules = tmp_path / "routing_rules.yaml"
    rules.write_text(SECOND)
    made = made.model_copy(update={"rules": rules})
    with closing(RuleVersions(made.node_db)) as versions:
        for text in (FIRST, SECOND):
            versions.go_live(yamlfile.parse(text, "routing_rules.yaml"), text, "minsu", rules)
    return made


def command(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PACSNODE_HOME": str(settings.home),
        "PACSNODE_RULES": str(settings.rules),
        "PACSNODE_MODELS": str(ROOT / "models"),
    }
    return subprocess.run(
        [sys.executable, "-m", "pacsnode", "rules", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_history_lists_every_version_with_its_author_and_what_changed(settings: Settings) -> None:
    newest, oldest = json.loads(command(settings, "history", "--json").stdout)
    assert (newest["author"], newest["until"], newest["changed"]) == ("minsu", "", "+1 -1 lines")
    assert oldest["until"] == newest["live"]
    assert oldest["changed"] == "6 lines"
    lines = command(settings, "history").stdout.splitlines()
    assert "live now" in lines[0]
    assert oldest["version"] in lines[1]
    difference = command(settings, "history", "diff").stdout
    assert "-unmatched: keep\n+unmatched: alarm" in difference
    assert command(settings, "history", "show", oldest["version"]).stdout == FIRST
    reverse = command(settings, "history", "diff", newest["version"], oldest["version"]).stdout
    assert "-unmatched: alarm\n+unmatched: keep" in reverse


def test_roll_back_puts_the_old_text_into_the_file_with_its_owner_and_mode(settings: Settings) -> None:
    settings.rules.chmod(0o640)
    oldest = json.loads(command(settings, "history", "--json").stdout)[1]
    answer = command(settings, "roll-back", oldest["version"])
    assert answer.returncode == 0, answer.stderr
    assert settings.rules.read_text() == FIRST
    assert settings.rules.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in settings.rules.parent.iterdir() if path.name.startswith(".rules-")] == []


@pytest.mark.parametrize(("version", "told"), [("ffff", "no version was live"), ("", "2 versions begin with")])
def test_a_version_that_is_none_or_several_changes_nothing(settings: Settings, version: str, told: str) -> None:
    answer = command(settings, "roll-back", version)
    assert answer.returncode == 2
    assert told in answer.stderr
    assert settings.rules.read_text() == SECOND


def test_a_version_that_is_no_good_any_more_is_not_put_back(settings: Settings) -> None:
    with closing(RuleVersions(settings.node_db)) as versions:
        old = versions.go_live(yamlfile.parse(BROKEN, "x"), BROKEN, "minsu", settings.rules)
        versions.go_live(yamlfile.parse(SECOND, "x"), SECOND, "minsu", settings.rules)
    answer = command(settings, "roll-back", old.short)
    assert answer.returncode == 2
    assert f"routing_rules.yaml (version {old.short}):6:" in answer.stderr
    assert settings.rules.read_text() == SECOND


def test_another_file_can_be_checked_before_it_is_put_in_place(settings: Settings, tmp_path: Path) -> None:
    other = tmp_path / "new.yaml"
    other.write_text(BROKEN)
    answer = command(settings, "check", str(other))
    assert answer.returncode == 2
    assert f"{other}:6:" in answer.stderr
    assert command(settings, "check").returncode == 0


def test_new_shows_what_was_received_and_is_itself_right(settings: Settings, tmp_path: Path) -> None:
    archive = homes.archive(settings)
    for number, description in enumerate(["CHEST PA", "CHEST PA", "흉부 정면", "line\nbreak # hash"]):
        uid = f"1.9.{number}"
        data = homes.data_set(uid, study=f"1.2.{number}", StudyDescription=description, BodyPartExamined="CHEST")
        homes.store(archive, data, homes.request(uid))
    archive.close()
    out = tmp_path / "start.yaml"
    answer = command(settings, "new", "--out", str(out))
    assert answer.returncode == 0, answer.stderr
    text = out.read_text()
    assert "# CT: 4 images lately, from ct-1 (4)" in text
    assert "StudyDescription: CHEST PA (2), " in text
    assert "흉부 정면 (1)" in text
    assert "Hong" not in text
    assert command(settings, "check", str(out)).stdout.startswith(f"{out}: 0 of 1 rules are on, 2 peers")
    assert command(settings, "new", "--out", str(out)).returncode == 2, "never written over"
    assert out.read_text() == text


def test_new_without_anything_received_is_right_too(settings: Settings, tmp_path: Path) -> None:
    text = command(settings, "new").stdout
    assert "Nothing was received yet" in text
    empty = tmp_path / "empty.yaml"
    empty.write_text(text)
    assert command(settings, "check", str(empty)).returncode == 0


def test_the_schema_names_every_key_of_the_file(settings: Settings) -> None:
    schema = json.loads(command(settings, "schema").stdout)
    assert set(schema["properties"]) == {"version", "peers", "defaults", "rules", "unmatched", "examples"}
    rule = schema["$defs"]["RuleEntry"]["properties"]
    assert {"when", "series", "run", "forward", "complete", "late_images", "stop", "schedule"} <= set(rule)
    assert "Modality" in rule["when"]["properties"]
