"""Subjects: one grammar, one spelling, one glob."""

from __future__ import annotations

import pytest

from callerid.identity.names import (
    canonical,
    glob_match,
    is_name,
    is_selector,
    make_subject,
    parse_subject,
)
from callerid.identity.tokens import mint


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        pytest.param("user:Alice@Corp.Example", "user:alice@corp.example", id="an address is folded"),
        pytest.param("user:00uALICE", "user:00uALICE", id="an opaque id keeps its case"),
        pytest.param("workload:Ci-Docs", "workload:Ci-Docs", id="a workload keeps its case"),
        pytest.param(
            "user:mi\u212ae@corp.example", "user:mi\u212ae@corp.example", id="a Kelvin sign is no k"
        ),
        pytest.param("user:", None, id="no name"),
        pytest.param("alice", None, id="no kind"),
        pytest.param("agent:claude", None, id="a kind that is no principal"),
        pytest.param("user:a b", None, id="a space"),
        pytest.param("user:a\nb", None, id="a line end"),
        pytest.param("user:a\u202eb", None, id="a direction mark"),
        pytest.param("user:\ud800", None, id="a surrogate"),
        pytest.param("user:" + "a" * 513, None, id="too long"),
    ],
)
def test_a_subject_has_one_spelling(text: str, subject: str | None) -> None:
    assert parse_subject(text) == subject


def test_a_token_of_ours_is_no_name_and_stands_in_none() -> None:
    secret = mint(bytes(range(32)))
    assert not is_name(secret)
    assert not is_selector(f"http:GET /v1/{secret}")
    assert make_subject("user", f"x{secret}y") is None
    assert is_name(secret[:-1] + ("a" if secret[-1] != "a" else "b"))  # no token, by its checksum


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("get_*", True),
        ("set:reads", True),
        ("http:GET /v1/**", True),
        ("http:* /v1/charges/*", True),
        ("http:GET  /v1", False),
        ("http:GET /a b", False),
        ("http: /a", False),
        ("http:GET ", False),
        ("http:GET v1", False),
        ("tool:GET /v1", False),
        ("a b", False),
        ("http:GET /" + "a" * 512, False),
        (7, False),
    ],
)
def test_a_selector_is_a_name_or_a_call_of_an_api(text: object, answer: bool) -> None:
    assert is_selector(text) is answer


def test_only_texts_are_names() -> None:
    assert not is_name(None)
    assert make_subject("user", ["alice"]) is None
    assert canonical("group:A@B") == "group:A@B"


@pytest.mark.parametrize(
    ("pattern", "text", "answer"),
    [
        ("repo:corp/docs:*", "repo:corp/docs:ref:refs/heads/main", True),
        ("repo:corp/docs:*", "repo:corp/docs-evil:ref", False),
        ("repo:corp/docs", "repo:corp/docs:ref", False),
        ("*main", "refs/heads/domain/main", True),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-b-b", False),
        ("?", "", False),
        ("?", "é", True),
        ("*", "", True),
        ("", "", True),
        ("", "a", False),
        ("main", "Main", False),
        ("[ab]", "a", False),
    ],
)
def test_a_glob_matches_the_whole_text(pattern: str, text: str, answer: bool) -> None:
    assert glob_match(pattern, text) is answer


def test_a_glob_cannot_be_made_to_run_away() -> None:
    assert not glob_match("*a" * 30 + "b", "a" * 2_000)
