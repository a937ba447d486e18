"""`pacsnode rules replay` and `rules test`: rules tried on the studies that were really received.

In: the index, the rules file of the site, perhaps another. Out: what each makes of the studies, or what changes. Starts
no case, sends nothing, changes nothing. No patient's name is shown.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pacsnode.cli.looking import JSON_OPTION, ready
from pacsnode.errors import ConfigError

if TYPE_CHECKING:
    from pacsnode.handover import Study
    from pacsnode.route.rules import Rules

UNITS_S = {"m": 60, "h": 3600, "d": 86400}
RULES_OPTION = typer.Option(None, "--rules", help="Another rules file, to be compared with that of this site.")
SINCE_OPTION = typer.Option("", "--since", help="Studies of which something came since: 12h, 7d.")
LAST_OPTION = typer.Option(10_000, "--last", min=1, help="The newest studies, so many at most.")
DIFF_OPTION = typer.Option(False, "--diff", help="Every difference, not the numbers alone; needs --rules.")
LIMIT_OPTION = typer.Option(
    50, "--limit", min=0, help="So many studies are listed, the newest; the others are counted."
)
NICER = 10
"""It steps back behind a node that runs on the same machine."""
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
    from pacsnode.cli.replaying import newest
    from pacsnode.settings import load

    os.nice(NICER)
    settings = ready(load())
    if diff and rules is None:
        raise ConfigError("--diff compares with another file: name it by --rules")
    uids = newest(settings, last, _seconds(since) if since else 0)
    if rules is None:
        (ours,) = _rules(settings, None)
        counted = _counted(settings, ours, uids)
        typer.echo(json.dumps(counted, ensure_ascii=False, indent=1) if as_json else "\n".join(_counted_told(counted)))
        return
    ours, other = _rules(settings, None, rules)
    compared = _compared(settings, (ours, other), uids, limit if diff or as_json else 0)
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
    from pacsnode.cli.replaying import newest, studies
    from pacsnode.route.decide import decide
    from pacsnode.route.examples import check_examples
    from pacsnode.route.replay import why_not
    from pacsnode.settings import load

    settings = ready(load())
    (tried,) = _rules(settings, rules)
    failures = check_examples(tried)
    compared = 0
    with closing(Cases(settings.node_db)) as cases:
        for study in studies(settings, [tried], newest(settings, last, 0)):
            read = {record.case.service: record.case for record in cases.of_study(study.study_instance_uid)}
            if not read:
                continue
            compared += 1
            decision = decide(study, tried, explained=False)
            for service in sorted(read.keys() - {candidate.service for candidate in decision.candidates}):
                rule = read[service].rules[0]
                why = f"rule {rule}: {why_not(study, tried, rule, read[service].instances)}"
                failures.append(f"study {study.study_instance_uid} was read by {service}, and would not be; {why}")
    for failure in failures:
        typer.echo(failure)
    typer.echo(f"{len(tried.examples)} examples and {compared} studies that were read: {len(failures)} differ")
    if failures:
        raise typer.Exit(1)


def _rules(settings: Any, *files: Path | None) -> list[Rules]:
    """The rules of these files; None is that of the site."""
    from pacsnode import yamlfile
    from pacsnode.infer.catalogue import load_catalogue
    from pacsnode.live import read_rules

    services = load_catalogue(settings.models)
    return [read_rules(yamlfile.load(file or settings.rules), services, settings) for file in files]


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,5}) ?([mhd])", text, re.ASCII)
    if found is None:
        raise ConfigError(f"expected a time such as 12h or 7d, found {text!r}", where="--since")
    return int(found[1]) * UNITS_S[found[2]]


def _counted(settings: Any, rules: Rules, uids: Sequence[str]) -> dict[str, Any]:
    """How many studies each rule takes."""
    from pacsnode.cli.replaying import count

    counted = count(settings, rules, uids)
    return {
        "studies": counted.totals["studies"],
        "taken_by_no_rule": counted.totals["taken by no rule"],
        "rules": {rule.name: counted.rules[rule.name] for rule in rules.rules},
        "cases": dict(counted.services),
    }


def _counted_told(counted: dict[str, Any]) -> Iterator[str]:
    yield f"{counted['studies']} studies, {counted['taken_by_no_rule']} of them taken by no rule"
    yield from (f"{count:7}  rule {name}" for name, count in counted["rules"].items())
    yield from (f"{count:7}  cases of {name}" for name, count in sorted(counted["cases"].items()))


def _compared(settings: Any, rules: tuple[Rules, Rules], uids: Sequence[str], listed: int) -> dict[str, Any]:
    """What changes under the second file; the newest studies of it with their reasons."""
    from pacsnode.cli.replaying import compare, studies

    ours, other = rules
    compared = compare(settings, ours, other, uids)
    told = [uid for uid in uids if uid in compared.changed][:listed]
    found = {
        study.study_instance_uid: {**_described(study), "differences": _differences(study, ours, other)}
        for study in studies(settings, rules, told)
    }
    return {
        "rules_hash": ours.hash,
        "other_hash": other.hash,
        "other_file": other.file,
        "studies": compared.totals["studies"],
        "changed": len(compared.changed),
        "taken_by_no_rule_any_more": compared.totals["taken by no rule any more"],
        "taken_by_a_rule_now": compared.totals["taken by a rule now"],
        "by_service": {name: dict(counts) for name, counts in sorted(compared.by_what.items())},
        "changed_studies": [found[uid] for uid in told if uid in found],
    }


def _differences(study: Study, ours: Rules, other: Rules) -> list[dict[str, Any]]:
    from pacsnode.route.decide import decide
    from pacsnode.route.replay import Side, differences, why_not

    def why(rule: str, side: Side, images: Collection[str]) -> str:
        return why_not(study, ours if side == "before" else other, rule, images)

    before, after = decide(study, ours, explained=False), decide(study, other, explained=False)
    return [asdict(one) for one in differences(before, after, why)]


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
