"""Logs: one JSON object a line, whatever came over the wire."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from pacsnode.telemetry import LONGEST_VALUE, JsonFormatter, Log, TextFormatter, clean

HOSTILE = [
    'x"}\n{"time": "2026", "event": "forged"}',
    "CR\rLF\nNEL\x85LS\u2028PS\u2029VT\x0bFF\x0c",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe",
    "\x00\x01\x7f\x9b",
    "\udc80\ud800 lone surrogates",
    "홍^길동" * 200,
]


def reject(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def logged(formatter: logging.Formatter, event: str, **fields: Any) -> str:
    lines: list[str] = []

    class Remember(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(formatter.format(record))

    logger = logging.getLogger("tests.telemetry")
    handler = Remember()
    logger.addHandler(handler)
    logger.propagate = False  # pytest would hand what it captured to another process, which takes no lone surrogate
    try:
        Log("tests.telemetry").error(event, **fields)
    finally:
        logger.propagate = True
        logger.removeHandler(handler)
    (line,) = lines
    return line


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
@pytest.mark.parametrize("formatter", [JsonFormatter("scp"), TextFormatter("scp")])
def test_nothing_from_the_wire_makes_a_second_line_or_moves_the_cursor(
    formatter: logging.Formatter, hostile: str
) -> None:
    for line in (logged(formatter, "stored", peer=hostile), logged(formatter, hostile)):
        assert len(line.splitlines()) == 1
        assert line.isprintable()
        line.encode()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_line_is_one_json_object_with_its_own_keys(hostile: str) -> None:
    line = json.loads(logged(JsonFormatter("scp"), "stored", peer=hostile, study="1.2.3"), parse_constant=reject)
    assert list(line) == ["time", "level", "role", "event", "peer", "study"]
    assert (line["level"], line["role"], line["event"], line["study"]) == ("error", "scp", "stored", "1.2.3")
    assert len(line["peer"]) <= LONGEST_VALUE + 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5, 7, True, None, {"a": 1}, [1], b"\n"])
def test_every_value_is_json(value: object) -> None:
    json.loads(logged(JsonFormatter("scp"), "x", value=value), parse_constant=reject)


def test_numbers_stay_numbers() -> None:
    assert [clean(v) for v in (1, 1.5, True, None)] == [1, 1.5, True, None]


def test_an_exception_is_in_the_line_and_not_after_it() -> None:
    lines: list[str] = []

    class Remember(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(JsonFormatter("work").format(record))

    logger = logging.getLogger("tests.telemetry")
    handler = Remember()
    logger.addHandler(handler)
    logger.propagate = False  # pytest would hand what it captured to another process, which takes no lone surrogate
    try:
        raise ValueError("a\nb\x1b[0m")
    except ValueError:
        Log("tests.telemetry").exception("failed")
    finally:
        logger.removeHandler(handler)
    assert len(lines) == 1
    assert "ValueError" in json.loads(lines[0])["exception"]
    assert "\\u001b" not in lines[0]
