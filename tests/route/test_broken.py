"""Each file of `broken/` is wrong as its name says: what people are told, by the functions and by the command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from pacsnode import yamlfile
from pacsnode.errors import ConfigError
from pacsnode.infer.catalogue import load_catalogue
from pacsnode.live import judged
from pacsnode.owing import Site
from pacsnode.settings import Settings, load

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).with_name("broken")
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
ALONE_EVERY = 15
"""So many files are checked together for one that is checked alone: a process takes a second to start."""
GOOD = """\
version: 1
peers:
  xray-1: {ae_title: XR1, host: 192.0.2.21, port: 104, may: [store], investigational: true}
  main-pacs: {ae_title: PACS, host: 192.0.2.5, port: 104, accepts: [sr, sc], investigational: true}
rules:
  - name: chest
    when:
      Modality: {in: [CR, DX]}
    complete: {quiet: 20s}
    run: chest-xray
    results: [sr]
    send_to: [main-pacs]
unmatched: keep
examples:
  - {study: {Modality: CR, StudyDescription: 흉부 정면}, expect: [chest]}
"""
STOP = "    stop: true\n  - {name: second, when: {Modality: CR}, forward: main-pacs}\nunmatched"


class Mistake(NamedTuple):
    """One line of the table."""

    place: str
    code: str
    fragment: str


def table() -> dict[str, list[Mistake]]:
    """By file: its mistakes in the order of their places."""
    made: dict[str, list[Mistake]] = {}
    for line in (FOLDER / "expected.txt").read_text(encoding="utf-8").splitlines()[1:]:
        found = re.fullmatch(r"(\w+\.yaml)(:\d+:\d+) \[([a-z-]*)\] (.+)", line)
        assert found, line
        made.setdefault(found[1], []).append(Mistake(found[2], found[3], found[4]))
    return made


EXPECTED = table()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load(rules=ROOT / "routing_rules.yaml", models=ROOT / "models", home=tmp_path_factory.mktemp("home"))


def judge(path: Path, settings: Settings) -> Site:
    """What `pacsnode rules check` and a running node do with a file."""
    return judged(settings, yamlfile.load(path), load_catalogue(settings.models))


def command(path: Path, settings: Settings, *files: Path) -> subprocess.CompletedProcess[str]:
    """`pacsnode rules check` as hospital IT runs it."""
    given = {
        "PACSNODE_RULES": str(path),
        "PACSNODE_HOME": str(settings.home),
        "PACSNODE_MODELS": str(ROOT / "models"),
        "PYTHONIOENCODING": "utf-8",
    }
    words = [sys.executable, "-m", "pacsnode", "rules", "check", *map(str, files)]
    return subprocess.run(words, env=os.environ | given, cwd=ROOT, capture_output=True, text=True, check=False)


def told(path: Path, settings: Settings) -> str:
    with pytest.raises(ConfigError) as caught:
        judge(path, settings)
    return str(caught.value)


def test_every_broken_file_has_its_line_in_the_table() -> None:
    assert list(EXPECTED) == FILES
    assert len(FILES) >= 40


@pytest.mark.parametrize("name", FILES)
def test_all_mistakes_of_a_file_are_told_each_at_its_place_with_what_to_write(name: str, settings: Settings) -> None:
    lines = told(FOLDER / name, settings).split("\n")
    assert len(lines) == len(EXPECTED[name]), lines
    for line, expected in zip(lines, EXPECTED[name], strict=True):
        assert line.startswith(f"{FOLDER / name}{expected.place} "), line
        assert expected.fragment in line
        assert line.endswith(f" [{expected.code}]") == bool(expected.code)


def test_the_command_ends_with_2_and_says_the_same_without_a_traceback(settings: Settings) -> None:
    paths = [FOLDER / name for name in FILES]
    together = command(settings.rules, settings, *paths)
    for path, answer in [(path, together) for path in paths] + [
        (path, command(path, settings)) for path in paths[::ALONE_EVERY]
    ]:
        assert answer.returncode == 2, (path.name, answer)
        assert "Traceback" not in answer.stderr + answer.stdout
        assert told(path, settings) in answer.stderr


@pytest.mark.parametrize(
    "content",
    [GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD, GOOD.rstrip("\n"), GOOD.replace("rules:", "# 규칙:\t20s\nrules:")],
    ids=["windows line ends", "byte order mark", "no line end at the end", "comment"],
)
def test_what_editors_do_to_a_good_file_is_no_mistake(content: str, tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "routing_rules.yaml"
    path.write_bytes(content.encode())
    assert judge(path, settings).rules.warnings == ()
    assert command(path, settings).returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        (
            "unmatched",
            STOP,
            ":14:5 rules.1: warning: 'chest' above has `stop: true` and takes every image that this rule could take "
            "[unreachable]",
        ),
        (
            "run: chest-xray",
            "run: chest-xry",
            ":10:5 rules.0.run.0: warning: there is no service chest-xry installed; did you mean chest-xray?; the rule "
            "is skipped for it [unknown-service]",
        ),
        (
            "[CR, DX]",
            "[CT, MR]",
            ":10:5 rules.0.run.0: warning: chest-xray accepts no image that this rule takes: Modality cannot be CT or "
            "MR and CR or DX at once [service-never]",
        ),
        (
            "results",
            "shadow: true\n    results",
            ":13:5 rules.0.send_to: warning: nothing is sent, since the rule has `shadow: true` [shadow-send-to]",
        ),
    ],
)
def test_what_is_hardly_meant_is_told_and_the_file_acts(
    old: str, new: str, warning: str, tmp_path: Path, settings: Settings
) -> None:
    path = tmp_path / "routing_rules.yaml"
    path.write_text(GOOD.split("examples")[0].replace(old, new, 1), encoding="utf-8")
    assert judge(path, settings).rules.warnings == (f"{path}{warning}",)
    answer = command(path, settings)
    assert answer.returncode == 0, answer
    assert warning in answer.stdout + answer.stderr
