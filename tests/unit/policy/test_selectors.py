"""The scope: who, and which tools, resources, prompts and methods."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callerid.model import Kind
from callerid.policy.selectors import (
    MAX_NAME,
    BadSelector,
    compile_tools,
    compile_who,
    is_plain_uri,
    split_selector,
    subject_of,
)

SETS = {"read_tools": ("get_*", "read_file", "resource:file:///pub/*")}
GROUPS = frozenset({"engineering"})


@pytest.mark.parametrize(
    ("selectors", "subject", "groups", "agent", "covers"),
    [
        (["anyone"], "user:x", frozenset(), None, True),
        (["user:alice@corp.example"], "user:alice@corp.example", frozenset(), None, True),
        (["user:Alice@Corp.Example"], "user:alice@corp.example", frozenset(), None, True),
        (["user:alice@corp.example"], "user:bob@corp.example", frozenset(), None, False),
        (["user:ci-docs"], "workload:ci-docs", frozenset(), None, False),
        (["workload:ci-docs"], "workload:ci-docs", frozenset(), None, True),
        (["workload:CI-docs"], "workload:ci-docs", frozenset(), None, False),
        (["group:engineering"], "user:x", GROUPS, None, True),
        (["group:Engineering"], "user:x", GROUPS, None, False),
        (["group:interns"], "user:x", GROUPS, None, False),
        (["agent:claude-code"], "user:x", GROUPS, "claude-code", True),
        (["agent:claude-code"], "user:x", GROUPS, None, False),
        (["agent:claude-code"], "user:claude-code", frozenset({"claude-code"}), "other", False),
        (["group:interns", "agent:claude-code"], "user:x", frozenset(), "claude-code", True),
    ],
)
def test_who(
    selectors: list[str], subject: str, groups: frozenset[str], agent: str | None, covers: bool
) -> None:
    agents = () if agent is None else (agent,)
    assert compile_who(selectors).covers(subject, groups, agents) is covers


@pytest.mark.parametrize(
    ("selectors", "kind", "name", "covers"),
    [
        (["read_file"], Kind.TOOL, "read_file", True),
        (["read_file"], Kind.TOOL, "Read_file", False),
        (["read_file"], Kind.PROMPT, "read_file", False),
        (["read_file"], Kind.METHOD, "read_file", False),
        (["read_*"], Kind.TOOL, "read_x", True),
        (["*"], Kind.TOOL, "a/b\nc", True),
        (["*"], Kind.RESOURCE, "file:///x", False),
        (["*"], Kind.METHOD, "x/y", False),
        (["set:read_tools"], Kind.TOOL, "get_page", True),
        (["set:read_tools"], Kind.TOOL, "write_file", False),
        (["set:read_tools"], Kind.RESOURCE, "file:///pub/a", True),
        (["tool:x:y"], Kind.TOOL, "x:y", True),
        (["tool:set:*"], Kind.TOOL, "set:x", True),
        (["prompt:sum*"], Kind.PROMPT, "summary", True),
        (["prompt:sum*"], Kind.TOOL, "summary", False),
        (["method:logging/setLevel"], Kind.METHOD, "logging/setLevel", True),
        (["method:logging/setLevel"], Kind.METHOD, "logging/setlevel", False),
        (["resource:file:///srv/team/*"], Kind.RESOURCE, "file:///srv/team/a/b", True),
        (["resource:file:///srv/team/*"], Kind.RESOURCE, "file:///srv/other", False),
        (["resource:*"], Kind.RESOURCE, "file:///srv/team/../x", True),
        (["resource:file:///srv/team/../x"], Kind.RESOURCE, "file:///srv/team/../x", True),
        (["resource:file:///srv/team/*"], Kind.RESOURCE, "file:///srv/team/../../etc/passwd", None),
        (["resource:file:///srv/team/*"], Kind.RESOURCE, "file:///srv/team/%2e%2e/etc/passwd", None),
        (["resource:file:///srv/team/*"], Kind.RESOURCE, "file:///srv/team/..%2fetc/passwd", None),
        (["resource:file:///etc/*"], Kind.RESOURCE, "FILE:///etc/passwd", None),
        (["resource:file:///etc/*"], Kind.RESOURCE, "file:///%65tc/passwd", None),
        (["resource:file:///etc/passwd"], Kind.RESOURCE, "file:///etc//passwd", None),
        (["prompt:x", "y"], Kind.RESOURCE, "file:///etc//passwd", False),
        ([], Kind.TOOL, "x", False),
    ],
)
def test_tools(selectors: list[str], kind: Kind, name: str, covers: bool | None) -> None:
    assert compile_tools(selectors, SETS).covers(kind, name) is covers


@pytest.mark.parametrize(
    ("selector", "message", "hint"),
    [
        ("class:write", "not supported yet", "no guard is ever ignored"),
        ("ressource:x", "unknown kind of selector 'ressource:'", "tool:ressource:x"),
        ("set:nope", "unknown set 'nope'", ""),
        ("prompt:", "nothing is named", ""),
        ("resource:", "nothing is named", ""),
        ("method:tools/*", "exact method", ""),
        ("[z-a]", "wrong way round", ""),
    ],
)
def test_a_selector_that_is_refused(selector: str, message: str, hint: str) -> None:
    with pytest.raises(BadSelector) as caught:
        compile_tools([selector], SETS)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_set_holds_no_sets() -> None:
    with pytest.raises(BadSelector):
        split_selector("set:other")


@pytest.mark.parametrize(
    "uri",
    [
        "file:///srv/team/a", "https://h.example/a?b=/../c", "https://h.example", "urn:isbn:12", "wiki://docs/Start",
        "file:///a%20b", "ui://app/x#y", "note:é", "https://h.example/a/", "file:///a/b.md", "db://t?x=%2e",
    ],
)  # fmt: skip
def test_a_uri_with_one_reading(uri: str) -> None:
    plain = "%2e" not in uri
    assert is_plain_uri(uri) is plain


@pytest.mark.parametrize(
    "uri",
    [
        "srv/team", "", ":", "File:///a", "file://Host/a", "file:///a/../b", "file:///a/./b", "file:///a//b",
        "file:////a", "file:///a%2Fb", "file:///a%5cb", "file:///%61", "file:///a%", "file:///a%zz", "file:///a\\b",
        "file:///a\nb", "file:///a b", "https://u@h.example/", "https://h%2eexample/", "file:///a%00",
        "note:..", "https://h\u00e9.example/", "file:///\ud800",
    ],
)  # fmt: skip
def test_a_uri_with_more_than_one(uri: str) -> None:
    assert not is_plain_uri(uri)


@pytest.mark.parametrize(
    ("kind", "method", "name", "subject"),
    [
        (Kind.TOOL, "tools/call", "x", "x"),
        (Kind.METHOD, "logging/setLevel", None, "logging/setLevel"),
        (Kind.TOOL, "tools/call", None, None),
        (Kind.TOOL, "tools/call", "", None),
        (Kind.TOOL, "tools/call", 5, None),
        (Kind.TOOL, "tools/call", "\ud800", None),
        (Kind.TOOL, "tools/call", "x" * MAX_NAME, "x" * MAX_NAME),
        (Kind.TOOL, "tools/call", "x" * (MAX_NAME + 1), None),
    ],
)
def test_what_rules_match_on(kind: Kind, method: str, name: str, subject: str | None) -> None:
    assert subject_of(kind, method, name) == subject


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(Kind)), st.text(max_size=30))
def test_tools_are_total(kind: Kind, name: str) -> None:
    tools = compile_tools(["a*", "resource:file:///a/*", "prompt:?", "[ab]"], {})
    assert tools.covers(kind, name) in (True, False, None)
