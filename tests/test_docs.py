"""What README and docs show is run: every YAML block, every command, every generated part, every link, every code."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from pacsnode import yamlfile
from pacsnode.infer import card
from pacsnode.infer.catalogue import hash_file, load_service
from pacsnode.live import load_site
from pacsnode.peers import Peer
from pacsnode.route.examples import check_examples
from pacsnode.route.language import json_schema
from pacsnode.settings import load

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RULES_PAGE = ROOT / "docs" / "rules.md"
SERVICES_PAGE = ROOT / "docs" / "services.md"
RULES_PAGES = [page for page in PAGES if page != SERVICES_PAGE]
AROUND = """\
version: 1
peers:
  xray-1: {ae_title: XR1, host: 192.0.2.21, port: 104, may: [store], investigational: true}
  ward-b: {ae_title: "*", host: 198.51.100.0/24, may: [store], reply_to: main-pacs}
  main-pacs: {ae_title: PACS, host: 192.0.2.5, port: 104, investigational: true}
unmatched: keep
rules:
"""
"""What a rule that is shown alone stands in."""
MORE = "run: chest-xray\nresults: [sr]\nsend_to: [main-pacs]\n"
WRONG_CODES = {"Problem": 2, "wrong": 0, "_line": 4}
"""Which argument is the code, by what is called."""


def blocks(language: str, pages: Sequence[Path] = PAGES) -> list[tuple[str, str]]:
    """(page, text) of every fenced block of a language."""
    return [
        (page.name, text)
        for page in pages
        for text in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


def commands() -> list[str]:
    """Every `$ pacsnode …` line that is shown, without its comment and where its output goes."""
    lines = [line for _, text in blocks("console") for line in text.splitlines()]
    shown = [re.split("  #| > ", line[2:])[0].strip() for line in lines if line.startswith("$ pacsnode ")]
    return sorted({line for line in shown if line != "pacsnode serve"})  # serve runs in tests/whole


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "PACSNODE_HOME": str(tmp_path / "home"),
        "PACSNODE_RULES": str(ROOT / "routing_rules.yaml"),
        "PACSNODE_MODELS": str(ROOT / "models"),
        "PACSNODE_MINIMUM_FREE_MB": "1",
        "PYTHONPATH": str(ROOT),
    }


TYPES: dict[str, Any] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
}
KNOWN = {"$ref", "anyOf", "type", "enum", "const", "items", "minItems", "maxItems", "minLength", "maxLength", "minimum"}
KNOWN |= {"maximum", "properties", "additionalProperties", "required", "minProperties", "pattern"}
KNOWN |= {"title", "description", "default"}


def whole(text: str) -> str:
    """A block that is shown, as a rules file: it may be one, a rule, or a part of a rule."""
    if re.search("^version:", text, re.MULTILINE):
        return text
    if text.startswith("- name:"):
        return AROUND + indent(text, "  ")
    rest = "complete: {quiet: 20s}\n" if not text.startswith("complete:") else ""
    rest += "when: {Modality: {in: [CR, DX]}}\n" if not text.startswith("when:") else ""
    shown = indent(text + MORE + rest, "    ")
    return f"{AROUND}  - name: shown\n{shown}"


@pytest.mark.parametrize(("page", "text"), blocks("yaml", RULES_PAGES))
def test_every_yaml_that_is_shown_is_a_rules_file_whose_examples_hold(page: str, text: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(whole(text), encoding="utf-8")
    site = load_site(load(rules=rules, models=ROOT / "models"))
    assert site.rules.peers.peers
    assert check_examples(site.rules) == []
    for warning in site.rules.warnings:  # the docs name services that a site has to install
        assert "[unknown-service]" in warning or "[service-never]" in warning, warning


def fits(shape: Any, value: object, parts: dict[str, Any]) -> bool:
    """Whether a value is as a JSON Schema says, as far as ours uses it; what it does not know fails the test."""
    if isinstance(shape, bool):
        return shape
    assert shape.keys() <= KNOWN, shape.keys() - KNOWN
    if "$ref" in shape:
        return fits(parts[shape["$ref"].split("/")[-1]], value, parts)
    if "anyOf" in shape and not any(fits(one, value, parts) for one in shape["anyOf"]):
        return False
    types = shape.get("type", list(TYPES))
    if not any(isinstance(value, TYPES[one]) for one in (types if isinstance(types, list) else [types])):
        return False
    if value not in shape.get("enum", [value]) or value != shape.get("const", value):
        return False
    if isinstance(value, list):
        return len(value) >= shape.get("minItems", 0) and all(fits(shape.get("items", True), v, parts) for v in value)
    if isinstance(value, dict):
        named, others = shape.get("properties", {}), shape.get("additionalProperties", True)
        has_all = set(shape.get("required", [])) <= value.keys()
        return has_all and all(fits(named.get(key, others), one, parts) for key, one in value.items())
    return not isinstance(value, str) or re.search(shape.get("pattern", ""), value) is not None


@pytest.mark.parametrize(("page", "text"), blocks("yaml", RULES_PAGES))
def test_the_schema_for_editors_takes_every_yaml_that_is_shown(page: str, text: str) -> None:
    schema = json_schema()
    parts, shape = schema["$defs"], {key: part for key, part in schema.items() if key in KNOWN}
    data = yamlfile.parse(whole(text), page).data
    assert fits(shape, data, parts)
    assert not fits(shape, data | {"rulez": []}, parts)


def shown_services() -> list[dict[str, Any]]:
    """Every pipeline.yaml that is shown; a part of one stands in the first that is shown whole."""
    texts = [yamlfile.parse(text, page).data for page, text in blocks("yaml", [SERVICES_PAGE])]
    around = texts[0]
    made = []
    for data in texts:
        left_out: set[str] = set()
        if "workflow" in data:
            left_out |= {"network"}
        if data.keys() & {"remote", "http"}:
            left_out |= {"network"}
        if data.keys() & {"workflow", "classification", "regions", "series", "remote"}:
            left_out |= {"segments", "measurements"}
        whole_file = data if "version" in data else {k: v for k, v in around.items() if k not in left_out} | data
        made.append(whole_file if "series" not in data else whole_file | {"segments": around["segments"]})
    return made


@pytest.mark.parametrize("data", shown_services(), ids=lambda data: "-".join(list(data)[-2:]))
def test_every_contract_that_is_shown_is_a_service(data: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / data["name"]
    for name in ("configs/metadata.json", "configs/inference.yaml", "models/model.pt", "scripts/workflow.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"version": "1.0"}' if name.endswith("json") else "")
    for name in ("docs/README.md", "LICENSE"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text((ROOT / "models" / "chest-xray" / name).read_text())
    text = json.dumps(data).replace("0" * 64, hash_file(folder / "models" / "model.pt"))
    (folder / "pipeline.yaml").write_text(text)  # every JSON is YAML
    assert card.check(folder) == []
    assert bool(load_service(folder).obstacle) == (data["status"] == "slot")


def test_the_shipped_rules_hold_their_examples() -> None:
    site = load_site(load(rules=ROOT / "routing_rules.yaml", models=ROOT / "models"))
    assert check_examples(site.rules) == []


def test_commands_are_shown_at_all() -> None:
    assert len(commands()) >= 6
    assert blocks("yaml")


@pytest.mark.parametrize("command", commands())
def test_every_command_that_is_shown_runs(command: str, environment: dict[str, str], tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "pacsnode", *arguments]
        return subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    words = command.split()[1:]
    assert run("migrate").returncode == 0
    answer = run(*words)
    placeholder = any(word.isupper() for word in words)
    # doctor finds that the documentation's addresses do not answer, which is a warning, not wrong
    assert answer.returncode == (2 if placeholder else 0), answer
    assert "Traceback" not in answer.stderr


def test_every_generated_part_is_as_the_program_is() -> None:
    script = (
        "import json, write_docs; "
        "print(json.dumps({page: [made() for made in parts.values()] for page, parts in write_docs.PAGES.items()}))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for page, parts in json.loads(answer).items():
        for part in parts:
            assert part in (ROOT / "docs" / page).read_text(encoding="utf-8"), "run python scripts/write_docs.py"


def codes_of(path: Path) -> Iterator[str]:
    """Every code of a mistake that a module uses: in `Problem(...)`, in `wrong(...)`, or at the end of a sentence."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "code":
            yield from (code for part in ast.walk(node.value) if isinstance(part, ast.expr) and (code := text_of(part)))
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
            yield from (code for told in node.value.elts[1:] if (code := text_of(told)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r" \[([a-z-]+)\]$", node.value)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called == "self.wrong":
            yield from (code for argument in node.args if (code := text_of(argument)))
        elif called in WRONG_CODES and (code := text_of(node.args[WRONG_CODES[called]])):
            yield code


def text_of(argument: ast.expr) -> str:
    """A constant that may be a code, "" for anything else."""
    value = argument.value if isinstance(argument, ast.Constant) else ""
    return value if isinstance(value, str) and re.fullmatch("[a-z]+(-[a-z]+)*", value) else ""


def test_every_error_code_is_explained_and_none_that_there_is_not() -> None:
    package = ROOT / "pacsnode"
    named = ("peers", "destination_types", "durations", "yamlfile", "textfile", "operators")
    modules = [package / f"{name}.py" for name in named]
    used = {code for path in [*modules, *(package / "route").glob("*.py")] for code in codes_of(path)}
    page = RULES_PAGE.read_text(encoding="utf-8").split("## All error codes")[1]
    explained = re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)
    assert sorted(explained) == sorted(used)


def test_every_error_code_of_a_service_is_explained_and_none_that_there_is_not() -> None:
    names = ("pipeline", "endpoint", "mistakes", "catalogue", "card")
    modules = [ROOT / "pacsnode" / "infer" / f"{name}.py" for name in names]
    used = {code for path in modules for code in codes_of(path)}
    page = SERVICES_PAGE.read_text(encoding="utf-8").split("## All error codes")[1]
    explained = re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)
    of_rules = RULES_PAGE.read_text(encoding="utf-8").split("## All error codes")[1]
    assert sorted(explained) == sorted(code for code in used if f"| `{code}` |" not in of_rules)


def test_every_key_of_a_peer_is_explained() -> None:
    page = RULES_PAGE.read_text(encoding="utf-8")
    assert [key for key in Peer.model_fields if key != "name" and f"| `{key}` |" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
