"""What is owed to whom, in numbers and lists for people and monitoring. Reads only; never a name or a PatientID."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pacsnode.deliver.destinations import Destinations, Learned, Trouble
from pacsnode.deliver.orders import Selection
from pacsnode.deliver.outbox import COLUMNS, Outbox, Owed, owed_of

HOUR_US: Final = 3_600_000_000
OLD_US: Final = 24 * HOUR_US
"""What is owed for longer than a day is told by `pacsnode doctor`."""


@dataclass(frozen=True)
class Line:
    """One destination. `states`: rows by state; `held`: those of the owed that an operator holds."""

    destination: str
    states: dict[str, int]
    held: int
    unproven: int
    oldest_owed_utc_us: int | None
    last_hour: int
    trouble: Trouble | None
    learned: Learned | None
    holds: Sequence[str] = field(default_factory=tuple)

    @property
    def failures(self) -> int:
        """Rows that need a person."""
        return self.states.get("parked", 0) + self.states.get("refused", 0)


def summary(outbox: Outbox) -> list[Line]:
    """A line for each destination that ever was owed something, by name."""
    counted = outbox.rows(
        "SELECT destination, state, count(*), sum(held), min(created_utc_us), sum(prove_utc_us IS NOT NULL) "
        "FROM outbox GROUP BY destination, state"
    )
    hour = dict(
        tuple(row)
        for row in outbox.rows(
            "SELECT destination, count(*) FROM outbox WHERE ended_utc_us > ? AND state IN ('sent', 'confirmed') "
            "GROUP BY destination",
            (outbox.now_us() - HOUR_US,),
        )
    )
    held = {str(row[0]) for row in outbox.rows("SELECT subject FROM holds WHERE kind = 'destination'")}
    standing = Destinations(outbox)
    lines = []
    for name in sorted({str(row[0]) for row in counted} | held):
        of_it = {str(row[1]): row for row in counted if row[0] == name}
        waiting = [of_it[state] for state in ("owed", "sending") if state in of_it]
        lines.append(
            Line(
                name,
                {state: int(row[2]) for state, row in of_it.items()},
                sum(int(row[3]) for row in waiting),
                int(of_it["sent"][5]) if "sent" in of_it else 0,
                min((int(row[4]) for row in waiting), default=None),
                hour.get(name, 0),
                standing.trouble(name),
                standing.learned(name),
                (name,) if name in held else (),
            )
        )
    return lines


def select(outbox: Outbox, which: Selection, state: str, limit: int) -> list[Owed]:
    """Rows, newest first; of one state or of all ("")."""
    clause, values = which.where()
    if state:
        clause, values = f"{clause} AND state = ?", [*values, state]
    sql = f"SELECT {COLUMNS} FROM outbox WHERE {clause} ORDER BY id DESC LIMIT ?"  # noqa: S608  # our words
    return [owed_of(row) for row in outbox.rows(sql, [*values, limit])]


def history(outbox: Outbox, owed: Owed, limit: int = 100) -> list[dict[str, Any]]:
    """What the audit says of one delivery, oldest first."""
    rows = outbox.rows(
        "SELECT utc_us, event, detail FROM (SELECT * FROM audit WHERE study_instance_uid = ? AND "
        "json_extract(detail, '$.destination') = ? AND (json_extract(detail, '$.instance') = ? OR "
        "EXISTS (SELECT 1 FROM json_each(detail, '$.instances') WHERE value = ?)) ORDER BY id DESC LIMIT ?) "
        "ORDER BY id",
        (owed.study_instance_uid, owed.destination, owed.sop_instance_uid, owed.sop_instance_uid, limit),
    )
    return [{"utc_us": row[0], "event": row[1], "detail": row[2]} for row in rows]


def told_state(owed: Owed) -> str:
    """The state in the words of a person."""
    if owed.state == "sent":
        return "sent, not proven"
    return "owed, held" if owed.state in ("owed", "sending") and owed.held else owed.state


def problems(outbox: Outbox) -> Iterator[tuple[str, str]]:
    """What a person should look at: (what, what to do)."""
    now = outbox.now_us()
    for line in summary(outbox):
        look = f"see `pacsnode deliveries list --destination {line.destination}`"
        if line.failures:
            yield f"{line.failures} to {line.destination} parked or refused", f"{look}, then `deliveries retry`"
        if line.trouble is not None:
            owed = line.states.get("owed", 0)
            yield (
                f"{line.destination} does not answer, {owed} are owed to it: {line.trouble.reason}",
                "nothing, or mend it there; it is tried again by itself",
            )
        elif line.oldest_owed_utc_us is not None and now - line.oldest_owed_utc_us > OLD_US and not line.holds:
            hours = (now - line.oldest_owed_utc_us) // HOUR_US
            yield f"something is owed to {line.destination} for {hours} hours", look
        if line.holds:
            yield f"{line.destination} is held", "`pacsnode deliveries release` when it may go on"
