"""Globs are fnmatchcase's and regular expressions are RE2's, both on the whole text and in linear time."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from callerid.policy.patterns import BadPattern, glob, is_glob, regex


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("read_file", "read_file", True),
        ("read_file", "read_files", False),
        ("read_file", "Read_file", False),
        ("read_*", "read_", True),
        ("read_*", "xread_a", False),
        ("*_file", "read_file", True),
        ("*", "", True),
        ("*", "a\nb/c", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "acb", False),
        ("ab*ba", "aba", False),
        ("a**b", "ab", True),
        ("?", "é", True),
        ("?", "ab", False),
        ("[ab]x", "bx", True),
        ("[!ab]x", "cx", True),
        ("[!ab]x", "ax", False),
        ("[a-c]", "b", True),
        ("[]]", "]", True),
        ("[", "[", True),
        ("[a", "[a", True),
        ("[^a]", "^", True),
        ("[a-]", "-", True),
        ("a.b", "axb", False),
        ("a\\d", "a\\d", True),
        ("?\n", "a\n", True),
    ],
)
def test_globs(pattern: str, text: str, matches: bool) -> None:
    assert glob(pattern)(text) is matches
    assert fnmatch.fnmatchcase(text, pattern) is matches


@settings(max_examples=400, deadline=None)
@given(st.text("ab*?[]!-^.\\n", max_size=8), st.text("ab[]!-^.\\n\n", max_size=8))
def test_globs_agree_with_fnmatchcase(pattern: str, text: str) -> None:
    try:
        matcher = glob(pattern)
    except BadPattern:
        assume(False)
    assert matcher(text) is fnmatch.fnmatchcase(text, pattern)


def test_a_range_that_is_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(BadPattern, match="wrong way round"):
        glob("[z-a]")


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("[a-z]+", "abc", True),
        ("[a-z]+", "abc1", False),
        ("[a-z]+", "abc\n", False),
        ("a|b", "b", True),
        ("a|ab", "ab", True),
        ("^a$", "a", True),
        ("^a$", "a\n", False),
        (".*", "a\nb", True),
        (r"\d+", "٣", False),
        (r"\w+", "é", False),
        ("(?i)abc", "ABC", True),
    ],
)
def test_a_regular_expression_matches_the_whole_text(pattern: str, text: str, matches: bool) -> None:
    assert regex(pattern)(text) is matches


@pytest.mark.parametrize("pattern", ["(", "(?=a)", "(?<!a)b", r"(a)\1", "a{2000}", "[z-a]", "*"])
def test_what_re2_does_not_take_is_refused_in_words(pattern: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadPattern, match="RE2 does not take it"):
        regex(pattern)
    assert capfd.readouterr().err == ""


def test_a_surrogate_is_neither_a_match_nor_none() -> None:
    assert regex(".*")("\ud800") is None
    assert glob("a?")("a\ud800") is None
    assert glob("a*")("a\ud800") is True


def test_a_pattern_that_stops_backtracking_engines_is_harmless() -> None:
    assert regex(r"^([a-zA-Z0-9_.]+)*@corp\.example$")("a" * 5_000) is False
    assert glob("*a" * 30 + "*b")("a" * 5_000) is False


@pytest.mark.parametrize(("pattern", "is_one"), [("a", False), ("a*", True), ("a?", True), ("[a]", True)])
def test_what_a_glob_is(pattern: str, is_one: bool) -> None:
    assert is_glob(pattern) is is_one
