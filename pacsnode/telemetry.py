"""Logs: one JSON object a line on stderr, or readable text on a terminal. Never a name, an ID or a pixel.

Keys are the caller's; values are cut and stripped of control characters, so that nothing from the wire forges a line.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from typing import Any

LONGEST_VALUE = 500


class JsonFormatter(logging.Formatter):
    """`{"time": …, "level": …, "role": …, "event": …, key: value}`."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "role": self._role,
            "event": clean(record.getMessage()),
        }
        fields |= {k: clean(v) for k, v in getattr(record, "fields", {}).items()}
        if record.exc_info:
            fields["exception"] = clean(self.formatException(record.exc_info), 4000)
        return json.dumps(fields, ensure_ascii=False)


class TextFormatter(JsonFormatter):
    """The same for a person at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        fields = json.loads(super().format(record))
        clock, level, role, event = (fields.pop(k) for k in ("time", "level", "role", "event"))
        rest = " ".join(f"{k}={v}" for k, v in fields.items())
        return f"{clock[11:23]} {level:7} {role:5} {event} {rest}".rstrip()


def clean(value: Any, longest: int = LONGEST_VALUE) -> Any:
    """`value` fit for a log line: numbers as they are, text printable and cut."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value  # JSON has no word for the others
    text = str(value)
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable if len(printable) <= longest else printable[:longest] + "…"


def configure(role: str, level: str) -> None:
    """Send all logging of this process to stderr, named by its role."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter(role) if sys.stderr.isatty() else JsonFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("dbos", "alembic", "pydicom", "pynetdicom", "highdicom", "sqlalchemy"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


class Log:
    """`log.info("stored", study=uid)`: an event in words, facts as keys."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: Any) -> None:
        self._logger.error(event, extra={"fields": fields})

    def exception(self, event: str, **fields: Any) -> None:
        self._logger.exception(event, extra={"fields": fields})
