"""What README and docs show is run: every YAML block, every command, every generated part, every link."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pacsnode.live import load_site
from pacsnode.route.examples import check_examples
from pacsnode.settings import load

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block of a language."""
    return [
        (page.name, text)
        for page in PAGES
        for text in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


def commands() -> list[str]:
    """Every `$ pacsnode …` line that is shown, without its comment."""
    lines = [line for _, text in blocks("console") for line in text.splitlines()]
    shown = [line[2:].split("  #")[0].strip() for line in lines if line.startswith("$ pacsnode ")]
    return sorted({line for line in shown if line != "pacsnode serve"})  # serve runs in tests/whole


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "PACSNODE_HOME": str(tmp_path / "home"),
        "PACSNODE_RULES": str(ROOT / "routing_rules.yaml"),
        "PACSNODE_MODELS": str(ROOT / "models"),
        "PACSNODE_MINIMUM_FREE_MB": "1",
    }


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_every_yaml_that_is_shown_is_a_rules_file_whose_examples_hold(page: str, text: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(text)
    site = load_site(load(rules=rules, models=ROOT / "models"))
    assert site.rules.rules
    assert check_examples(site.rules) == []


def test_the_shipped_rules_hold_their_examples() -> None:
    site = load_site(load(rules=ROOT / "routing_rules.yaml", models=ROOT / "models"))
    assert check_examples(site.rules) == []


def test_commands_are_shown_at_all() -> None:
    assert len(commands()) >= 6
    assert blocks("yaml")


@pytest.mark.parametrize("command", commands())
def test_every_command_that_is_shown_runs(command: str, environment: dict[str, str]) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pacsnode", *arguments], env=environment, capture_output=True, text=True, check=False
        )

    words = command.split()[1:]
    assert run("migrate").returncode == 0
    answer = run(*words)
    placeholder = any(word.isupper() for word in words)
    # doctor finds that the documentation's addresses do not answer, which is a warning, not wrong
    assert answer.returncode == (2 if placeholder else 0), answer
    assert "Traceback" not in answer.stderr


def test_the_table_of_settings_is_the_one_of_the_program() -> None:
    written = subprocess.run(
        [sys.executable, "-c", "import write_docs; print(write_docs.settings_table())"],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert written in (ROOT / "docs" / "operations.md").read_text(), "run python scripts/write_docs.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
