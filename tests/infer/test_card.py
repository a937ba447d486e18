"""The model card: what must stand in it, what is still to be filled in, and the one that is made from the contract."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pacsnode.infer import card
from pacsnode.infer.catalogue import load_service
from tests.infer.bundles import FIBRILLATION, README, SENSITIVITY, with_card, workflow_bundle
from tests.infer.bundles import card as card_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return with_card(workflow_bundle(tmp_path / "models", "{}"))


def test_a_bundle_with_its_card_is_in_order(folder: Path) -> None:
    assert card.check(folder) == []


@pytest.mark.parametrize("name", ["chest-xray", "ecg-arrhythmia"])
def test_the_shipped_bundles_are_in_order(name: str) -> None:
    assert card.check(ROOT / "models" / name) == []


@pytest.mark.parametrize("section", ["Intended use", "Training data", "Quality", "Limits"])
def test_a_section_that_is_not_there_is_named_and_an_empty_one_by_its_line(folder: Path, section: str) -> None:
    path = folder / "docs" / "README.md"
    whole = README[README.index(f"## {section}") :].split("\n\n")[0]
    path.write_text(README.replace(whole, ""))
    (line,) = card.check(folder)
    assert line.startswith(f"{path}:")
    assert f"there is no section `## {section}`" in line
    path.write_text(README.replace(whole, f"## {section}"))
    (line,) = card.check(folder)
    number = README[: README.index(f"## {section}")].count("\n") + 1
    assert line == f"{path}:{number}:1 README.md: the section {section} is empty; the card must say it [card-section]"


def test_no_card_no_licence_and_no_word_on_diagnosis_are_mistakes(folder: Path) -> None:
    (folder / "LICENSE").write_text("\n")
    (folder / "docs" / "README.md").write_text(README.replace("Not for diagnosis.", "Good for everything."))
    licence, use = card.check(folder)
    assert licence.endswith("under which licence may it be used? [no-licence]")
    assert 'the card must say "not for diagnosis"' in use
    (folder / "docs" / "README.md").unlink()
    assert any(line.endswith("[no-card]") for line in card.check(folder))


def test_a_certified_product_need_not_say_that_it_is_not_for_diagnosis(tmp_path: Path) -> None:
    folder = with_card(workflow_bundle(tmp_path / "models", "{}", status="certified"))
    (folder / "docs" / "README.md").write_text(README.replace("Not for diagnosis.", ""))
    assert card.check(folder) == []
    assert "Not for diagnosis" not in card.model_card(load_service(folder))


@pytest.mark.parametrize("name", ["pipeline.yaml", "docs/README.md", "configs/metadata.json", "LICENSE"])
def test_every_todo_is_named_by_file_line_and_column(folder: Path, name: str) -> None:
    path = folder / name
    text = path.read_text()
    mark = {"pipeline.yaml": "# a TODO: the code\n", "configs/metadata.json": "\n"}.get(name, "a TODO: the code\n")
    path.write_text(mark + text)
    if name.endswith("json"):
        path.write_text('{"version": "1",\n"task": "TODO: what"}')
    (line,) = card.check(folder)
    column = {"pipeline.yaml": "1:5", "configs/metadata.json": "2:10"}.get(name, "1:3")
    assert line.startswith(f"{path}:{column} {path.name}: still to be filled in: ")


def test_mistakes_of_the_contract_and_of_the_card_are_told_together(folder: Path) -> None:
    (folder / "LICENSE").unlink()
    path = folder / "pipeline.yaml"
    path.write_text(path.read_text().replace("status: classical", "status: TODO"))
    told = card.check(folder)
    assert [re.sub(r".*\[([a-z-]+)\]$", r"\1", line) for line in told] == ["unknown-value", "no-licence", "todo"]


def test_the_card_that_is_made_says_what_the_contract_says(tmp_path: Path) -> None:
    evaluations = [FIBRILLATION, {"key": "flutter", "name": FIBRILLATION["name"]}]
    measured = card_of(measured=[SENSITIVITY | {"data": "a | b"}], intended_use="Only tests.", limits="Fails often.")
    text = card.model_card(
        load_service(
            workflow_bundle(
                tmp_path,
                "{}",
                card=measured,
                evaluations=evaluations,
                needs={"leads": ["I", "II"], "sampling_hz": [250, 500]},
            )
        )
    )
    for said in (
        "# Threshold for tests",
        "**Not for diagnosis. Not a certified medical device.**",
        "- Service `says`, version 0.1.0, status: classical, no machine learning",
        "## Intended use\nOnly tests.",
        "## Limits\nFails often.",
        "| sensitivity | af | 0.7 | 10 | a \\| b |",
        "- leads: I, II",
        "- sampling hz: 250 to 500",
        "- Number: Heart rate (8867-4, LN)",
        "Atrial fibrillation (49436004, SCT): present, absent, undetermined",
        "Atrial fibrillation (49436004, SCT): present or undetermined",
    ):
        assert said in text
