"""Commands about deliveries: what is owed to whom, and what an operator orders about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pacsnode.cli.looking import JSON_OPTION, local_time, ready, ring
from pacsnode.errors import ConfigError

if TYPE_CHECKING:
    from pacsnode.deliver.holding import HoldKind
    from pacsnode.deliver.orders import Orders, Selection
    from pacsnode.deliver.outbox import Outbox, Owed
    from pacsnode.deliver.overview import Line

Which = Annotated[str, typer.Argument(help="Number of a delivery, a destination, or `all`.")]
Study = Annotated[str, typer.Option(help="StudyInstanceUID.")]
Destination = Annotated[str, typer.Option(help="Name of a peer.")]
CaseKey = Annotated[str, typer.Option("--case", help="Key of a case.")]
Rule = Annotated[str, typer.Option(help="Name of a rule.")]
Because = Annotated[str, typer.Option("--because", help="Why, for those who look at it later.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    deliveries = typer.Typer(help="What is owed to whom.", no_args_is_help=True)
    deliveries.command("list")(deliveries_list)
    deliveries.command("show")(deliveries_show)
    deliveries.command("hold")(deliveries_hold)
    deliveries.command("release")(deliveries_release)
    deliveries.command("retry")(deliveries_retry)
    deliveries.command("cancel")(deliveries_cancel)
    deliveries.command("expedite")(deliveries_expedite)
    deliveries.command("proof")(deliveries_proof)
    app.add_typer(deliveries, name="deliveries")


def deliveries_list(
    state: Annotated[str, typer.Option(help="owed, sending, sent, confirmed, refused, parked or cancelled.")] = "",
    study: Study = "",
    destination: Destination = "",
    case: CaseKey = "",
    rule: Rule = "",
    limit: Annotated[int, typer.Option(help="How many of the newest.")] = 50,
    by_destination: Annotated[
        bool, typer.Option("--summary", help="Numbers of each destination in place of the list.")
    ] = False,
    as_json: bool = JSON_OPTION,
) -> None:
    """List deliveries, or how each destination stands."""
    from pacsnode.deliver import overview
    from pacsnode.deliver.orders import Orders, Selection

    with _outbox() as (settings, outbox):
        if by_destination:
            lines, holds = overview.summary(outbox), Orders(outbox, "").holds()
            plain = [_plain_line(line, outbox.now_us()) for line in lines]
            held = [vars(hold) for hold in holds]
            told = [*map(_line_in_words, plain)]
            told += [f"held  {hold.kind} {hold.subject}  by {hold.author}  {hold.reason}".rstrip() for hold in holds]
            typer.echo(json.dumps({"destinations": plain, "holds": held}, indent=1) if as_json else "\n".join(told))
            return
        which = Selection(study=study, destination=destination, case=case, rule=rule)
        rows = [_plain(settings, one) for one in overview.select(outbox, which, state, limit)]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for row in rows:
        shown = ("id", "since", "destination", "told", "attempts", "sop_instance_uid", "reason", "proof")
        typer.echo("  ".join(str(row[key]) for key in shown if row[key] != ""))


def deliveries_show(
    number: Annotated[int, typer.Argument(help="Number of a delivery.")], as_json: bool = JSON_OPTION
) -> None:
    """Show one delivery: how it stands, and what happened to it."""
    from pacsnode.deliver import overview
    from pacsnode.deliver.orders import Selection

    with _outbox() as (settings, outbox):
        found = overview.select(outbox, Selection(ids=(number,)), "", 1)
        if not found:
            raise ConfigError(f"there is no delivery {number}")
        row = _plain(settings, found[0])
        row["history"] = [
            {"time": local_time(settings, one["utc_us"]), "event": one["event"], **json.loads(one["detail"])}
            for one in overview.history(outbox, found[0])
        ]
    if as_json:
        typer.echo(json.dumps(row, ensure_ascii=False, indent=1))
        return
    for key, value in row.items():
        if key != "history" and value not in ("", None):
            typer.echo(f"{key:18} {value}")
    for one in row["history"]:
        typer.echo(f"  {one['time']}  {one['event']}  {one.get('reason', '')}".rstrip())


def deliveries_hold(
    study: Study = "", destination: Destination = "", case: CaseKey = "", rule: Rule = "", because: Because = ""
) -> None:
    """Keep here what is owed, and what will be owed, until it is released."""
    kind, subject = _one_of(study, destination, case, rule)
    with _orders() as orders:
        count = orders.hold(kind, subject, because)
    typer.echo(f"{kind} {subject} is held: {count} deliveries wait; what is sent at this moment is not called back")


def deliveries_release(study: Study = "", destination: Destination = "", case: CaseKey = "", rule: Rule = "") -> None:
    """Let go what was held."""
    kind, subject = _one_of(study, destination, case, rule)
    with _orders() as orders:
        found = orders.release(kind, subject)
        held = ", ".join(f"{hold.kind} {hold.subject}" for hold in orders.holds()) or "nothing"
    if not found:
        raise ConfigError(f"{kind} {subject} is not held; held is: {held}")
    typer.echo(f"{kind} {subject} is released")


def deliveries_retry(
    which: Which = "",
    study: Study = "",
    destination: Destination = "",
    case: CaseKey = "",
    rule: Rule = "",
) -> None:
    """Send now what is parked, refused, or waits for its next attempt."""
    selection = _selection(which, study=study, destination=destination, case=case, rule=rule)
    _order(selection, which, lambda orders: orders.retry(selection), "deliveries are tried again")


def deliveries_cancel(
    which: Which = "",
    study: Study = "",
    destination: Destination = "",
    case: CaseKey = "",
    rule: Rule = "",
    because: Because = "",
) -> None:
    """Never send what is owed, parked or refused; `retry` with its number brings one back."""
    selection = _selection(which, study=study, destination=destination, case=case, rule=rule)
    _order(selection, which, lambda orders: orders.cancel(selection, because), "deliveries are cancelled")


def deliveries_expedite(
    which: Which = "",
    study: Study = "",
    destination: Destination = "",
    case: CaseKey = "",
    rule: Rule = "",
) -> None:
    """Send what is owed first and now, outside of its destination's hours too."""
    selection = _selection(which, study=study, destination=destination, case=case, rule=rule)
    _order(selection, which, lambda orders: orders.expedite(selection), "deliveries go first")


def deliveries_proof(
    which: Which = "",
    study: Study = "",
    destination: Destination = "",
    case: CaseKey = "",
    rule: Rule = "",
) -> None:
    """Ask destinations now whether they have what they took and is not proven yet."""
    selection = _selection(which, study=study, destination=destination, case=case, rule=rule)
    _order(selection, which, lambda orders: orders.prove(selection), "deliveries are asked about")


def _order(selection: Selection, which: str, order: Callable[[Orders], int], told: str) -> None:
    with _orders() as orders:
        done = order(orders)
    if not done and which != "all":
        raise ConfigError("no delivery that this could concern; see `pacsnode deliveries list`")
    typer.echo(f"{done} {told}")


def _selection(which: str, **given: str) -> Selection:
    """What the words of the command mean together. Raises ConfigError for none: that would be all."""
    from pacsnode.deliver.orders import Selection

    ids = (int(which),) if which.isdecimal() else ()
    if which not in ("", "all") and not ids:
        if given["destination"]:
            raise ConfigError(f"two destinations, {which} and {given['destination']}; name one")
        given["destination"] = which
    if not which and not any(given.values()):
        raise ConfigError("say which: a number, a destination, --study, --case, --rule, or `all`")
    return Selection(ids, given["study"], given["destination"], given["case"], given["rule"])


def _one_of(study: str, destination: str, case: str, rule: str) -> tuple[HoldKind, str]:
    given: list[tuple[HoldKind, str]] = [
        ("study", study),
        ("destination", destination),
        ("case", case),
        ("rule", rule),
    ]
    named = [(kind, subject) for kind, subject in given if subject]
    if len(named) != 1:
        raise ConfigError("say what, and only that: --destination, --study, --case or --rule")
    return named[0]


@contextmanager
def _outbox() -> Iterator[tuple[Any, Outbox]]:
    from pacsnode.deliver.outbox import Outbox
    from pacsnode.settings import load

    settings = ready(load())
    outbox = Outbox(settings.node_db, 0)
    try:
        yield settings, outbox
    finally:
        outbox.close()


@contextmanager
def _orders() -> Iterator[Orders]:
    """Orders of the user of the command; `work` is woken afterwards."""
    from pacsnode.allowing import author
    from pacsnode.deliver.orders import Orders

    with _outbox() as (settings, outbox):
        yield Orders(outbox, author())
    ring(settings)


def _plain(settings: Any, owed: Owed) -> dict[str, Any]:
    from pacsnode.deliver.overview import told_state

    return {
        "id": owed.id,
        "since": local_time(settings, owed.created_utc_us),
        "destination": owed.destination,
        "state": owed.state,
        "told": told_state(owed),
        "held": owed.held,
        "priority": owed.priority,
        "attempts": owed.attempts,
        "sop_instance_uid": owed.sop_instance_uid,
        "study_instance_uid": owed.study_instance_uid,
        "case": owed.case_key,
        "status": "" if owed.status is None else f"0x{owed.status:04X}",
        "reason": owed.reason,
        "next_attempt": local_time(settings, owed.next_attempt_utc_us) if owed.state == "owed" else "",
        "ended": local_time(settings, owed.ended_utc_us) if owed.ended_utc_us else "",
        "proof": owed.proof,
        "proven": local_time(settings, owed.proven_utc_us) if owed.proven_utc_us else "",
    }


def _plain_line(line: Line, now_utc_us: int) -> dict[str, Any]:
    oldest = line.oldest_owed_utc_us
    return {
        "destination": line.destination,
        **{f"{state}": line.states.get(state, 0) for state in ("owed", "sending", "sent", "confirmed")},
        **{state: line.states.get(state, 0) for state in ("refused", "parked", "cancelled")},
        "held": line.held,
        "waits_for_proof": line.unproven,
        "oldest_owed_s": None if oldest is None else (now_utc_us - oldest) // 1_000_000,
        "sent_last_hour": line.last_hour,
        "fails": line.trouble.failures if line.trouble else 0,
        "because": line.trouble.reason if line.trouble else "",
        "proves_by": line.learned.by if line.learned else "",
        "proof_reason": line.learned.reason if line.learned else "",
    }


def _line_in_words(line: dict[str, Any]) -> str:
    counts = ", ".join(
        f"{line[key]} {key.replace('_', ' ')}"
        for key in ("owed", "held", "sending", "sent", "waits_for_proof", "confirmed", "refused", "parked", "cancelled")
        if line[key]
    )
    oldest = f", oldest owed {line['oldest_owed_s']} s" if line["oldest_owed_s"] is not None else ""
    trouble = f"; DOES NOT ANSWER ({line['fails']} times): {line['because']}" if line["fails"] else ""
    proves = f"; proves by {line['proves_by']}" if line["proves_by"] else ""
    rate = f"; {line['sent_last_hour']} in the last hour"
    return f"{line['destination']}  {counts or 'nothing'}{oldest}{rate}{proves}{trouble}"
