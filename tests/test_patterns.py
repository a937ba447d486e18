"""Folding, and which regular expressions are taken."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacsnode.patterns import fold, safe_pattern


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CHEST-PA", "chest pa"),
        ("  Chest  P-A(Erect) ", "CHEST P A ERECT"),
        ("ＣＨＥＳＴ＿ＰＡ", "chest pa"),
        ("흉부 정면", unicodedata.normalize("NFD", "흉부　정면")),
        ("흉부(PA)", "흉부/pa"),
        ("Straße", "STRASSE"),
    ],
)
def test_what_a_person_takes_for_the_same_folds_to_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"), [("CHEST", "CHEST PA"), ("흉부", "흉추"), ("1.5", "15"), ("L-SPINE", "LSPINE")]
)
def test_what_differs_in_letters_or_words_stays_different(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@given(st.text())
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize(
    "pattern",
    [
        "chest|흉부",
        r"\b(lat|lateral)\b",
        ".*chest.*pa.*",
        "CHEST",
        "(?:upper|lower) ?ext(remity)?",
        "l ?spine|요추",
        "[0-9]{1,3} ?mm",
        "(?!rib)chest",
        "(?:ab|cd){2}",
        unicodedata.normalize("NFD", "흉부"),
    ],
)
def test_ordinary_patterns_are_taken(pattern: str) -> None:
    assert isinstance(safe_pattern(pattern), re.Pattern)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("(a+)+b", "a repeat inside a repeat"),
        ("(a|aa)*b", "a repeat inside a repeat"),
        ("((a*)b?)*c", "a repeat inside a repeat"),
        ("(?:x?){40}y", "a repeat inside a repeat"),
        ("a?" * 40 + "b", "very long time"),
        (".*a" * 6, "very long time"),
        ("(?=(a+)+b)c", "a repeat inside a repeat"),
        (r"(chest)\1", "refer back"),
        ("chest-pa", "write a space instead of '-'"),
        ("chest_pa", "write a space instead of '_'"),
        ("\bchest", "single quotes"),
        ("[a", "no regular expression"),
        ("x" * 201, "at most 200 characters"),
        ("(" * 90 + ")" * 90 + "{", "write a space instead of '{'"),
    ],
)
def test_a_pattern_that_can_run_for_ever_or_never_match_is_refused(pattern: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        safe_pattern(pattern)


@given(
    st.from_regex(r"[ab]{1,3}([*+?]|\{[0-3],[4-9]\})?[|]?[ab.]{0,3}[*+?]?", fullmatch=True), st.text("ab ", max_size=12)
)
def test_a_taken_pattern_finds_what_python_finds(pattern: str, text: str) -> None:
    try:
        taken = safe_pattern(pattern)
    except ValueError:
        return
    assert (taken.search(text) is None) == (re.search(pattern, text) is None)
