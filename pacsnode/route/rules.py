"""routing_rules.yaml as the node uses it: which images go to which service, and where the results go.

In: a parsed file and what the installed services accept. Out: Rules, frozen, with the hash of the file; or one
ConfigError with every mistake by line, so that no rule fails first with a patient's images. Reads no image and no
database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Literal

from pacsnode import yamlfile
from pacsnode.conditions import Condition
from pacsnode.dicom.names import Name
from pacsnode.handover import Clause
from pacsnode.peers import Directory
from pacsnode.route import mistakes
from pacsnode.route.language import Example, RulesFile
from pacsnode.route.rule import Rule, ServiceSummary, rule_of
from pacsnode.yamlfile import Document, validate


@dataclass(frozen=True)
class Rules:
    """Checked rules. `hash` is the SHA-256 of the file's bytes: it stands in every decision and result."""

    file: str
    hash: str
    peers: Directory
    rules: tuple[Rule, ...]
    services: Mapping[str, ServiceSummary]
    unmatched: Literal["keep", "alarm"]
    examples: tuple[tuple[str, Example], ...]
    """With `file:line:column` of each."""
    zone: tzinfo
    """The clock of the site."""
    warnings: tuple[str, ...] = ()
    names: tuple[str, ...] = field(init=False)
    """What conditions look at, by `Name.base`."""
    beyond_index: tuple[Name, ...] = field(init=False)
    """Those of them that have to be read from the files."""

    def __post_init__(self) -> None:
        by_base = {name.base: name for condition in self._conditions() for name in condition.names()}
        object.__setattr__(self, "names", tuple(sorted(by_base)))
        beyond = tuple(name for _, name in sorted(by_base.items()) if not name.in_index)
        object.__setattr__(self, "beyond_index", beyond)

    def _conditions(self) -> Iterator[Condition]:
        enabled = [rule for rule in self.rules if rule.enabled]
        for rule in enabled:
            yield from rule.conditions()
        for name in sorted({name for rule in enabled for name in rule.run} & self.services.keys()):
            yield self.services[name].accepts


def load_rules(path: Path, services: Mapping[str, ServiceSummary], zone: tzinfo) -> Rules:
    """Read and check the file. Raises ConfigError with all mistakes."""
    return rules_of(yamlfile.load(path), services, zone)


def rules_of(document: Document, services: Mapping[str, ServiceSummary], zone: tzinfo) -> Rules:
    """Check a file that was read. `zone`: the clock of the site. Raises ConfigError with all mistakes."""
    content = validate(document, RulesFile)
    directory = Directory(content.peers)
    rules = tuple(rule_of(entry, content.defaults) for entry in content.rules)
    found = mistakes.problems(content, document, rules, services)
    if any(not problem.is_warning for problem in found):
        raise document.error(found)
    return Rules(
        document.name,
        document.sha256,
        directory,
        rules,
        {name: service for name, service in services.items() if not service.obstacle},
        content.unmatched,
        tuple(_placed(document, content.examples)),
        zone,
        tuple(document.lines(found)),
    )


def _placed(document: Document, examples: Iterable[Example]) -> Iterator[tuple[str, Example]]:
    for index, example in enumerate(examples):
        yield document.position(("examples", index)), example


def unsatisfied(clauses: Iterable[Clause]) -> list[Clause]:
    """The clauses that stand in the way."""
    return [clause for clause in clauses if not clause.satisfied]


def in_words(clauses: list[Clause]) -> str:
    """`ViewPosition is LL, expected not LL or RL; Modality is absent, expected CR or DX`, three at most."""
    told = [
        f"{clause.attribute} is {'absent' if clause.absent else clause.actual}, expected {clause.expected}"
        for clause in clauses[:3]
    ]
    return "; ".join(told) + (f"; and {len(clauses) - 3} more" if len(clauses) > 3 else "")
