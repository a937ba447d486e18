"""What an operator's holds do to rows of the outbox, as parts of SQL. A hold concerns what is owed later too."""

from __future__ import annotations

from typing import Final, Literal

HoldKind = Literal["destination", "study", "case", "rule"]

HELD: Final = """EXISTS (SELECT 1 FROM holds h WHERE
    (h.kind = 'destination' AND h.subject = outbox.destination) OR
    (h.kind = 'study' AND h.subject = outbox.study_instance_uid) OR
    (h.kind = 'case' AND h.subject = outbox.case_key) OR
    (h.kind = 'rule' AND h.subject IN (SELECT value FROM json_each(outbox.rules))))"""
"""Whether a hold concerns a row of `outbox`: asked when the row becomes owed, and kept in `held`."""
OWED_ANEW: Final = (
    "state = 'owed', attempts = 0, lost = 0, reason = '', ended_utc_us = NULL, status = NULL, proof = '', "
    f"prove_utc_us = NULL, proven_utc_us = NULL, asked = 0, question = '', held = {HELD}"
)
"""What an UPDATE sets that owes a row as if it had never been tried."""
