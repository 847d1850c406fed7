"""Subjects: one grammar, one spelling, one glob."""

from __future__ import annotations

import pytest

from callerid.identity.names import canonical, glob_match, is_name, make_subject, parse_subject


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
