"""`pacsnode rules explain`: what each rule says to a study, clause by clause, and what would be done.

In: a StudyInstanceUID that was received, or DICOM files. Out: text for a person, or JSON. Decides as `work` does, and
does nothing.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pacsnode.cli.looking import JSON_OPTION
from pacsnode.errors import ConfigError

if TYPE_CHECKING:
    from pacsnode.handover import Candidate, Decision, RuleVerdict, Study
    from pacsnode.route.rules import Rules

COLUMNS = 120
LONGEST_VALUE = 60
WHAT_ARGUMENT = typer.Argument(help="A StudyInstanceUID that was received, a DICOM file, or a folder of such files.")
RULES_OPTION = typer.Option(None, "--rules", help="Another rules file; left out: that of this site.")
PEER_OPTION = typer.Option("", "--peer", help="For files: as if this peer had sent them.")


def rules_explain(
    what: str = WHAT_ARGUMENT,
    rules: Path | None = RULES_OPTION,
    peer: str = PEER_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Say of each rule why it takes a study or not, clause by clause, and what would be done. Changes nothing."""
    from pacsnode.archive.attributes import with_files
    from pacsnode.live import load_site
    from pacsnode.route.decide import decide
    from pacsnode.settings import load

    settings = load()
    site = load_site(settings if rules is None else settings.model_copy(update={"rules": rules}))
    studies, skipped = _studies(settings, what, peer)
    told = []
    for study in studies:
        whole = with_files(study, settings.files, site.rules.beyond_index)  # an absolute path stays what it is
        decision = decide(whole, site.rules)
        told.append(_plain(whole, decision, site.rules))
        if not as_json:
            typer.echo("\n".join(_told(whole, decision, site.rules)) + "\n")
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=False, indent=1))
    for path, why in skipped.items():
        typer.echo(f"{path} is left out: {why}", err=True)


def _studies(settings: Any, what: str, peer: str) -> tuple[list[Study], dict[Path, str]]:
    from pacsnode.archive.index import Index
    from pacsnode.cli.dicom_files import studies_of
    from pacsnode.cli.looking import ready
    from pacsnode.dicom.uids import is_safe

    if Path(what).exists():
        found = studies_of(Path(what), peer)
        if not found.studies:
            why = next(iter(found.skipped.values()), "it is empty")
            raise ConfigError(f"holds no DICOM object: {why}", where=what)
        return found.studies, found.skipped
    if not is_safe(what):
        raise ConfigError("is neither a file or folder nor a StudyInstanceUID", where=what)
    index = Index(ready(settings).index_db)
    try:
        study = index.study(what)
    finally:
        index.close()
    if study is None:
        raise ConfigError(f"no study {what} was received")
    return [study], {}


def _plain(study: Study, decision: Decision, rules: Rules) -> dict[str, Any]:
    return {
        "study_instance_uid": study.study_instance_uid,
        "images": len(study.instances),
        "rules_file": rules.file,
        "rules_hash": rules.hash,
        "conflict": study.conflict,
        "rules": [asdict(verdict) for verdict in decision.verdicts],
        "cases": [asdict(candidate) for candidate in decision.candidates],
        "forwards": [asdict(forward) for forward in decision.forwards],
        "unmatched": "" if decision.is_matched else rules.unmatched,
    }


def _told(study: Study, decision: Decision, rules: Rules) -> Iterator[str]:
    """The same in lines for a person."""
    yield f"Study {study.study_instance_uid}  {_kinds(study)}"
    for verdict in decision.verdicts:
        yield from _rule_told(verdict)
    for candidate in decision.candidates:
        yield from _case_told(candidate)
    for forward in decision.forwards:
        yield f"→ {_images(len(forward.instances))} to {', '.join(forward.peers)}, as they came  by {forward.rule}"
    if not decision.is_matched:
        yield f"→ no rule takes it; unmatched: {rules.unmatched}"
    elif not decision.candidates and not decision.forwards:
        yield "→ nothing is done with it"


def _kinds(study: Study) -> str:
    kinds = Counter(
        (next(iter(one.attributes.get("Modality", ("?",)))), next(iter(one.attributes.get("SeriesDescription", ("",)))))
        for one in study.instances
    )
    told = [
        f"{count} {modality}{f' {description!r}' if description else ''}"
        for (modality, description), count in kinds.most_common(6)
    ]
    more = f" and {len(kinds) - 6} kinds more" if len(kinds) > 6 else ""
    return ", ".join(told) + more


def _rule_told(verdict: RuleVerdict) -> Iterator[str]:
    yield _cut(f"{'+' if verdict.matched else '-'} {verdict.rule}: {verdict.reason}")
    for clause in sorted(verdict.clauses, key=lambda clause: clause.satisfied):  # first what stands in the way
        mark = "  yes" if clause.satisfied else "   NO"
        actual = "absent" if clause.absent else clause.actual[:LONGEST_VALUE]
        yield _cut(f"{mark} {clause.attribute} is {actual}, expected {clause.expected}")


def _case_told(candidate: Candidate) -> Iterator[str]:
    results, places = ", ".join(candidate.results), ", ".join(candidate.send_to)
    by = " and ".join(candidate.rules)
    yield f"→ {candidate.service} reads {_images(len(candidate.instances))}; {results} to {places}  by {by}"
    completion = candidate.completion
    if completion.missing:
        yield f"  still missing: {'; '.join(completion.missing)}"
    yield f"  starts when quiet for {completion.quiet_s:g} s and nothing is missing"


def _cut(line: str) -> str:
    """As much as a terminal shows; `--json` has all of it. A Hangul syllable takes two columns."""
    columns = 0
    for place, mark in enumerate(line):
        columns += 2 if unicodedata.east_asian_width(mark) in "WF" else 1
        if columns > COLUMNS:
            return line[: place - 1] + "…"
    return line


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
