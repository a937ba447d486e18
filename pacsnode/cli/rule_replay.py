"""`pacsnode rules replay` and `rules test`: rules tried on the studies that were really received.

In: the index, the rules file of the site, perhaps another. Out: what each makes of the studies, or what changes. Starts
no case, sends nothing, changes nothing. No patient's name is shown.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pacsnode.cli.looking import JSON_OPTION, ready
from pacsnode.errors import ConfigError

if TYPE_CHECKING:
    from pacsnode.handover import Decision, Study
    from pacsnode.route.replay import Side, Why
    from pacsnode.route.rules import Rules

UNITS_S = {"m": 60, "h": 3600, "d": 86400}
RULES_OPTION = typer.Option(None, "--rules", help="Another rules file, to be compared with that of this site.")
SINCE_OPTION = typer.Option("", "--since", help="Studies of which something came since: 12h, 7d.")
LAST_OPTION = typer.Option(10_000, "--last", min=1, help="The newest studies, so many at most.")
DIFF_OPTION = typer.Option(False, "--diff", help="Every difference, not the numbers alone; needs --rules.")
LIMIT_OPTION = typer.Option(50, "--limit", min=0, help="So many studies are listed; the others are counted.")
TEXTS = ("Modality", "BodyPartExamined", "StudyDescription", "SeriesDescription")


def rules_replay(
    rules: Path | None = RULES_OPTION,
    since: str = SINCE_OPTION,
    last: int = LAST_OPTION,
    diff: bool = DIFF_OPTION,
    limit: int = LIMIT_OPTION,
    as_json: bool = JSON_OPTION,
) -> None:
    """Say what a rules file would have done to the studies that were received. Changes nothing.

    With --rules: what another file would have done otherwise, case by case, and by which clause.
    """
    from pacsnode.settings import load

    settings = ready(load())
    if diff and rules is None:
        raise ConfigError("--diff compares with another file: name it by --rules")
    ours = _rules(settings, None)
    if rules is None:
        counted = _count(settings, ours, since, last)
        typer.echo(json.dumps(counted, ensure_ascii=False, indent=1) if as_json else "\n".join(_counted_told(counted)))
        return
    compared = _compare(settings, ours, _rules(settings, rules), _Wanted(since, last, limit if diff or as_json else 0))
    if as_json:
        typer.echo(json.dumps(compared, ensure_ascii=False, indent=1))
        return
    typer.echo("\n".join(_compared_told(compared, diff)))


def rules_test(
    rules: Path | None = RULES_OPTION,
    last: int = typer.Option(1000, "--last", min=1, help="The newest studies, so many at most."),
) -> None:
    """Run the examples, and see that every received study that was read by a service would be read by it again.

    Exit code 1 with a list where it would not.
    """
    from contextlib import closing

    from pacsnode.archive.cases import Cases
    from pacsnode.route.decide import decide
    from pacsnode.route.examples import check_examples
    from pacsnode.settings import load

    settings = ready(load())
    tried = _rules(settings, rules)
    failures = check_examples(tried)
    compared = 0
    with closing(Cases(settings.node_db)) as cases:
        for study in _studies(settings, [tried], "", last):
            read = {record.case.service for record in cases.of_study(study.study_instance_uid)}
            if not read:
                continue
            compared += 1
            decision = decide(study, tried, explained=False)
            for service in sorted(read - {candidate.service for candidate in decision.candidates}):
                failures.append(f"study {study.study_instance_uid} was read by {service}, and would not be")
    for failure in failures:
        typer.echo(failure)
    typer.echo(f"{len(tried.examples)} examples and {compared} studies that were read: {len(failures)} differ")
    if failures:
        raise typer.Exit(1)


def _rules(settings: Any, other: Path | None) -> Rules:
    from pacsnode.live import load_site

    return load_site(settings if other is None else settings.model_copy(update={"rules": other})).rules


def _studies(settings: Any, rules: list[Rules], since: str, last: int) -> Iterator[Study]:
    """The newest recorded studies, with what the rules look at."""
    from contextlib import closing

    from pacsnode.archive.recorded import Recorded
    from pacsnode.considering import with_files

    beyond = tuple({name.base: name for one in rules for name in one.beyond_index}.values())
    since_us = int((time.time() - _seconds(since)) * 1e6) if since else 0
    with closing(Recorded(settings.index_db)) as recorded:
        for study in recorded.studies(recorded.newest(last, since_us)):
            yield with_files(study, settings.files, beyond)


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,5}) ?([mhd])", text, re.ASCII)
    if found is None:
        raise ConfigError(f"expected a time such as 12h or 7d, found {text!r}", where="--since")
    return int(found[1]) * UNITS_S[found[2]]


def _count(settings: Any, rules: Rules, since: str, last: int) -> dict[str, Any]:
    """How many studies each rule takes."""
    from pacsnode.route.decide import decide

    taken: Counter[str] = Counter({rule.name: 0 for rule in rules.rules})
    services: Counter[str] = Counter()
    studies = unmatched = 0
    for study in _studies(settings, [rules], since, last):
        decision = decide(study, rules, explained=False)
        studies += 1
        unmatched += not decision.is_matched
        taken.update(verdict.rule for verdict in decision.verdicts if verdict.matched)
        services.update(candidate.service for candidate in decision.candidates)
    return {"studies": studies, "taken_by_no_rule": unmatched, "rules": dict(taken), "cases": dict(services)}


def _counted_told(counted: dict[str, Any]) -> Iterator[str]:
    yield f"{counted['studies']} studies, {counted['taken_by_no_rule']} of them taken by no rule"
    yield from (f"{count:7}  rule {name}" for name, count in counted["rules"].items())
    yield from (f"{count:7}  cases of {name}" for name, count in sorted(counted["cases"].items()))


@dataclass(frozen=True)
class _Wanted:
    """Which studies, and how many of those that change are listed with their reasons."""

    since: str
    last: int
    listed: int


def _compare(settings: Any, ours: Rules, other: Rules, wanted: _Wanted) -> dict[str, Any]:
    """What changes, study by study. Only what is listed is explained: that takes ten times as long as to decide."""
    from pacsnode.route.decide import decide
    from pacsnode.route.replay import differences

    totals: Counter[str] = Counter()
    by_service: dict[str, Counter[str]] = defaultdict(Counter)
    changed: list[dict[str, Any]] = []
    for study in _studies(settings, [ours, other], wanted.since, wanted.last):
        totals["studies"] += 1
        before, after = decide(study, ours, explained=False), decide(study, other, explained=False)
        if _is_same(before, after):
            continue
        is_listed = len(changed) < wanted.listed
        found = differences(before, after, _why(study, ours, other) if is_listed else lambda rule, side: "")
        for one in found:
            by_service[one.what][one.kind] += 1
        totals["taken by no rule any more"] += before.is_matched and not after.is_matched
        totals["taken by a rule now"] += after.is_matched and not before.is_matched
        if not found and before.is_matched == after.is_matched:
            continue
        totals["changed"] += 1
        if is_listed:
            changed.append({**_described(study), "differences": [asdict(one) for one in found]})
    return {
        "rules_hash": ours.hash,
        "other_hash": other.hash,
        "other_file": other.file,
        **{
            key.replace(" ", "_"): totals[key]
            for key in ("studies", "changed", "taken by no rule any more", "taken by a rule now")
        },
        "by_service": {name: dict(counts) for name, counts in sorted(by_service.items())},
        "changed_studies": changed,
    }


def _why(study: Study, ours: Rules, other: Rules) -> Why:
    """The clause by which a rule does not take the study, under one file or the other."""
    from pacsnode.route.decide import decide
    from pacsnode.route.replay import why_not

    explained: dict[str, Decision] = {}

    def why(rule: str, side: Side) -> str:
        if side not in explained:
            explained[side] = decide(study, ours if side == "before" else other)
        return why_not(rule, explained[side])

    return why


def _is_same(before: Decision, after: Decision) -> bool:
    return (before.candidates, before.forwards, before.is_matched) == (
        after.candidates,
        after.forwards,
        after.is_matched,
    )


def _described(study: Study) -> dict[str, Any]:
    """What an operator knows a study by, without its patient."""
    said = {
        keyword: sorted({value for one in study.instances for value in one.attributes.get(keyword, ())[:1]})[:3]
        for keyword in TEXTS
    }
    return {
        "study_instance_uid": study.study_instance_uid,
        "images": len(study.instances),
        **{keyword: ", ".join(values) for keyword, values in said.items() if values},
    }


def _compared_told(compared: dict[str, Any], diff: bool) -> Iterator[str]:
    yield f"{compared['studies']} studies, {compared['changed']} would change under {compared['other_file']}"
    for what, counts in compared["by_service"].items():
        yield f"  {what}: {', '.join(f'{count} {kind}' for kind, count in sorted(counts.items()))}"
    if compared["taken_by_no_rule_any_more"] or compared["taken_by_a_rule_now"]:
        lost, won = compared["taken_by_no_rule_any_more"], compared["taken_by_a_rule_now"]
        yield f"  taken by no rule any more: {lost}; by one now and not before: {won}"
    for study in compared["changed_studies"]:
        texts = "  ".join(study[keyword] for keyword in TEXTS if keyword in study)
        yield f"\n{study['study_instance_uid']}  {study['images']} images  {texts}"
        for one in study["differences"]:
            mark = {"gained": "+", "lost": "-", "moved": "~"}[one["kind"]]
            yield f"  {mark} {one['what']} {one['kind']}  rule {one['rule']}: {one['detail']}"
    if diff and compared["changed"] > len(compared["changed_studies"]):
        yield f"\nand {compared['changed'] - len(compared['changed_studies'])} studies more; --limit shows them"
