"""Who may import whom: design of the tree as a table, checked on the AST of every file (imports in functions too)."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pacsnode"
LONGEST_FILE = 350

LAYERS = (
    # From the bottom up. A module imports from its own line or from those above it here, never from those below.
    ("errors",),
    ("dicom",),
    ("patterns", "textfile"),  # text that people write: folding, safe patterns, encodings
    ("telemetry", "settings"),
    ("database", "doorbell", "supervise"),
    ("index_tables", "node_tables"),
    ("schema",),  # both databases, by settings
    ("agreement",),  # statistics of pairs
    ("yamlfile",),
    ("durations", "destination_types"),
    ("pictured",),  # planes for drawing, part of findings
    ("audit", "handover", "operands", "conditions", "operators", "peers", "watched"),
    ("findings", "findings_files", "readings"),  # what was seen, how it lies on the disk, and what is told of it
    ("dimse",),
    ("archive", "engine"),
    ("receive", "route", "complete", "infer", "encode", "deliver", "exchange"),  # the stages
    (
        "allowing",
        "owing",
        "retaining",
        "rejecting",
    ),  # which bundles may run; who gets what; what may go, what counts no more
    ("show",),  # results of anyone, made visible
    ("wrap",),  # files of devices that do not speak DICOM, made into objects by a command
    (
        "workflow",
        "considering",
        "vendors",
        "servers",
        "telling",
    ),  # the order of the stages: from study to case, from case to results
    ("standing",),  # which results count
    ("live",),  # which rules are live: judged, recorded, swapped
    (
        "life",
        "comparing",
        "work",
        "child",
    ),  # composition roots of two processes, the looks at a study and at two services
    ("checks",),
    ("node",),
    ("web",),
    ("cli",),
)
STAGES = {"receive", "route", "complete", "infer", "encode", "deliver", "exchange"}
"""Siblings: none imports another. `workflow` alone knows their order."""

ONLY_IN = {
    # Third-party package: where it may be imported.
    "torch": ("infer",),
    "monai": ("infer",),
    "highdicom": ("encode", "infer"),
    "pynetdicom": ("receive", "dimse"),
    "dbos": ("engine",),
    "fastapi": ("web",),
    "starlette": ("web",),
    "uvicorn": ("web",),
    "orthanc": (),
}

STARTS_WITHOUT = {
    # What a process imports at its start: what must not come along.
    "pacsnode.cli": ("dbos", "torch", "pydicom", "pynetdicom", "highdicom", "monai", "numpy", "sqlalchemy"),
    "pacsnode.node": ("dbos", "torch", "highdicom", "monai", "fastapi"),
    "pacsnode.work": ("torch", "highdicom", "monai", "fastapi"),
    "pacsnode.child": ("dbos", "torch", "highdicom", "monai", "sqlite_utils"),
}

LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
FREE = ("pacsnode", "pacsnode.__main__")
"""The package itself (its version) and `python -m pacsnode`, which is the command."""


@dataclass(frozen=True)
class Import:
    """One import statement: the module that it stands in, its line, what it names, whether types alone need it."""

    module: str
    line: int
    target: str
    for_types: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(module: str, path: Path) -> list[Import]:
    """Every import of a file. `from pacsnode import x` names pacsnode.x where that is a module."""
    tree = ast.parse(path.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} has a relative import; write the whole name"
            source = node.module or ""
            inner_names = [f"{source}.{alias.name}" for alias in node.names]
            names = sorted({name if name in MODULES else source for name in inner_names})
        found += [Import(module, node.lineno, name, node in for_types) for name in names if isinstance(node, ast.stmt)]
    return found


IMPORTS = [found for module, path in MODULES.items() for found in imports_of(module, path)]
OUR_IMPORTS = [i for i in IMPORTS if i.target.split(".")[0] == "pacsnode" and i.target != "pacsnode"]


def part(module: str) -> str:
    """The first name below pacsnode: the part that has a place in the table."""
    return module.split(".")[1]


def listed(wrong: list[Import]) -> str:
    return "\n".join(map(str, wrong))


def test_every_part_has_a_place_in_the_table() -> None:
    parts = {part(module) for module in MODULES if module not in FREE}
    assert parts <= set(LEVEL), "give these a place in LAYERS"


def test_nothing_imports_from_a_layer_above_it() -> None:
    wrong = [i for i in OUR_IMPORTS if i.module not in FREE and LEVEL[part(i.target)] > LEVEL[part(i.module)]]
    assert not wrong, listed(wrong)


def test_stages_never_import_one_another() -> None:
    wrong = [
        i
        for i in OUR_IMPORTS
        if i.module not in FREE and part(i.module) in STAGES and part(i.target) in STAGES - {part(i.module)}
    ]
    assert not wrong, listed(wrong)


def test_stages_know_nothing_of_the_engine() -> None:
    wrong = [i for i in OUR_IMPORTS if i.target == "pacsnode.engine" and part(i.module) != "work"]
    assert not wrong, listed(wrong)


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_heavy_package_is_imported_only_where_it_belongs(package: str) -> None:
    wrong = [
        i
        for i in IMPORTS
        if i.target.split(".")[0] == package and (i.module in FREE or part(i.module) not in ONLY_IN[package])
    ]
    assert not wrong, listed(wrong)


def test_no_two_modules_import_each_other() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in OUR_IMPORTS:
        if not found.for_types and found.target in MODULES:
            graph[found.module].add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as cycle:
        pytest.fail(" → ".join(cycle.args[1]))


@pytest.mark.parametrize("module", STARTS_WITHOUT)
def test_a_process_starts_without_what_it_does_not_need(module: str) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    names = {name.split(".")[0] for name in loaded.stdout.split()}
    assert module.split(".")[0] in names
    assert not names & set(STARTS_WITHOUT[module])


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        m
        for m, path in MODULES.items()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []
