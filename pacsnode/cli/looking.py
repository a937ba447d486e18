"""Commands that look and retry: studies, jobs."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import typer

from pacsnode.errors import ConfigError

UNITS_S = {"m": 60, "h": 3600, "d": 86400}
JSON_OPTION = typer.Option(False, "--json", help="JSON instead of text.")


def register(app: typer.Typer) -> typer.Typer:
    """Add these commands; gives the group `studies`."""
    studies = typer.Typer(help="Studies and what became of them.", no_args_is_help=True)
    studies.command("list")(studies_list)
    studies.command("show")(studies_show)
    studies.command("aside")(studies_aside)
    app.add_typer(studies, name="studies")
    jobs = typer.Typer(help="Cases: one study, one AI service.", no_args_is_help=True)
    jobs.command("list")(jobs_list)
    jobs.command("retry")(jobs_retry)
    app.add_typer(jobs, name="jobs")
    return studies


def studies_list(limit: int = typer.Option(50, help="How many of the newest."), as_json: bool = JSON_OPTION) -> None:
    """List the newest studies."""
    from pacsnode.archive.index import Index
    from pacsnode.settings import load

    settings = ready(load())
    index = Index(settings.index_db)
    try:
        lines = index.studies(limit)
    finally:
        index.close()
    if as_json:
        typer.echo(json.dumps([vars(line) for line in lines], indent=1))
        return
    for line in lines:
        when = local_time(settings, line.last_received_utc_us)
        conflict = f"  CONFLICT: {line.conflict}" if line.conflict else ""
        modalities = ",".join(line.modalities)
        typer.echo(f"{when}  {modalities:8} {line.instances:5}  {line.study_instance_uid}{conflict}")


def studies_show(uid: str = typer.Argument(help="StudyInstanceUID."), as_json: bool = JSON_OPTION) -> None:
    """Show the life of one study: received, cases because / not because, whole because, ran, results, delivered."""
    from pacsnode.life import study_life
    from pacsnode.settings import load

    life = study_life(ready(load()), uid)
    if life is None:
        raise ConfigError(f"no study {uid} was received")
    typer.echo(json.dumps(life, ensure_ascii=False, indent=1) if as_json else "\n".join(_told(life)))


def studies_aside(limit: int = typer.Option(50, help="How many of the newest."), as_json: bool = JSON_OPTION) -> None:
    """List objects that were kept aside: unreadable, contradicting, or from an unknown sender; their files are kept."""
    from pacsnode.archive.index import Index
    from pacsnode.settings import load

    settings = ready(load())
    index = Index(settings.index_db)
    try:
        found = index.newest_aside(limit)
    finally:
        index.close()
    rows = [
        {
            "received": local_time(settings, a.received_utc_us),
            "peer": a.peer,
            "reason": a.reason,
            "sop_instance_uid": a.sop_instance_uid,
            "file": str(settings.files / a.path),
        }
        for a in found
    ]
    _print_rows(rows, as_json)


def jobs_list(
    state: str = typer.Option("", help="waiting, asked, running, done, parked or withdrawn."),
    limit: int = typer.Option(50, help="How many of the newest."),
    as_json: bool = JSON_OPTION,
) -> None:
    """List cases."""
    from pacsnode.archive.cases import Cases
    from pacsnode.settings import load

    settings = ready(load())
    cases = Cases(settings.node_db)
    try:
        records = cases.listing(state, limit)
    finally:
        cases.close()
    rows = [
        {
            "key": r.case.key,
            "started": local_time(settings, r.case.started_utc_us),
            "service": r.case.service,
            "runs": "shadow" if r.shadow else "live",
            "state": r.state,
            "study_instance_uid": r.case.study_instance_uid,
            "reason": r.reason,
        }
        for r in records
    ]
    _print_rows(rows, as_json)


def jobs_retry(key: str = typer.Argument(help="Key of a parked case, or `all`.")) -> None:
    """Run a parked case again; or make a note about it that could not be made."""
    from pacsnode.archive import notes
    from pacsnode.archive.cases import Cases
    from pacsnode.settings import load

    settings = ready(load())
    cases = Cases(settings.node_db)
    try:
        keys = [r.case.key for r in cases.listing("parked", 10_000)] if key == "all" else [key]
        done = sum(cases.retry(k) for k in keys)
        with cases.transaction() as connection:
            remade = sum(notes.retry(connection, k) for k in ([] if key == "all" else keys))
    finally:
        cases.close()
    if not done and not remade and key != "all":
        raise ConfigError(f"no parked case {key}")
    ring(settings)
    typer.echo(f"{done} cases will run again" if done or not remade else f"{remade} notes will be made again")


def _told(life: dict[str, Any]) -> list[str]:
    """The life of a study in lines for a person."""
    received = life["received"]
    kinds = ", ".join(f"{n} {modality}" for modality, n in received["modalities"].items())
    lines = [
        f"Study {life['study_instance_uid']}",
        f"received    {received['first']} to {received['last'][11:]}  {kinds}  from {', '.join(received['peers'])}",
    ]
    if life["conflict"]:
        lines.append(f"CONFLICT    {life['conflict']}: stored, not routed")
    if life["repaired"]:
        told = ", ".join(f"{keyword} in {count} images" for keyword, count in life["repaired"].items())
        lines.append(f"text        read against its character set: {told}; the files are as they came")
    lines += [f"REJECTED    {r['when']}  {r['instances']} images: {r['reason']}" for r in life["rejected"]]
    lines += [f"note        of {n['peer']} does nothing: {n['reason']}" for n in life["notes_ignored"]]
    lines += [f"aside       {a['received']}  {a['reason']}  ({a['sop_instance_uid']})" for a in life["aside"]]
    for rule in life["rules"]:
        lines.append(f"rule        {'+' if rule['matched'] else '-'} {rule['rule']}: {rule['reason']}")
        for clause in rule["clauses"]:
            mark = "yes" if clause["satisfied"] else "NO "
            actual = "absent" if clause["absent"] else clause["actual"]
            lines.append(f"              {mark} {clause['attribute']} is {actual}, expected {clause['expected']}")
    for candidate in life["waiting"]:
        completion = candidate["completion"]
        missing = "; still missing: " + "; ".join(completion["missing"]) if completion["missing"] else ""
        whole = f"whole when quiet for {completion['quiet_s']:g} s{missing}"
        shadow = " in shadow" if candidate["shadow"] else ""
        lines.append(f"waiting     {candidate['service']}{shadow}: {len(candidate['instances'])} images, {whole}")
    if not life["rules"]:
        lines.append("rule        not decided yet")
    for case in life["cases"]:
        lines += _case_told(case)
    for one in life["answers"]:
        became = (
            f"refused: {one['refused']}" if one["refused"] else f"case {one['case'][:12]}" if one["case"] else "kept"
        )
        lines.append(f"answer      {one['received']}  {one['modality']} of {one['peer']}: {became}")
    return lines


def _case_told(case: dict[str, Any]) -> list[str]:
    again = f", attempt {case['attempt']}" if case["attempt"] > 1 else ""
    state = f"{case['state']}{again}{', in SHADOW: nothing is sent' if case['shadow'] else ''}"
    lines = [
        f"case        {case['service']}  {state}  by {', '.join(case['rules'])}  {case['key'][:12]}",
        f"  whole     {case['started']}  {case['whole_because']}",
    ]
    if case["supersedes"]:
        lines.append(f"  instead   of case {case['supersedes'][:12]}, which had fewer images or an older model")
    if case["timings_s"]:
        spent = ", ".join(f"{k.removesuffix('_s')} {v:.3f} s" for k, v in case["timings_s"].items())
        lines.append(f"  ran       {spent}")
    if case["answer_until"]:
        lines.append(f"  asked     waits for the answer of a vendor's node until {case['answer_until']}")
    if case["reason"]:
        lines.append(f"  {case['state'].upper():9} {case['reason']}")
    lines += [f"  result    {r['kind'].upper():4}{r['sop_instance_uid']}  {_standing(r)}" for r in case["results"]]
    lines += [line for note in case["notes"] for line in _note_told(note)]
    kinds = dict.fromkeys(case["instances"], "image")
    made = [*case["results"], *(one for note in case["notes"] for one in note["objects"])]
    kinds |= {r["sop_instance_uid"]: r["kind"].upper() for r in made}
    for d in case["deliveries"]:
        when = d["ended"] or f"next attempt {d['next_attempt']}"
        detail = "".join(f"  {said}" for said in (d["reason"], d["proof"]) if said)
        kind = kinds.get(d["sop_instance_uid"], "?")
        lines.append(
            f"  delivery  {kind:3} to {d['destination']}: {d['told']} {when} {d['status'] or ''}{detail}".rstrip()
        )
    return lines


def _standing(result: dict[str, Any]) -> str:
    """`current since …`, `superseded … by case …`, `withdrawn …: …`."""
    standing = result["standing"]
    since = f"since {standing['since']}" if standing["is"] == "current" else standing["since"]
    reason = f": {standing['reason']}" if standing["reason"] else ""
    by = f" by case {standing['by'][:12]}" if standing["by"] else ""
    return f"{standing['is']} {since}{by}{reason}"


def _note_told(note: dict[str, Any]) -> list[str]:
    """What the node said of the case itself, or has still to say."""
    what = {"rejection": "withdrawal", "failure": "not analysed"}[note["kind"]]
    state = {"due": ", to be made", "parked": f", CANNOT BE MADE: {note['problem']}"}.get(note["state"], "")
    lines = [f"  told      {what} {note['told']}: {note['reason']}{state}"]
    return lines + [
        f"  result    {o['kind'].upper():4}{o['sop_instance_uid']}  {_standing(o)}" for o in note["objects"]
    ]


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for row in rows:
        typer.echo("  ".join(str(v) for v in row.values() if v != ""))


def ready(settings: Any) -> Any:
    """Settings whose databases fit this program."""
    from pacsnode import schema

    schema.check(settings)
    return settings


def ring(settings: Any) -> None:
    """Wake `work`."""
    from pacsnode.doorbell import Bell

    bell = Bell(settings.doorbell)
    bell.ring()
    bell.close()


def local_time(settings: Any, utc_us: int) -> str:
    """A time as people of the site read it, to the second."""
    moment = datetime.fromtimestamp(utc_us / 1e6, UTC).astimezone(settings.zone)
    return moment.isoformat(sep=" ", timespec="seconds")


def seconds_since(text: str) -> int:
    """What `--since` says. Raises ConfigError."""
    found = re.fullmatch(r"(\d{1,5}) ?([mhd])", text, re.ASCII)
    if found is None:
        raise ConfigError(f"expected a time such as 12h or 7d, found {text!r}", where="--since")
    return int(found[1]) * UNITS_S[found[2]]
