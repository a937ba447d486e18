"""Audit: who sent, decided, ran, delivered. A row is written in the transaction of the fact; never a name or an ID."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Literal

from pacsnode.database import utc_us

Event = Literal[
    "decided",
    "text repaired",
    "case opened",
    "case done",
    "case parked",
    "case retried",
    "case stays incomplete",
    "case in shadow goes live",
    "vendor asked",
    "answer refused",
    "owed",
    "delivered",
    "refused",
    "parked",
    "confirmed",
    "lost at destination",
    "retried",
    "held",
    "released",
    "cancelled",
    "expedited",
    "rules live",
    "bundle allowed",
    "instances rejected",
    "rejection note ignored",
    "case withdrawn",
    "rejection note made",
    "failure told",
]


def record(connection: sqlite3.Connection, event: Event, *, study: str = "", case: str = "", **detail: Any) -> None:
    """Add one row; the caller holds the transaction."""
    connection.execute(
        "INSERT INTO audit (utc_us, event, study_instance_uid, case_key, detail) VALUES (?, ?, ?, ?, ?)",
        (utc_us(), event, study, case, json.dumps(detail, ensure_ascii=False)),
    )
