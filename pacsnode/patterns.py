"""Text of people, made comparable: folding, and regular expressions that cannot run for long.

In: text of an attribute or of a rule. Out: folded text, or a compiled pattern. Pure; raises ValueError with a sentence
for the person who wrote the pattern.

Python's `re` backtracks: `(a+)+b` needs years for 40 characters. So a pattern is measured before it is taken: an upper
bound of the ways in which it can be laid over MAX_SUBJECT characters. The worst patterns under MAX_STEPS that we found
(`a?` sixteen times, then `[ab]{60}c`, on 128 a) took 3 s on one core; ordinary ones take microseconds.
"""

from __future__ import annotations

import importlib
import math
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

MAX_PATTERN = 200
MAX_SUBJECT = 128
"""Folded characters of a value that a pattern looks at; LO holds 64 (PS3.5 6.2)."""
MAX_STEPS = 1 << 24

# The parser that `re` itself uses. It is private, but its tree is the only one that cannot disagree with the engine.
_tree: Any = importlib.import_module("re._parser")


@lru_cache(maxsize=65536)
def fold(text: str) -> str:
    """NFKC, case-folded, each run of punctuation and white space one space, trimmed."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = [mark if mark.isalnum() or unicodedata.category(mark)[0] == "M" else " " for mark in plain]
    return " ".join("".join(kept).split())


def safe_pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern that is searched in folded text of at most MAX_SUBJECT characters."""
    if len(text) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters, this one {len(text)}")
    plain = unicodedata.normalize("NFC", text)  # composed Hangul, as folding leaves it
    try:
        tree = _tree.parse(plain, re.IGNORECASE)
        compiled = re.compile(plain, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    cost = _Cost()
    ways = cost.of(tree)
    if math.comb(MAX_SUBJECT + cost.stars + 1, cost.stars + 1) * ways > MAX_STEPS:
        raise ValueError(f"{text!r} may run for a very long time: at most three * or +, and few ? and |")
    return compiled


class _Cost:
    """Counts the ways to lay a parsed pattern over a text: `stars` by name, all others as a factor."""

    def __init__(self) -> None:
        self.stars = 0

    def of(self, tree: Sequence[Any]) -> int:
        return math.prod(self._item(str(name), argument) for name, argument in tree)

    def _item(self, name: str, argument: Any) -> int:
        match name:
            case "LITERAL":
                mark = chr(argument)
                if mark == "\b":  # YAML reads "\b" in double quotes as a backspace
                    raise ValueError("a backspace is in the pattern: put patterns with a \\ in single quotes")
                if not (mark.isspace() or mark.isalnum() or unicodedata.category(mark)[0] == "M"):
                    raise ValueError(f"punctuation is looked at as a space: write a space instead of {mark!r}")
                return 1
            case "BRANCH":
                return sum(self.of(alternative) for alternative in argument[1])
            case "SUBPATTERN":
                return self.of(argument[3])
            case "ATOMIC_GROUP":
                return self.of(argument)
            case "ASSERT" | "ASSERT_NOT":
                return self.of(argument[1])
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                return self._repeat(*argument)
            case "GROUPREF" | "GROUPREF_EXISTS":
                raise ValueError("a pattern cannot refer back to a group of its own")
        return 1  # one character, or a place

    def _repeat(self, low: int, high: int, body: Sequence[Any]) -> int:
        before = self.stars
        ways = self.of(body)
        if (int(high) > 1 and self.stars > before) or (int(high) > 16 and ways > 1):
            raise ValueError("a repeat inside a repeat, or | inside a repeat, may run for a very long time")
        if int(high) - int(low) > 16:
            self.stars += 1
            return 1
        if ways == 1:
            return int(high) - int(low) + 1
        return sum(ways**times for times in range(int(low), int(high) + 1))
